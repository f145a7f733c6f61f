//! Reasons why an execution is not accepted, can't begin, or is not cancelled.

use std::sync::Arc;

use thiserror::Error;

use crate::docker::Failure;
use crate::domain::{InvocationId, UnknownFunction, UnknownInvocation};
use crate::invocations::input::InputError;
use crate::invocations::invoke::InvokeError;
use crate::resources::disk::LowDisk;
use crate::store::StoreError;

/// Why one is not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// No such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// Its input can't be the function's.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There are as many as may be.
    #[error("{0} asynchronous executions wait already (ASYNC_QUEUE_LIMIT); try again later")]
    Full(usize),
    /// The key was used before, for something else.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// There is too little room to keep what it would come to.
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    /// The execution could not begin, and was taken back.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// The function was deleted while the client waited.
    #[error(transparent)]
    Gone(#[from] UnknownInvocation),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The execution's state could not be written down.
    #[error("failed to write down an execution; send the request again with its key")]
    Unsettled(#[source] Arc<StoreError>),
    /// The task died.
    #[error("the acceptance died")]
    Died(#[from] tokio::task::JoinError),
}

/// Why an invocation can't begin, for all clients that wait for it.
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

/// Why one is not cancelled.
#[derive(Debug, Error)]
pub enum CancelError {
    /// There is none of this id.
    #[error(transparent)]
    Unknown(#[from] UnknownInvocation),
    /// It has ended.
    #[error("invocation {0} can't be cancelled: it is not asynchronous, or has ended with {1:?}")]
    Ended(InvocationId, String),
    /// That could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task died.
    #[error("the cancellation died")]
    Died(#[from] tokio::task::JoinError),
}
