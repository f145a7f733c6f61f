//! Checks whether Docker really applies the sandbox's limits: an engine silently ignores limits that its kernel can't
//! keep.
//!
//! For each language, a small container with the sandbox of a function reads its own limits. Each gap is logged and is
//! part of the answer of `/health`. With REQUIRE_ISOLATION, the service does not start when there is a gap.

mod evidence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Sandbox;
use crate::docker::platform::Platform;
use crate::docker::{Container, Docker, DockerError, Program, RunSpec, label};
use crate::domain::Language;
use crate::egress::Traffic;
use crate::resources::scratch::Scratch;
use crate::sandbox::instance::{Instance, Permit, Slot, StartError, TakeError};
use crate::sandbox::output::Output;
use crate::sandbox::preload::Plan;
use crate::sandbox::protocol::{Nonce, Request, Setup, Stdin};
use crate::sandbox::transport::Transport;

/// The longest time that a check may take. Docker takes seconds to start a container under full load.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest time that a check may go on when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The subject of the gaps of slots.
const SLOT: &str = "slot";
/// The most bytes that are read of the container's output.
const MAX_EVIDENCE: u32 = 256 << 10;

/// Checks the isolation of containers, and keeps the results.
#[derive(Debug)]
pub struct Isolation {
    docker: Docker,
    platform: Arc<Platform>,
    sandbox: Sandbox,
    uid: u32,
    transport: Arc<Transport>,
    scratch: Scratch,
    tasks: TaskTracker,
    /// The gaps by subject, such as a language.
    missing: Mutex<BTreeMap<&'static str, Vec<String>>>,
    /// The languages with a result.
    checked: Mutex<Vec<Language>>,
    /// Held while a check has a container: all checks have the same user.
    looking: tokio::sync::Mutex<()>,
    /// Ends a check.
    stop: CancellationToken,
}

