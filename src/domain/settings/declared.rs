//! The settings that a version declares in its function.toml. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::network::Network;
use super::notify::{Notify, Target};
use super::{Change, Pins, Settings, SettingsError, pins};
use crate::config::{Functions, HttpMode};
use crate::domain::Preload;

/// The settings of a function.toml. A setting that is None or has no name here is not declared. Secrets are never
/// declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// The memory limit, in bytes.
    pub memory: Option<u64>,
    /// The share of processors.
    pub cpus: Option<f64>,
    /// The time limit of one invocation.
    pub timeout: Option<Duration>,
    /// How many invocations run at one time.
    pub concurrency: Option<u32>,
    /// How many instances are kept.
    pub keep_warm: Option<u32>,
    /// The modules to preload.
    pub preload: Option<Preload>,
    /// What programs may reach.
    pub network: Option<Network>,
    /// Whose requests reach the function over HTTP.
    pub http: Option<HttpMode>,
    /// Whom the ends of asynchronous invocations are told to.
    pub notify: Option<Target>,
    /// Variables by name.
    pub environment: BTreeMap<String, String>,
}

/// Declared settings as the store has them.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::domain) struct WrittenSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_warm: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notify: Option<WrittenTarget>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct WrittenTarget {
    url: String,
    on: Vec<String>,
}

impl Declared {
    /// What a submit declares by its function.toml and by its form, whose fields stand above the file. Returns what is
    /// left of the form: the secrets, which no version has.
    pub fn with_form(mut self, form: Change) -> (Self, Change) {
        let Change {
            memory,
            cpus,
            timeout,
            concurrency,
            keep_warm,
            preload,
            network,
            http,
            notify,
            environment,
            secrets,
        } = form;
        replace(&mut self.memory, memory);
        replace(&mut self.cpus, cpus);
        replace(&mut self.timeout, timeout);
        replace(&mut self.concurrency, concurrency);
        replace(&mut self.keep_warm, keep_warm);
        replace(&mut self.preload, preload);
        replace(&mut self.network, network);
        replace(&mut self.http, http);
        replace(&mut self.notify, notify.map(|notify| notify.map(|notify| notify.target)));
        for (name, value) in environment {
            match value {
                Some(value) => drop(self.environment.insert(name, value)),
                None => drop(self.environment.remove(&name)),
            }
        }
        (self, Change { secrets, ..Change::default() })
    }

    /// The declared settings that no client's setting stands above, as a change. A receiver of notifications comes with
    /// a new key.
    fn unpinned(&self, pins: &Pins) -> Change {
        fn open<T: Clone>(pins: &Pins, name: &str, value: Option<&T>) -> Option<Option<T>> {
            value.filter(|_| !pins.has(name)).map(|value| Some(value.clone()))
        }
        let environment = self.environment.iter().filter(|(name, _)| !pins.has_variable(name));
        Change {
            memory: open(pins, "memory", self.memory.as_ref()),
            cpus: open(pins, "cpus", self.cpus.as_ref()),
            timeout: open(pins, "timeout", self.timeout.as_ref()),
            concurrency: open(pins, "concurrency", self.concurrency.as_ref()),
            keep_warm: open(pins, "keepWarm", self.keep_warm.as_ref()),
            preload: open(pins, "preload", self.preload.as_ref()),
            network: open(pins, "network", self.network.as_ref()),
            http: open(pins, "http", self.http.as_ref()),
            notify: open(pins, "notify", self.notify.as_ref()).map(|target| target.map(Notify::new)),
            environment: environment.map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            secrets: BTreeMap::new(),
        }
    }

    /// The names of the declared settings that a client's setting stands above.
    pub fn overruled(&self, pins: &Pins) -> Vec<String> {
        self.names().filter(|name| pins.has(name)).collect()
    }

    /// The names of the declared settings. A variable is `environment.` and its name.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let Self { memory, cpus, timeout, concurrency, keep_warm, preload, network, http, notify, environment } = self;
        let declared = [
            ("memory", memory.is_some()),
            ("cpus", cpus.is_some()),
            ("timeout", timeout.is_some()),
            ("concurrency", concurrency.is_some()),
            ("keepWarm", keep_warm.is_some()),
            ("preload", preload.is_some()),
            ("network", network.is_some()),
            ("http", http.is_some()),
            ("notify", notify.is_some()),
        ];
        let settings = declared.into_iter().filter(|(_, declared)| *declared).map(|(name, _)| name.to_owned());
        settings.chain(environment.keys().map(|name| pins::variable(name)))
    }
}

