//! A container that runs, attached to our end of its pipes.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time;

use super::{Docker, DockerError, QUERY_LIMIT, RunSpec, command, failed, query, unexpected};

/// What is kept of the end of stderr.
const MAX_STDERR_TAIL: usize = 4 << 10;
/// How long the docker client may take to end after its container.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// When a container that is not there is looked for again after its client was killed.
const LOOKS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];

/// A container and its `docker run`. Whoever holds it must call [`Container::remove`] in the end.
#[must_use]
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    name: String,
    client: Child,
    /// Reads stderr until the client has ended, and returns the last of it.
    stderr_tail: JoinHandle<String>,
}

/// The parts of `docker inspect` that tell why a container ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// The kernel's OOM killer acted in it.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// It runs.
    pub running: bool,
}

impl Container {
    /// Starts `docker run`; the container itself comes up, or not, some time later.
    pub fn run(docker: &Docker, spec: &RunSpec<'_>) -> Result<(Self, ChildStdin, ChildStdout), DockerError> {
        let mut command = command::docker();
        command.args(spec.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().map_err(DockerError::Spawn)?;
        let stdin = client.stdin.take().expect("stdin is piped");
        let stdout = client.stdout.take().expect("stdout is piped");
        let stderr = client.stderr.take().expect("stderr is piped");
        let stderr_tail = tokio::spawn(keep_stderr_tail(stderr, spec.name.to_owned()));
        Ok((Self { docker: docker.clone(), name: spec.name.to_owned(), client, stderr_tail }, stdin, stdout))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its client still runs, which ends soon after the container.
    pub fn is_attached(&mut self) -> bool {
        matches!(self.client.try_wait(), Ok(None))
    }

    /// Why it did not come up, or went away, in the words of docker or of what ran in it.
    pub async fn stderr_tail(&mut self) -> DockerError {
        match time::timeout(CLIENT_LIMIT, &mut self.stderr_tail).await {
            Ok(Ok(stderr_tail)) => failed("run", &stderr_tail),
            Ok(Err(_)) | Err(_) => failed("run", "it said nothing"),
        }
    }

    /// Its state by `docker inspect`; None when it is gone.
    pub async fn state(&self) -> Result<Option<ContainerState>, DockerError> {
        let args = ["container", "inspect", "--format", "{{json .State}}", "--", &self.name];
        match query("container inspect", QUERY_LIMIT, args).await {
            Ok(said) => serde_json::from_str(&said).map(Some).map_err(|_| unexpected("container inspect", &said)),
            Err(DockerError::Failed { message, .. }) if super::is_missing(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether Docker was told of an OOM in it between then and now. Docker keeps its last few hundred events only.
    pub async fn had_oom_since(&self, since: SystemTime) -> Result<bool, DockerError> {
        let unix = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
        };
        let (since, until) = (format!("--since={}", unix(since)), format!("--until={}", unix(SystemTime::now())));
        let container = format!("--filter=container={}", self.name);
        let args = ["events", &since, &until, &container, "--filter=event=oom", "--format={{.Action}}"];
        Ok(!query("events", QUERY_LIMIT, args).await?.trim().is_empty())
    }

    /// Ends and removes it, however long that takes: when this returns, the container is gone for good.
    pub async fn remove(mut self) {
        let removals = std::sync::Arc::clone(&self.docker.removals);
        let mut retry = removals.begin();
        // Without its client a container is never started, but a busy daemon may be about to make it: so it is asked for again.
        let mut looks = LOOKS.iter().copied();
        let mut was_killed = false;
        loop {
            match self.docker.remove_container(&self.name).await {
                Ok(true) => break,
                Ok(false) if !was_killed && matches!(self.client.try_wait(), Ok(Some(_))) => break,
                Ok(false) => {
                    was_killed = true;
                    command::kill_and_wait(&mut self.client).await;
                    match looks.next() {
                        Some(pause) => time::sleep(pause).await,
                        None => break,
                    }
                }
                Err(error) => retry.failed(&error).await,
            }
        }
        retry.done();
        if time::timeout(CLIENT_LIMIT, self.client.wait()).await.is_err() {
            command::kill_and_wait(&mut self.client).await;
        }
        // One that was asked for its stderr_tail has given its all.
        if !self.stderr_tail.is_finished() {
            let _ = time::timeout(CLIENT_LIMIT, self.stderr_tail).await;
        }
    }
}

/// Logs what comes by stderr: the docker client's errors and the bootstrap's, never the function's.
async fn keep_stderr_tail(mut stderr: ChildStderr, name: String) -> String {
    let mut buffer = vec![0; MAX_STDERR_TAIL];
    let mut kept = Vec::new();
    while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..n]);
        tracing::debug!(container.name = name, text = text.trim_end(), "a container's stderr");
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(MAX_STDERR_TAIL);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
