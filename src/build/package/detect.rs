//! Determines a package's language and the program to run.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use super::Dependencies;
use crate::domain::Language;

/// The program to build and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A Python program.
    Python {
        /// The file to run, in the package's root.
        entry: String,
        /// The dependencies to install for the program.
        dependencies: Option<Dependencies>,
        /// The name of the zip's single top-level folder, if Python can import a package of that name: the program may
        /// import its own modules from that package.
        package: Option<String>,
    },
    /// A Go program.
    Go {
        /// Whether the root has a `go.mod`.
        module: bool,
        /// The files that say which modules to download, as paths and texts. Empty when no module has to be downloaded.
        modules: Vec<(String, String)>,
    },
}

impl Program {
    /// The program's language.
    pub fn language(&self) -> Language {
        match self {
            Self::Python { .. } => Language::Python,
            Self::Go { .. } => Language::Go,
        }
    }
}

/// Why the program to run could not be determined.
#[derive(Debug, Error)]
pub enum DetectError {
    /// The root has no file of either language.
    #[error(
        "found neither Python nor Go in the zip's root ({found}); the root needs a main.py, or a main.go \
         of package main"
    )]
    Nothing {
        /// The names of the files in the root.
        found: String,
    },
    /// The root has files of both languages.
    #[error("found both Python ({python}) and Go ({go}); set the form field `language` to `python` or `golang`")]
    Both {
        /// A Python file.
        python: String,
        /// A Go file.
        go: String,
    },
    /// The root has no file of the uploader's language.
    #[error(
        "`language` is {language}, but the zip's root has nothing to run in that language ({found})",
        language = .language.as_str()
    )]
    NotThere {
        /// The uploader's language.
        language: Language,
        /// The names of the files in the root.
        found: String,
    },
    /// The root has several Python files, and none has the name of a main file.
    #[error("found several Python files ({found}) and can't tell which to run; name one of them main.py")]
    Entry {
        /// The names of the Python files.
        found: String,
    },
    /// The file that the uploader has named as the entry is not there.
    #[error("`entry` is {entry:?}, but the zip's root has no Python file of that name ({found})")]
    NoEntry {
        /// The uploader's choice.
        entry: String,
        /// The names of the files in the root.
        found: String,
    },
    /// The uploader has named an entry for a compiled program.
    #[error("`entry` is {0:?}, but a Go program has no entry: the package main in the zip's root runs")]
    GoEntry(String),
    /// The folder can't be read.
    #[error("failed to read the package")]
    Io(#[from] io::Error),
}

/// How many bytes of a file are read at most. A package clause stands within this many bytes, whatever comments precede
/// the clause.
const MAX_START: u64 = 1 << 20;

/// The names of the file to run, the best name first.
const ENTRIES: [&str; 6] = ["main.py", "__main__.py", "handler.py", "app.py", "index.py", "lambda_function.py"];

/// Determines the program to run from the files in `root`, and from the uploader's choice of the language and of the
/// file to run. `stripped` is the name of the zip's single top-level folder,
/// if the zip has such a folder.
pub(super) fn detect(
    root: &Path,
    (language, entry): (Option<Language>, Option<&str>),
    stripped: Option<&str>,
) -> Result<Program, DetectError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().into_string().expect("names in a package are UTF-8"));
        }
    }
    names.sort_unstable();
    let python: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.ends_with(".py")).collect();
    let module = names.iter().any(|name| name == "go.mod");
    let mut go = module.then_some("go.mod");
    for name in names.iter().filter(|name| name.ends_with(".go") && !name.ends_with("_test.go")) {
        if go.is_none() && is_package_main(&start_of(&root.join(name))?) {
            go = Some(name);
        }
    }
    let chosen = match (language, python.first(), go) {
        (Some(Language::Python), Some(_), _) | (None, Some(_), None) => Language::Python,
        (Some(Language::Go), _, Some(_)) | (None, None, Some(_)) => Language::Go,
        (Some(language), ..) => return Err(DetectError::NotThere { language, found: some_of(&names) }),
        (None, None, None) => return Err(DetectError::Nothing { found: some_of(&names) }),
        // A go.mod declares a Go program: a Python script beside the go.mod does not count.
        (None, Some(_), Some("go.mod")) => Language::Go,
        (None, Some(python), Some(go)) => {
            return Err(DetectError::Both { python: (*python).to_owned(), go: go.to_owned() });
        }
    };
    Ok(match chosen {
        Language::Go => {
            if let Some(entry) = entry {
                return Err(DetectError::GoEntry(entry.chars().take(64).collect()));
            }
            Program::Go { module, modules: Vec::new() }
        }
        Language::Python => {
            let entry = match entry {
                Some(entry) if python.contains(&entry) => entry.to_owned(),
                Some(entry) => {
                    let entry = entry.chars().take(64).collect();
                    return Err(DetectError::NoEntry { entry, found: some_of(&names) });
                }
                None => choose_entry(&python)?,
            };
            let package = stripped.filter(|name| is_identifier(name)).map(str::to_owned);
            // The files that name dependencies are read later.
            Program::Python { entry, dependencies: None, package }
        }
    })
}

fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn choose_entry(python: &[&str]) -> Result<String, DetectError> {
    let known = ENTRIES.into_iter().find(|entry| python.contains(entry));
    match (known, python) {
        (Some(entry), _) | (None, &[entry]) => Ok(entry.to_owned()),
        (None, _) => Err(DetectError::Entry { found: some_of(python) }),
    }
}

