//! Executions that are on disk before they begin: asynchronous ones, and those with an `Idempotency-Key`, which run
//! once.
//!
//! ```text
//! accept, execute ──> queued ──> running ──> an outcome
//!                      │ └── cancel ──┴──> cancelled
//!                      └── taken back: the client learns that the execution did not begin
//! ```
//! Each step is on disk before the step has an effect, and only from the state before. So an invocation that was
//! running when the service went away is known at the next start as lost, and is never run twice. The runs themselves
//! are in `run`, and the decision on another try is in `retry`.

mod adoption;
mod error;
mod order;
mod retry;
mod run;
mod slot;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::docker::health::Health;
use crate::docker::retry::Retries;
use crate::domain::{
    FunctionId, IdempotencyKey, InvocationId, InvocationRecord, Outcome, Queued, UnknownFunction, UnknownInvocation,
};
use crate::functions::Registry;
use crate::invocations::history::History;
use crate::invocations::input::Input;
use crate::invocations::invoke::{InvokeError, Invoker};
use crate::resources::budget::BudgetShare;
use crate::resources::clock;
use crate::resources::disk::DiskSpace;
use crate::sandbox::pool::AcquireError;
use crate::store::Store;

use error::Hindrance;
pub use error::{AcceptError, CancelError};
use order::Queue;

/// Accepts, runs and cancels invocations.
#[derive(Debug)]
pub struct InvocationQueue {
    registry: Arc<Registry>,
    invoker: Arc<Invoker>,
    history: Arc<History>,
    store: Store,
    health: Health,
    state: Mutex<QueueState>,
    /// Held while a request with a key finds its invocation, and while an invocation is taken back.
    settling: tokio::sync::Mutex<()>,
    limit: usize,
    /// For invocations in the background: as many as there can be containers.
    permits: Arc<Semaphore>,
    /// DOCKER_CONTAINER_LIMIT.
    containers: u32,
    /// An invocation has come, or may go on.
    wake: Notify,
    room: Arc<DiskSpace>,
    /// Changes whenever an invocation has ended.
    ended: watch::Sender<()>,
    /// Invocations that can't begin.
    begins: Retries,
    /// Outcomes that can't be written down.
    writes: Retries,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends invocations that run.
    end: CancellationToken,
}

/// The parts that a queue is made of.
pub(crate) struct QueueParts {
    pub(crate) registry: Arc<Registry>,
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) history: Arc<History>,
    pub(crate) store: Store,
    pub(crate) room: Arc<DiskSpace>,
    pub(crate) health: Health,
    /// The largest number of invocations that wait.
    pub(crate) max_waiting: u32,
    /// The largest number of invocations that run in the background at a time.
    pub(crate) max_running: u32,
    pub(crate) tasks: TaskTracker,
    /// No invocation begins after the cancellation of this token.
    pub(crate) stop: CancellationToken,
    /// Ends the invocations that run.
    pub(crate) end: CancellationToken,
}

#[derive(Debug, Default)]
struct QueueState {
    /// How many invocations are being written down.
    accepting: usize,
    waiting: Queue,
    /// Invocations that run, or wait for an instance.
    running: Running,
    /// The number of the last row that was compared with this queue; 0 to begin with the first row.
    compared: u64,
    /// Clients that wait for the end of an invocation.
    waiters: HashMap<InvocationId, Vec<oneshot::Sender<End>>>,
}

/// The functions of invocations, and what cancels the invocations.
type Running = HashMap<InvocationId, (FunctionId, CancellationToken)>;

/// The news for clients that wait for an invocation: its end, or why it can't begin.
type End = Result<(), Hindrance>;

