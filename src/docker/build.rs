//! `docker build`, with the classic builder as well as with BuildKit.

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Docker, DockerError, InspectedImage, command, failed};
use crate::config::BuildNetwork;

/// The most bytes that are kept of the end of a build's log.
pub(super) const MAX_LOG: usize = 16 << 10;

/// The most bytes that are read of the end of a build's output, messages of the builder included.
const MAX_READ: usize = 256 << 10;

/// An image to be built.
#[derive(Debug)]
pub struct BuildSpec<'a> {
    /// The folder that is sent to the daemon. The folder holds the `Dockerfile`.
    pub context: &'a Path,
    /// The image's name.
    pub tag: &'a str,
    /// The names and values of the image's labels.
    pub labels: &'a [(&'static str, String)],
    /// The build's deadline.
    pub limit: Duration,
    /// The network that the steps can reach.
    pub network: BuildNetwork,
    /// The limits of each step: memory in bytes and processors. None means no limit. BuildKit does not take these
    /// limits.
    pub limits: Option<(u64, f64)>,
    /// Whether BuildKit builds instead of the classic builder.
    pub buildkit: bool,
    /// Gets the lines that the steps print during the build.
    pub live: Option<&'a LiveLog>,
}

/// The most lines that wait for the listener. Further lines are dropped.
const MAX_LIVE: usize = 1000;
/// The longest line in bytes. A longer line is split.
const MAX_LINE: usize = 8 << 10;

/// Passes on the lines that the steps of a build print, without the messages of the builder.
#[derive(Debug)]
pub struct LiveLog {
    lines: mpsc::Sender<String>,
    /// The unfinished lines of stdout and of stderr.
    begun: Mutex<[Vec<u8>; 2]>,
}

impl Drop for LiveLog {
    /// Passes on the unfinished lines.
    fn drop(&mut self) {
        self.hear(false, b"\n");
        self.hear(true, b"\n");
    }
}

impl LiveLog {
    /// A live log, and the receiver of its lines.
    pub fn channel() -> (Self, mpsc::Receiver<String>) {
        let (lines, out) = mpsc::channel(MAX_LIVE);
        (Self { lines, begun: Mutex::default() }, out)
    }

    pub(super) fn hear(&self, is_stderr: bool, bytes: &[u8]) {
        let mut begun = self.begun.lock();
        let begun = &mut begun[usize::from(is_stderr)];
        begun.extend_from_slice(bytes);
        while let Some(end) =
            begun.iter().position(|&byte| byte == b'\n').or((begun.len() > MAX_LINE).then_some(MAX_LINE))
        {
            let line: Vec<u8> = begun.drain(..=end).collect();
            let line = own_lines(&String::from_utf8_lossy(&line));
            if !line.trim().is_empty() {
                // A slow listener misses lines, because the build must not wait for the listener.
                let _ = self.lines.try_send(line.trim_end().to_owned());
            }
        }
    }
}

/// The period of the processor limit in microseconds: a step gets its share of each period.
const CPU_PERIOD: f64 = 100_000.0;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A step of the Dockerfile failed, so the fault lies in the input of the build.
    #[error("the build failed")]
    Step {
        /// The end of the output of the steps.
        log: String,
        /// The step's exit status, when the builder reports the status.
        exit_status: Option<i32>,
        /// Whether a process of the step was killed, as the kernel does when memory is short.
        killed: bool,
    },
    /// Docker itself failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl Docker {
    /// Builds an image, and returns the image with the end of the output of the steps. The build ends early when `stop`
    /// is cancelled.
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        stop: &CancellationToken,
    ) -> Result<(InspectedImage, String), BuildError> {
        let mut args: Vec<String> = ["build", "--force-rm"].map(str::to_owned).into();
        args.push(format!("--tag={}", spec.tag));
        if spec.network == BuildNetwork::None {
            args.push("--network=none".to_owned());
        }
        if let (Some((memory, cpus)), false) = (spec.limits, spec.buildkit) {
            args.extend([format!("--memory={memory}"), format!("--memory-swap={memory}")]);
            args.extend([format!("--cpu-period={CPU_PERIOD}"), format!("--cpu-quota={:.0}", cpus * CPU_PERIOD)]);
        }
        args.extend(spec.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        let mut command = command::docker();
        command.env("DOCKER_BUILDKIT", if spec.buildkit { "1" } else { "0" });
        command.args(args).arg("--file").arg(spec.context.join("Dockerfile")).arg("--").arg(spec.context);
        let output = {
            let hear = |is_stderr: bool, bytes: &[u8]| spec.live.map_or((), |live| live.hear(is_stderr, bytes));
            command::run_to_end(command, spec.limit, stop, Some(&hear)).await?
        };
        // Parsing this text blocks the thread's other tasks, so only the end is parsed.
        let said = format!("{}{}", end(&output.stdout), end(&output.stderr));
        let said = end(&said);
        if !output.status.success() {
            return Err(if is_failed_step(said) {
                let log = tail(&own_lines(said)).to_owned();
                let exit_status = exit_status(said);
                // Go prints this signal when its compiler was killed. Status 137 means that the step itself was killed.
                let killed = log.contains("signal: killed") || exit_status == Some(137);
                BuildError::Step { log, exit_status, killed }
            } else {
                failed("build", &output.stderr).into()
            });
        }
        let image = self.image(spec.tag).await?;
        let image = image.ok_or_else(|| failed("build", "the image is not there after its build"))?;
        Ok((image, tail(&own_lines(said)).to_owned()))
    }
}

