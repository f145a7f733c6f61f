//! Which settings clients have set: these stand above what a version's function.toml says.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Settings};
use crate::config::HttpMode;

/// The names of the settings that clients have set by a change, or by a form without a function.toml. A variable is
/// `environment.` and its name. Secrets are clients' only, and need no pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins(BTreeSet<String>);

impl Pins {
    /// The pins of these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// The pins of a function that has no function.toml: all that is set was set by clients.
    pub fn of(settings: &Settings) -> Self {
        let Settings {
            memory, cpus, timeout, concurrency, keep_warm, preload, network, http, notify, environment, ..
        } = settings;
        let is_set = [
            ("memory", memory.is_some()),
            ("cpus", cpus.is_some()),
            ("timeout", timeout.is_some()),
            ("concurrency", concurrency.is_some()),
            ("keepWarm", keep_warm.is_some()),
            ("preload", preload.is_some()),
            ("network", network.is_some()),
            ("http", *http != HttpMode::Off),
            ("notify", notify.is_some()),
        ];
        let names = is_set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        Self::new(names.chain(environment.keys().map(|name| variable(name))))
    }

    /// These pins, and those of all that is set and is not `declared` by the version: a client has set that. The pins
    /// that the store has may lack some, after a change by an earlier version of this program.
    pub fn completed(self, settings: &Settings, declared: impl Iterator<Item = String>) -> Self {
        let declared: BTreeSet<String> = declared.collect();
        let Self(all) = Self::of(settings);
        Self(self.0.into_iter().chain(all.into_iter().filter(|name| !declared.contains(name))).collect())
    }

    /// Whether a client has set the setting of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether a client has set this variable.
    pub fn has_variable(&self, name: &str) -> bool {
        self.has(&variable(name))
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The pins after a client's change: a value is pinned, and null takes the pin away.
    pub(super) fn after(&self, change: &Change) -> Self {
        fn is_value<T>(setting: Option<&Option<T>>) -> Option<bool> {
            setting.map(Option::is_some)
        }
        let mut pins = self.clone();
        for (name, set) in [
            ("memory", is_value(change.memory.as_ref())),
            ("cpus", is_value(change.cpus.as_ref())),
            ("timeout", is_value(change.timeout.as_ref())),
            ("concurrency", is_value(change.concurrency.as_ref())),
            ("keepWarm", is_value(change.keep_warm.as_ref())),
            ("preload", is_value(change.preload.as_ref())),
            ("network", is_value(change.network.as_ref())),
            ("http", is_value(change.http.as_ref())),
            ("notify", is_value(change.notify.as_ref())),
        ] {
            pins.note(name.to_owned(), set);
        }
        for (name, value) in &change.environment {
            pins.note(variable(name), Some(value.is_some()));
        }
        pins
    }

    fn note(&mut self, name: String, set: Option<bool>) {
        match set {
            Some(true) => drop(self.0.insert(name)),
            Some(false) => drop(self.0.remove(&name)),
            None => {}
        }
    }
}

impl Settings {
    /// What clients have set of these settings.
    pub(super) fn pinned(&self) -> Self {
        fn kept<T: Clone>(pins: &Pins, name: &str, value: Option<&T>) -> Option<T> {
            value.filter(|_| pins.has(name)).cloned()
        }
        let pins = &self.pins;
        let environment = self.environment.iter().filter(|(name, _)| pins.has_variable(name));
        Self {
            memory: kept(pins, "memory", self.memory.as_ref()),
            cpus: kept(pins, "cpus", self.cpus.as_ref()),
            timeout: kept(pins, "timeout", self.timeout.as_ref()),
            concurrency: kept(pins, "concurrency", self.concurrency.as_ref()),
            keep_warm: kept(pins, "keepWarm", self.keep_warm.as_ref()),
            preload: kept(pins, "preload", self.preload.as_ref()),
            network: kept(pins, "network", self.network.as_ref()),
            http: if pins.has("http") { self.http } else { HttpMode::Off },
            notify: kept(pins, "notify", self.notify.as_ref()),
            environment: environment.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>(),
            secrets: self.secrets.clone(),
            pins: pins.clone(),
        }
    }
}

/// The name of a variable among the names of settings.
pub(super) fn variable(name: &str) -> String {
    format!("environment.{name}")
}
