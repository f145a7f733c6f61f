//! The errors of deployments, changes and deletions.

use std::io;

use thiserror::Error;

use super::network::NetworkRefusal;
use crate::build::BuildError;
use crate::domain::settings::SettingsError;
use crate::domain::{FunctionId, FunctionName, MAX_SCHEDULES, UnknownFunction, UnknownVersion};
use crate::functions::images::ImageError;
use crate::invocations::input::InputError;
use crate::invocations::invoke::InvokeError;
use crate::nodes::{CutOff, Unacknowledged};
use crate::schedules::TimesError;
use crate::store::StoreError;
use crate::tokens::Refusal;

/// Why a function was not made or not changed.
#[derive(Debug, Error)]
pub enum DeployError {
    /// No function has this id, or the function was deleted meanwhile.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// The function has no such version.
    #[error(transparent)]
    UnknownVersion(#[from] UnknownVersion),
    /// The function has no previous version.
    #[error(
        "function {0} has no version before this one; give the number of a version that \
         GET /api/functions/{0}/versions lists"
    )]
    NoFormer(FunctionId),
    /// The settings are refused.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The function may not have the network.
    #[error(transparent)]
    Network(#[from] NetworkRefusal),
    /// The image could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There was no place for the build, or the build's turn did not come.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No instance of the new revision started.
    #[error("the function stays as it was: no container with the new version or settings came up")]
    Warm(#[from] InvokeError),
    /// The idempotency key was used before, for another request.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// A request with this idempotency key is being carried out.
    #[error("a request with this Idempotency-Key is being carried out; try again later")]
    InProgress,
    /// Another function of this name answers requests over HTTP.
    #[error(
        "another function named {0} answers HTTP, so its name is taken in URLs; rename one, or turn off the other's \
         `http`"
    )]
    NameTaken(FunctionName),
    /// Several functions have the name.
    #[error("several functions have the name {0}; name one by its id, which GET /api/functions lists")]
    SeveralOfName(FunctionName),
    /// Another request has made a function of the name meanwhile.
    #[error("another request has just made a function named {0}; send the request again to update that")]
    MadeMeanwhile(FunctionName),
    /// The client may not make functions.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The function does not take the input of a declared schedule.
    #[error("a schedule of function.toml: {0}")]
    Input(#[from] InputError),
    /// A declared schedule has times that can't be any more.
    #[error(transparent)]
    Schedule(#[from] TimesError),
    /// With the declared schedules the function would have too many.
    #[error(
        "with the schedules of function.toml, function {0} has more than {MAX_SCHEDULES} schedules, which is the \
         limit; remove some first"
    )]
    TooManySchedules(FunctionId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node does not know which functions there are.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// Another node has not taken over the change in time.
    #[error(transparent)]
    Unacknowledged(#[from] Unacknowledged),
    /// The zip could not be read again.
    #[error("failed to read the upload")]
    Io(#[from] io::Error),
    /// The deployment's task panicked or was aborted.
    #[error("the deployment died")]
    Died(#[from] tokio::task::JoinError),
}

/// Why a function was not deleted.
#[derive(Debug, Error)]
pub enum DeleteError {
    /// No function has this id.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another node has not taken over the deletion in time.
    #[error(transparent)]
    Unacknowledged(#[from] Unacknowledged),
    /// The deletion's task panicked or was aborted.
    #[error("the deletion died")]
    Died(#[from] tokio::task::JoinError),
}
