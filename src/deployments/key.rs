//! A request with an idempotency key is carried out once, whichever nodes the client sends the request to.
//!
//! The key's row in the store belongs to this process while the process carries out the request. The row has the answer
//! in the same transaction as the function has its new state. A request that comes to nothing gives the key back, and
//! so does the end of the process. A request whose key another node has waits for that node's answer, or for the end of
//! the node's lease: a load balancer sends a request again at once when the node of the request has died.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{self, Instant};

use super::{DeployError, Deployer};
use crate::domain::{Deployed, IdempotencyKey, Known};
use crate::resources::clock;
use crate::store::{LEASE, StoreError};

/// The longest wait for a key of another node. The key of a node that has died is free when the node's lease has ended.
const ELSEWHERE_LIMIT: Duration = LEASE.saturating_add(Duration::from_secs(3));
/// The pause between two looks at a key of another node.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The pause before a key is given back again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Deployer {
    /// Carries out a deployment, unless a request with the key was carried out before: then returns the answer of then.
    pub(super) async fn once(
        &self,
        key: Option<IdempotencyKey>,
        deployment: impl AsyncFnOnce(Option<&IdempotencyKey>) -> Result<Deployed, DeployError>,
    ) -> Result<Deployed, DeployError> {
        let Some(key) = key else { return deployment(None).await };
        let claim = self.claim(&key.key)?;
        match self.known(&key).await {
            Ok(Known::New) => {}
            Ok(Known::Same(deployed)) => {
                // The first request may still wait for nodes that do not know of the change.
                self.nodes.all_acknowledged().await?;
                return Ok(deployed);
            }
            Ok(Known::Other) => return Err(DeployError::OtherRequest),
            Ok(Known::InProgress) => return Err(DeployError::InProgress),
            Err(error) => {
                // The store may have the claim although its answer is lost.
                self.give_back_later(key, claim);
                return Err(error.into());
            }
        }
        let deployed = deployment(Some(&key)).await;
        if deployed.is_err() && self.store.give_back_key(&key).await.is_err() {
            self.give_back_later(key, claim);
        }
        deployed
    }

    /// Claims the key in the store. Waits for a while when another node has the key.
    async fn known(&self, key: &IdempotencyKey) -> Result<Known<Deployed>, StoreError> {
        let deadline = Instant::now() + ELSEWHERE_LIMIT;
        loop {
            let known = self.store.claim_key(key, clock::unix_millis()).await?;
            if known != Known::InProgress || deadline <= Instant::now() {
                return Ok(known);
            }
            tokio::select! {
                () = time::sleep(LOOK_AGAIN) => {}
                () = self.stop.cancelled() => return Ok(known),
            }
        }
    }

    /// Gives a key back as soon as the store answers, for the other nodes. Until then no request of this process can
    /// take the key, which would be given back under that request.
    fn give_back_later(&self, key: IdempotencyKey, claim: Claim) {
        let (store, stop) = (self.store.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let _claim = claim;
            loop {
                tokio::select! {
                    () = time::sleep(TRY_AGAIN) => {}
                    // The end of the process frees what the process has.
                    () = stop.cancelled() => return,
                }
                match store.give_back_key(&key).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "a key of a request that came to nothing is not given back"),
                }
            }
        });
    }

    fn claim(&self, key: &str) -> Result<Claim, DeployError> {
        let is_free = self.claimed.lock().insert(key.to_owned());
        let claim = || Claim { claimed: Arc::clone(&self.claimed), key: key.to_owned() };
        is_free.then(claim).ok_or(DeployError::InProgress)
    }
}

/// Holds an idempotency key against other tasks of this process.
#[derive(Debug)]
struct Claim {
    claimed: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claimed.lock().remove(&self.key);
    }
}
