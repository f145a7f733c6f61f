//! Builds a function's image from its package.

mod dockerfile;
mod error;
mod hints;
mod leftovers;
pub mod package;
mod packages;
mod request;
pub mod runtime_image;
mod sharing;
mod tree;
mod turn;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::build::package::Program;
use crate::build::runtime_image::{RuntimeError, Runtimes};
use crate::config::{BuildNetwork, Builds, ImageBuilder};
use crate::docker::health::Health;
use crate::docker::platform::Platform;
use crate::docker::{self, BuildSpec, Docker, DockerError, InspectedImage, LiveLog, label};
use crate::domain::{FunctionName, Image, Language, VersionId};
use crate::resources::scratch::Scratch;
use crate::telemetry::metrics;

use error::result_of;
use packages::{Held, Job, Packages};
use turn::Turns;

pub use error::BuildError;
pub use tree::TreeError;
pub use turn::{Place, Turn};

/// The folder of a build context that holds the package. The context's root is the service's own, so that no file of
/// the package can steer the build.
pub const CODE_FOLDER: &str = "app";
/// The folder of a build context that holds a symbolic link to the code, named like the function's own Python package.
const PACKAGE_FOLDER: &str = "package";

/// Builds and removes the images of versions, with at most MAX_CONCURRENT_BUILDS builds at one time.
#[derive(Clone, Debug)]
pub struct Builder {
    docker: Docker,
    runtimes: Arc<Runtimes>,
    platform: Arc<Platform>,
    packages: Arc<Packages>,
    config: Builds,
    turns: Turns,
    /// Whether builds or removals left images in Docker that are to be removed in a moment without builds.
    has_leftovers: Arc<AtomicBool>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The parts that the builder is made of.
pub(crate) struct BuilderParts {
    pub(crate) docker: Docker,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) platform: Arc<Platform>,
    pub(crate) config: Builds,
    pub(crate) scratch: Scratch,
    /// Has the tasks that remove the leftovers of builds.
    pub(crate) tasks: TaskTracker,
    /// Ends these tasks.
    pub(crate) stop: CancellationToken,
}

/// How many times, and at which interval, [`Builder::pause`] looks for a moment without builds.
const PAUSE_TRIES: u32 = 100;
const PAUSE_RETRY: Duration = Duration::from_millis(200);

/// The input of a build.
#[derive(Debug)]
pub struct Source<'a> {
    /// The version that the image belongs to.
    pub id: VersionId,
    /// The function's name.
    pub name: &'a FunctionName,
    /// The program that the package holds.
    pub program: &'a Program,
    /// Whether the version is new, so that Docker has no earlier image of the same name.
    pub is_new: bool,
    /// The build context: a folder that holds nothing but the package, in [`CODE_FOLDER`].
    pub context: &'a Path,
    /// When the version was created, in Unix seconds.
    pub created_at: u64,
    /// Receives the build's output while the build runs.
    pub live: Option<&'a LiveLog>,
}

/// The result of a successful build.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// The end of the output of the build's steps.
    pub log: String,
    /// Warnings for the uploader: the Python files that do not compile.
    pub warnings: Vec<String>,
}

/// The last line of a build log when a process of the build was killed.
const KILLED: &str =
    "\n(A process was killed: the build may need more memory than the service's DOCKER_BUILD_MEMORY_LIMIT.)";

/// Builds an image, and tries once more when the builder's cache loses a step during the first try.
async fn build_image(
    docker: &Docker,
    spec: &BuildSpec<'_>,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<(InspectedImage, String), BuildError> {
    let began = Instant::now();
    let mut built = docker.build(spec, stop).await;
    if matches!(&built, Err(docker::BuildError::Docker(error)) if error.is_lost_step()) {
        let left = spec.limit.saturating_sub(began.elapsed());
        built = docker.build(&BuildSpec { limit: left, ..*spec }, stop).await;
    }
    built.map_err(|error| match error {
        docker::BuildError::Step { log, exit_status: Some(dockerfile::NOT_MAIN), .. } => {
            let package = log.lines().filter_map(|line| line.strip_prefix("package ")).next_back().unwrap_or_default();
            BuildError::NotMain { package: package.to_owned() }
        }
        docker::BuildError::Step { mut log, killed, .. } => {
            if killed && spec.builder == ImageBuilder::Classic {
                log.push_str(KILLED);
            }
            BuildError::Failed { log }
        }
        docker::BuildError::Docker(error) => BuildError::from_docker(error, limit),
    })
}