impl Settings {
    /// The settings after a client's change, of a function whose version declares these. What clients have set stands
    /// above what the version declares. Fails when the result is out of the operator's limits. A declared value that
    /// the function has already is no matter there, as the operator may allow less by now.
    pub fn changed(&self, change: Change, declared: &Declared, limits: &Functions) -> Result<Self, SettingsError> {
        let pins = self.pins.after(&change);
        let mut of_clients = self.pinned().with(change, limits)?;
        let mut declared = declared.unpinned(&pins);
        keep(&mut declared.memory, self.memory, &mut of_clients.memory);
        keep(&mut declared.cpus, self.cpus, &mut of_clients.cpus);
        keep(&mut declared.timeout, self.timeout, &mut of_clients.timeout);
        if declared.http == Some(Some(self.http)) {
            of_clients.http = self.http;
            declared.http = None;
        }
        let mut all = of_clients.with(declared, limits)?;
        // A receiver goes on with its key, whoever has named the receiver.
        if let (Some(notify), Some(before)) = (&mut all.notify, &self.notify) {
            notify.key.clone_from(&before.key);
        }
        Ok(Self { pins, ..all })
    }
}

/// Takes a setting that is as before out of a change, and has the setting kept.
fn keep<T: Copy + PartialEq>(change: &mut Option<Option<T>>, before: Option<T>, kept: &mut Option<T>) {
    if before.is_some() && *change == Some(before) {
        *kept = change.take().flatten();
    }
}

fn replace<T>(value: &mut Option<T>, given: Option<Option<T>>) {
    if let Some(given) = given {
        *value = given;
    }
}

impl From<&Declared> for WrittenSettings {
    fn from(declared: &Declared) -> Self {
        let notify = declared.notify.as_ref().map(|target| WrittenTarget {
            url: target.url().to_string(),
            on: target.events().into_iter().map(str::to_owned).collect(),
        });
        Self {
            memory: declared.memory,
            cpus: declared.cpus,
            timeout: declared.timeout.map(|timeout| timeout.as_secs_f64()),
            concurrency: declared.concurrency,
            keep_warm: declared.keep_warm,
            preload: declared.preload.as_ref().map(Preload::to_string),
            network: declared.network.clone(),
            http: declared.http.map(|mode| mode.name().to_owned()),
            notify,
            environment: declared.environment.clone(),
        }
    }
}

