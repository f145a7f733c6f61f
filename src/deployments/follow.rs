//! Takes over in memory what other nodes have changed in the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::Deployer;
use crate::docker::health::Health;
use crate::domain::{Changes, FunctionId, Record};
use crate::functions::Function;
use crate::invocations::queue::InvocationQueue;
use crate::nodes::Membership;
use crate::resources::clock::Moment;
use crate::store::{DELETION_RETENTION, LEASE, StoreError};
use crate::tokens::Tokens;

/// The time between two looks for work of nodes that are gone, and for other nodes' counts of executions.
const LOOK: Duration = Duration::from_secs(2);
/// The most deleted functions that are kept in mind.
const MAX_DELETED: usize = 10_000;
/// The time limit of a round.
const ROUND_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a round that failed.
const AGAIN: Duration = Duration::from_millis(200);

/// Follows the store.
#[derive(Debug)]
pub struct Follower {
    deployer: Arc<Deployer>,
    queue: Arc<InvocationQueue>,
    nodes: Arc<Membership>,
    tokens: Arc<Tokens>,
    health: Health,
}

impl Follower {
    /// A follower, which does nothing yet. Other nodes learn whether Docker answers by `health`.
    pub(crate) fn new(
        deployer: Arc<Deployer>,
        queue: Arc<InvocationQueue>,
        nodes: Arc<Membership>,
        tokens: Arc<Tokens>,
        health: Health,
    ) -> Self {
        Self { deployer, queue, nodes, tokens, health }
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
        let (mut followed_at, mut looked_at) = (Moment::now(), Moment::now());
        // Since when round has followed round without a gap.
        let mut steady_since = Moment::now();
        // The log has an outage once.
        let mut is_failing = false;
        loop {
            let began = Moment::now();
            let is_late = followed_at + LEASE < began;
            match time::timeout(ROUND_LIMIT, self.round(began, followed_at)).await {
                Ok(Ok(())) => {
                    if is_late {
                        steady_since = began;
                    }
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the database answers again");
                    }
                    followed_at = began;
                    if looked_at + LOOK <= began {
                        looked_at = began;
                        let looked = time::timeout(ROUND_LIMIT, self.look(steady_since + LEASE <= began)).await;
                        if !matches!(looked, Ok(Ok(()))) {
                            tracing::warn!(?looked, "failed to look for work of nodes that are gone");
                        }
                    }
                    self.nodes.round_due().await;
                }
                failed => {
                    if failed.is_err() {
                        self.deployer.store.reconnect();
                    }
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(
                            ?failed,
                            "the database does not answer: executions stop when the lease of this node runs out"
                        );
                    }
                    steady_since = Moment::now();
                    time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn round(&self, began: Moment, followed_at: Moment) -> Result<(), StoreError> {
        // Deletions of a longer time are forgotten.
        let since = (began < followed_at + DELETION_RETENTION / 2).then(|| self.nodes.applied());
        let mut changes = self.deployer.store.changes(since).await?;
        let is_all = since.is_none_or(|since| changes.last < since);
        if since.is_some() && is_all {
            // The database is an older one, as after a restore.
            changes = self.deployer.store.changes(None).await?;
        }
        let last = changes.last;
        if let Some(tokens) = changes.tokens.take() {
            self.tokens.take_over(tokens);
        }
        self.deployer.take_over(changes, is_all);
        let instances = u32::try_from(self.deployer.pool.instances()).unwrap_or(u32::MAX);
        self.nodes.renew(began, last, instances, self.health.trouble().is_none()).await
    }

    /// Looks for what other nodes have left, and for what they have counted. After an outage of the database all leases
    /// have run out, so only a node that has followed for a while, `steady`, knows which nodes are gone.
    async fn look(&self, steady: bool) -> Result<(), StoreError> {
        self.queue.end_cancelled().await?;
        // This comes first: an adoption that was broken off leaves rows that the queue does not know of.
        self.queue.find_forgotten().await?;
        // A node that can't run anything leaves the work to others.
        let can_run = self.health.trouble().is_none() && self.nodes.check().is_ok();
        if can_run && !self.deployer.stop.is_cancelled() {
            self.queue.adopt(false, steady).await?;
        }
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
            // A submit of this node may still be on its way into the registry. Others' functions that came and went
            // between two rounds are forgotten when there are too many.
            if self.deleted.lock().len() > MAX_DELETED {
                self.deleted.lock().clear();
            }
            if self.registry.get(id).is_some() || !self.deleted.lock().insert(id) {
                self.deleted.lock().remove(&id);
                self.forget(id);
            }
        }
    }

    fn follow_record(&self, record: Record) {
        let id = record.id;
        let Some(current) = self.registry.get(id) else {
            // A deletion of this node may be newer than what was read.
            if !self.deleted.lock().contains(&id) {
                let function = self.registry.insert(Function::from(record));
                self.pool.configure(&function);
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
