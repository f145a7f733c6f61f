//! What an invocation was begun by.

use std::fmt;

/// How the name of a schedule's invocations begins, before the schedule's name.
const SCHEDULE: &str = "schedule:";

/// What an invocation was begun by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trigger {
    /// A request to the API.
    #[default]
    Api,
    /// A request to the function's own URL.
    Http,
    /// The function's schedule of this name.
    Schedule(String),
}

impl Trigger {
    /// The trigger of this name. None when no trigger has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "api" => Some(Self::Api),
            "http" => Some(Self::Http),
            name => name.strip_prefix(SCHEDULE).map(|schedule| Self::Schedule(schedule.to_owned())),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Http => f.write_str("http"),
            Self::Schedule(name) => write!(f, "{SCHEDULE}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_has_one_name() {
        for trigger in [Trigger::Api, Trigger::Http, Trigger::Schedule("nightly".to_owned())] {
            assert_eq!(Trigger::from_name(&trigger.to_string()), Some(trigger));
        }
        assert_eq!(Trigger::from_name("cron"), None);
    }
}
