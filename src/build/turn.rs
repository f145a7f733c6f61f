//! The turns of builds: a few builds run at a time, some more wait, and further builds are refused.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{BuildError, Builder, leftovers};
use crate::config::Builds;
use crate::domain::VersionId;

/// Counts the builds that run and the builds that wait.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// One permit for each build that may run at one time.
    building: Arc<Semaphore>,
    /// One permit for each build that may run or wait.
    places: Arc<Semaphore>,
    most: u32,
    queue_limit: u32,
    patience: Duration,
}

/// A place among the builds that run or wait. A waiting build may keep its upload; nothing may be unpacked or built
/// before its turn.
#[must_use]
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
    until: Instant,
    patience: Duration,
}

impl Place {
    /// Waits for `what` until the time for getting a turn is over: DOCKER_BUILD_TIMEOUT after the place was given.
    /// Fails with [`BuildError::QueueTimeout`] after that, and with [`BuildError::Cancelled`] when `stop` is cancelled.
    pub async fn wait<T>(&self, what: impl Future<Output = T>, stop: &CancellationToken) -> Result<T, BuildError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(BuildError::Cancelled),
            done = time::timeout_at(self.until, what) => {
                done.map_err(|_| BuildError::QueueTimeout { limit: self.patience })
            }
        }
    }
}

/// The right to unpack a zip and to build. Dropping the turn lets the next build begin, and removes the leftovers of
/// builds.
#[must_use]
#[derive(Debug)]
pub struct Turn {
    builder: Builder,
    permit: Option<OwnedSemaphorePermit>,
    /// Set when the build failed: to the version, if the version has no other image.
    pub(super) failed: OnceLock<Option<VersionId>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let failed = self.failed.take();
        let delays = if failed.is_some() { &leftovers::LATE[..] } else { &leftovers::LATE[..1] };
        self.builder.remove_leftovers_later(failed.flatten(), delays);
    }
}

impl Turns {
    pub(super) fn new(config: &Builds) -> Self {
        let (most, queue_limit) = (config.max_concurrent, config.queue_limit);
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            building: semaphore(most),
            places: semaphore(most.saturating_add(queue_limit)),
            most,
            queue_limit,
            patience: config.timeout,
        }
    }

    /// Takes all turns at once. None while any build has a turn.
    pub(super) fn all(&self) -> Option<SemaphorePermit<'_>> {
        self.building.try_acquire_many(self.most).ok()
    }
}

impl Builder {
    /// Takes a place among the builds. Fails with [`BuildError::QueueFull`] when there is none.
    pub fn enter(&self) -> Result<Place, BuildError> {
        let Turns { places, queue_limit, patience, .. } = &self.turns;
        let place =
            Arc::clone(places).try_acquire_owned().map_err(|_| BuildError::QueueFull { limit: *queue_limit })?;
        Ok(Place { _place: place, until: Instant::now() + *patience, patience: *patience })
    }

    /// Waits for the turn of the build that has this place. Fails as [`Place::wait`] does.
    pub async fn turn(&self, place: &Place, stop: &CancellationToken) -> Result<Turn, BuildError> {
        let permit = place.wait(Arc::clone(&self.turns.building).acquire_owned(), stop).await?;
        let permit = Some(permit.expect("the semaphore is never closed"));
        Ok(Turn { builder: self.clone(), permit, failed: OnceLock::new() })
    }
}
