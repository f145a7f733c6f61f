//! Finds the files that say which Go modules a program needs beside its own. Downloads nothing.

use std::fs;
use std::path::Path;

use super::PackageError;

/// How long a file may be, in bytes. A longer file is left out.
const MAX_FILE: u64 = 4 << 20;
/// How much content the files may have together, in bytes.
pub(super) const MAX_TOTAL: u64 = 8 << 20;
/// The files by which Go knows the modules that a program needs, and their hashes.
const FILES: [&str; 4] = ["go.mod", "go.sum", "go.work", "go.work.sum"];

/// The files of a program's folder that say which modules the program needs, as paths and texts. Empty when no module
/// has to be downloaded.
pub(super) fn find(root: &Path) -> Result<Vec<(String, String)>, PackageError> {
    if root.join("vendor").is_dir() || !root.join("go.mod").is_file() && !root.join("go.work").is_file() {
        return Ok(Vec::new());
    }
    let (mut found, mut total) = (Vec::new(), 0);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).map_err(PackageError::Io)? {
            let entry = entry.map_err(PackageError::Io)?;
            let name = entry.file_name().into_string().expect("names in a package are UTF-8");
            let path = format!("{folder}{name}");
            let data = entry.metadata().map_err(PackageError::Io)?;
            if data.is_dir() {
                folders.push(format!("{path}/"));
            } else if FILES.contains(&name.as_str()) && data.len() <= MAX_FILE {
                total += data.len();
                if total > MAX_TOTAL {
                    return Err(PackageError::ModulesTooLarge);
                }
                let content = fs::read(entry.path()).map_err(PackageError::Io)?;
                found.push((path, String::from_utf8_lossy(&content).into_owned()));
            }
        }
    }
    found.sort_unstable();
    let is_wanted = found.iter().any(|(path, text)| path.ends_with("go.mod") && requires(text));
    Ok(if is_wanted { found } else { Vec::new() })
}

/// Whether a `go.mod` has a requirement.
fn requires(text: &str) -> bool {
    text.lines()
        .any(|line| line.trim_start().strip_prefix("require").is_some_and(|rest| rest.starts_with([' ', '\t', '('])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), content).unwrap();
        }
        find(dir.path()).unwrap().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_says_which_modules_are_wanted_is_found() {
        let module = "module x\n\ngo 1.19\n\nrequire example.com/y v1.0.0\n";
        let several = "module x\n\nrequire (\n\texample.com/y v1.0.0\n)\n";
        assert_eq!(found(&[("go.mod", module), ("go.sum", ""), ("main.go", "")]), ["go.mod", "go.sum"]);
        let workspace = [("go.work", "use ./lib"), ("lib/go.mod", several), ("lib/lib.go", "")];
        assert_eq!(found(&workspace), ["go.work", "lib/go.mod"]);
        assert_eq!(found(&[("go.mod", module), ("vendor/modules.txt", "")]), [""; 0]);
        assert_eq!(found(&[("go.mod", "module x\n\ngo 1.19\n// require y\n")]), [""; 0]);
        assert_eq!(found(&[("main.go", "")]), [""; 0]);
    }

    #[test]
    fn files_are_limited_together() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("go.mod"), "module x\n\nrequire example.com/y v1.0.0\n").unwrap();
        let large = vec![b'/'; MAX_FILE as usize];
        for n in 0..3 {
            assert!(find(dir.path()).is_ok(), "{n}");
            fs::create_dir(dir.path().join(n.to_string())).unwrap();
            fs::write(dir.path().join(n.to_string()).join("go.sum"), &large[100..]).unwrap();
        }
        assert!(matches!(find(dir.path()), Err(PackageError::ModulesTooLarge)));
    }
}
