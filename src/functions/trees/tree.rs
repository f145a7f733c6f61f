//! A version's files on disk: taken out of archives once, and copied and verified at each use. Synchronous.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use blake3::Hasher;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tar::{Archive, EntryType};
use thiserror::Error;

use crate::resources::clock;

/// The most files and folders of a tree.
const MAX_ENTRIES: usize = 1000;
/// The most content of a tree, in bytes.
pub(super) const MAX_SIZE: u64 = 16_000_000;
/// The size that a file or folder counts beside its content, in bytes.
const ENTRY_SIZE: u64 = 4096;
/// The file that describes a tree, beside the tree's folders.
const MANIFEST: &str = "tree.json";
/// The part of a file's mode that a copy has, too.
const MODE: u32 = 0o777;

/// The folders of a tree: the files of the zip, as in `/app` of an image, and what else the function's program needs.
pub const FOLDERS: [&str; 2] = ["app", "code"];

/// A version's files.
#[derive(Debug)]
pub struct Tree {
    folder: PathBuf,
    manifest: Manifest,
    /// Whether the folder was removed. Held while the folder is read or removed.
    is_removed: RwLock<bool>,
}

/// What is known of a tree.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Manifest {
    /// The runtime image that the version's image was made for.
    pub(super) runtime: String,
    /// The arguments of the bootstrap in the version's image.
    pub(super) arguments: Vec<String>,
    /// By BLAKE3: each use of a slot hashes the whole tree, and SHA-256 takes ten times as long on processors without
    /// instructions for SHA.
    pub(super) blake3: String,
    /// The size on disk, in bytes.
    pub(super) size: u64,
}

/// Why there is no tree, or no copy of a tree.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The archive has something else than files and folders below the folder that was asked for.
    #[error("the image has {0:?}, which is no plain file or folder")]
    Special(String),
    /// There are too many files, or the files are too large.
    #[error("the image has more than {MAX_ENTRIES} files and folders, or files of more than {MAX_SIZE} bytes together")]
    TooLarge,
    /// The files are not those that were taken from the image.
    #[error("the files differ from those of the image")]
    Damaged,
    /// The files were removed to make room, or because no function has them any more.
    #[error("the files were removed")]
    Removed,
    /// The copy could not be written. The files are well.
    #[error("failed to write a copy of the files")]
    Copy(#[source] io::Error),
    /// The disk failed.
    #[error("failed to read or write files")]
    Io(#[from] io::Error),
}

/// How much room is left for a tree.
pub(super) struct Room {
    entries: usize,
    bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, bytes: MAX_SIZE }
    }
}

/// Unpacks an archive of the folder or file `name` into the folder `into`.
pub(super) fn unpack(archive: impl Read, name: &str, into: &Path, room: &mut Room) -> Result<(), TreeError> {
    let mut folders = Vec::new();
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let special = || TreeError::Special(path.display().to_string());
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_))) && path.starts_with(name);
        let left = room.entries.checked_sub(1).and_then(|left| Some((left, room.bytes.checked_sub(entry.size())?)));
        (room.entries, room.bytes) = left.ok_or(TreeError::TooLarge)?;
        let place = into.join(&path);
        let modified = clock::at(entry.header().mtime()?);
        let mode = entry.header().mode()? & MODE;
        match entry.header().entry_type() {
            EntryType::Directory if is_plain => {
                fs::create_dir(&place)?;
                folders.push((place, mode, modified));
            }
            EntryType::Regular if is_plain => {
                let mut file = File::create_new(&place)?;
                io::copy(&mut entry, &mut file)?;
                finish(&file, mode, modified)?;
            }
            _ => return Err(special()),
        }
    }
    // The innermost come first: a file changes the time of its folder.
    for (place, mode, modified) in folders.into_iter().rev() {
        finish(&File::open(place)?, mode, modified)?;
    }
    Ok(())
}

fn finish(file: &File, mode: u32, modified: SystemTime) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    file.set_modified(modified)
}

