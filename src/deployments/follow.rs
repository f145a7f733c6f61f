//! Takes over in memory what other nodes have changed in the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::Deployer;
use crate::docker::health::Health;
use crate::domain::{Changes, FunctionId, Record};
use crate::functions::Function;
use crate::invocations::queue::InvocationQueue;
use crate::nodes::Membership;
use crate::store::{DELETION_RETENTION, StoreError};

/// The time between two looks for work of nodes that are gone, and for other nodes' counts of executions.
const LOOK: Duration = Duration::from_secs(2);
/// The pause after a round that failed.
const AGAIN: Duration = Duration::from_millis(200);

/// Follows the store.
#[derive(Debug)]
pub struct Follower {
    deployer: Arc<Deployer>,
    queue: Arc<InvocationQueue>,
    nodes: Arc<Membership>,
    health: Health,
}

impl Follower {
    /// A follower, which does nothing yet. Other nodes learn whether Docker answers by `health`.
    pub(crate) fn new(
        deployer: Arc<Deployer>,
        queue: Arc<InvocationQueue>,
        nodes: Arc<Membership>,
        health: Health,
    ) -> Self {
        Self { deployer, queue, nodes, health }
    }

    /// Follows until the cancellation of `stop`, where other nodes may use the store.
    pub async fn run(self, stop: CancellationToken) {
        if !self.nodes.is_shared() {
            return;
        }
        tokio::select! {
            () = self.follow() => {}
            () = self.hints() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow(&self) {
        let (mut followed_at, mut looked_at) = (Instant::now(), Instant::now());
        let mut is_failing = false;
        loop {
            let began = Instant::now();
            let done = async {
                // Deletions of a longer time are forgotten.
                let since = (began < followed_at + DELETION_RETENTION / 2).then(|| self.nodes.applied());
                let changes = self.deployer.store.changes(since).await?;
                let last = changes.last;
                self.deployer.take_over(changes, since.is_none());
                let instances = u32::try_from(self.deployer.pool.instances()).unwrap_or(u32::MAX);
                self.nodes.renew(began, last, instances, self.health.trouble().is_none()).await?;
                self.queue.end_cancelled().await?;
                if looked_at + LOOK <= began {
                    looked_at = began;
                    self.look().await?;
                }
                Ok::<_, StoreError>(())
            };
            match done.await {
                Ok(()) => {
                    followed_at = began;
                    is_failing = false;
                    self.nodes.round_due().await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(
                            error = format!("{:#}", anyhow::Error::from(error)),
                            "the database does not \
                            answer: executions stop when the lease of this node runs out"
                        );
                    }
                    time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        self.queue.adopt().await?;
        for (id, executions) in self.deployer.store.executions(LOOK * 3).await? {
            if let Some(function) = self.deployer.registry.get(id) {
                function.observe(executions);
            }
        }
        Ok(())
    }

    /// Has a round begin as soon as another node tells of a change. Without a hint, the next round finds the change.
    async fn hints(&self) {
        loop {
            if let Err(error) = self.deployer.store.listen(|| self.nodes.wake()).await {
                tracing::debug!(%error, "no hints from the database");
            }
            time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Deployer {
    /// Takes over changes that other nodes, or this one, have made. `is_all` says that the changes are all functions:
    /// others are gone.
    fn take_over(&self, changes: Changes, is_all: bool) {
        let mut gone: HashSet<FunctionId> = changes.deleted.into_iter().collect();
        if is_all {
            let there: HashSet<FunctionId> = changes.changed.iter().map(|record| record.id).collect();
            gone.extend(self.registry.list().iter().map(|function| function.id).filter(|id| !there.contains(id)));
        }
        for record in changes.changed {
            self.follow_record(record);
        }
        for id in gone {
            self.deleted.lock().remove(&id);
            self.forget(id);
        }
    }

    fn follow_record(&self, record: Record) {
        let id = record.id;
        let Some(current) = self.registry.get(id) else {
            // A deletion of this node may be newer than what was read.
            if !self.deleted.lock().contains(&id) {
                let function = self.registry.insert(Function::from(record));
                self.images.fetch_later(&function.version, &function.name);
            }
            return;
        };
        if record.generation <= current.generation {
            return;
        }
        let next = Arc::new(current.followed_by(record));
        self.replace(&current, &next);
        if current.versions().all(|version| version.id != next.version.id) {
            self.images.fetch_later(&next.version, &next.name);
        }
    }
}
