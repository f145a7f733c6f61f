//! Executions that nobody waits for: on disk before they are accepted, run in their order, cancelled on request.
//!
//! ```text
//! accept ──> queued ──> running ──> an outcome
//!               └── cancel ──┴──> cancelled
//! ```
//! Each step is on disk before it has an effect, and only from the state that it belongs to. So one that was running when the
//! service went away is known at the next start, and is lost: it is never run twice.

mod error;
mod trouble;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::history::History;
use crate::invoke::input::Input;
use crate::invoke::{InvokeError, Invoker};
use crate::registry::Registry;
use crate::room::Room;
use crate::store::{IdempotencyKey, InvocationRecord, Queued, Store, StoreError, state};
use crate::types::{FunctionId, InvocationId, UnknownFunction, UnknownInvocation};

pub use error::{AcceptError, CancelError};
use trouble::Trouble;

/// One that can't go on for now is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// What may be a function's own fault counts as that after so many tries.
const MAX_TRIES: u32 = 10;

/// Accepts, runs and cancels them.
#[derive(Debug)]
pub struct Deferred {
    registry: Arc<Registry>,
    invoker: Arc<Invoker>,
    history: Arc<History>,
    store: Store,
    queue: Mutex<Queue>,
    limit: usize,
    /// As many as there can be containers.
    permits: Arc<Semaphore>,
    pressed: Notify,
    room: Arc<Room>,
    /// Changes whenever one has ended.
    ended: watch::Sender<()>,
    tasks: TaskTracker,
    /// Ends those that run.
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    /// Being written down.
    accepting: usize,
    waiting: VecDeque<InvocationId>,
    running: HashMap<InvocationId, CancellationToken>,
    /// How often one was tried in vain for what may be its function's own fault.
    tries: HashMap<InvocationId, u32>,
    /// Who waits for the end of one.
    waiters: HashMap<InvocationId, Vec<oneshot::Sender<()>>>,
}

/// Whether there is more to do for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It has ended, or goes on after the next start.
    Done,
    /// It is still queued, and to be tried again later.
    Again,
}

impl Deferred {
    /// Nothing is accepted yet. At most `limit` may wait and `most` run at a time; `end` ends those that run.
    pub fn new(
        parts: (Arc<Registry>, Arc<Invoker>, Arc<History>, Store, Arc<Room>),
        (limit, most): (u32, u32),
        tasks: TaskTracker,
        end: CancellationToken,
    ) -> Arc<Self> {
        let (registry, invoker, history, store, room) = parts;
        Arc::new(Self {
            registry,
            invoker,
            history,
            store,
            queue: Mutex::default(),
            limit: limit as usize,
            permits: Arc::new(Semaphore::new(most as usize)),
            pressed: Notify::new(),
            room,
            ended: watch::Sender::new(()),
            tasks,
            end,
        })
    }

    /// Accepts an execution: on disk when this returns. With a key that came before, returns what was accepted then.
    pub async fn accept(
        self: &Arc<Self>,
        id: FunctionId,
        input: &Input,
        key: Option<IdempotencyKey>,
    ) -> Result<InvocationId, AcceptError> {
        let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
        input.check(&function.settings)?;
        let created_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let created_at = u64::try_from(created_at).unwrap_or(u64::MAX);
        let record = InvocationRecord::queued(id, created_at, input.json().to_vec());
        let (this, share) = (Arc::clone(self), input.share());
        // A task of its own: what is on disk must be in the queue, too, when the caller has left meanwhile.
        let task = async move {
            let accepted = this.accept_now(record, key).await;
            drop(share);
            accepted
        };
        self.tasks.spawn(task).await?
    }