impl Tree {
    /// Describes a folder with unpacked files, and moves the folder to its place.
    pub(super) fn complete(
        draft: &Path,
        place: PathBuf,
        runtime: &str,
        arguments: Vec<String>,
    ) -> Result<Self, TreeError> {
        let mut walk = Walk::default();
        walk.all(draft, None)?;
        let size = walk.size;
        let manifest = Manifest { runtime: runtime.to_owned(), arguments, blake3: walk.digest(), size };
        fs::write(draft.join(MANIFEST), serde_json::to_vec(&manifest).map_err(io::Error::other)?)?;
        fs::rename(draft, &place)?;
        Ok(Self { folder: place, manifest, is_removed: RwLock::new(false) })
    }

    /// The tree in a folder of an earlier run, and the time of its last use. None for anything else.
    pub(super) fn load(folder: PathBuf) -> Option<(Self, SystemTime)> {
        let manifest = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
        let used = fs::metadata(&folder).and_then(|metadata| metadata.modified()).ok()?;
        Some((Self { folder, manifest, is_removed: RwLock::new(false) }, used))
    }

    /// Copies the tree's [`FOLDERS`] to `into`. No file is shared with the tree: a lock on a shared file would be seen
    /// by other functions.
    ///
    /// # Errors
    /// When the files are not those of the image. Then the copy must not be used.
    pub fn copy_to(&self, into: &Path) -> Result<(), TreeError> {
        let is_removed = self.is_removed.read();
        if *is_removed {
            return Err(TreeError::Removed);
        }
        let mut walk = Walk::default();
        walk.all(&self.folder, Some(into))?;
        if walk.digest() != self.manifest.blake3 {
            return Err(TreeError::Damaged);
        }
        // The next run finds the time of the last use here.
        File::open(&self.folder)?.set_modified(clock::now())?;
        Ok(())
    }

    /// Removes the files, when no copy is under way any more.
    pub(super) fn remove(&self) -> io::Result<()> {
        *self.is_removed.write() = true;
        fs::remove_dir_all(&self.folder)
    }

    /// The runtime image that the version's image was made for.
    pub fn runtime(&self) -> &str {
        &self.manifest.runtime
    }

    /// The arguments of the bootstrap: for Python, the main file and the package's name.
    pub fn arguments(&self) -> &[String] {
        &self.manifest.arguments
    }

