//! A running container, which is attached to this process or detached.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Docker, DockerError, LOOKS, QUERY_LIMIT, RunSpec, command, failed, query, unexpected};

/// The most bytes that are kept of the end of stderr.
const MAX_STDERR_TAIL: usize = 4 << 10;
/// The longest time that the docker client may take to end after its container.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// The time in which an event of an OOM may come: a socket tells of an invocation's end before Docker knows.
const EVENT_DELAY: Duration = Duration::from_millis(100);
/// The first and the longest pause between two looks whether a detached container still runs.
const FIRST_LOOK: Duration = Duration::from_millis(30);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// A container and its `docker run`. The holder must call [`Container::remove`] in the end.
#[must_use]
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    name: String,
    is_detached: bool,
    /// Reads stderr of the docker client, and reaps the client.
    client: JoinHandle<ClientEnd>,
    /// How the client ended, once that is known.
    end: Option<ClientEnd>,
    /// Kills the client.
    kill: CancellationToken,
    _kill_on_drop: DropGuard,
}

/// How a docker client ended.
#[derive(Debug, Default)]
struct ClientEnd {
    is_success: bool,
    /// The end of stderr.
    said: String,
}

/// The fields of `docker container inspect` that tell why a container ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// Whether the kernel's OOM killer acted in the container.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Whether the container runs.
    pub running: bool,
}

impl Container {
    /// Starts `docker run`, and returns the container with its stdin and stdout. The container itself starts, or fails
    /// to start, later.
    pub fn run(docker: &Docker, spec: &RunSpec<'_>) -> Result<(Self, ChildStdin, ChildStdout), DockerError> {
        let (container, stdin, stdout) = Self::start(docker, spec, None)?;
        let stdin = stdin.expect("stdin of an attached client is piped");
        let stdout = stdout.expect("stdout of an attached client is piped");
        Ok((container, stdin, stdout))
    }

    /// Starts `docker run --detach` with the socket of the bootstrap in this folder. The docker client ends when the
    /// container runs, or has failed to start.
    pub fn run_detached(docker: &Docker, spec: &RunSpec<'_>, socket: &Path) -> Result<Self, DockerError> {
        Ok(Self::start(docker, spec, Some(socket))?.0)
    }

