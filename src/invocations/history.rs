//! The history of invocations: rows written in batches beside the invocations, kept for a time, and read by page.

mod pending;
mod retention;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::domain::{Executions, FunctionId, InvocationId, InvocationRecord, Outcome, Page, Place};
use crate::functions::Registry;
use crate::store::{Store, StoreError};

use pending::Pending;
pub use pending::PendingRecord;
use retention::Retention;

/// A crash loses the history of at most this much time, of synchronous executions.
const PERIOD: Duration = Duration::from_millis(500);
/// The limit on records that wait for the store, in bytes of input and output. Beyond the limit invocations wait.
const MAX_PENDING: usize = 32 << 20;

/// The time in the place of a pending record, after all rows.
const PENDING_TIME: u64 = 1 << 61;

/// Keeps invocations, and the functions' counts of executions.
#[derive(Debug)]
pub struct History {
    registry: Arc<Registry>,
    store: Store,
    config: config::History,
    pending: Mutex<Pending>,
    /// Held while a batch is written.
    flushing: tokio::sync::Mutex<Counts>,
}

/// Counts of executions on their way to the store.
#[derive(Debug, Default)]
struct Counts {
    /// The number of the flush.
    flush: u64,
    /// The counts, until the store has the flush. The store may have the flush although its answer is lost, so counts
    /// that come meanwhile are in the next flush.
    executed: HashMap<FunctionId, Executions>,
}

impl History {
    /// A history without pending records, over the rows of `store`.
    pub fn new(registry: Arc<Registry>, store: Store, config: config::History) -> Arc<Self> {
        Arc::new(Self { registry, store, config, pending: Mutex::default(), flushing: Default::default() })
    }

    /// The part of an input that the history keeps: all, or nothing, as half a JSON text is no JSON.
    pub fn keep_input(&self, input: &[u8]) -> Bytes {
        if input.len() as u64 <= self.config.max_output { Bytes::copy_from_slice(input) } else { Bytes::new() }
    }

    /// Begins the record of an invocation. The invocation counts as cancelled until another outcome is known.
    pub fn begin(&self, record: InvocationRecord) -> PendingRecord<'_> {
        PendingRecord { history: self, record: InvocationRecord { outcome: Outcome::Cancelled, ..record } }
    }

    /// Waits while too many bytes are pending.
    pub async fn apply_backpressure(self: &Arc<Self>) {
        let is_full = || self.pending().bytes > MAX_PENDING;
        // Of the many that have waited for flushes, only the first finds too many records after that.
        if is_full() && self.flush().await.is_err() && is_full() {
            // A disk that takes no rows must not take the service's memory: the oldest records go.
            let forgotten = self.pending().forget_half();
            tracing::error!(invocations = forgotten, "invocations could not be written down and are forgotten");
        }
    }

    /// The record of an invocation, pending or in the store.
    pub async fn get(self: &Arc<Self>, id: InvocationId) -> Result<Option<InvocationRecord>, StoreError> {
        if self.flush().await.is_ok() {
            return self.store.invocation(id).await;
        }
        // While this lock is held, no record moves from the pending ones to the store.
        let _flushing = self.flushing.lock().await;
        let pending = self.pending().records.iter().find(|record| record.id == id).cloned();
        match pending {
            Some(record) => Ok(Some(record)),
            None => self.store.invocation(id).await,
        }
    }

    /// Invocations with their places, the last first, without input and output. Pending records come
    /// first, in the places that the rows may get.
    pub async fn list(self: &Arc<Self>, page: &Page) -> Result<Vec<(Place, InvocationRecord)>, StoreError> {
        if self.flush().await.is_ok() {
            return self.store.invocations(page).await;
        }
        let _flushing = self.flushing.lock().await;
        let last = self.store.last_invocation().await?;
        let mut found = self.pending().page(page, Place { time: PENDING_TIME, number: last + 1 });
        let left = page.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        found.extend(self.store.invocations(&Page { limit: left, ..page.clone() }).await?);
        Ok(found)
    }

    /// Writes all pending records now.
    pub async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        let this = Arc::clone(self);
        // A task of its own: the records of a batch belong to other invocations, too, and must not go with a caller
        // that leaves.
        tokio::spawn(async move { this.flush_now().await }).await.expect("writing down does not panic")
    }

    async fn flush_now(&self) -> Result<(), StoreError> {
        let mut counts = self.flushing.lock().await;
        if !counts.executed.is_empty() {
            self.write(&mut counts).await?;
        }
        counts.flush += 1;
        counts.executed = self.registry.take_executed();
        self.write(&mut counts).await
    }

    /// Writes all pending records, and the counts.
    async fn write(&self, counts: &mut Counts) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut *self.pending());
        if batch.records.is_empty() && counts.executed.is_empty() {
            return Ok(());
        }
        let executed: Vec<_> = counts.executed.iter().map(|(&id, &executions)| (id, executions)).collect();
        let written = self.store.insert_invocations(&batch.records, &executed, counts.flush).await;
        match &written {
            Ok(()) => counts.executed.clear(),
            Err(_) => self.pending().take_back(batch),
        }
        written
    }

    /// Writes and prunes again and again until the cancellation of `stop`, and then writes once more.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut is_failing = false;
        let mut retention = Retention::new(&self.store, &self.config);
        loop {
            let is_last = tokio::select! {
                () = time::sleep(PERIOD) => false,
                () = stop.cancelled() => true,
            };
            let mut kept = self.flush().await;
            if kept.is_ok() && !is_last {
                kept = retention.prune_when_due().await;
            }
            match kept {
                Ok(()) => is_failing = false,
                Err(error) if is_failing => tracing::debug!(%error, "invocations are still not written down"),
                Err(error) => {
                    is_failing = true;
                    let error = anyhow::Error::from(error);
                    tracing::error!(error = format!("{error:#}"), "invocations can't be written down, trying again");
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// A copy of the part of an output that the history keeps. The whole output leaves the memory with the answer.
    fn cut(&self, output: &[u8]) -> Bytes {
        let length = output.len().min(usize::try_from(self.config.max_output).unwrap_or(usize::MAX));
        Bytes::copy_from_slice(&output[..length])
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock()
    }
}
