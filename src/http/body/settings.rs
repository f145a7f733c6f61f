//! A function's settings as JSON and as form fields.

pub(super) mod network;
pub(super) mod notify;
mod schema;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;
use utoipa::ToSchema;

use network::{InvalidNetwork, NetworkBody};
use notify::{InvalidNotify, NotifyBody};

use crate::config::{HttpMode, PreloadLimit, Secret, parse_duration, parse_size};
use crate::domain::settings::Change;
use crate::domain::{FunctionName, InvalidName, InvalidPreload, Language, Preload, Preloaded};
use crate::functions::Function;

/// A function's own settings. In place of null the operator's configuration counts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Settings)]
pub(in crate::http) struct ShownSettings {
    /// The memory limit of an instance, in bytes.
    memory: Option<u64>,
    /// The processors of an instance.
    cpus: Option<f64>,
    /// The time limit of an invocation, such as `10s`.
    timeout: Option<String>,
    /// How many invocations run at one time on each node. Null for no limit but the node's.
    concurrency: Option<u32>,
    /// How many instances each node keeps, whether or not the instances are used.
    keep_warm: u32,
    /// Null for a function in Go.
    preload: Option<PreloadBody>,
    /// What the function has asked for. Rules that EGRESS_ALLOW does not cover any more do not count. Null for no
    /// network.
    network: Option<NetworkBody>,
    /// Whose requests reach the function over HTTP: `off`, `token` or `public`, within the operator's HTTP_FUNCTIONS.
    http: &'static str,
    /// Whom the ends of asynchronous invocations are told to. Null for nobody.
    notify: Option<NotifyBody>,
    environment: BTreeMap<String, String>,
    /// The names of the secrets. No answer shows a value.
    secrets: Vec<String>,
}

/// The modules that the instances of a Python function import before their first invocation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Preload)]
struct PreloadBody {
    /// `auto`, `stdlib`, `off` or a list of modules, within the operator's PRELOAD.
    #[schema(schema_with = schema::mode)]
    mode: Value,
    /// The modules that are imported, by the function's last instance.
    modules: Vec<String>,
    /// The modules that each invocation imports by itself.
    excluded: Vec<ExcludedBody>,
    /// The time of the imports that each invocation saves, in milliseconds.
    saved_ms: f64,
}

/// A module that is left out of preloading.
#[derive(Serialize, ToSchema)]
#[schema(as = ExcludedModule)]
struct ExcludedBody {
    module: String,
    /// What the module does at its import that a new process must not inherit.
    reason: String,
}

impl PreloadBody {
    fn new(mode: &Preload, found: Preloaded) -> Self {
        let excluded = found
            .excluded
            .into_iter()
            .map(|excluded| ExcludedBody { module: excluded.module, reason: excluded.reason });
        Self {
            mode: match mode {
                Preload::Modules(names) => names.as_slice().into(),
                mode => mode.to_string().into(),
            },
            modules: found.modules,
            excluded: excluded.collect(),
            saved_ms: (found.saved.as_secs_f64() * 1e4).round() / 10.0,
        }
    }
}

impl ShownSettings {
    /// The settings of a function where the operator allows no more preloading than `limit`.
    pub(in crate::http) fn of(function: &Function, limit: PreloadLimit) -> Self {
        let settings = &function.settings;
        let mode = function.preload(limit);
        let found = function.preloaded().filter(|found| found.asked == mode.to_string());
        Self {
            preload: (function.version.language == Language::Python)
                .then(|| PreloadBody::new(&mode, found.unwrap_or_default())),
            memory: settings.memory,
            cpus: settings.cpus,
            timeout: settings.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
            concurrency: settings.concurrency,
            keep_warm: settings.keep_warm.unwrap_or(0),
            network: settings.network.as_ref().map(NetworkBody::of),
            http: settings.http.name(),
            notify: settings.notify.as_ref().map(NotifyBody::of),
            environment: settings.environment.clone(),
            secrets: settings.secrets.keys().cloned().collect(),
        }
    }
}

