//! The images of versions: a cache, because an image can be pulled from the registry or built from the version's zip at
//! any time.

mod error;
mod eviction;
mod making;
mod pin;
mod rebuild;
mod removal;
mod sharing;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::Builder;
use crate::config;
use crate::domain::VersionId;
use crate::functions::Registry;
use crate::functions::trees::Trees;
use crate::resources::disk::DiskSpace;
use crate::resources::scratch::Scratch;
use crate::store::Store;

pub use error::ImageError;
use eviction::Evictions;
pub use making::Draft;
pub use pin::ImagePin;
use pin::Pins;
use rebuild::Rebuilds;
use removal::Removals;

/// Builds, rebuilds and removes the images of versions.
#[derive(Debug)]
pub struct Images {
    builder: Builder,
    registry: Arc<Registry>,
    store: Store,
    scratch: Scratch,
    trees: Arc<Trees>,
    room: Arc<DiskSpace>,
    settings: config::Builds,
    pins: Pins,
    rebuilds: Rebuilds,
    removals: Removals,
    evictions: Evictions,
    /// Held while an image is fetched ahead of need: one at a time.
    fetching: Arc<tokio::sync::Mutex<()>>,
    /// Held while images are deleted in the registry: those of one function at a time.
    deleting: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The parts that the cache is made of.
pub(crate) struct ImagesParts {
    pub(crate) builder: Builder,
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Store,
    pub(crate) scratch: Scratch,
    pub(crate) trees: Arc<Trees>,
    pub(crate) room: Arc<DiskSpace>,
    pub(crate) settings: config::Builds,
    pub(crate) tasks: TaskTracker,
    /// Ends rebuilds and removals under way.
    pub(crate) stop: CancellationToken,
}

impl Images {
    /// Makes the cache.
    pub(crate) fn new(parts: ImagesParts) -> Arc<Self> {
        let ImagesParts { builder, registry, store, scratch, trees, room, settings, tasks, stop } = parts;
        let health = builder.health().clone();
        Arc::new(Self {
            builder,
            registry,
            store,
            scratch,
            trees,
            room,
            settings,
            pins: Pins::default(),
            rebuilds: Rebuilds::default(),
            removals: Removals::new(health.clone()),
            evictions: Evictions::new(health),
            fetching: Arc::default(),
            deleting: tokio::sync::Mutex::default(),
            tasks,
            stop,
        })
    }

    /// Whether the version's image is made, pulled or made ready for use just now, so that Docker may have the image
    /// before the registry of functions knows.
    pub fn is_in_the_making(&self, id: VersionId) -> bool {
        self.pins.hold(id) || self.rebuilds.is_under_way(id)
    }

    /// Whether a version's files are taken out of this container just now.
    pub fn is_reading(&self, container: &str) -> bool {
        self.trees.is_reading(container)
    }

    /// Whether the version is a function's current or previous version, or a pin holds the version.
    fn is_needed(&self, id: VersionId) -> bool {
        // The order matters: a version enters the registry before its pin is dropped.
        self.pins.hold(id)
            || self
                .registry
                .get(id.function)
                .is_some_and(|function| function.versions().any(|version| version.id == id))
    }
}
