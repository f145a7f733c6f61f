//! The runtime image of each language: the base image and the bootstrap, from which builds of functions start.
//!
//! A runtime image is made once per content, on first need, and shared by all platforms on this Docker: the tag is a
//! hash of the base image's id and of all files that go into the image. CONTRIBUTING.md says what a language takes.
//! Nodes share the runtime images that functions' images are built upon.

mod sharing;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::{BuildNetwork, Builds, Uids};
use crate::docker::{BuildError, BuildSpec, Docker, DockerError, label};
use crate::domain::Language;
use crate::resources::clock;
use crate::resources::scratch::Scratch;
use crate::runtimes;
use crate::store::Store;

/// The time limit for making a runtime image. Warming Go's standard library takes half a minute on two cores; pulling a
/// base image can take longer.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long the removal of an old runtime image waits for a build of the same language.
const TURN_LIMIT: Duration = Duration::from_secs(60);

/// How old a runtime image must be to be removed. Another version of this program may use the same Docker, and would
/// otherwise have to build its runtime image again and again.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Makes runtime images and knows their names.
#[derive(Debug)]
pub struct Runtimes {
    docker: Docker,
    config: Builds,
    uids: Uids,
    /// Holds the build contexts.
    scratch: Scratch,
    store: Store,
    /// A lock per language: one task builds, and the other tasks for the same language wait. The name of the image that
    /// this process has taken from the other nodes, or has tried to take, is in the lock.
    building: HashMap<Language, Mutex<Option<String>>>,
}

/// Why there is no runtime image.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A step of the runtime image's Dockerfile failed.
    #[error("failed to build the runtime image for {language} from {base}: {log}", language = .language.as_str())]
    Step {
        /// The language of the runtime image.
        language: Language,
        /// The base image.
        base: String,
        /// The end of the step's output.
        log: String,
    },
    /// A Docker request failed.
    #[error("failed to make the runtime image for {language} from {base}", language = .language.as_str())]
    Docker {
        /// The language of the runtime image.
        language: Language,
        /// The base image.
        base: String,
        /// The error of the request.
        #[source]
        source: DockerError,
    },
    /// A file of the build context could not be written.
    #[error("failed to write a build context")]
    Io(#[from] io::Error),
}

impl Runtimes {
    /// Takes the configuration. No image is built yet.
    pub fn new(docker: Docker, config: Builds, uids: Uids, scratch: Scratch, store: Store) -> Arc<Self> {
        let building = Language::ALL.into_iter().map(|language| (language, Mutex::default())).collect();
        Arc::new(Self { docker, config, uids, scratch, store, building })
    }

