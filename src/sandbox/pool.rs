//! Hands out instances: warm ones where there are any, new ones where that pays, within one limit over all functions.
//!
//! All decisions are in `policy`, all bookkeeping in `state`; here is what happens around them. The pool's lock is held
//! for short sections only, never across an `.await`, and no [`Lease`] is dropped under it.

mod lease;
mod policy;
mod state;
mod uids;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config;
use crate::docker::platform::Platform;
use crate::docker::{Docker, RunSpec, label};
use crate::domain::FunctionId;
use crate::functions::{Function, Revision};
use crate::resources::clock;
use crate::sandbox::instance::{Instance, Slot, StartError};

pub use lease::{Lease, Start};
use policy::Step;
use state::{Phase, State};

/// Names a slot while the slot is taken.
type Key = u64;

/// Where a waiter's lease, or the reason why there is none, is sent.
type Grant = oneshot::Sender<Result<Lease, Arc<StartError>>>;

type Bookkeeping = State<Instance, Grant>;

/// The instances of all functions. No more containers than its limit exist at any time, starting and ending ones included.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Bookkeeping>,
    docker: Docker,
    platform: Arc<Platform>,
    sandbox: config::Sandbox,
    limits: config::Pool,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Somebody waits who was not there before.
    wake: Notify,
}

/// How a caller waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Since when.
    pub since: Instant,
    /// It has its place already, however many wait.
    pub is_admitted: bool,
    /// How long it may wait from now on; None for QUEUE_TIMEOUT.
    pub patience: Option<Duration>,
    /// Nobody waits for what it does: all others come before it.
    pub is_background: bool,
}

/// Why an execution gets no instance.
#[derive(Clone, Debug, Error)]
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
    /// The function was deleted or changed meanwhile.
    #[error("the function was deleted or changed")]
    Retired,
    /// The service stops.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The container did not come up. Those who waited for it share the error.
    #[error("failed to start a container")]
    Start(#[source] Arc<StartError>),
}

impl Pool {
    /// Has no containers yet. When `stop` is cancelled it hands out none any more and ends the idle ones.
    pub fn new(
        docker: Docker,
        platform: Arc<Platform>,
        config: (config::Sandbox, config::Pool, config::Uids),
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (sandbox, limits, uids) = config;
        let state = Mutex::new(State::new(limits.container_limit as usize, uids.of_instances()));
        Self(Arc::new(Shared { state, docker, platform, sandbox, limits, tasks, stop, wake: Notify::new() }))
    }

    /// An instance for one invocation: an idle one at once, else whichever comes first, one set free or a new one.
    ///
    /// A caller that leaves the queue starts no container.
    pub async fn acquire(&self, function: &Arc<Function>, wait: Wait) -> Result<Lease, AcquireError> {
        let shared = &self.0;
        let (waiting, mut grant) = {
            let mut state = shared.lock();
            if state.closed {
                return Err(AcquireError::ShuttingDown);
            }
            if function.is_retired() {
                return Err(AcquireError::Retired);
            }
            while let Some((key, mut instance)) = state.take_idle(function.revision) {
                if instance.is_alive() {
                    shared.prestart_successor(&mut state, function.revision, &instance);
                    shared.rebalance(&mut state);
                    return Ok(Lease::new(Arc::clone(shared), function.revision, key, instance, Start::Warm));
                }
                tracing::warn!(container.name = instance.name(), "an idle container went away");
                state.set_phase(key, Phase::Ending);
            }
            let (sender, grant) = oneshot::channel();
            let number = state.push_waiter(function, (wait.since, wait.is_background), sender);
            shared.rebalance(&mut state);
            let is_admitted = wait.is_admitted || state.is_covered(function.revision, number);
            if !is_admitted && state.uncovered() > shared.limits.queue_limit as usize {
                state.remove_waiter(function.revision, number);
                return Err(AcquireError::QueueFull { limit: shared.limits.queue_limit });
            }
            (Waiting { shared, revision: function.revision, number }, grant)
        };
        shared.wake.notify_one();
        let limit = wait.patience.unwrap_or(shared.limits.queue_timeout);
        let mut patience = limit;
        loop {
            tokio::select! {
                granted = &mut grant => return match granted {
                    Ok(granted) => granted.map_err(AcquireError::Start),
                    Err(_) if function.is_retired() => Err(AcquireError::Retired),
                    Err(_) => Err(AcquireError::ShuttingDown),
                },
                () = time::sleep(patience) => {
                    // Who waits for a container that comes up is not in a queue; whether it does is looked at again and again.
                    if !waiting.is_covered() {
                        return Err(AcquireError::QueueTimeout { limit });
                    }
                    patience = policy::PATIENCE;
                }
            }
        }
    }

    /// Whether an instance of this function waits for work.
    pub fn has_idle(&self, revision: Revision) -> bool {
        self.0.lock().has_idle(revision)
    }

