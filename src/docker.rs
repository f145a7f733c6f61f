//! Docker, reached through its command line only. This module knows no functions, no HTTP and no pool.
//!
//! Every command has a deadline. To kill the docker *client* never stops a container, so the holder of a [`Container`]
//! must remove the container. All containers and images carry the labels of [`label`], by which the platform finds them
//! again.

mod build;
mod command;
mod container;
mod download;
mod error;
mod extract;
mod failure;
pub mod health;
mod image_registry;
mod layer;
mod log;
mod mask;
pub mod platform;
mod repository;
pub mod retry;
mod run_spec;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

pub use build::{BuildError, BuildSpec};
pub use container::{Container, ContainerState};
pub use download::{DownloadSpec, Downloaded};
pub use error::{DockerError, is_disk_full};
pub use extract::ExtractSpec;
pub use failure::{Cause, Failure};
pub use image_registry::ImageRegistryError;
pub use layer::{Filler, Layer};
pub use log::LiveLog;
pub use mask::Mask;
pub use repository::RepositoryError;
pub use run_spec::{Mount, Program, RunSpec};

use crate::docker::error::{failed, is_missing, unexpected};
use crate::docker::health::{Health, Monitor};
use crate::docker::retry::Retries;
use crate::domain::ImageId;

/// The labels on the platform's images and containers.
pub mod label {
    /// The id of the platform that made the image or the container, see [`crate::docker::platform`].
    pub const PLATFORM: &str = "youtube-serverless.platform";
    /// The id of the run that made the image or the container. A run lasts from a start of the service to its stop.
    pub const RUN: &str = "youtube-serverless.run";
    /// The function's id.
    pub const FUNCTION_ID: &str = "youtube-serverless.function.id";
    /// The function's name.
    pub const FUNCTION_NAME: &str = "youtube-serverless.function.name";
    /// The number of the function's version.
    pub const VERSION: &str = "youtube-serverless.function.version";
    /// The function's language. Runtime images, which all platforms share, carry only this label, [`RUNTIME`] and
    /// [`CREATED`].
    pub const LANGUAGE: &str = "youtube-serverless.language";
    /// The tag of the image that holds the function's installed packages.
    pub const PACKAGES: &str = "youtube-serverless.packages";
    /// The folder where the interpreter looks for installed packages. Only installer images carry this label.
    pub const SITE: &str = "youtube-serverless.site";
    /// The tag of the runtime image, which is a hash of its content. Images that are made on top inherit the label.
    pub const RUNTIME: &str = "youtube-serverless.runtime";
    /// The time at which the image or the container was made, in Unix seconds.
    pub const CREATED: &str = "youtube-serverless.created";
}

const VERSION_LIMIT: Duration = Duration::from_secs(4);
const QUERY_LIMIT: Duration = Duration::from_secs(10);
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two checks whether Docker answers.
const ASK_PERIOD: Duration = Duration::from_secs(2);

/// The pauses before further tries to remove a container that was not found after its client was killed. A container is
/// never started without its client, but a busy daemon may still create the container.
const LOOKS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];

/// The Docker that the docker client of this machine reaches.
#[derive(Clone, Debug)]
pub struct Docker {
    health: Health,
    /// The removals of containers that are tried again.
    removals: Arc<Retries>,
}

/// An image as `docker image inspect` shows the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedImage {
    /// The image's id.
    pub id: ImageId,
    /// The image's size in bytes, with the layers that other images share.
    pub size: u64,
}

/// An image as `docker images` lists the image.
#[derive(Debug)]
pub struct ListedImage {
    /// The image's id.
    pub id: String,
    /// The image's repository, `<none>` for a dangling image.
    pub repository: String,
    /// The image's tag, `<none>` for a dangling image.
    pub tag: String,
}

impl Docker {
    /// A client that repeats no removal while `health` knows of trouble.
    pub fn new(health: Health) -> Self {
        let removals = Arc::new(Retries::new("a container could not be removed", health.clone()));
        Self { health, removals }
    }

