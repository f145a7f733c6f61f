//! A function.toml: the file in a zip's root that says what the function is.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;
use toml::Spanned;

use super::settings::{SettingError, cpus, network, notify, preload, setting, variables, whole};
use crate::build::package::{self, PackageError};
use crate::config::{HttpMode, parse_duration, parse_size};
use crate::domain::settings::Declared;
use crate::domain::{Definition, FunctionName, Language, MAX_SCHEDULES, Manifest, Missed, Overlap, ScheduleName};
use crate::invocations::input::{Input, Object};
use crate::schedules;

/// The reason to refuse a function.toml.
#[derive(Debug, Error)]
pub(in crate::http) enum ManifestError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("function.toml is not UTF-8")]
    NotUtf8,
    #[error("function.toml, line {line}: {reason}")]
    Line { line: usize, reason: String },
    #[error("failed to read function.toml")]
    Died(#[from] tokio::task::JoinError),
}

/// The file's keys. Which values each takes is for the readers of the settings' other forms to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Root {
    name: Option<Spanned<String>>,
    language: Option<Spanned<String>>,
    entry: Option<String>,
    memory: Option<Spanned<Value>>,
    cpus: Option<Spanned<Value>>,
    timeout: Option<Spanned<Value>>,
    concurrency: Option<Spanned<Value>>,
    keep_warm: Option<Spanned<Value>>,
    preload: Option<Spanned<Value>>,
    network: Option<Spanned<Value>>,
    http: Option<Spanned<Value>>,
    notify: Option<Spanned<Value>>,
    environment: Option<Spanned<Value>>,
    #[serde(default)]
    schedules: BTreeMap<Spanned<String>, Spanned<Schedule>>,
    secrets: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    cron: Spanned<String>,
    timezone: Option<Spanned<String>>,
    input: Option<Spanned<Value>>,
    enabled: Option<bool>,
    overlap: Option<Spanned<String>>,
    missed: Option<Spanned<String>>,
}

/// The function.toml of a zip. None where the zip has no such file.
pub(in crate::http) async fn of_zip(mut zip: File) -> Result<Option<Manifest>, ManifestError> {
    let read = move || {
        let Some(bytes) = package::manifest(&mut zip)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| ManifestError::NotUtf8)?;
        parse(&text).map(Some)
    };
    tokio::task::spawn_blocking(read).await?
}

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let at = |span: Range<usize>, reason: String| ManifestError::Line { line: line(text, span.start), reason };
    let root: Root = toml::from_str(text).map_err(|error| {
        let reason = error.message().trim_end_matches('\n').replace('\n', ", ");
        at(error.span().unwrap_or_default(), reason)
    })?;
    if let Some(secrets) = &root.secrets {
        let reason = "secrets do not stand in a file; set these by the form field `secrets`, or by a PATCH".to_owned();
        return Err(at(secrets.span(), reason));
    }
    let read = Reader { text };
    let settings = Declared {
        memory: read.value(root.memory, |value| setting(value, parse_size, SettingError::Memory))?,
        cpus: read.value(root.cpus, |value| setting(value, cpus, SettingError::Cpus))?,
        timeout: read.value(root.timeout, |value| setting(value, parse_duration, SettingError::Timeout))?,
        concurrency: read.value(root.concurrency, |value| setting(value, whole, SettingError::Concurrency))?,
        keep_warm: read.value(root.keep_warm, |value| setting(value, whole, SettingError::KeepWarm))?,
        preload: read.value(root.preload, preload)?,
        network: read.value(root.network, |value| network::parse(&value.to_string()))?,
        http: read.value(root.http, |value| setting(value, HttpMode::from_name, SettingError::Http))?,
        notify: read.value(root.notify, |value| notify::parse(&value.to_string()))?.map(|notify| notify.target),
        environment: read
            .value(root.environment, |value| variables("environment", &value.to_string(), |text| text).map(Some))?
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    };
    if root.schedules.len() > MAX_SCHEDULES as usize {
        let span = root.schedules.keys().next_back().map(Spanned::span).unwrap_or_default();
        return Err(at(span, format!("there are {} schedules; the limit is {MAX_SCHEDULES}", root.schedules.len())));
    }
    Ok(Manifest {
        name: read.text(root.name, str::parse::<FunctionName>)?,
        language: read.text(root.language, str::parse::<Language>)?,
        entry: root.entry,
        settings,
        schedules: root
            .schedules
            .into_iter()
            .map(|(name, schedule)| read.schedule(&name, schedule.into_inner()))
            .collect::<Result<_, _>>()?,
    })
}

