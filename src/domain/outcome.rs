//! How an invocation ended. `outcome/http_status.rs` has the HTTP status of each outcome.

mod http_status;

/// How an invocation ended, or how far the invocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The invocation waits for its turn.
    Queued,
    /// The invocation has its instance, or had an instance when the service went away.
    Running,
    /// The client has cancelled the invocation, or has left.
    Cancelled,
    /// The container or Docker went away during the invocation, or the service did.
    Lost,
    /// The function's process ended with exit status 0.
    Ok,
    /// The function's process ended with another exit status.
    Exit,
    /// A signal killed the function's process.
    Signal,
    /// The kernel's OOM killer acted in the container.
    OutOfMemory,
    /// The platform ended the invocation at its time limit.
    Timeout,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Cancelled,
        Self::Lost,
        Self::Ok,
        Self::Exit,
        Self::Signal,
        Self::OutOfMemory,
        Self::Timeout,
    ];

    /// The outcomes of invocations that failed.
    pub const FAILED: [Self; 5] = [Self::Lost, Self::Exit, Self::Signal, Self::OutOfMemory, Self::Timeout];

    /// The outcome of this name. None when no outcome has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The outcome's name in the API, in metrics and in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Ok => "ok",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
        }
    }

    /// Whether the invocation is still to end.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// The exit status of the command line, as a shell has the statuses; None where the platform failed.
    pub fn exit_status(self, exit_code: Option<u8>, signal: u8) -> Option<u8> {
        match self {
            Self::Queued | Self::Running | Self::Cancelled | Self::Lost => None,
            Self::Ok => Some(0),
            Self::Exit => Some(exit_code.unwrap_or(1)),
            Self::Timeout => Some(124),
            Self::OutOfMemory => Some(137),
            Self::Signal => Some(128 + signal),
        }
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
