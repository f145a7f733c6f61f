//! Unpacks a zip that may be hostile. A bad entry is never skipped: the whole zip is refused. Sizes count the bytes
//! that are really read, never a header's claim.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zip::ZipArchive;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::path::{EntryPath, InvalidPath};
use super::{MANIFEST, MAX_ENTRIES, MAX_MANIFEST, PackageError};

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_FOLDER: u32 = 0o040_000;
const EXECUTABLE: u32 = 0o111;

/// The result of unpacking a zip.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The size of all files, in bytes.
    pub(super) size: u64,
    /// The name of the single top-level folder that was stripped, if any.
    pub(super) stripped: Option<String>,
}

/// Writes all files of the zip below `folder`, without a single top-level folder, and without the manifest unless
/// `keeps_manifest`. `max_size` limits the content, in
/// bytes.
pub(super) fn unpack(
    zip: &mut File,
    folder: &Path,
    max_size: u64,
    keeps_manifest: bool,
) -> Result<Unpacked, PackageError> {
    let Opened { mut archive, entries, stripped } = open(zip)?;
    let mut left = max_size;
    for entry in entries.iter().filter(|entry| keeps_manifest || !entry.is_manifest()) {
        let path = folder.join(&entry.path);
        match entry.kind {
            Kind::Folder => make_folder(&path)?,
            Kind::File { index, executable } => {
                make_folder(path.parent().expect("the path is below the folder"))?;
                let data = archive.by_index(index).map_err(|error| entry.damaged(&error))?;
                let mode = if executable { 0o755 } else { 0o644 };
                let mut file =
                    File::options().write(true).create_new(true).mode(mode).open(&path).map_err(PackageError::Io)?;
                // The mode must not depend on the service's umask: a function runs as another user.
                file.set_permissions(Permissions::from_mode(mode)).map_err(PackageError::Io)?;
                let copied = copy(&mut data.take(left + 1), &mut file, entry)?;
                left = left.checked_sub(copied).ok_or(PackageError::TooLarge { limit: max_size })?;
            }
        }
    }
    Ok(Unpacked { size: max_size - left, stripped })
}

/// The content of the file [`MANIFEST`] in the zip's root. None where there is no such file.
pub(super) fn manifest(zip: &mut File) -> Result<Option<Vec<u8>>, PackageError> {
    let Opened { mut archive, entries, .. } = open(zip)?;
    let Some(entry) = entries.iter().find(|entry| entry.is_manifest()) else { return Ok(None) };
    let Kind::File { index, .. } = entry.kind else { return Ok(None) };
    let data = archive.by_index(index).map_err(|error| entry.damaged(&error))?;
    let mut text = Vec::new();
    data.take(MAX_MANIFEST + 1).read_to_end(&mut text).map_err(|error| entry.damaged(&error))?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(PackageError::ManifestTooLarge);
    }
    Ok(Some(text))
}

struct Opened<'a> {
    archive: ZipArchive<BufReader<&'a mut File>>,
    entries: Vec<Entry>,
    /// The name of the single top-level folder that was stripped, if any.
    stripped: Option<String>,
}

/// Opens a zip, and checks all but the content of its entries.
fn open(zip: &mut File) -> Result<Opened<'_>, PackageError> {
    let mut zip = BufReader::new(zip);
    check_directory(&mut zip)?;
    let mut archive = ZipArchive::new(zip).map_err(not_a_zip)?;
    if archive.len() > MAX_ENTRIES {
        return Err(PackageError::TooManyEntries(archive.len()));
    }
    let (entries, stripped) = list(&mut archive)?;
    if archive.has_overlapping_entries().map_err(not_a_zip)? {
        return Err(PackageError::Overlap);
    }
    Ok(Opened { archive, entries, stripped })
}

/// Reads the archive's directory once without keeping the entries. `ZipArchive` takes memory for all entries, and
/// searches for another directory when a directory is broken. Here a broken directory is refused.
fn check_directory(zip: &mut BufReader<&mut File>) -> Result<(), PackageError> {
    let mut directory = ZipIterable::try_new(zip, Config::default()).map_err(not_a_zip)?;
    if directory.len() > MAX_ENTRIES {
        return Err(PackageError::TooManyEntries(directory.len()));
    }
    for entry in directory.files().map_err(not_a_zip)? {
        let entry = entry.map_err(not_a_zip)?;
        if entry.header_start() >= entry.central_header_start() {
            return Err(PackageError::NotAZip("an entry's header stands behind the directory".to_owned()));
        }
    }
    Ok(())
}

struct Entry {
    /// The checked path, relative to the package's root.
    path: String,
    kind: Kind,
}

