//! The words of this platform as types: parsed at the edge, trusted everywhere else. No I/O.

mod destined;
mod function;
mod id;
mod idempotency;
mod invocation;
mod language;
mod manifest;
mod name;
mod node;
mod notification;
mod outcome;
mod page;
mod preload;
mod schedule;
pub mod settings;
mod token;
mod trigger;
mod version;

pub use destined::Destined;
pub use function::{Changed, Changes, Executions, Package, Record, Update};
pub use id::{
    FunctionId, ImageDigest, ImageId, InvocationId, NotAFunctionId, NotATokenId, NotAnInvocationId, TokenId,
    UnknownFunction, UnknownInvocation, UnknownVersion, VersionId,
};
pub use idempotency::{Deployed, IdempotencyKey, Known, Queued};
pub use invocation::{InvocationRecord, Open, Own, Place};
pub use language::{Language, UnknownLanguage};
pub use manifest::Manifest;
pub use name::{FunctionName, InvalidName, UnknownName};
pub use node::{Heartbeat, Node, Seen, Whereabouts};
pub use notification::{Claimed, Delivery, DeliveryState, Due, Notification, Tried, WebhookId};
pub use outcome::{Outcome, signal_name};
pub use page::{Page, TriggerKind};
pub use preload::{Excluded, InvalidPreload, Preload, Preloaded};
pub use schedule::{
    DeclaredSchedule, Definition, DueSlot, InvalidScheduleName, MAX_SCHEDULES, Missed, Overlap, Schedule, ScheduleName,
    SkipReason, Skipped, Step, Taken, UnknownSchedule,
};
pub use token::{Added, InvalidTokenName, Scope, TokenHash, TokenName, TokenRecord, UnknownToken};
pub use trigger::Trigger;
pub use version::{Image, VersionRecord};
