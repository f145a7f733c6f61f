//! A client's choice of invocations in the history.

use super::{FunctionId, InvocationRecord, Outcome, Place, ScheduleName, Trigger};

/// A client's choice of invocations in the history, the last first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The functions whose invocations are meant; None means all functions.
    pub functions: Option<Vec<FunctionId>>,
    /// A place in the history: only invocations before that place are meant.
    pub before: Option<Place>,
    /// The outcomes that are meant; empty for all.
    pub outcomes: Vec<Outcome>,
    /// What the meant invocations were begun by; None for anything.
    pub trigger: Option<TriggerKind>,
    /// The time from which on invocations are meant, in Unix milliseconds.
    pub since: Option<u64>,
    /// The time before which invocations are meant, in Unix milliseconds.
    pub until: Option<u64>,
    /// The largest number of invocations.
    pub limit: u32,
}

/// A kind of triggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TriggerKind {
    /// This trigger.
    One(Trigger),
    /// Any schedule.
    Schedules,
}

impl TriggerKind {
    /// The kind of this name: that of a trigger, or `schedule`. None when no kind has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "schedule" {
            return Some(Self::Schedules);
        }
        // A text that no schedule has as its name may be none that a database takes.
        let trigger = Trigger::from_name(name)?;
        let is_one = |name: &String| name.parse::<ScheduleName>().is_ok();
        let is_possible = if let Trigger::Schedule(name) = &trigger { is_one(name) } else { true };
        is_possible.then_some(Self::One(trigger))
    }

    /// Whether a trigger is of this kind.
    pub fn has(&self, trigger: &Trigger) -> bool {
        match self {
            Self::One(one) => one == trigger,
            Self::Schedules => matches!(trigger, Trigger::Schedule(_)),
        }
    }
}

impl Page {
    /// The last invocations of a function.
    pub fn of(function: FunctionId, limit: u32) -> Self {
        Self { functions: Some(vec![function]), ..Self::last(limit) }
    }

    /// The last invocations of all functions.
    pub fn last(limit: u32) -> Self {
        Self { functions: None, before: None, outcomes: Vec::new(), trigger: None, since: None, until: None, limit }
    }

    /// Whether an invocation is meant, wherever the invocation stands.
    pub fn has(&self, record: &InvocationRecord) -> bool {
        self.functions.as_ref().is_none_or(|functions| functions.contains(&record.function_id))
            && (self.outcomes.is_empty() || self.outcomes.contains(&record.outcome))
            && self.trigger.as_ref().is_none_or(|kind| kind.has(&record.trigger))
            && self.since.is_none_or(|since| record.created_at >= since)
            && self.until.is_none_or(|until| record.created_at < until)
    }
}
