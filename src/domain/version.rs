//! A version of a function as the store keeps it.

use std::sync::Arc;

use super::{ImageDigest, ImageId, Language, Manifest};

/// A version's row: all that the store keeps of the version except its zip and its build log.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRecord {
    /// The version's number: from 1 on, in the order of the submits.
    pub number: u32,
    /// The version's language.
    pub language: Language,
    /// The file that the interpreter runs; None for a compiled program.
    pub entry: Option<String>,
    /// The time of the submit or update, in Unix seconds.
    pub created_at: u64,
    /// The size of the zip, in bytes.
    pub zip_size: u64,
    /// The SHA-256 of the zip, in hexadecimal digits.
    pub zip_sha256: String,
    /// The size of the zip's content, in bytes.
    pub unpacked_size: u64,
    /// What the version's function.toml says, with the form of the submit above. None without a function.toml.
    pub manifest: Option<Arc<Manifest>>,
    /// The image that instances are made of.
    pub image: Image,
}

/// A version's image, which is a cache: a build from the zip makes the image again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Docker's id of the image.
    pub id: ImageId,
    /// The image's size in bytes, without the layers that all functions of its language share.
    pub size: u64,
    /// Whether Docker had the image at the last look.
    pub present: bool,
    /// The digest by which the registry of DOCKER_IMAGE_PREFIX has the image. None for an image that no registry has.
    pub digest: Option<ImageDigest>,
}