    pub(super) fn size(&self) -> u64 {
        self.manifest.size
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Reads all files of a tree, and copies the files on the way.
#[derive(Default)]
struct Walk {
    hash: Hasher,
    size: u64,
}

impl Walk {
    fn all(&mut self, from: &Path, into: Option<&Path>) -> Result<(), TreeError> {
        for name in FOLDERS {
            self.entry(name, &from.join(name), into.map(|into| into.join(name)).as_deref())?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, from: &Path, into: Option<&Path>) -> Result<(), TreeError> {
        let metadata = fs::symlink_metadata(from)?;
        let mode = metadata.permissions().mode() & MODE;
        self.size += ENTRY_SIZE;
        self.note(&[&[u8::from(metadata.is_dir())], name.as_bytes(), &mode.to_be_bytes()]);
        if metadata.is_dir() {
            into.map_or(Ok(()), fs::create_dir).map_err(TreeError::Copy)?;
            let mut names = Vec::new();
            for entry in fs::read_dir(from)? {
                names.push(entry?.file_name().into_string().map_err(|_| TreeError::Damaged)?);
            }
            names.sort_unstable();
            self.note(&[&(names.len() as u64).to_be_bytes()]);
            for name in names {
                self.entry(&name, &from.join(&name), into.map(|into| into.join(&name)).as_deref())?;
            }
        } else if metadata.is_file() {
            let content = fs::read(from)?;
            self.size += content.len() as u64;
            self.note(&[&content]);
            if let Some(into) = into {
                let written = File::create_new(into).and_then(|mut file| file.write_all(&content));
                written.map_err(TreeError::Copy)?;
            }
        } else {
            return Err(TreeError::Damaged);
        }
        if let Some(into) = into {
            let modified = metadata.modified()?;
            File::open(into).and_then(|file| finish(&file, mode, modified)).map_err(TreeError::Copy)?;
        }
        Ok(())
    }

    fn note(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.hash.update(&(part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
    }

    fn digest(self) -> String {
        self.hash.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, u32, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for &(name, kind, mode, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_mtime(1_000_000_000);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const APP: (&str, EntryType, u32, &[u8]) = ("app", EntryType::Directory, 0o755, b"");

    fn tree(dir: &Path) -> Tree {
        let files = [APP, ("app/a", EntryType::Directory, 0o750, b""), ("app/a/x", EntryType::Regular, 0o755, b"text")];
        let draft = dir.join(".draft");
        fs::create_dir(&draft).unwrap();
        fs::create_dir(draft.join("code")).unwrap();
        unpack(&archive(&files)[..], "app", &draft, &mut Room::default()).unwrap();
        Tree::complete(&draft, dir.join("tree"), "runtime", vec!["main.py".to_owned()]).unwrap();
        Tree::load(dir.join("tree")).unwrap().0
    }

    #[test]
    fn a_copy_has_the_modes_and_times_of_the_image_and_no_file_of_the_tree() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        tree.copy_to(&copy).unwrap();
        let look = |path: PathBuf| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink(), metadata.ino())
        };
        let (mode, time, links, inode) = look(copy.join("app/a/x"));
        assert_eq!((mode, time, links), (0o755, 1_000_000_000, 1));
        assert_ne!(inode, look(dir.path().join("tree/app/a/x")).3);
        assert_eq!(look(copy.join("app/a")).0, 0o750);
        assert_eq!(look(copy.join("app/a")).1, 1_000_000_000);
        assert_eq!(fs::read(copy.join("app/a/x")).unwrap(), b"text");
        assert_eq!((tree.runtime(), tree.arguments()), ("runtime", &["main.py".to_owned()][..]));
    }

    #[test]
    fn a_use_is_noted_on_disk_and_a_removed_tree_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let folder = dir.path().join("tree");
        File::open(&folder).unwrap().set_modified(clock::at(1_000_000_000)).unwrap();
        assert_eq!(Tree::load(folder.clone()).unwrap().1, clock::at(1_000_000_000));
        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        tree.copy_to(&copy).unwrap();
        assert!(Tree::load(folder.clone()).unwrap().1 > clock::at(1_000_000_000));
        tree.remove().unwrap();
        assert!(!folder.exists());
        assert!(matches!(tree.copy_to(&copy), Err(TreeError::Removed)));
    }

    #[test]
    fn each_change_of_a_tree_is_found() {
        let changes: [fn(&Path); 5] = [
            |app| fs::write(app.join("a/x"), "test").unwrap(),
            |app| fs::write(app.join("a/y"), "").unwrap(),
            |app| fs::remove_file(app.join("a/x")).unwrap(),
            |app| fs::set_permissions(app.join("a/x"), Permissions::from_mode(0o777)).unwrap(),
            |app| std::os::unix::fs::symlink("/etc/passwd", app.join("a/z")).unwrap(),
        ];
        for change in changes {
            let dir = tempfile::tempdir().unwrap();
            let tree = tree(dir.path());
            change(&dir.path().join("tree/app"));
            let copy = dir.path().join("copy");
            fs::create_dir(&copy).unwrap();
            assert!(matches!(tree.copy_to(&copy), Err(TreeError::Damaged)));
        }
    }

    #[test]
    fn what_is_no_plain_file_or_too_much_is_refused() {
        let refused = |files: &[(&str, EntryType, u32, &[u8])]| {
            let dir = tempfile::tempdir().unwrap();
            unpack(&archive(files)[..], "app", dir.path(), &mut Room::default()).unwrap_err()
        };
        let special = [
            ("app/link", EntryType::Symlink, 0o777, &b""[..]),
            ("app/hard", EntryType::Link, 0o644, b""),
            ("app/null", EntryType::Char, 0o666, b""),
            ("app/../../x", EntryType::Regular, 0o644, b"x"),
            ("/app/x", EntryType::Regular, 0o644, b"x"),
            ("etc/passwd", EntryType::Regular, 0o644, b"x"),
        ];
        for entry in special {
            assert!(matches!(refused(&[APP, entry]), TreeError::Special(_)), "{}", entry.0);
        }
        let large = vec![0; MAX_SIZE as usize / 2 + 1];
        let large = |name: &'static str| (name, EntryType::Regular, 0o644, &large[..]);
        assert!(matches!(refused(&[APP, large("app/x"), large("app/y")]), TreeError::TooLarge));
    }
}
