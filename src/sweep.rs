//! Finds and removes what earlier runs of this platform left in Docker, and nothing of anyone else's.

use crate::docker::{Docker, DockerError, label};
use crate::platform::Platform;

/// Removes the containers and images of earlier runs, which can only be crashed ones.
///
/// Functions are forgotten at a stop, so every image of an earlier run is an orphan.
pub async fn earlier_runs(docker: &Docker, platform: &Platform) -> Result<(), DockerError> {
    let ours = format!("{}={}", label::PLATFORM, platform.id());
    let this_run = format!("{}={}", label::RUN, platform.run());
    remove_containers(docker, &[&ours], Some(&this_run)).await?;
    let filter = format!("label={ours}");
    let of_this_run = docker.images(&["dangling=false", &filter, &format!("label={this_run}")]).await?;
    for image in docker.images(&["dangling=false", &filter]).await? {
        if !of_this_run.iter().any(|kept| kept.id == image.id) {
            tracing::info!(image.name = image.repository, "removing an image of an earlier run");
            docker.remove_image(&image.id).await?;
        }
    }
    Ok(())
}

/// Removes the containers of this run: for the end, when none should be there.
pub async fn this_run(docker: &Docker, platform: &Platform) -> Result<(), DockerError> {
    remove_containers(docker, &[&format!("{}={}", label::RUN, platform.run())], None).await
}

async fn remove_containers(docker: &Docker, labels: &[&str], without: Option<&str>) -> Result<(), DockerError> {
    for name in docker.containers(labels, without).await? {
        tracing::warn!(container.name = name, "removing a container that was left");
        docker.remove_container(&name).await?;
    }
    Ok(())
}