    /// Checks repeatedly whether Docker answers, until `stop` is cancelled.
    pub async fn watch(&self, monitor: Monitor, stop: CancellationToken) {
        loop {
            let asked_at = Instant::now();
            monitor.note(asked_at, self.version().await.err().map(|error| error.to_string()));
            tokio::select! {
                () = time::sleep(ASK_PERIOD) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The result of the latest check whether Docker answers.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The daemon's version. Fails when no daemon answers.
    pub async fn version(&self) -> Result<String, DockerError> {
        let said = query("version", VERSION_LIMIT, ["version", "--format", "{{.Server.Version}}"]).await?;
        Ok(said.trim().to_owned())
    }

    /// The folder on the daemon's machine where the daemon keeps images and containers.
    pub async fn root_dir(&self) -> Result<PathBuf, DockerError> {
        let said = query("info", QUERY_LIMIT, ["info", "--format", "{{.DockerRootDir}}"]).await?;
        Ok(said.trim().into())
    }

    /// Inspects an image by its name or id. None when there is no such image.
    pub async fn image(&self, reference: &str) -> Result<Option<InspectedImage>, DockerError> {
        let args = ["image", "inspect", "--format", "{{.Id}} {{.Size}}", "--", reference];
        match query("image inspect", QUERY_LIMIT, args).await {
            Ok(said) => inspected(said.trim()).map(Some).ok_or_else(|| unexpected("image inspect", &said)),
            Err(DockerError::Failed { message, .. }) if is_missing(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a label on an image, empty when the image has no such label. None when there is no such image.
    pub async fn label(&self, reference: &str, label: &str) -> Result<Option<String>, DockerError> {
        let format = format!("{{{{index .Config.Labels {label:?}}}}}");
        match query("image inspect", QUERY_LIMIT, ["image", "inspect", "--format", &format, "--", reference]).await {
            Ok(said) => Ok(Some(said.trim().to_owned())),
            Err(DockerError::Failed { message, .. }) if is_missing(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The images that match all `filters`, with or without a name. The filters have the form that `docker images`
    /// takes.
    pub async fn images(&self, filters: &[&str]) -> Result<Vec<ListedImage>, DockerError> {
        let mut args = vec!["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}} {{.Tag}}"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        let said = query("images", QUERY_LIMIT, args).await?;
        said.lines().map(listed).collect::<Option<_>>().ok_or_else(|| unexpected("images", &said))
    }

    /// Removes an image by name or id. Succeeds when the image is already gone. Fails while a container uses the image.
    pub async fn remove_image(&self, reference: &str) -> Result<(), DockerError> {
        match query("image rm", REMOVE_LIMIT, ["image", "rm", "--", reference]).await {
            Err(DockerError::Failed { message, .. }) if is_missing(&message) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes an image as [`Docker::remove_image`] does, but keeps its unnamed parent images.
    pub async fn remove_image_only(&self, reference: &str) -> Result<(), DockerError> {
        match query("image rm", REMOVE_LIMIT, ["image", "rm", "--no-prune", "--", reference]).await {
            Err(DockerError::Failed { message, .. }) if is_missing(&message) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The names of the containers, running or not, that carry all of the labels but not the label `without`.
    pub async fn containers(&self, labels: &[&str], without: Option<&str>) -> Result<Vec<String>, DockerError> {
        let mut args: Vec<String> = ["ps", "--all", "--no-trunc", "--format", "{{.Names}}"].map(str::to_owned).into();
        args.extend(labels.iter().map(|label| format!("--filter=label={label}")));
        let all = query("ps", QUERY_LIMIT, &args).await?;
        let Some(label) = without else { return Ok(all.lines().map(str::to_owned).collect()) };
        args.push(format!("--filter=label={label}"));
        let excluded = query("ps", QUERY_LIMIT, &args).await?;
        let excluded: Vec<&str> = excluded.lines().collect();
        Ok(all.lines().filter(|name| !excluded.contains(name)).map(str::to_owned).collect())
    }

    /// The names of the containers that carry all of the labels and do not run.
    pub async fn ended_containers(&self, labels: &[&str]) -> Result<Vec<String>, DockerError> {
        let mut args: Vec<String> = ["ps", "--all", "--no-trunc", "--format", "{{.Names}}"].map(str::to_owned).into();
        args.extend(["created", "exited", "dead"].map(|status| format!("--filter=status={status}")));
        args.extend(labels.iter().map(|label| format!("--filter=label={label}")));
        Ok(query("ps", QUERY_LIMIT, &args).await?.lines().map(str::to_owned).collect())
    }

    /// Ends and removes a container. False when there was no container of that name.
    pub async fn remove_container(&self, name: &str) -> Result<bool, DockerError> {
        let args = ["rm", "--force", "--volumes", "--", name];
        let output = command::run(args, REMOVE_LIMIT, &CancellationToken::new()).await?;
        // For a container that does not exist, the exit status depends on the client's version, but the message does
        // not.
        match output.stderr.trim() {
            said if is_missing(said) => Ok(false),
            _ if output.status.success() => Ok(true),
            said => Err(failed("rm", said)),
        }
    }

    /// Removes a container whose client has ended, although the container may come late. A container that can't be
    /// removed now is found by its labels later.
    async fn remove_late_container(&self, name: &str) {
        for pause in [Duration::ZERO].into_iter().chain(LOOKS) {
            time::sleep(pause).await;
            match self.remove_container(name).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(container.name = name, %error, "failed to remove a container"),
            }
        }
    }
}

fn listed(line: &str) -> Option<ListedImage> {
    let mut words = line.split(' ').map(str::to_owned);
    Some(ListedImage { id: words.next()?, repository: words.next()?, tag: words.next()? })
}

fn inspected(said: &str) -> Option<InspectedImage> {
    let (id, size) = said.split_once(' ')?;
    Some(InspectedImage { id: ImageId::parse(id)?, size: size.parse().ok()? })
}

/// Runs a command and returns its stdout. An exit status other than 0 is an error.
async fn query<A: AsRef<std::ffi::OsStr>>(
    name: &'static str,
    limit: Duration,
    args: impl IntoIterator<Item = A>,
) -> Result<String, DockerError> {
    let output = command::run(args, limit, &CancellationToken::new()).await?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed(name, &output.stderr)) }
}
