//! The use case "delete": a function goes with its versions, its images and its history.

use std::sync::Arc;

use super::{DeleteError, Deployer};
use crate::domain::{FunctionId, UnknownFunction};

impl Deployer {
    /// Deletes a function for good: no execution begins any more, executions under way end by themselves, then the
    /// images are removed. Fails when there is no such function.
    pub async fn delete(self: &Arc<Self>, id: FunctionId) -> Result<(), DeleteError> {
        let this = Arc::clone(self);
        // A task of its own: a function that is deleted on disk must not stay in memory because the caller left.
        let task = async move {
            let change = this.store.delete(id).await?.ok_or(UnknownFunction(id))?;
            if this.nodes.is_shared() {
                this.deleted.lock().insert(id);
            }
            this.forget(id);
            this.images.delete_shared_later(id);
            Ok(this.nodes.acknowledged(change).await?)
        };
        self.tasks.spawn(task).await?
    }

    /// Forgets a function that the store does not have any more.
    pub(super) fn forget(&self, id: FunctionId) {
        let Some(function) = self.registry.remove(id) else { return };
        self.pool.retire(&function);
        self.queue.forget(id);
        tracing::info!(function.id = %id, function.name = %function.name, "function deleted");
        for version in function.versions() {
            self.images.remove_later(version.id);
        }
        // The function's invocations are gone with the function: clients that watch an invocation must look again.
        self.invoker.tell(None);
    }
}
