//! The HTTP status and the exit status of each outcome. A build or a request that takes too long has no outcome:
//! `http/problem.rs` and `http/problem/refusals.rs` have these statuses.

use super::Outcome;

impl Outcome {
    /// The HTTP status of an execution's answer: the contract's. None where no execution has ended.
    pub fn http_status(self) -> Option<u16> {
        match self {
            Self::Queued | Self::Running | Self::Cancelled => None,
            Self::Ok => Some(200),
            Self::Timeout => Some(504),
            Self::Exit | Self::Signal | Self::OutOfMemory | Self::Lost => Some(500),
        }
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