impl WrittenSettings {
    /// None where a value can't be.
    pub(in crate::domain) fn read(self) -> Option<Declared> {
        Some(Declared {
            memory: self.memory,
            cpus: self.cpus,
            timeout: match self.timeout {
                Some(seconds) => Some(Duration::try_from_secs_f64(seconds).ok()?),
                None => None,
            },
            concurrency: self.concurrency,
            keep_warm: self.keep_warm,
            preload: match self.preload {
                Some(text) => Some(text.parse().ok()?),
                None => None,
            },
            network: self.network,
            http: match self.http {
                Some(name) => Some(HttpMode::from_name(&name)?),
                None => None,
            },
            notify: match self.notify {
                Some(WrittenTarget { url, on }) => Some(Target::new(&url, &on).ok()?),
                None => None,
            },
            environment: self.environment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PreloadLimit;

    const LIMITS: Functions = Functions {
        max_memory: 100_000_000,
        max_cpus: 2.0,
        max_timeout: Duration::from_secs(60),
        max_versions: 3,
        max_kept: 9,
        preload: PreloadLimit::Auto,
        http: Some(HttpMode::Public),
        containers: 10,
    };

    fn declared() -> Declared {
        let environment = [("A", "file"), ("B", "file")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Declared {
            memory: Some(64_000_000),
            http: Some(HttpMode::Public),
            notify: Some(Target::new("https://a.example/", &["failure"]).unwrap()),
            environment: environment.into(),
            ..Declared::default()
        }
    }

    fn change(memory: Option<Option<u64>>, a: Option<Option<&str>>) -> Change {
        let environment = a.map(|value| ("A".to_owned(), value.map(str::to_owned)));
        Change { memory, environment: environment.into_iter().collect(), ..Change::default() }
    }

    #[test]
    fn what_a_client_sets_stands_above_the_file_until_null() {
        let first = Settings::default().changed(Change::default(), &declared(), &LIMITS).unwrap();
        assert_eq!(
            (first.memory, first.http, first.environment["A"].as_str()),
            (Some(64_000_000), HttpMode::Public, "file")
        );
        assert_eq!(first.pins, Pins::default());
        let set = first.changed(change(Some(Some(32_000_000)), Some(Some("own"))), &declared(), &LIMITS).unwrap();
        assert_eq!((set.memory, set.environment["A"].as_str()), (Some(32_000_000), "own"));
        assert_eq!(declared().overruled(&set.pins), ["memory", "environment.A"]);
        // Another version declares nothing: only what the client has set stays.
        let bare = set.changed(Change::default(), &Declared::default(), &LIMITS).unwrap();
        assert_eq!((bare.memory, bare.http, bare.environment.len()), (Some(32_000_000), HttpMode::Off, 1));
        assert_eq!(bare.notify, None);
        let back = bare.changed(Change::default(), &declared(), &LIMITS).unwrap();
        let null = back.changed(change(Some(None), Some(None)), &declared(), &LIMITS).unwrap();
        assert_eq!((null.memory, null.environment["A"].as_str()), (Some(64_000_000), "file"));
        // `off` is a value like any other.
        let off = Change { http: Some(Some(HttpMode::Off)), ..Change::default() };
        assert_eq!(null.changed(off, &declared(), &LIMITS).unwrap().http, HttpMode::Off);
    }

    #[test]
    fn a_receiver_keeps_its_key_from_version_to_version() {
        let first = Settings::default().changed(Change::default(), &declared(), &LIMITS).unwrap();
        let key = first.notify.as_ref().unwrap().key.clone();
        let other = Declared { notify: Some(Target::new("https://b.example/", &["success"]).unwrap()), ..declared() };
        let next = first.changed(Change::default(), &other, &LIMITS).unwrap();
        assert_eq!(next.notify.as_ref().unwrap().key, key);
        assert_eq!(next.notify.unwrap().target.url().as_str(), "https://b.example/");
    }

    #[test]
    fn a_declared_variable_that_goes_makes_room_for_a_secret() {
        let first = Settings::default().changed(Change::default(), &declared(), &LIMITS).unwrap();
        let secret = || ("A".to_owned(), Some(crate::config::Secret("s".to_owned())));
        let secret = || Change { secrets: [secret()].into(), ..Change::default() };
        assert_eq!(first.changed(secret(), &declared(), &LIMITS), Err(SettingsError::Both("A".to_owned())));
        assert!(first.changed(secret(), &Declared::default(), &LIMITS).is_ok());
    }

    #[test]
    fn the_operators_limits_hold_for_the_file_too() {
        let too_much = Declared { memory: Some(200_000_000), ..Declared::default() };
        let refused = Settings::default().changed(Change::default(), &too_much, &LIMITS);
        assert_eq!(refused, Err(SettingsError::Memory(200_000_000, 100_000_000)));
        // The operator allows less by now: the function keeps what the function has, through other changes.
        let first = Settings::default().changed(Change::default(), &declared(), &LIMITS).unwrap();
        let less = Functions { max_memory: 32_000_000, http: Some(HttpMode::Token), ..LIMITS.clone() };
        let renamed = first.changed(change(None, Some(Some("own"))), &declared(), &less).unwrap();
        assert_eq!((renamed.memory, renamed.http), (Some(64_000_000), HttpMode::Public));
        let other = Declared { memory: Some(65_000_000), ..declared() };
        let refused = first.changed(Change::default(), &other, &less);
        assert_eq!(refused, Err(SettingsError::Memory(65_000_000, 32_000_000)));
    }

    #[test]
    fn a_form_stands_above_the_file() {
        let form = change(Some(None), Some(Some("form")));
        let (over, left) = declared().with_form(Change { http: Some(Some(HttpMode::Token)), ..form });
        assert_eq!((over.memory, over.http, over.environment["A"].as_str()), (None, Some(HttpMode::Token), "form"));
        assert!(left.environment.is_empty() && left.memory.is_none());
    }
}