    /// Returns the name of the language's runtime image, and builds the image where Docker does not have it yet. Where
    /// nodes share the image, this process first looks for the other nodes' image, once.
    pub async fn ensure(&self, language: Language, stop: &CancellationToken) -> Result<String, RuntimeError> {
        let (base, _) = self.sources(language);
        let failed = |source| RuntimeError::Docker { language, base: base.clone(), source };
        let mut shared = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(failed(DockerError::Cancelled)),
            locked = time::timeout(BUILD_LIMIT, self.building[&language].lock()) => {
                locked.map_err(|_| failed(DockerError::Timeout { limit: BUILD_LIMIT }))?
            }
        };
        let tag = self.current(language).await.map_err(failed)?;
        if self.is_shared(language) && shared.as_ref() != Some(&tag) {
            self.share(language, &tag, stop).await?;
            *shared = Some(tag.clone());
        } else {
            self.build(language, &tag, stop).await?;
        }
        Ok(tag)
    }

    /// Builds a runtime image where Docker does not have the image.
    async fn build(&self, language: Language, tag: &str, stop: &CancellationToken) -> Result<(), RuntimeError> {
        let (base, files) = self.sources(language);
        let failed = |source| RuntimeError::Docker { language, base: base.clone(), source };
        if self.docker.image(tag).await.map_err(failed)?.is_some() {
            return Ok(());
        }
        tracing::info!(language = language.as_str(), base, image = tag, "building a runtime image");
        let files: Vec<_> = files.into_iter().map(|(name, content)| (name, content.replace("{base}", base))).collect();
        self.make((language, base), tag, &files, BuildNetwork::Default, stop).await
    }

    /// Returns the name of the image of a language's slots, which is made from this runtime image, and builds the image
    /// where Docker does not have it yet.
    pub async fn ensure_slot(
        &self,
        language: Language,
        runtime: &str,
        stop: &CancellationToken,
    ) -> Result<String, RuntimeError> {
        let Some((tag, text)) = self.slot(language, runtime) else { return Ok(runtime.to_owned()) };
        let failed = |source| RuntimeError::Docker { language, base: runtime.to_owned(), source };
        let _building = self.building[&language].lock().await;
        if self.docker.image(&tag).await.map_err(failed)?.is_none() {
            let files = [("Dockerfile", text)];
            self.make((language, runtime), &tag, &files, BuildNetwork::None, stop).await?;
        }
        Ok(tag)
    }

    /// The name of the image of slots, and its Dockerfile. None where the runtime image itself serves.
    fn slot(&self, language: Language, runtime: &str) -> Option<(String, String)> {
        let text = runtimes::slot_dockerfile(language)?.replace("{runtime}", runtime);
        let hash = hash(runtime, &[("Dockerfile", text.clone())]);
        Some((format!("{}-slot:{hash}", self.repository(language)), text))
    }

    async fn make(
        &self,
        (language, base): (Language, &str),
        tag: &str,
        files: &[(&str, String)],
        network: BuildNetwork,
        stop: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        let context = self.scratch.folder().await?;
        for (name, content) in files {
            tokio::fs::write(context.path().join(name), content).await?;
        }
        let created = clock::unix_seconds();
        let (_, hash) = tag.rsplit_once(':').expect("the name has a tag");
        let labels = [
            (label::LANGUAGE, language.as_str().to_owned()),
            (label::RUNTIME, hash.to_owned()),
            (label::CREATED, created.to_string()),
        ];
        let spec = BuildSpec {
            context: context.path(),
            tag,
            labels: &labels,
            limit: BUILD_LIMIT,
            network,
            limits: None,
            builder: self.config.builder,
            live: None,
        };
        self.docker.build(&spec, stop).await.map_err(|error| match error {
            BuildError::Step { log, .. } => RuntimeError::Step { language, base: base.to_owned(), log },
            BuildError::Docker(source) => RuntimeError::Docker { language, base: base.to_owned(), source },
        })?;
        Ok(())
    }

    /// Removes the runtime images of earlier bootstraps and base images on which no other image is built any more.
    pub async fn remove_old(&self) -> Result<(), DockerError> {
        let now = clock::unix_time();
        for language in Language::ALL {
            let current = self.current(language).await?;
            let slot = self.slot(language, &current).map(|(tag, _)| tag);
            let labelled = format!("label={}={}", label::LANGUAGE, language.as_str());
            let mut images = Vec::new();
            for name in [&current].into_iter().chain(&slot) {
                let (repository, _) = name.rsplit_once(':').expect("the name has a tag");
                images.extend(self.docker.images(&[&format!("reference={repository}"), &labelled]).await?);
            }
            for image in images {
                let name = format!("{}:{}", image.repository, image.tag);
                let created = self.docker.label(&image.id, label::CREATED).await?.unwrap_or_default();
                let age = now.saturating_sub(Duration::from_secs(created.parse().unwrap_or(0)));
                if name == current || slot.as_ref() == Some(&name) || age < GRACE {
                    continue;
                }
                // A build that begins now must not lose its steps to this removal.
                let Ok(_building) = time::timeout(TURN_LIMIT, self.building[&language].lock()).await else {
                    tracing::warn!(
                        language = language.as_str(),
                        "a runtime image is still being built: trying to remove old runtime images again later"
                    );
                    break;
                };
                // Remove by id: given a name, Docker removes the name even from an image that other images are built
                // on.
                match self.docker.remove_image(&image.id).await {
                    Ok(()) => tracing::info!(image = name, "removed an old runtime image"),
                    Err(error) if error.is_in_use() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The base image of a language, and the files that go on top of the base image.
    fn sources(&self, language: Language) -> (&String, Vec<(&'static str, String)>) {
        let base = match language {
            Language::Python => &self.config.python_image,
            Language::Go => &self.config.go_image,
        };
        // The files get the range of user ids, so that a program finds a name for the user that runs the program.
        let (first, last) = (self.uids.first.to_string(), self.uids.last.to_string());
        let named = |content: &str| content.replace("{first}", &first).replace("{last}", &last);
        (base, runtimes::image_files(language).iter().map(|&(name, content)| (name, named(content))).collect())
    }

    /// The name of the runtime image for the current base image and files.
    async fn current(&self, language: Language) -> Result<String, DockerError> {
        let (base, files) = self.sources(language);
        // The build pulls a base image that Docker does not have yet. Until then the hash uses the base image's name.
        let image = self.docker.image(base).await?;
        let base = image.as_ref().map_or(base.as_str(), |image| image.id.as_str());
        Ok(format!("{}:{}", self.repository(language), hash(base, &files)))
    }

    fn repository(&self, language: Language) -> String {
        format!("{}-runtime/{}", self.config.image_prefix, language.as_str())
    }
}

/// The tag of an image that is made of this base and these files.
fn hash(base: &str, files: &[(&str, String)]) -> String {
    let mut hash = Sha256::new();
    for part in [base].into_iter().chain(files.iter().flat_map(|(name, content)| [*name, content])) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{:.16x}", hash.finalize())
}