/// A change. A setting that is absent stays. Null removes a setting, so that the operator's configuration counts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = Change)]
pub(in crate::http) struct ChangeBody {
    /// The function's new name.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9._ -]*[A-Za-z0-9._-][A-Za-z0-9._ -]*$"
    )]
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[schema(schema_with = schema::memory)]
    #[serde(default, deserialize_with = "present")]
    memory: Option<Value>,
    #[schema(schema_with = schema::cpus)]
    #[serde(default, deserialize_with = "present")]
    cpus: Option<Value>,
    #[schema(schema_with = schema::timeout)]
    #[serde(default, deserialize_with = "present")]
    timeout: Option<Value>,
    #[schema(schema_with = schema::concurrency)]
    #[serde(default, deserialize_with = "present")]
    concurrency: Option<Value>,
    #[schema(schema_with = schema::keep_warm)]
    #[serde(default, deserialize_with = "present")]
    keep_warm: Option<Value>,
    #[schema(schema_with = schema::preload)]
    #[serde(default, deserialize_with = "present")]
    preload: Option<Value>,
    /// What programs may reach: within EGRESS_ALLOW. Null for no network.
    #[schema(value_type = Option<NetworkBody>)]
    #[serde(default, deserialize_with = "present")]
    network: Option<Box<RawValue>>,
    #[schema(schema_with = schema::http)]
    #[serde(default, deserialize_with = "present")]
    http: Option<Value>,
    /// Whom the ends of asynchronous invocations are told to: within EGRESS_ALLOW. Null for nobody.
    #[schema(value_type = Option<NotifyBody>)]
    #[serde(default, deserialize_with = "present")]
    notify: Option<Box<RawValue>>,
    #[schema(schema_with = schema::environment)]
    #[serde(default, deserialize_with = "present")]
    environment: Option<Box<RawValue>>,
    #[schema(schema_with = schema::secrets)]
    #[serde(default, deserialize_with = "present")]
    secrets: Option<Box<RawValue>>,
}

