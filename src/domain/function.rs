//! A function as the store keeps it.

use super::settings::Settings;
use super::{FunctionId, FunctionName, VersionRecord};

/// All that is remembered of a function, but for its zips and build logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: FunctionId,
    /// Its name.
    pub name: FunctionName,
    /// Unix seconds.
    pub created_at: u64,
    /// How often and when it was executed.
    pub executions: Executions,
    /// What its owner has set.
    pub settings: Settings,
    /// What is run.
    pub version: VersionRecord,
    /// What was run before.
    pub previous: Option<VersionRecord>,
    /// The number of the last version that was made.
    pub last_version: u32,
}

/// How often and when a function was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executions {
    /// How often.
    pub count: u64,
    /// When last, in Unix seconds.
    pub last: Option<u64>,
}

/// A zip that was built.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// The zip.
    pub zip: &'a [u8],
    /// What the steps of its build printed.
    pub build_log: &'a str,
    /// What its author probably does not mean, for people.
    pub warnings: &'a [String],
}

/// A function as it is to stand from now on.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// Which function.
    pub id: FunctionId,
    /// Its name.
    pub name: &'a FunctionName,
    /// Its settings.
    pub settings: &'a Settings,
    /// The number of the version that is run.
    pub version: u32,
    /// The number of the one before it.
    pub previous: Option<u32>,
    /// How many of the last versions are kept.
    pub max_versions: u32,
}
