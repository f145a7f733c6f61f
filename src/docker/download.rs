//! A container that fetches the packages for a build. The container runs as an ordinary user, has a network, and holds
//! nothing of value.
//!
//! The request comes in by stdin, so that no secret is in the container's configuration. The fetched packages go out by
//! stdout, and must not be trusted.

use std::fs::File;
use std::io::Read;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::log::{LiveLog, MAX_LOG, own_lines, tail};
use super::run_spec::{ATTACHED, HARDENING};
use super::{Docker, DockerError, Mask, command, failed};
use crate::config::BuildNetwork;
use crate::telemetry::metrics;

/// The user `nobody`, on every Debian.
const USER: &str = "65534:65534";
const PIDS: u32 = 512;
/// The longest line of stderr in bytes. The rest of a longer line is dropped, so that no secret is split over two lines
/// and escapes the mask.
const MAX_LINE: usize = 64 << 10;
/// The longest time that a killed client's pipes may stay open.
const LEAK_LIMIT: Duration = Duration::from_secs(2);
/// The docker client's exit status when the daemon did not run the container.
const NOT_RUN: i32 = 125;
const KILLED: i32 = 137;

/// One container to be run.
#[derive(Debug)]
pub struct DownloadSpec<'a> {
    /// The container's name.
    pub name: &'a str,
    /// The image's name, which must be on this machine.
    pub image: &'a str,
    /// The names and values of the container's labels.
    pub labels: &'a [(&'static str, String)],
    /// The program and its arguments, which must hold no secret.
    pub program: &'a [&'a str],
    /// The network that the container can reach.
    pub network: BuildNetwork,
    /// The container's memory limit in bytes. Files below `/tmp` count, too.
    pub memory: u64,
    /// The container's limit on processor time, in processors.
    pub cpus: f64,
    /// DOCKER_RUNTIME, as for instances.
    pub runtime: Option<&'a str>,
    /// Whether files below `/tmp` may be executed.
    pub exec: bool,
    /// The deadline.
    pub limit: Duration,
    /// Gets the lines of stderr during the run.
    pub live: Option<&'a LiveLog>,
    /// Hides the secrets in stderr.
    pub mask: &'a Mask,
}

/// The result of a download container.
#[derive(Debug)]
pub struct Downloaded<T> {
    /// The value that was read from stdout.
    pub value: T,
    /// Whether the program ended with exit status 0.
    pub is_done: bool,
    /// Whether the program was killed, as the kernel does when memory is short.
    pub is_killed: bool,
    /// The end of stderr, without secrets.
    pub log: String,
}

impl DownloadSpec<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut args: Vec<String> = ["run", "--rm", "--pull=never"].map(str::to_owned).into();
        args.extend(ATTACHED.map(str::to_owned));
        args.push(format!("--name={}", self.name));
        args.extend(self.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        args.extend(HARDENING.map(str::to_owned));
        args.extend(self.runtime.iter().map(|runtime| format!("--runtime={runtime}")));
        if self.network == BuildNetwork::None {
            args.push("--network=none".to_owned());
        }
        args.push(format!("--user={USER}"));
        args.extend([format!("--memory={}", self.memory), format!("--memory-swap={}", self.memory)]);
        args.extend([format!("--cpus={}", self.cpus), format!("--pids-limit={PIDS}")]);
        let exec = if self.exec { "exec" } else { "noexec" };
        // Files in a tmpfs count for the memory limit.
        args.push(format!("--tmpfs=/tmp:rw,{exec},nosuid,nodev,mode=1777,size={}", self.memory));
        args.extend(["--env=HOME=/tmp", "--env=TMPDIR=/tmp", "--workdir=/tmp"].map(str::to_owned));
        args.push(format!("--entrypoint={}", self.program[0]));
        args.extend(["--", self.image].map(str::to_owned));
        args.extend(self.program[1..].iter().map(|&argument| argument.to_owned()));
        args
    }
}

