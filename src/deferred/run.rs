//! How executions that are on disk come to run: in the background when it is their turn, or at once when a client waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::error::Hindrance;
use super::queue::Entry;
use super::{Books, Deferred, End, now};
use crate::failure::{Cause, Failure};
use crate::invoke::InvokeError;
use crate::invoke::input::Input;
use crate::pool::AcquireError;
use crate::retry;
use crate::store::{InvocationRecord, state};
use crate::types::{FunctionId, InvocationId};

/// What may be a function's own fault counts as that after so many tries.
const MAX_TRIES: u32 = 6;

/// Why one can't go on for now.
type Begun = Result<(), Hindrance>;

impl Deferred {
    /// Runs what waits until the service stops.
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

    /// Waits for somebody's turn, and for Docker. False when the service stops.
    async fn start_next(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.health.wait() => {}
            }
            // Before it is looked: what comes in between wakes it.
            let pressed = self.pressed.notified();
            let due = {
                let mut books = self.lock();
                if let Some(entry) = books.waiting.pop(Instant::now()) {
                    self.start(&mut books, entry, Some(permit));
                    return true;
                }
                books.waiting.next_due()
            };
            let due = async {
                match due {
                    Some(due) => time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pressed => {}
                () = due => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }

    /// Has one run in a task of its own: with a permit in the background, else before all of those.
    pub(super) fn start(self: &Arc<Self>, books: &mut Books, entry: Entry, permit: Option<OwnedSemaphorePermit>) {
        let token = self.end.child_token();
        books.running.insert(entry.id, token.clone());
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.execute_until(entry, permit, &token).await });
    }

    async fn execute_until(self: &Arc<Self>, entry: Entry, permit: Option<OwnedSemaphorePermit>, token: &CancellationToken) {
        let (began_at, is_background) = (Instant::now(), permit.is_some());
        let begun = tokio::select! {
            begun = self.execute_now(entry, is_background) => begun,
            // Its container goes with it. What it came to was written down by who cancelled it, if not by its end.
            () = token.cancelled() => Ok(()),
        };
        // Others have their turn while it is looked what has hindered it.
        drop(permit);
        let settled = async {
            match begun {
                Ok(()) => {
                    self.free(entry.function);
                    self.settle(entry, None, &Ok(()));
                }
                // Somebody may have come meanwhile who waits for it.
                Err(hindrance) if is_background && !self.is_waited_for(entry.id) => {
                    self.put_off(entry, &hindrance, began_at).await
                }
                Err(hindrance) => self.take_back(entry, hindrance).await,
            }
        };
        tokio::select! {
            () = settled => {}
            // On disk it is what it was.
            () = self.end.cancelled() => {}
        }
        self.ended.send_replace(());
    }

    async fn execute_now(&self, Entry { id, function, .. }: Entry, is_background: bool) -> Begun {
        let record = match self.store.invocation(id).await.map_err(Arc::new)? {
            Some(record) if record.outcome == state::QUEUED => record,
            // Cancelled, or gone with its function.
            Some(_) | None => return Ok(()),
        };
        let Some(input) = serde_json::from_slice(&record.input).ok().and_then(|object| Input::parse(object).ok()) else {
            self.give_up(id, "its input can't be read".to_owned()).await;
            return Ok(());
        };
        let ready = self.invoker.prepare(function, &input, is_background).await?;
        let running = self.invoker.begin(id);
        let mut record = ready.begin(record);
        record.outcome = state::RUNNING.to_owned();
        let since = record.executed_at.unwrap_or(record.created_at).saturating_sub(record.created_at);
        record.queued = Some(Duration::from_millis(since));
        // On error its instance is for others, who may need no disk.
        if !self.store.update_invocation(&record, state::QUEUED).await.map_err(Arc::new)? {
            return Ok(());
        }
        self.free(function);
        let invocation = self.invoker.run(ready, id, input, running.output()).await;
        let queued = record.queued;
        invocation.complete(&mut record, |output| output);
        record.queued = queued;
        self.write(&record, state::RUNNING).await;
        Ok(())
    }

    /// Has one in the background wait again, or gives it up.
    async fn put_off(&self, entry: Entry, hindrance: &Hindrance, began_at: Instant) {
        tracing::debug!(invocation.id = %entry.id, error = %hindrance, "an accepted execution can't begin");
        let failure = match Failure::from(hindrance) {
            // A doubt counts only where Docker answers after it.
            Failure::Suspect => tokio::select! {
                had_trouble = self.health.had_trouble_since(began_at) => Failure::Suspect.given(had_trouble),
                () = self.stop.cancelled() => Failure::Abandoned,
            },
            failure => failure,
        };
        let tries = entry.tries + u32::from(failure == Failure::Suspect);
        match failure {
            // On disk it is queued, or gone with its function.
            Failure::Abandoned => self.settle(entry, None, &Ok(())),
            Failure::Transient(Cause::Load) => self.settle(entry, Some(pause(0)), &Ok(())),
            Failure::Transient(_) => {
                if self.lock().waiting.hold(entry.function, Instant::now()) {
                    self.begins.fail(hindrance);
                }
                self.settle(entry, Some(Duration::ZERO), &Ok(()));
            }
            Failure::Suspect if tries < MAX_TRIES => {
                self.free(entry.function);
                let wait = pause(tries);
                let retry_at = now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                if let Err(error) = self.store.retry_invocation(entry.id, tries, retry_at).await {
                    tracing::debug!(invocation.id = %entry.id, %error, "a try of an execution is not written down");
                }
                self.settle(Entry { tries, ..entry }, Some(wait), &Ok(()));
            }
            Failure::Suspect | Failure::Permanent => {
                self.free(entry.function);
                self.give_up(entry.id, format!("{:#}", anyhow::Error::from(hindrance.clone()))).await;
                self.settle(entry, None, &Ok(()));
            }
        }
    }

    /// Takes one back that a client waits for. What nobody waits for any more, or was promised to somebody, goes on in the
    /// background.
    async fn take_back(&self, entry: Entry, hindrance: Hindrance) {
        let _settling = self.settling.lock().await;
        let is_refused = matches!(hindrance, Hindrance::Invoke(InvokeError::Acquire(AcquireError::QueueFull { .. })));
        let goes_on = !self.is_waited_for(entry.id) && !is_refused && self.waiting() < self.limit;
        let (goes_on, end) = match goes_on {
            true => (true, Err(hindrance)),
            false => match self.store.take_back_invocation(entry.id).await {
                Ok(is_taken_back) => (!is_taken_back, Err(hindrance)),
                Err(error) => (true, Err(Hindrance::Store(Arc::new(error)))),
            },
        };
        self.settle(entry, goes_on.then_some(Duration::ZERO), &end);
    }

    fn is_waited_for(&self, id: InvocationId) -> bool {
        self.lock().waiters.get(&id).is_some_and(|waiters| waiters.iter().any(|waiter| !waiter.is_closed()))
    }

    /// Ends a try: it waits again for so long, or there is nothing left to do.
    fn settle(&self, entry: Entry, wait: Option<Duration>, end: &End) {
        let mut books = self.lock();
        books.running.remove(&entry.id);
        match wait {
            Some(Duration::ZERO) => books.waiting.push(entry),
            Some(wait) => books.waiting.push_later(entry, Instant::now() + wait),
            None => {}
        }
        drop(books);
        if wait.is_none() || end.is_err() {
            self.tell(entry.id, end);
        }
        self.pressed.notify_one();
    }

    /// Lets a function's invocations go on.
    pub(super) fn free(&self, function: FunctionId) {
        if self.lock().waiting.free(function) {
            self.begins.recover(true);
            self.pressed.notify_one();
        }
    }

    async fn give_up(&self, id: InvocationId, error: String) {
        tracing::error!(invocation.id = %id, error, "an accepted execution could not be begun");
        let mut retry = self.writes.begin();
        let record = loop {
            match self.store.invocation(id).await {
                Ok(Some(record)) => break record,
                Ok(None) => return retry.done(),
                Err(error) => retry.failed(&error).await,
            }
        };
        retry.done();
        let failed = InvocationRecord { outcome: state::LOST.to_owned(), error: Some(error), ..record };
        self.write(&failed, state::QUEUED).await;
    }

    async fn write(&self, record: &InvocationRecord, from: &str) {
        let mut retry = self.writes.begin();
        while let Err(error) = self.store.update_invocation(record, from).await {
            retry.failed(&error).await;
        }
        retry.done();
    }
}

/// How long one waits that was tried so often.
fn pause(tries: u32) -> Duration {
    retry::pauses().nth(tries.saturating_sub(1) as usize).unwrap_or_default()
}
