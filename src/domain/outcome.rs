//! How an invocation ended: the one place for the outcome's name, HTTP status and exit status.

use std::time::Duration;

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function's process ended with exit status 0.
    Ok,
    /// The function's process ended with this exit status.
    Exit(i32),
    /// This signal killed the function's process.
    Signal(i32),
    /// The kernel's OOM killer acted in the container.
    OutOfMemory {
        /// The container's memory limit in bytes: the function's own, or DOCKER_MEMORY_LIMIT.
        limit: u64,
        /// The exit status, where the function's own process has one.
        exit_code: Option<i32>,
    },
    /// The platform ended the invocation after this time.
    Timeout(Duration),
    /// The container or Docker went away during the invocation.
    Lost,
}

impl Outcome {
    /// The outcome's name in the API, in metrics and in the history.
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

    /// The reason for an outcome other than `ok`, for people.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Ok => None,
            Self::Exit(code) => Some(format!("the function ended with exit status {code}")),
            Self::Signal(signal) => Some(format!("the function was killed by {}", signal_name(*signal))),
            Self::OutOfMemory { limit, .. } => Some(format!(
                "the function ran into the memory limit of {limit} bytes (its `memory`, else DOCKER_MEMORY_LIMIT)"
            )),
            Self::Timeout(limit) => Some(format!(
                "the function did not end within {limit:?} (its `timeout`, else DOCKER_RUN_TIMEOUT) and was killed"
            )),
            Self::Lost => Some("the function's container or Docker went away under it".to_owned()),
        }
    }
}

/// The HTTP status of an execution's answer, by the name of its outcome: the contract's.
pub fn http_status(outcome: &str) -> u16 {
    match outcome {
        "ok" => 200,
        "timeout" => 504,
        _ => 500,
    }
}

/// The exit status of the command line for an outcome's name, as a shell has the statuses; None where the platform
/// failed.
pub fn exit_status(outcome: &str, exit_code: Option<u8>, signal: u8) -> Option<u8> {
    match outcome {
        "ok" => Some(0),
        "exit" => Some(exit_code.unwrap_or(1)),
        "timeout" => Some(124),
        "out_of_memory" => Some(137),
        "signal" => Some(128 + signal),
        _ => None,
    }
}

/// A signal's name in signal(7) on Linux, where it has one.
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(6), "SIGABRT");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
    }
}
