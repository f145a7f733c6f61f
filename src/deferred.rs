//! Executions that nobody waits for: on disk before they are accepted, run in their order, cancelled on request.
//!
//! ```text
//! accept ──> queued ──> running ──> an outcome
//!               └── cancel ──┴──> cancelled
//! ```
//! Each step is on disk before it has an effect, and only from the state that it belongs to. So one that was running when the
//! service went away is known at the next start, and is lost: it is never run twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::history::History;
use crate::instance::StartError;
use crate::invoke::input::Input;
use crate::invoke::{InvokeError, Invoker, Ready};
use crate::pool::AcquireError;
use crate::registry::{Function, Registry};
use crate::store::{IdempotencyKey, InvocationRecord, Queued, Store, StoreError, state};
use crate::types::{FunctionId, InvocationId, UnknownFunction, UnknownInvocation};

/// One that gets no instance for now is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The disk is tried again after this.
const STORE_RETRY: Duration = Duration::from_secs(1);

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
    /// Changes whenever one has ended.
    ended: watch::Sender<()>,
    tasks: TaskTracker,
    /// Ends those that run.
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<InvocationId>,
    running: HashMap<InvocationId, CancellationToken>,
}

/// Why one is not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// No such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// There are as many as may be.
    #[error("{0} asynchronous executions wait already (ASYNC_QUEUE_LIMIT); try again later")]
    Full(usize),
    /// The key was used before, for something else.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why one is not cancelled.
