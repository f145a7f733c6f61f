//! The same programs without the platform.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::service::Function;

/// A program as a person runs the program by hand.
pub(crate) struct ByHand {
    image: String,
    entrypoint: &'static [&'static str],
    arguments: &'static [&'static str],
    host: Vec<PathBuf>,
}

impl ByHand {
    pub(crate) fn new(language: &str, function: &Function, dir: &Path) -> Result<Self> {
        let image = function.image.clone();
        if language == "python" {
            let host = vec![python().into(), "examples/python-hello/main.py".into()];
            return Ok(Self { image, entrypoint: &["--entrypoint=python3"], arguments: &["main.py"], host });
        }
        let binary = binary(function, dir)?;
        Ok(Self { image, entrypoint: &["--entrypoint=/function"], arguments: &[], host: vec![binary] })
    }

    pub(crate) fn on_the_host(&self) -> Result<Duration> {
        let mut command = Command::new(&self.host[0]);
        command.args(&self.host[1..]).env("NAME", "John");
        timed(command)
    }

    /// The platform's container with the program and without the supervisor. With the labels of the image, the service
    /// could take the container for a leftover.
    pub(crate) fn docker_run(&self) -> Result<Duration> {
        let sandbox = "run --rm -i --label=youtube-serverless.platform= --network=none --read-only \
                       --cap-drop=ALL --security-opt=no-new-privileges --log-driver=none \
                       --user=70000:70000 --memory=128000000 --memory-swap=128000000 --cpus=1 --pids-limit=64 \
                       --ulimit=nofile=1024:1024 --ulimit=core=0:0 --oom-score-adj=500 --env=NAME=John \
                       --tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size=64000000";
        let mut command = Command::new("docker");
        command.args(sandbox.split_whitespace()).args(self.entrypoint).arg(&self.image).args(self.arguments);
        timed(command)
    }
}

/// The interpreter of this machine. A shim of a version manager would take longer than the interpreter.
pub(crate) fn python() -> &'static str {
    let known = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists());
    known.unwrap_or("python3")
}

/// Copies the binary of a function in Go into a folder.
pub(crate) fn binary(function: &Function, dir: &Path) -> Result<PathBuf> {
    let binary = dir.join("function");
    let script = "id=$(docker create --label youtube-serverless.platform= \"$1\") && \
                  docker cp -q \"$id:/function\" \"$2\" 2>/dev/null || docker cp \"$id:/function\" \"$2\"; \
                  docker rm \"$id\"";
    let copied =
        Command::new("sh").args(["-c", script, "sh", &function.image]).arg(&binary).stdout(Stdio::null()).status()?;
    ensure!(copied.success() && binary.exists(), "failed to copy the Go binary out of its image");
    Ok(binary)
}

/// Runs a program that greets John, and returns the time.
pub(crate) fn timed(mut command: Command) -> Result<Duration> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let elapsed = started.elapsed();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = (output.status, text(&output.stdout), text(&output.stderr));
    ensure!(output.stdout == b"Hello, John!\n", "{command:?}: {told:?}");
    Ok(elapsed)
}
