//! Removes from the store what is older than its retention: rows of the history, notifications, idempotency keys,
//! deletions, and nodes that are gone. One node does so for all.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::resources::clock;
use crate::store::{Store, StoreError};

/// The time between two looks for rows and keys that are too old.
const PERIOD: Duration = Duration::from_secs(60);
/// The time for which the service knows an `Idempotency-Key`.
const KEY_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The name of the lease of the node that prunes.
const LEASE: &str = "retention";

/// The times of the prunings of a store.
pub(super) struct Retention<'a> {
    store: &'a Store,
    config: &'a config::History,
    next: Instant,
}

impl<'a> Retention<'a> {
    /// The first pruning is due at once.
    pub(super) fn new(store: &'a Store, config: &'a config::History) -> Self {
        Self { store, config, next: Instant::now() }
    }

    /// Prunes when the last pruning was long enough ago.
    pub(super) async fn prune_when_due(&mut self) -> Result<(), StoreError> {
        if self.next > Instant::now() {
            return Ok(());
        }
        self.next = Instant::now() + PERIOD;
        if !self.store.take_lease(LEASE).await? {
            return Ok(());
        }
        self.store.prune_nodes().await?;
        self.store.prune_deletions().await?;
        self.store.prune_keys(before(KEY_RETENTION)).await?;
        self.store.prune_notifications(before(self.config.retention)).await?;
        while self.store.prune_invocations(before(self.config.retention), self.config.max_invocations).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// The time before which everything is older than `age`, in Unix milliseconds.
fn before(age: Duration) -> u64 {
    u64::try_from(clock::unix_time().saturating_sub(age).as_millis()).unwrap_or(u64::MAX)
}
