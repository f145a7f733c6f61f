//! Decides whether an invocation of the background that can't begin is tried again, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::InvocationQueue;
use super::error::Hindrance;
use super::order::Entry;
use crate::docker::{Cause, Failure, retry};
use crate::domain::{InvocationRecord, Outcome};
use crate::resources::clock;

/// A failure that may be the function's own counts as the function's after this number of tries.
const MAX_TRIES: u32 = 6;

impl InvocationQueue {
    /// Has an invocation of the background wait again, or gives the invocation up.
    pub(super) async fn put_off(self: &Arc<Self>, entry: Entry, hindrance: &Hindrance, began_at: Instant) {
        tracing::debug!(invocation.id = %entry.id, error = %hindrance, "an accepted execution can't begin");
        let failure = match Failure::from(hindrance) {
            // A doubt counts only where Docker answered all the while and answers after the failure.
            Failure::Suspect => tokio::select! {
                had_trouble = self.health.had_trouble_since(began_at) => Failure::Suspect.given(had_trouble),
                () = self.stop.cancelled() => Failure::Abandoned,
            },
            failure => failure,
        };
        let tries = entry.tries + u32::from(failure == Failure::Suspect);
        match failure {
            // The row stays queued for the next start, or went with its function.
            Failure::Abandoned => self.settle(entry, None, &Ok(())),
            Failure::Transient(Cause::Load) => self.settle(entry, Some(pause(0)), &Ok(())),
            Failure::Transient(_) => {
                if self.lock().waiting.hold(entry, Instant::now()) {
                    self.begins.fail(hindrance);
                }
                self.settle(entry, Some(Duration::ZERO), &Ok(()));
            }
            Failure::Suspect if tries < MAX_TRIES => {
                self.free(entry.function);
                let wait = pause(tries);
                let retry_at = clock::unix_millis().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                if let Err(error) = self.store.retry_invocation(entry.id, tries, retry_at).await {
                    tracing::debug!(invocation.id = %entry.id, %error, "a try of an execution is not written down");
                }
                self.settle(Entry { tries, ..entry }, Some(wait), &Ok(()));
            }
            Failure::Suspect | Failure::Permanent => {
                self.free(entry.function);
                self.give_up(entry, format!("{:#}", anyhow::Error::from(hindrance.clone()))).await;
                self.settle(entry, None, &Ok(()));
            }
        }
    }

    /// Ends an invocation that will not begin as lost, for the reason `error`.
    pub(super) async fn give_up(&self, entry: Entry, error: String) {
        let id = entry.id;
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
        let failed = InvocationRecord { outcome: Outcome::Lost, error: Some(error), ..record };
        self.write(&failed, Outcome::Queued, entry.attempt).await;
    }
}

/// The pause before the next try of an invocation that was tried this often.
fn pause(tries: u32) -> Duration {
    retry::pauses().nth(tries.saturating_sub(1) as usize).unwrap_or_default()
}
