//! The images of versions: a cache, because an image can be built from the version's zip at any time.

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

/// Builds, rebuilds and removes the images of versions.
#[derive(Debug)]
pub struct Images {
    builder: Builder,
    registry: Arc<Registry>,
    store: Store,
    scratch: Scratch,
    room: Arc<DiskSpace>,
    settings: config::Builds,
    rebuilds: Mutex<HashMap<VersionId, Arc<Rebuild>>>,
    /// The versions that are being made ready for use, each with the number of its pins.
    held: Mutex<HashMap<VersionId, usize>>,
    /// The versions whose images are no longer needed and not yet removed.
    leaving: Mutex<HashSet<VersionId>>,
    removals: Retries,
    /// Held while an image is removed, so that images are removed one at a time.
    removing: tokio::sync::Mutex<()>,
    trimming: tokio::sync::Mutex<()>,
    evictions: Retries,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Keeps the image of a version that is being made ready for use. When the pin is dropped, the image is removed, unless
/// the version is needed by then.
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

/// The rebuilds of one version's image.
#[derive(Debug, Default)]
struct Rebuild {
    /// How many rebuilds have begun.
    begun: AtomicU64,
    /// The error of the last rebuild, if that failed. The task that rebuilds holds the lock, so that the other tasks
    /// wait.
    last_error: tokio::sync::Mutex<Option<Arc<ImageError>>>,
}

/// Why an image was not made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The zip is refused.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The store failed: the zip could not be read, or the image could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version was deleted, with the function or because the version was too old.
    #[error("the function or its version was deleted")]
    Deleted,
    /// A disk has too little room for the build.
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    /// A temporary file or folder could not be made or written.
    #[error("failed to make room for the package")]
    Io(#[from] io::Error),
    /// The build's task panicked or was aborted.
    #[error("the build died")]
    Died(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// Whether packages could not be downloaded because an index is down or out of reach.
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
    /// Makes the cache. When `stop` is cancelled, rebuilds and removals under way end.
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

    /// Keeps a version's image until the pin is dropped.
    pub fn pin(self: &Arc<Self>, id: VersionId) -> ImagePin {
        *self.held().entry(id).or_default() += 1;
        ImagePin { images: Arc::clone(self), id }
    }

    /// Whether the version is a function's current or previous version, or a pin holds the version.
    fn is_needed(&self, id: VersionId) -> bool {
        // The order matters: a version enters the registry before its pin is dropped.
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

    /// Makes sure that a version has an image. A missing image is built from the zip, once for all callers that wait;
    /// these callers share the error, too.
    pub async fn ensure(self: &Arc<Self>, version: &Arc<Version>, name: &FunctionName) -> Result<(), Arc<ImageError>> {
        if version.image().present {
            return Ok(());
        }
        // The rebuild is a task of its own: a caller may leave, and the other callers still need the rebuild.
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
            // A rebuild that began and failed while this task waited for the lock would only fail again.
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
        tracing::info!(
            function.id = %version.id.function,
            version = version.id.number,
            "the image is gone: building the image again"
        );
        // The place is held as long as the turn: a running build takes a place, too.
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

    /// Removes a version's image in the background, once no container uses the image, unless the version is needed
    /// again before that.
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
        let rebuild = self.rebuild_of(id);
        // This is the lock of rebuilds: an image that is being rebuilt must not be removed in place of the old image.
        let _one = rebuild.last_error.lock().await;
        let _removing = self.removing.lock().await;
        if self.is_needed(id) {
            self.leaving().remove(&id);
            return Ok(());
        }
        self.builder.remove_image(id, || self.is_needed(id)).await?;
        // The store may keep the version without an image.
        if let Err(error) = self.store.mark_images_missing(&[id]).await {
            tracing::warn!(image = %id, %error, "failed to note that an image is gone");
        }
        self.leaving().remove(&id);
        self.rebuilds().remove(&id);
        Ok(())
    }

    /// Removes the images that were still in use, for the end of the service, when no container is left. The next start
    /// removes an image that stays even then, because no function has the image.
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

    /// Trims the cache to IMAGE_CACHE_LIMIT, in the background.
    pub fn trim_later(self: &Arc<Self>) {
        let Some(limit) = self.settings.image_cache_limit else { return };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = async {
                // A trimming that is under way serves this call, too.
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
            let rebuild = self.rebuild_of(version.id);
            let _one = rebuild.last_error.lock().await;
            let image = version.image();
            if !image.present {
                continue;
            }
            // A pinned version is about to start an instance.
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
