//! Brings back images that are gone: from the registry, and by a build where no registry has the image. However many
//! callers need an image, one rebuild serves these callers.

use std::collections::HashMap;
use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::{self, Instant};

use super::{Draft, ImageError, Images};
use crate::domain::{FunctionName, VersionId};
use crate::functions::{Absence, Version};
use crate::telemetry;

/// The pause between two looks whether another node has built an image.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The rebuilds by version.
#[derive(Debug, Default)]
pub(super) struct Rebuilds(Mutex<HashMap<VersionId, Arc<Rebuild>>>);

/// The rebuilds of one version's image.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// How many rebuilds have begun.
    begun: AtomicU64,
    /// The error of the last rebuild, if that failed. The task that rebuilds holds the lock, so that the other tasks
    /// wait.
    last_error: tokio::sync::Mutex<LastError>,
}

type LastError = Option<Arc<ImageError>>;

impl Rebuilds {
    /// The rebuilds of a version's image.
    pub(super) fn of(&self, id: VersionId) -> Arc<Rebuild> {
        Arc::clone(self.0.lock().entry(id).or_default())
    }

    /// Whether a rebuild, a removal or an eviction of the image is under way.
    pub(super) fn is_under_way(&self, id: VersionId) -> bool {
        self.0.lock().get(&id).is_some_and(|rebuild| rebuild.last_error.try_lock().is_err())
    }

    /// Forgets the rebuilds of an image that was removed.
    pub(super) fn forget(&self, id: VersionId) {
        self.0.lock().remove(&id);
    }
}

impl Rebuild {
    /// Waits for a rebuild under way. While the guard is held, no task rebuilds, removes or evicts the image.
    pub(super) async fn lock(&self) -> MutexGuard<'_, LastError> {
        self.last_error.lock().await
    }
}

impl Images {
    /// Makes sure that a version has an image. A missing image is pulled, or built from the zip, once for all callers
    /// that wait; these callers share the error, too.
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
        let rebuild = self.rebuilds.of(version.id);
        let begun = rebuild.begun.load(Ordering::Acquire);
        let mut last_error = rebuild.lock().await;
        let Some(absence) = version.absence() else { return Ok(()) };
        match &*last_error {
            // A rebuild that began and failed while this task waited for the lock would only fail again.
            Some(error) if rebuild.begun.load(Ordering::Acquire) != begun => return Err(Arc::clone(error)),
            Some(_) | None => {}
        }
        if !self.is_needed(version.id) {
            return Err(Arc::new(ImageError::Deleted));
        }
        rebuild.begun.fetch_add(1, Ordering::AcqRel);
        let made = self.restore(version, name, absence).await.map_err(Arc::new);
        *last_error = made.as_ref().err().cloned();
        made
    }

    async fn restore(
        self: &Arc<Self>,
        version: &Version,
        name: &FunctionName,
        absence: Absence,
    ) -> Result<(), ImageError> {
        let VersionId { function, number } = version.id;
        let reason = absence.name();
        if self.pull(version).await? {
            tracing::info!(function.id = %function, version = number, reason, "the image was gone, and was pulled");
            return Ok(());
        }
        let lease = format!("image of {}", version.id);
        if !self.take_turn(version, &lease).await? {
            return Ok(());
        }
        tracing::info!(
            function.id = %function,
            version = number,
            reason,
            "the image is gone: building the image again"
        );
        let rebuilt = self.rebuild(version, name).await;
        if let Err(error) = self.store.give_lease(&lease).await {
            tracing::debug!(%error, "the lease of a build ends with this process");
        }
        rebuilt
    }

    /// Waits until no other node builds the image. False when another node has built the image and this node has pulled
    /// the image. Without a registry, each node builds for itself.
    async fn take_turn(self: &Arc<Self>, version: &Version, lease: &str) -> Result<bool, ImageError> {
        if !self.settings.has_registry {
            return Ok(true);
        }
        let deadline = Instant::now() + self.settings.timeout;
        while !self.store.take_lease(lease).await? && Instant::now() < deadline {
            time::sleep(LOOK_AGAIN).await;
            if self.pull(version).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn rebuild(self: &Arc<Self>, version: &Version, name: &FunctionName) -> Result<(), ImageError> {
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
            entry: version.entry.clone(),
            keeps_manifest: version.manifest.is_none(),
            created_at: version.created_at,
            unpacked_size: Some(version.unpacked_size),
        };
        let (_, built) = self.make(&turn, &draft, file.share()?, None, &self.stop).await?;
        drop((turn, place));
        self.take(version, built.image, Some(&built.log)).await
    }
}
