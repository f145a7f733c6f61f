//! Reasons why an execution is not accepted, can't begin, or is not cancelled.

use std::sync::Arc;

use thiserror::Error;

use crate::docker::Failure;
use crate::domain::{InvocationId, Outcome, UnknownFunction, UnknownInvocation};
use crate::invocations::input::InputError;
use crate::invocations::invoke::InvokeError;
use crate::resources::disk::LowDisk;
use crate::store::StoreError;

/// The reason not to accept an invocation.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// There is no such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// The function does not take the input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The queue is full (ASYNC_QUEUE_LIMIT).
    #[error("{0} asynchronous executions wait already (ASYNC_QUEUE_LIMIT); try again later")]
    Full(usize),
    /// Another request had the key.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// A disk has too little room for the invocation's result.
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    /// The invocation could not begin, and was taken back.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// The function was deleted while the client waited.
    #[error(transparent)]
    Gone(#[from] UnknownInvocation),
    /// The store did not take the invocation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the invocation's new state.
    #[error("failed to write down an execution; send the request again with its key")]
    Unsettled(#[source] Arc<StoreError>),
    /// The task panicked or was aborted.
    #[error("the acceptance died")]
    Died(#[from] tokio::task::JoinError),
}

/// The reason why an invocation can't begin, for all clients that wait for the invocation.
#[derive(Clone, Debug, Error)]
pub(super) enum Hindrance {
    /// The invocation gets no instance.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// The beginning can't be written down.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl From<&Hindrance> for Failure {
    fn from(hindrance: &Hindrance) -> Self {
        match hindrance {
            Hindrance::Invoke(error) => error.into(),
            Hindrance::Store(error) => (&**error).into(),
        }
    }
}

impl From<Hindrance> for AcceptError {
    fn from(hindrance: Hindrance) -> Self {
        match hindrance {
            Hindrance::Invoke(error) => error.into(),
            Hindrance::Store(error) => Self::Unsettled(error),
        }
    }
}

/// The reason not to cancel an invocation.
#[derive(Debug, Error)]
pub enum CancelError {
    /// There is no invocation of this id.
    #[error(transparent)]
    Unknown(#[from] UnknownInvocation),
    /// The invocation has ended.
    #[error("invocation {0} can't be cancelled: it is not asynchronous, or has ended with {name:?}", name = .1.name())]
    Ended(InvocationId, Outcome),
    /// The store did not take the cancellation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task panicked or was aborted.
    #[error("the cancellation died")]
    Died(#[from] tokio::task::JoinError),
}
