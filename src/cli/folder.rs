//! A folder becomes a zip.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ignore::WalkBuilder;
use ignore::gitignore::Gitignore;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The platform takes no more entries than this.
const MAX_FILES: usize = 10_000;

/// All files of a folder but those that git would ignore, in an unnamed file. A link is what it leads to.
pub(super) fn zipped(folder: &Path) -> anyhow::Result<File> {
    // A rule that is none is left out, as the walk does.
    let (ignored, _) = Gitignore::new(folder.join(".gitignore"));
    let zip = ZipWriter::new(tempfile::tempfile()?);
    let mut zipping = Zipping { zip, files: 0, ignored, origins: Vec::new() };
    zipping.add_folder(folder, Path::new(""))?;
    if zipping.files == 0 {
        bail!("{} has no files, or .gitignore names all of them", folder.display());
    }
    Ok(zipping.zip.finish()?)
}

struct Zipping {
    zip: ZipWriter<File>,
    files: usize,
    /// The rules of the folder itself, which hold for what its links lead to, too.
    ignored: Gitignore,
    /// The real folders of the links that led to where we are.
    origins: Vec<PathBuf>,
}

impl Zipping {
    /// Adds what is in a folder, below this name in the zip.
    fn add_folder(&mut self, folder: &Path, below: &Path) -> anyhow::Result<()> {
        // Hidden files are code like any other; `.git` is not.
        let mut walk = WalkBuilder::new(folder);
        walk.hidden(false).require_git(false).filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git");
        for entry in walk.build() {
            let entry = entry?;
            let path = entry.path();
            let name = below.join(path.strip_prefix(folder)?);
            match entry.file_type() {
                // The folder itself may be a link, too.
                _ if entry.depth() == 0 => {}
                kind if self.leaves_out(&name, kind.is_some_and(|kind| kind.is_dir())) => {}
                Some(kind) if kind.is_symlink() => self.add_link(path, &name)?,
                Some(kind) if kind.is_file() => self.add_file(path, &name)?,
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// A walk knows the rules of the folder where it began, and of those above and below that.
    fn leaves_out(&self, name: &Path, is_folder: bool) -> bool {
        !self.origins.is_empty() && self.ignored.matched_path_or_any_parents(name, is_folder).is_ignore()
    }

    fn add_link(&mut self, link: &Path, name: &Path) -> anyhow::Result<()> {
        let shown = || fs::read_link(link).map_or_else(|_| "nowhere".to_owned(), |target| target.display().to_string());
        let unusable = || format!("{} is a link to {}, which can't be read", link.display(), shown());
        let target = link.canonicalize().with_context(unusable)?;
        let kind = fs::metadata(&target).with_context(unusable)?.file_type();
        if kind.is_file() {
            return self.add_file(link, name);
        }
        ensure!(kind.is_dir(), "{} is a link to {}, which is neither a file nor a folder", link.display(), shown());
        let origin = link.parent().unwrap_or(Path::new(".")).canonicalize().with_context(unusable)?;
        self.origins.push(origin);
        let is_loop = self.origins.iter().any(|origin| origin.starts_with(&target));
        ensure!(!is_loop, "{} is a link to {}, which holds the link itself: that has no end", link.display(), shown());
        self.add_folder(link, name)?;
        self.origins.pop();
        Ok(())
    }

    fn add_file(&mut self, path: &Path, name: &Path) -> anyhow::Result<()> {
        self.files += 1;
        ensure!(self.files <= MAX_FILES, "there are more than {MAX_FILES} files, the last of them {}", path.display());
        let unreadable = || format!("can't pack {}", path.display());
        let name = name.to_str().with_context(|| format!("{} has a name that is not UTF-8", path.display()))?;
        let mut file = File::open(path).with_context(unreadable)?;
        let mode = file.metadata().with_context(unreadable)?.permissions().mode() & 0o777;
        self.zip.start_file(name, SimpleFileOptions::default().unix_permissions(mode).large_file(false))?;
        io::copy(&mut file, &mut self.zip).with_context(unreadable)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn contents(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
        let mut zip = zip::ZipArchive::new(zipped(folder)?)?;
        let mut found = BTreeMap::new();
        for index in 0..zip.len() {
            let mut file = zip.by_index(index)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            found.insert(file.name()?.into_owned(), text);
        }
        Ok(found)
    }

    #[test]
    fn links_are_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let code = dir.path().join("code");
        write(code.join("main.py"), "main");
        write(code.join(".gitignore"), "*.log\nleft\nsame\n");
        write(dir.path().join("shared/common.py"), "common");
        write(dir.path().join("shared/lib/a.py"), "a");
        write(dir.path().join("shared/lib/a.log"), "log");
        symlink("../shared/common.py", code.join("common.py")).unwrap();
        symlink("../shared/lib", code.join("lib")).unwrap();
        symlink(dir.path().join("shared/lib"), code.join("again")).unwrap();
        // What git ignores is not looked at, whatever it leads to.
        symlink("nowhere", code.join("left")).unwrap();
        symlink(".", code.join("same")).unwrap();
        let expected = [("again/a.py", "a"), ("common.py", "common"), ("lib/a.py", "a"), ("main.py", "main")];
        let mut found = contents(&code).unwrap();
        found.remove(".gitignore");
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
        // The folder may be given as a link.
        symlink(&code, dir.path().join("link")).unwrap();
        assert_eq!(contents(&dir.path().join("link")).unwrap().len(), 5);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let refused = |make: fn(&Path), expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            let code = dir.path().join("code");
            write(code.join("main.py"), "");
            write(dir.path().join("other/b.py"), "");
            make(&code);
            let error = format!("{:#}", contents(&code).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        refused(
            |code| symlink("../gone.py", code.join("broken.py")).unwrap(),
            "broken.py is a link to ../gone.py, which can't be read",
        );
        refused(|code| symlink("self", code.join("self")).unwrap(), "self is a link to self, which can't be read");
        refused(|code| symlink(".", code.join("loop")).unwrap(), "holds the link itself");
        refused(|code| symlink("..", code.join("up")).unwrap(), "holds the link itself");
        refused(|code| symlink("/dev/null", code.join("null")).unwrap(), "neither a file nor a folder");
        refused(
            |code| {
                symlink("../other", code.join("there")).unwrap();
                symlink("../code", code.parent().unwrap().join("other/back")).unwrap();
            },
            "there/back is a link to ../code, which holds the link itself",
        );
    }
}
