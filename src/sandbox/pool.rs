//! Hands out instances: idle instances first, new instances where a start pays, within one limit over all functions.
//!
//! All decisions are in `policy`, all bookkeeping is in `state`; this module starts and ends the containers. The pool's
//! lock is held for short sections only and never across an `.await`. No [`Lease`] may be dropped under the lock.

mod evictions;
mod fitness;
mod lease;
mod policy;
mod refill;
mod residents;
mod slots;
mod start;
mod state;
mod supply;
mod take;
mod uids;
mod upkeep;
mod usage;
mod warmth;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, HttpMode};
use crate::docker::Docker;
use crate::docker::platform::Platform;
use crate::domain::Language;
use crate::egress::Egress;
use crate::functions::trees::Trees;
use crate::functions::{Function, Revision};
use crate::resources::scratch::Scratch;
use crate::sandbox::instance::{Instance, Slot, StartError};
use crate::sandbox::transport::Transport;

use evictions::Evictions;
pub use lease::{Lease, Start};
use policy::Step;
pub(crate) use slots::SlotImage;
use slots::Slots;
use state::{Phase, State};
pub use usage::Usage;

/// Names a permit while the permit is taken.
type Key = u64;

/// Where a waiter's lease, or the reason why there is none, is sent.
type Grant = oneshot::Sender<Result<Lease, Arc<StartError>>>;

type Bookkeeping = State<Instance, Slot, Grant>;

/// The instances of all functions. At no time do more containers exist than the limit, starting and ending containers
/// included.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Bookkeeping>,
    docker: Docker,
    platform: Arc<Platform>,
    transport: Arc<Transport>,
    trees: Arc<Trees>,
    scratch: Scratch,
    sandbox: config::Sandbox,
    network: config::Egress,
    egress: Egress,
    preload: config::PreloadLimit,
    limits: config::Pool,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Notified when a new caller waits.
    wake: Notify,
    /// Notified when an instance to keep may be lacking, or may have room.
    keep: Notify,
    /// Notified when the image of slots may have to be made.
    images: Notify,
}

/// How a caller waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The time since which the caller waits.
    pub since: Instant,
    /// The caller already has a place in a queue, so QUEUE_LIMIT does not apply.
    pub is_admitted: bool,
    /// How long the caller may wait from now on. None means QUEUE_TIMEOUT.
    pub patience: Option<Duration>,
    /// No client waits for this invocation: callers with a client come first.
    pub is_background: bool,
    /// The caller only has an instance started, and runs nothing on the instance.
    pub is_warm_up: bool,
}

/// Why a caller gets no instance.
#[derive(Clone, Debug, Error)]
pub enum AcquireError {
    /// As many callers wait as QUEUE_LIMIT allows.
    #[error("{limit} executions wait for a container already (QUEUE_LIMIT); try again later")]
    QueueFull {
        /// QUEUE_LIMIT.
        limit: u32,
    },
    /// As many callers of public functions wait as may wait together.
    #[error(
        "{limit} executions of public functions wait for a container already (half of QUEUE_LIMIT); try again later"
    )]
    StrangersFull {
        /// Half of QUEUE_LIMIT.
        limit: u32,
    },
    /// No instance was ready within the caller's limit.
    #[error("no container became free within {limit:?} (QUEUE_TIMEOUT); try again later")]
    QueueTimeout {
        /// How long the caller may wait.
        limit: Duration,
    },
    /// The revision was retired: the function was deleted or changed during the wait.
    #[error("the function was deleted or changed")]
    Retired,
    /// The service stops.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The container did not start. All callers that waited for the container share the error.
    #[error("failed to start a container")]
    Start(#[source] Arc<StartError>),
}

