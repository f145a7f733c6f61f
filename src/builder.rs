//! From a package to a function's image.

mod dockerfile;
mod packages;
mod request;
mod tree;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::{BuildNetwork, Builds};
use crate::docker::{self, BuildSpec, Docker, DockerError, InspectedImage, LiveLog, label};
use crate::metrics;
use crate::package::{DependencyError, Program};
use crate::platform::Platform;
use crate::runtime::{RuntimeError, Runtimes};
use crate::store::Image;
use crate::types::{FunctionName, Language, VersionId};

use packages::{Held, Job, Packages};
pub use tree::TreeError;

/// The folder of a build context that holds the package, so that no file of it can steer the build.
pub const CODE_FOLDER: &str = "app";

/// Builds images, a few at a time.
#[derive(Clone, Debug)]
pub struct Builder {
    docker: Docker,
    runtimes: Arc<Runtimes>,
    platform: Arc<Platform>,
    packages: Arc<Packages>,
    settings: Builds,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A daemon whose client has gone ends the current step first: what a failed build leaves may come late.
const LATE_LEFTOVERS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// How long a removal waits for a moment without builds before it makes one.
const PAUSE_TRIES: u32 = 100;
const PAUSE_RETRY: Duration = Duration::from_millis(200);

/// What is to become an image.
#[derive(Debug)]
pub struct Source<'a> {
    /// Which version.
    pub id: VersionId,
    /// The function's.
    pub name: &'a FunctionName,
    /// What to build.
    pub program: &'a Program,
    /// It is new: no other image of its name can be there.
    pub is_new: bool,
    /// The build context: a folder with nothing but the package, in [`CODE_FOLDER`].
    pub context: &'a Path,
    /// Unix seconds.
    pub created_at: u64,
    /// Gets what the build prints, as it prints it.
    pub live: Option<&'a LiveLog>,
}

/// What a build has come to.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// The end of what the steps of the build printed.
    pub log: String,
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The code does not compile or install.
    #[error("the build failed; buildLog has the message of the compiler or of the installer")]
    Failed {
        /// The end of what it said.
        log: String,
    },
    /// What a lock names can't be installed.
    #[error(transparent)]
    Dependencies(#[from] DependencyError),
    /// A line that has packages built from source.
    #[error(
        "{0}: `--no-binary` has packages built from source, which runs their code, and the service does not allow that \
         (PYTHON_ALLOW_SOURCE_BUILDS); leave it out, and name packages that have wheels"
    )]
    SourceBuild(String),
    /// What was installed is no tree of files.
    #[error(transparent)]
    Tree(TreeError),
    /// It took too long.
    #[error("the build did not end within {limit:?} (DOCKER_BUILD_TIMEOUT)")]
    Timeout {
        /// Its deadline.
        limit: Duration,
    },
    /// Whoever wanted it no longer does, or the service stops.
    #[error("the build was cancelled")]
    Cancelled,
    /// A matter of the runtime image.
    #[error(transparent)]
    Runtime(RuntimeError),
    /// A matter of Docker.
    #[error("failed to build the image")]
    Docker(#[source] DockerError),
    /// A matter of this machine's disk.
    #[error("failed to write the build context")]
    Io(#[from] io::Error),
}

impl From<TreeError> for BuildError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Io(error) => Self::Io(error),
            error => Self::Tree(error),
        }
    }
}

impl BuildError {
    /// `limit` is that of the build as a whole.
    fn from_docker(error: DockerError, limit: Duration) -> Self {
        match error {
            DockerError::Timeout { .. } => Self::Timeout { limit },
            DockerError::Cancelled => Self::Cancelled,
            error => Self::Docker(error),
        }
    }
}

/// To be said where something was killed.
const KILLED: &str = "\n(Something was killed: it may need more memory than the service's DOCKER_BUILD_MEMORY_LIMIT.)";

/// Builds an image, also where the builder's cache loses a step at the first try.
async fn build_image(
    docker: &Docker,
    spec: &BuildSpec<'_>,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<(InspectedImage, String), BuildError> {
    let mut built = docker.build(spec, stop).await;
    if matches!(&built, Err(docker::BuildError::Docker(error)) if error.is_lost_step()) {
        built = docker.build(spec, stop).await;
    }
    built.map_err(|error| match error {
        docker::BuildError::Step { mut log, killed } => {
            if killed && !spec.buildkit {
                log.push_str(KILLED);
            }
            BuildError::Failed { log }
        }
        docker::BuildError::Docker(error) => BuildError::from_docker(error, limit),
    })
}

