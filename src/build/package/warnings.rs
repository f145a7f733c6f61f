//! Warnings about content of a package that is probably a mistake. [`of`] lists all kinds.

use std::fs;
use std::io;
use std::path::Path;

use super::{Program, dependencies, detect, handler};

/// Files in the zip's root that name dependencies in formats that are not read, in lower case.
const NOT_READ: [&str; 18] = [
    "pipfile",
    "pipfile.lock",
    "poetry.lock",
    "pdm.lock",
    "pylock.toml",
    "environment.yml",
    "environment.yaml",
    "conda.yml",
    "conda.yaml",
    "pixi.toml",
    "setup.py",
    "setup.cfg",
    "requirements.in",
    "requirement.txt",
    "requirements.txt.txt",
    "requirements-dev.txt",
    "requirements.lock",
    "requirements-dev.lock",
];

/// The warnings about the package in `root`, as texts for the uploader.
pub(super) fn of(root: &Path, program: &Program) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    if let Program::Python { entry, .. } = program {
        warnings.extend(dependency_files(root)?);
        let source = detect::start_of(&root.join(entry))?;
        warnings.extend(handler::warning(entry, &String::from_utf8_lossy(&source)));
    }
    Ok(warnings)
}

fn dependency_files(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    let has = |name: &str| names.iter().any(|other| other == name);
    let is_locked = has("uv.lock") && has("pyproject.toml");
    let not_read = names.iter().filter(|name| {
        let lower = name.to_ascii_lowercase();
        let is_other_case = lower == "requirements.txt" && *name != "requirements.txt";
        let is_alone = *name == "uv.lock" && !is_locked;
        is_other_case || is_alone || *name == "requirements.txt" && is_locked || NOT_READ.contains(&lower.as_str())
    });
    let warning = |name: &String| match name.as_str() {
        "requirements.txt" => "requirements.txt is not read, as there is a uv.lock".to_owned(),
        "uv.lock" => "uv.lock is not read, as there is no pyproject.toml beside it".to_owned(),
        name => {
            format!("{name} is not read; dependencies are installed from uv.lock, requirements.txt or pyproject.toml")
        }
    };
    let mut warnings: Vec<String> = not_read.map(warning).collect();
    if has("pyproject.toml") && !is_locked {
        let (is_standard, is_poetry) = dependencies::listed_in(root);
        if has("requirements.txt") && is_standard {
            warnings.push("the dependencies of pyproject.toml are not read, as there is a requirements.txt".to_owned());
        } else if is_poetry && !is_standard && !has("requirements.txt") {
            let about = "pyproject.toml has dependencies for Poetry only, which are not read; list them in \
                         `dependencies` of `[project]`, or in a requirements.txt";
            warnings.push(about.to_owned());
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(files: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("main.py"), "").unwrap();
        for name in files {
            fs::write(dir.path().join(name), "").unwrap();
        }
        in_folder(dir.path())
    }

    fn in_folder(root: &Path) -> Vec<String> {
        let program = Program::Python { entry: "main.py".to_owned(), dependencies: None, package: None };
        of(root, &program).unwrap()
    }

    #[test]
    fn each_dependency_file_that_is_not_read_is_named() {
        assert_eq!(warnings(&["main.py", "requirements.txt", "pyproject.toml"]), [""; 0]);
        assert_eq!(warnings(&["uv.lock", "pyproject.toml"]), [""; 0]);
        let named = warnings(&["Pipfile", "Requirements.txt", "environment.yml", "setup.py", "main.py"]);
        let names: Vec<&str> = named.iter().map(|warning| warning.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["Pipfile", "Requirements.txt", "environment.yml", "setup.py"]);
        let others = ["conda.yaml", "pixi.toml", "requirements-dev.txt", "requirements.lock"];
        assert_eq!(warnings(&others).len(), others.len());
        assert!(warnings(&["uv.lock"])[0].contains("no pyproject.toml"));
        assert!(warnings(&["uv.lock", "pyproject.toml", "requirements.txt"])[0].contains("as there is a uv.lock"));
    }

    #[test]
    fn dependencies_of_a_project_that_are_not_read_are_named() {
        let poetry = "[tool.poetry.dependencies]\npython = \"^3.11\"\nsix = \"*\"\n";
        let standard = "[project]\ndependencies = [\"six\"]\n";
        let dir = tempfile::tempdir().unwrap();
        let check = |project: &str, expected: &[&str]| {
            fs::write(dir.path().join("main.py"), "").unwrap();
            fs::write(dir.path().join("pyproject.toml"), project).unwrap();
            let warnings = in_folder(dir.path());
            let are_expected = warnings.iter().zip(expected).all(|(warning, part)| warning.contains(part));
            assert!(are_expected && warnings.len() == expected.len(), "{project}: {warnings:?}");
        };
        check(poetry, &["for Poetry only"]);
        check("[tool.poetry.dependencies]\npython = \"^3.11\"\n", &[]);
        check(standard, &[]);
        check(&format!("{standard}{poetry}"), &[]);
        fs::write(dir.path().join("requirements.txt"), "six\n").unwrap();
        check(standard, &["as there is a requirements.txt"]);
        check(poetry, &[]);
        check("[project]\ndependencies = []\n", &[]);
    }
}
