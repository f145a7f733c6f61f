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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::DockerError;
use crate::telemetry::metrics;

/// Of a longer output the tail is kept, of each stream: so much at least, and twice as much at most.
const MAX_KEPT: usize = 4 << 20;
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
    run_to_end(command, limit, stop, None).await
}

/// Hears what a command says as it says it: whether to stderr, and what.
pub(super) type Listener<'a> = &'a (dyn Fn(bool, &[u8]) + Send + Sync);

/// The same with a command that was prepared.
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

/// The command's name, of those that we use.
fn first_word(command: &tokio::process::Command) -> &'static str {
    const WORDS: [&str; 8] = ["build", "container", "image", "images", "info", "ps", "rm", "version"];
    let word = command.as_std().get_args().next().and_then(OsStr::to_str).unwrap_or_default();
    WORDS.into_iter().find(|known| *known == word).unwrap_or("other")
}

/// Kills the command with all that it started, and reaps it.
pub(super) async fn kill_and_wait(child: &mut Child) {
    // No id means that it was reaped: then its number may be another's by now.
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
        // Not each time: what is kept moves.
        if kept.len() > 2 * MAX_KEPT {
            kept.drain(..kept.len() - MAX_KEPT);
        }
    }
}