/// A setting in a form that is not known.
#[derive(Debug, Error)]
pub(in crate::http) enum SettingError {
    #[error("`memory` is no size above zero such as \"256MB\", or a number of bytes")]
    Memory,
    #[error("`cpus` is no number of processors such as 0.5")]
    Cpus,
    #[error("`timeout` is no duration above zero such as \"10s\" or \"500ms\", or a number of seconds")]
    Timeout,
    #[error("`concurrency` is no whole number such as 5")]
    Concurrency,
    #[error("`keepWarm` is no whole number such as 1")]
    KeepWarm,
    #[error(transparent)]
    Preload(#[from] InvalidPreload),
    #[error(transparent)]
    Network(#[from] InvalidNetwork),
    #[error("`http` is neither `off`, `token` nor `public`")]
    Http,
    #[error(transparent)]
    Notify(#[from] InvalidNotify),
    #[error("`{0}` is no JSON object of names and texts")]
    Variables(&'static str),
    #[error("the value of {0:?} in `{1}` is neither a text, a number, true nor false; null takes it away")]
    Value(String, &'static str),
}

impl ChangeBody {
    /// The new name, and the change of the settings.
    pub(in crate::http) fn parse(self) -> Result<(Option<FunctionName>, Change), ParseError> {
        let name = self.name.map(|name| name.parse()).transpose()?;
        let memory = self.memory.map(|value| setting(&value, parse_size, SettingError::Memory)).transpose()?;
        let cpus = self.cpus.map(|value| setting(&value, cpus, SettingError::Cpus)).transpose()?;
        let timeout = self.timeout.map(|value| setting(&value, parse_duration, SettingError::Timeout)).transpose()?;
        let concurrency =
            self.concurrency.map(|value| setting(&value, whole, SettingError::Concurrency)).transpose()?;
        let keep_warm = self.keep_warm.map(|value| setting(&value, whole, SettingError::KeepWarm)).transpose()?;
        let json = |value: &Option<Box<RawValue>>| {
            value.as_ref().map_or_else(|| "{}".to_owned(), |value| value.get().to_owned())
        };
        let environment = variables("environment", &json(&self.environment), |text| text)?;
        let secrets = variables("secrets", &json(&self.secrets), Secret)?;
        let preload = self.preload.map(|value| preload(&value)).transpose().map_err(SettingError::from)?;
        let network = self.network.map(|json| network::parse(json.get())).transpose().map_err(SettingError::from)?;
        let http = self.http.map(|value| setting(&value, HttpMode::from_name, SettingError::Http)).transpose()?;
        let notify = self.notify.map(|json| notify::parse(json.get())).transpose().map_err(SettingError::from)?;
        let limits = Change { memory, cpus, timeout, concurrency, keep_warm, ..Change::default() };
        Ok((name, Change { preload, network, http, notify, environment, secrets, ..limits }))
    }
}

/// The reason why a change can't be read.
#[derive(Debug, Error)]
pub(in crate::http) enum ParseError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// The form fields of settings.
pub(in crate::http) const FIELDS: [&str; 11] = [
    "memory",
    "cpus",
    "timeout",
    "concurrency",
    "keepWarm",
    "preload",
    "network",
    "http",
    "notify",
    "environment",
    "secrets",
];

/// Takes the text of a form field that has the name of a setting.
pub(in crate::http) fn set(change: &mut Change, field: &str, text: &str) -> Result<(), SettingError> {
    match field {
        "memory" => change.memory = Some(Some(parse_size(text).ok_or(SettingError::Memory)?)),
        "cpus" => change.cpus = Some(Some(cpus(text).ok_or(SettingError::Cpus)?)),
        "timeout" => change.timeout = Some(Some(parse_duration(text).ok_or(SettingError::Timeout)?)),
        "concurrency" => change.concurrency = Some(Some(whole(text).ok_or(SettingError::Concurrency)?)),
        "keepWarm" => change.keep_warm = Some(Some(whole(text).ok_or(SettingError::KeepWarm)?)),
        "preload" => change.preload = Some(Some(text.parse()?)),
        "network" => change.network = Some(network::parse(text)?),
        "http" => change.http = Some(Some(HttpMode::from_name(text).ok_or(SettingError::Http)?)),
        "notify" => change.notify = Some(notify::parse(text)?),
        "environment" => change.environment = variables("environment", text, |text| text)?,
        _ => change.secrets = variables("secrets", text, Secret)?,
    }
    Ok(())
}

pub(super) fn cpus(text: &str) -> Option<f64> {
    text.parse().ok().filter(|cpus: &f64| cpus.is_finite())
}

/// A number above the largest that can be is out of every range.
pub(super) fn whole(text: &str) -> Option<u32> {
    let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.parse().unwrap_or(u32::MAX))
}

/// The value of a text or a list of texts; None for null.
pub(super) fn preload(value: &Value) -> Result<Option<Preload>, InvalidPreload> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some),
        list => list.to_string().parse().map(Some),
    }
}

/// The value of a text or a number; None for null.
pub(super) fn setting<T>(
    value: &Value,
    parse: impl Fn(&str) -> Option<T>,
    error: SettingError,
) -> Result<Option<T>, SettingError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => parse(text).map(Some).ok_or(error),
        // As whole numbers are written by who has none, 64e6 say.
        Value::Number(number) if number.as_f64().is_some_and(|value| value.fract() == 0.0 && value.abs() < 1e15) => {
            parse(&format!("{:.0}", number.as_f64().unwrap_or_default())).map(Some).ok_or(error)
        }
        Value::Number(number) => parse(&number.to_string()).map(Some).ok_or(error),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(error),
    }
}

