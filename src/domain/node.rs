//! The nodes of a platform.

use super::{InvocationId, Outcome};

/// A process that serves from the store, as other nodes see the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's id, which is its DATA_DIR's at every start.
    pub id: String,
    /// The run of the process: rows that the process works on name the run.
    pub run: String,
    /// NODE_URL: where other nodes reach the node.
    pub url: Option<String>,
    /// The version of the program.
    pub version: String,
    /// The time of the last heartbeat, in Unix milliseconds by the clock of the database.
    pub seen_at: u64,
    /// The number of the node's instances.
    pub instances: u32,
    /// Whether the node executes functions.
    pub is_ready: bool,
    /// Whether the node's lease has not run out.
    pub is_live: bool,
}

/// How other nodes saw a node until its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As live.
    Live,
    /// As gone: its lease had run out.
    Lapsed,
    /// As gone, and the node is not on the list any more.
    Gone,
}

/// What a node tells the others again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The number of the node's instances.
    pub instances: u32,
    /// Whether the node executes functions.
    pub is_ready: bool,
    /// The number of the last change of a function that the node has taken over.
    pub applied: u64,
}

/// Where an asynchronous invocation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The invocation's id.
    pub id: InvocationId,
    /// How the invocation ended, or how far the invocation is.
    pub outcome: Outcome,
    /// The run of the node that runs or will run the invocation, or has run it.
    pub run: Option<String>,
    /// NODE_URL of that node; None when the node is not live, or has none.
    pub url: Option<String>,
}