impl InvocationQueue {
    /// A queue without invocations.
    pub(crate) fn new(parts: QueueParts) -> Arc<Self> {
        let QueueParts { registry, invoker, history, store, room, health, max_waiting, max_running, tasks, stop, end } =
            parts;
        Arc::new(Self {
            registry,
            invoker,
            history,
            store,
            begins: Retries::new("asynchronous executions can't begin", health.clone()),
            writes: Retries::new("what executions came to can't be written down", Health::default()),
            health,
            state: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            limit: max_waiting as usize,
            permits: Arc::new(Semaphore::new(max_running as usize)),
            containers: max_running,
            wake: Notify::new(),
            room,
            ended: watch::Sender::new(()),
            tasks,
            stop,
            end,
        })
    }

    /// Accepts an execution: on disk when this returns. With a key that came before, returns what was accepted then.
    pub async fn accept(
        self: &Arc<Self>,
        id: FunctionId,
        input: Input,
        key: Option<IdempotencyKey>,
    ) -> Result<InvocationId, AcceptError> {
        let (record, share) = self.record_of(id, input)?;
        let this = Arc::clone(self);
        // A task of its own: an invocation on disk must be in the queue, too, when the caller has left meanwhile.
        let accepted = self.tasks.spawn(async move {
            let accepted = this.accept_now(record, key, true).await;
            drop(share);
            accepted
        });
        accepted.await?.map(|(id, _)| id)
    }

    /// Executes once for all requests with a key, and returns the invocation as it ended. The invocation waits for an
    /// instance as an execution without a key does; an invocation that can't begin is taken back, so that the key is
    /// free again. When all callers leave, the invocation goes on.
    pub async fn execute(
        self: &Arc<Self>,
        id: FunctionId,
        input: Input,
        key: IdempotencyKey,
    ) -> Result<InvocationRecord, AcceptError> {
        let (record, share) = self.record_of(id, input)?;
        let this = Arc::clone(self);
        // The input is on disk only while the invocation waits, and counts until then, whoever leaves.
        let begun = self.tasks.spawn(async move {
            let begun = this.accept_now(record, Some(key), false).await;
            drop(share);
            begun
        });
        let (id, end) = begun.await??;
        match end.await {
            Ok(Ok(())) => {}
            Ok(Err(hindrance)) => return Err(hindrance.into()),
            Err(_) => return Err(InvokeError::from(AcquireError::ShuttingDown).into()),
        }
        self.end_of(id).await
    }

    fn record_of(&self, id: FunctionId, input: Input) -> Result<(InvocationRecord, Option<BudgetShare>), AcceptError> {
        self.invoker.check_lease()?;
        let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
        input.check(&function.settings)?;
        let (json, share) = input.into_json();
        Ok((InvocationRecord::queued(id, clock::unix_millis(), json.into()), share))
    }

    /// An invocation that is `promised` waits for its turn; any other begins at once, and the caller waits for its end.
    async fn accept_now(
        self: &Arc<Self>,
        record: InvocationRecord,
        key: Option<IdempotencyKey>,
        promised: bool,
    ) -> Result<(InvocationId, oneshot::Receiver<End>), AcceptError> {
        // Invocations that ended before this one come before it in the history, too. A failed flush is the history's
        // matter.
        let _ = self.history.flush().await;
        let _settling = match &key {
            Some(_) => Some(self.settling.lock().await),
            None => None,
        };
        let has_room = {
            let mut state = self.lock();
            state.accepting += usize::from(promised);
            !promised || state.waiting.len() + state.accepting <= self.limit
        };
        let refusal = if has_room {
            self.room.check().await.err().map(AcceptError::from)
        } else {
            Some(AcceptError::Full(self.limit))
        };
        let queued = self.store.queue_invocation(&record, key.as_ref(), refusal.is_none(), promised).await;
        self.lock().accepting -= usize::from(promised);
        let id = match queued? {
            Queued::Now => record.id,
            Queued::Before(id) if promised => {
                if !self.store.promise_invocation(id).await? {
                    // The invocation was taken back in this moment, on another node.
                    return Err(AcceptError::Full(self.limit));
                }
                id
            }
            Queued::Before(id) => id,
            Queued::OtherRequest => return Err(AcceptError::OtherRequest),
            Queued::NoFunction => return Err(UnknownFunction(record.function_id).into()),
            Queued::NoRoom => return Err(refusal.unwrap_or(AcceptError::Full(self.limit))),
        };
        let (sender, end) = oneshot::channel();
        let mut state = self.lock();
        let entry = match state.waiting.remove(id) {
            None if id == record.id => Some(state.waiting.entry(&record.open())),
            waited => waited,
        };
        let begins = match entry {
            Some(entry) if promised => {
                state.waiting.push(entry);
                None
            }
            entry => entry,
        };
        match begins {
            // The invocation goes on where it is, or has ended.
            None if promised || !state.running.contains_key(&id) => drop(sender.send(Ok(()))),
            _ => {
                let waiters = state.waiters.entry(id).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(sender);
            }
        }
        if let Some(entry) = begins {
            self.start(&mut state, entry, None);
        }
        drop(state);
        self.wake.notify_one();
        Ok((id, end))
    }