enum Kind {
    Folder,
    File { index: usize, executable: bool },
}

impl Entry {
    fn is_manifest(&self) -> bool {
        self.path == MANIFEST && matches!(self.kind, Kind::File { .. })
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> PackageError {
        PackageError::Damaged { name: self.path.clone(), reason: reason.to_string() }
    }
}

/// All entries that are not ignored, checked against each other.
fn list(archive: &mut ZipArchive<BufReader<&mut File>>) -> Result<(Vec<Entry>, Option<String>), PackageError> {
    let mut listed = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(not_a_zip)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let is_folder = name.ends_with('/');
        let path = match EntryPath::parse(entry.name_raw()) {
            Ok(path) => path,
            // Some tools name the root itself `./`.
            Err(InvalidPath::Empty) if is_folder => continue,
            Err(reason) => return Err(PackageError::Path { name, reason }),
        };
        if path.is_ignored() {
            continue;
        }
        if entry.encrypted() {
            return Err(PackageError::Encrypted(name));
        }
        let mode = entry.unix_mode().unwrap_or(0);
        let fitting_type = if is_folder { TYPE_FOLDER } else { TYPE_FILE };
        if entry.is_symlink() || ![0, fitting_type].contains(&(mode & TYPE_MASK)) {
            return Err(PackageError::Special(name));
        }
        let kind = if is_folder { Kind::Folder } else { Kind::File { index, executable: mode & EXECUTABLE != 0 } };
        listed.push((path, kind));
    }
    if archive.has_duplicate_names() {
        return Err(PackageError::Repeated);
    }
    let stripped = strip_single_folder(&mut listed);
    Ok((check_against_each_other(listed)?, stripped))
}

/// Strips the folder that holds all entries, as in zips of repositories, and returns the folder's name. None when there
/// is no such folder.
fn strip_single_folder(listed: &mut Vec<(EntryPath, Kind)>) -> Option<String> {
    let first = listed.first().map(|(path, _)| path.first().to_owned())?;
    let inside = |(path, kind): &(EntryPath, Kind)| {
        path.first() == first && (path.without_first().is_some() || matches!(kind, Kind::Folder))
    };
    if !listed.iter().all(inside) {
        return None;
    }
    *listed = std::mem::take(listed)
        .into_iter()
        .filter_map(|(path, kind)| path.without_first().map(|path| (path, kind)))
        .collect();
    Some(first)
}

fn check_against_each_other(listed: Vec<(EntryPath, Kind)>) -> Result<Vec<Entry>, PackageError> {
    struct Seen {
        path: String,
        is_folder: bool,
        is_entry: bool,
    }
    let mut seen: HashMap<String, Seen> = HashMap::new();
    // A few long names can have very many folders, none of which has an entry of its own.
    let mut folders = 0;
    let mut entries = Vec::with_capacity(listed.len());
    for (entry_path, kind) in listed {
        let mut paths: Vec<String> = entry_path.ancestors_and_self().collect();
        let own = paths.pop().expect("a path has at least one component");
        let is_folder = matches!(kind, Kind::Folder);
        let all = paths.into_iter().map(|path| (path, true, false)).chain([(own.clone(), is_folder, true)]);
        for (path, is_folder, is_entry) in all {
            let Some(earlier) = seen.get_mut(&path.to_lowercase()) else {
                folders += usize::from(is_folder && !is_entry);
                if folders > MAX_ENTRIES {
                    return Err(PackageError::TooManyFolders);
                }
                seen.insert(path.to_lowercase(), Seen { path, is_folder, is_entry });
                continue;
            };
            if earlier.is_folder != is_folder {
                return Err(PackageError::FileAsFolder(path));
            }
            if earlier.path != path || (earlier.is_entry && is_entry) {
                return Err(PackageError::Duplicate(earlier.path.clone(), path));
            }
            earlier.is_entry |= is_entry;
        }
        entries.push(Entry { path: own, kind });
    }
    Ok(entries)
}

fn make_folder(path: &Path) -> Result<(), PackageError> {
    // Names were checked against each other, and `folder` was empty: only this module can have made a folder here.
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(PackageError::Io)
}

/// Like `io::copy`, but tells a damaged entry from a full disk.
fn copy(data: &mut impl Read, file: &mut File, entry: &Entry) -> Result<u64, PackageError> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        match data.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => {
                io::Write::write_all(file, &buffer[..n]).map_err(PackageError::Io)?;
                copied += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(entry.damaged(&error)),
        }
    }
}

fn not_a_zip(error: ZipError) -> PackageError {
    PackageError::NotAZip(error.to_string())
}

#[cfg(test)]
mod tests;
