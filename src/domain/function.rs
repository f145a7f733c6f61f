//! A function as the store keeps it.

use super::settings::Settings;
use super::{DeclaredSchedule, FunctionId, FunctionName, Preloaded, TokenRecord, VersionRecord};

/// A function's row: all that the store keeps of the function except zips and build logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The function's id.
    pub id: FunctionId,
    /// The function's place in the order of submits. The store gives the number to a new function.
    pub number: u64,
    /// The number of the function's state: 1 at the submit, and one more after each change.
    pub generation: u64,
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
}

/// The count of a function's executions, and the time of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executions {
    /// The number of executions.
    pub count: u64,
    /// The time of the last execution, in Unix seconds; None before the first.
    pub last: Option<u64>,
}

impl Executions {
    /// Adds further executions. The time does not go back, although a clock may.
    pub fn add(&mut self, further: Self) {
        self.count += further.count;
        self.last = self.last.max(further.last);
    }
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

/// The result of a change of a function in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The function has its next state: the number of the change, over all functions.
    Now(u64),
    /// The function has another generation than the change is based on.
    Since,
    /// The function or the version is gone.
    Gone,
    /// Another node carries out the request with this key.
    Claimed,
    /// Another function of this name answers requests over HTTP.
    NameTaken,
    /// With the declared schedules the function would have too many.
    TooManySchedules,
}

/// Changes of functions and tokens since an earlier moment.
#[derive(Debug, Default)]
pub struct Changes {
    /// The number of the last change.
    pub last: u64,
    /// Functions that are new or have another state, the oldest first.
    pub changed: Vec<Record>,
    /// Functions that are gone.
    pub deleted: Vec<FunctionId>,
    /// All tokens, where any token is new or gone.
    pub tokens: Option<Vec<TokenRecord>>,
}

/// The next state of a function, as an update, a rollback or a change of settings makes it.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// The function's id.
    pub id: FunctionId,
    /// The generation that the change is based on.
    pub from: u64,
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
    /// The schedules that the next version declares. None where the version stays.
    pub declared: Option<&'a [DeclaredSchedule]>,
    /// The number of versions that the store keeps (MAX_FUNCTION_VERSIONS).
    pub max_versions: u32,
}
