//! Pushes the images of versions to the registry of DOCKER_IMAGE_PREFIX, and pulls images from there.
//!
//! Nodes may share a registry, and even an engine. An image has one name on each node: the function's repository, and a
//! tag that begins with the id of the node's platform. So a push moves no tag of another node, and the tag keeps the
//! image from the registry's garbage collection. No node pulls by a tag, because the same node moves the tag when it
//! builds the version again.
//!
//! A pulled image bears the labels of the platform that has built the image. Therefore a version's image is recognised
//! by its name alone: by name this platform finds and removes its images, and by name no other platform does. Docker
//! removes only the name while the image has a name of another node.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Builder;
use crate::config;
use crate::docker::{ImageRegistryError, RepositoryError};
use crate::domain::{FunctionId, ImageDigest, ImageId, VersionId};

impl Builder {
    /// Pushes a version's image, and returns the digest by which the registry has the image. None where
    /// DOCKER_IMAGE_PREFIX names no registry. A push has as much time as a build.
    pub async fn push(
        &self,
        id: VersionId,
        image: &ImageId,
        stop: &CancellationToken,
    ) -> Result<Option<ImageDigest>, ImageRegistryError> {
        if !self.config.has_registry {
            return Ok(None);
        }
        self.docker.push(&self.image_name(id), image, self.config.timeout, stop).await.map(Some)
    }

    /// Deletes a function's images in the registry, and returns their number.
    pub async fn delete_shared(&self, function: FunctionId) -> Result<usize, RepositoryError> {
        if !self.config.has_registry {
            return Ok(0);
        }
        let repository = format!("{}/{function}", self.config.image_prefix);
        self.docker.delete_repository(&repository, config::docker_logins()).await
    }

    /// Pulls a version's image by its digest, gives the image the version's name, and returns the image's id.
    pub async fn pull(
        &self,
        id: VersionId,
        digest: &ImageDigest,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<ImageId, ImageRegistryError> {
        self.docker.pull(&self.image_name(id), digest, limit, stop).await
    }

    /// The filters of `docker images` that find this platform's images: by label those that this platform has built,
    /// and by name those that this platform has pulled.
    pub fn image_filters(&self) -> Vec<String> {
        let mut filters = vec![self.ours()];
        if self.config.has_registry {
            filters.push(format!("reference={}/*:{}*", self.config.image_prefix, self.platform.id()));
        }
        filters
    }
}