    fn start(
        docker: &Docker,
        spec: &RunSpec<'_>,
        socket: Option<&Path>,
    ) -> Result<(Self, Option<ChildStdin>, Option<ChildStdout>), DockerError> {
        let mut command = command::docker();
        command.args(spec.arguments(socket)).stderr(Stdio::piped());
        match socket {
            Some(_) => command.stdout(Stdio::null()),
            None => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
        };
        let mut client = command.spawn().map_err(DockerError::Spawn)?;
        let (stdin, stdout) = (client.stdin.take(), client.stdout.take());
        let kill = CancellationToken::new();
        let container = Self {
            docker: docker.clone(),
            name: spec.name.to_owned(),
            is_detached: socket.is_some(),
            client: tokio::spawn(watch(client, spec.name.to_owned(), kill.clone())),
            end: None,
            kill: kill.clone(),
            _kill_on_drop: kill.drop_guard(),
        };
        Ok((container, stdin, stdout))
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the container's client still runs. The client ends soon after the container.
    pub fn is_attached(&self) -> bool {
        self.end.is_none() && !self.client.is_finished()
    }

    /// Waits until a detached container has ended or has failed to start.
    pub async fn ended(&mut self) {
        if !self.client_end().await.is_success {
            return;
        }
        let mut pause = FIRST_LOOK;
        loop {
            time::sleep(pause).await;
            pause = (2 * pause).min(LAST_LOOK);
            match self.state().await {
                // What Docker can't say now is found out later.
                Err(_) => {}
                Ok(Some(state)) if state.running => {}
                Ok(_) => return,
            }
        }
    }

    /// The reason why the container did not start or went away, as the docker client or the program in the container
    /// printed.
    pub async fn stderr_tail(&mut self) -> DockerError {
        let said = match time::timeout(CLIENT_LIMIT, self.client_end()).await {
            Ok(end) => end.said.clone(),
            Err(_) => String::new(),
        };
        // The docker client of a detached container may have printed a warning of its own.
        let logged = if self.is_detached { self.logged().await } else { String::new() };
        match [logged, said].into_iter().find(|said| !said.trim().is_empty()) {
            Some(said) => failed("run", &said),
            None => failed("run", "the docker client gave no reason"),
        }
    }

    /// The end of what a detached container has printed, as Docker keeps.
    async fn logged(&self) -> String {
        let args = ["logs", "--tail=40", "--", &self.name];
        match command::run(args, QUERY_LIMIT, &CancellationToken::new()).await {
            Ok(output) if output.status.success() => output.stderr,
            Ok(_) | Err(_) => String::new(),
        }
    }

    /// The container's state by `docker container inspect`. None when the container is gone.
    pub async fn state(&self) -> Result<Option<ContainerState>, DockerError> {
        let args = ["container", "inspect", "--format", "{{json .State}}", "--", &self.name];
        match query("container inspect", QUERY_LIMIT, args).await {
            Ok(said) => serde_json::from_str(&said).map(Some).map_err(|_| unexpected("container inspect", &said)),
            Err(DockerError::Failed { message, .. }) if super::is_missing(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether Docker has an event of an OOM in the container from `since` until `EVENT_DELAY` from now. Docker keeps
    /// only its last few hundred events.
    pub async fn had_oom_since(&self, since: SystemTime) -> Result<bool, DockerError> {
        let unix = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
        };
        let (since, until) =
            (format!("--since={}", unix(since)), format!("--until={}", unix(SystemTime::now() + EVENT_DELAY)));
        let container = format!("--filter=container={}", self.name);
        let args = ["events", &since, &until, &container, "--filter=event=oom", "--format={{.Action}}"];
        Ok(!query("events", QUERY_LIMIT, args).await?.trim().is_empty())
    }

    /// Ends and removes the container, however long the removal takes. When this function returns, the container is
    /// gone for good.
    pub async fn remove(mut self) {
        let removals = std::sync::Arc::clone(&self.docker.removals);
        let mut retry = removals.begin();
        // A container is never started without its client, but a busy daemon may still create the container: so the
        // removal is tried again.
        let mut looks = LOOKS.iter().copied();
        let mut was_killed = false;
        loop {
            match self.docker.remove_container(&self.name).await {
                Ok(true) => break,
                Ok(false) if !was_killed && !self.is_attached() => break,
                Ok(false) => {
                    was_killed = true;
                    self.kill.cancel();
                    self.client_end().await;
                    match looks.next() {
                        Some(pause) => time::sleep(pause).await,
                        None => break,
                    }
                }
                Err(error) => retry.failed(&error).await,
            }
        }
        retry.done();
        if time::timeout(CLIENT_LIMIT, self.client_end()).await.is_err() {
            self.kill.cancel();
            self.client_end().await;
        }
    }

    /// Waits for the end of the docker client. Cancel-safe.
    async fn client_end(&mut self) -> &ClientEnd {
        if self.end.is_none() {
            self.end = Some((&mut self.client).await.unwrap_or_default());
        }
        self.end.get_or_insert_default()
    }
}

/// Waits for the end of a docker client, or kills the client.
async fn watch(mut client: Child, name: String, kill: CancellationToken) -> ClientEnd {
    let stderr = client.stderr.take().expect("stderr is piped");
    tokio::select! {
        said = keep_stderr_tail(stderr, name) => {
            tokio::select! {
                status = client.wait() => {
                    return ClientEnd { is_success: status.is_ok_and(|status| status.success()), said };
                }
                () = kill.cancelled() => {}
            }
        }
        () = kill.cancelled() => {}
    }
    command::kill_and_wait(&mut client).await;
    ClientEnd::default()
}

/// Logs stderr, and returns its end. Stderr has errors of the docker client and of the bootstrap, never output of the
/// function.
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
