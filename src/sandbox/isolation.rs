//! Whether Docker really gives what it is asked for: an engine ignores limits that its kernel can't keep, and says nothing.
//!
//! A tiny container for each language, run as functions are, looks from inside. What is missing is logged and stands in
//! `/health`; REQUIRE_ISOLATION makes it a reason not to start.

mod evidence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Sandbox;
use crate::docker::platform::Platform;
use crate::docker::{Container, Docker, DockerError, RunSpec, label};
use crate::domain::Language;

/// Docker under full load takes seconds to start a container.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it may go on when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// All that the container says, in bytes.
const MAX_EVIDENCE: u64 = 256 << 10;

/// Looks, and knows what was seen.
#[derive(Debug)]
pub struct Isolation {
    docker: Docker,
    platform: Arc<Platform>,
    sandbox: Sandbox,
    uid: u32,
    tasks: TaskTracker,
    /// By what was looked at.
    missing: Mutex<BTreeMap<&'static str, Vec<String>>>,
    /// Ends a look.
    stop: CancellationToken,
}

/// The container could not be looked at.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It did not run.
    #[error("the container that checks the isolation did not run")]
    Docker(#[source] DockerError),
    /// It did not end.
    #[error("the container that checks the isolation did not end within {LIMIT:?}")]
    Timeout,
    /// The service stops.
    #[error("the check of the isolation was cancelled")]
    Cancelled,
    /// It could not be followed.
    #[error("the check of the isolation died")]
    Died,
}

impl Isolation {
    /// Nothing was looked at yet. The user is for the containers to look into, one at a time.
    pub fn new(
        docker: Docker,
        platform: Arc<Platform>,
        (sandbox, uid): (Sandbox, u32),
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { docker, platform, sandbox, uid, tasks, missing: Mutex::default(), stop })
    }

    /// What was asked for and is not there, each a sentence for people.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.missing.lock();
        missing
            .iter()
            .flat_map(|(what, missing)| missing.iter().map(move |missing| format!("{what}: {missing}")))
            .collect()
    }

    /// Notes what is missing of something, in place of what was noted of it before.
    pub fn note(&self, what: &'static str, missing: Vec<String>) {
        for missing in &missing {
            tracing::warn!(what, missing, "ISOLATION IS NOT COMPLETE");
        }
        self.missing.lock().insert(what, missing);
    }

    /// Looks into a container of a language's runtime image.
    ///
    /// # Errors
    /// When it could not be looked at; the container is removed all the same.
    pub async fn check(self: &Arc<Self>, language: Language, image: String) -> Result<(), CheckError> {
        let this = Arc::clone(self);
        // In a task, as the container must be removed whatever becomes of the caller.
        let looked = self.tasks.spawn(async move { this.look(language, &image).await });
        let said = looked.await.map_err(|_| CheckError::Died)??;
        self.note(language.as_str(), evidence::missing(&said, &self.sandbox, self.uid));
        tracing::info!(language = language.as_str(), "isolation was checked");
        Ok(())
    }

    async fn look(&self, language: Language, image: &str) -> Result<String, CheckError> {
        let name = format!("youtube-serverless-check-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
        ];
        let program = Some(("/bin/sh", evidence::SCRIPT));
        let spec = RunSpec { name: &name, image, labels: &labels, sandbox: &self.sandbox, uid: self.uid, program };
        let (mut container, stdin, stdout) = Container::run(&self.docker, &spec).map_err(CheckError::Docker)?;
        drop(stdin);
        let mut said = Vec::new();
        let mut stdout = stdout.take(MAX_EVIDENCE);
        // It ends by itself in a moment. One that is removed while it comes up may come up after that.
        let is_over = async {
            tokio::select! {
                () = time::sleep(LIMIT) => CheckError::Timeout,
                () = async { self.stop.cancelled().await; time::sleep(STOP_LIMIT).await } => CheckError::Cancelled,
            }
        };
        let read = tokio::select! {
            read = stdout.read_to_end(&mut said) => Ok(read),
            error = is_over => Err(error),
        };
        let looked = match read {
            Err(error) => Err(error),
            Ok(Ok(1..)) => Ok(String::from_utf8_lossy(&said).into_owned()),
            Ok(Ok(0) | Err(_)) => Err(CheckError::Docker(container.stderr_tail().await)),
        };
        container.remove().await;
        looked
    }
}
