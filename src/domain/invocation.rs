//! An invocation as the store keeps it.

use std::time::Duration;

use super::{FunctionId, InvocationId};

/// How an invocation stands that has not ended; those of ended ones are [`super::Outcome`]'s.
pub mod state {
    /// It waits for its turn.
    pub const QUEUED: &str = "queued";
    /// It has its instance, or had it when the service went away.
    pub const RUNNING: &str = "running";
    /// It was taken back.
    pub const CANCELLED: &str = "cancelled";
    /// Nobody knows how it ended.
    pub const LOST: &str = "lost";
}

/// All that is kept of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct InvocationRecord {
    /// Its id.
    pub id: InvocationId,
    /// Of which function.
    pub function_id: FunctionId,
    /// With which version of it; None before it began.
    pub version: Option<u32>,
    /// An outcome, or one of [`state`].
    pub outcome: String,
    /// When it was asked for, in Unix milliseconds.
    pub created_at: u64,
    /// When it began, in Unix milliseconds; None before that.
    pub executed_at: Option<u64>,
    /// The exit status, when there was one.
    pub exit_code: Option<i32>,
    /// Why it is not `ok`.
    pub error: Option<String>,
    /// `warm` or `cold`; None before it began.
    pub start: Option<String>,
    /// Its output was longer than what its client got.
    pub truncated: bool,
    /// The time it waited for an instance.
    pub queued: Option<Duration>,
    /// The time it ran.
    pub duration: Option<Duration>,
    /// The processor time it took.
    pub cpu: Option<Duration>,
    /// Its largest resident set in bytes.
    pub peak_memory: Option<u64>,
    /// JSON, cut at what is kept.
    pub input: Vec<u8>,
    /// What it wrote to stdout, cut at what is kept.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, cut at what is kept.
    pub stderr: Vec<u8>,
}

impl InvocationRecord {
    /// One that was just asked for.
    pub fn queued(function_id: FunctionId, created_at: u64, input: Vec<u8>) -> Self {
        Self {
            id: InvocationId::random(),
            function_id,
            version: None,
            outcome: state::QUEUED.to_owned(),
            created_at,
            executed_at: None,
            exit_code: None,
            error: None,
            start: None,
            truncated: false,
            queued: None,
            duration: None,
            cpu: None,
            peak_memory: None,
            input,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }
}

/// An invocation that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: InvocationId,
    /// Of which function.
    pub function_id: FunctionId,
    /// How often the invocation could not begin for what may be its function's own fault.
    pub tries: u32,
    /// When the invocation is tried again, in Unix milliseconds.
    pub retry_at: Option<u64>,
}

/// Which invocations are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Of which function.
    pub function_id: FunctionId,
    /// Only those that came before this one, by its number.
    pub before: Option<u64>,
    /// Only those with this outcome.
    pub outcome: Option<&'a str>,
    /// At most so many.
    pub limit: u32,
}
