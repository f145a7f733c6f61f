//! The languages' runtime images: base image, bootstrap, and what builds of functions start from.
//!
//! A runtime image is made once per content, on first need, and shared by all platforms on this Docker: its tag is a
//! hash of the base image's id and of all that goes in. Adding a language is one folder in `runtimes/` and one arm here.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::{BuildNetwork, Builds, Uids};
use crate::docker::{BuildError, BuildSpec, Docker, DockerError, label};
use crate::domain::Language;
use crate::resources::clock;
use crate::resources::scratch::Scratch;

/// Warming Go's standard library takes half a minute on two cores; pulling a base image can take longer.
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A runtime image that is younger is kept, whoever needs it: another version of this program may use the same Docker, and would
/// build it again and again.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Files of a build context, by name.
type Files = &'static [(&'static str, &'static str)];

const PYTHON: Files = &[
    ("Dockerfile", include_str!("../runtimes/python/Dockerfile")),
    ("bootstrap.py", include_str!("../runtimes/python/bootstrap.py")),
];

const GO: Files = &[
    ("Dockerfile", include_str!("../runtimes/go/Dockerfile")),
    ("bootstrap.go", include_str!("../runtimes/go/bootstrap.go")),
    ("child.go", include_str!("../runtimes/go/child.go")),
    ("events.go", include_str!("../runtimes/go/events.go")),
    ("inheritance.go", include_str!("../runtimes/go/inheritance.go")),
    ("leftovers.go", include_str!("../runtimes/go/leftovers.go")),
    ("memory.go", include_str!("../runtimes/go/memory.go")),
    ("protocol.go", include_str!("../runtimes/go/protocol.go")),
    ("within_memory.go", include_str!("../runtimes/go/within_memory.go")),
    ("calls_amd64.go", include_str!("../runtimes/go/calls_amd64.go")),
    ("calls_arm64.go", include_str!("../runtimes/go/calls_arm64.go")),
    ("go.mod.txt", include_str!("../runtimes/go/go.mod.txt")),
];

/// Makes runtime images and knows their names.
#[derive(Debug)]
pub struct Runtimes {
    docker: Docker,
    settings: Builds,
    uids: Uids,
    /// Has the build contexts.
    scratch: Scratch,
    /// One builds, the others for the same language wait for it.
    building: HashMap<Language, Mutex<()>>,
}

/// Why there is no runtime image.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A step of its Dockerfile failed.
    #[error("failed to build the runtime image for {language} from {base}: {log}", language = .language.as_str())]
    Step {
        /// For which language.
        language: Language,
        /// From which base image.
        base: String,
        /// The end of what the step printed.
        log: String,
    },
    /// A matter of Docker.
    #[error("failed to make the runtime image for {language} from {base}", language = .language.as_str())]
    Docker {
        /// For which language.
        language: Language,
        /// From which base image.
        base: String,
        /// How.
        #[source]
        source: DockerError,
    },
    /// A matter of this machine's disk.
    #[error("failed to write a build context")]
    Io(#[from] io::Error),
}

impl Runtimes {
    /// Nothing is built yet.
    pub fn new(docker: Docker, settings: Builds, uids: Uids, scratch: Scratch) -> Arc<Self> {
        let building = Language::ALL.into_iter().map(|language| (language, Mutex::default())).collect();
        Arc::new(Self { docker, settings, uids, scratch, building })
    }

    /// The name of the language's runtime image, which is there when this returns.
    pub async fn ensure(&self, language: Language, stop: &CancellationToken) -> Result<String, RuntimeError> {
        let (base, files) = self.sources(language);
        let failed = |source| RuntimeError::Docker { language, base: base.clone(), source };
        let _building = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(failed(DockerError::Cancelled)),
            locked = tokio::time::timeout(BUILD_LIMIT, self.building[&language].lock()) => {
                locked.map_err(|_| failed(DockerError::Timeout { limit: BUILD_LIMIT }))?
            }
        };
        let tag = self.current(language).await.map_err(failed)?;
        if self.docker.image(&tag).await.map_err(failed)?.is_some() {
            return Ok(tag);
        }
        tracing::info!(language = language.as_str(), base, image = tag, "building a runtime image");
        let context = self.scratch.folder().await?;
        for (name, content) in &files {
            tokio::fs::write(context.path().join(name), content.replace("{base}", base)).await?;
        }
        let created = clock::unix_seconds();
        let labels = [(label::LANGUAGE, language.as_str().to_owned()), (label::CREATED, created.to_string())];
        let spec = BuildSpec {
            context: context.path(),
            tag: &tag,
            labels: &labels,
            limit: BUILD_LIMIT,
            network: BuildNetwork::Default,
            limits: None,
            buildkit: self.settings.buildkit,
            live: None,
        };
        self.docker.build(&spec, stop).await.map_err(|error| match error {
            BuildError::Step { log, .. } => RuntimeError::Step { language, base: base.clone(), log },
            BuildError::Docker(source) => failed(source),
        })?;
        Ok(tag)
    }

    /// Removes the runtime images of earlier bootstraps and base images that nothing is built on any more.
    pub async fn remove_old(&self) -> Result<(), DockerError> {
        let now = clock::unix_time();
        for language in Language::ALL {
            let named = format!("reference={}", self.repository(language));
            let labelled = format!("label={}={}", label::LANGUAGE, language.as_str());
            let current = self.current(language).await?;
            for image in self.docker.images(&[&named, &labelled]).await? {
                let name = format!("{}:{}", image.repository, image.tag);
                let created = self.docker.label(&image.id, label::CREATED).await?.unwrap_or_default();
                let age = now.saturating_sub(Duration::from_secs(created.parse().unwrap_or(0)));
                if name == current || age < GRACE {
                    continue;
                }
                // So that the steps of a build that begins now are not taken away with it.
                let _building = self.building[&language].lock().await;
                // By its id, as Docker takes a name away even from an image that others are built on.
                match self.docker.remove_image(&image.id).await {
                    Ok(()) => tracing::info!(image = name, "removed an old runtime image"),
                    Err(error) if error.is_in_use() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The base image of a language, and what goes on top of it.
    fn sources(&self, language: Language) -> (&String, Vec<(&'static str, String)>) {
        let (base, files) = match language {
            Language::Python => (&self.settings.python_image, PYTHON),
            Language::Go => (&self.settings.go_image, GO),
        };
        // Programs find a name for the user that they run as.
        let (first, last) = (self.uids.first.to_string(), self.uids.last.to_string());
        let named = |content: &str| content.replace("{first}", &first).replace("{last}", &last);
        (base, files.iter().map(|&(name, content)| (name, named(content))).collect())
    }

    /// The name of the runtime image that is used now.
    async fn current(&self, language: Language) -> Result<String, DockerError> {
        let (base, files) = self.sources(language);
        // A base image that is not here yet is pulled by the build; until then its name must do.
        let image = self.docker.image(base).await?;
        Ok(self.tag(language, image.as_ref().map_or(base.as_str(), |image| image.id.as_str()), &files))
    }

    fn repository(&self, language: Language) -> String {
        format!("{}-runtime/{}", self.settings.image_prefix, language.as_str())
    }

    fn tag(&self, language: Language, base: &str, files: &[(&str, String)]) -> String {
        let mut hash = Sha256::new();
        for part in [base].into_iter().chain(files.iter().flat_map(|(name, content)| [*name, content])) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash = format!("{:.16x}", hash.finalize());
        format!("{}:{hash}", self.repository(language))
    }
}
