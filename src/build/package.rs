//! Makes a package from an uploaded zip: a folder with checked content, and the kind of program in the folder.
//!
//! This module is synchronous, and writes to nothing but the package's folder. Docker and HTTP do not occur here.

mod dependencies;
mod detect;
mod handler;
mod modules;
mod path;
mod refusal;
mod requirements;
mod warnings;
mod zip;

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use thiserror::Error;

pub use dependencies::Dependencies;
pub use detect::{DetectError, Program};
pub use path::InvalidPath;
pub use refusal::{DependencyError, Refusal};
pub use requirements::{RequirementFile, Requirements, Role, of_export};

use crate::domain::Language;

/// How many entries a zip may have, ignored entries included.
pub const MAX_ENTRIES: usize = 10_000;

/// The name of the file that says what a function is.
pub const MANIFEST: &str = "function.toml";
/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;

/// Why a zip is refused. The texts name entries as the zip does.
#[derive(Debug, Error)]
pub enum PackageError {
    /// The file does not have the structure of a zip.
    #[error("the file is not a zip archive, or a damaged one: {0}")]
    NotAZip(String),
    /// An entry is encrypted.
    #[error("the zip's entry {0:?} is encrypted; upload it without a password")]
    Encrypted(String),
    /// An entry's name could lead out of the folder, or is not usable as a file name.
    #[error("the zip's entry {name:?} {reason}")]
    Path {
        /// The entry's name.
        name: String,
        /// Why the name is refused.
        reason: InvalidPath,
    },
    /// An entry is a symbolic link, device, pipe or socket.
    #[error("the zip's entry {0:?} is neither a file nor a folder; links and special files are refused")]
    Special(String),
    /// Some file systems take the names of two entries for the same name.
    #[error("the zip has two entries of one name, upper and lower case taken as the same: {0:?} and {1:?}")]
    Duplicate(String, String),
    /// The archive's directory lists exactly the same name twice.
    #[error("the zip has two entries of exactly one name")]
    Repeated,
    /// A file and a folder have the same name.
    #[error("the zip uses {0:?} as a file and as a folder")]
    FileAsFolder(String),
    /// Two entries share bytes of the archive.
    #[error("the zip has entries that overlap, as in a zip bomb")]
    Overlap,
    /// An entry's content does not decompress to what the entry's header says.
    #[error("the zip's entry {name:?} is damaged: {reason}")]
    Damaged {
        /// The entry's name.
        name: String,
        /// The error of the decompression.
        reason: String,
    },
    /// The zip has more entries than [`MAX_ENTRIES`].
    #[error("the zip has {0} entries; the limit is {MAX_ENTRIES}")]
    TooManyEntries(usize),
    /// The names of the entries have more than [`MAX_ENTRIES`] folders without an entry of their own.
    #[error("the names of the zip's entries have more folders than the limit of {MAX_ENTRIES}")]
    TooManyFolders,
    /// The unpacked content is larger than the limit, whatever the headers claim.
    #[error("the zip's content is larger than the limit of {limit} bytes (MAX_UNPACKED_SIZE)")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The files that name Go modules are too large together.
    #[error("the zip's go.mod, go.sum, go.work and go.work.sum have more than {} bytes together", modules::MAX_TOTAL)]
    ModulesTooLarge,
    /// The manifest is over the limit.
    #[error("the zip's {MANIFEST} is larger than {MAX_MANIFEST} bytes")]
    ManifestTooLarge,
    /// The program to run could not be determined.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The program's dependencies can't be installed.
    #[error(transparent)]
    Dependencies(#[from] DependencyError),
    /// The package's folder could not be filled: the fault is this machine's, not the zip's.
    #[error("failed to write the zip's content")]
    Io(#[source] io::Error),
}

/// The content of an accepted zip.
#[derive(Debug)]
pub struct Package {
    /// The program to build and run.
    pub program: Program,
    /// The size of the unpacked content, in bytes.
    pub size: u64,
    /// Warnings for the uploader about content that is probably a mistake.
    pub warnings: Vec<String>,
}

/// What is known of a zip before the zip is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The program's language; None to detect the language.
    pub language: Option<Language>,
    /// The file that the interpreter runs; None to choose a file by its name.
    pub entry: Option<&'a str>,
    /// Whether a file of the manifest's name is a file like any other: for a version from before there were manifests.
    pub keeps_manifest: bool,
}

/// The bytes of the manifest in the root of a zip. None without a manifest.
pub fn manifest(zip: &mut File) -> Result<Option<Vec<u8>>, PackageError> {
    zip.rewind().map_err(PackageError::Io)?;
    let manifest = zip::manifest(zip);
    zip.rewind().map_err(PackageError::Io)?;
    manifest
}

/// Unpacks a zip into `folder`, which must be empty, and determines the program to run. `max_size` limits the unpacked
/// content, in bytes.
pub fn open(zip: &mut File, folder: &Path, max_size: u64, choice: Choice<'_>) -> Result<Package, PackageError> {
    let unpacked = zip::unpack(zip, folder, max_size, choice.keeps_manifest)?;
    let mut program = detect::detect(folder, (choice.language, choice.entry), unpacked.stripped.as_deref())?;
    match &mut program {
        Program::Python { dependencies, .. } => *dependencies = dependencies::find(folder)?,
        Program::Go { modules, .. } => *modules = modules::find(folder)?,
    }
    let warnings = warnings::of(folder, &program).map_err(PackageError::Io)?;
    Ok(Package { program, size: unpacked.size, warnings })
}
