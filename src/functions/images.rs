//! Versions' images: a cache of what can be built from their zips at any time.

mod making;

use std::collections::{HashMap, HashSet};
use std::io::{self, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::package::PackageError;
use crate::build::{BuildError, Builder};
use crate::docker::retry::Retries;
use crate::docker::{DockerError, Failure};
use crate::domain::{FunctionName, VersionId};
use crate::functions::{Registry, Version};
use crate::resources::clock;
use crate::resources::disk::{DiskSpace, LowDisk};
use crate::resources::scratch::Scratch;
use crate::store::{Store, StoreError};
use crate::{config, telemetry};

pub use making::Draft;

/// Makes, makes again, and removes images.
#[derive(Debug)]
pub struct Images {
    builder: Builder,
    registry: Arc<Registry>,
    store: Store,
    scratch: Scratch,
    room: Arc<DiskSpace>,
    settings: config::Builds,
    rebuilds: Mutex<HashMap<VersionId, Arc<Rebuild>>>,
    /// Versions that are being made ready for use, and by how many.
    held: Mutex<HashMap<VersionId, usize>>,
    /// Versions that need no image any more, whose images are not gone yet.
    leaving: Mutex<HashSet<VersionId>>,
    removals: Retries,
    /// Held while an image is removed: one at a time, however many there are.
    removing: tokio::sync::Mutex<()>,
    trimming: tokio::sync::Mutex<()>,
    evictions: Retries,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A version that is being made ready for use: its image stays. Dropped, the image goes, unless the version is of use by then.
#[must_use]
#[derive(Debug)]
pub struct ImagePin {
    images: Arc<Images>,
    id: VersionId,
}

impl Drop for ImagePin {
    fn drop(&mut self) {
        let mut held = self.images.held();
        if let Some(holders) = held.get_mut(&self.id) {
            *holders -= 1;
            if *holders == 0 {
                held.remove(&self.id);
            }
        }
        drop(held);
        if !self.images.is_needed(self.id) {
            self.images.remove_later(self.id);
        }
    }
}

/// The making again of one version's image.
#[derive(Debug, Default)]
struct Rebuild {
    /// How often it has begun.
    begun: AtomicU64,
    /// Why it last failed. Locked by who builds, so that the others wait for that.
    last_error: tokio::sync::Mutex<Option<Arc<ImageError>>>,
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The zip is no good.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The zip could not be read, or the image not be noted.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version is gone, with its function or because it was too old.
    #[error("the function or its version was deleted")]
    Deleted,
    /// There is too little room to make it.
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    /// A matter of this machine's disk.
    #[error("failed to make room for the package")]
    Io(#[from] io::Error),
    /// The task died.
    #[error("the build died")]
    Died(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// Whether packages could not be downloaded because an index, or the way there, is down.
    pub fn is_for_want_of_connection(&self) -> bool {
        const SIGNS: [&str; 9] = [
            "connection refused",
            "connection reset",
            "network is unreachable",
            "name resolution",
            "name or service not known",
            "no such host",
            "timed out",
            "i/o timeout",
            "503 service unavailable",
        ];
        let Self::Build(BuildError::Failed { log }) = self else { return false };
        let said = log.to_ascii_lowercase();
        SIGNS.iter().any(|sign| said.contains(sign))
    }
}

impl Images {
    /// When `stop` is cancelled, builds under way end.
    pub fn new(
        builder: Builder,
        registry: Arc<Registry>,
        store: Store,
        (scratch, room): (Scratch, Arc<DiskSpace>),
        settings: config::Builds,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let health = builder.health().clone();
        Arc::new(Self {
            builder,
            registry,
            store,
            scratch,
            room,
            settings,
            rebuilds: Default::default(),
            held: Default::default(),
            leaving: Default::default(),
            removals: Retries::new("an image could not be removed", health.clone()),
            removing: tokio::sync::Mutex::default(),
            trimming: tokio::sync::Mutex::default(),
            evictions: Retries::new("images could not be evicted", health),
            tasks,
            stop,
        })
    }

    /// Keeps a version's image while it is being made ready for use.
    pub fn pin(self: &Arc<Self>, id: VersionId) -> ImagePin {
        *self.held().entry(id).or_default() += 1;
        ImagePin { images: Arc::clone(self), id }
    }

    /// Whether a function runs it, or goes back to it, or is about to.
    fn is_needed(&self, id: VersionId) -> bool {
        // In this order: it is in the registry before it is let go.
        self.is_held(id)
            || self
                .registry
                .get(id.function)
                .is_some_and(|function| function.versions().any(|version| version.id == id))
    }

    fn is_held(&self, id: VersionId) -> bool {
        self.held().contains_key(&id)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<VersionId, usize>> {
        self.held.lock()
    }

    /// Sees to it that a version has an image: when it is gone it is built from the zip, once for all who wait. They share
    /// the error, too.
    pub async fn ensure(self: &Arc<Self>, version: &Arc<Version>, name: &FunctionName) -> Result<(), Arc<ImageError>> {
        if version.image().present {
            return Ok(());
        }
        // A task of its own: who waits may leave, and what it has begun is of use to the others.
        let (this, version, name) = (Arc::clone(self), Arc::clone(version), name.clone());
        let task = async move { this.rebuild_once(&version, &name).await };
        let task = self.tasks.spawn(telemetry::carried(task));
        task.await.map_err(|error| Arc::new(error.into()))?
    }

    async fn rebuild_once(self: &Arc<Self>, version: &Version, name: &FunctionName) -> Result<(), Arc<ImageError>> {
        let rebuild = self.rebuild_of(version.id);
        let begun = rebuild.begun.load(Ordering::Acquire);
        let mut last_error = rebuild.last_error.lock().await;
        if version.image().present {
            return Ok(());
        }
        match &*last_error {
            // One that has ended while this waited in line would have no other end now.
            Some(error) if rebuild.begun.load(Ordering::Acquire) != begun => return Err(Arc::clone(error)),
            Some(_) | None => {}
        }
        if !self.is_needed(version.id) {
            return Err(Arc::new(ImageError::Deleted));
        }
        rebuild.begun.fetch_add(1, Ordering::AcqRel);
        let made = self.rebuild(version, name).await.map_err(Arc::new);
        *last_error = made.as_ref().err().cloned();
        made
    }

    fn rebuild_of(&self, id: VersionId) -> Arc<Rebuild> {
        Arc::clone(self.rebuilds().entry(id).or_default())
    }

    fn rebuilds(&self) -> MutexGuard<'_, HashMap<VersionId, Arc<Rebuild>>> {
        self.rebuilds.lock()
    }

    async fn rebuild(self: &Arc<Self>, version: &Version, name: &FunctionName) -> Result<(), ImageError> {
        tracing::info!(function.id = %version.id.function, version = version.id.number, "the image is gone: building it again");
        // Held as long as the turn: a build that goes on takes a place.
        let place = self.enter()?;
        let turn = self.turn(&place, &self.stop).await?;
        let zip = self.store.zip(version.id).await?.ok_or(ImageError::Deleted)?;
        let mut file = self.scratch.file().await?;
        file.with(move |file| file.write_all(&zip).and_then(|()| file.rewind())).await??;
        let draft = Draft {
            id: version.id,
            name: name.clone(),
            language: Some(version.language),
            created_at: version.created_at,
            unpacked_size: Some(version.unpacked_size),
        };
        let (_, built) = self.make(&turn, &draft, file.share()?, None, &self.stop).await?;
        drop((turn, place));
        if !self.store.set_image(version.id, &built.image, &built.log).await? || !self.is_needed(version.id) {
            self.remove_later(version.id);
            return Err(ImageError::Deleted);
        }
        version.set_image(built.image, clock::unix_millis());
        self.trim_later();
        Ok(())
    }

    /// Removes a version's image in the background, once nothing uses it any more; unless it is of use again before that.
    pub fn remove_later(self: &Arc<Self>, id: VersionId) {
        self.leaving().insert(id);
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = async {
                let mut retry = this.removals.begin();
                retry.ready().await;
                loop {
                    match this.remove(id).await {
                        Ok(()) => break,
                        // Executions still use it.
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

    /// When this succeeds, there is nothing left to do.
    async fn remove(&self, id: VersionId) -> Result<(), DockerError> {
        let rebuild = self.rebuild_of(id);
        // What is being made again must not be taken for what was to go.
        let _one = rebuild.last_error.lock().await;
        let _removing = self.removing.lock().await;
        if self.is_needed(id) {
            self.leaving().remove(&id);
            return Ok(());
        }
        self.builder.remove_image(id, || self.is_needed(id)).await?;
        // Of a version that is kept without an image.
        if let Err(error) = self.store.mark_images_missing(&[id]).await {
            tracing::warn!(image = %id, %error, "failed to note that an image is gone");
        }
        self.leaving().remove(&id);
        self.rebuilds().remove(&id);
        Ok(())
    }

    /// For the end, when no container is left: removes the images that were still in use. What is left even then is removed
    /// at the next start: no function has it.
    pub async fn finish_removals(&self) {
        let leaving = std::mem::take(&mut *self.leaving());
        for id in leaving.into_iter().filter(|&id| !self.is_needed(id)) {
            if let Err(error) = self.builder.remove_image(id, || self.is_needed(id)).await {
                tracing::warn!(image = %id, %error, "failed to remove an image, leaving it to the next start");
            }
        }
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<VersionId>> {
        self.leaving.lock()
    }

    /// Keeps the cache within IMAGE_CACHE_LIMIT, in the background.
    pub fn trim_later(self: &Arc<Self>) {
        let Some(limit) = self.settings.image_cache_limit else { return };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = async {
                // One does it for all.
                let Ok(_one) = this.trimming.try_lock() else { return };
                let mut retry = this.evictions.begin();
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

    /// Evicts the longest unused images, but never the last used one. True when it must try again: some are in use.
    async fn trim(&self, limit: u64) -> Result<bool, ImageError> {
        let mut cached = Vec::new();
        for function in self.registry.list() {
            for version in function.versions().filter(|version| version.image().present) {
                // What is only kept for a rollback goes first.
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
            let rebuild = self.rebuild_of(version.id);
            let _one = rebuild.last_error.lock().await;
            let image = version.image();
            if !image.present {
                continue;
            }
            // A version that is made ready for use is about to start an instance.
            if self.is_held(version.id) {
                is_in_the_way = true;
                continue;
            }
            match self.builder.remove_image(version.id, || self.is_held(version.id)).await {
                Ok(()) => {}
                Err(error) if error.is_in_use() => {
                    is_in_the_way = true;
                    continue;
                }
                Err(error) => return Err(BuildError::Docker(error).into()),
            }
            tracing::info!(image = %version.id, bytes = image.size, "evicted an image");
            version.mark_missing(image.id.as_str());
            self.store.mark_images_missing(&[version.id]).await?;
            total = total.saturating_sub(image.size);
        }
        Ok(is_in_the_way && total > limit)
    }
}
