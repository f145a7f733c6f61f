//! What a function may reach. Pure.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{Destination, Rule, RuleError};

/// The most rules of a function, each counted as often as the rule comes.
pub const MAX_RULES: usize = 32;

/// What a function may reach. A function without a network reaches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Network {
    /// One rule at least, and each rule once.
    pub allow: Vec<Rule>,
}

/// The reason to refuse a network.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NetworkError {
    /// A rule is refused.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// There is no rule.
    #[error("`network` has no rules; name hosts with ports in `allow`, or set `network` to null")]
    Empty,
    /// There are too many rules.
    #[error("`network` has {0} rules; the limit is {MAX_RULES}")]
    TooMany(usize),
}

/// A network as JSON has it. A member that this program does not know may say less than `allow` does, so such a network
/// is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    allow: Vec<String>,
}

impl Network {
    /// A network of these rules. A rule that comes twice is in the network once.
    pub fn new(rules: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NetworkError> {
        let rules: Vec<_> = rules.into_iter().collect();
        // This comes first: each rule is compared with all rules before.
        if rules.len() > MAX_RULES {
            return Err(NetworkError::TooMany(rules.len()));
        }
        let mut allow: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            let rule: Rule = rule.as_ref().parse()?;
            if !allow.contains(&rule) {
                allow.push(rule);
            }
        }
        if allow.is_empty() { Err(NetworkError::Empty) } else { Ok(Self { allow }) }
    }

    /// The rules as texts, in their order.
    pub fn rules(&self) -> Vec<String> {
        self.allow.iter().map(Rule::to_string).collect()
    }

    /// The first rule that lets a program reach a destination.
    pub fn rule_for(&self, destination: &Destination, port: u16) -> Option<&Rule> {
        self.allow.iter().find(|rule| rule.allows(destination, port))
    }

    /// The first rule that allows more than the operator does by these rules.
    pub fn uncovered(&self, allow: &[Rule]) -> Option<&Rule> {
        self.allow.iter().find(|rule| !is_covered(rule, allow))
    }

    /// What is left of the network where the operator allows these rules; None where no rule is left. The operator may
    /// allow less than at the time when the function got its network.
    pub fn within(&self, allow: &[Rule]) -> Option<Self> {
        let left: Vec<Rule> = self.allow.iter().filter(|rule| is_covered(rule, allow)).cloned().collect();
        (!left.is_empty()).then_some(Self { allow: left })
    }
}

/// One rule of the operator must cover the whole rule: two ranges that together make a third do not.
fn is_covered(rule: &Rule, allow: &[Rule]) -> bool {
    allow.iter().any(|own| own.covers(rule))
}

impl TryFrom<Written> for Network {
    type Error = NetworkError;

    fn try_from(written: Written) -> Result<Self, NetworkError> {
        Self::new(written.allow)
    }
}

impl From<Network> for Written {
    fn from(network: Network) -> Self {
        Self { allow: network.rules() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(rules: &[&str]) -> Network {
        Network::new(rules).unwrap()
    }

    #[test]
    fn a_network_has_some_rules_each_once() {
        assert_eq!(network(&["a.example:1", "A.EXAMPLE:1"]).allow.len(), 1);
        assert_eq!(Network::new([""; 0]), Err(NetworkError::Empty));
        let many = |count: u16| Network::new((1..=count).map(|port| format!("a.example:{port}")));
        assert_eq!(many(32).unwrap().allow.len(), 32);
        assert_eq!(many(33), Err(NetworkError::TooMany(33)));
        let wrong = Network::new(["a.example:443", "b.example"]).unwrap_err().to_string();
        assert!(wrong.contains("\"b.example\"") && wrong.contains("HOST:PORT"), "{wrong}");
        let network = network(&["a.example:443", "*:443"]);
        let found = network.rule_for(&"b.example".parse().unwrap(), 443).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some("*:443"));
        assert!(network.rule_for(&"a.example".parse().unwrap(), 80).is_none());
    }

    #[test]
    fn what_the_operator_does_not_cover_is_left_out() {
        let allow = network(&["*.example:443", "10.0.0.0/9:5432", "10.128.0.0/9:5432", "db.internal:1"]).allow;
        let asked = network(&["a.example:443", "10.0.0.0/8:5432", "10.1.2.3:5432", "*:443", "db.internal:1"]);
        assert_eq!(asked.uncovered(&allow).map(ToString::to_string).as_deref(), Some("10.0.0.0/8:5432"));
        let left = asked.within(&allow).unwrap();
        assert_eq!(left.rules(), ["a.example:443", "10.1.2.3:5432", "db.internal:1"]);
        assert_eq!((left.uncovered(&allow), left.within(&allow)), (None, Some(left.clone())));
        assert_eq!(asked.within(&[]), None);
        assert_eq!(network(&["a.example:80"]).within(&allow), None);
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        let network =
            network(&["API.example.:443", "*.example.org:443", "[2001:DB8::/32]:443", "10.1.2.3:6379", "*:1"]);
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(
            json,
            r#"{"allow":["api.example:443","*.example.org:443","[2001:db8::/32]:443","10.1.2.3:6379","*:1"]}"#
        );
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        for json in [r#"{"allow":[]}"#, r#"{"allow":["a"]}"#, r#"{"allow":["a:1"],"deny":["b:1"]}"#, "{}", "null"] {
            assert!(serde_json::from_str::<Network>(json).is_err(), "{json}");
        }
    }
}