/// Says at which line a value stands that is refused.
struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn refused(&self, span: Range<usize>, reason: impl ToString) -> ManifestError {
        ManifestError::Line { line: line(self.text, span.start), reason: reason.to_string() }
    }

    /// The value of a setting, as JSON would have the value.
    fn value<T, E: ToString>(
        &self,
        value: Option<Spanned<Value>>,
        read: impl FnOnce(&Value) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, ManifestError> {
        let Some(value) = value else { return Ok(None) };
        read(value.get_ref()).map_err(|reason| self.refused(value.span(), reason))
    }

    fn text<T, E: ToString>(
        &self,
        text: Option<Spanned<String>>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ManifestError> {
        let Some(text) = text else { return Ok(None) };
        read(text.get_ref()).map(Some).map_err(|reason| self.refused(text.span(), reason))
    }

    fn schedule(
        &self,
        name: &Spanned<String>,
        schedule: Schedule,
    ) -> Result<(ScheduleName, Definition), ManifestError> {
        let Schedule { cron, timezone, input, enabled, overlap, missed } = schedule;
        let parsed: ScheduleName = name.get_ref().parse().map_err(|reason| self.refused(name.span(), reason))?;
        let zone = timezone.as_ref().map_or("UTC", |zone| zone.get_ref());
        let times = schedules::times(cron.get_ref(), zone);
        let (cron, timezone) = times.map_err(|reason| self.refused(cron.span(), reason))?;
        let input = self.value(input, |value| {
            let object: Object = serde_json::from_str(&value.to_string())
                .map_err(|_| "the `input` of a schedule is no table of names and values".to_owned())?;
            let input = Input::parse(object).map_err(|reason| reason.to_string())?;
            Ok::<_, String>(Some(input.json().to_vec()))
        })?;
        let policy = |name: &str, names: &str| format!("`{name}` can be {names}");
        Ok((
            parsed,
            Definition {
                cron,
                timezone,
                input: input.unwrap_or_else(|| b"{}".to_vec()).into(),
                is_enabled: enabled.unwrap_or(true),
                overlap: self
                    .text(overlap, |name| Overlap::from_name(name).ok_or(policy("overlap", "`skip` or `queue`")))?
                    .unwrap_or_default(),
                missed: self
                    .text(missed, |name| Missed::from_name(name).ok_or(policy("missed", "`skip` or `once`")))?
                    .unwrap_or_default(),
            },
        ))
    }
}

/// The number of the line at this byte.
fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_keys_are_read() {
        let manifest = parse(
            r#"
            name = "report"
            language = "python"
            entry = "job.py"
            memory = "64MB"
            cpus = 0.5
            timeout = 10
            concurrency = 3
            keepWarm = 1
            preload = ["json"]
            http = "public"
            network = { allow = ["api.example.com:443"] }
            notify = { url = "https://hooks.example.com/failed" }

            [environment]
            GREETING = "Hello"
            NUMBER = 1

            [schedules.nightly]
            cron = "0 3 * * *"
            timezone = "europe/berlin"
            input = { a = 1 }
            overlap = "queue"
            missed = "once"
            "#,
        )
        .unwrap();
        assert_eq!(manifest.name.unwrap().as_str(), "report");
        assert_eq!((manifest.language, manifest.entry.as_deref()), (Some(Language::Python), Some("job.py")));
        let settings = manifest.settings;
        assert_eq!((settings.memory, settings.cpus), (Some(64_000_000), Some(0.5)));
        assert_eq!((settings.timeout, settings.concurrency), (Some(Duration::from_secs(10)), Some(3)));
        assert_eq!((settings.keep_warm, settings.http), (Some(1), Some(HttpMode::Public)));
        assert_eq!(settings.network.unwrap().rules(), ["api.example.com:443"]);
        assert_eq!(settings.notify.unwrap().events(), ["failure"]);
        assert_eq!(
            (settings.environment["GREETING"].as_str(), settings.environment["NUMBER"].as_str()),
            ("Hello", "1")
        );
        let [(name, definition)] = &manifest.schedules[..] else { panic!() };
        assert_eq!((name.as_str(), definition.timezone.as_str()), ("nightly", "Europe/Berlin"));
        assert_eq!((&definition.input[..], definition.is_enabled), (&b"{\"a\":1}"[..], true));
        assert_eq!((definition.overlap, definition.missed), (Overlap::Queue, Missed::Once));
        assert_eq!(parse("").unwrap(), Manifest::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, number, said) in [
            ("name = \"a\"\nmemmory = 1", 2, "unknown field `memmory`"),
            ("name = \"a/b\"", 1, "`name` holds '/'"),
            ("\n\nmemory = true", 3, "`memory` is no size"),
            ("cpus = \"much\"", 1, "`cpus`"),
            ("http = \"all\"", 1, "`http` is neither"),
            ("name = 1", 1, "invalid type"),
            ("timeout = 1979-05-27", 1, "`timeout`"),
            ("[network]\nallow = []", 1, "no rules"),
            ("[network]\nallow = [\"localhost:80\"]", 1, "localhost:80"),
            ("name = \"a\"\n[secrets]\nKEY = \"s\"", 2, "secrets do not stand in a file"),
            ("[schedules.a]\ntimezone = \"UTC\"", 1, "missing field `cron`"),
            ("[schedules.a]\ncron = \"61 * * * *\"", 2, ""),
            ("[schedules.a]\ncron = \"@daily\"\noverlap = \"both\"", 3, "`overlap` can be"),
            ("[schedules.\"-\"]\ncron = \"@daily\"", 1, "can't be the name of a schedule"),
            ("[schedules.a]\ncron = \"@daily\"\ninput = 1", 3, "`input`"),
            ("[environment]\nA = [1]", 1, "\"A\" in `environment`"),
            ("language = \"java\"", 1, "java"),
        ] {
            match parse(text) {
                Err(ManifestError::Line { line, reason }) => {
                    assert!(line == number && reason.contains(said), "{text:?}: {line}: {reason}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
