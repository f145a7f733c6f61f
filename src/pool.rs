//! Hands out instances: who may have a container, and when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config;
use crate::docker::{Docker, RunSpec, label};
use crate::instance::{Instance, Slot, StartError};
use crate::platform::Platform;
use crate::registry::Function;

/// The instances of all functions. No more containers than its limit exist at any time, starting and ending ones included.
#[derive(Debug)]
pub struct Pool {
    docker: Docker,
    platform: Arc<Platform>,
    sandbox: config::Sandbox,
    limits: config::Pool,
    slots: Arc<Semaphore>,
    queue: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why an execution gets no instance.
#[derive(Debug, Error)]
pub enum AcquireError {
    /// As many wait as may.
    #[error("{limit} executions wait for a container already (QUEUE_LIMIT); try again later")]
    QueueFull {
        /// How many may.
        limit: u32,
    },
    /// It waited as long as it may.
    #[error("no container became free within {limit:?} (QUEUE_TIMEOUT); try again later")]
    QueueTimeout {
        /// How long it may.
        limit: Duration,
    },
    /// The service stops.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The container did not come up.
    #[error("failed to start a container")]
    Start(#[from] StartError),
}

impl Pool {
    /// Has no containers yet. `stop` refuses further ones; removals go on `tasks`.
    pub fn new(
        docker: Docker,
        platform: Arc<Platform>,
        config: (config::Sandbox, config::Pool),
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (sandbox, limits) = config;
        let slots = Arc::new(Semaphore::new(limits.container_limit as usize));
        let queue = Semaphore::new(limits.queue_limit as usize);
        Self { docker, platform, sandbox, limits, slots, queue, tasks, stop }
    }

    /// An instance for one invocation. A caller that leaves the queue starts no container.
    pub async fn acquire(&self, function: &Function) -> Result<Instance, AcquireError> {
        let slot = self.slot().await?;
        let name = format!("youtube-serverless-{}", Uuid::new_v4());
        let created = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::FUNCTION_ID, function.id.to_string()),
            (label::FUNCTION_NAME, function.name.to_string()),
            (label::LANGUAGE, function.language.as_str().to_owned()),
            (label::CREATED, created.to_string()),
        ];
        let image = function.image_id.as_str();
        let spec = RunSpec { name: &name, image, labels: &labels, sandbox: &self.sandbox };
        Ok(Instance::start(&self.docker, &spec, slot, &self.tasks).await?)
    }

    async fn slot(&self) -> Result<Slot, AcquireError> {
        if self.stop.is_cancelled() {
            return Err(AcquireError::ShuttingDown);
        }
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let Ok(_waiting) = self.queue.try_acquire() else {
            return Err(AcquireError::QueueFull { limit: self.limits.queue_limit });
        };
        tokio::select! {
            slot = Arc::clone(&self.slots).acquire_owned() => Ok(slot.expect("the semaphore is never closed")),
            () = time::sleep(self.limits.queue_timeout) => {
                Err(AcquireError::QueueTimeout { limit: self.limits.queue_timeout })
            }
            () = self.stop.cancelled() => Err(AcquireError::ShuttingDown),
        }
    }
}
