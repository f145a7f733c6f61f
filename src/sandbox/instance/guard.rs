//! Ties a container to its permit: the permit becomes free only when the container is gone.

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::time;
use tokio_util::task::TaskTracker;

use super::End;
use super::code::CodeFolder;
use crate::docker::Container;
use crate::sandbox::protocol::ProtocolError;

/// The longest time that Docker may take to note the end of a container.
const END_LIMIT: Duration = Duration::from_secs(3);
/// The longest time that an answer waits for a container's removal. While Docker does not answer, the removal goes on
/// in the background.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// The right to have one container. A permit calls its function when the permit is free again.
pub struct Permit(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Permit {
    /// A permit that calls `freed` when the permit is dropped.
    pub fn new(freed: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(freed)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(freed) = self.0.take() {
            freed();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Ensures that the container is removed before its permit becomes free, on every path.
#[derive(Debug)]
pub(super) struct Guard {
    held: Option<Held>,
    /// Whether an earlier invocation had an OOM. Docker keeps its OOM mark on the container, so the mark then says
    /// nothing about a later invocation.
    pub(super) had_oom: bool,
    tasks: TaskTracker,
}

/// What exists until a container is gone.
#[derive(Debug)]
struct Held {
    /// None before the container's start.
    container: Option<Container>,
    /// The files that a slot's container sees.
    code: Option<CodeFolder>,
    permit: Permit,
}

impl Held {
    /// Removes the container, then the files, and then gives the permit back.
    async fn remove(self) {
        if let Some(container) = self.container {
            container.remove().await;
        }
        if let Some(code) = self.code {
            code.remove().await;
        }
        drop(self.permit);
    }
}

impl Guard {
    /// A guard without a container.
    pub(super) fn new(permit: Permit, tasks: &TaskTracker) -> Self {
        Self { held: Some(Held { container: None, code: None, permit }), had_oom: false, tasks: tasks.clone() }
    }

    /// A guard of a container to come that sees these files.
    pub(super) fn with_code(permit: Permit, code: CodeFolder, tasks: &TaskTracker) -> Self {
        let held = Held { container: None, code: Some(code), permit };
        Self { held: Some(held), had_oom: false, tasks: tasks.clone() }
    }

    pub(super) fn put(&mut self, container: Container) {
        self.held.as_mut().expect("the guard holds a permit until the removal").container = Some(container);
    }

    pub(super) fn container(&mut self) -> &mut Container {
        let held = self.held.as_mut().expect("the container is held until it is removed");
        held.container.as_mut().expect("the container has started")
    }

    pub(super) fn code(&self) -> Option<&CodeFolder> {
        self.held.as_ref().and_then(|held| held.code.as_ref())
    }

    /// The container's name.
    pub(super) fn name(&self) -> &str {
        self.held.as_ref().and_then(|held| held.container.as_ref()).map_or("(removed)", Container::name)
    }

    /// Removes the container. The removal goes on in the background when this future is dropped or after
    /// `REMOVAL_LIMIT`. Returns false when the removal failed or is not finished yet.
    pub(super) async fn remove(&mut self) -> bool {
        let Some(held) = self.held.take() else { return true };
        let removal = self.tasks.spawn(held.remove());
        match time::timeout(REMOVAL_LIMIT, removal).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the removal of a container failed");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether Docker knows of an OOM in the invocation that began at this time. Some versions of Docker mark the
    /// container while the container runs, others only after its end; all versions emit an event.
    pub(super) async fn was_oom_killed(&mut self, began: SystemTime) -> bool {
        let had_oom = self.had_oom;
        let container = self.container();
        let (state, event) = tokio::join!(container.state(), container.had_oom_since(began));
        let is_noted = state.map(|state| state.is_some_and(|state| state.oom_killed) && !had_oom);
        [is_noted, event].into_iter().any(|oom| {
            oom.unwrap_or_else(|error| {
                tracing::warn!(%error, "failed to inspect a container");
                false
            })
        })
    }

    /// The reason why the container closed its pipes or broke the protocol.
    pub(super) async fn explain(&mut self, error: &ProtocolError, began: SystemTime) -> End {
        if matches!(error, ProtocolError::Io(_)) {
            // A socket ends before Docker knows of the container's end, and of an OOM.
            let _ = time::timeout(END_LIMIT, self.container().ended()).await;
        }
        if self.was_oom_killed(began).await {
            return End::OutOfMemory;
        }
        tracing::warn!(container.name = self.container().name(), %error, "an instance was lost");
        End::Lost
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.tasks.spawn(held.remove());
        }
    }
}