#[derive(Debug, Error)]
pub enum CancelError {
    /// There is none of this id.
    #[error(transparent)]
    Unknown(#[from] UnknownInvocation),
    /// It has ended.
    #[error("invocation {0} can't be cancelled: it is not asynchronous, or has ended with {1:?}")]
    Ended(InvocationId, String),
    /// That could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Deferred {
    /// Nothing is accepted yet. At most `limit` may wait and `most` run at a time; `end` ends those that run.
    pub fn new(
        parts: (Arc<Registry>, Arc<Invoker>, Arc<History>, Store),
        (limit, most): (u32, u32),
        tasks: TaskTracker,
        end: CancellationToken,
    ) -> Arc<Self> {
        let (registry, invoker, history, store) = parts;
        Arc::new(Self {
            registry,
            invoker,
            history,
            store,
            queue: Mutex::default(),
            limit: limit as usize,
            permits: Arc::new(Semaphore::new(most as usize)),
            pressed: Notify::new(),
            ended: watch::Sender::new(()),
            tasks,
            end,
        })
    }

    /// Accepts an execution: on disk when this returns. With a key that came before, returns what was accepted then.
    pub async fn accept(&self, id: FunctionId, input: &Input, key: Option<&IdempotencyKey>) -> Result<InvocationId, AcceptError> {
        self.registry.get(id).ok_or(UnknownFunction(id))?;
        if self.lock().waiting.len() >= self.limit {
            return Err(AcceptError::Full(self.limit));
        }
        let created_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let created_at = u64::try_from(created_at).unwrap_or(u64::MAX);
        let record = InvocationRecord::queued(id, created_at, input.json().to_vec());
        match self.store.queue_invocation(&record, key).await? {
            Queued::Now => {}
            Queued::Before(id) => return Ok(id),
            Queued::OtherRequest => return Err(AcceptError::OtherRequest),
            Queued::NoFunction => return Err(UnknownFunction(id).into()),
        }
        self.lock().waiting.push_back(record.id);
        self.pressed.notify_one();
        Ok(record.id)
    }

    /// Waits until an invocation has ended, and returns it. None when it was forgotten.
    pub async fn wait(&self, id: InvocationId) -> Result<Option<InvocationRecord>, StoreError> {
        let mut ended = self.ended.subscribe();
        loop {
            match self.history.get(id).await? {
                Some(record) if matches!(record.outcome.as_str(), state::QUEUED | state::RUNNING) => {}
                known => return Ok(known),
            }
            if ended.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Takes one back that waits or runs. Returned, it will not begin, and its container is on its way out.
    pub async fn cancel(&self, id: InvocationId) -> Result<(), CancelError> {
        let mut record = self.history.get(id).await?.ok_or(UnknownInvocation(id))?;
        let before = std::mem::replace(&mut record.outcome, state::CANCELLED.to_owned());
        record.error = Some("it was cancelled".to_owned());
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
        self.ended.send_replace(());
        Ok(())
    }

    /// Goes on with what an earlier run has accepted, and runs what is accepted until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(permit) = self.next_permit(&stop).await {
            let id = loop {
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
            let this = Arc::clone(&self);
            self.tasks.spawn(async move { this.execute(id, token, permit).await });
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
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
            () = stop.cancelled() => None,
        }
    }

    async fn execute(&self, id: InvocationId, token: CancellationToken, permit: OwnedSemaphorePermit) {
        tokio::select! {
            () = self.execute_now(id) => {}
            // Its container goes with it. What it came to was written down by who cancelled it, if not by its end.
            () = token.cancelled() => {}
        }
        self.lock().running.remove(&id);
        drop(permit);
        self.ended.send_replace(());
    }

    async fn execute_now(&self, id: InvocationId) {
        let record = loop {
            match self.store.invocation(id).await {
                Ok(Some(record)) if record.outcome == state::QUEUED => break record,
                // Cancelled, or gone with its function.
                Ok(_) => return,
                Err(error) => self.later(id, &error).await,
            }
        };
        let Some(function) = self.registry.get(record.function_id) else { return };
        let input = serde_json::from_slice(&record.input).ok().and_then(|object| Input::parse(object).ok());
        let ready = match (self.instance(&function).await, input) {
            (Ok(ready), Some(input)) => Ok((ready, input)),
            (Ok(_), None) => Err("its input can't be read".to_owned()),
            (Err(error), _) => Err(format!("{:#}", anyhow::Error::from(error))),
        };
        let (ready, input) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(invocation.id = %id, error, "an accepted execution could not be begun");
                let error = Some(error);
                let failed = InvocationRecord { outcome: state::LOST.to_owned(), error, ..record };
                return self.write(&failed, state::QUEUED).await;
            }
        };
        let mut record = ready.begin(record);
        record.outcome = state::RUNNING.to_owned();
        loop {
            match self.store.update_invocation(&record, state::QUEUED).await {
                Ok(true) => break,
                Ok(false) => return,
                Err(error) => self.later(id, &error).await,
            }
        }
        let invocation = self.invoker.run(ready, id, input).await;
        invocation.complete(&mut record, |output| output);
        self.write(&record, state::RUNNING).await;
    }

    /// An instance, for which one that was accepted may wait as long as it takes.
    async fn instance(&self, function: &Arc<Function>) -> Result<Ready, InvokeError> {
        loop {
            match self.invoker.prepare(function).await {
                Err(InvokeError::Acquire(error)) if is_passing(&error) => {
                    tracing::debug!(function.id = %function.id, %error, "no instance for now, trying again");
                    time::sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }

    async fn write(&self, record: &InvocationRecord, from: &str) {
        while let Err(error) = self.store.update_invocation(record, from).await {
            self.later(record.id, &error).await;
        }
    }

    async fn later(&self, id: InvocationId, error: &StoreError) {
        tracing::error!(invocation.id = %id, %error, "failed to go on with an accepted execution, trying again");
        time::sleep(STORE_RETRY).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it may be over at the next try.
fn is_passing(error: &AcquireError) -> bool {
    match error {
        AcquireError::QueueFull { .. } | AcquireError::QueueTimeout { .. } => true,
        AcquireError::Start(error) => match &**error {
            StartError::Docker(_) | StartError::Timeout => true,
            StartError::NoImage(_) | StartError::Protocol(_) => false,
        },
        AcquireError::Deleted | AcquireError::ShuttingDown => false,
    }
}
