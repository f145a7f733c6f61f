//! Reads a Python program's dependencies from the first file in the root that lists any. Installs nothing.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::refusal::DependencyError;
use super::requirements::{self, Requirements};

/// How long a requirement file or `pyproject.toml` may be, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// How long a lock, which lists the hashes of each package's files, may be, in bytes.
pub(super) const MAX_LOCK: u64 = 8 << 20;

/// The dependencies to install for a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dependencies {
    /// Requirements from requirement files or from a `pyproject.toml`.
    Requirements(Requirements),
    /// A `uv.lock`, from which requirements are to be exported.
    Lock {
        /// The text of `uv.lock`.
        lock: String,
        /// The text of the lock's `pyproject.toml`.
        project: String,
    },
}

/// Finds the dependencies of the program in `root`. None when there is nothing to install.
pub(super) fn find(root: &Path) -> Result<Option<Dependencies>, DependencyError> {
    let has = |name: &str| root.join(name).is_file();
    if has("uv.lock") && has("pyproject.toml") {
        let (lock, project) = (read(root, "uv.lock", MAX_LOCK)?, read(root, "pyproject.toml", MAX_FILE)?);
        return Ok(Some(Dependencies::Lock { lock, project }));
    }
    let requirements = if has("requirements.txt") {
        requirements::of_files(&|name| read(root, name, MAX_FILE), &|name| has(name), "requirements.txt")?
    } else if has("pyproject.toml") {
        of_project(&read(root, "pyproject.toml", MAX_FILE)?)?
    } else {
        return Ok(None);
    };
    Ok((!requirements.is_empty()).then_some(Dependencies::Requirements(requirements)))
}

/// The `[project] dependencies` of a `pyproject.toml`; empty when the file has no `[project]`.
fn of_project(text: &str) -> Result<Requirements, DependencyError> {
    let bad = |reason: &str| DependencyError::Project(reason.to_owned());
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| bad(error.message()))?;
    let Some(project) = table.get("project") else { return Ok(Requirements::default()) };
    let project = project.as_table().ok_or_else(|| bad("`project` is not a table"))?;
    let dynamic = project.get("dynamic").and_then(toml::Value::as_array);
    if dynamic.is_some_and(|names| names.iter().any(|name| name.as_str() == Some("dependencies"))) {
        return Err(DependencyError::Dynamic);
    }
    let Some(listed) = project.get("dependencies") else { return Ok(Requirements::default()) };
    let listed = listed.as_array().ok_or_else(|| bad("`dependencies` is not a list"))?;
    let texts: Option<Vec<&str>> = listed.iter().map(toml::Value::as_str).collect();
    let texts = texts.ok_or_else(|| bad("`dependencies` has something else than texts"))?;
    let sources = table.get("tool").and_then(|tool| tool.get("uv")?.get("sources")?.as_table());
    let is_wanted = |name: &str| texts.iter().any(|text| normal(name_of(text)) == normal(name));
    let mut local = sources.into_iter().flatten().filter(|(_, source)| is_local(source)).map(|(name, _)| name);
    if let Some(name) = local.find(|name| is_wanted(name)) {
        return Err(DependencyError::LocalSource(name.clone()));
    }
    requirements::of_list("pyproject.toml", &texts)
}

/// Whether a source for uv, or an entry in a list of sources, is a path or a member of the workspace.
fn is_local(source: &toml::Value) -> bool {
    match source.as_array() {
        Some(several) => several.iter().any(is_local),
        None => source.get("path").is_some() || source.get("workspace").is_some(),
    }
}

/// The package name that a requirement begins with.
fn name_of(requirement: &str) -> &str {
    let requirement = requirement.trim_start();
    let end = requirement.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(requirement.len());
    &requirement[..end]
}

/// The normal form of a package's name: two names of the same package have the same normal form.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Whether a `pyproject.toml` lists dependencies in the standard's form, and whether in Poetry's form.
pub(super) fn listed_in(root: &Path) -> (bool, bool) {
    let text = read(root, "pyproject.toml", MAX_FILE).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let standard = table.get("project").and_then(|project| project.get("dependencies")?.as_array());
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")?.as_table());
    let is_some = |dependencies: Option<&toml::Value>| {
        let mut names = dependencies.and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        names.any(|name| !name.eq_ignore_ascii_case("python"))
    };
    let of_poetry = poetry.is_some_and(|poetry| is_some(poetry.get("dependencies")));
    (standard.is_some_and(|listed| !listed.is_empty()), of_poetry)
}

/// Reads a file's text, in any of the encodings that `decoded` knows.
fn read(root: &Path, name: &str, limit: u64) -> Result<String, DependencyError> {
    let mut bytes = Vec::new();
    File::open(root.join(name))?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(DependencyError::TooLarge { file: name.to_owned(), limit });
    }
    decoded(&bytes).ok_or_else(|| DependencyError::Encoding { file: name.to_owned() })
}

