//! The stdin of a download container: an archive with the request, the environment and the files. Pure.

use std::io;

use serde_json::json;
use tar::{Builder, Header};

use crate::build::package::{RequirementFile, Requirements, Role};
use crate::config::Secret;

/// The service's own variables that downloads see, with their values.
type Environment = [(String, Secret)];

/// A request to `runtimes/python/download.py`.
#[derive(Debug)]
pub(super) enum Request {
    /// Fetch the installer, uv.
    Tool { environment: Vec<(String, Secret)>, uv: &'static str },
    /// Export the requirements from a lock.
    Export { lock: String, project: String },
    /// Install packages.
    Install { environment: Vec<(String, Secret)>, requirements: Requirements, source_builds: bool },
}

impl Request {
    /// The request as the archive that the container reads from stdin.
    pub(super) fn input(&self) -> io::Result<Vec<u8>> {
        let (request, files): (_, Vec<(String, &str)>) = match self {
            Self::Tool { environment, uv } => {
                (json!({"action": "tool", "environment": object(environment), "uv": uv}), Vec::new())
            }
            Self::Export { lock, project } => {
                let files =
                    vec![("uv.lock".to_owned(), lock.as_str()), ("pyproject.toml".to_owned(), project.as_str())];
                (json!({"action": "export"}), files)
            }
            Self::Install { environment, requirements, source_builds } => {
                let of = |role: Role| {
                    requirements
                        .files
                        .iter()
                        .filter(move |file| file.role == role)
                        .map(|file| written(&file.name, &requirements.files))
                };
                let request = json!({
                    "action": "install",
                    "environment": object(environment),
                    "requirements": of(Role::Requirements).collect::<Vec<_>>(),
                    "constraints": of(Role::Constraints).collect::<Vec<_>>(),
                    "prereleases": requirements.prereleases,
                    "requireHashes": requirements.require_hashes,
                    "sourceBuilds": source_builds,
                });
                (
                    request,
                    requirements
                        .files
                        .iter()
                        .map(|file| (written(&file.name, &requirements.files), file.text.as_str()))
                        .collect(),
                )
            }
        };
        let request = request.to_string();
        let files = files.iter().map(|(name, text)| (format!("files/{name}"), *text));
        archive([("request.json".to_owned(), request.as_str())].into_iter().chain(files))
    }
}

/// The archive that `runtimes/go/download.sh` reads from stdin.
pub(super) fn go(environment: &Environment, files: &[(String, String)]) -> io::Result<Vec<u8>> {
    let variables = environment.iter().map(|(name, Secret(value))| (format!("env/{name}"), value.as_str()));
    let files = files.iter().map(|(path, text)| (format!("files/{path}"), text.as_str()));
    archive(variables.chain(files))
}

/// The name of a requirement file in the archive. The name ends in `.txt`, so that an installer takes the file for no
/// other format, and no other file has the same name.
fn written(name: &str, files: &[RequirementFile]) -> String {
    let mut written = name.to_owned();
    while !name.ends_with(".txt") && (written == name || files.iter().any(|file| file.name.starts_with(&written))) {
        written += ".requirements.txt";
    }
    written
}

fn object(environment: &Environment) -> serde_json::Value {
    environment.iter().map(|(name, Secret(value))| (name.clone(), value.clone())).collect()
}

fn archive<'a>(files: impl Iterator<Item = (String, &'a str)>) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requirement_files_are_written_to_one_place() {
        let names = ["a", "a.requirements.txt", "b.in", "c.txt"];
        let file =
            |name: &str| RequirementFile { name: name.to_owned(), role: Role::Requirements, text: String::new() };
        let files = names.map(file);
        let written = names.map(|name| written(name, &files));
        let expected = ["a.requirements.txt.requirements.txt", "a.requirements.txt", "b.in.requirements.txt", "c.txt"];
        assert_eq!(written, expected);
    }
}
