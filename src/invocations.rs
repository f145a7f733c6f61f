//! Invocations from a request to what is written down of them.

pub mod failure;
pub mod history;
pub mod input;
pub mod invoke;
pub mod live;
mod outcome;
pub mod queue;
