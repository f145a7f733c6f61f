//! Looks for what happens to followed invocations on other nodes, which nothing here tells of.
//!
//! One look is for all followers of a node: a follower looks for itself only when the lookout has seen something new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::live::RunningInvocations;
use crate::domain::{InvocationId, Whereabouts};
use crate::store::{Store, StoreError};

/// The pause between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// The number of invocations in a statement.
const AT_ONCE: usize = 500;

/// Has the followers of invocations look again when other nodes have begun or ended the invocations.
#[derive(Debug)]
pub struct Lookout {
    store: Store,
    live: Arc<RunningInvocations>,
    /// What was seen of the invocations that followers wait for. None where the store has no row.
    seen: HashMap<InvocationId, Option<Whereabouts>>,
}

impl Lookout {
    /// A lookout for the followers that wait for news from `live`.
    pub fn new(store: Store, live: Arc<RunningInvocations>) -> Self {
        Self { store, live, seen: HashMap::new() }
    }

    /// Looks until the cancellation of `stop`, where other nodes may use the store.
    pub async fn run(mut self, stop: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        loop {
            tokio::select! {
                () = time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = stop.cancelled() => return,
            };
            if let Err(error) = looked {
                // The next look is due soon.
                tracing::debug!(%error, "what happens to followed invocations on other nodes is not known");
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let awaited = self.live.awaited_ids();
        let mut before = std::mem::take(&mut self.seen);
        for ids in awaited.chunks(AT_ONCE) {
            let mut found: HashMap<_, _> =
                self.store.whereabouts(ids).await?.into_iter().map(|found| (found.id, found)).collect();
            for &id in ids {
                let found = found.remove(&id);
                // An invocation that is looked for the first time may have changed since its follower has looked.
                if before.remove(&id).is_none_or(|before| before != found) {
                    self.live.tell(id);
                }
                self.seen.insert(id, found);
            }
        }
        Ok(())
    }
}