/// The whole lines within the last [`MAX_READ`] bytes, or the end of a last line that is longer.
fn end(said: &str) -> &str {
    let from = said.len().saturating_sub(MAX_READ);
    if from == 0 {
        return said;
    }
    let from = (from..=said.len()).find(|&at| said.is_char_boundary(at)).unwrap_or(0);
    let kept = &said[from..];
    kept.split_once('\n').map_or(kept, |(_, lines)| if lines.is_empty() { kept } else { lines })
}

fn is_failed_step(said: &str) -> bool {
    let classic = said.contains("The command '") && said.contains("returned a non-zero code");
    let buildkit =
        said.contains("did not complete successfully: exit code") || said.contains("executor failed running [");
    classic || buildkit
}

/// The failed step's exit status, in the words of the classic builder or of BuildKit.
fn exit_status(said: &str) -> Option<i32> {
    let (_, rest) = said.rsplit_once("returned a non-zero code: ").or_else(|| said.rsplit_once("exit code: "))?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The output of the steps, without the messages of the builder and without terminal colours.
pub(super) fn own_lines(log: &str) -> String {
    let mut kept = String::new();
    let mut quoted = false;
    for line in log.lines() {
        let line = without_colours(line);
        // BuildKit repeats the failed step's output between two rules.
        quoted ^= line == "------";
        if quoted || is_builders_talk(&line) {
            continue;
        }
        kept.push_str(without_step_and_time(&line));
        kept.push('\n');
    }
    kept
}

fn is_builders_talk(line: &str) -> bool {
    const TALK: [&str; 17] = [
        "Sending build context to Docker daemon",
        "Step ",
        " ---> ",
        "Successfully ",
        "Removing intermediate container ",
        "The command '",
        "DEPRECATED: The legacy builder",
        "            Install the buildx",
        "            BuildKit is currently disabled",
        "            environment-variable.",
        "            https://docs.docker.com/go/buildx",
        "------",
        " > [",
        "failed to solve",
        "ERROR: failed to",
        "Dockerfile:",
        "executor failed running",
    ];
    let buildkit_step = line.strip_prefix('#').and_then(|rest| rest.split_once(' ')).filter(|(n, _)| is_number(n));
    let buildkit_talk = buildkit_step.is_some_and(|(_, rest)| !rest.split(' ').next().is_some_and(is_number));
    TALK.iter().any(|talk| line.starts_with(talk)) || buildkit_talk
}

/// BuildKit's plain progress starts each line of output with `#STEP SECONDS `.
fn without_step_and_time(line: &str) -> &str {
    let text = line.strip_prefix('#').and_then(|rest| {
        let mut words = rest.splitn(3, ' ');
        let (step, time) = (words.next()?, words.next()?);
        (is_number(step) && is_number(time)).then(|| words.next().unwrap_or_default())
    });
    text.unwrap_or(line)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut parts = line.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

pub(super) fn tail(log: &str) -> &str {
    let from = log.len().saturating_sub(MAX_LOG);
    let from = (from..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
    log[from..].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_builders_log_is_reduced_to_what_the_compiler_said() {
        let log = "Sending build context to Docker daemon  4.096kB\nStep 1/2 : FROM x\n ---> 0123\n\
                   Step 2/2 : RUN go build\n ---> Running in 4567\n\u{1b}[91m# function\n./main.go:3:1: syntax error\n\
                   \u{1b}[0mRemoving intermediate container 4567\n\
                   The command '/bin/sh -c go build' returned a non-zero code: 2\n";
        assert!(is_failed_step(log));
        assert_eq!(exit_status(log), Some(2));
        assert_eq!(own_lines(log), "# function\n./main.go:3:1: syntax error\n\n".replace("\n\n", "\n"));
    }

    #[test]
    fn buildkits_log_is_reduced_to_what_the_compiler_said() {
        let log = "#5 [build 3/3] RUN go build\n#5 0.512 # function\n#5 0.513 ./main.go:3:1: syntax error\n\
                   #5 ERROR: process \"/bin/sh -c go build\" did not complete successfully: exit code: 2\n\
                   ------\n > [build 3/3] RUN go build:\n0.512 # function\n0.513 ./main.go:3:1: syntax error\n------\n\
                   ERROR: failed to solve: process \"/bin/sh -c go build\" \
                   did not complete successfully: exit code: 2\n";
        assert!(is_failed_step(log));
        assert_eq!(exit_status(log), Some(2));
        assert_eq!(own_lines(log), "# function\n./main.go:3:1: syntax error\n");
    }

    #[test]
    fn lines_are_passed_on_as_they_end() {
        let (live, mut lines) = LiveLog::channel();
        live.hear(false, b"Step 1/2 : FROM x\n ---> 01\nCollecting s");
        live.hear(true, b"\x1b[91mwarning\x1b[0m\n");
        live.hear(false, b"ix\n");
        assert_eq!([lines.try_recv().unwrap(), lines.try_recv().unwrap()], ["warning", "Collecting six"]);
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let log = format!("{}\u{e9}nd", "x".repeat(MAX_LOG));
        assert!(tail(&log).ends_with("\u{e9}nd") && tail(&log).len() <= MAX_LOG);
    }

    #[test]
    fn of_a_large_output_the_last_lines_are_read() {
        assert_eq!(end("short\n"), "short\n");
        let lines = format!("{}\u{e9} and the rest\nlast\n", "x".repeat(MAX_READ));
        assert_eq!(end(&lines), "last\n");
        let line = format!("x\u{e9}{}\n", "y".repeat(MAX_READ - 2));
        assert_eq!(end(&line), &line[3..]);
    }

    #[test]
    fn a_failure_of_docker_is_no_failed_step() {
        assert!(!is_failed_step("Cannot connect to the Docker daemon at unix:///var/run/docker.sock"));
        assert!(!is_failed_step("pull access denied for nothing, repository does not exist"));
    }
}
