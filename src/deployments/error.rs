//! Why a function is not made, changed or deleted.

use std::io;

use thiserror::Error;

use crate::build::BuildError;
use crate::domain::settings::SettingsError;
use crate::domain::{FunctionId, UnknownFunction, UnknownVersion};
use crate::functions::images::ImageError;
use crate::invocations::invoke::InvokeError;
use crate::store::StoreError;

/// Why there is no function, or why it stays as it was.
#[derive(Debug, Error)]
pub enum DeployError {
    /// There is none of this id, or it was deleted meanwhile.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// It has no such version.
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    /// It has had one version only.
    #[error(
        "function {0} has no version before this one; give the number of one that GET /api/functions/{0}/versions lists"
    )]
    NoFormer(FunctionId),
    /// It can't have these settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Its image could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There was no place for its build, or its turn did not come.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No instance of it came up.
    #[error("the function stays as it was: no container of what it was to be came up")]
    Warm(#[from] InvokeError),
    /// The key was used before, for something else.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// The same request is being carried out.
    #[error("a request with this Idempotency-Key is being carried out; try again later")]
    InProgress,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The zip could not be read again.
    #[error("failed to read the upload")]
    Io(#[from] io::Error),
    /// The task died.
    #[error("the deployment died")]
    Died(#[from] tokio::task::JoinError),
}

/// Why a function is not deleted.
#[derive(Debug, Error)]
pub enum DeleteError {
    /// There is none of this id.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// That could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task died.
    #[error("the deletion died")]
    Died(#[from] tokio::task::JoinError),
}