impl Builder {
    /// Makes a builder.
    pub(crate) fn new(parts: BuilderParts) -> Self {
        let BuilderParts { docker, runtimes, platform, config, scratch, tasks, stop } = parts;
        let packages = Packages::new(docker.clone(), Arc::clone(&platform), config.clone(), scratch, tasks.clone());
        let (turns, has_leftovers) = (Turns::new(&config), Arc::default());
        Self { docker, runtimes, platform, packages, config, turns, has_leftovers, tasks, stop }
    }

    /// Whether Docker answers, by the latest requests to Docker.
    pub fn health(&self) -> &Health {
        self.docker.health()
    }

    /// Removes a version's image. Fails while a container uses the image, and when `is_wanted` says that the image is
    /// needed after all.
    ///
    /// The steps below the image stay until a moment without builds: the classic builder fails when an image disappears
    /// that a build is about to start from. The last step is the image itself, which bears the version's labels, so
    /// that no other build starts from that step.
    pub async fn remove_image(&self, id: VersionId, is_wanted: impl Fn() -> bool) -> Result<(), DockerError> {
        let name = self.image_name(id);
        // A version whose build failed has no image. Then nothing is to be removed, and no build is held up.
        if self.docker.image(&name).await?.is_none() {
            return Ok(());
        }
        let labels = [(label::FUNCTION_ID, id.function.to_string()), (label::VERSION, id.number.to_string())];
        let labels = labels.map(|(label, value)| format!("{label}={value}"));
        let ours = format!("{}={}", label::PLATFORM, self.platform.id());
        if !self.docker.containers(&[&ours, &labels[0], &labels[1]], None).await?.is_empty() {
            return Err(DockerError::in_use());
        }
        if is_wanted() {
            return Err(DockerError::in_use());
        }
        let packages = self.docker.label(&name, label::PACKAGES).await?.unwrap_or_default();
        self.docker.remove_image_only(&name).await?;
        if !packages.is_empty() {
            self.packages.remove_unused(&packages).await?;
        }
        // While a container was being created from the image, Docker may have removed only the image's name.
        self.has_leftovers.store(true, Ordering::Release);
        self.remove_leftovers(None).await;
        if self.has_leftovers.load(Ordering::Acquire) {
            self.remove_leftovers_later(None, &leftovers::LATE[1..]);
        }
        Ok(())
    }

    /// The name of a version's image. The platform's id is part of the tag, because another platform on the same Docker
    /// may have the same function, from a backup.
    fn image_name(&self, VersionId { function, number }: VersionId) -> String {
        // The tag of version 1 has no number: the images from before there were versions keep their names.
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        format!("{}/{function}:{}{suffix}", self.config.image_prefix, self.platform.id())
    }

    /// The version that an image of this name belongs to. None for a name that this platform does not give.
    pub fn version_of(&self, repository: &str, tag: &str) -> Option<VersionId> {
        let function = repository.rsplit('/').next()?.parse().ok()?;
        let number = tag.strip_prefix(&self.platform.id().to_string())?;
        let number = if number.is_empty() { 1 } else { number.strip_prefix('-')?.parse().ok()? };
        Some(VersionId { function, number })
    }

    /// Whether a container of this run is of a build or was made to take files out of an image, by its name, and has no
    /// other owner that removes the container for sure. Docker names the containers of a Dockerfile's steps.
    pub fn may_have_made(&self, container: &str) -> bool {
        let kind = container.strip_prefix("youtube-serverless-");
        kind.is_none_or(|kind| ["packages-", "download-", "tree-"].iter().any(|start| kind.starts_with(start)))
    }

    fn ours(&self) -> String {
        format!("label={}={}", label::PLATFORM, self.platform.id())
    }

    /// Makes the runtime image of a language before a build needs the image, and returns the image's name.
    pub async fn prepare(&self, language: Language, stop: &CancellationToken) -> Result<String, RuntimeError> {
        self.runtimes.ensure(language, stop).await
    }

    /// Makes the image of a language's slots from this runtime image, and returns the image's name.
    pub async fn prepare_slot(
        &self,
        language: Language,
        runtime: &str,
        stop: &CancellationToken,
    ) -> Result<String, RuntimeError> {
        self.runtimes.ensure_slot(language, runtime, stop).await
    }

    /// Removes the runtime images of earlier bootstraps and base images.
    pub async fn remove_old_runtimes(&self) -> Result<(), DockerError> {
        self.runtimes.remove_old().await
    }

