//! From an uploaded zip to a package: a folder with checked content, and what kind of program it holds.
//!
//! Synchronous and pure but for the one folder it fills; knows no Docker and no HTTP.

mod dependencies;
mod detect;
mod handler;
mod modules;
mod path;
mod requirements;
mod warnings;
mod zip;

use std::fs::File;
use std::io;
use std::path::Path;

use thiserror::Error;

pub use dependencies::{Dependencies, DependencyError};
pub use detect::{DetectError, Program};
pub use path::InvalidPath;
pub use requirements::{RequirementFile, Requirements, Role, of_export};

use crate::domain::Language;

/// How many entries a zip may have, ignored ones included.
pub const MAX_ENTRIES: usize = 10_000;

/// Why a zip did not become a package. Names are the zip's own.
#[derive(Debug, Error)]
pub enum PackageError {
    /// No zip's structure.
    #[error("the file is not a zip archive, or a damaged one: {0}")]
    NotAZip(String),
    /// It needs a password.
    #[error("the zip's entry {0:?} is encrypted; upload it without a password")]
    Encrypted(String),
    /// The name could lead out of the folder or is no good as a file's.
    #[error("the zip's entry {name:?} {reason}")]
    Path {
        /// The name.
        name: String,
        /// Why not.
        reason: InvalidPath,
    },
    /// A symbolic link, device, pipe or socket.
    #[error("the zip's entry {0:?} is neither a file nor a folder; links and special files are refused")]
    Special(String),
    /// Two entries for what some systems take for one file.
    #[error("the zip has two entries of one name, upper and lower case taken as the same: {0:?} and {1:?}")]
    Duplicate(String, String),
    /// The archive's directory lists one name twice, to the letter.
    #[error("the zip has two entries of exactly one name")]
    Repeated,
    /// A file and a folder of one name.
    #[error("the zip uses {0:?} as a file and as a folder")]
    FileAsFolder(String),
    /// Two entries share bytes of the archive.
    #[error("the zip has entries that overlap, as in a zip bomb")]
    Overlap,
    /// An entry that can't be decompressed to what its header says.
    #[error("the zip's entry {name:?} is damaged: {reason}")]
    Damaged {
        /// The name.
        name: String,
        /// How.
        reason: String,
    },
    /// Over the limit on entries.
    #[error("the zip has {0} entries; the limit is {MAX_ENTRIES}")]
    TooManyEntries(usize),
    /// Over the same limit on folders that have no entry of their own.
    #[error("the names of the zip's entries have more folders than the limit of {MAX_ENTRIES}")]
    TooManyFolders,
    /// Over the limit on content, whatever its headers claim.
    #[error("the zip's content is larger than the limit of {limit} bytes (MAX_UNPACKED_SIZE)")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Over the limit on what says which Go modules are wanted.
    #[error("the zip's go.mod, go.sum, go.work and go.work.sum have more than {} bytes together", modules::MAX_TOTAL)]
    ModulesTooLarge,
    /// It is not clear what to run.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// What it depends on can't be installed.
    #[error(transparent)]
    Dependencies(#[from] DependencyError),
    /// The folder could not be filled: a matter of this machine.
    #[error("failed to write the zip's content")]
    Io(#[source] io::Error),
}

/// What a zip holds.
#[derive(Debug)]
pub struct Package {
    /// What to run.
    pub program: Program,
    /// Of its content, in bytes.
    pub size: u64,
    /// What the zip has and its author probably does not mean, for people.
    pub warnings: Vec<String>,
}

/// Unpacks a zip into `folder`, which must be empty, and finds out what to run; `language` is the uploader's word.
pub fn open(zip: &mut File, folder: &Path, max_size: u64, language: Option<Language>) -> Result<Package, PackageError> {
    let unpacked = zip::unpack(zip, folder, max_size)?;
    let mut program = detect::detect(folder, language, unpacked.stripped.as_deref())?;
    match &mut program {
        Program::Python { dependencies, .. } => *dependencies = dependencies::find(folder)?,
        Program::Go { modules, .. } => *modules = modules::find(folder)?,
    }
    let warnings = warnings::of(folder, &program).map_err(PackageError::Io)?;
    Ok(Package { program, size: unpacked.size, warnings })
}
