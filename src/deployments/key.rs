//! A request with an idempotency key is carried out once, whichever nodes the client sends the request to.
//!
//! The key's row in the store belongs to this process while the process carries out the request. The row has the answer
//! in the same transaction as the function has its new state. A request that comes to nothing gives the key back, and
//! so does the end of the process. A request whose key another node has waits for that node's answer, or for the end of
//! the node's lease: a load balancer sends a request again at once when the node of the request has died.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{DeployError, Deployer};
use crate::domain::{Deployed, IdempotencyKey, Known};
use crate::resources::clock;
use crate::store::{LEASE, StoreError};

/// The longest wait for a key of another node. The key of a node that has died is free when the node's lease has ended.
const ELSEWHERE_LIMIT: Duration = LEASE.saturating_add(Duration::from_secs(3));
/// The pause between two looks at a key of another node.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Deployer {
    /// Carries out a deployment, unless a request with the key was carried out before: then returns the answer of then.
    pub(super) async fn once(
        &self,
        key: Option<IdempotencyKey>,
        deployment: impl AsyncFnOnce(Option<&IdempotencyKey>) -> Result<Deployed, DeployError>,
    ) -> Result<Deployed, DeployError> {
        let Some(key) = key else { return deployment(None).await };
        let _claim = self.claim(&key.key)?;
        match self.known(&key).await? {
            Known::New => {}
            Known::Same(deployed) => {
                // The first request may still wait for nodes that do not know of the change.
                self.nodes.all_acknowledged().await?;
                return Ok(deployed);
            }
            Known::Other => return Err(DeployError::OtherRequest),
            Known::InProgress => return Err(DeployError::InProgress),
        }
        let deployed = deployment(Some(&key)).await;
        if deployed.is_err()
            && let Err(error) = self.store.give_back_key(&key).await
        {
            // The next request with the key finds the row and that no task of this process has the key.
            tracing::debug!(%error, "a key of a request that came to nothing is not given back");
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

    fn claim(&self, key: &str) -> Result<Claim<'_>, DeployError> {
        let is_free = self.claimed.lock().insert(key.to_owned());
        is_free.then(|| Claim { deployer: self, key: key.to_owned() }).ok_or(DeployError::InProgress)
    }
}

/// Holds an idempotency key against other tasks of this process.
#[derive(Debug)]
struct Claim<'a> {
    deployer: &'a Deployer,
    key: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.deployer.claimed.lock().remove(&self.key);
    }
}
