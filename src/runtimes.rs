//! What goes into the runtime image of each language: a Dockerfile, and the bootstrap that runs each invocation.
//! Beside these files stands the program that downloads packages.

use crate::domain::Language;

/// The build context of a language's runtime image: the files as names and contents.
pub fn image_files(language: Language) -> Files {
    match language {
        Language::Python => PYTHON,
        Language::Go => GO,
    }
}

/// The Dockerfile of the image of a language's slots, which is made from a runtime image. None where the runtime image
/// itself serves.
pub fn slot_dockerfile(language: Language) -> Option<&'static str> {
    match language {
        Language::Python => None,
        Language::Go => Some(GO_SLOT),
    }
}

/// As the last stage of a function's image, but without the function.
const GO_SLOT: &str = "FROM {runtime} AS runtime
FROM scratch
COPY --from=runtime /slot/ /
ENV HOME=/tmp TMPDIR=/tmp
WORKDIR /app
ENTRYPOINT [\"/bootstrap\"]
";

/// The program that downloads a function's packages, in a container of its own.
pub fn download_program(language: Language) -> &'static str {
    match language {
        Language::Python => include_str!("runtimes/python/download.py"),
        Language::Go => include_str!("runtimes/go/download.sh"),
    }
}

/// Files as names and contents.
pub type Files = &'static [(&'static str, &'static str)];

const PYTHON: Files = &[
    ("Dockerfile", include_str!("runtimes/python/Dockerfile")),
    ("bootstrap.py", include_str!("runtimes/python/bootstrap.py")),
    ("child.py", include_str!("runtimes/python/child.py")),
    ("clone.py", include_str!("runtimes/python/clone.py")),
    ("control.py", include_str!("runtimes/python/control.py")),
    ("doors.py", include_str!("runtimes/python/doors.py")),
    ("guard.py", include_str!("runtimes/python/guard.py")),
    ("immortal.py", include_str!("runtimes/python/immortal.py")),
    ("imports.py", include_str!("runtimes/python/imports.py")),
    ("inheritance.py", include_str!("runtimes/python/inheritance.py")),
    ("leftovers.py", include_str!("runtimes/python/leftovers.py")),
    ("output.py", include_str!("runtimes/python/output.py")),
    ("plan.py", include_str!("runtimes/python/plan.py")),
    ("preload.py", include_str!("runtimes/python/preload.py")),
    ("program.py", include_str!("runtimes/python/program.py")),
    ("protocol.py", include_str!("runtimes/python/protocol.py")),
    ("rehearsal.py", include_str!("runtimes/python/rehearsal.py")),
    ("relay.py", include_str!("runtimes/python/relay.py")),
    ("seeds.py", include_str!("runtimes/python/seeds.py")),
    ("stash.py", include_str!("runtimes/python/stash.py")),
    ("supervisor.py", include_str!("runtimes/python/supervisor.py")),
    ("traces.py", include_str!("runtimes/python/traces.py")),
    ("trial.py", include_str!("runtimes/python/trial.py")),
    ("zygote.py", include_str!("runtimes/python/zygote.py")),
];

const GO: Files = &[
    ("Dockerfile", include_str!("runtimes/go/Dockerfile")),
    ("bootstrap.go", include_str!("runtimes/go/bootstrap.go")),
    ("child.go", include_str!("runtimes/go/child.go")),
    ("doors.go", include_str!("runtimes/go/doors.go")),
    ("events.go", include_str!("runtimes/go/events.go")),
    ("inheritance.go", include_str!("runtimes/go/inheritance.go")),
    ("leftovers.go", include_str!("runtimes/go/leftovers.go")),
    ("memory.go", include_str!("runtimes/go/memory.go")),
    ("park.go", include_str!("runtimes/go/park.go")),
    ("parked.go", include_str!("runtimes/go/parked.go")),
    ("protocol.go", include_str!("runtimes/go/protocol.go")),
    ("within_memory.go", include_str!("runtimes/go/within_memory.go")),
    ("calls_amd64.go", include_str!("runtimes/go/calls_amd64.go")),
    ("calls_arm64.go", include_str!("runtimes/go/calls_arm64.go")),
    ("go.mod.txt", include_str!("runtimes/go/go.mod.txt")),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is missing in the list would be missed only when a container starts.
    #[test]
    fn each_file_of_a_runtime_is_in_its_image() {
        for (folder, files, other) in [("python", PYTHON, "download.py"), ("go", GO, "download.sh")] {
            let folder = format!("{}/src/runtimes/{folder}", env!("CARGO_MANIFEST_DIR"));
            let found =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<String> = found.filter(|name| name != other).collect();
            let mut listed: Vec<&str> = files.iter().map(|&(name, _)| name).collect();
            found.sort();
            listed.sort_unstable();
            assert_eq!(found, listed);
        }
    }
}
