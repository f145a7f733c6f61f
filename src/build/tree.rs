//! Copies a tree of files from an untrusted container: each entry is checked and written anew. Synchronous.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};
use thiserror::Error;

/// How many files and folders a tree may have.
pub(super) const MAX_ENTRIES: usize = 200_000;
/// How much content a tree may have, in bytes.
pub(super) const MAX_SIZE: u64 = 4 << 30;
/// How long all names may be together, in bytes: the checks keep all names in memory.
const MAX_NAMES: usize = 64 << 20;
/// How long one name may be, in bytes.
const MAX_NAME: u64 = 4 << 10;

/// Why a tree is refused.
#[derive(Debug, Error)]
pub enum TreeError {
    /// An entry's name could lead out of the tree, or is not usable as a file name.
    #[error("the installed packages have a file named {0:?}, which is not a relative path in UTF-8")]
    Name(String),
    /// An entry is a link or a special file.
    #[error("the installed packages have {0:?}, which is neither a file nor a folder")]
    Special(String),
    /// Two entries have the same name, or a name is used for a file and for a folder.
    #[error("the installed packages have {0:?} twice, or as a file and as a folder")]
    Twice(String),
    /// The tree has too many files and folders.
    #[error("the installed packages have more than {MAX_ENTRIES} files and folders")]
    TooMany,
    /// The names are too long together.
    #[error("the installed packages have names of more than {MAX_NAMES} bytes together")]
    NamesTooLarge,
    /// The content is too large.
    #[error("the installed packages have more than {MAX_SIZE} bytes")]
    TooLarge,
    /// The archive is damaged, or the copy could not be written.
    #[error("failed to copy the installed packages")]
    Io(#[from] io::Error),
}

/// Copies an archive of files and folders to paths below `place`, owned by root. Returns the path of the last entry,
/// relative to `place`.
pub(super) fn copy(from: &mut dyn Read, into: impl Write, place: &str) -> Result<String, TreeError> {
    let mut archive = Archive::new(from);
    let mut copy = Builder::new(into);
    let mut kinds: HashMap<String, bool> = HashMap::new();
    let (mut size, mut names, mut long_name, mut last) = (0, 0, None, String::new());
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() && entry.size() <= MAX_NAME {
            let mut name = Vec::new();
            entry.read_to_end(&mut name)?;
            name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
            long_name = Some(name);
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let shown = || String::from_utf8_lossy(&name).chars().take(200).collect::<String>();
        let is_folder = match kind {
            EntryType::Directory => true,
            EntryType::Regular => false,
            _ => return Err(TreeError::Special(shown())),
        };
        let path = checked(&name).ok_or_else(|| TreeError::Name(shown()))?;
        for (at, _) in path.match_indices('/') {
            match kinds.get(&path[..at]) {
                Some(true) => {}
                Some(false) => return Err(TreeError::Twice(shown())),
                None => {
                    names += at;
                    kinds.insert(path[..at].to_owned(), true);
                }
            }
            if names > MAX_NAMES {
                return Err(TreeError::NamesTooLarge);
            }
        }
        names += path.len();
        match kinds.insert(path.to_owned(), is_folder) {
            Some(true) if is_folder => continue,
            Some(_) => return Err(TreeError::Twice(shown())),
            None => {}
        }
        if kinds.len() > MAX_ENTRIES {
            return Err(TreeError::TooMany);
        }
        if names > MAX_NAMES {
            return Err(TreeError::NamesTooLarge);
        }
        size += entry.size();
        if size > MAX_SIZE {
            return Err(TreeError::TooLarge);
        }
        let mut header = Header::new_gnu();
        let is_executable = is_folder || entry.header().mode()? & 0o111 != 0;
        header.set_mode(if is_executable { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(entry.header().mtime()?.min(u64::from(u32::MAX)));
        header.set_entry_type(kind);
        header.set_size(if is_folder { 0 } else { entry.size() });
        let left = header.size()?;
        copy.append_data(&mut header, Path::new(place).join(path), Whole { content: &mut entry, left })?;
        path.clone_into(&mut last);
    }
    copy.into_inner()?.flush()?;
    Ok(last)
}

/// An entry's content. Reading fails when the content ends before `left` bytes were read.
struct Whole<'a> {
    content: &'a mut dyn Read,
    left: u64,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let read = self.content.read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

fn checked(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let is_good = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    (name.split('/').all(is_good) && !name.contains(char::is_control)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of entries that no library would write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6777);
            header.set_mtime(7);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.extend_from_slice(header.as_bytes());
            archive.extend_from_slice(content.as_bytes());
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    fn copied(entries: &[(&str, EntryType, &str)]) -> Result<Vec<(String, u32, u64, String)>, TreeError> {
        let mut copied = Vec::new();
        copy(&mut archive(entries).as_slice(), &mut copied, "usr/site")?;
        let mut archive = Archive::new(copied.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            (name, header.mode().unwrap(), header.mtime().unwrap(), content)
        });
        Ok(entries.collect())
    }

    #[test]
    fn files_and_folders_arrive_below_their_place() {
        let long = "x".repeat(150);
        let given = [
            ("a/", EntryType::Directory, ""),
            ("a/b.py", EntryType::Regular, "content"),
            ("././@LongLink", EntryType::GNULongName, &long),
            ("cut", EntryType::Regular, "long"),
        ];
        let expected = [
            ("usr/site/a".to_owned(), 0o755, 7, String::new()),
            ("usr/site/a/b.py".to_owned(), 0o755, 7, "content".to_owned()),
            (format!("usr/site/{long}"), 0o755, 7, "long".to_owned()),
        ];
        let copied: Vec<_> = copied(&given)
            .unwrap()
            .into_iter()
            .map(|(name, a, b, c)| (name.trim_end_matches('/').to_owned(), a, b, c))
            .collect();
        assert_eq!(copied, expected);
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for name in ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\nb"] {
            assert!(matches!(copied(&[(name, EntryType::Regular, "")]), Err(TreeError::Name(_))), "{name}");
        }
        let kinds = [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::GNUSparse,
            EntryType::GNULongLink,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
            EntryType::Continuous,
        ];
        for kind in kinds {
            assert!(matches!(copied(&[("a", kind, "")]), Err(TreeError::Special(_))), "{kind:?}");
        }
        let (file, folder) = (EntryType::Regular, EntryType::Directory);
        for pair in [
            [("a", file), ("a", file)],
            [("a", file), ("a/b", file)],
            [("a/b", file), ("a", file)],
            [("a", file), ("a", folder)],
        ] {
            let entries = pair.map(|(name, kind)| (name, kind, ""));
            assert!(matches!(copied(&entries), Err(TreeError::Twice(_))), "{entries:?}");
        }
    }

    #[test]
    fn names_are_limited_together() {
        // The checks keep each folder of a path with its whole path.
        let paths: Vec<String> = (0..20).map(|n| format!("{n}{}", "/d".repeat(2040))).collect();
        let entries = |path| [("././@LongLink", EntryType::GNULongName, path), ("cut", EntryType::Regular, "")];
        let given: Vec<_> = paths.iter().flat_map(|path| entries(path.as_str())).collect();
        assert!(copy(&mut archive(&given[..2]).as_slice(), io::sink(), "x").is_ok());
        assert!(matches!(copy(&mut archive(&given).as_slice(), io::sink(), "x"), Err(TreeError::NamesTooLarge)));
    }

    #[test]
    fn a_tree_that_is_cut_off_is_refused() {
        let whole = archive(&[("a", EntryType::Regular, &"x".repeat(2000))]);
        assert!(matches!(copy(&mut &whole[..1000], io::sink(), "x"), Err(TreeError::Io(_))));
    }
}
