//! Whose turn to build it is: a few build at a time, some more wait, and who comes beyond that is turned away.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{BuildError, Builder, LATE_LEFTOVERS};
use crate::config::Builds;
use crate::domain::VersionId;

/// Those that build and those that wait.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// One permit for each that may build.
    building: Arc<Semaphore>,
    /// One permit for each that may build or wait.
    places: Arc<Semaphore>,
    most: u32,
    queue_limit: u32,
    patience: Duration,
}

/// A place among the builds. What a build needs may be held on to meanwhile; what it makes may not be made yet.
#[must_use]
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
    until: Instant,
    patience: Duration,
}

impl Place {
    /// Waits for something as long as a build may wait for its turn, and until `stop` is cancelled.
    pub async fn wait<T>(&self, what: impl Future<Output = T>, stop: &CancellationToken) -> Result<T, BuildError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(BuildError::Cancelled),
            done = time::timeout_at(self.until, what) => done.map_err(|_| BuildError::QueueTimeout { limit: self.patience }),
        }
    }
}

/// The right to unpack and build. Dropped, it is the next one's turn, and what builds have left is removed.
#[must_use]
#[derive(Debug)]
pub struct Turn {
    builder: Builder,
    permit: Option<OwnedSemaphorePermit>,
    /// Set when the build failed: to the version, where that has no other image.
    pub(super) failed: OnceLock<Option<VersionId>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let failed = self.failed.take();
        let delays = if failed.is_some() { &LATE_LEFTOVERS[..] } else { &LATE_LEFTOVERS[..1] };
        let builder = self.builder.clone();
        self.builder.tasks.spawn(async move {
            for &delay in delays {
                let later = async {
                    time::sleep(delay).await;
                    builder.health().wait().await;
                };
                tokio::select! {
                    () = later => {}
                    () = builder.stop.cancelled() => return,
                }
                if !delay.is_zero() {
                    builder.has_leftovers.store(true, Ordering::Release);
                }
                builder.remove_leftovers(failed.flatten()).await;
            }
        });
    }
}

impl Turns {
    pub(super) fn new(settings: &Builds) -> Self {
        let (most, queue_limit) = (settings.max_concurrent, settings.queue_limit);
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            building: semaphore(most),
            places: semaphore(most.saturating_add(queue_limit)),
            most,
            queue_limit,
            patience: settings.timeout,
        }
    }

    /// All turns at once, where nobody has one.
    pub(super) fn all(&self) -> Option<SemaphorePermit<'_>> {
        self.building.try_acquire_many(self.most).ok()
    }
}

impl Builder {
    /// A place among the builds, where there is one.
    pub fn enter(&self) -> Result<Place, BuildError> {
        let Turns { places, queue_limit, patience, .. } = &self.turns;
        let place =
            Arc::clone(places).try_acquire_owned().map_err(|_| BuildError::QueueFull { limit: *queue_limit })?;
        Ok(Place { _place: place, until: Instant::now() + *patience, patience: *patience })
    }

    /// Waits for the turn of who has this place.
    pub async fn turn(&self, place: &Place, stop: &CancellationToken) -> Result<Turn, BuildError> {
        let permit = place.wait(Arc::clone(&self.turns.building).acquire_owned(), stop).await?;
        let permit = Some(permit.expect("the semaphore is never closed"));
        Ok(Turn { builder: self.clone(), permit, failed: OnceLock::new() })
    }
}