impl Docker {
    /// Runs a container to its end. The container gets `input` by stdin; `read` takes stdout on a thread of its own.
    /// When this function returns, the container is gone, or its removal has failed and is logged.
    pub async fn download<T: Send + 'static>(
        &self,
        spec: &DownloadSpec<'_>,
        input: Vec<u8>,
        read: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
        stop: &CancellationToken,
    ) -> Result<Downloaded<T>, DockerError> {
        let began = time::Instant::now();
        let mut command = command::docker();
        command.args(spec.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().map_err(DockerError::Spawn)?;
        let mut stdin = client.stdin.take().expect("stdin is piped");
        let stdout = client.stdout.take().expect("stdout is piped").into_owned_fd().map_err(DockerError::Spawn)?;
        let mut stderr = client.stderr.take().expect("stderr is piped");
        let mut reader = tokio::task::spawn_blocking(move || {
            let mut stdout = File::from(stdout);
            let value = read(&mut stdout);
            // Unread output would keep the container from its end.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            value
        });
        let mut log = String::new();
        let mut is_read = false;
        let ended = {
            let write = async {
                // A failed write means that the container has ended early, and the container prints the reason to
                // stderr.
                let _ = stdin.write_all(&input).await;
                drop(stdin);
            };
            let read = async {
                let value = (&mut reader).await;
                is_read = true;
                value
            };
            let work = async { tokio::join!(write, hear(&mut stderr, spec, &mut log), read, client.wait()) };
            tokio::select! {
                ((), (), value, status) = work => Ok((value, status)),
                () = time::sleep(spec.limit) => Err(DockerError::Timeout { limit: spec.limit }),
                () = stop.cancelled() => Err(DockerError::Cancelled),
            }
        };
        metrics::docker_command("run", began.elapsed(), ended.is_err());
        let (value, status) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                self.end(&mut client, spec.name).await;
                // The client is dead, so the reader soon comes to the end of the pipe.
                if !is_read {
                    let _ = time::timeout(LEAK_LIMIT, reader).await;
                }
                return Err(error);
            }
        };
        let status: ExitStatus = status.map_err(DockerError::Spawn)?;
        // A client that was killed leaves its container behind.
        if status.code().is_none() {
            self.end(&mut client, spec.name).await;
        }
        if status.code().is_none_or(|code| code == NOT_RUN) {
            return Err(failed("run", &log));
        }
        let value = value.map_err(|error| DockerError::Spawn(std::io::Error::other(error)))?;
        let log = tail(&log).to_owned();
        Ok(Downloaded { value, is_done: status.success(), is_killed: status.code() == Some(KILLED), log })
    }

    /// Ends the client and then the container. A container that can't be removed now is found by its labels later.
    async fn end(&self, client: &mut Child, name: &str) {
        command::kill_and_wait(client).await;
        self.remove_late_container(name).await;
    }
}

/// Reads stderr line by line, so that the mask sees each secret whole.
async fn hear(pipe: &mut (impl AsyncRead + Unpin), spec: &DownloadSpec<'_>, log: &mut String) {
    let mut buffer = vec![0; 16 << 10];
    let mut line = Vec::new();
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        for &byte in &buffer[..read] {
            if byte != b'\n' {
                // The rest of a line that is too long is dropped.
                if line.len() < MAX_LINE {
                    line.push(byte);
                }
                continue;
            }
            tell(&mut line, spec, log);
        }
        if read == 0 {
            break;
        }
    }
    if !line.is_empty() {
        tell(&mut line, spec, log);
    }
}

fn tell(line: &mut Vec<u8>, spec: &DownloadSpec<'_>, log: &mut String) {
    let text = own_lines(&spec.mask.cover(&String::from_utf8_lossy(line)));
    line.clear();
    if let Some(live) = spec.live {
        live.hear(true, text.as_bytes());
    }
    log.push_str(&text);
    if log.len() > 2 * MAX_LOG {
        *log = tail(log).to_owned() + "\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_container_is_hardened_and_has_no_secret_in_its_configuration() {
        let mask = Mask::new(&[Secret("https://me:password@example.org".to_owned())]);
        let spec = DownloadSpec {
            name: "one",
            image: "image",
            labels: &[("a", "b".to_owned())],
            program: &["python3", "-c", "script"],
            network: BuildNetwork::None,
            memory: 2_000_000_000,
            cpus: 2.0,
            runtime: Some("runsc"),
            exec: false,
            limit: Duration::from_secs(1),
            live: None,
            mask: &mask,
        };
        let expected = "run --rm --pull=never --interactive --sig-proxy=false --log-driver=none --name=one --label=a=b \
                        --read-only --cap-drop=ALL --security-opt=no-new-privileges --ipc=private \
                        --ulimit=core=0:0 --ulimit=nofile=1024:1024 \
                        --oom-score-adj=500 --runtime=runsc --network=none \
                        --user=65534:65534 --memory=2000000000 --memory-swap=2000000000 --cpus=2 --pids-limit=512 \
                        --tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size=2000000000 \
                        --env=HOME=/tmp --env=TMPDIR=/tmp \
                        --workdir=/tmp --entrypoint=python3 -- image -c script";
        assert_eq!(spec.arguments().join(" "), expected);
    }
}
