//! A version of a function: what was built of one zip.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::{FunctionId, Image, Language, VersionId, VersionRecord};

/// A version and its image, which may come and go.
#[derive(Debug)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// What it is written in.
    pub language: Language,
    /// Unix seconds.
    pub created_at: u64,
    /// Of its zip's content, in bytes.
    pub unpacked_size: u64,
    image: Mutex<Image>,
    /// When its image was last made again, in Unix milliseconds.
    rebuilt_at: AtomicU64,
}

impl Version {
    /// The version that a record of this function is about.
    pub fn new(function: FunctionId, record: VersionRecord) -> Self {
        Self {
            id: VersionId { function, number: record.number },
            language: record.language,
            created_at: record.created_at,
            unpacked_size: record.unpacked_size,
            image: Mutex::new(record.image),
            rebuilt_at: AtomicU64::new(0),
        }
    }

    /// What it runs from.
    pub fn image(&self) -> Image {
        self.image.lock().clone()
    }

    /// Has it run from this from now on, which was made at this time, in Unix milliseconds.
    pub fn set_image(&self, image: Image, made_at: u64) {
        *self.image.lock() = image;
        self.rebuilt_at.store(made_at, Ordering::Relaxed);
    }

    /// When its image was last made again, in Unix milliseconds; 0 for never.
    pub fn rebuilt_at(&self) -> u64 {
        self.rebuilt_at.load(Ordering::Relaxed)
    }

    /// Notes that its image is there after all.
    pub fn mark_present(&self, id: &str) {
        let mut image = self.image.lock();
        image.present |= image.id.as_str() == id;
    }

    /// Notes that this image of it is gone. False when it has another meanwhile, or that was known.
    pub fn mark_missing(&self, id: &str) -> bool {
        let mut image = self.image.lock();
        image.id.as_str() == id && std::mem::take(&mut image.present)
    }
}
