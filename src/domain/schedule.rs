//! A schedule: the times at which a function runs by itself. Each of these times is a slot.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use thiserror::Error;

use super::{FunctionId, InvocationId, Outcome};

/// A schedule's name: 1 to 63 of letters, digits, `.`, `_` and `-`, a letter or digit first. The schedules of a
/// function have different names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleName(String);

const MAX_NAME_LENGTH: usize = 63;

impl ScheduleName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScheduleName {
    type Err = InvalidScheduleName;

    fn from_str(name: &str) -> Result<Self, InvalidScheduleName> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && name.len() <= MAX_NAME_LENGTH && name.chars().all(is_allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidScheduleName(name.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text can't be the name of a schedule.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} can't be the name of a schedule; give it 1 to {MAX_NAME_LENGTH} letters, digits, `.`, `_` and `-`, a letter \
     or digit first"
)]
pub struct InvalidScheduleName(pub String);

/// The function has no schedule of this name.
#[derive(Debug, Error)]
#[error("function {0} has no schedule \"{1}\"; GET /api/functions/{0}/schedules lists those there are")]
pub struct UnknownSchedule(pub FunctionId, pub ScheduleName);

/// What becomes of a slot while an earlier run of its schedule has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// The slot is skipped.
    #[default]
    Skip,
    /// The slot's run is accepted, and waits in the queue of the function like any other.
    Queue,
}

impl Overlap {
    /// The policy of this name. None when no policy has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Skip, Self::Queue].into_iter().find(|policy| policy.name() == name)
    }

    /// The policy's name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
        }
    }
}

/// What becomes of slots that no node has begun in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// The slots are forgotten.
    #[default]
    Skip,
    /// One run makes up for all slots that were missed.
    Once,
}

impl Missed {
    /// The policy of this name. None when no policy has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Skip, Self::Once].into_iter().find(|policy| policy.name() == name)
    }

    /// The policy's name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
        }
    }
}

/// Why a slot has no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// An earlier run had not ended.
    Overlap,
    /// No node has begun the slot in time.
    Missed,
}

impl SkipReason {
    /// The reason of this name. None when no reason has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Overlap, Self::Missed].into_iter().find(|reason| reason.name() == name)
    }

    /// The reason's name in the API, in metrics and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Missed => "missed",
        }
    }
}

/// A slot without a run, or the first of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The slot, in Unix seconds.
    pub slot: u64,
    /// The reason.
    pub reason: SkipReason,
}

/// What a client asks of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The times as five fields of crontab(5), or a name such as `@daily`.
    pub cron: String,
    /// The name of a time zone in the IANA database.
    pub timezone: String,
    /// The input of each run, as JSON.
    pub input: Bytes,
    /// False for a schedule that pauses.
    pub is_enabled: bool,
    /// The policy for slots that come before the end of an earlier run.
    pub overlap: Overlap,
    /// The policy for slots that were missed.
    pub missed: Missed,
}

/// A schedule that a version of a function declares in its function.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredSchedule {
    /// The schedule's name.
    pub name: ScheduleName,
    /// What the file says.
    pub definition: Definition,
    /// The time of the look, in Unix seconds.
    pub now: u64,
    /// The first slot after `now`; None while the schedule pauses.
    pub next_at: Option<u64>,
}

/// The largest number of schedules of a function.
pub const MAX_SCHEDULES: u32 = 20;

/// A schedule as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The id of the function.
    pub function_id: FunctionId,
    /// The schedule's name.
    pub name: ScheduleName,
    /// What the client asks.
    pub definition: Definition,
    /// Whether the function's version declares the schedule.
    pub is_declared: bool,
    /// The next slot, in Unix seconds; None where there is none.
    pub next_at: Option<u64>,
    /// The last run.
    pub last_invocation: Option<InvocationId>,
    /// What the last run came to, or how far the run is.
    pub last_outcome: Option<Outcome>,
    /// The last slot without a run.
    pub last_skipped: Option<Skipped>,
}

/// A schedule whose next slot has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSlot {
    /// The id of the function.
    pub function_id: FunctionId,
    /// The schedule's name.
    pub name: ScheduleName,
    /// The number of the schedule's definition.
    pub revision: u64,
    /// The times, as [`Definition`] has them.
    pub cron: String,
    /// The time zone.
    pub timezone: String,
    /// The policy for slots that come before the end of an earlier run.
    pub overlap: Overlap,
    /// The policy for slots that were missed.
    pub missed: Missed,
    /// The slot, in Unix seconds.
    pub slot: u64,
}

/// A step of a schedule: from its next slot to a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The id of the function.
    pub function_id: FunctionId,
    /// The schedule's name.
    pub name: ScheduleName,
    /// The number of the definition that the step is based on.
    pub revision: u64,
    /// The next slot that the step is based on, in Unix seconds.
    pub from: u64,
    /// The time up to which all slots have been decided on, in Unix seconds.
    pub settled_at: u64,
    /// The next slot after the step, in Unix seconds.
    pub next_at: Option<u64>,
    /// The slot that gets no run, or the first of several.
    pub skipped: Option<Skipped>,
    /// The slot that gets a run, in Unix seconds.
    pub run: Option<u64>,
    /// The policy for the run where an earlier run has not ended.
    pub overlap: Overlap,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The step is made, and the run is accepted where the step has one.
    Made,
    /// The step is made without its run, as an earlier run has not ended.
    Overlapped,
    /// The schedule is no longer as the step says: another node was first, or a client has changed the schedule.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_stand_in_a_path() {
        for name in ["nightly", "a", "9-to-5", "a.b_c", &"x".repeat(63)] {
            assert_eq!(name.parse::<ScheduleName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "-a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(name.parse::<ScheduleName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn policies_have_one_name() {
        for policy in [Overlap::Skip, Overlap::Queue] {
            assert_eq!(Overlap::from_name(policy.name()), Some(policy));
        }
        for policy in [Missed::Skip, Missed::Once] {
            assert_eq!(Missed::from_name(policy.name()), Some(policy));
        }
        for reason in [SkipReason::Overlap, SkipReason::Missed] {
            assert_eq!(SkipReason::from_name(reason.name()), Some(reason));
        }
        assert_eq!((Overlap::from_name("once"), Missed::from_name("queue")), (None, None));
    }
}