/// What a build came to, in a word.
fn result_of(built: &Result<Built, BuildError>) -> &'static str {
    match built {
        Ok(_) => "built",
        Err(BuildError::Failed { .. } | BuildError::Dependencies(_) | BuildError::SourceBuild(_) | BuildError::Tree(_)) => {
            "failed"
        }
        Err(BuildError::Timeout { .. }) => "timeout",
        Err(BuildError::Cancelled) => "cancelled",
        Err(BuildError::Runtime(_) | BuildError::Docker(_) | BuildError::Io(_)) => "error",
    }
}

impl Builder {
    /// Cleans up after builds on `tasks`, until `stop` is cancelled.
    pub fn new(
        docker: Docker,
        runtimes: Arc<Runtimes>,
        platform: Arc<Platform>,
        settings: Builds,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max_concurrent as usize));
        let packages = Packages::new(docker.clone(), Arc::clone(&platform), settings.clone());
        Self { docker, runtimes, platform, packages, settings, permits, tasks, stop }
    }

    /// Removes a version's image. Fails while a container uses it, or when it is wanted after all.
    ///
    /// Waits for builds to end: a removal takes the steps below an image with it, and the classic builder fails when
    /// one goes that it is about to build upon.
    pub async fn remove_image(&self, id: VersionId, is_wanted: impl Fn() -> bool) -> Result<(), DockerError> {
        let name = self.image_name(id);
        // There may be none, as when a build failed: nothing is held up for that.
        if self.docker.image(&name).await?.is_none() {
            return Ok(());
        }
        // Neither a daemon that does not answer nor a container that runs for long must hold up builds.
        let labels = [(label::FUNCTION_ID, id.function.to_string()), (label::VERSION, id.number.to_string())];
        let labels = labels.map(|(label, value)| format!("{label}={value}"));
        let ours = format!("{}={}", label::PLATFORM, self.platform.id());
        if !self.docker.containers(&[&ours, &labels[0], &labels[1]], None).await?.is_empty() {
            return Err(DockerError::in_use());
        }
        let paused = self.pause().await;
        if is_wanted() {
            return Err(DockerError::in_use());
        }
        let packages = self.docker.label(&name, label::PACKAGES).await?.unwrap_or_default();
        self.docker.remove_image(&name).await?;
        if !packages.is_empty() {
            self.packages.remove_unused(&packages).await?;
        }
        // Of an image that a container was just being made from, only the name may have gone.
        match self.remove_dangling(&paused).await {
            Err(error) if error.is_in_use() => Ok(()),
            other => other,
        }
    }

    /// The platform is in the tag: another one may have the same function, from a backup.
    fn image_name(&self, VersionId { function, number }: VersionId) -> String {
        // The first as it was called before there were versions.
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        format!("{}/{function}:{}{suffix}", self.settings.image_prefix, self.platform.id())
    }

    /// The version that an image of this name is of, if it is one of ours.
    pub fn version_of(&self, repository: &str, tag: &str) -> Option<VersionId> {
        let function = repository.rsplit('/').next()?.parse().ok()?;
        let number = tag.strip_prefix(&self.platform.id().to_string())?;
        let number = if number.is_empty() { 1 } else { number.strip_prefix('-')?.parse().ok()? };
        Some(VersionId { function, number })
    }

    fn ours(&self) -> String {
        format!("label={}={}", label::PLATFORM, self.platform.id())
    }

    /// Makes the runtime image of a language ahead of need, and returns its name.
    pub async fn prepare(&self, language: Language, stop: &CancellationToken) -> Result<String, RuntimeError> {
        self.runtimes.ensure(language, self.platform.temp_dir(), stop).await
    }

    /// Builds the image of a version; when it fails, no image is left. Ends early when `stop` is cancelled.
    pub async fn build(&self, source: &Source<'_>, stop: &CancellationToken) -> Result<Built, BuildError> {
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit.expect("the semaphore is never closed"),
            () = stop.cancelled() => return Err(BuildError::Cancelled),
        };
        let began = Instant::now();
        let span = tracing::debug_span!("build", function.id = %source.id.function, version = source.id.number);
        let built = self.build_now(source, stop).instrument(span).await;
        metrics::build(result_of(&built), began.elapsed());
        drop(permit);
        let failed = (built.is_err() && source.is_new).then_some(source.id);
        let delays = if built.is_ok() { &LATE_LEFTOVERS[..1] } else { &LATE_LEFTOVERS[..] };
        let this = self.clone();
        self.tasks.spawn(async move {
            for &delay in delays {
                tokio::select! {
                    () = tokio::time::sleep(delay) => this.remove_leftovers(failed).await,
                    () = this.stop.cancelled() => return,
                }
            }
        });
        built
    }

    async fn build_now(&self, source: &Source<'_>, stop: &CancellationToken) -> Result<Built, BuildError> {
        let language = source.program.language();
        let runtime = self.runtimes.ensure(language, self.platform.temp_dir(), stop).await.map_err(|error| match error {
            RuntimeError::Docker { source: DockerError::Cancelled, .. } => BuildError::Cancelled,
            error => BuildError::Runtime(error),
        })?;
        let deadline = Instant::now() + self.settings.timeout;
        let job = Job { runtime: &runtime, live: source.live, deadline, stop };
        let packages = self.fetch(source.program, &job).await?;
        let base = packages.as_ref().map_or(runtime.as_str(), |packages| packages.image.as_str());
        let place = packages.as_ref().map(|packages| packages.place.as_str());
        let text = dockerfile::render(source.program, base, place, self.platform.id());
        tokio::fs::write(source.context.join("Dockerfile"), text).await?;
        let mut labels = vec![
            (label::RUN, self.platform.run().to_string()),
            (label::FUNCTION_ID, source.id.function.to_string()),
            (label::FUNCTION_NAME, source.name.to_string()),
            (label::VERSION, source.id.number.to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
            (label::CREATED, source.created_at.to_string()),
        ];
        labels.extend(packages.as_ref().map(|packages| (label::PACKAGES, packages.image.clone())));
        let spec = BuildSpec {
            context: source.context,
            tag: &self.image_name(source.id),
            labels: &labels,
            limit: deadline.saturating_duration_since(Instant::now()),
            // All that is needed is there.
            network: BuildNetwork::None,
            limits: Some((self.settings.memory, self.settings.cpus)),
            buildkit: self.settings.buildkit,
            live: source.live,
        };
        let (image, said) = build_image(&self.docker, &spec, self.settings.timeout, stop).await?;
        let log = packages.map_or(said.clone(), |packages| format!("{}\n{said}", packages.log).trim().to_owned());
        let shared = match language {
            Language::Python => self.docker.image(&runtime).await.map_err(BuildError::Docker)?.map_or(0, |runtime| runtime.size),
            // Its image begins with nothing.
            Language::Go => 0,
        };
        let image = Image { id: image.id, size: image.size.saturating_sub(shared), is_there: true };
        Ok(Built { image, log })
    }

    /// What the program is to be built upon beside its runtime.
    async fn fetch(&self, program: &Program, job: &Job<'_>) -> Result<Option<Held>, BuildError> {
        match program {
            Program::Python { dependencies: Some(wanted), .. } => self.packages.python(wanted, job).await,
            Program::Go { modules, .. } if !modules.is_empty() => self.packages.go(modules, job).await.map(Some),
            Program::Python { dependencies: None, .. } | Program::Go { .. } => Ok(None),
        }
    }

    /// Waits until no build runs, and lets none begin while the permit is held.
    pub async fn pause(&self) -> SemaphorePermit<'_> {
        // First for a moment without builds: who stands in line here holds up all that come after.
        for _ in 0..PAUSE_TRIES {
            if let Ok(paused) = self.permits.try_acquire_many(self.settings.max_concurrent) {
                return paused;
            }
            tokio::time::sleep(PAUSE_RETRY).await;
        }
        self.permits.acquire_many(self.settings.max_concurrent).await.expect("the semaphore is never closed")
    }

    /// The classic builder keeps the steps of a build under way as dangling images, so this does nothing while
    /// another build runs; the last of several builds to end sees to it.
    async fn remove_leftovers(&self, failed: Option<VersionId>) {
        let Ok(paused) = self.permits.try_acquire_many(self.settings.max_concurrent) else { return };
        let removed = async {
            if let Some(id) = failed {
                // Cancelled in its last step, the daemon may have named it all the same.
                self.docker.remove_image(&self.image_name(id)).await?;
                self.packages.remove_all_unused().await?;
            }
            self.remove_dangling(&paused).await
        };
        match removed.await {
            Err(error) if !error.is_in_use() => tracing::warn!(%error, "failed to remove what builds left"),
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes the dangling images that builds of this platform left: stages, and steps before a failed one.
    pub async fn remove_dangling(&self, _paused: &SemaphorePermit<'_>) -> Result<(), DockerError> {
        self.remove_all(&["dangling=true", &self.ours()]).await
    }

    /// Removes the images with packages that no function's image is built upon.
    pub async fn remove_unused_packages(&self) -> Result<(), DockerError> {
        self.packages.remove_all_unused().await
    }

    async fn remove_all(&self, filters: &[&str]) -> Result<(), DockerError> {
        let mut result = Ok(());
        for image in self.docker.images(filters).await? {
            if let Err(error) = self.docker.remove_image(&image.id).await {
                result = Err(error);
            }
        }
        result
    }
}