    /// Cancels an invocation that waits or runs. On return the invocation does not begin any more, and its container is
    /// on its way out.
    pub async fn cancel(self: &Arc<Self>, id: InvocationId) -> Result<(), CancelError> {
        let this = Arc::clone(self);
        // A task of its own: an invocation that is cancelled on disk must not run on because the caller has left.
        self.tasks.spawn(async move { this.cancel_now(id).await }).await?
    }

    async fn cancel_now(&self, id: InvocationId) -> Result<(), CancelError> {
        let mut record = self.history.get(id).await?.ok_or(UnknownInvocation(id))?;
        let before = std::mem::replace(&mut record.outcome, Outcome::Cancelled);
        record.error = Some("it was cancelled".to_owned());
        if let Some((stdout, stderr)) = self.invoker.snapshot(id) {
            (record.stdout, record.stderr) = (stdout.into(), stderr.into());
        }
        // The invocation may begin in this moment, so both states are tried, in their order.
        let cancelled = self.store.update_invocation(&record, Outcome::Queued, None).await?
            || self.store.update_invocation(&record, Outcome::Running, None).await?;
        if !cancelled {
            let now = self.history.get(id).await?.map_or(before, |record| record.outcome);
            return Err(CancelError::Ended(id, now));
        }
        self.end_run(id);
        if let Err(error) = self.store.hint().await {
            tracing::debug!(%error, "the node of a cancelled invocation learns of that by its next look");
        }
        Ok(())
    }

    /// Ends an invocation that is cancelled on disk.
    fn end_run(&self, id: InvocationId) {
        let mut state = self.lock();
        // A function without queued invocations has no trouble.
        let is_over = state.waiting.remove(id).is_some_and(|entry| state.waiting.end_try(entry));
        if let Some((_, running)) = state.running.get(&id) {
            running.cancel();
        }
        drop(state);
        if is_over {
            self.begins.recover(true);
        }
        self.tell(id, &Ok(()));
    }

    /// Forgets the waiting invocations of a function that is gone, whose rows went with the function. Runs end by
    /// themselves.
    pub fn forget(&self, function: FunctionId) {
        let removed = self.lock().waiting.remove_all(function);
        self.free(function);
        for id in removed {
            self.tell(id, &Ok(()));
        }
    }

    /// Looks again which invocations may begin, as a function's limit may have changed.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// How many invocations wait for their turn.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns once no invocation runs.
    pub async fn idle(&self) {
        let mut ended = self.ended.subscribe();
        while !self.lock().running.is_empty() {
            let _ = ended.changed().await;
        }
    }

    /// Tells the clients that wait for an invocation.
    fn tell(&self, id: InvocationId, end: &End) {
        let waiters = self.lock().waiters.remove(&id).unwrap_or_default();
        for waiter in waiters {
            let _ = waiter.send(end.clone());
        }
        self.invoker.tell(Some(id));
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }
}

impl QueueState {
    /// Whether a client waits for an invocation.
    fn is_waited_for(&self, id: InvocationId) -> bool {
        self.waiters.get(&id).is_some_and(|waiters| waiters.iter().any(|waiter| !waiter.is_closed()))
    }
}
