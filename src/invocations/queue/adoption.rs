//! Invocations of other processes: those that are gone, whose invocations this process takes over, and those that live,
//! whose news this process looks for.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::InvocationQueue;
use super::error::AcceptError;
use crate::domain::{InvocationId, InvocationRecord, Open, Outcome, Own, UnknownInvocation};
use crate::invocations::invoke::InvokeError;
use crate::resources::clock;
use crate::sandbox::pool::AcquireError;
use crate::store::StoreError;

/// No invocation waits longer for its next try after a start, however wrong the clock was when the time was written
/// down.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The pause between two looks whether an invocation of another node has ended, and the longest wait for its end.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(100);
const ELSEWHERE_LIMIT: Duration = Duration::from_secs(3600);

/// The number of invocations that are taken over at a time.
const ADOPTED_AT_ONCE: u32 = 1000;

/// The number of rows that are compared with the queue at a time, so that a long queue costs no more than a short one.
const COMPARED_AT_ONCE: u32 = 1000;

impl InvocationQueue {
    /// Takes over invocations that were accepted by a process that is gone: some of them, or all. With `lapsed`, a
    /// process whose lease has run out counts as gone.
    pub async fn adopt(&self, all: bool, lapsed: bool) -> Result<(), StoreError> {
        loop {
            let open = self.store.adopt_invocations(ADOPTED_AT_ONCE, lapsed).await?;
            if !open.is_empty() {
                tracing::info!(invocations = open.len(), "going on with what was accepted before");
            }
            let is_done = !all || !self.store.is_shared() || open.len() < ADOPTED_AT_ONCE as usize;
            self.take_up(open);
            if is_done {
                return Ok(());
            }
        }
    }

    /// Compares some rows of this node's invocations with the queue, the next rows with each call. Invocations that the
    /// node does not know of, as the store's answer was lost, go on where they wait, and are lost where they ran.
    pub async fn find_forgotten(&self) -> Result<(), StoreError> {
        let after = self.lock().compared;
        let rows = self.store.own_invocations(after, COMPARED_AT_ONCE).await?;
        let is_last = rows.len() < COMPARED_AT_ONCE as usize;
        self.lock().compared = rows.last().filter(|_| !is_last).map_or(0, |own| own.number);
        let is_forgotten = |own: &Own| {
            let state = self.lock();
            !state.running.contains_key(&own.open.id) && !state.waiting.contains(own.open.id)
        };
        let forgotten = rows.into_iter().filter(is_forgotten);
        let (waiting, running): (Vec<Own>, Vec<Own>) = forgotten.partition(|own| own.outcome == Outcome::Queued);
        if !waiting.is_empty() {
            tracing::warn!(invocations = waiting.len(), "going on with what was accepted and then forgotten");
        }
        self.take_up(waiting.into_iter().map(|own| own.open).collect());
        for Own { open, .. } in running {
            let Some(record) = self.store.invocation(open.id).await? else { continue };
            let error = Some("whether it ran is not known: the database did not answer".to_owned());
            let lost = InvocationRecord { outcome: Outcome::Lost, error, ..record };
            self.store.update_invocation(&lost, Outcome::Running, Some(open.attempt)).await?;
        }
        Ok(())
    }

    fn take_up(&self, open: Vec<Open>) {
        let mut state = self.lock();
        for open in open {
            // An earlier claim on the invocation is void.
            state.waiting.remove(open.id);
            let entry = state.waiting.entry(&open);
            match open.retry_at.map(|retry_at| Duration::from_millis(retry_at.saturating_sub(clock::unix_millis()))) {
                Some(wait) if !wait.is_zero() => {
                    state.waiting.push_later(entry, Instant::now() + wait.min(LONGEST_WAIT))
                }
                _ => state.waiting.push(entry),
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Ends the runs of invocations that were cancelled on another node.
    pub async fn end_cancelled(&self) -> Result<(), StoreError> {
        let running: Vec<InvocationId> = self.lock().running.keys().copied().collect();
        for id in self.store.cancelled_invocations(&running).await? {
            self.end_run(id);
        }
        Ok(())
    }

    /// An invocation as it ended. An invocation that another node runs may still have to end.
    pub(super) async fn end_of(&self, id: InvocationId) -> Result<InvocationRecord, AcceptError> {
        let deadline = Instant::now() + ELSEWHERE_LIMIT;
        loop {
            // The outcome is little beside the input and the output.
            if !self.store.outcome(id).await?.ok_or(UnknownInvocation(id))?.is_open() {
                return Ok(self.store.invocation(id).await?.ok_or(UnknownInvocation(id))?);
            }
            let may_end = self.store.is_shared() && !self.stop.is_cancelled() && Instant::now() < deadline;
            if !may_end {
                return Err(InvokeError::from(AcquireError::ShuttingDown).into());
            }
            time::sleep(LOOK_ELSEWHERE).await;
        }
    }
}
