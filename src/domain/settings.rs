//! A function's own settings: limits, network, environment, secrets. Pure.

pub mod network;
pub mod variable;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use thiserror::Error;

use super::{Language, Preload};
use crate::config::{self, Functions, MIN_MEMORY, Sandbox, Secret};
use network::Network;

/// The largest size of environment and secrets together, names included, in bytes: a new process must be able to take
/// all variables.
const MAX_VARIABLES: usize = 256 << 10;
/// The largest number of variables and secrets together.
const MAX_COUNT: usize = 1000;
/// The highest value of `concurrency`. A node runs no more than DOCKER_CONTAINER_LIMIT, whatever the value.
const MAX_CONCURRENCY: u32 = 1000;
/// The highest value of `keepWarm`.
const MAX_KEEP_WARM: u32 = 10;

/// A function's own settings. In place of None the operator's configuration counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The container's memory limit, in bytes.
    pub memory: Option<u64>,
    /// The container's share of processors.
    pub cpus: Option<f64>,
    /// The time limit of one invocation.
    pub timeout: Option<Duration>,
    /// How many invocations run at one time on each node. With None, the operator's limit on containers counts.
    pub concurrency: Option<u32>,
    /// How many instances each node keeps, whether or not the instances are used. None means none.
    pub keep_warm: Option<u32>,
    /// The modules that an instance of a Python function imports before its first invocation.
    pub preload: Option<Preload>,
    /// What programs may reach, as far as the operator still allows that. None means nothing.
    pub network: Option<Network>,
    /// Variables for every invocation. An input's variable of the same name goes first.
    pub environment: BTreeMap<String, String>,
    /// Variables that no answer shows and no input replaces.
    pub secrets: BTreeMap<String, Secret>,
}

/// A change of settings. A setting that is None or has no name here stays; `Some(None)` removes a setting.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The memory limit, in bytes.
    pub memory: Option<Option<u64>>,
    /// The share of processors.
    pub cpus: Option<Option<f64>>,
    /// The time limit of one invocation.
    pub timeout: Option<Option<Duration>>,
    /// How many invocations run at one time.
    pub concurrency: Option<Option<u32>>,
    /// How many instances are kept.
    pub keep_warm: Option<Option<u32>>,
    /// The modules to preload.
    pub preload: Option<Option<Preload>>,
    /// What programs may reach. Whether the operator allows that is for the caller to check.
    pub network: Option<Option<Network>>,
    /// Variables by name.
    pub environment: BTreeMap<String, Option<String>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// The reason to refuse settings.
#[derive(Debug, Error, PartialEq)]
pub enum SettingsError {
    /// The memory limit is out of range.
    #[error("`memory` is {0} bytes; it can be {MIN_MEMORY} to {1} (MAX_FUNCTION_MEMORY)")]
    Memory(u64, u64),
    /// The share of processors is out of range.
    #[error("`cpus` is {0}; it can be 0.01 to {1} (MAX_FUNCTION_CPUS)")]
    Cpus(f64, f64),
    /// The time limit is out of range.
    #[error("`timeout` is {0:?}; it can be up to {1:?} (MAX_FUNCTION_TIMEOUT)")]
    Timeout(Duration, Duration),
    /// The number of invocations at one time is out of range.
    #[error("`concurrency` is {0}; it can be 1 to {MAX_CONCURRENCY}")]
    Concurrency(u32),
    /// The number of kept instances is out of range.
    #[error("`keepWarm` is {0}; it can be 0 to {MAX_KEEP_WARM}")]
    KeepWarm(u32),
    /// All functions together would have too many kept instances.
    #[error(
        "`keepWarm` of all functions would be {0} together; it can be {1}, as DOCKER_CONTAINER_LIMIT leaves one \
         container for the others"
    )]
    KeptTogether(u32, u32),
    /// No variable can have this name.
    #[error("{0:?} can't be the name of an environment variable; use letters, digits and `_`, not a digit first")]
    Name(String),
    /// The variable belongs to the platform or to the language's runtime.
    #[error("the environment variable {0} is reserved; use another name")]
    Reserved(String),
    /// The variable names a proxy, and the function has a network.
    #[error(
        "the environment variable {0} is reserved where `network` is set, as programs find the way to their network by \
         the variable; take {0} away by null, or use another name"
    )]
    ReservedByNetwork(String),
    /// The value can't stand in an environment.
    #[error("the value of {0} holds a NUL character")]
    Nul(String),
    /// A value is over the limit.
    #[error("the value of {0} has {1} bytes; the limit is {max}", max = variable::MAX_VALUE)]
    TooLarge(String, usize),
    /// All variables and secrets together are over the limit.
    #[error("environment and secrets have {0} bytes together; the limit is {MAX_VARIABLES}")]
    TooMuch(usize),
    /// There are too many variables and secrets.
    #[error("environment and secrets have {0} variables together; the limit is {MAX_COUNT}")]
    TooMany(usize),
    /// One name is both a variable and a secret.
    #[error("{0} stands in `environment` and in `secrets`; take it out of one of them, by null")]
    Both(String),
}

