//! A function's own settings: limits, network, environment, secrets. Pure.

pub mod declared;
mod error;
pub mod network;
pub mod notify;
mod pins;
pub mod variable;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::{Language, Preload};
use crate::config::{self, Functions, HttpMode, MIN_MEMORY, Sandbox, Secret};
pub use declared::Declared;
pub use error::SettingsError;
use network::Network;
use notify::Notify;
pub use pins::Pins;

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
    /// Whose requests reach the function over HTTP, as far as the operator still allows that.
    pub http: HttpMode,
    /// Whom the ends of asynchronous invocations are told to. None means nobody.
    pub notify: Option<Notify>,
    /// Variables for every invocation. An input's variable of the same name goes first.
    pub environment: BTreeMap<String, String>,
    /// Variables that no answer shows and no input replaces.
    pub secrets: BTreeMap<String, Secret>,
    /// Which of the settings clients have set. The others are those of the version's function.toml.
    pub pins: Pins,
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
    /// Whose requests reach the function over HTTP.
    pub http: Option<Option<HttpMode>>,
    /// Whom the ends of asynchronous invocations are told to. The key is for a function that has no key yet.
    pub notify: Option<Option<Notify>>,
    /// Variables by name.
    pub environment: BTreeMap<String, Option<String>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

impl Settings {
    /// These settings with a change, whoever wants the change. Fails when the result is out of the operator's limits.
    pub(in crate::domain) fn with(&self, change: Change, limits: &Functions) -> Result<Self, SettingsError> {
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
        if let Some(mode) = change.http.flatten() {
            check_http(mode, limits.http)?;
        }
        let http = change.http.map_or(self.http, Option::unwrap_or_default);
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
        let notify = notify::changed(self.notify.as_ref(), change.notify);
        let pins = self.pins.clone();
        let numbers = Self { memory, cpus, timeout, concurrency, keep_warm, ..Self::default() };
        Ok(Self { preload, network, http, notify, environment, secrets, pins, ..numbers })
    }

    /// How many invocations run at one time on a node with this many containers. None for no limit but the node's.
    pub fn concurrency(&self, containers: u32) -> Option<u32> {
        let half = || (self.http == HttpMode::Public).then_some((containers / 2).max(1));
        self.concurrency.or_else(half)
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
    pub fn complete(&self, mut environment: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        environment.retain(|(name, _)| !self.secrets.contains_key(name));
        let given: HashSet<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        let own = self.variables().into_iter().filter(|(name, _)| !given.contains(name.as_str()));
        let own: Vec<_> = own.map(|(name, value)| (name, value.into_bytes())).collect();
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

/// Fails when the operator allows functions less than `mode`. `most` is None where there is no listener for functions.
fn check_http(mode: HttpMode, most: Option<HttpMode>) -> Result<(), SettingsError> {
    match most {
        _ if mode == HttpMode::Off => Ok(()),
        None => Err(SettingsError::HttpOff { mode, variable: "FUNCTIONS_PORT", value: "has no value" }),
        Some(HttpMode::Off) => Err(SettingsError::HttpOff { mode, variable: "HTTP_FUNCTIONS", value: "is `off`" }),
        Some(most) if mode > most => Err(SettingsError::HttpNotAllowed(mode, most)),
        Some(_) => Ok(()),
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
        http: Some(HttpMode::Token),
        containers: 10,
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
    fn http_is_what_the_operator_allows() {
        let with = |http, most| {
            let change = Change { http: Some(http), ..Change::default() };
            Settings::default().with(change, &Functions { http: most, ..LIMITS.clone() }).map(|settings| settings.http)
        };
        use HttpMode::{Off, Public, Token};
        assert_eq!(with(Some(Token), Some(Token)), Ok(Token));
        assert_eq!(with(Some(Public), Some(Token)), Err(SettingsError::HttpNotAllowed(Public, Token)));
        assert_eq!((with(Some(Off), None), with(None, None)), (Ok(Off), Ok(Off)));
        for (most, variable) in [(None, "FUNCTIONS_PORT"), (Some(Off), "HTTP_FUNCTIONS")] {
            assert!(with(Some(Token), most).unwrap_err().to_string().contains(variable));
        }
        let limit = |http, concurrency| Settings { http, concurrency, ..Settings::default() }.concurrency(9);
        assert_eq!((limit(Public, None), limit(Public, Some(7)), limit(Token, None)), (Some(4), Some(7), None));
        assert_eq!(Settings { http: Public, ..Settings::default() }.concurrency(1), Some(1));
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
