//! What functions are built upon beside their runtime: installed packages and downloaded modules, each as an image that is made
//! once per content and goes with the last function that is built upon it.

mod installer;

use std::collections::HashMap;
use std::io::{BufWriter, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BuildError;
use super::request::{self, Request};
use super::tree::{self, TreeError};
use crate::config::{BuildNetwork, Builds, Secret};
use crate::docker::{Docker, DockerError, DownloadSpec, Downloaded, Layer, LiveLog, Mask, label};
use crate::package::{self, Dependencies, Requirements};
use crate::platform::Platform;
use crate::scratch::Scratch;
use crate::types::Language;

/// Of PyPI's package `uv`, which installs Python packages.
const UV: &str = "0.13.9";
const PYTHON: &str = include_str!("../runtimes/python/download.py");
const GO: &str = include_str!("../runtimes/go/download.sh");

/// What is exported from a lock is shorter, in bytes.
const MAX_EXPORT: u64 = 4 << 20;
/// Where Go finds its modules while it builds a function.
const GO_MODULES: &str = "/opt/youtube-serverless/modules";

/// Makes and removes these images.
#[derive(Debug)]
pub(super) struct Packages {
    docker: Docker,
    platform: Arc<Platform>,
    settings: Builds,
    /// Has the build contexts.
    scratch: Scratch,
    mask: Mask,
    installer: tokio::sync::Mutex<()>,
    /// One makes or removes an image, the others for the same one wait for it.
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Images that builds under way are built upon, and by how many.
    held: Mutex<HashMap<String, usize>>,
}

/// An image that stays until this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Held {
    packages: Arc<Packages>,
    /// Its name.
    pub(super) image: String,
    /// The folder where what was fetched is.
    pub(super) place: String,
    /// The end of what was said as it was made.
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

/// A build that something is fetched for.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// The runtime image.
    pub(super) runtime: &'a str,
    /// Gets what is said.
    pub(super) live: Option<&'a LiveLog>,
    /// Of the build as a whole.
    pub(super) deadline: Instant,
    /// Ends it early.
    pub(super) stop: &'a CancellationToken,
}

impl Job<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Packages {
    pub(super) fn new(docker: Docker, platform: Arc<Platform>, settings: Builds, scratch: Scratch) -> Arc<Self> {
        let mask = Mask::new(settings.environment.iter().map(|(_, value)| value));
        Arc::new(Self {
            docker,
            platform,
            settings,
            scratch,
            mask,
            installer: Default::default(),
            making: Default::default(),
            held: Default::default(),
        })
    }

    /// The image with what a Python program depends on; None when that is nothing.
    pub(super) async fn python(self: &Arc<Self>, wanted: &Dependencies, job: &Job<'_>) -> Result<Option<Held>, BuildError> {
        let is_index = |name: &str| name.starts_with("PIP_") || name.starts_with("UV_");
        let mut parts = vec![PYTHON.to_owned(), UV.to_owned(), self.settings.allow_source_builds.to_string()];
        parts.push(format!("{wanted:?}"));
        let image = self.image(Language::Python, parts, is_index, job);
        let making = self.making(&image);
        let _making = making.lock().await;
        let mut held = self.hold(image);
        if let Some(place) = self.docker.label(&held.image, label::SITE).await.map_err(BuildError::Docker)? {
            held.place = place;
            return Ok(Some(held));
        }
        let (installer, site) = self.installer(job).await?;
        let exported;
        let requirements = match wanted {
            Dependencies::Requirements(requirements) => requirements,
            Dependencies::Lock { lock, project } => {
                exported = self.export(lock, project, &installer, job).await?;
                &exported
            }
        };
        if requirements.is_empty() {
            return Ok(None);
        }
        if let Some(place) = requirements.source_builds.clone().filter(|_| !self.settings.allow_source_builds) {
            return Err(BuildError::SourceBuild(place));
        }
        let request = Request::Install {
            environment: &self.settings.environment,
            requirements,
            source_builds: self.settings.allow_source_builds,
        };
        let program = ["python3", "-I", "-S", "-c", PYTHON];
        held.place = site;
        self.fetch(held, &installer, &program, request.input()?, job).await.map(Some)
    }

    /// The image with the modules that these files name.
    pub(super) async fn go(self: &Arc<Self>, files: &[(String, String)], job: &Job<'_>) -> Result<Held, BuildError> {
        let parts = vec![GO.to_owned(), format!("{files:?}")];
        let image = self.image(Language::Go, parts, |name| name.starts_with("GO"), job);
        let making = self.making(&image);
        let _making = making.lock().await;
        let mut held = self.hold(image);
        held.place = GO_MODULES.to_owned();
        if self.docker.image(&held.image).await.map_err(BuildError::Docker)?.is_some() {
            return Ok(held);
        }
        let input = request::go(&self.settings.environment, files)?;
        self.fetch(held, job.runtime, &["sh", "-c", GO], input, job).await
    }

