//! What a version's function.toml says: a function's folder says what the function is. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::declared::{Declared, WrittenSettings};
use super::{Definition, FunctionName, Language, Missed, Overlap, ScheduleName};

/// A function.toml.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The function's name.
    pub name: Option<FunctionName>,
    /// The program's language.
    pub language: Option<Language>,
    /// The file that the interpreter runs.
    pub entry: Option<String>,
    /// The settings.
    pub settings: Declared,
    /// The schedules, each name once.
    pub schedules: Vec<(ScheduleName, Definition)>,
}

/// A manifest as the store has it. The language and the entry are the version's own.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    settings: WrittenSettings,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    schedules: BTreeMap<String, WrittenSchedule>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSchedule {
    cron: String,
    timezone: String,
    /// A JSON text.
    input: String,
    enabled: bool,
    overlap: String,
    missed: String,
}

impl Manifest {
    /// The manifest as the store has it.
    pub fn to_json(&self) -> String {
        let schedule = |(name, definition): &(ScheduleName, Definition)| {
            let written = WrittenSchedule {
                cron: definition.cron.clone(),
                timezone: definition.timezone.clone(),
                input: String::from_utf8_lossy(&definition.input).into_owned(),
                enabled: definition.is_enabled,
                overlap: definition.overlap.name().to_owned(),
                missed: definition.missed.name().to_owned(),
            };
            (name.to_string(), written)
        };
        let written = Written {
            name: self.name.as_ref().map(FunctionName::to_string),
            settings: WrittenSettings::from(&self.settings),
            schedules: self.schedules.iter().map(schedule).collect(),
        };
        serde_json::to_string(&written).expect("texts and numbers can be written as JSON")
    }

    /// The manifest of a text of [`Self::to_json`]. None when a value can't be.
    pub fn from_json(json: &str) -> Option<Self> {
        let Written { name, settings, schedules } = serde_json::from_str(json).ok()?;
        let schedule = |(name, written): (String, WrittenSchedule)| {
            let definition = Definition {
                cron: written.cron,
                timezone: written.timezone,
                input: written.input.into_bytes().into(),
                is_enabled: written.enabled,
                overlap: Overlap::from_name(&written.overlap)?,
                missed: Missed::from_name(&written.missed)?,
            };
            Some((name.parse().ok()?, definition))
        };
        Some(Self {
            name: match name {
                Some(name) => Some(name.parse().ok()?),
                None => None,
            },
            language: None,
            entry: None,
            settings: settings.read()?,
            schedules: schedules.into_iter().map(schedule).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::HttpMode;
    use crate::domain::Preload;
    use crate::domain::settings::network::Network;
    use crate::domain::settings::notify::Target;

    #[test]
    fn what_is_written_is_read() {
        let settings = Declared {
            memory: Some(64_000_000),
            cpus: Some(0.5),
            timeout: Some(Duration::from_millis(1500)),
            concurrency: Some(2),
            keep_warm: Some(1),
            preload: Some(Preload::Modules(vec!["json".to_owned()])),
            network: Some(Network::new(["a.example:443"]).unwrap()),
            http: Some(HttpMode::Public),
            notify: Some(Target::new("https://a.example/b", &["failure", "success"]).unwrap()),
            environment: [("A".to_owned(), "é".to_owned())].into(),
        };
        let definition = Definition {
            cron: "0 3 * * *".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
            input: "{\"a\":1}".into(),
            is_enabled: false,
            overlap: Overlap::Queue,
            missed: Missed::Once,
        };
        let name = Some("job".parse().unwrap());
        let schedules = vec![("nightly".parse().unwrap(), definition)];
        let manifest = Manifest { name, settings, schedules, ..Manifest::default() };
        assert_eq!(Manifest::from_json(&manifest.to_json()), Some(manifest));
        assert_eq!(Manifest::from_json(&Manifest::default().to_json()), Some(Manifest::default()));
        for damaged in ["", "1", r#"{"name": "a/b"}"#, r#"{"settings": {"http": "all"}}"#] {
            assert_eq!(Manifest::from_json(damaged), None, "{damaged}");
        }
    }
}