    /// How many instances are at what, and how many callers wait.
    pub fn counts(&self) -> ([(&'static str, usize); 4], usize) {
        let state = self.0.lock();
        (state.phases(), state.waiting())
    }

    /// How many instances of each function come up, are idle, and busy.
    pub fn counts_by_function(&self) -> Vec<(FunctionId, [usize; 3])> {
        self.0.lock().counts_by_function()
    }

    /// Starts an instance ahead of need, if there is room.
    pub fn warm(&self, function: &Arc<Function>) {
        let mut state = self.0.lock();
        if !state.closed && !function.is_retired() {
            state.ensure_queue(function);
            state.want_spare(function.revision);
            self.0.rebalance(&mut state);
        }
    }

    /// Hands out no instance of this revision of a function any more; idle ones end, busy ones when their invocation has ended.
    pub fn retire(&self, function: &Function) {
        let mut state = self.0.lock();
        function.retire();
        drop(state.retire(function.revision));
        self.0.rebalance(&mut state);
    }

    /// Ends instances that have been idle for long, and looks after those who wait. Runs until the pool is stopped.
    pub async fn run(self) {
        let shared = &self.0;
        loop {
            let wake = {
                let mut state = shared.lock();
                state.drop_idle_since(Instant::now(), shared.limits.idle_timeout);
                shared.rebalance(&mut state);
                let wake = state.waiting() > 0;
                let due = if wake {
                    Instant::now() + policy::PATIENCE / 4
                } else {
                    Instant::now() + shared.limits.idle_timeout
                };
                state.next_expiry(shared.limits.idle_timeout).map_or(due, |expiry| expiry.min(due))
            };
            tokio::select! {
                () = time::sleep_until(wake) => {}
                () = shared.wake.notified() => {}
                () = shared.stop.cancelled() => break,
            }
        }
        drop(shared.lock().close());
    }
}

/// A caller's place in the queue, given up when it leaves.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    revision: Revision,
    number: u64,
}

impl Waiting<'_> {
    fn is_covered(&self) -> bool {
        self.shared.lock().is_covered(self.revision, self.number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().remove_waiter(self.revision, self.number);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Bookkeeping> {
        self.state.lock()
    }

    /// Takes all steps that the policy wants now.
    fn rebalance(self: &Arc<Self>, state: &mut Bookkeeping) {
        while let Some(step) = state.next_step() {
            match step {
                Step::Start(function) => self.begin_start(state, function),
                Step::Evict(function) => drop(state.evict(function)),
            }
        }
    }

    fn begin_start(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision) {
        let Some((key, uid, function)) = state.begin_start(revision) else { return };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            match shared.start(&function, key, uid).await {
                Ok(instance) => shared.offer(revision, key, instance, Start::Cold),
                Err(error) => shared.start_failed(revision, key, error),
            }
        });
    }

    async fn start(self: &Arc<Self>, function: &Function, key: Key, uid: u32) -> Result<Instance, StartError> {
        let name = format!("youtube-serverless-{}", Uuid::new_v4());
        let created = clock::unix_seconds();
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::FUNCTION_ID, function.id.to_string()),
            (label::FUNCTION_NAME, function.name.to_string()),
            (label::VERSION, function.version.id.number.to_string()),
            (label::LANGUAGE, function.version.language.as_str().to_owned()),
            (label::CREATED, created.to_string()),
        ];
        let shared = Arc::clone(self);
        let slot = Slot::new(move || {
            let mut state = shared.lock();
            state.free(key);
            shared.rebalance(&mut state);
        });
        let image = function.version.image().id;
        let sandbox = self.sandbox.with(&function.settings);
        let spec =
            RunSpec { name: &name, image: image.as_str(), labels: &labels, sandbox: &sandbox, uid, program: None };
        Instance::start(&self.docker, &spec, slot, &self.tasks).await
    }

    fn start_failed(self: &Arc<Self>, revision: Revision, key: Key, error: StartError) {
        let error = Arc::new(error);
        let mut state = self.lock();
        state.set_phase(key, Phase::Ending);
        let waiters = match &*error {
            // No other start of it will do better, however many may come.
            StartError::NoImage(_) => state.take_waiters(revision),
            StartError::Docker(_) | StartError::Timeout | StartError::Protocol(_) => {
                state.waiters_without_hope(revision)
            }
        };
        if waiters.is_empty() {
            tracing::warn!(function.id = %revision.function, %error, "failed to start an instance");
        }
        drop(state);
        for waiter in waiters {
            // Who left meanwhile needs no error.
            let _ = waiter.send(Err(Arc::clone(&error)));
        }
    }

    /// Gives an instance to who waits for it, keeps it, or ends it.
    fn offer(self: &Arc<Self>, revision: Revision, key: Key, instance: Instance, start: Start) {
        let mut state = self.lock();
        let worn = self.limits.max_invocations != 0 && instance.invocations() >= self.limits.max_invocations;
        if worn || !state.keeps(revision) || state.should_yield(revision) {
            state.set_phase(key, Phase::Ending);
            self.rebalance(&mut state);
            drop(state);
            drop(instance);
            return;
        }
        let mut instance = instance;
        self.prestart_successor(&mut state, revision, &instance);
        while let Some(waiter) = state.pop_waiter(revision) {
            state.set_phase(key, Phase::Busy(Instant::now()));
            let lease = Lease::new(Arc::clone(self), revision, key, instance, start);
            match waiter.send(Ok(lease)) {
                Ok(()) => return self.rebalance(&mut state),
                // It left in this moment.
                Err(Ok(lease)) => instance = lease.into_instance(),
                Err(Err(_)) => unreachable!("a lease was sent"),
            }
        }
        state.park(key, instance);
        self.rebalance(&mut state);
    }

    /// Has an instance that is about to run its last invocation succeeded by another, ahead of need.
    fn prestart_successor(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision, instance: &Instance) {
        if self.limits.max_invocations != 0 && instance.invocations() + 1 >= self.limits.max_invocations {
            state.want_spare(revision);
        }
    }
}
