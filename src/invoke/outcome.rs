//! How an execution ended, decided from evidence.

use std::time::Duration;

use crate::instance::End;
use crate::protocol::Exit;

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit status 0.
    Ok,
    /// With this exit status.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
    /// The kernel's OOM killer acted in its container, whose limit in bytes this is.
    OutOfMemory {
        /// The function's own, or DOCKER_MEMORY_LIMIT.
        limit: u64,
        /// The exit status, when the function's own process got to one.
        exit_code: Option<i32>,
    },
    /// Ended by us after this time.
    Timeout(Duration),
    /// The container or Docker went away under it.
    Lost,
}

impl Outcome {
    /// The outcome of what exited, in a container with this memory limit in bytes.
    fn of(exit: &Exit, limit: u64) -> Self {
        // As in wait(2): the low seven bits are the signal, the byte above them is the exit status.
        let signal = exit.wait_status & 0x7f;
        let exit_code = (signal == 0).then_some((exit.wait_status >> 8) & 0xff);
        if exit.oom == Some(true) {
            return Self::OutOfMemory { limit, exit_code };
        }
        match exit_code {
            Some(0) => Self::Ok,
            Some(code) => Self::Exit(code),
            None => Self::Signal(signal),
        }
    }

    /// The outcome of what ended so, in a container with this memory limit in bytes.
    pub(super) fn of_end(end: &End, limit: u64) -> Self {
        match end {
            End::Exited(exit) => Self::of(exit, limit),
            End::Timeout(after) => Self::Timeout(*after),
            End::OutOfMemory => Self::OutOfMemory { limit, exit_code: None },
            End::Lost => Self::Lost,
        }
    }

    /// The contract's word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Exit(_) => "exit",
            Self::Signal(_) => "signal",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Timeout(_) => "timeout",
            Self::Lost => "lost",
        }
    }

    /// The exit status, where there is one.
    pub fn exit_code(&self) -> Option<i32> {
        match *self {
            Self::Ok => Some(0),
            Self::Exit(code) => Some(code),
            Self::OutOfMemory { exit_code, .. } => exit_code,
            Self::Signal(_) | Self::Timeout(_) | Self::Lost => None,
        }
    }

    /// Why it is not `ok`, for people.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Ok => None,
            Self::Exit(code) => Some(format!("the function ended with exit status {code}")),
            Self::Signal(signal) => Some(format!("the function was killed by {}", signal_name(*signal))),
            Self::OutOfMemory { limit, .. } => {
                Some(format!("the function ran into the memory limit of {limit} bytes (its `memory`, else DOCKER_MEMORY_LIMIT)"))
            }
            Self::Timeout(limit) => {
                Some(format!("the function did not end within {limit:?} (its `timeout`, else DOCKER_RUN_TIMEOUT) and was killed"))
            }
            Self::Lost => Some("the function's container or Docker went away under it".to_owned()),
        }
    }
}

/// A signal's name in signal(7) on Linux, where it has one.
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
        "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR",
        "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wait_status: i32, oom: Option<bool>, expected: Outcome) {
        let zero = Duration::ZERO;
        let exit = Exit { wait_status, oom, truncated: false, clean: true, duration: zero, cpu: zero, peak_memory: 0 };
        assert_eq!(Outcome::of(&exit, 7), expected);
    }

    #[test]
    fn the_outcome_follows_the_evidence() {
        check(0, Some(false), Outcome::Ok);
        check(3 << 8, Some(false), Outcome::Exit(3));
        check(9, Some(false), Outcome::Signal(9));
        check(9, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: None });
        check(137 << 8, Some(false), Outcome::Exit(137));
        check(1 << 8, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(1) });
        check(0, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(0) });
        check(9, None, Outcome::Signal(9));
        check(0x80 | 11, Some(false), Outcome::Signal(11));
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(6), "SIGABRT");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
    }
}