/// The parts that a pool is made of.
pub(crate) struct PoolParts {
    pub(crate) docker: Docker,
    pub(crate) platform: Arc<Platform>,
    pub(crate) transport: Arc<Transport>,
    /// The files that slots take.
    pub(crate) trees: Arc<Trees>,
    pub(crate) scratch: Scratch,
    pub(crate) sandbox: config::Sandbox,
    /// The limits on the networks of functions.
    pub(crate) network: config::Egress,
    /// Serves the connections at the doors of instances.
    pub(crate) egress: Egress,
    pub(crate) limits: config::Pool,
    pub(crate) uids: config::Uids,
    pub(crate) preload: config::PreloadLimit,
    pub(crate) tasks: TaskTracker,
    /// When this token is cancelled, the pool hands out no more instances and ends the idle instances.
    pub(crate) stop: CancellationToken,
}

impl Pool {
    /// A pool without containers.
    pub(crate) fn new(parts: PoolParts) -> Self {
        let PoolParts { docker, platform, transport, trees, scratch, sandbox, network, egress, .. } = parts;
        let PoolParts { limits, uids, preload, tasks, stop, .. } = parts;
        let slots = Slots::new(limits.slots);
        let evictions = Evictions::new(limits.idle_timeout);
        let state = State::new(limits.container_limit as usize, uids.of_instances(), slots, evictions);
        let state = Mutex::new(state);
        Self(Arc::new(Shared {
            state,
            docker,
            platform,
            transport,
            trees,
            scratch,
            sandbox,
            network,
            egress,
            preload,
            limits,
            tasks,
            stop,
            wake: Notify::new(),
            keep: Notify::new(),
            images: Notify::new(),
        }))
    }

