//! A function as the store keeps it.

use super::settings::Settings;
use super::{FunctionId, FunctionName, Preloaded, VersionRecord};

/// A function's row: all that the store keeps of the function except zips and build logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The function's id.
    pub id: FunctionId,
    /// The function's name.
    pub name: FunctionName,
    /// The time of the submit, in Unix seconds.
    pub created_at: u64,
    /// The function's count of executions and the time of the last.
    pub executions: Executions,
    /// The function's own settings.
    pub settings: Settings,
    /// What an instance has found out about preloading.
    pub preloaded: Option<Preloaded>,
    /// The version that runs.
    pub version: VersionRecord,
    /// The version that ran before, which a rollback runs again.
    pub previous: Option<VersionRecord>,
    /// The highest version number so far.
    pub last_version: u32,
}

/// The count of a function's executions, and the time of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executions {
    /// The number of executions.
    pub count: u64,
    /// The time of the last execution, in Unix seconds; None before the first.
    pub last: Option<u64>,
}

/// A zip from which an image was built.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// The zip's bytes.
    pub zip: &'a [u8],
    /// The output of the build's steps.
    pub build_log: &'a str,
    /// Warnings for the author: parts of the zip that probably do not do what the author means.
    pub warnings: &'a [String],
}

/// The next state of a function, as an update, a rollback or a change of settings makes it.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// The function's id.
    pub id: FunctionId,
    /// The function's name.
    pub name: &'a FunctionName,
    /// The function's settings.
    pub settings: &'a Settings,
    /// What an instance has found out about preloading.
    pub preloaded: Option<&'a Preloaded>,
    /// The number of the version that runs.
    pub version: u32,
    /// The number of the version that ran before.
    pub previous: Option<u32>,
    /// The number of versions that the store keeps (MAX_FUNCTION_VERSIONS).
    pub max_versions: u32,
}
