//! Shares the runtime image of Python between the nodes of a registry: one node builds and pushes the image, and the
//! others pull the image by its digest. A function's image then has all but its last layers in common with the runtime
//! image of each node, so that a node pulls only these.
//!
//! Without that each node would build a runtime image of its own, whose layers have the same files with other times.
//!
//! Sharing makes pulls short and nothing else: whatever fails, a node builds the image for itself.

use std::time::Duration;

use thiserror::Error;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{BUILD_LIMIT, RuntimeError, Runtimes};
use crate::docker::{DockerError, ImageRegistryError};
use crate::domain::{ImageDigest, Language};
use crate::store::StoreError;

/// The pause between two looks whether another node has pushed the image.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The longest wait for another node's image. Then the node builds its own, so that no node holds up builds for long.
const TURN_LIMIT: Duration = Duration::from_secs(120);

/// Why a node can't have the other nodes' image, or the others can't have this node's.
#[derive(Debug, Error)]
enum ShareError {
    #[error(transparent)]
    Registry(#[from] ImageRegistryError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another node has not pushed the image within {TURN_LIMIT:?}")]
    Late,
}

/// Who makes the image.
enum Turn {
    /// The image is here, from another node.
    Done,
    /// This node makes the image for all, under a lease.
    Ours,
}

impl Runtimes {
    /// Whether the nodes share the runtime image of a language. A Go function's image starts from `scratch`, and shares
    /// nothing with the runtime image.
    pub(super) fn is_shared(&self, language: Language) -> bool {
        self.config.has_registry && self.store.is_shared() && language == Language::Python
    }

    /// Takes the runtime image of the other nodes, or makes the image for all. Fails only where this node can't build
    /// the image either.
    pub(super) async fn share(
        &self,
        language: Language,
        tag: &str,
        stop: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        let lease = format!("runtime image {tag}");
        let turn = self.take_turn(tag, &lease, stop).await;
        let (built, shared) = match turn {
            Ok(Turn::Done) => (Ok(()), Ok(())),
            Ok(Turn::Ours) => match self.build(language, tag, stop).await {
                Ok(()) => (Ok(()), self.publish(tag, stop).await),
                Err(error) => (Err(error), Ok(())),
            },
            Err(error) => (self.build(language, tag, stop).await, Err(error)),
        };
        if let Err(error) = self.store.give_lease(&lease).await {
            tracing::debug!(%error, "the lease of a runtime image ends with this process");
        }
        if let Err(error) = shared {
            tracing::warn!(
                image = tag,
                error = format!("{:#}", anyhow::Error::from(error)),
                "the nodes do not share this node's runtime image, so pulls of functions' images take longer"
            );
        }
        built
    }

    /// Waits until the image is here, or until the image is this node's to make.
    async fn take_turn(&self, tag: &str, lease: &str, stop: &CancellationToken) -> Result<Turn, ShareError> {
        let deadline = Instant::now() + TURN_LIMIT;
        while Instant::now() < deadline {
            // The lease comes first: a node has written the digest down before the node gives its lease back.
            let is_ours = self.store.take_lease(lease).await?;
            match self.store.runtime_image(tag).await? {
                Some(digest) => match self.take(tag, &digest, stop).await {
                    Ok(()) => return Ok(Turn::Done),
                    // The node with the lease pushes the image again.
                    Err(ImageRegistryError::Lost(_)) if !is_ours => {}
                    Err(ImageRegistryError::Lost(reason)) => {
                        tracing::warn!(image = tag, reason, "the registry has lost a runtime image");
                        return Ok(Turn::Ours);
                    }
                    Err(error) => return Err(error.into()),
                },
                None if is_ours => return Ok(Turn::Ours),
                None => {}
            }
            tokio::select! {
                () = time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return Err(DockerError::Cancelled.into()),
            }
        }
        Err(ShareError::Late)
    }

    /// Pulls the image. An image of this name that the node has built goes, unless other images are built upon it.
    async fn take(&self, tag: &str, digest: &ImageDigest, stop: &CancellationToken) -> Result<(), ImageRegistryError> {
        let before = self.docker.image(tag).await?;
        let id = self.docker.pull(tag, digest, BUILD_LIMIT, stop).await?;
        if let Some(before) = before.filter(|before| before.id != id)
            && let Err(error) = self.docker.remove_image(before.id.as_str()).await
        {
            tracing::debug!(image = before.id.as_str(), %error, "an own runtime image stays beside that of the nodes");
        }
        Ok(())
    }

    /// Pushes the image, and then tells the other nodes.
    async fn publish(&self, tag: &str, stop: &CancellationToken) -> Result<(), ShareError> {
        let missing = || ImageRegistryError::Lost(format!("{tag} is gone from Docker"));
        let image = self.docker.image(tag).await?.ok_or_else(missing)?;
        let digest = self.docker.push(tag, &image.id, BUILD_LIMIT, stop).await?;
        Ok(self.store.set_runtime_image(tag, &digest).await?)
    }
}
