//! Pins keep the images of versions that are being made ready for use.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Images;
use crate::domain::VersionId;

/// Keeps the image of a version that is being made ready for use. When the pin is dropped, the image is removed, unless
/// the version is needed by then.
#[must_use]
#[derive(Debug)]
pub struct ImagePin {
    images: Arc<Images>,
    id: VersionId,
}

/// The versions that are being made ready for use, each with the number of its pins.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<VersionId, usize>>);

impl Images {
    /// Keeps a version's image until the pin is dropped.
    pub fn pin(self: &Arc<Self>, id: VersionId) -> ImagePin {
        self.pins.add(id);
        ImagePin { images: Arc::clone(self), id }
    }
}

impl Drop for ImagePin {
    fn drop(&mut self) {
        self.images.pins.remove(self.id);
        if !self.images.is_needed(self.id) {
            self.images.remove_later(self.id);
        }
    }
}

impl Pins {
    /// Whether a pin holds the version.
    pub(super) fn hold(&self, id: VersionId) -> bool {
        self.0.lock().contains_key(&id)
    }

    fn add(&self, id: VersionId) {
        *self.0.lock().entry(id).or_default() += 1;
    }

    fn remove(&self, id: VersionId) {
        let mut held = self.0.lock();
        if let Some(holders) = held.get_mut(&id) {
            *holders -= 1;
            if *holders == 0 {
                held.remove(&id);
            }
        }
    }
}