    async fn accept_now(&self, record: InvocationRecord, key: Option<IdempotencyKey>) -> Result<InvocationId, AcceptError> {
        // What has ended before it is to be before it in the history, too. Its own loss is the history's matter.
        let _ = self.history.flush().await;
        let has_room = {
            let mut queue = self.lock();
            queue.accepting += 1;
            queue.waiting.len() + queue.accepting <= self.limit
        };
        let refusal =
            if has_room { self.room.check().await.err().map(AcceptError::from) } else { Some(AcceptError::Full(self.limit)) };
        let queued = self.store.queue_invocation(&record, key.as_ref(), refusal.is_none()).await;
        let mut queue = self.lock();
        queue.accepting -= 1;
        match queued? {
            Queued::Now => {}
            Queued::Before(id) => return Ok(id),
            Queued::OtherRequest => return Err(AcceptError::OtherRequest),
            Queued::NoFunction => return Err(UnknownFunction(record.function_id).into()),
            Queued::NoRoom => return Err(refusal.unwrap_or(AcceptError::Full(self.limit))),
        }
        queue.waiting.push_back(record.id);
        drop(queue);
        self.pressed.notify_one();
        Ok(record.id)
    }

    /// Waits until an invocation has ended, and returns it. None when it was forgotten.
    pub async fn wait(&self, id: InvocationId) -> Result<Option<InvocationRecord>, StoreError> {
        loop {
            let (sender, ended) = oneshot::channel();
            // Before it is looked: what ends in between tells it.
            self.lock().waiters.entry(id).or_default().push(sender);
            match self.store.invocation(id).await? {
                Some(record) if matches!(record.outcome.as_str(), state::QUEUED | state::RUNNING) => {}
                known => {
                    self.forget_waiters(id);
                    return Ok(known);
                }
            }
            if ended.await.is_err() {
                return self.store.invocation(id).await;
            }
        }
    }

