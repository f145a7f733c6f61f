//! A version of a function: the result of building one zip.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::{FunctionId, Image, Language, Manifest, VersionId, VersionRecord};

/// A version and its image, which may be removed and built again.
#[derive(Debug)]
pub struct Version {
    /// The version's id.
    pub id: VersionId,
    /// The program's language.
    pub language: Language,
    /// When the version was created, in Unix seconds.
    pub created_at: u64,
    /// The size of the zip's unpacked content, in bytes.
    pub unpacked_size: u64,
    /// The file that the interpreter runs; None for a compiled program.
    pub entry: Option<String>,
    /// What the version's function.toml says. None without the file.
    pub manifest: Option<Arc<Manifest>>,
    image: Mutex<Image>,
    /// Why the image is gone, where the image is gone.
    absence: Mutex<Absence>,
    /// When the image was last built again, in Unix milliseconds.
    rebuilt_at: AtomicU64,
}

/// Why Docker does not have a version's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Another program has removed the image.
    Lost,
    /// The cache was larger than IMAGE_CACHE_LIMIT.
    Evicted,
    /// Another node has built the image.
    Elsewhere,
    /// The store has no image for the version: an earlier run has noted the absence, or the version was too old to keep
    /// its image.
    NotKept,
}

impl Absence {
    /// The reason's name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Evicted => "evicted",
            Self::Elsewhere => "built on another node",
            Self::NotKept => "not kept",
        }
    }
}

impl Version {
    /// Makes a version of this function from the version's record in the store.
    pub fn new(function: FunctionId, record: VersionRecord) -> Self {
        Self {
            id: VersionId { function, number: record.number },
            language: record.language,
            created_at: record.created_at,
            unpacked_size: record.unpacked_size,
            entry: record.entry,
            manifest: record.manifest,
            image: Mutex::new(record.image),
            absence: Mutex::new(Absence::NotKept),
            rebuilt_at: AtomicU64::new(0),
        }
    }

    /// The version's image.
    pub fn image(&self) -> Image {
        self.image.lock().clone()
    }

    /// Why the image is gone. None while Docker has the image.
    pub fn absence(&self) -> Option<Absence> {
        let image = self.image.lock();
        (!image.present).then(|| *self.absence.lock())
    }

    /// Sets the version's image, which was built again at `made_at`, in Unix milliseconds.
    pub fn set_image(&self, image: Image, made_at: u64) {
        *self.image.lock() = image;
        self.rebuilt_at.store(made_at, Ordering::Relaxed);
    }

    /// When the image was last built again, in Unix milliseconds; 0 for never.
    pub fn rebuilt_at(&self) -> u64 {
        self.rebuilt_at.load(Ordering::Relaxed)
    }

    /// Notes that Docker has the image with this id after all, if the version still has this image.
    pub fn mark_present(&self, id: &str) {
        let mut image = self.image.lock();
        image.present |= image.id.as_str() == id;
    }

    /// Notes that the image with this id is gone, and why. False when the version has another image by now, or when the
    /// absence was known.
    pub fn mark_missing(&self, id: &str, absence: Absence) -> bool {
        let mut image = self.image.lock();
        let is_news = image.id.as_str() == id && std::mem::take(&mut image.present);
        if is_news {
            *self.absence.lock() = absence;
        }
        is_news
    }
}
