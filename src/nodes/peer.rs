//! The other nodes, as this node asks them for the output of invocations that they run.
//!
//! A request shows CLUSTER_TOKEN. So a request goes only to a [`Peer`], which is a row of a live node as the store had
//! the row a moment before.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::{Answer, Dialer, PeerError};
use super::events::Events;
use crate::config::Secret;
use crate::domain::{InvocationId, Outcome};
use crate::store::{Store, StoreError};

/// The number of nodes whose faults are remembered. Each start of a node counts as a node of its own.
const MAX_FAILING: usize = 1000;
/// The time after a fault in which a node is asked nothing, so that no client waits in vain again and again.
const PAUSE: Duration = Duration::from_secs(2);

/// The other nodes.
#[derive(Debug)]
pub struct Peers {
    store: Store,
    /// None where nothing is asked of other nodes, nor answered.
    token: Option<Secret>,
    dialer: Dialer,
    /// The runs of the nodes whose fault is in the log, and when each may be asked again.
    failing: Mutex<HashMap<String, Instant>>,
}

/// Another node that runs an invocation, as the store had the node a moment before.
#[derive(Debug)]
pub struct Peer {
    run: String,
    url: String,
}

/// How far an invocation is.
#[derive(Debug)]
pub struct Found {
    /// How the invocation ended, or how far the invocation is.
    pub outcome: Outcome,
    /// The other node that runs the invocation, where that node can be asked.
    pub peer: Option<Peer>,
}

impl Peers {
    /// The nodes of `store` that take `token`.
    pub fn new(store: Store, token: Option<Secret>) -> Self {
        let token = token.filter(|_| store.is_shared());
        Self { store, token, dialer: Dialer::new(), failing: Mutex::default() }
    }

    /// CLUSTER_TOKEN, where other nodes may show it here.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// How far an invocation is by the store. None where there is no row, or no other node uses the store.
    pub async fn find(&self, id: InvocationId) -> Result<Option<Found>, StoreError> {
        if !self.store.is_shared() {
            return Ok(None);
        }
        let found = self.store.whereabouts(&[id]).await?.pop();
        Ok(found.map(|found| {
            let runs_elsewhere = found.outcome == Outcome::Running && found.run.as_deref() != Some(self.store.run());
            let peer = found.run.zip(found.url).map(|(run, url)| Peer { run, url });
            Found { outcome: found.outcome, peer: peer.filter(|_| runs_elsewhere && self.token.is_some()) }
        }))
    }

    /// The events of a node at this path.
    pub async fn events(&self, peer: &Peer, path: &str) -> Result<Events, PeerError> {
        self.get(peer, path, "text/event-stream").await.map(Events::new)
    }

    /// The JSON of a node at this path.
    pub async fn json(&self, peer: &Peer, path: &str) -> Result<Answer, PeerError> {
        self.get(peer, path, "application/json").await
    }

    async fn get(&self, peer: &Peer, path: &str, accept: &'static str) -> Result<Answer, PeerError> {
        let token = self.token.as_ref().ok_or(PeerError::Refused)?;
        if self.failing.lock().get(&peer.run).is_some_and(|&until| Instant::now() < until) {
            return Err(PeerError::Unwell);
        }
        match self.dialer.get(&peer.url, path, accept, token).await {
            Ok(answer) => {
                self.failing.lock().remove(&peer.run);
                Ok(answer)
            }
            Err(error) => {
                self.failed(peer, &error);
                if let Some(until) = self.failing.lock().get_mut(&peer.run) {
                    *until = Instant::now() + PAUSE;
                }
                Err(error)
            }
        }
    }

    /// Notes in the log that a node gives no live output: once, until the node does again.
    pub fn failed(&self, peer: &Peer, error: &PeerError) {
        let is_new = {
            let mut failing = self.failing.lock();
            if failing.len() >= MAX_FAILING {
                failing.clear();
            }
            failing.insert(peer.run.clone(), Instant::now()).is_none()
        };
        if is_new {
            tracing::warn!(node.url = peer.url, %error, "no live output of the invocations that another node runs");
        } else {
            tracing::debug!(node.url = peer.url, %error, "still no live output of another node's invocations");
        }
    }
}