impl Settings {
    /// These settings with a change. Fails when the result is out of the operator's limits.
    pub fn with(&self, change: Change, limits: &Functions) -> Result<Self, SettingsError> {
        let memory = change.memory.unwrap_or(self.memory);
        if let Some(memory) =
            change.memory.flatten().filter(|memory| !(MIN_MEMORY..=limits.max_memory).contains(memory))
        {
            return Err(SettingsError::Memory(memory, limits.max_memory));
        }
        let cpus = change.cpus.unwrap_or(self.cpus).map(config::whole_millis);
        if let Some(cpus) = change.cpus.flatten().filter(|cpus| !(0.01..=limits.max_cpus).contains(cpus)) {
            return Err(SettingsError::Cpus(cpus, limits.max_cpus));
        }
        let timeout = change.timeout.unwrap_or(self.timeout);
        if let Some(timeout) = change.timeout.flatten().filter(|&timeout| timeout > limits.max_timeout) {
            return Err(SettingsError::Timeout(timeout, limits.max_timeout));
        }
        let concurrency = change.concurrency.unwrap_or(self.concurrency);
        if let Some(most) = change.concurrency.flatten().filter(|most| !(1..=MAX_CONCURRENCY).contains(most)) {
            return Err(SettingsError::Concurrency(most));
        }
        let keep_warm = change.keep_warm.unwrap_or(self.keep_warm);
        if let Some(kept) = change.keep_warm.flatten().filter(|&kept| kept > MAX_KEEP_WARM) {
            return Err(SettingsError::KeepWarm(kept));
        }
        let environment = merged(&self.environment, change.environment, String::as_str)?;
        let secrets = merged(&self.secrets, change.secrets, |secret| &secret.0)?;
        if let Some(name) = environment.keys().find(|name| secrets.contains_key(*name)) {
            return Err(SettingsError::Both(name.clone()));
        }
        let network = change.network.unwrap_or_else(|| self.network.clone());
        let is_proxy = |name: &&String| variable::PROXIES.contains(&name.as_str());
        if let Some(name) = environment.keys().chain(secrets.keys()).find(is_proxy).filter(|_| network.is_some()) {
            return Err(SettingsError::ReservedByNetwork(name.clone()));
        }
        let count = environment.len() + secrets.len();
        if count > MAX_COUNT {
            return Err(SettingsError::TooMany(count));
        }
        let size: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + secrets.iter().map(|(name, value)| name.len() + value.0.len()).sum::<usize>();
        if size > MAX_VARIABLES {
            return Err(SettingsError::TooMuch(size));
        }
        let preload = change.preload.unwrap_or_else(|| self.preload.clone());
        Ok(Self { memory, cpus, timeout, concurrency, keep_warm, preload, network, environment, secrets })
    }

    /// How many instances a node keeps: no more than can run at one time.
    pub fn kept(&self) -> u32 {
        self.keep_warm.unwrap_or(0).min(self.concurrency.unwrap_or(u32::MAX))
    }