    /// Removes an image that nothing is built upon, now or still.
    pub(super) async fn remove_unused(&self, image: &str) -> Result<(), DockerError> {
        let making = self.making(image);
        let _making = making.lock().await;
        if self.held().contains_key(image) {
            return Ok(());
        }
        let (ours, label) = (self.ours(), format!("label={}={image}", label::PACKAGES));
        let users = self.docker.images(&["dangling=false", &ours, &label]).await?;
        if users.iter().any(|user| format!("{}:{}", user.repository, user.tag) != image) {
            return Ok(());
        }
        self.docker.remove_image_only(image).await
    }

    /// The same for all there are.
    pub(super) async fn remove_all_unused(&self) -> Result<(), DockerError> {
        let (ours, label) = (self.ours(), format!("label={}", label::PACKAGES));
        let prefix = format!("{}-packages/", self.settings.image_prefix);
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

    /// The image's name: a hash of all that decides on its content.
    fn image(&self, language: Language, mut parts: Vec<String>, counts: impl Fn(&str) -> bool, job: &Job<'_>) -> String {
        // Another platform on the same Docker has images of its own, which it removes when it likes.
        parts.extend([self.platform.id().to_string(), job.runtime.to_owned()]);
        for (name, Secret(value)) in self.settings.environment.iter().filter(|(name, _)| counts(name)) {
            parts.extend([name.clone(), value.clone()]);
        }
        format!("{}-packages/{}:{}", self.settings.image_prefix, language.as_str(), hash_of(&parts))
    }

    /// The requirements in a lock.
    async fn export(&self, lock: &str, project: &str, installer: &str, job: &Job<'_>) -> Result<Requirements, BuildError> {
        let take = |from: &mut dyn Read| {
            let mut text = String::new();
            from.take(MAX_EXPORT).read_to_string(&mut text)?;
            Ok::<_, TreeError>(text)
        };
        let input = Request::Export { lock, project }.input()?;
        let program = ["python3", "-I", "-S", "-c", PYTHON];
        let exported = self.run(installer, &program, input, (BuildNetwork::None, false), job, take).await?;
        if !exported.is_done {
            return Err(self.failed(exported));
        }
        Ok(package::of_export(&exported.value?)?)
    }

    /// Fetches a tree into an image.
    async fn fetch(
        &self,
        mut held: Held,
        image: &str,
        program: &[&str],
        input: Vec<u8>,
        job: &Job<'_>,
    ) -> Result<Held, BuildError> {
        let from_docker = |error| BuildError::from_docker(error, self.settings.timeout);
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::PACKAGES, held.image.clone()),
            (label::SITE, held.place.clone()),
        ];
        let name = format!("youtube-serverless-packages-{}", Uuid::new_v4());
        let layer = Layer::create(&self.docker, name, job.runtime, &labels, job.left(), job.stop).await;
        let (mut layer, pipe) = layer.map_err(from_docker)?;
        let place = held.place.trim_start_matches('/').to_owned();
        let take = move |from: &mut dyn Read| tree::copy(from, BufWriter::with_capacity(1 << 20, pipe), &place);
        let filled = async {
            let reach = (self.settings.network, self.settings.allow_source_builds);
            let fetched = self.run(image, program, input, reach, job, take).await?;
            if !fetched.is_done {
                return Err(self.failed(fetched));
            }
            match fetched.value {
                // Docker says better why it took no more.
                Ok(_) | Err(TreeError::Io(_)) => layer.commit(&held.image, job.left(), job.stop).await.map_err(from_docker)?,
                Err(_) => {}
            }
            fetched.value?;
            Ok(fetched.log)
        };
        let filled = filled.await;
        layer.remove().await;
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
            memory: self.settings.memory,
            cpus: self.settings.cpus,
            runtime: self.settings.runtime.as_deref(),
            exec,
            limit: job.left(),
            live: job.live,
            mask: &self.mask,
        };
        let done = self.docker.download(&spec, input, take, job.stop).await;
        done.map_err(|error| BuildError::from_docker(error, self.settings.timeout))
    }

    fn failed<T>(&self, fetched: Downloaded<T>) -> BuildError {
        let mut log = fetched.log;
        if !self.settings.allow_source_builds && log.contains("ource distributions") || log.contains("Wheels are required") {
            log.push_str("\n(A package without a wheel for this Python is refused: PYTHON_ALLOW_SOURCE_BUILDS is false.)");
        }
        if fetched.is_killed {
            log.push_str(super::KILLED);
        }
        BuildError::Failed { log }
    }

    fn making(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for.
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(making.entry(image.to_owned()).or_default())
    }

    fn hold(self: &Arc<Self>, image: String) -> Held {
        *self.held().entry(image.clone()).or_default() += 1;
        Held { packages: Arc::clone(self), image, place: String::new(), log: String::new() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash_of(parts: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