    /// Leases an instance for one invocation: an idle instance at once, otherwise the first instance that becomes free
    /// or has started.
    ///
    /// A caller that drops this future leaves the queue, and no container starts for that caller any more.
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
            state.ensure_queue(function);
            while (wait.is_warm_up || state.may_run(function.revision))
                && let Some((key, mut instance)) = state.take_idle(function.revision)
            {
                if instance.is_alive() {
                    state.set_phase(key, Phase::Busy(Instant::now()));
                    shared.prestart_successor(&mut state, function.revision, &instance);
                    shared.rebalance(&mut state);
                    return Ok(Lease::new(Arc::clone(shared), function.revision, key, instance, Start::Warm));
                }
                tracing::warn!(container.name = instance.name(), "an idle container went away");
                state.set_phase(key, Phase::Ending);
            }
            let (sender, grant) = oneshot::channel();
            let number = state.push_waiter(function, wait, sender);
            shared.rebalance(&mut state);
            let is_admitted = wait.is_admitted || state.is_covered(function.revision, number);
            let limit = shared.limits.queue_limit;
            // Strangers must not take the whole queue from clients of the API.
            let strangers = (limit / 2).max(1);
            let is_full = state.uncovered() > limit as usize;
            let is_public = function.settings.http == HttpMode::Public;
            if !is_admitted && (is_full || (is_public && state.uncovered_strangers() > strangers as usize)) {
                state.remove_waiter(function.revision, number);
                return Err(if is_full {
                    AcquireError::QueueFull { limit }
                } else {
                    AcquireError::StrangersFull { limit: strangers }
                });
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
                    // QUEUE_TIMEOUT does not apply to a caller for which a container starts. The start may fail, so
                    // this is checked repeatedly.
                    if !waiting.is_covered() {
                        return Err(AcquireError::QueueTimeout { limit });
                    }
                    patience = policy::PATIENCE;
                }
            }
        }
    }

    /// Whether an instance of this revision is idle.
    pub fn has_idle(&self, revision: Revision) -> bool {
        self.0.lock().has_idle(revision)
    }

    /// The number of instances in each phase, and the number of callers that wait.
    pub fn counts(&self) -> ([(&'static str, usize); 5], usize) {
        let state = self.0.lock();
        (state.phases(), state.waiting())
    }

    /// The number of instances, without slots that are ready.
    pub fn instances(&self) -> usize {
        self.counts().0.iter().filter(|&&(phase, _)| phase != "slot").map(|&(_, count)| count).sum()
    }

    /// Starts an instance of a function that was just made ahead of need, once there is room and when the function has
    /// no idle or starting instance. Has the function's files put on disk, too: where no room is, a slot can take them.
    pub fn warm(&self, function: &Arc<Function>) {
        let mut state = self.0.lock();
        if state.closed || function.is_retired() {
            return;
        }
        state.ensure_queue(function);
        state.want_spare(function.revision);
        self.0.rebalance(&mut state);
        drop(state);
        self.0.want_tree(function);
    }

    /// Stops handing out instances of this revision. Idle instances end at once, busy instances after their invocation.
    pub fn retire(&self, function: &Function) {
        let mut state = self.0.lock();
        function.retire();
        drop(state.retire(function.revision));
        self.0.rebalance(&mut state);
        self.0.keep.notify_one();
    }
}

/// A caller's place in the queue. The place is given up when the caller leaves.
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
        self.serve(state);
        let runtimes = Language::ALL.map(|language| state.slots.image(language).map(|image| image.runtime.clone()));
        let may_take = |function: &Function| {
            let place = Language::ALL.iter().position(|&language| language == function.version.language);
            self.takes_slots(function, place.and_then(|place| runtimes[place].as_deref()))
        };
        while let Some(step) = state.next_step(&may_take) {
            match step {
                Step::Take(function) => self.begin_take(state, function),
                Step::Start(function) => self.begin_start(state, function),
                Step::StartSlot(language) => self.begin_slot(state, language),
                Step::EndSlot => drop(state.slots.end_least(Instant::now())),
                Step::Evict(function) => drop(state.evict_for_room(function)),
            }
        }
        self.refill(state);
    }

    fn begin_start(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision) {
        let takes_slot = self.misses_slot(state, revision);
        let Some((key, uid, function)) = state.begin_start(revision, takes_slot) else { return };
        let shared = Arc::clone(self);
        // The callers have learned of an error.
        self.tasks.spawn(async move { drop(shared.start(&function, key, uid).await) });
    }

    /// Gives an instance to the next caller that waits, parks the instance as idle, or ends the instance.
    fn offer(self: &Arc<Self>, revision: Revision, key: Key, instance: Instance, start: Start) {
        let mut state = self.lock();
        let worn = self.limits.max_invocations != 0 && instance.invocations() >= self.limits.max_invocations;
        let ends = worn || !state.keeps(revision);
        let yields = !ends && state.should_yield(revision);
        // The invocation is over, if there was one.
        state.set_phase(key, Phase::Idle);
        if ends || yields {
            if yields {
                let now = Instant::now();
                state.evictions.note(revision.function, now, now);
            }
            state.set_phase(key, Phase::Ending);
            self.rebalance(&mut state);
            drop(state);
            drop(instance);
            return;
        }
        self.prestart_successor(&mut state, revision, &instance);
        self.hand_out(&mut state, revision, key, instance, start);
        self.rebalance(&mut state);
    }

    /// Gives an instance to the next caller that waits and may run, or parks the instance as idle.
    fn hand_out(
        self: &Arc<Self>,
        state: &mut Bookkeeping,
        revision: Revision,
        key: Key,
        mut instance: Instance,
        start: Start,
    ) {
        while let Some(waiter) = state.pop_servable(revision) {
            state.set_phase(key, Phase::Busy(Instant::now()));
            let lease = Lease::new(Arc::clone(self), revision, key, instance, start);
            match waiter.send(Ok(lease)) {
                Ok(()) => return,
                // The caller has just left.
                Err(Ok(lease)) => instance = lease.into_instance(),
                Err(Err(_)) => unreachable!("a lease was sent"),
            }
            state.set_phase(key, Phase::Idle);
        }
        state.park(key, instance);
    }

    /// Asks for a successor of an instance that is about to run its last invocation, ahead of need.
    fn prestart_successor(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision, instance: &Instance) {
        if self.limits.max_invocations != 0 && instance.invocations() + 1 >= self.limits.max_invocations {
            state.want_spare(revision);
        }
    }
}
