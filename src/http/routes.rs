//! Handlers, by what a client asks for. Each extracts, calls one use case, and converts.

pub(super) mod again;
pub(super) mod console;
pub(super) mod deployments;
pub(super) mod executions;
pub(super) mod follow;
pub(super) mod functions;
pub(super) mod health;
pub(super) mod history;
pub(super) mod invocations;
pub(super) mod metrics;
pub(super) mod nodes;
pub(super) mod notifications;
pub(super) mod overview;
pub(super) mod schedules;
pub(super) mod settings;
pub(super) mod tokens;
pub(super) mod versions;