fn some_of(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "no files there".to_owned(),
        n if n > SHOWN => format!("{}, and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}

pub(super) fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(MAX_START).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether Go source has `package main` as its package clause, which only comments may precede.
fn is_package_main(source: &[u8]) -> bool {
    let source = String::from_utf8_lossy(source);
    let mut rest = source.trim_start_matches('\u{feff}').trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("//") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        }
        .trim_start();
    }
    let mut words = rest.splitn(2, char::is_whitespace);
    let is_clause = words.next() == Some("package");
    let name = words.next().unwrap_or_default().trim_start();
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    is_clause && &name[..end] == "main"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(files: &[(&str, &str)], language: Option<Language>) -> Result<Program, DetectError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        detect(dir.path(), (language, None), None)
    }

    #[track_caller]
    fn check_entry(files: &[&str], expected: &str) {
        let files: Vec<(&str, &str)> = files.iter().map(|&name| (name, "")).collect();
        match detected(&files, None) {
            Ok(Program::Python { entry, .. }) => assert_eq!(entry, expected),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_refused(files: &[(&str, &str)], language: Option<Language>, expected: &str) {
        let error = detected(files, language).expect_err("it is unclear").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_entry_is_found_in_the_order_of_the_contract() {
        check_entry(&["main.py", "__main__.py", "handler.py"], "main.py");
        check_entry(&["app.py", "__main__.py", "handler.py"], "__main__.py");
        check_entry(&["app.py", "handler.py", "index.py"], "handler.py");
        check_entry(&["lambda_function.py", "index.py", "app.py"], "app.py");
        check_entry(&["lambda_function.py", "index.py"], "index.py");
        check_entry(&["lambda_function.py", "other.py"], "lambda_function.py");
        check_entry(&["whatever it is.py"], "whatever it is.py");
        check_refused(&[("a.py", ""), ("b.py", "")], None, "several Python files (a.py, b.py)");
    }

    #[test]
    fn what_the_build_must_know_is_noticed() {
        let alone = Program::Python { entry: "main.py".to_owned(), dependencies: None, package: None };
        assert_eq!(detected(&[("main.py", ""), ("data.json", "")], None).unwrap(), alone);
        let all = Program::Python { entry: "main.py".to_owned(), dependencies: None, package: None };
        assert_eq!(detected(&[("main.py", ""), ("requirements.txt", ""), ("lib/a.py", "")], None).unwrap(), all);
        assert_eq!(
            detected(&[("main.go", "package main")], None).unwrap(),
            Program::Go { module: false, modules: Vec::new() }
        );
        assert_eq!(
            detected(&[("go.mod", ""), ("x.go", "")], None).unwrap(),
            Program::Go { module: true, modules: Vec::new() }
        );
    }

    #[test]
    fn a_top_folder_is_a_package() {
        let package = |entry: &str, stripped: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(entry), "").unwrap();
            match detect(dir.path(), (None, None), Some(stripped)) {
                Ok(Program::Python { package, .. }) => package,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(package("__main__.py", "my_app"), Some("my_app".to_owned()));
        assert_eq!(package("main.py", "my_app"), Some("my_app".to_owned()));
        for name in ["my-app", "1app", "a b", "a$(id)"] {
            assert_eq!(package("__main__.py", name), None, "{name}");
        }
    }

    #[test]
    fn the_uploader_can_name_the_entry() {
        let named = |entry: &str, language| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in [("main.py", ""), ("job.py", ""), ("main.go", "package main")] {
                fs::write(dir.path().join(name), text).unwrap();
            }
            detect(dir.path(), (Some(language), Some(entry)), None).map_err(|error| error.to_string())
        };
        let Ok(Program::Python { entry, .. }) = named("job.py", Language::Python) else { panic!() };
        assert_eq!(entry, "job.py");
        for entry in ["other.py", "../job.py", "main.go", ""] {
            assert!(named(entry, Language::Python).unwrap_err().contains("no Python file of that name"), "{entry}");
        }
        assert!(named("main.go", Language::Go).unwrap_err().contains("a Go program has no entry"));
    }

    #[test]
    fn two_languages_need_a_word() {
        let both = [("main.py", ""), ("main.go", "package main")];
        check_refused(&both, None, "both Python (main.py) and Go (main.go); set the form field `language`");
        assert_eq!(detected(&both, Some(Language::Go)).unwrap().language(), Language::Go);
        assert_eq!(detected(&both, Some(Language::Python)).unwrap().language(), Language::Python);
        let module = [("main.py", ""), ("go.mod", "")];
        assert_eq!(detected(&module, None).unwrap().language(), Language::Go);
        check_refused(&[("main.py", "")], Some(Language::Go), "`language` is golang, but");
        check_refused(&[("a.txt", ""), ("lib/main.py", "")], None, "(a.txt)");
        check_refused(&[], None, "no files there");
    }

    #[test]
    fn a_go_file_counts_by_its_package_clause() {
        assert!(is_package_main(b"package main\n"));
        assert!(is_package_main(b"\xef\xbb\xbf// Comment\n/* More\npackage other */\npackage\tmain; import \"fmt\""));
        assert!(!is_package_main(b"package mainly\n"));
        assert!(!is_package_main(b"package lib // package main"));
        assert!(!is_package_main(b"// package main"));
        assert!(!is_package_main(b"/* package main"));
        assert!(!is_package_main(b""));
        check_refused(&[("lib.go", "package lib"), ("main_test.go", "package main")], None, "neither Python nor Go");
    }
}
