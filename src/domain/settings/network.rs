//! What a function may reach. Pure.

use thiserror::Error;

use crate::config::{Destination, Rule, RuleError};

/// The most rules of a function.
const MAX_RULES: usize = 32;

/// What a function may reach. A function without a network reaches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Network {
    /// A network of these rules. A rule that comes twice counts once.
    pub fn new(rules: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NetworkError> {
        let mut allow: Vec<Rule> = Vec::new();
        for rule in rules {
            let rule: Rule = rule.as_ref().parse()?;
            if !allow.contains(&rule) {
                allow.push(rule);
            }
        }
        match allow.len() {
            0 => Err(NetworkError::Empty),
            count if count > MAX_RULES => Err(NetworkError::TooMany(count)),
            _ => Ok(Self { allow }),
        }
    }

    /// The first rule that lets a program reach a destination.
    pub fn rule_for(&self, destination: &Destination, port: u16) -> Option<&Rule> {
        self.allow.iter().find(|rule| rule.allows(destination, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_some_rules_each_once() {
        assert_eq!(Network::new(["a.example:1", "A.EXAMPLE:1"]).unwrap().allow.len(), 1);
        assert_eq!(Network::new([""; 0]), Err(NetworkError::Empty));
        let many = (1..=33).map(|port| format!("a.example:{port}"));
        assert_eq!(Network::new(many), Err(NetworkError::TooMany(33)));
        let network = Network::new(["a.example:443", "*:443"]).unwrap();
        let found = network.rule_for(&"b.example".parse().unwrap(), 443).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some("*:443"));
        assert!(network.rule_for(&"a.example".parse().unwrap(), 80).is_none());
    }
}
