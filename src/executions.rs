//! Writes down how often functions were executed, in batches and off their way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::store::Store;

/// A crash forgets at most this much.
const PERIOD: Duration = Duration::from_millis(500);

/// Writes until `stop` is cancelled, and then once more.
pub async fn keep(registry: Arc<Registry>, store: Store, stop: CancellationToken) {
    let mut pending = HashMap::new();
    let mut failing = false;
    loop {
        let is_last = tokio::select! {
            () = time::sleep(PERIOD) => false,
            () = stop.cancelled() => true,
        };
        pending.extend(registry.take_executed());
        if !pending.is_empty() {
            let batch: Vec<_> = pending.iter().map(|(&id, &executions)| (id, executions)).collect();
            match store.set_executions(&batch).await {
                Ok(()) => {
                    pending.clear();
                    failing = false;
                }
                Err(error) if failing => tracing::debug!(%error, "executions are still not written down"),
                Err(error) => {
                    failing = true;
                    let error = anyhow::Error::from(error);
                    tracing::error!(error = format!("{error:#}"), "executions can't be written down, trying again");
                }
            }
        }
        if is_last {
            return;
        }
    }
}
