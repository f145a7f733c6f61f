//! Pushes images to the registry of DOCKER_IMAGE_PREFIX, and pulls images that are gone from there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{ImageError, Images};
use crate::build::BuildError;
use crate::docker::{DockerError, ImageRegistryError, retry};
use crate::domain::{FunctionId, FunctionName, Image, ImageDigest, ImageId, VersionId};
use crate::functions::{Absence, Version};
use crate::resources::clock;

/// How many times a pull is tried while the registry does not answer.
const PULL_TRIES: usize = 3;
/// No further try begins after this time, because executions wait for the image.
const PULL_PATIENCE: Duration = Duration::from_secs(10);

impl Images {
    /// Pushes an image that was just built. The result is the digest by which the registry has the image, None without
    /// a registry.
    ///
    /// Nothing remains of a new version whose image can't be pushed, because other nodes could not run the version. The
    /// image of an old version is used all the same: this node has the image, and executions wait.
    pub(super) async fn push(
        &self,
        id: VersionId,
        image: &Image,
        is_new: bool,
        stop: &CancellationToken,
    ) -> Result<Option<ImageDigest>, ImageError> {
        match self.builder.push(id, &image.id, stop).await {
            Ok(digest) => Ok(digest),
            Err(ImageRegistryError::Docker(DockerError::Cancelled)) => Err(BuildError::Cancelled.into()),
            Err(error) if is_new => Err(error.into()),
            Err(error) => {
                tracing::warn!(image = %id, %error, "an image that was built again is not in the registry");
                Ok(None)
            }
        }
    }

    /// Pulls the image of a version that another node has built, ahead of need, so that the first execution here does
    /// not wait for a pull. An image that no registry has is built at the first execution.
    pub fn fetch_later(self: &Arc<Self>, version: &Arc<Version>, name: &FunctionName) {
        if !self.settings.has_registry {
            return;
        }
        version.mark_missing(version.image().id.as_str(), Absence::Elsewhere);
        if version.image().digest.is_none() {
            return;
        }
        let (this, version, name) = (Arc::clone(self), Arc::clone(version), name.clone());
        self.tasks.spawn(async move {
            let fetched = async {
                let _fetching = this.fetching.lock().await;
                if this.is_needed(version.id) { this.ensure(&version, &name).await } else { Ok(()) }
            };
            tokio::select! {
                fetched = fetched => {
                    if let Err(error) = fetched {
                        tracing::debug!(image = %version.id, %error, "an image could not be fetched ahead of need");
                    }
                }
                () = this.stop.cancelled() => {}
            }
        });
    }

    /// Deletes the images of a deleted function in the registry, in the background.
    pub fn delete_shared_later(self: &Arc<Self>, function: FunctionId) {
        if !self.settings.has_registry {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let deleted = async {
                let _deleting = this.deleting.lock().await;
                this.builder.delete_shared(function).await
            };
            let deleted = tokio::select! {
                deleted = deleted => deleted,
                () = this.stop.cancelled() => return,
            };
            match deleted {
                Ok(images) => tracing::debug!(function.id = %function, images, "images deleted in the registry"),
                Err(error) => tracing::warn!(function.id = %function, %error, "a deleted function's images stay"),
            }
        });
    }

    /// Pulls the image of a version. False when no registry has the image. An error says nothing about what the
    /// registry has, so that nothing is built for a registry that is away.
    pub(super) async fn pull(self: &Arc<Self>, version: &Version) -> Result<bool, ImageError> {
        if !self.settings.has_registry {
            return Ok(false);
        }
        // Another node may have built and pushed the image again.
        let Some(digest) = self.store.image_digest(version.id).await? else { return Ok(false) };
        self.room.check().await?;
        let id = match self.pull_by(version.id, &digest).await {
            Ok(id) => id,
            Err(ImageRegistryError::Lost(reason)) => {
                tracing::warn!(image = %version.id, reason, "the registry has lost an image");
                return Ok(false);
            }
            Err(ImageRegistryError::Docker(DockerError::Cancelled)) => return Err(BuildError::Cancelled.into()),
            Err(error) => return Err(error.into()),
        };
        let image = Image { id, size: version.image().size, present: true, digest: Some(digest) };
        self.take(version, image, None).await?;
        Ok(true)
    }

    async fn pull_by(&self, id: VersionId, digest: &ImageDigest) -> Result<ImageId, ImageRegistryError> {
        let began = Instant::now();
        let mut pauses = retry::pauses().take(PULL_TRIES - 1);
        loop {
            let limit = self.settings.timeout.saturating_sub(began.elapsed());
            let pulled = self.builder.pull(id, digest, limit, &self.stop).await;
            let Err(ImageRegistryError::Unavailable(_)) = &pulled else { return pulled };
            let Some(pause) = pauses.next().filter(|_| began.elapsed() < PULL_PATIENCE) else { return pulled };
            tokio::select! {
                () = time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(DockerError::Cancelled.into()),
            }
        }
    }

    /// Notes an image that is there again, on disk and then in memory.
    pub(super) async fn take(
        self: &Arc<Self>,
        version: &Version,
        image: Image,
        build_log: Option<&str>,
    ) -> Result<(), ImageError> {
        if !self.store.set_image(version.id, &image, build_log).await? || !self.is_needed(version.id) {
            self.remove_later(version.id);
            return Err(ImageError::Deleted);
        }
        version.set_image(image, clock::unix_millis());
        self.trim_later();
        Ok(())
    }
}