    /// Builds the image of a version, for the holder of a turn. A failed build leaves no image. The build ends early,
    /// with [`BuildError::Cancelled`], when `stop` is cancelled.
    pub async fn build(&self, turn: &Turn, source: &Source<'_>, stop: &CancellationToken) -> Result<Built, BuildError> {
        let began = Instant::now();
        let span = tracing::debug_span!("build", function.id = %source.id.function, version = source.id.number);
        let built = self.build_now(source, stop).instrument(span).await;
        let built = built.map_err(|error| match error {
            BuildError::Failed { log } => BuildError::Failed { log: hints::advised(source.program, log) },
            error => error,
        });
        metrics::build(result_of(&built), began.elapsed());
        self.has_leftovers.store(true, Ordering::Release);
        if built.is_err() {
            let _ = turn.failed.set(source.is_new.then_some(source.id));
        }
        built
    }

    async fn build_now(&self, source: &Source<'_>, stop: &CancellationToken) -> Result<Built, BuildError> {
        let language = source.program.language();
        let runtime = self.runtimes.ensure(language, stop).await.map_err(|error| match error {
            RuntimeError::Docker { source: DockerError::Cancelled, .. } => BuildError::Cancelled,
            error => BuildError::Runtime(error),
        })?;
        let deadline = Instant::now() + self.config.timeout;
        let mut job = Job { runtime: &runtime, live: source.live, deadline, stop };
        let packages = self.fetch(source.program, &mut job).await?;
        let deadline = job.deadline;
        let base = packages.as_ref().map_or(runtime.as_str(), |packages| packages.image.as_str());
        let place = packages.as_ref().map(|packages| packages.place.as_str());
        let mut labels = vec![
            (label::RUN, self.platform.run().to_string()),
            (label::FUNCTION_ID, source.id.function.to_string()),
            (label::FUNCTION_NAME, source.name.to_string()),
            (label::VERSION, source.id.number.to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
            (label::RUNTIME, runtime.rsplit_once(':').map_or_else(String::new, |(_, hash)| hash.to_owned())),
            (label::CREATED, source.created_at.to_string()),
        ];
        labels.extend(packages.as_ref().map(|packages| (label::PACKAGES, packages.image.clone())));
        let text = dockerfile::render(source.program, base, place, &self.platform.id().to_string(), &labels);
        tokio::fs::write(source.context.join("Dockerfile"), text).await?;
        if let Program::Python { package: Some(package), .. } = source.program {
            let folder = source.context.join(PACKAGE_FOLDER);
            tokio::fs::create_dir(&folder).await?;
            tokio::fs::symlink("/app", folder.join(package)).await?;
        }
        let spec = BuildSpec {
            context: source.context,
            tag: &self.image_name(source.id),
            // The Dockerfile has the labels.
            labels: &[],
            limit: deadline.saturating_duration_since(Instant::now()),
            // Packages and modules were downloaded before, so that the build needs no network.
            network: BuildNetwork::None,
            limits: Some((self.config.memory, self.config.cpus)),
            builder: self.config.builder,
            live: source.live,
        };
        let (image, said) = build_image(&self.docker, &spec, self.config.timeout, stop).await?;
        let log = packages.map_or(said.clone(), |packages| format!("{}\n{said}", packages.log).trim().to_owned());
        let shared = match language {
            Language::Python => {
                self.docker.image(&runtime).await.map_err(BuildError::Docker)?.map_or(0, |runtime| runtime.size)
            }
            // A Go function's image starts from `scratch`, and shares nothing with the runtime image.
            Language::Go => 0,
        };
        let image = Image { id: image.id, size: image.size.saturating_sub(shared), present: true, digest: None };
        let warnings = hints::uncompiled(&log);
        Ok(Built { image, log, warnings })
    }

    /// Makes the image with the program's packages or modules, which the build starts from. None when the program has
    /// no dependencies.
    async fn fetch(&self, program: &Program, job: &mut Job<'_>) -> Result<Option<Held>, BuildError> {
        match program {
            Program::Python { dependencies: Some(wanted), .. } => self.packages.python(wanted, job).await,
            Program::Go { modules, .. } if !modules.is_empty() => self.packages.go(modules, job).await.map(Some),
            Program::Python { dependencies: None, .. } | Program::Go { .. } => Ok(None),
        }
    }

    /// Waits for a moment without builds, and lets no build begin while the permit is held. None when no such moment
    /// comes within 20 seconds: a caller in line for all turns would hold up every later build until the longest of the
    /// running builds ends.
    pub async fn pause(&self) -> Option<SemaphorePermit<'_>> {
        for _ in 0..PAUSE_TRIES {
            if let Some(paused) = self.turns.all() {
                return Some(paused);
            }
            tokio::time::sleep(PAUSE_RETRY).await;
        }
        None
    }

    /// Removes the images with packages that no function's image is built upon.
    pub async fn remove_unused_packages(&self) -> Result<(), DockerError> {
        self.packages.remove_all_unused().await
    }
}