/// Why a check has no result.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Docker did not run the container, or the container printed nothing.
    #[error("the container that checks the isolation did not run")]
    Docker(#[source] DockerError),
    /// The slot did not run the program.
    #[error("the slot that checks the isolation did not run")]
    Slot(#[source] TakeError),
    /// The container did not end in time.
    #[error("the container that checks the isolation did not end within {LIMIT:?}")]
    Timeout,
    /// The service stops.
    #[error("the check of the isolation was cancelled")]
    Cancelled,
    /// The task of the check panicked.
    #[error("the check of the isolation died")]
    Died,
}

/// The parts that a checker is made of.
pub(crate) struct IsolationParts {
    pub(crate) docker: Docker,
    pub(crate) platform: Arc<Platform>,
    pub(crate) sandbox: Sandbox,
    /// The user of the containers of all checks.
    pub(crate) uid: u32,
    pub(crate) transport: Arc<Transport>,
    pub(crate) scratch: Scratch,
    pub(crate) tasks: TaskTracker,
    /// Ends a check.
    pub(crate) stop: CancellationToken,
}

impl Isolation {
    /// A checker without results.
    pub(crate) fn new(parts: IsolationParts) -> Arc<Self> {
        let IsolationParts { docker, platform, sandbox, uid, transport, scratch, tasks, stop } = parts;
        let (missing, checked, looking) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Self { docker, platform, sandbox, uid, transport, scratch, tasks, missing, checked, looking, stop })
    }

    /// Whether there is a result for the containers of a language.
    pub fn is_checked(&self, language: Language) -> bool {
        self.checked.lock().contains(&language)
    }

    /// The gaps that the checks have found, each as a text for people.
    pub fn missing(&self) -> Vec<String> {
        self.missing_of(|_| true)
    }

    /// The gaps of containers that run functions. Slots with a gap of their own are not held.
    pub fn missing_of_functions(&self) -> Vec<String> {
        self.missing_of(|what| what != SLOT)
    }

    fn missing_of(&self, counts: impl Fn(&str) -> bool) -> Vec<String> {
        let missing = self.missing.lock();
        missing
            .iter()
            .filter(|(what, _)| counts(what))
            .flat_map(|(what, missing)| missing.iter().map(move |missing| format!("{what}: {missing}")))
            .collect()
    }

    /// Stores the gaps of a subject, and replaces earlier gaps of the same subject.
    pub fn note(&self, what: &'static str, missing: Vec<String>) {
        for missing in &missing {
            tracing::warn!(what, missing, "ISOLATION IS NOT COMPLETE");
        }
        self.missing.lock().insert(what, missing);
    }

    /// Checks the isolation of a container from a language's runtime image.
    ///
    /// # Errors
    /// When the check has no result. The container is removed in any case.
    pub async fn check(self: &Arc<Self>, language: Language, image: String) -> Result<(), CheckError> {
        let this = Arc::clone(self);
        // The check runs in a task, because the container must be removed even when the caller is dropped.
        let looked = self.tasks.spawn(async move {
            let _one = this.looking.lock().await;
            this.look(language, &image).await
        });
        let said = looked.await.map_err(|_| CheckError::Died)??;
        self.note(language.as_str(), evidence::missing(&said, &self.sandbox, self.uid, &[]));
        self.checked.lock().push(language);
        tracing::info!(language = language.as_str(), "isolation was checked");
        Ok(())
    }

    /// Checks the isolation of a slot that has taken a Python program from the host. Returns whether the slot has each
    /// part of the isolation that a container from the runtime image has.
    ///
    /// # Errors
    /// When the check has no result. The container is removed in any case.
    pub async fn check_slot(self: &Arc<Self>, image: String) -> Result<bool, CheckError> {
        let this = Arc::clone(self);
        let looked = self.tasks.spawn(async move {
            let _one = this.looking.lock().await;
            tokio::select! {
                looked = this.look_into_slot(&image) => looked.map_err(CheckError::Slot),
                () = this.stop.cancelled() => Err(CheckError::Cancelled),
            }
        });
        let said = looked.await.map_err(|_| CheckError::Died)??;
        let mut missing = evidence::missing(&said, &self.sandbox, self.uid, &evidence::OF_SLOT);
        // What the engine gives no container is listed for the language.
        let of_all = self.missing.lock().get(Language::Python.as_str()).cloned().unwrap_or_default();
        missing.retain(|missing| !of_all.contains(missing));
        let is_complete = missing.is_empty();
        self.note(SLOT, missing);
        Ok(is_complete)
    }

    /// Finds out whether a bootstrap of the Python runtime image reaches a socket of this service, and tells the
    /// transport. Otherwise instances are reached by pipes.
    pub async fn try_socket(self: &Arc<Self>, image: String) {
        if !self.transport.is_unknown() {
            return;
        }
        let this = Arc::clone(self);
        let tried = self.tasks.spawn(async move {
            let _one = this.looking.lock().await;
            let tried = tokio::select! {
                tried = this.connect(&image) => tried.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
                () = this.stop.cancelled() => return,
            };
            match &tried {
                Ok(()) => tracing::info!("instances are reached by sockets"),
                Err(reason) => tracing::warn!(
                    reason,
                    "THE ENGINE DOES NOT REACH SOCKETS OF THIS SERVICE: each instance keeps a docker client, which \
                     costs memory and time; see docs/operations.md"
                ),
            }
            this.transport.note(tried);
        });
        // A panic has printed a message of its own.
        let _ = tried.await;
    }

    /// Starts an instance without a function, and ends the instance.
    async fn connect(&self, image: &str) -> Result<(), StartError> {
        let name = format!("youtube-serverless-check-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, Language::Python.as_str().to_owned()),
        ];
        let program = Program::OwnWith("no-function.py");
        let spec = RunSpec {
            name: &name,
            image,
            labels: &labels,
            sandbox: &self.sandbox,
            uid: self.uid,
            program,
            mounts: &[],
            hosts: &[],
        };
        let setup = Setup { environment: Vec::new(), preload: Plan::none() };
        let rendezvous = self.transport.open().await?;
        let (freed, is_free) = oneshot::channel::<()>();
        let permit = Permit::new(move || drop(freed));
        let started = Instance::start(&self.docker, &spec, (&setup, None), Some(rendezvous), permit, &self.tasks).await;
        let reached = started.map(drop);
        // The next container may have the same user.
        let _ = is_free.await;
        reached
    }

    async fn look_into_slot(&self, image: &str) -> Result<String, TakeError> {
        let name = format!("youtube-serverless-check-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, Language::Python.as_str().to_owned()),
        ];
        let (program, sandbox, uid) = (Program::Own, &self.sandbox, self.uid);
        let spec = RunSpec { name: &name, image, labels: &labels, sandbox, uid, program, mounts: &[], hosts: &[] };
        let (freed, is_free) = oneshot::channel::<()>();
        let permit = Permit::new(move || drop(freed));
        let ran = async {
            let ways = (self.transport.open().await.map_err(StartError::from)?, &self.scratch);
            let slot = Slot::start(&self.docker, &spec, Language::Python, ways, permit, &self.tasks).await?;
            let setup = Setup { environment: Vec::new(), preload: Plan::none() };
            let mut instance = slot.take_file("main.py", evidence::program(), &setup).await?;
            let output = Output::new(MAX_EVIDENCE as usize);
            let stdin = Stdin::Memory(Vec::new());
            let request = Request {
                nonce: Nonce::random(),
                stdout_cap: Some(MAX_EVIDENCE),
                stderr_cap: MAX_EVIDENCE,
                environment: &[],
                stdin: &stdin,
            };
            let ran = instance.run(&request, LIMIT, &output, &Traffic::default()).await;
            drop(instance.finish(ran, &output).await);
            Ok(String::from_utf8_lossy(&output.end().0).into_owned())
        }
        .await;
        // The next container may have the same user.
        let _ = is_free.await;
        ran
    }

    async fn look(&self, language: Language, image: &str) -> Result<String, CheckError> {
        let name = format!("youtube-serverless-check-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
        ];
        let program = Program::Shell(evidence::SCRIPT);
        let spec = RunSpec {
            name: &name,
            image,
            labels: &labels,
            sandbox: &self.sandbox,
            uid: self.uid,
            program,
            mounts: &[],
            hosts: &[],
        };
        let (mut container, stdin, stdout) = Container::run(&self.docker, &spec).map_err(CheckError::Docker)?;
        drop(stdin);
        let mut said = Vec::new();
        let mut stdout = stdout.take(MAX_EVIDENCE.into());
        // The container ends by itself quickly, so a stop of the service waits for the container: a container that is
        // removed while Docker starts it may start after the removal.
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
