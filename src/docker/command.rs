//! Runs one docker command to its end. The only place that makes a process.
//!
//! A command has a deadline, its output is drained at once and kept within a cap, and it leads a process group of
//! its own: a Ctrl-C in the terminal must not reach `docker run` before we do, and `docker build` may have children.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::DockerError;

/// Of a longer output the tail is kept, of each stream.
const MAX_KEPT: usize = 8 << 20;
/// After the command's end: how long something that inherited its pipes may keep them open.
const LEAK_LIMIT: Duration = Duration::from_secs(2);

/// What a command said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A `docker` command, yet without arguments; the only use of [`tokio::process::Command::new`].
pub(super) fn docker() -> tokio::process::Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let mut command = tokio::process::Command::new("docker");
    // `kill_on_drop` is a net only: each path below ends in `wait`.
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs `docker ARGS`; kills it at `limit`, or when `stop` is cancelled.
pub(super) async fn run<A: AsRef<OsStr>>(
    args: impl IntoIterator<Item = A>,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<Output, DockerError> {
    let mut command = docker();
    command.args(args);
    run_to_end(command, limit, stop).await
}

/// The same with a command that was prepared.
pub(super) async fn run_to_end(
    mut command: tokio::process::Command,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<Output, DockerError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(DockerError::Spawn)?;
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        let drained = async { tokio::join!(read_tail(&mut stdout, &mut out), read_tail(&mut stderr, &mut err)) };
        tokio::pin!(drained);
        let finished = async {
            let status = tokio::select! {
                status = child.wait() => status,
                _ = &mut drained => return child.wait().await,
            };
            // A pipe that is still open now is held by a process that outlived the command.
            let _ = tokio::time::timeout(LEAK_LIMIT, &mut drained).await;
            status
        };
        tokio::select! {
            status = finished => Ok(status.map_err(DockerError::Spawn)?),
            () = tokio::time::sleep(limit) => Err(DockerError::Timeout { limit }),
            () = stop.cancelled() => Err(DockerError::Cancelled),
        }
    };
    match ended {
        Ok(status) => Ok(Output {
            status,
            stdout: String::from_utf8_lossy(&out).into_owned(),
            stderr: String::from_utf8_lossy(&err).into_owned(),
        }),
        Err(error) => {
            kill_and_wait(&mut child).await;
            Err(error)
        }
    }
}

/// Kills the command with all that it started, and reaps it.
pub(super) async fn kill_and_wait(child: &mut Child) {
    // No id means that it was reaped: then its number may be another's by now.
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait().await;
}

async fn read_tail(pipe: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(MAX_KEPT);
        kept.drain(..excess);
    }
}
