//! Brings Docker and what we know into agreement: what nothing owns goes, what is gone is noted. Touches nothing of others.

use std::collections::HashSet;

use thiserror::Error;

use crate::builder::Builder;
use crate::docker::{Docker, DockerError, label};
use crate::platform::Platform;
use crate::registry::Registry;
use crate::store::{Store, StoreError};
use crate::types::FunctionId;

/// Why it could not be done.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// A matter of Docker.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// A matter of the database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes the containers of earlier runs, which can only be crashed ones, and images that no function has; notes which
/// functions have none.
pub async fn run(
    docker: &Docker,
    platform: &Platform,
    registry: &Registry,
    store: &Store,
    builder: &Builder,
) -> Result<(), ReconcileError> {
    // The steps of a build under way look like what an earlier run left.
    let paused = builder.pause().await;
    let ours = format!("{}={}", label::PLATFORM, platform.id());
    let this_run = format!("{}={}", label::RUN, platform.run());
    remove_containers(docker, &[&ours], Some(&this_run)).await?;
    let filter = format!("label={ours}");
    let of_this_run = docker.images(&["dangling=false", &filter, &format!("label={this_run}")]).await?;
    let of_this_run: HashSet<&str> = of_this_run.iter().map(|image| image.id.as_str()).collect();
    let mut there = HashSet::new();
    for image in docker.images(&["dangling=false", &filter]).await? {
        // Under another name it is a person's: labels are inherited.
        let id = image.repository.rsplit('/').next().and_then(|id| id.parse::<FunctionId>().ok());
        let Some(id) = id.filter(|_| image.tag == platform.id().to_string()) else { continue };
        match registry.get(id) {
            Some(function) if function.image().id.as_str() == image.id => drop(there.insert(function.id)),
            // Of a submit that has come meanwhile.
            _ if of_this_run.contains(image.id.as_str()) => {}
            _ => {
                tracing::info!(image.name = image.repository, "removing an image that no function has");
                match docker.remove_image(&format!("{}:{}", image.repository, image.tag)).await {
                    // By a build whose service was killed, which goes on for a while: it goes next time.
                    Err(error) if error.is_in_use() => {}
                    other => other?,
                }
            }
        }
    }
    match builder.remove_dangling(&paused).await {
        Err(error) if error.is_in_use() => {}
        other => other?,
    }
    let mut lost = Vec::new();
    for function in registry.list() {
        let image = function.image();
        let is_known = there.contains(&function.id) || of_this_run.contains(image.id.as_str());
        if is_known != image.is_there {
            if is_known {
                function.find_image(image.id.as_str());
            } else if function.lose_image(image.id.as_str()) {
                lost.push(function.id);
            }
        }
    }
    if !lost.is_empty() {
        tracing::info!(functions = lost.len(), "images are gone; each is built again at the next execution");
        store.lose_images(&lost).await?;
    }
    Ok(())
}

/// Removes the containers of this run: for the end, when none should be there.
pub async fn at_end(docker: &Docker, platform: &Platform) -> Result<(), DockerError> {
    remove_containers(docker, &[&format!("{}={}", label::RUN, platform.run())], None).await
}

async fn remove_containers(docker: &Docker, labels: &[&str], without: Option<&str>) -> Result<(), DockerError> {
    for name in docker.containers(labels, without).await? {
        tracing::warn!(container.name = name, "removing a container that was left");
        match docker.remove_container(&name).await {
            // By a build that ends just now, say.
            Err(error) if error.is_already_in_progress() => {}
            other => drop(other?),
        }
    }
    Ok(())
}
