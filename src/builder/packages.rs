//! What functions are built upon beside their runtime: installed packages and downloaded modules, each as an image that is made
//! once per content and goes with the last function that is built upon it.

mod installer;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::dockerfile;
use super::request::{self, Request};
use super::tree::{self, TreeError};
use super::{BuildError, build_image};
use crate::config::{BuildNetwork, Builds, Secret};
use crate::docker::{BuildSpec, Docker, DockerError, DownloadSpec, Downloaded, LiveLog, Mask, label};
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
/// The file of a build context that holds what was fetched.
const TREE: &str = "tree.tar";

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
        let held = self.hold(image);
        if self.docker.image(&held.image).await.map_err(BuildError::Docker)?.is_some() {
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
        let context = self.scratch.folder().await?;
        let said = self.fetch(&installer, &program, request.input()?, (context.path(), &site), job).await?;
        let dockerfile = dockerfile::python_packages(job.runtime, self.platform.id(), TREE, &site);
        self.make(held, context.path(), dockerfile, said, job).await.map(Some)
    }

    /// The image with the modules that these files name.
    pub(super) async fn go(self: &Arc<Self>, files: &[(String, String)], job: &Job<'_>) -> Result<Held, BuildError> {
        let parts = vec![GO.to_owned(), format!("{files:?}")];
        let image = self.image(Language::Go, parts, |name| name.starts_with("GO"), job);
        let making = self.making(&image);
        let _making = making.lock().await;
        let held = self.hold(image);
        if self.docker.image(&held.image).await.map_err(BuildError::Docker)?.is_some() {
            return Ok(held);
        }
        let input = request::go(&self.settings.environment, files)?;
        let context = self.scratch.folder().await?;
        let said = self.fetch(job.runtime, &["sh", "-c", GO], input, (context.path(), dockerfile::GO_MODULES), job).await?;
        let dockerfile = dockerfile::go_modules(job.runtime, self.platform.id(), TREE);
        self.make(held, context.path(), dockerfile, said, job).await
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

    /// Fetches a tree into a build context, and returns the end of what was said.
    async fn fetch(
        &self,
        image: &str,
        program: &[&str],
        input: Vec<u8>,
        (context, place): (&Path, &str),
        job: &Job<'_>,
    ) -> Result<String, BuildError> {
        let (tree, place) = (context.join(TREE), place.trim_start_matches('/').to_owned());
        let take = move |from: &mut dyn Read| tree::copy(from, BufWriter::new(File::create(tree)?), &place);
        let reach = (self.settings.network, self.settings.allow_source_builds);
        let fetched = self.run(image, program, input, reach, job, take).await?;
        if !fetched.is_done {
            return Err(self.failed(fetched));
        }
        fetched.value?;
        Ok(fetched.log)
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
            exec,
            limit: job.deadline.saturating_duration_since(Instant::now()),
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

    async fn make(
        &self,
        mut held: Held,
        context: &Path,
        dockerfile: String,
        said: String,
        job: &Job<'_>,
    ) -> Result<Held, BuildError> {
        let labels = [(label::RUN, self.platform.run().to_string()), (label::PACKAGES, held.image.clone())];
        self.build(&held.image, &labels, context, dockerfile, job).await?;
        held.log = said;
        Ok(held)
    }

    async fn build(
        &self,
        image: &str,
        labels: &[(&'static str, String)],
        context: &Path,
        dockerfile: String,
        job: &Job<'_>,
    ) -> Result<(), BuildError> {
        tokio::fs::write(context.join("Dockerfile"), dockerfile).await?;
        let spec = BuildSpec {
            context,
            tag: image,
            labels,
            limit: job.deadline.saturating_duration_since(Instant::now()),
            network: BuildNetwork::None,
            limits: None,
            buildkit: self.settings.buildkit,
            live: None,
        };
        build_image(&self.docker, &spec, self.settings.timeout, job.stop).await?;
        Ok(())
    }

    fn making(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for.
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(making.entry(image.to_owned()).or_default())
    }

    fn hold(self: &Arc<Self>, image: String) -> Held {
        *self.held().entry(image.clone()).or_default() += 1;
        Held { packages: Arc::clone(self), image, log: String::new() }
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
