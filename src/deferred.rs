//! Executions that are on disk before they begin: those that nobody waits for, and those with a key, which run once.
//!
//! ```text
//! accept, execute ──> queued ──> running ──> an outcome
//!                      │ └── cancel ──┴──> cancelled
//!                      └── taken back: its client is told that it did not begin
//! ```
//! Each step is on disk before it has an effect, and only from the state that it belongs to. So one that was running when the
//! service went away is known at the next start, and is lost: it is never run twice. How they run is in `run`.

mod error;
mod queue;
mod run;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deploy::Room;
use crate::health::Health;
use crate::history::History;
use crate::invoke::input::Input;
use crate::invoke::{InvokeError, Invoker};
use crate::pool::AcquireError;
use crate::registry::Registry;
use crate::retry::Retries;
use crate::store::{IdempotencyKey, InvocationRecord, Queued, Store, StoreError, state};
use crate::types::{FunctionId, InvocationId, UnknownFunction, UnknownInvocation};

use error::Hindrance;
pub use error::{AcceptError, CancelError};
use queue::Queue;

/// However wrong the clock was when it was written down, none waits longer than this for its next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Accepts, runs and cancels them.
#[derive(Debug)]
pub struct Deferred {
    registry: Arc<Registry>,
    invoker: Arc<Invoker>,
    history: Arc<History>,
    store: Store,
    health: Health,
    books: Mutex<Books>,
    /// Held while a request with a key finds its invocation, or an invocation is taken back.
    settling: tokio::sync::Mutex<()>,
    limit: usize,
    /// Of those in the background, as many as there can be containers.
    permits: Arc<Semaphore>,
    /// Somebody waits who was not there before, or has not to wait any longer.
    pressed: Notify,
    room: Arc<Room>,
    /// Changes whenever one has ended.
    ended: watch::Sender<()>,
    /// Of those that can't begin.
    begins: Retries,
    /// Of what they came to.
    writes: Retries,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends those that run.
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Books {
    /// Being written down.
    accepting: usize,
    waiting: Queue,
    /// Those that run, or wait for an instance.
    running: HashMap<InvocationId, CancellationToken>,
    /// Who waits for the end of one.
    waiters: HashMap<InvocationId, Vec<oneshot::Sender<End>>>,
}

/// What who waits for an invocation is told: it has ended, or could not begin.
type End = Result<(), Hindrance>;

impl Deferred {
    /// Nothing is accepted yet. At most `limit` may wait and `most` run in the background at a time; none begins once `stop` is
    /// cancelled, and `end` ends those that run.
    pub fn new(
        parts: (Arc<Registry>, Arc<Invoker>, Arc<History>, Store, Arc<Room>, Health),
        (limit, most): (u32, u32),
        tasks: TaskTracker,
        (stop, end): (CancellationToken, CancellationToken),
    ) -> Arc<Self> {
        let (registry, invoker, history, store, room, health) = parts;
        Arc::new(Self {
            registry,
            invoker,
            history,
            store,
            begins: Retries::new("asynchronous executions can't begin", health.clone()),
            writes: Retries::new("what executions came to can't be written down", Health::default()),
            health,
            books: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            limit: limit as usize,
            permits: Arc::new(Semaphore::new(most as usize)),
            pressed: Notify::new(),
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
        input: &Input,
        key: Option<IdempotencyKey>,
    ) -> Result<InvocationId, AcceptError> {
        let record = self.record_of(id, input)?;
        let this = Arc::clone(self);
        // A task of its own: what is on disk must be in the queue, too, when the caller has left meanwhile.
        let accepted = self.tasks.spawn(async move { this.accept_now(record, key, true).await });
        accepted.await?.map(|(id, _)| id)
    }

    /// Executes once for all requests with a key, and returns what that came to. It waits for an instance as an execution without
    /// a key does; what can't begin is taken back, so that the key is free again. When its callers leave, it goes on.
    pub async fn execute(
        self: &Arc<Self>,
        id: FunctionId,
        input: &Input,
        key: IdempotencyKey,
    ) -> Result<InvocationRecord, AcceptError> {
        let record = self.record_of(id, input)?;
        let this = Arc::clone(self);
        let begun = self.tasks.spawn(async move { this.accept_now(record, Some(key), false).await });
        let (id, end) = begun.await??;
        match end.await {
            Ok(Ok(())) => {}
            Ok(Err(hindrance)) => return Err(hindrance.into()),
            Err(_) => return Err(InvokeError::from(AcquireError::ShuttingDown).into()),
        }
        match self.store.invocation(id).await? {
            Some(record) if is_open(&record) => Err(InvokeError::from(AcquireError::ShuttingDown).into()),
            record => Ok(record.ok_or(UnknownInvocation(id))?),
        }
    }

    fn record_of(&self, id: FunctionId, input: &Input) -> Result<InvocationRecord, AcceptError> {
        let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
        input.check(&function.settings)?;
        Ok(InvocationRecord::queued(id, now(), input.json().to_vec()))
    }

    /// Promised, it waits for its turn; otherwise it begins, and somebody waits for its end.
    async fn accept_now(
        self: &Arc<Self>,
        record: InvocationRecord,
        key: Option<IdempotencyKey>,
        promised: bool,
    ) -> Result<(InvocationId, oneshot::Receiver<End>), AcceptError> {
        // What has ended before it is to be before it in the history, too. Its own loss is the history's matter.
        let _ = self.history.flush().await;
        let _settling = match &key {
            Some(_) => Some(self.settling.lock().await),
            None => None,
        };
        let has_room = {
            let mut books = self.lock();
            books.accepting += usize::from(promised);
            !promised || books.waiting.len() + books.accepting <= self.limit
        };
        let refusal = if has_room { self.room.check().err().map(AcceptError::from) } else { Some(AcceptError::Full(self.limit)) };
        let queued = self.store.queue_invocation(&record, key.as_ref(), refusal.is_none(), promised).await;
        self.lock().accepting -= usize::from(promised);
        let id = match queued? {
            Queued::Now => record.id,
            Queued::Before(id) if promised => {
                self.store.promise_invocation(id).await?;
                id
            }
            Queued::Before(id) => id,
            Queued::OtherRequest => return Err(AcceptError::OtherRequest),
            Queued::NoFunction => return Err(UnknownFunction(record.function_id).into()),
            Queued::NoRoom => return Err(refusal.unwrap_or(AcceptError::Full(self.limit))),
        };
        let (sender, end) = oneshot::channel();
        let mut books = self.lock();
        let entry = match books.waiting.remove(id) {
            None if id == record.id => Some(books.waiting.entry(id, record.function_id, 0)),
            waited => waited,
        };
        let begins = match entry {
            Some(entry) if promised => {
                books.waiting.push(entry);
                None
            }
            entry => entry,
        };
        match begins {
            // It goes on where it is, or has ended.
            None if promised || !books.running.contains_key(&id) => drop(sender.send(Ok(()))),
            _ => books.waiters.entry(id).or_default().push(sender),
        }
        if let Some(entry) = begins {
            self.start(&mut books, entry, None);
        }
        drop(books);
        self.pressed.notify_one();
        Ok((id, end))
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
        let mut books = self.lock();
        let was_last = books.waiting.remove(id).filter(|entry| !books.waiting.has(entry.function));
        if let Some(running) = books.running.get(&id) {
            running.cancel();
        }
        drop(books);
        // What there is none of has no trouble.
        was_last.into_iter().for_each(|entry| self.free(entry.function));
        self.tell(id, &Ok(()));
        Ok(())
    }

    /// Takes up what an earlier run has accepted, before anything is accepted now.
    pub async fn resume(&self) -> Result<(), StoreError> {
        let open = self.store.open_invocations().await?;
        if !open.is_empty() {
            tracing::info!(invocations = open.len(), "going on with what was accepted before");
        }
        let mut books = self.lock();
        for open in open {
            let entry = books.waiting.entry(open.id, open.function_id, open.tries);
            match open.retry_at.map(|retry_at| Duration::from_millis(retry_at.saturating_sub(now()))) {
                Some(wait) if !wait.is_zero() => books.waiting.push_later(entry, Instant::now() + wait.min(LONGEST_WAIT)),
                _ => books.waiting.push(entry),
            }
        }
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

    /// Tells who waits for one.
    fn tell(&self, id: InvocationId, end: &End) {
        let waiters = self.lock().waiters.remove(&id).unwrap_or_default();
        for waiter in waiters {
            let _ = waiter.send(end.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(record: &InvocationRecord) -> bool {
    matches!(record.outcome.as_str(), state::QUEUED | state::RUNNING)
}

/// Unix milliseconds.
fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
