//! This node among the nodes that share a store: the node's lease, and whether the other nodes know of a change.
//!
//! ```text
//! a round of a node:  read changes ──> take them over ──> heartbeat ──> the lease runs from the beginning of the round
//! a change:           commit ──> wait until each live node has taken the change over, or its lease has run out
//! ```
//! The lease of a node ends by the node's own clock before it ends by the database's, which has the heartbeat later. So
//! no node runs old code after the answer to an update, whatever the nodes' clocks say.

mod connection;
mod events;
mod peer;
mod twin;
mod urls;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

pub use connection::{Answer, PeerError};
pub use events::Events;
pub use peer::{Found, Peer, Peers};

use crate::domain::{Heartbeat, Node, Seen};
use crate::resources::clock::{self, Moment};
use crate::store::{LEASE, Store, StoreError};
pub use twin::JoinError;
pub use urls::NodeUrls;

/// The longest time between two rounds.
pub const ROUND: Duration = Duration::from_millis(500);
/// A lease counts as run out this much earlier on the node itself: clocks may tick at slightly different speeds.
const MARGIN: Duration = Duration::from_millis(500);
/// The pause between two looks whether all nodes have taken over a change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The longest wait for other nodes. A node that hangs for longer without losing its lease is a fault.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(60);

/// The time after which this node looks for the URLs of other nodes again.
const URLS_AGE: Duration = Duration::from_secs(2);

/// The time limit of the last words of a node.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The membership of this node.
#[derive(Debug)]
pub struct Membership {
    store: Store,
    id: String,
    url: Option<String>,
    /// When the node's lease ends. None for a node alone. A suspend of the machine counts, as the other nodes go on.
    lease: Mutex<Option<Moment>>,
    /// The number of the last change that the node has taken over.
    applied: watch::Sender<u64>,
    wake: Notify,
    /// Whether another process has taken this node's id while this node was cut off.
    has_twin: AtomicBool,
    urls: NodeUrls,
    /// When this node has looked for the URLs.
    urls_seen: Mutex<Option<Instant>>,
}

/// This node has not reached the store for longer than its lease.
#[derive(Clone, Copy, Debug, Error)]
#[error("this node has not reached the database for {LEASE:?}, so its functions may be out of date")]
pub struct CutOff;

/// Another node has not taken over a change in time.
#[derive(Debug, Error)]
pub enum Unacknowledged {
    /// A node lives and does not follow.
    #[error("the change is made, but not all nodes know of it yet; look again in a minute")]
    Slow,
    /// The store does not say.
    #[error("the change is made, but whether all nodes know of it is not known")]
    Store(#[from] StoreError),
}

impl Membership {
    /// Joins the nodes of the store. Rows that an earlier process of this node worked on are free from then on.
    ///
    /// # Errors
    /// A process with the id of this node lives elsewhere: see `nodes::twin`.
    pub async fn join(store: Store, id: String, url: Option<String>, data_dir: &Path) -> Result<Self, JoinError> {
        let began =
            if store.is_shared() { twin::join(&store, &id, url.as_deref(), data_dir).await? } else { Moment::now() };
        let lease = Mutex::new(store.is_shared().then(|| began + (LEASE - MARGIN)));
        let (applied, wake, has_twin) = (watch::Sender::new(0), Notify::new(), AtomicBool::new(false));
        let (urls, urls_seen) = (NodeUrls::default(), Mutex::default());
        urls.replace(&url);
        Ok(Self { store, id, url, lease, applied, wake, has_twin, urls, urls_seen })
    }

    /// Whether other nodes may use the store.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// The run of this process, as its rows name the run.
    pub fn run(&self) -> &str {
        self.store.run()
    }

    /// Fails when the node must not execute functions.
    pub fn check(&self) -> Result<(), CutOff> {
        match *self.lease.lock() {
            Some(end) if end <= Moment::now() => Err(CutOff),
            Some(_) | None => Ok(()),
        }
    }

    /// The number of the last change that the node has taken over.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Ends a round that began at `began` and took over all changes up to `applied`: renews the lease. Where the other
    /// nodes saw this node as gone, a change may have been answered since the round has read the changes: then the next
    /// round, which is due at once, renews the lease.
    pub async fn renew(&self, began: Moment, applied: u64, instances: u32, is_ready: bool) -> Result<(), StoreError> {
        self.applied.send_replace(applied);
        if !self.is_shared() {
            return Ok(());
        }
        let beat = Heartbeat { instances, is_ready, applied };
        let seen = self.store.beat(&beat).await?;
        match seen {
            Seen::Live => {
                let mut lease = self.lease.lock();
                if lease.is_some_and(|end| end <= Moment::now()) {
                    tracing::info!("this node follows the others again: executing functions");
                }
                *lease = lease.map(|_| began + (LEASE - MARGIN));
            }
            Seen::Lapsed => self.wake(),
            Seen::Gone => self.join_again().await?,
        }
        self.look_for_urls().await;
        Ok(())
    }

