//! An invocation as the store keeps it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{Destined, FunctionId, InvocationId, Outcome, Trigger};

/// An invocation's receipt, input and output, as a row of the history has them. A function that failed has a receipt,
/// too.
#[derive(Clone, Debug, PartialEq)]
pub struct InvocationRecord {
    /// The invocation's id.
    pub id: InvocationId,
    /// The id of the function.
    pub function_id: FunctionId,
    /// What the invocation was begun by.
    pub trigger: Trigger,
    /// The number of the version that ran; None before the beginning.
    pub version: Option<u32>,
    /// How the invocation ended, or how far the invocation is.
    pub outcome: Outcome,
    /// The time of the request, in Unix milliseconds.
    pub created_at: u64,
    /// The time of the beginning, in Unix milliseconds; None before that.
    pub executed_at: Option<u64>,
    /// The exit status, where there is one.
    pub exit_code: Option<i32>,
    /// The reason for an outcome other than `ok`, for people.
    pub error: Option<String>,
    /// `warm`, `slot` or `cold`; None before the beginning.
    pub start: Option<String>,
    /// Whether a stream was longer than the part that the client got.
    pub truncated: bool,
    /// The wait for an instance.
    pub queued: Option<Duration>,
    /// The run time.
    pub duration: Option<Duration>,
    /// The processor time; None where the container is gone.
    pub cpu: Option<Duration>,
    /// The largest resident set, in bytes; None where the container is gone.
    pub peak_memory: Option<u64>,
    /// What the invocation's connections did, by destination. Empty where there was none.
    pub network: Vec<Destined>,
    /// The input as JSON.
    pub input: Bytes,
    /// The output on stdout, up to MAX_OUTPUT_SIZE.
    pub stdout: Bytes,
    /// The output on stderr, up to MAX_OUTPUT_SIZE.
    pub stderr: Bytes,
}

impl InvocationRecord {
    /// The new invocation as it waits for its turn on the node that has accepted it.
    pub fn open(&self) -> Open {
        Open { id: self.id, attempt: 1, function_id: self.function_id, tries: 0, retry_at: None }
    }

    /// The row of a new invocation, with a new id.
    pub fn queued(function_id: FunctionId, created_at: u64, input: Bytes) -> Self {
        Self {
            id: InvocationId::random(),
            function_id,
            trigger: Trigger::Api,
            version: None,
            outcome: Outcome::Queued,
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
            network: Vec::new(),
            input,
            stdout: Bytes::new(),
            stderr: Bytes::new(),
        }
    }
}

/// An invocation that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The invocation's id.
    pub id: InvocationId,
    /// The number of this node's claim on the invocation.
    pub attempt: u32,
    /// The id of the function.
    pub function_id: FunctionId,
    /// The number of tries that failed for a reason that may be the function's own fault.
    pub tries: u32,
    /// The time of the next try, in Unix milliseconds.
    pub retry_at: Option<u64>,
}

/// An invocation of a node, as the store has the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// The number of the row.
    pub number: u64,
    /// `queued` or `running`.
    pub outcome: Outcome,
    /// The invocation.
    pub open: Open,
}

/// An invocation's place in the history, which goes by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The time at which the row was written, in Unix milliseconds.
    pub time: u64,
    /// The number of the row, which settles the order at one time.
    pub number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

impl Place {
    /// The place that a cursor names. None when the text is no cursor.
    pub fn parse(cursor: &str) -> Option<Self> {
        let (time, number) = cursor.split_once('-')?;
        let parse = |text: &str| text.parse().ok().filter(|&value: &u64| value < 1 << 62);
        Some(Self { time: parse(time)?, number: parse(number)? })
    }
}
