//! Runs invocations that are on disk: in the background by turns, or at once where a client waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::error::Hindrance;
use super::order::Entry;
use super::{End, InvocationQueue, QueueState, Running};
use crate::domain::{FunctionId, InvocationId, InvocationRecord, Outcome};
use crate::invocations::input::Input;
use crate::invocations::invoke::InvokeError;
use crate::sandbox::pool::AcquireError;

/// An invocation that had its turn, or the reason why the invocation can't begin for now.
type Begun = Result<(), Hindrance>;

impl InvocationQueue {
    /// Runs queued invocations until the service stops.
    pub async fn run(self: Arc<Self>) {
        while let Some(permit) = self.next_permit().await {
            if !self.start_next(permit).await {
                return;
            }
        }
    }

    async fn next_permit(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
        }
    }

    /// Waits for Docker and for the next invocation's turn. False when the service stops.
    async fn start_next(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.health.wait() => {}
            }
            // Registered before the look into the queue, so that no notification is lost between the two.
            let wake = self.wake.notified();
            let due = {
                let mut state = self.lock();
                let QueueState { waiting, running, .. } = &mut *state;
                let now = Instant::now();
                if let Some(entry) = waiting.pop(now, |function| self.may_begin(function, running)) {
                    self.start(&mut state, entry, Some(permit));
                    return true;
                }
                state.waiting.next_due(now)
            };
            let due = async {
                match due {
                    Some(due) => time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wake => {}
                () = due => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }

    /// Whether a further invocation of the function may wait for an instance. One that waits for the end of others of
    /// its function would hold back the invocations of other functions.
    fn may_begin(&self, function: FunctionId, running: &Running) -> bool {
        let limit = self.registry.get(function).and_then(|function| function.settings.concurrency(self.containers));
        let begun = || running.values().filter(|&&(other, _)| other == function).count();
        limit.is_none_or(|limit| begun() < limit as usize)
    }

    /// Runs an invocation in a task of its own: in the background with a permit, before all of the background without.
    pub(super) fn start(self: &Arc<Self>, state: &mut QueueState, entry: Entry, permit: Option<OwnedSemaphorePermit>) {
        let token = self.end.child_token();
        state.running.insert(entry.id, (entry.function, token.clone()));
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.execute_until(entry, permit, &token).await });
    }

    async fn execute_until(
        self: &Arc<Self>,
        entry: Entry,
        permit: Option<OwnedSemaphorePermit>,
        token: &CancellationToken,
    ) {
        let (began_at, is_background) = (Instant::now(), permit.is_some());
        let begun = tokio::select! {
            begun = self.execute_now(entry, is_background) => begun,
            // The container goes with the dropped future. The outcome was written down by the cancellation, or by the
            // end.
            () = token.cancelled() => Ok(()),
        };
        // Other invocations have their turn while the cause is looked into.
        drop(permit);
        let settled = async {
            match begun {
                Ok(()) => {
                    self.free(entry.function);
                    self.settle(entry, None, &Ok(()));
                }
                // A client may have come meanwhile that waits for this invocation.
                Err(hindrance) if is_background && !self.lock().is_waited_for(entry.id) => {
                    self.put_off(entry, &hindrance, began_at).await
                }
                Err(hindrance) => self.take_back(entry, hindrance).await,
            }
        };
        tokio::select! {
            () = settled => {}
            // The row on disk stays as it was.
            () = self.end.cancelled() => {}
        }
        self.ended.send_replace(());
    }

    async fn execute_now(&self, entry: Entry, is_background: bool) -> Begun {
        let Entry { id, function, attempt, .. } = entry;
        // The input stays on disk while the invocation waits for an instance.
        let ready = self.invoker.prepare(function, None, is_background).await?;
        let (record, input) = match self.load(id).await {
            Ok(Some((record, Some(input)))) => (record, input),
            other => {
                ready.release();
                if other?.is_some() {
                    self.give_up(entry, "its input can't be read".to_owned()).await;
                }
                return Ok(());
            }
        };
        if let Err(error) = ready.check(&input) {
            ready.release();
            return Err(InvokeError::from(error).into());
        }
        let running = self.invoker.begin(id, function);
        let mut record = ready.begin(record);
        record.outcome = Outcome::Running;
        let since = record.executed_at.unwrap_or(record.created_at).saturating_sub(record.created_at);
        record.queued = Some(Duration::from_millis(since));
        let written = self.store.update_invocation(&record, Outcome::Queued, Some(attempt)).await;
        if !matches!(written, Ok(true)) {
            // The instance is free for synchronous executions, which need no disk.
            ready.release();
            return written.map(drop).map_err(|error| Arc::new(error).into());
        }
        self.free(function);
        self.invoker.run(ready, &mut record, input, running.output()).await;
        self.write(&record, Outcome::Running, attempt).await;
        Ok(())
    }

    /// An invocation that is to begin, and the only copy of its input, where that can be read. None where nothing is to
    /// begin.
    async fn load(&self, id: InvocationId) -> Result<Option<(InvocationRecord, Option<Input>)>, Hindrance> {
        let mut record = match self.store.invocation(id).await.map_err(Arc::new)? {
            Some(record) if record.outcome == Outcome::Queued => record,
            // The invocation was cancelled, or went with its function.
            Some(_) | None => return Ok(None),
        };
        let json = std::mem::take(&mut record.input);
        let input = serde_json::from_slice(&json).ok().and_then(|object| Input::parse(object).ok());
        Ok(Some((record, input)))
    }

    /// Takes an invocation back that a client waits for. An invocation whose clients have left, or that was promised,
    /// goes on in the background.
    async fn take_back(self: &Arc<Self>, entry: Entry, hindrance: Hindrance) {
        let _settling = self.settling.lock().await;
        let is_refused = matches!(hindrance, Hindrance::Invoke(InvokeError::Acquire(AcquireError::QueueFull { .. })));
        let goes_on = !self.lock().is_waited_for(entry.id) && !is_refused && self.waiting() < self.limit;
        let (goes_on, end) = match goes_on {
            true => (true, Err(hindrance)),
            false => match self.store.take_back_invocation(entry.id).await {
                Ok(is_taken_back) => (!is_taken_back, Err(hindrance)),
                Err(error) => (true, Err(Hindrance::Store(Arc::new(error)))),
            },
        };
        self.settle(entry, goes_on.then_some(Duration::ZERO), &end);
    }

    /// Ends a try: the invocation waits again for this time, or is done with.
    pub(super) fn settle(self: &Arc<Self>, entry: Entry, wait: Option<Duration>, end: &End) {
        let mut state = self.lock();
        state.running.remove(&entry.id);
        match wait {
            // A client has come meanwhile, and waits no longer than QUEUE_TIMEOUT.
            Some(_) if end.is_ok() && state.is_waited_for(entry.id) => self.start(&mut state, entry, None),
            Some(Duration::ZERO) => state.waiting.push(entry),
            Some(wait) => state.waiting.push_later(entry, Instant::now() + wait),
            None => {}
        }
        let is_over = state.waiting.end_try(entry);
        drop(state);
        if is_over {
            self.begins.recover(true);
        }
        if wait.is_none() || end.is_err() {
            self.tell(entry.id, end);
        }
        self.wake.notify_one();
    }

    /// Lets a function's invocations go on after trouble.
    pub(super) fn free(&self, function: FunctionId) {
        if self.lock().waiting.free(function) {
            self.begins.recover(true);
            self.wake.notify_one();
        }
    }

    /// Writes down the outcome of an invocation that this node has claimed. An invocation that other nodes have found
    /// lost meanwhile stays lost.
    pub(super) async fn write(&self, record: &InvocationRecord, from: Outcome, attempt: u32) {
        let mut retry = self.writes.begin();
        while let Err(error) = self.store.update_invocation(record, from, Some(attempt)).await {
            retry.failed(&error).await;
        }
        retry.done();
    }
}
