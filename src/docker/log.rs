//! The log of a build: the output of its steps, without the messages of the classic builder and of BuildKit. Pure but
//! for the live log.

use parking_lot::Mutex;
use tokio::sync::mpsc;

/// The most bytes that are kept of the end of a build's log.
pub(super) const MAX_LOG: usize = 16 << 10;
/// The most bytes that are read of the end of a build's output, messages of the builder included.
const MAX_READ: usize = 256 << 10;
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

/// The whole lines within the last [`MAX_READ`] bytes, or the end of a last line that is longer.
pub(super) fn end(said: &str) -> &str {
    let from = said.len().saturating_sub(MAX_READ);
    if from == 0 {
        return said;
    }
    let from = (from..=said.len()).find(|&at| said.is_char_boundary(at)).unwrap_or(0);
    let kept = &said[from..];
    kept.split_once('\n').map_or(kept, |(_, lines)| if lines.is_empty() { kept } else { lines })
}

/// Whether the output says that a step failed, in the words of the classic builder or of BuildKit.
pub(super) fn is_failed_step(said: &str) -> bool {
    let classic = said.contains("The command '") && said.contains("returned a non-zero code");
    let buildkit =
        said.contains("did not complete successfully: exit code") || said.contains("executor failed running [");
    classic || buildkit
}

/// The failed step's exit status, in the words of the classic builder or of BuildKit.
pub(super) fn exit_status(said: &str) -> Option<i32> {
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

/// The end of a log.
pub(super) fn tail(log: &str) -> &str {
    let from = log.len().saturating_sub(MAX_LOG);
    let from = (from..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
    log[from..].trim()
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