/// The error has no word of the text, which may be a secret.
pub(super) fn variables<T>(
    field: &'static str,
    json: &str,
    make: impl Fn(String) -> T,
) -> Result<BTreeMap<String, Option<T>>, SettingError> {
    let object: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(json).map_err(|_| SettingError::Variables(field))?;
    let variable = |(name, value): (String, Box<RawValue>)| {
        let json = value.get();
        let value = match json.as_bytes()[0] {
            b'n' => None,
            b'"' => Some(serde_json::from_str(json).map_err(|_| SettingError::Variables(field))?),
            b'{' | b'[' => return Err(SettingError::Value(name.chars().take(64).collect(), field)),
            // As it was sent: a version's number is no number.
            _ => Some(json.to_owned()),
        };
        Ok((name, value.map(&make)))
    };
    object.into_iter().map(variable).collect()
}

/// Null counts as a value here: `Some`, unlike an absent field.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parsed(json: &str) -> Result<(Option<FunctionName>, Change), ParseError> {
        serde_json::from_str::<ChangeBody>(json).unwrap().parse()
    }

    #[test]
    fn null_and_nothing_are_told_apart() {
        let (name, change) =
            parsed(r#"{"memory": "64MB", "timeout": null, "environment": {"A": 1.10, "B": null}}"#).unwrap();
        assert!(name.is_none() && change.cpus.is_none());
        assert_eq!((change.memory, change.timeout), (Some(Some(64_000_000)), Some(None)));
        assert_eq!(change.environment["A"].as_deref(), Some("1.10"));
        assert_eq!(change.environment["B"], None);
        let (name, change) = parsed(r#"{"name": "a", "memory": 64e6, "cpus": "0.5", "timeout": 1.5}"#).unwrap();
        assert_eq!(
            (name.unwrap().as_str(), change.memory, change.cpus),
            ("a", Some(Some(64_000_000)), Some(Some(0.5)))
        );
        assert_eq!(change.timeout, Some(Some(Duration::from_millis(1500))));
    }

    #[test]
    fn what_is_no_setting_is_named() {
        for (json, field) in [
            (r#"{"memory": true}"#, "`memory`"),
            (r#"{"memory": "much"}"#, "`memory`"),
            (r#"{"cpus": "NaN"}"#, "`cpus`"),
            (r#"{"timeout": "-1s"}"#, "`timeout`"),
            (r#"{"concurrency": 1.5}"#, "`concurrency`"),
            (r#"{"concurrency": -1}"#, "`concurrency`"),
            (r#"{"keepWarm": "+1"}"#, "`keepWarm`"),
            (r#"{"network": ["a.example:443"]}"#, "`network`"),
            (r#"{"secrets": {"A": {}}}"#, "\"A\" in `secrets`"),
        ] {
            let message = parsed(json).unwrap_err().to_string();
            assert!(message.contains(field), "{json}: {message}");
        }
        let (_, change) = parsed(r#"{"concurrency": 2, "keepWarm": null}"#).unwrap();
        assert_eq!((change.concurrency, change.keep_warm), (Some(Some(2)), Some(None)));
        let (_, change) = parsed(r#"{"network": {"allow": ["a.example:443"]}}"#).unwrap();
        assert_eq!(change.network.unwrap().unwrap().rules(), ["a.example:443"]);
        assert_eq!(parsed(r#"{"network": null}"#).unwrap().1.network, Some(None));
        assert_eq!(parsed("{}").unwrap().1.network, None);
        assert!(serde_json::from_str::<ChangeBody>(r#"{"memmory": 1}"#).is_err());
        for secrets in [r#""API_KEY=hidden""#, "null", r#"["hidden"]"#, r#"{"A": ["hidden"]}"#] {
            let message = parsed(&format!(r#"{{"secrets": {secrets}}}"#)).unwrap_err().to_string();
            assert!(message.contains("`secrets`") && !message.contains("hidden"), "{message}");
        }
    }
}
