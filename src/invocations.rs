//! Invocations, from the request to the record in the history.

pub mod failure;
pub mod history;
pub mod input;
pub mod invoke;
pub mod keeper;
pub mod live;
pub mod lookout;
pub mod queue;
mod verdict;
