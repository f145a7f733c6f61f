//! Brings Docker and the registry into agreement: containers and images without an owner are removed, and images that
//! are gone are noted. Containers and images of other platforms are never touched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;

use crate::build::Builder;
use crate::docker::platform::Platform;
use crate::docker::{Docker, DockerError, label};
use crate::domain::{Image, VersionId};
use crate::functions::images::Images;
use crate::functions::{Absence, Registry, Version};
use crate::store::{Store, StoreError};

/// The reason for a failed reconciliation.
#[derive(Debug, Error)]
pub(super) enum ReconcileError {
    /// Docker failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes the containers of earlier runs, which have crashed, and images without a function. Notes the functions whose
/// images are gone. Removes the files on disk of versions that are gone.
pub(super) async fn run(
    docker: &Docker,
    platform: &Platform,
    registry: &Registry,
    store: &Store,
    builder: &Builder,
    images: &Images,
) -> Result<(), ReconcileError> {
    let ours = format!("{}={}", label::PLATFORM, platform.id());
    let this_run = format!("{}={}", label::RUN, platform.run());
    // The steps of a build under way look like leftovers of an earlier run. Where builds go on without a pause,
    // leftovers stay for now.
    if let Some(_paused) = builder.pause().await {
        remove_containers(docker, &[&ours], Some(&this_run)).await?;
        // While no build goes on, this run has no containers of builds, but for those of an engine that was killed.
        let ended = docker.ended_containers(&[&ours, &this_run]).await?;
        let is_left = |name: &String| builder.may_have_made(name) && !images.is_reading(name);
        remove(docker, ended.into_iter().filter(is_left)).await?;
    }
    // In this order: of a submit that comes meanwhile, what is in a later list only is of this run.
    // So do the versions' images as they are before the lists: a list says nothing about an image that is made again
    // after the list.
    let versions: HashMap<VersionId, (Arc<Version>, Image, u64)> = registry
        .list()
        .iter()
        .flat_map(|function| function.versions())
        .map(|version| (version.id, (Arc::clone(version), version.image(), version.rebuilt_at())))
        .collect();
    let mut all = Vec::new();
    for filter in builder.image_filters() {
        all.extend(docker.images(&["dangling=false", &filter]).await?);
    }
    let (ours, this_run) = (format!("label={ours}"), format!("label={this_run}"));
    let of_this_run = docker.images(&["dangling=false", &ours, &this_run]).await?;
    let of_this_run: HashSet<&str> = of_this_run.iter().map(|image| image.id.as_str()).collect();
    let mut there = HashSet::new();
    for image in all {
        // An image with another name is an operator's own, as labels are inherited.
        let Some(id) = builder.version_of(&image.repository, &image.tag) else { continue };
        match versions.get(&id) {
            Some((_, known, _)) if known.id.as_str() == image.id => drop(there.insert(id)),
            // The image of a submit that came meanwhile.
            _ if of_this_run.contains(image.id.as_str()) => {}
            // An image that was just pulled bears the label of another run or platform.
            _ if images.is_in_the_making(id) => {}
            _ => {
                tracing::info!(image.name = image.repository, "removing an image that no function needs");
                match docker.remove_image_only(&format!("{}:{}", image.repository, image.tag)).await {
                    // A build of a killed service goes on for a while and uses the image: the next look removes the
                    // image.
                    Err(error) if error.is_in_use() => {}
                    other => other?,
                }
            }
        }
    }
    if let Some(paused) = builder.pause().await {
        match builder.remove_dangling(&paused).await {
            Err(error) if error.is_in_use() => {}
            other => other?,
        }
    }
    builder.remove_unused_packages().await?;
    let mut lost = Vec::new();
    for (version, image, rebuilt_at) in versions.values() {
        if version.rebuilt_at() != *rebuilt_at {
            continue;
        }
        let is_known = there.contains(&version.id) || of_this_run.contains(image.id.as_str());
        if is_known != image.present {
            if is_known {
                version.mark_present(image.id.as_str());
            } else if version.mark_missing(image.id.as_str(), Absence::Lost) {
                lost.push(version.id);
            }
        }
    }
    if !lost.is_empty() {
        tracing::info!(images = lost.len(), "images are gone; each is made again at the next execution");
        store.mark_images_missing(&lost).await?;
    }
    images.remove_unneeded_trees();
    Ok(())
}

/// Removes the containers of this run, at the end, when no container should be left.
pub(super) async fn at_end(docker: &Docker, platform: &Platform) -> Result<(), DockerError> {
    remove_containers(docker, &[&format!("{}={}", label::RUN, platform.run())], None).await
}

async fn remove_containers(docker: &Docker, labels: &[&str], without: Option<&str>) -> Result<(), DockerError> {
    remove(docker, docker.containers(labels, without).await?).await
}

async fn remove(docker: &Docker, names: impl IntoIterator<Item = String>) -> Result<(), DockerError> {
    for name in names {
        tracing::warn!(container.name = name, "removing a container that was left");
        match docker.remove_container(&name).await {
            // A build that ends just now may use the container.
            Err(error) if error.is_already_in_progress() => {}
            other => drop(other?),
        }
    }
    Ok(())
}
