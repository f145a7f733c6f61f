//! Runs one docker command to its end. No other module creates a process.
//!
//! Each command has a deadline. Its output is drained at once and kept up to a cap. Each command leads a process group
//! of its own: a Ctrl-C in the terminal must not end `docker run` before the platform does, and `docker build` may have
//! children.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::DockerError;
use crate::telemetry::metrics;

/// How many bytes are kept of the end of a longer stream: at least this number, and at most twice this number.
const MAX_KEPT: usize = 4 << 20;
/// The longest time after the command's end that a process may keep the inherited pipes open.
const LEAK_LIMIT: Duration = Duration::from_secs(2);

/// The exit status and the output of a command.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A `docker` command without arguments. No other function may use [`tokio::process::Command::new`].
pub(super) fn docker() -> tokio::process::Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let mut command = tokio::process::Command::new("docker");
    // `kill_on_drop` is only a safety net: each path below ends in `wait`.
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs `docker ARGS`. The command is killed after `limit`, or when `stop` is cancelled.
pub(super) async fn run<A: AsRef<OsStr>>(
    args: impl IntoIterator<Item = A>,
    limit: Duration,
    stop: &CancellationToken,
) -> Result<Output, DockerError> {
    let mut command = docker();
    command.args(args);
    run_to_end(command, limit, stop, None).await
}

/// Gets the output of a command during its run: whether the bytes come from stderr, and the bytes.
pub(super) type Listener<'a> = &'a (dyn Fn(bool, &[u8]) + Send + Sync);

/// Runs a prepared command. The command is killed after `limit`, or when `stop` is cancelled.
pub(super) async fn run_to_end(
    command: tokio::process::Command,
    limit: Duration,
    stop: &CancellationToken,
    listener: Option<Listener<'_>>,
) -> Result<Output, DockerError> {
    let word = first_word(&command);
    let span = tracing::debug_span!("docker", docker.command = word);
    run_now(command, word, limit, stop, listener).instrument(span).await
}

async fn run_now(
    mut command: tokio::process::Command,
    word: &'static str,
    limit: Duration,
    stop: &CancellationToken,
    listener: Option<Listener<'_>>,
) -> Result<Output, DockerError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().map_err(DockerError::Spawn)?;
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        let hear = |is_stderr: bool| move |bytes: &[u8]| listener.map_or((), |listener| listener(is_stderr, bytes));
        let drained = async {
            tokio::join!(read_tail(&mut stdout, &mut out, hear(false)), read_tail(&mut stderr, &mut err, hear(true)))
        };
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
    metrics::docker_command(word, began.elapsed(), !ended.as_ref().is_ok_and(ExitStatus::success));
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

/// The command's name for the metrics, `other` when the name is not in the list.
fn first_word(command: &tokio::process::Command) -> &'static str {
    const WORDS: [&str; 10] = ["build", "container", "image", "images", "info", "ps", "pull", "push", "rm", "version"];
    let word = command.as_std().get_args().next().and_then(OsStr::to_str).unwrap_or_default();
    WORDS.into_iter().find(|known| *known == word).unwrap_or("other")
}

/// Kills the command's process group, and reaps the command.
pub(super) async fn kill_and_wait(child: &mut Child) {
    // A child without an id was reaped: another process may have its number by now.
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait().await;
}

async fn read_tail(pipe: &mut (impl AsyncRead + Unpin), kept: &mut Vec<u8>, hear: impl Fn(&[u8])) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        hear(&buffer[..n]);
        kept.extend_from_slice(&buffer[..n]);
        // Not at each read: a drain moves all kept bytes.
        if kept.len() > 2 * MAX_KEPT {
            kept.drain(..kept.len() - MAX_KEPT);
        }
    }
}
