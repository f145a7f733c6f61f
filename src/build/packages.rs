//! Images with installed Python packages or downloaded Go modules, which functions are built upon. Each image is made
//! once per content, and removed with the last function that is built upon the image.

mod digest;
mod installer;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, BufRead, BufReader, BufWriter, Read};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::MutexGuard as MutexHeld;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use digest::hash_of;

use super::BuildError;
use super::request::{self, Request};
use super::tree::{self, TreeError};
use crate::build::package::{self, Dependencies, DependencyError, Requirements};
use crate::config::{BuildNetwork, Builds, Secret};
use crate::docker::platform::Platform;
use crate::docker::{Docker, DockerError, DownloadSpec, Downloaded, Layer, LiveLog, Mask, label};
use crate::domain::Language;
use crate::resources::scratch::Scratch;
use crate::runtimes;

/// The version of PyPI's package `uv`, which installs Python packages.
const UV: &str = "0.13.9";

/// How long the requirements exported from a lock may be, in bytes.
const MAX_EXPORT: u64 = 4 << 20;
/// The folder in which Go finds its modules while a function is built.
const GO_MODULES: &str = "/opt/youtube-serverless/modules";

/// Makes and removes the images with packages or modules.
#[derive(Debug)]
pub(super) struct Packages {
    docker: Docker,
    platform: Arc<Platform>,
    config: Builds,
    /// Holds the build contexts.
    scratch: Scratch,
    mask: Mask,
    installer: tokio::sync::Mutex<()>,
    /// A lock per image: a task that makes or removes an image holds the image's lock, and the other tasks wait.
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The images that running builds are built upon, each with the number of these builds.
    held: Mutex<HashMap<String, usize>>,
    /// Runs the removals that no build waits for.
    tasks: TaskTracker,
}

/// An image that is not removed before this guard is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Held {
    packages: Arc<Packages>,
    /// The image's name.
    pub(super) image: String,
    /// The image's folder with the packages or modules.
    pub(super) place: String,
    /// The end of the output of the download. Empty when the image was there already.
    pub(super) log: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.packages.held();
        if let Some(count) = held.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.image);
            }
        }
    }
}

/// The build for which packages or modules are fetched.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// The name of the runtime image.
    pub(super) runtime: &'a str,
    /// Receives the output of downloads.
    pub(super) live: Option<&'a LiveLog>,
    /// When the whole build must have ended.
    pub(super) deadline: Instant,
    /// Ends the build early.
    pub(super) stop: &'a CancellationToken,
}

impl Job<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for a lock, which another build may hold for as long as a build takes.
    async fn lock<'a, T>(
        &self,
        lock: &'a tokio::sync::Mutex<T>,
        limit: Duration,
    ) -> Result<MutexHeld<'a, T>, BuildError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(BuildError::Cancelled),
            locked = time::timeout_at(self.deadline, lock.lock()) => locked.map_err(|_| BuildError::Timeout { limit }),
        }
    }
}

impl Packages {
    pub(super) fn new(
        docker: Docker,
        platform: Arc<Platform>,
        config: Builds,
        scratch: Scratch,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let mask = Mask::new(config.environment.iter().map(|(_, value)| value));
        Arc::new(Self {
            docker,
            platform,
            config,
            scratch,
            mask,
            installer: Default::default(),
            making: Default::default(),
            held: Default::default(),
            tasks,
        })
    }

    /// The image with a Python program's packages, made on first need. None when there is nothing to install.
    pub(super) async fn python(
        self: &Arc<Self>,
        wanted: &Dependencies,
        job: &mut Job<'_>,
    ) -> Result<Option<Held>, BuildError> {
        let is_index = |name: &str| name.starts_with("PIP_") || name.starts_with("UV_");
        let wanted = Arc::new(wanted.clone());
        let parts =
            (runtimes::download_program(Language::Python), UV, self.config.allow_source_builds, Arc::clone(&wanted));
        let image = self.image(Language::Python, parts, is_index, job).await?;
        let making = self.making(&image);
        let _making = job.lock(&making, self.config.timeout).await?;
        let mut held = self.hold(image);
        if let Some(place) = self.docker.label(&held.image, label::SITE).await.map_err(BuildError::Docker)? {
            held.place = place;
            return Ok(Some(held));
        }
        let began = Instant::now();
        let (installer, site) = self.installer(job).await?;
        // All functions share the installer: the time of its making does not count against this build's limit.
        job.deadline += began.elapsed();
        let requirements = match Arc::unwrap_or_clone(wanted) {
            Dependencies::Requirements(requirements) => requirements,
            Dependencies::Lock { lock, project } => self.export(lock, project, &installer, job).await?,
        };
        if requirements.is_empty() {
            return Ok(None);
        }
        if let Some(place) = requirements.source_builds.clone().filter(|_| !self.config.allow_source_builds) {
            return Err(BuildError::SourceBuild(place));
        }
        if self.config.network == BuildNetwork::None {
            return Err(BuildError::NoNetwork);
        }
        let request = Request::Install {
            environment: self.config.environment.clone(),
            requirements,
            source_builds: self.config.allow_source_builds,
        };
        let program = ["python3", "-I", "-S", "-c", runtimes::download_program(Language::Python)];
        held.place = site;
        self.fetch(held, &installer, &program, aside(move || request.input()).await?, job).await.map(Some)
    }