    /// The URLs of all nodes, which each round keeps current.
    pub fn urls(&self) -> NodeUrls {
        self.urls.clone()
    }

    async fn look_for_urls(&self) {
        let seen = *self.urls_seen.lock();
        if seen.is_some_and(|seen| seen.elapsed() < URLS_AGE) {
            return;
        }
        match self.store.node_urls().await {
            Ok(urls) => {
                self.urls.replace(urls);
                *self.urls_seen.lock() = Some(Instant::now());
            }
            Err(error) => tracing::debug!(%error, "the nodes' URLs are those of a while ago"),
        }
    }

    /// Joins again, unless another process has this node's id meanwhile: then the node stays cut off while that process
    /// lives, as the two would throw each other out again and again.
    async fn join_again(&self) -> Result<(), StoreError> {
        let has_twin = self.store.join(&self.id, self.url.as_deref(), None).await?.is_some();
        if self.has_twin.swap(has_twin, Ordering::Relaxed) != has_twin && has_twin {
            tracing::error!(
                node.id = self.id,
                "another process serves with this node's id: this node executes nothing"
            );
        }
        if !has_twin {
            tracing::warn!("the other nodes took this node for gone: joined again");
            self.wake();
        }
        Ok(())
    }

    /// Tells the others, at the end, that this node executes nothing any more, so that no change waits for the node.
    pub async fn end(&self) {
        if self.is_shared() {
            let beat = Heartbeat { instances: 0, is_ready: false, applied: i64::MAX.cast_unsigned() };
            let told = time::timeout(END_LIMIT, self.store.beat(&beat)).await;
            if !matches!(told, Ok(Ok(_))) {
                tracing::warn!("changes wait for this node until its lease runs out");
            }
        }
    }

    /// Returns when the next round is due: after [`ROUND`], or at once when a change is known of.
    pub async fn round_due(&self) {
        let _ = time::timeout(ROUND, self.wake.notified()).await;
    }

    /// Has the next round begin at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns after a round that begins after this call, or after a while.
    pub async fn follow_now(&self) {
        let mut applied = self.applied.subscribe();
        // A round may be under way, so only the second one surely begins after this call.
        for _ in 0..2 {
            applied.mark_unchanged();
            self.wake();
            let _ = time::timeout(LEASE, applied.changed()).await;
        }
    }

    /// Returns when this node has taken over the change with this number.
    pub async fn followed(&self, change: u64) -> Result<(), Unacknowledged> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        self.wake();
        match time::timeout(ACKNOWLEDGE_LIMIT, applied.wait_for(|&applied| change <= applied)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unacknowledged::Slow),
        }
    }

    /// Returns when no live node runs anything from before a change.
    pub async fn acknowledged(&self, change: u64) -> Result<(), Unacknowledged> {
        if !self.is_shared() {
            return Ok(());
        }
        self.wake();
        let deadline = Instant::now() + ACKNOWLEDGE_LIMIT;
        loop {
            match self.store.is_change_pending(change).await {
                Ok(false) => return Ok(()),
                Ok(true) if Instant::now() < deadline => {}
                Ok(true) => return Err(Unacknowledged::Slow),
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "whether all nodes know of a change is not known yet");
                }
                Err(error) => return Err(error.into()),
            }
            time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns when this node and every live node have taken over all changes that are committed now.
    pub async fn all_acknowledged(&self) -> Result<(), Unacknowledged> {
        if !self.is_shared() {
            return Ok(());
        }
        let last = self.store.last_change().await?;
        if self.applied() < last {
            self.follow_now().await;
        }
        self.acknowledged(last).await
    }

    /// All nodes that were seen lately.
    pub async fn list(&self) -> Result<Vec<Node>, StoreError> {
        if self.is_shared() {
            return self.store.nodes().await;
        }
        Ok(vec![Node {
            id: self.id.clone(),
            run: self.run().to_owned(),
            url: self.url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seen_at: clock::unix_millis(),
            instances: 0,
            is_ready: true,
            is_live: true,
        }])
    }

    /// Leaves the other nodes, at the end of the process.
    pub async fn leave(&self) {
        if !matches!(time::timeout(END_LIMIT, self.store.leave()).await, Ok(Ok(()))) {
            tracing::warn!("the other nodes learn of the end of this node when its lease runs out");
        }
    }
}
