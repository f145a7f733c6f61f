//! A version of a function as the store keeps it.

use super::{ImageId, Language};

/// All that is remembered of a version, but for its zip and its build log.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRecord {
    /// From 1 on, in the order in which they were posted.
    pub number: u32,
    /// Its language.
    pub language: Language,
    /// The file that is run; None for a compiled program.
    pub entry: Option<String>,
    /// Unix seconds.
    pub created_at: u64,
    /// Of its zip, in bytes.
    pub zip_size: u64,
    /// Of its zip, hexadecimal.
    pub zip_sha256: String,
    /// Of the zip's content, in bytes.
    pub unpacked_size: u64,
    /// What it runs from.
    pub image: Image,
}

/// An image: a cache of what can be built from the zip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Docker's id of it.
    pub id: ImageId,
    /// What it takes beside what all functions of its language share, in bytes.
    pub size: u64,
    /// It was there when last looked for.
    pub present: bool,
}
