//! What builds leave in Docker: the steps of a failed build, and images without a name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::Builder;
use crate::docker::DockerError;
use crate::domain::VersionId;

/// The pauses before the removals of a failed build's leftovers, and of leftovers that a container uses. The Docker
/// daemon ends its current step after the client has gone, so that leftovers may come late.
pub(super) const LATE: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

impl Builder {
    /// Removes the leftovers of builds after each of the delays, in the background.
    pub(super) fn remove_leftovers_later(&self, failed: Option<VersionId>, delays: &'static [Duration]) {
        let builder = self.clone();
        self.tasks.spawn(async move {
            for &delay in delays {
                let later = async {
                    tokio::time::sleep(delay).await;
                    builder.health().wait().await;
                };
                tokio::select! {
                    () = later => {}
                    () = builder.stop.cancelled() => return,
                }
                if !delay.is_zero() {
                    builder.has_leftovers.store(true, Ordering::Release);
                }
                builder.remove_leftovers(failed).await;
            }
        });
    }

    /// Removes the leftovers of builds in Docker. The classic builder keeps the steps of a running build as dangling
    /// images, so this function does nothing while a build runs; the last of several builds removes the leftovers when
    /// that build ends.
    pub(super) async fn remove_leftovers(&self, failed: Option<VersionId>) {
        // Another removal may leave images while this loop holds all turns, and then cannot remove them itself.
        while self.has_leftovers.load(Ordering::Acquire) {
            let Some(paused) = self.turns.all() else { return };
            self.has_leftovers.store(false, Ordering::Release);
            if let Err(error) = self.remove_leftovers_now(failed, &paused).await {
                self.has_leftovers.store(true, Ordering::Release);
                if !error.is_in_use() {
                    tracing::warn!(%error, "failed to remove the leftovers of builds");
                }
                return;
            }
        }
    }

    async fn remove_leftovers_now(
        &self,
        failed: Option<VersionId>,
        paused: &SemaphorePermit<'_>,
    ) -> Result<(), DockerError> {
        if let Some(id) = failed {
            // When a build is cancelled in its last step, the Docker daemon may still give the image its name.
            self.docker.remove_image(&self.image_name(id)).await?;
        }
        self.remove_dangling(paused).await
    }

    /// Removes the dangling images that builds of this platform left: the stages of builds, and the steps before a
    /// failed step.
    pub async fn remove_dangling(&self, _paused: &SemaphorePermit<'_>) -> Result<(), DockerError> {
        self.remove_all(&["dangling=true", &self.ours()]).await
    }

    async fn remove_all(&self, filters: &[&str]) -> Result<(), DockerError> {
        let mut result = Ok(());
        for image in self.docker.images(filters).await? {
            if let Err(error) = self.docker.remove_image(&image.id).await {
                result = Err(error);
            }
        }
        result
    }
}
