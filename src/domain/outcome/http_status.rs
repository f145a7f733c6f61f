//! The HTTP status of each outcome of an execution. A build or a request that takes too long has no outcome:
//! `http/problem.rs` and `http/problem/errors.rs` have these statuses.

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
}
