//! Makes an image from another image and an archive, in one pass. A build is slower, because a build unpacks an archive
//! twice.

use std::fs::File;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Docker, DockerError, command, failed};

/// The most bytes that are read of the message of `docker cp`.
const MAX_SAID: u64 = 64 << 10;

/// A container that is filled and committed, but never started. The holder must call [`Layer::remove`] in the end.
#[must_use]
#[derive(Debug)]
pub struct Layer {
    docker: Docker,
    name: String,
    filling: Filling,
}

/// The client that fills the container. None before its start.
type Filling = Arc<Mutex<Option<Child>>>;

/// Starts to fill a container. The daemon locks the container during the fill, and removals of all images wait for this
/// lock. So the fill must start only when the whole archive can be written without a wait.
#[must_use]
#[derive(Debug)]
pub struct Filler {
    name: String,
    filling: Filling,
}

impl Filler {
    /// Starts the client, and returns the pipe that takes the archive.
    pub fn start(self) -> std::io::Result<File> {
        let mut client = command::docker();
        client.args(["cp", "-", &format!("{}:/", self.name)]);
        client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut client = client.spawn()?;
        let pipe = client.stdin.take().expect("stdin is piped").into_owned_fd()?;
        *self.filling.lock() = Some(client);
        Ok(File::from(pipe))
    }
}

impl Layer {
    /// Creates the container, and returns the layer with its filler. The committed image carries the labels, too.
    pub async fn create(
        docker: &Docker,
        name: String,
        image: &str,
        labels: &[(&'static str, String)],
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(Self, Filler), DockerError> {
        let mut args: Vec<String> = ["create", "--network=none", "--pull=never"].map(str::to_owned).into();
        args.push(format!("--name={name}"));
        args.extend(labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        // A container needs a program, and an image that is only a base has no program.
        args.extend(["--", image, "true"].map(str::to_owned));
        let created = command::run(args, limit, stop)
            .await
            .and_then(|output| if output.status.success() { Ok(()) } else { Err(failed("create", &output.stderr)) });
        if let Err(error) = created {
            docker.remove_late_container(&name).await;
            return Err(error);
        }
        let filling = Filling::default();
        let filler = Filler { name: name.clone(), filling: Arc::clone(&filling) };
        Ok((Self { docker: docker.clone(), name, filling }, filler))
    }

    fn client(&self) -> Option<Child> {
        self.filling.lock().take()
    }

    /// Waits until the whole archive is in the container, and makes the image `tag` from the container.
    pub async fn commit(&self, tag: &str, limit: Duration, stop: &CancellationToken) -> Result<(), DockerError> {
        let mut said = String::new();
        let mut client = self.client().ok_or_else(|| failed("cp", "nothing was to be copied"))?;
        let stderr = client.stderr.take().expect("stderr is piped, and taken once");
        let filled = async {
            stderr.take(MAX_SAID).read_to_string(&mut said).await?;
            client.wait().await
        };
        let status = tokio::select! {
            status = filled => status.map_err(DockerError::Spawn),
            () = time::sleep(limit) => Err(DockerError::Timeout { limit }),
            () = stop.cancelled() => Err(DockerError::Cancelled),
        };
        if status.is_err() {
            command::kill_and_wait(&mut client).await;
        }
        let status = status?;
        if !status.success() {
            return Err(failed("cp", &said));
        }
        let output = command::run(["commit", "--", &self.name, tag], limit, stop).await?;
        if output.status.success() { Ok(()) } else { Err(failed("commit", &output.stderr)) }
    }

    /// Removes the container. A container that can't be removed now is found by its labels later.
    pub async fn remove(self) {
        if let Some(mut client) = self.client() {
            command::kill_and_wait(&mut client).await;
        }
        self.docker.remove_late_container(&self.name).await;
    }
}
