//! Evicts images when the cache is larger than IMAGE_CACHE_LIMIT.

use std::sync::Arc;

use super::{ImageError, Images};
use crate::build::BuildError;
use crate::docker::health::Health;
use crate::docker::retry::Retries;
use crate::functions::Absence;

/// The evictions of images.
#[derive(Debug)]
pub(super) struct Evictions {
    retries: Retries,
    /// Held while the cache is trimmed.
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Evictions {
    /// No evictions yet. Evictions wait while `health` knows of trouble.
    pub(super) fn new(health: Health) -> Self {
        Self {
            retries: Retries::new("images could not be evicted", health),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }
}

impl Images {
    /// Trims the cache to IMAGE_CACHE_LIMIT, in the background.
    pub fn trim_later(self: &Arc<Self>) {
        let Some(limit) = self.settings.image_cache_limit else { return };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = async {
                // A trimming that is under way serves this call, too.
                let Ok(_one) = this.evictions.one_at_a_time.try_lock() else { return };
                let mut retry = this.evictions.retries.begin();
                retry.ready().await;
                loop {
                    match this.trim(limit).await {
                        Ok(false) => break,
                        Ok(true) => retry.pause().await,
                        Err(error) => retry.failed(&error).await,
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

    /// Evicts the least recently used images, but never the most recently used image. True when the caller must try
    /// again, because images are in use.
    async fn trim(&self, limit: u64) -> Result<bool, ImageError> {
        let mut cached = Vec::new();
        for function in self.registry.list() {
            for version in function.versions().filter(|version| version.image().present) {
                // Images that are only kept for a rollback go first.
                let is_run = version.id == function.version.id;
                cached.push(((is_run, function.last_used()), Arc::clone(version)));
            }
        }
        let mut total: u64 = cached.iter().map(|(_, version)| version.image().size).sum();
        cached.sort_by_key(|&(order, _)| order);
        cached.pop();
        let mut is_in_the_way = false;
        for (_, version) in cached {
            if total <= limit {
                return Ok(false);
            }
            let rebuild = self.rebuilds.of(version.id);
            let _one = rebuild.lock().await;
            let image = version.image();
            if !image.present {
                continue;
            }
            // A pinned version is about to start an instance.
            if self.pins.hold(version.id) {
                is_in_the_way = true;
                continue;
            }
            match self.builder.remove_image(version.id, || self.pins.hold(version.id)).await {
                Ok(()) => {}
                Err(error) if error.is_in_use() => {
                    is_in_the_way = true;
                    continue;
                }
                Err(error) => return Err(BuildError::Docker(error).into()),
            }
            tracing::info!(image = %version.id, bytes = image.size, "evicted an image");
            version.mark_missing(image.id.as_str(), Absence::Evicted);
            self.store.mark_images_missing(&[version.id]).await?;
            total = total.saturating_sub(image.size);
        }
        Ok(is_in_the_way && total > limit)
    }
}
