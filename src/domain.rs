//! The words of this platform as types: parsed at the edge, trusted everywhere else. No I/O.

mod destined;
mod function;
mod id;
mod idempotency;
mod invocation;
mod language;
mod name;
mod node;
mod outcome;
mod preload;
pub mod settings;
mod version;

pub use destined::Destined;
pub use function::{Changed, Changes, Executions, Package, Record, Update};
pub use id::{
    FunctionId, ImageDigest, ImageId, InvocationId, NotAFunctionId, NotAnInvocationId, UnknownFunction,
    UnknownInvocation, UnknownVersion, VersionId,
};
pub use idempotency::{Deployed, IdempotencyKey, Known, Queued};
pub use invocation::{InvocationRecord, Open, Own, Page, Place};
pub use language::{Language, UnknownLanguage};
pub use name::{FunctionName, InvalidName, UnknownName};
pub use node::{Heartbeat, Node, Seen, Whereabouts};
pub use outcome::{Outcome, signal_name};
pub use preload::{Excluded, InvalidPreload, Preload, Preloaded};
pub use version::{Image, VersionRecord};