    /// The image with the modules that these files name, made on first need.
    pub(super) async fn go(self: &Arc<Self>, files: &[(String, String)], job: &Job<'_>) -> Result<Held, BuildError> {
        let files = Arc::new(files.to_vec());
        let parts = (runtimes::download_program(Language::Go), Arc::clone(&files));
        let image = self.image(Language::Go, parts, |name| name.starts_with("GO"), job).await?;
        let making = self.making(&image);
        let _making = job.lock(&making, self.config.timeout).await?;
        let mut held = self.hold(image);
        held.place = GO_MODULES.to_owned();
        if self.docker.image(&held.image).await.map_err(BuildError::Docker)?.is_some() {
            return Ok(held);
        }
        let environment = self.config.environment.clone();
        let input = aside(move || request::go(&environment, &files)).await?;
        self.fetch(held, job.runtime, &["sh", "-c", runtimes::download_program(Language::Go)], input, job).await
    }

    /// Removes an image, unless a running build or a function's image is built upon the image.
    pub(super) async fn remove_unused(&self, image: &str) -> Result<(), DockerError> {
        let making = self.making(image);
        let _making = making.lock().await;
        if self.held().contains_key(image) {
            return Ok(());
        }
        let (ours, label) = (self.ours(), format!("label={}={image}", label::PACKAGES));
        let users = self.docker.images(&["dangling=false", &ours, &label]).await?;
        let names: Vec<String> = users.iter().map(|user| format!("{}:{}", user.repository, user.tag)).collect();
        // An image that was pulled names packages of the platform that has built the image. Those stay: by its labels,
        // an image with packages is among the users of itself on its own platform only.
        if !names.iter().any(|name| name == image) || names.iter().any(|name| name != image) {
            return Ok(());
        }
        self.docker.remove_image_only(image).await
    }

    /// Removes all images with packages or modules that no function's image is built upon.
    pub(super) async fn remove_all_unused(&self) -> Result<(), DockerError> {
        let (ours, label) = (self.ours(), format!("label={}", label::PACKAGES));
        let prefix = format!("{}-packages/", self.config.image_prefix);
        for image in self.docker.images(&["dangling=false", &ours, &label]).await? {
            if image.repository.starts_with(&prefix) {
                self.remove_unused(&format!("{}:{}", image.repository, image.tag)).await?;
            }
        }
        Ok(())
    }

    fn ours(&self) -> String {
        format!("label={}={}", label::PLATFORM, self.platform.id())
    }

    /// The image's name, which has a hash of everything that determines the image's content.
    async fn image(
        &self,
        language: Language,
        content: impl Hash + Send + 'static,
        counts: impl Fn(&str) -> bool,
        job: &Job<'_>,
    ) -> Result<String, BuildError> {
        // Each platform on this Docker has package images of its own, because a platform knows only its own functions
        // when it removes unused images.
        let mut parts = vec![self.platform.id().to_string(), job.runtime.to_owned()];
        for (name, Secret(value)) in self.config.environment.iter().filter(|(name, _)| counts(name)) {
            parts.extend([name.clone(), value.clone()]);
        }
        // The content may have megabytes, and no other task must wait for the hash.
        let hash = aside(move || Ok(hash_of(&(content, parts)))).await?;
        Ok(format!("{}-packages/{}:{hash}", self.config.image_prefix, language.as_str()))
    }

