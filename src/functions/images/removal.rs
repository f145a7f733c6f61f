//! Removes images that no version needs any more.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Images;
use crate::docker::health::Health;
use crate::docker::retry::Retries;
use crate::docker::{DockerError, Failure};
use crate::domain::VersionId;

/// The removals of images.
#[derive(Debug)]
pub(super) struct Removals {
    /// The versions whose images are no longer needed and not yet removed.
    leaving: Mutex<HashSet<VersionId>>,
    retries: Retries,
    /// Held while an image is removed, so that images are removed one at a time.
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Removals {
    /// No removals yet. Removals wait while `health` knows of trouble.
    pub(super) fn new(health: Health) -> Self {
        Self {
            leaving: Mutex::default(),
            retries: Retries::new("an image could not be removed", health),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }
}

impl Images {
    /// Removes a version's image in the background, once no container uses the image, unless the version is needed
    /// again before that.
    pub fn remove_later(self: &Arc<Self>, id: VersionId) {
        self.removals.leaving.lock().insert(id);
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = async {
                let mut retry = this.removals.retries.begin();
                retry.ready().await;
                loop {
                    match this.remove(id).await {
                        Ok(()) => break,
                        // Containers still use the image.
                        Err(error) if error.is_in_use() => retry.pause().await,
                        Err(error) => match Failure::from(&error) {
                            Failure::Abandoned => break,
                            Failure::Transient(_) | Failure::Suspect | Failure::Permanent => retry.failed(&error).await,
                        },
                    }
                }
                retry.done();
            };
            tokio::select! {
                () = work => {}
                () = this.stop.cancelled() => {}
            }
        });
    }

    /// Removes a version's image, unless the version is needed. After success there is nothing left to do.
    async fn remove(&self, id: VersionId) -> Result<(), DockerError> {
        let rebuild = self.rebuilds.of(id);
        // This is the lock of rebuilds: an image that is being rebuilt must not be removed in place of the old image.
        let _one = rebuild.lock().await;
        let _removing = self.removals.one_at_a_time.lock().await;
        if self.is_needed(id) {
            self.removals.leaving.lock().remove(&id);
            return Ok(());
        }
        self.builder.remove_image(id, || self.is_needed(id)).await?;
        // The store may keep the version without an image.
        if let Err(error) = self.store.mark_images_missing(&[id]).await {
            tracing::warn!(image = %id, %error, "failed to note that an image is gone");
        }
        self.removals.leaving.lock().remove(&id);
        self.rebuilds.forget(id);
        self.trees.retain();
        Ok(())
    }

    /// Removes the files on disk of versions that no function has.
    pub fn remove_unneeded_trees(&self) {
        self.trees.retain();
    }

    /// Removes the images that were still in use, for the end of the service, when no container is left. The next start
    /// removes an image that stays even then, because no function has the image.
    pub async fn finish_removals(&self) {
        let leaving = std::mem::take(&mut *self.removals.leaving.lock());
        for id in leaving.into_iter().filter(|&id| !self.is_needed(id)) {
            if let Err(error) = self.builder.remove_image(id, || self.is_needed(id)).await {
                tracing::warn!(image = %id, %error, "failed to remove an image, leaving it to the next start");
            }
        }
    }
}