    /// Those that have left, too.
    fn forget_waiters(&self, id: InvocationId) {
        let mut queue = self.lock();
        if let Some(waiters) = queue.waiters.get_mut(&id) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                queue.waiters.remove(&id);
            }
        }
    }

    /// Takes one back that waits or runs. Returned, it will not begin, and its container is on its way out.
    pub async fn cancel(self: &Arc<Self>, id: InvocationId) -> Result<(), CancelError> {
        let this = Arc::clone(self);
        // A task of its own: what is cancelled on disk must not run on because the caller has left.
        self.tasks.spawn(async move { this.cancel_now(id).await }).await?
    }

    async fn cancel_now(&self, id: InvocationId) -> Result<(), CancelError> {
        let mut record = self.history.get(id).await?.ok_or(UnknownInvocation(id))?;
        let before = std::mem::replace(&mut record.outcome, state::CANCELLED.to_owned());
        record.error = Some("it was cancelled".to_owned());
        if let Some((stdout, stderr)) = self.invoker.so_far(id) {
            (record.stdout, record.stderr) = (stdout, stderr);
        }
        // It may begin in this moment, so both are tried, in the order in which they come.
        let cancelled = self.store.update_invocation(&record, state::QUEUED).await?
            || self.store.update_invocation(&record, state::RUNNING).await?;
        if !cancelled {
            let now = self.history.get(id).await?.map_or(before, |record| record.outcome);
            return Err(CancelError::Ended(id, now));
        }
        let mut queue = self.lock();
        queue.waiting.retain(|&waiting| waiting != id);
        if let Some(running) = queue.running.get(&id) {
            running.cancel();
        }
        drop(queue);
        self.end_of(id);
        Ok(())
    }

    /// Goes on with what an earlier run has accepted, and runs what is accepted until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(permit) = self.next_permit(&stop).await {
            let id = loop {
                if stop.is_cancelled() {
                    return;
                }
                // Before it is looked: what comes in between wakes it.
                let pressed = self.pressed.notified();
                if let Some(id) = self.lock().waiting.pop_front() {
                    break id;
                }
                tokio::select! {
                    () = pressed => {}
                    () = stop.cancelled() => return,
                }
            };
            let token = self.end.child_token();
            self.lock().running.insert(id, token.clone());
            let (this, stop) = (Arc::clone(&self), stop.clone());
            self.tasks.spawn(async move { this.execute(id, token, permit, &stop).await });
        }
    }

    /// Takes up what an earlier run has accepted, before anything is accepted now.
    pub async fn resume(&self) -> Result<(), StoreError> {
        let open = self.store.open_invocations().await?;
        if !open.is_empty() {
            tracing::info!(invocations = open.len(), "going on with what was accepted before");
        }
        self.lock().waiting.extend(open);
        Ok(())
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns once none runs.
    pub async fn idle(&self) {
        let mut ended = self.ended.subscribe();
        while !self.lock().running.is_empty() {
            let _ = ended.changed().await;
        }
    }

    async fn next_permit(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
        }
    }

    async fn execute(&self, id: InvocationId, token: CancellationToken, permit: OwnedSemaphorePermit, stop: &CancellationToken) {
        let next = tokio::select! {
            next = self.execute_now(id) => next,
            // Its container goes with it. What it came to was written down by who cancelled it, if not by its end.
            () = token.cancelled() => Next::Done,
        };
        self.lock().running.remove(&id);
        // Others have their turn while it waits.
        drop(permit);
        self.ended.send_replace(());
        match next {
            Next::Done => {
                self.lock().tries.remove(&id);
                self.end_of(id);
            }
            Next::Again => {
                tokio::select! {
                    () = time::sleep(RETRY) => {
                        self.lock().waiting.push_back(id);
                        self.pressed.notify_one();
                    }
                    // On disk it is queued.
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Tells who waits for it, and who looks on.
    fn end_of(&self, id: InvocationId) {
        let waiters = self.lock().waiters.remove(&id).unwrap_or_default();
        for waiter in waiters {
            let _ = waiter.send(());
        }
        self.invoker.tell(Some(id));
    }

    async fn execute_now(&self, id: InvocationId) -> Next {
        let record = match self.store.invocation(id).await {
            Ok(Some(record)) if record.outcome == state::QUEUED => record,
            // Cancelled, or gone with its function.
            Ok(_) => return Next::Done,
            Err(error) => return self.later(id, &error),
        };
        let Some(input) = serde_json::from_slice(&record.input).ok().and_then(|object| Input::parse(object).ok()) else {
            return self.give_up(record, "its input can't be read".to_owned()).await;
        };
        let ready = match self.invoker.prepare(record.function_id, &input).await {
            Ok(ready) => ready,
            Err(error) => match self.trouble(id, &error) {
                Trouble::Over => return Next::Done,
                Trouble::Passing | Trouble::Doubtful => return self.later(id, &error),
                Trouble::Final => return self.give_up(record, format!("{:#}", anyhow::Error::from(error))).await,
            },
        };
        let running = self.invoker.begin(id);
        let mut record = ready.begin(record);
        record.outcome = state::RUNNING.to_owned();
        let since = record.executed_at.unwrap_or(record.created_at).saturating_sub(record.created_at);
        record.queued = Some(Duration::from_millis(since));
        match self.store.update_invocation(&record, state::QUEUED).await {
            Ok(true) => {}
            Ok(false) => return Next::Done,
            // Its instance is for others, who may need no disk.
            Err(error) => return self.later(id, &error),
        }
        let invocation = self.invoker.run(ready, id, input, running.output()).await;
        let queued = record.queued;
        invocation.complete(&mut record, |output| output);
        record.queued = queued;
        self.write(&record, state::RUNNING).await;
        Next::Done
    }

    /// What an error means; one that may be the function's own counts as that after some tries.
    fn trouble(&self, id: InvocationId, error: &InvokeError) -> Trouble {
        match Trouble::of(error) {
            Trouble::Doubtful => {
                let mut queue = self.lock();
                let tries = queue.tries.entry(id).or_default();
                *tries += 1;
                if *tries < MAX_TRIES { Trouble::Doubtful } else { Trouble::Final }
            }
            other => other,
        }
    }

    async fn give_up(&self, record: InvocationRecord, error: String) -> Next {
        tracing::error!(invocation.id = %record.id, error, "an accepted execution could not be begun");
        let failed = InvocationRecord { outcome: state::LOST.to_owned(), error: Some(error), ..record };
        self.write(&failed, state::QUEUED).await;
        Next::Done
    }

    async fn write(&self, record: &InvocationRecord, from: &str) {
        while let Err(error) = self.store.update_invocation(record, from).await {
            self.later(record.id, &error);
            time::sleep(RETRY).await;
        }
    }

    fn later(&self, id: InvocationId, error: &(dyn std::error::Error + 'static)) -> Next {
        tracing::warn!(invocation.id = %id, %error, "failed to go on with an accepted execution, trying again");
        Next::Again
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