    /// Exports the requirements from a lock.
    async fn export(
        &self,
        lock: String,
        project: String,
        installer: &str,
        job: &Job<'_>,
    ) -> Result<Requirements, BuildError> {
        let take = |from: &mut dyn Read| {
            let mut text = String::new();
            from.take(MAX_EXPORT + 1).read_to_string(&mut text)?;
            if text.len() as u64 > MAX_EXPORT {
                let file = "what is exported from uv.lock".to_owned();
                return Err(BuildError::Dependencies(DependencyError::TooLarge { file, limit: MAX_EXPORT }));
            }
            Ok(package::of_export(&text)?)
        };
        let input = aside(move || Request::Export { lock, project }.input()).await?;
        let program = ["python3", "-I", "-S", "-c", runtimes::download_program(Language::Python)];
        let exported = self.run(installer, &program, input, (BuildNetwork::None, false), job, take).await?;
        if !exported.is_done {
            return Err(self.failed(exported));
        }
        exported.value
    }

    /// Fetches a tree of files, and makes an image with the tree.
    async fn fetch(
        &self,
        mut held: Held,
        image: &str,
        program: &[&str],
        input: Vec<u8>,
        job: &Job<'_>,
    ) -> Result<Held, BuildError> {
        let from_docker = |error| BuildError::from_docker(error, self.config.timeout);
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::PACKAGES, held.image.clone()),
            (label::SITE, held.place.clone()),
        ];
        let name = format!("youtube-serverless-packages-{}", Uuid::new_v4());
        let layer = Layer::create(&self.docker, name, job.runtime, &labels, job.left(), job.stop).await;
        let (layer, filler) = layer.map_err(from_docker)?;
        let place = held.place.trim_start_matches('/').to_owned();
        let take = move |from: &mut dyn Read| {
            let mut from = BufReader::new(from);
            // The first byte comes when the download is complete.
            if from.fill_buf()?.is_empty() {
                return Err(TreeError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            tree::copy(&mut from, BufWriter::with_capacity(1 << 20, filler.start()?), &place)
        };
        let filled = async {
            let reach = (self.config.network, self.config.allow_source_builds);
            let fetched = self.run(image, program, input, reach, job, take).await?;
            if !fetched.is_done {
                return Err(self.failed(fetched));
            }
            match fetched.value {
                // When Docker stopped taking the tree, the commit's error says why, and the I/O error does not.
                Ok(_) | Err(TreeError::Io(_)) => {
                    layer.commit(&held.image, job.left(), job.stop).await.map_err(from_docker)?
                }
                Err(_) => {}
            }
            fetched.value?;
            Ok(fetched.log)
        };
        let filled = filled.await;
        // The container's removal deletes thousands of files, which takes Docker as long as the function's own build.
        // After a success the build does not wait for the removal.
        if filled.is_ok() {
            self.tasks.spawn(layer.remove());
        } else {
            layer.remove().await;
        }
        held.log = filled?;
        Ok(held)
    }

    async fn run<T: Send + 'static>(
        &self,
        image: &str,
        program: &[&str],
        input: Vec<u8>,
        (network, exec): (BuildNetwork, bool),
        job: &Job<'_>,
        take: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
    ) -> Result<Downloaded<T>, BuildError> {
        let labels = [(label::PLATFORM, self.platform.id().to_string()), (label::RUN, self.platform.run().to_string())];
        let spec = DownloadSpec {
            name: &format!("youtube-serverless-download-{}", Uuid::new_v4()),
            image,
            labels: &labels,
            program,
            network,
            memory: self.config.memory,
            cpus: self.config.cpus,
            runtime: self.config.runtime.as_deref(),
            exec,
            limit: job.left(),
            live: job.live,
            mask: &self.mask,
        };
        let done = self.docker.download(&spec, input, take, job.stop).await;
        done.map_err(|error| BuildError::from_docker(error, self.config.timeout))
    }

    fn failed<T>(&self, fetched: Downloaded<T>) -> BuildError {
        let mut log = fetched.log;
        let lacks_wheel = log.contains("ource distributions") || log.contains("Wheels are required");
        if lacks_wheel && !self.config.allow_source_builds {
            log.push_str(
                "\n(A package without a wheel for this Python is refused: PYTHON_ALLOW_SOURCE_BUILDS is false.)",
            );
        }
        if fetched.is_killed {
            log.push_str(super::KILLED);
        }
        BuildError::Failed { log }
    }

    fn making(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock();
        // Forget the locks that no task holds or waits for.
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(making.entry(image.to_owned()).or_default())
    }

    fn hold(self: &Arc<Self>, image: String) -> Held {
        *self.held().entry(image.clone()).or_default() += 1;
        Held { packages: Arc::clone(self), image, place: String::new(), log: String::new() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.held.lock()
    }
}

/// Runs work on megabytes of data on a blocking thread, so that no request waits meanwhile.
async fn aside<T: Send + 'static>(make: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, BuildError> {
    let made = tokio::task::spawn_blocking(make).await;
    Ok(made.map_err(io::Error::other)??)
}