    /// The function's own variables and secrets, which all its invocations have.
    pub fn variables(&self) -> Vec<(String, String)> {
        let secrets = self.secrets.iter().map(|(name, value)| (name, &value.0));
        self.environment.iter().chain(secrets).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The function's own variables and secrets in an input's environment. The input's values go first, except over
    /// secrets.
    pub fn complete(&self, mut environment: Vec<(String, String)>) -> Vec<(String, String)> {
        environment.retain(|(name, _)| !self.secrets.contains_key(name));
        let given: HashSet<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        let own = self.variables().into_iter().filter(|(name, _)| !given.contains(name.as_str()));
        let own: Vec<_> = own.collect();
        environment.extend(own);
        environment
    }

    /// Whether an instance of a function with `other` settings can run invocations with these settings. Modules that
    /// are preloaded have seen the environment, and an instance has the doors of its network from the start.
    pub fn fit_instance_of(&self, other: &Self, language: Language) -> bool {
        let preloads = language == Language::Python && self.preload != Some(Preload::Off);
        let is_same_environment = (&self.environment, &self.secrets) == (&other.environment, &other.secrets);
        (self.memory, self.cpus, &self.network) == (other.memory, other.cpus, &other.network)
            && (language == Language::Go || self.preload == other.preload)
            && (is_same_environment || !preloads)
    }
}

impl Sandbox {
    /// The limits of a container of a function with these settings.
    pub fn with(&self, settings: &Settings) -> Self {
        Self {
            memory: settings.memory.unwrap_or(self.memory),
            cpus: settings.cpus.unwrap_or(self.cpus),
            ..self.clone()
        }
    }
}

fn merged<T: Clone>(
    old: &BTreeMap<String, T>,
    change: BTreeMap<String, Option<T>>,
    text: impl Fn(&T) -> &str,
) -> Result<BTreeMap<String, T>, SettingsError> {
    let mut merged = old.clone();
    for (name, value) in change {
        let Some(value) = value else {
            merged.remove(&name);
            continue;
        };
        if !variable::is_name(&name) {
            return Err(SettingsError::Name(name.chars().take(64).collect()));
        }
        if variable::is_reserved(&name) && !variable::is_settable(&name) {
            return Err(SettingsError::Reserved(name));
        }
        let text = text(&value);
        if text.contains('\0') {
            return Err(SettingsError::Nul(name));
        }
        if text.len() > variable::MAX_VALUE {
            return Err(SettingsError::TooLarge(name, text.len()));
        }
        merged.insert(name, value);
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Functions = Functions {
        max_memory: 100_000_000,
        max_cpus: 2.0,
        max_timeout: Duration::from_secs(60),
        max_versions: 3,
        max_kept: 9,
        preload: config::PreloadLimit::Auto,
    };

    fn variables<T>(pairs: &[(&str, Option<T>)]) -> BTreeMap<String, Option<T>>
    where
        T: Clone,
    {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[track_caller]
    fn check_environment(name: &str, value: &str, expected: SettingsError) {
        let change = Change { environment: variables(&[(name, Some(value.to_owned()))]), ..Change::default() };
        assert_eq!(Settings::default().with(change, &LIMITS), Err(expected));
    }

    #[test]
    fn what_is_not_named_stays_and_what_is_null_goes() {
        let change = Change {
            memory: Some(Some(64_000_000)),
            timeout: Some(Some(Duration::from_secs(5))),
            environment: variables(&[("A", Some("1".to_owned())), ("b_2", Some(String::new()))]),
            secrets: variables(&[("KEY", Some(Secret("s".to_owned())))]),
            ..Change::default()
        };
        let first = Settings::default().with(change, &LIMITS).unwrap();
        assert!(!format!("{first:?}").contains("\"s\""), "a secret shows in Debug");
        let change = Change {
            timeout: Some(None),
            cpus: Some(Some(0.5)),
            environment: variables(&[("A", None), ("NONE", None)]),
            ..Change::default()
        };
        let second = first.with(change, &LIMITS).unwrap();
        assert_eq!((second.memory, second.cpus, second.timeout), (Some(64_000_000), Some(0.5), None));
        assert_eq!(second.environment.keys().collect::<Vec<_>>(), ["b_2"]);
        assert_eq!(second.secrets, first.secrets);
    }

    #[test]
    fn settings_are_checked() {
        check_environment("1A", "", SettingsError::Name("1A".to_owned()));
        check_environment("A=B", "", SettingsError::Name("A=B".to_owned()));
        check_environment("PATH", "", SettingsError::Reserved("PATH".to_owned()));
        check_environment("PYTHONPATH", "", SettingsError::Reserved("PYTHONPATH".to_owned()));
        let unbuffered =
            Change { environment: variables(&[("PYTHONUNBUFFERED", Some("1".to_owned()))]), ..Change::default() };
        assert!(Settings::default().with(unbuffered, &LIMITS).is_ok());
        check_environment("LD_PRELOAD", "", SettingsError::Reserved("LD_PRELOAD".to_owned()));
        check_environment("A", "\0", SettingsError::Nul("A".to_owned()));
        check_environment("A", &"x".repeat(65 << 10), SettingsError::TooLarge("A".to_owned(), 65 << 10));
        let with = |change| Settings::default().with(change, &LIMITS);
        let memory = |memory| with(Change { memory: Some(Some(memory)), ..Change::default() });
        assert_eq!(memory(1), Err(SettingsError::Memory(1, 100_000_000)));
        assert_eq!(memory(200_000_000), Err(SettingsError::Memory(200_000_000, 100_000_000)));
        assert_eq!(with(Change { cpus: Some(Some(1.0 / 3.0)), ..Change::default() }).unwrap().cpus, Some(0.333));
        assert!(with(Change { cpus: Some(Some(f64::NAN)), ..Change::default() }).is_err());
        assert_eq!(with(Change { cpus: Some(Some(3.0)), ..Change::default() }), Err(SettingsError::Cpus(3.0, 2.0)));
        let concurrency = |most| with(Change { concurrency: Some(Some(most)), ..Change::default() });
        assert_eq!(concurrency(0), Err(SettingsError::Concurrency(0)));
        assert_eq!(concurrency(1001), Err(SettingsError::Concurrency(1001)));
        let keep_warm = |kept| with(Change { keep_warm: Some(Some(kept)), ..Change::default() });
        assert_eq!(keep_warm(11), Err(SettingsError::KeepWarm(11)));
        let kept = |keep_warm, concurrency| Settings { keep_warm, concurrency, ..Settings::default() }.kept();
        assert_eq!((kept(None, None), kept(Some(3), None), kept(Some(3), Some(2))), (0, 3, 2));
        let long = Duration::from_secs(61);
        let timeout = with(Change { timeout: Some(Some(long)), ..Change::default() });
        assert_eq!(timeout, Err(SettingsError::Timeout(long, LIMITS.max_timeout)));
        let both = Change {
            environment: variables(&[("A", Some(String::new()))]),
            secrets: variables(&[("A", Some(Secret(String::new())))]),
            ..Change::default()
        };
        assert_eq!(with(both), Err(SettingsError::Both("A".to_owned())));
        let many = (0..1001).map(|n| (format!("A{n}"), Some(String::new()))).collect();
        assert_eq!(with(Change { environment: many, ..Change::default() }), Err(SettingsError::TooMany(1001)));
        let many = (0..5).map(|n| (format!("A{n}"), Some("x".repeat(60 << 10)))).collect();
        let many = with(Change { environment: many, ..Change::default() });
        assert_eq!(many, Err(SettingsError::TooMuch(5 * ((60 << 10) + 2))));
    }

    #[test]
    fn a_network_is_a_reason_for_another_instance() {
        let network = |rules: &[&str]| Some(Network::new(rules).unwrap());
        let with = |settings: &Settings, network| {
            settings.with(Change { network: Some(network), ..Change::default() }, &LIMITS).unwrap()
        };
        let none = Settings { preload: Some(Preload::Off), ..Settings::default() };
        let one = with(&none, network(&["a.example:443"]));
        let two = with(&one, network(&["a.example:443", "b.example:443"]));
        for language in Language::ALL {
            let fits = |one: &Settings, other: &Settings| one.fit_instance_of(other, language);
            assert!(!fits(&one, &none) && !fits(&none, &one) && !fits(&two, &one), "{language:?}");
            assert!(fits(&one, &with(&two, network(&["A.example:443"]))), "{language:?}");
        }
        assert_eq!(one.with(Change::default(), &LIMITS).unwrap(), one, "a network that is not named stays");
        assert_eq!(with(&one, None), none);
    }

    #[test]
    fn variables_of_proxies_are_free_only_without_a_network() {
        let network = || Change { network: Some(Network::new(["a.example:443"]).ok()), ..Change::default() };
        let one = Settings::default().with(network(), &LIMITS).unwrap();
        for name in variable::PROXIES {
            let refused = Err(SettingsError::ReservedByNetwork(name.to_owned()));
            let environment = variables(&[(name, Some("http://proxy:3128".to_owned()))]);
            let environment = || Change { environment: environment.clone(), ..Change::default() };
            let secrets = variables(&[(name, Some(Secret(String::new())))]);
            let secrets = || Change { secrets: secrets.clone(), ..Change::default() };
            for change in [environment(), secrets()] {
                let own = Settings::default().with(change.clone(), &LIMITS).unwrap();
                assert_eq!(own.with(network(), &LIMITS), refused, "the variable first");
                assert_eq!(one.with(change.clone(), &LIMITS), refused, "the network first");
                let both = Change { network: network().network, ..change };
                assert_eq!(Settings::default().with(both, &LIMITS), refused, "both at one time");
            }
            let own = Settings::default().with(environment(), &LIMITS).unwrap();
            let instead = Change { environment: variables(&[(name, None)]), ..network() };
            assert!(own.with(instead, &LIMITS).is_ok());
            let instead = Change { network: Some(None), ..environment() };
            assert!(one.with(instead, &LIMITS).is_ok());
        }
        let other = variables(&[("HTTP_PROXY_PORT", Some("1".to_owned())), ("PROXY", Some("1".to_owned()))]);
        assert!(one.with(Change { environment: other, ..Change::default() }, &LIMITS).is_ok());
    }
}