/// Decodes UTF-8 with or without a byte order mark, or UTF-16 with a byte order mark. Each kind of line end becomes
/// `\n`.
fn decoded(bytes: &[u8]) -> Option<String> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().copied().map(unit).collect();
        rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
    };
    let text = match bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        [0xff, 0xfe, text @ ..] => utf_16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf_16(text, u16::from_be_bytes),
        text => String::from_utf8(text.to_vec()).ok(),
    };
    text.map(|text| text.replace("\r\n", "\n").replace('\r', "\n"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[(&str, &[u8])]) -> Result<Option<Dependencies>, DependencyError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), content).unwrap();
        }
        find(dir.path())
    }

    #[track_caller]
    fn texts(files: &[(&str, &[u8])]) -> Vec<String> {
        match found(files).unwrap() {
            Some(Dependencies::Requirements(found)) => found.files.into_iter().map(|file| file.text).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn utf_16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect()
    }

    #[test]
    fn every_encoding_that_tools_write_is_read() {
        let text = "six==1.16.0\r\nattrs\r\n";
        let encodings = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            utf_16(text, u16::to_le_bytes),
            utf_16(text, u16::to_be_bytes),
        ];
        for bytes in encodings {
            assert_eq!(texts(&[("requirements.txt", &bytes)]), ["six==1.16.0\nattrs\n"]);
        }
        for bytes in [&b"six\xe9"[..], b"\xff\xfes", b"\xff\xfe\x00\xd8"] {
            assert!(
                matches!(found(&[("requirements.txt", bytes)]), Err(DependencyError::Encoding { .. })),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn the_first_file_that_says_so_counts() {
        let project =
            b"[project]\nname = 'x'\nversion = '1'\ndependencies = ['attrs>=1', 'six ; python_version > \"3\"']\n";
        assert_eq!(texts(&[("pyproject.toml", project)]), ["attrs>=1\nsix ; python_version > \"3\"\n"]);
        assert_eq!(texts(&[("pyproject.toml", project), ("requirements.txt", b"six")]), ["six\n"]);
        let locked = [("pyproject.toml", &project[..]), ("requirements.txt", b"six"), ("uv.lock", b"version = 1")];
        assert!(matches!(found(&locked).unwrap(), Some(Dependencies::Lock { .. })));
        assert_eq!(texts(&[("requirements.txt", b"six"), ("uv.lock", b"version = 1")]), ["six\n"]);
        let other =
            b"[project]\ndependencies = ['six']\n[tool.uv.sources]\nx = { path = 'x' }\nsix = { index = 'one' }\n";
        assert_eq!(texts(&[("pyproject.toml", other)]), ["six\n"]);
        for none in ["", "# nothing\n\n", "--index-url https://example.org\n"] {
            assert_eq!(found(&[("requirements.txt", none.as_bytes())]).unwrap(), None);
        }
        assert_eq!(found(&[("pyproject.toml", b"[tool.black]\nline-length = 100\n")]).unwrap(), None);
        assert_eq!(found(&[("main.py", b"")]).unwrap(), None);
    }

    #[test]
    fn a_project_that_cannot_be_read_is_refused() {
        for (text, expected) in [
            ("[project]\nname = 'x'\ndynamic = ['version', 'dependencies']\n", "`dynamic`"),
            ("[project\n", "pyproject.toml: "),
            ("project = 1\n", "`project` is not a table"),
            ("[project]\ndependencies = 'six'\n", "`dependencies` is not a list"),
            ("[project]\ndependencies = [1]\n", "something else than texts"),
            ("[project]\ndependencies = ['six', '-e .']\n", "pyproject.toml, dependency 2: "),
            ("[project]\ndependencies = [\"six\\n-e .\"]\n", "pyproject.toml, dependency 1: "),
            ("[project]\ndependencies = ['x @ file:///etc/x.whl']\n", "file or folder"),
            (
                "[project]\ndependencies = ['My_Lib>=1']\n[tool.uv.sources]\nmy-lib = { path = './lib' }\n",
                "takes \"my-lib\" from",
            ),
            (
                "[project]\ndependencies = ['x']\n[tool.uv.sources]\nx = [{ workspace = true }]\n",
                "takes \"x\" from a folder",
            ),
        ] {
            let error = found(&[("pyproject.toml", text.as_bytes())]).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn large_files_are_refused() {
        let large = vec![b'#'; MAX_FILE as usize + 1];
        assert!(matches!(found(&[("requirements.txt", &large)]), Err(DependencyError::TooLarge { .. })));
    }
}
