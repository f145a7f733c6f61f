//! A function.toml: the file in a zip's root that says what the function is.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use thiserror::Error;
use toml::Spanned;

use super::settings::{SettingError, cpus, network, notify, preload, setting, variables, whole};
use crate::build::package::{self, PackageError};
use crate::config::{HttpMode, parse_duration, parse_size};
use crate::domain::settings::Declared;
use crate::domain::{Definition, FunctionName, Language, MAX_SCHEDULES, Manifest, Missed, Overlap, ScheduleName};
use crate::invocations::input::{Input, Object};
use crate::schedules::{self, TimesError};

/// The most tables and lists within each other.
const MAX_DEPTH: usize = 64;

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
    memory: Option<Spanned<toml::Value>>,
    cpus: Option<Spanned<toml::Value>>,
    timeout: Option<Spanned<toml::Value>>,
    concurrency: Option<Spanned<toml::Value>>,
    keep_warm: Option<Spanned<toml::Value>>,
    preload: Option<Spanned<toml::Value>>,
    network: Option<Spanned<toml::Value>>,
    http: Option<Spanned<toml::Value>>,
    notify: Option<Spanned<toml::Value>>,
    environment: Option<Spanned<toml::Value>>,
    #[serde(default)]
    schedules: BTreeMap<Spanned<String>, Spanned<Schedule>>,
    secrets: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    cron: Spanned<String>,
    timezone: Option<Spanned<String>>,
    input: Option<Spanned<toml::Value>>,
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
    if let Some(place) = too_deep(text) {
        return Err(at(place..place, format!("tables and lists are more than {MAX_DEPTH} levels deep")));
    }
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
        value: Option<Spanned<toml::Value>>,
        read: impl FnOnce(&Value) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, ManifestError> {
        let Some(value) = value else { return Ok(None) };
        let span = value.span();
        let value = json(value.into_inner()).map_err(|reason| self.refused(span.clone(), reason))?;
        read(&value).map_err(|reason| self.refused(span, reason))
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
        let (cron, zone) = schedules::times(cron.get_ref(), zone).map_err(|reason| {
            let of_zone = timezone.as_ref().filter(|_| matches!(reason, TimesError::Zone(_)));
            self.refused(of_zone.map_or(cron.span(), Spanned::span), reason)
        })?;
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
                timezone: zone,
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

/// A value as JSON has the value. A date is its text.
fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => return Err(format!("{number} is no number that JSON has")),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(name, value)| Ok::<_, String>((name, json(value)?)));
            entries.collect::<Result<Map<_, _>, _>>()?.into()
        }
    })
}

/// The place from which on a text has tables and lists within each other over [`MAX_DEPTH`]. Each part of a dotted key
/// is a table, too. What reads the text calls itself for each level, so a deep text must not get there.
fn too_deep(text: &str) -> Option<usize> {
    // The dots of the key at each level of brackets.
    let (mut dots, mut all) = (vec![0], 0);
    let (bytes, mut at) = (text.as_bytes(), 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = end_of_string(bytes, at),
            b'#' => at += bytes[at..].iter().take_while(|&&byte| byte != b'\n').count() - 1,
            b'{' | b'[' => dots.push(0),
            b'}' | b']' if dots.len() > 1 => all -= dots.pop().unwrap_or(0),
            b'.' => {
                all += 1;
                *dots.last_mut()? += 1;
            }
            // The next key begins.
            b',' => all -= std::mem::take(dots.last_mut()?),
            b'\n' if dots.len() == 1 => all -= std::mem::take(dots.last_mut()?),
            _ => {}
        }
        if dots.len() + all > MAX_DEPTH {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The last byte of the string that begins at this byte.
fn end_of_string(bytes: &[u8], begin: usize) -> usize {
    let quote = bytes[begin];
    let long = [quote; 3];
    let escapes = |at: usize| quote == b'"' && bytes[at] == b'\\';
    if bytes[begin..].starts_with(&long) {
        let mut at = begin + 3;
        while at < bytes.len() && !bytes[at..].starts_with(&long) {
            at += if escapes(at) { 2 } else { 1 };
        }
        return at + 2;
    }
    let mut at = begin + 1;
    while bytes.get(at).is_some_and(|&byte| byte != quote && byte != b'\n') {
        at += if escapes(at) { 2 } else { 1 };
    }
    at
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
    fn a_deep_text_is_refused_before_it_is_read() {
        // Dotted keys of inline tables within each other: each is within the limits of the library.
        let mut value = "1".to_owned();
        for _ in 0..79 {
            value = format!("{{{}={value}}}", ["a"; 79].join("."));
        }
        let brackets = format!("input = {}1{}", "[".repeat(30_000), "]".repeat(30_000));
        let header = format!("[schedules.{}]\n", ["a"; 20_000].join("."));
        for text in [format!("[schedules.x]\ncron = \"@daily\"\ninput = {value}"), brackets, header] {
            assert!(parse(&text).unwrap_err().to_string().contains("levels deep"), "{}", &text[..60]);
        }
        let flat = ["a = '{{{{'", r#"a = "\"{[""#, "a = '''\n[[\n'''", "# {{{\na = 1", "a.b.c = 1\nd.e = [1, 2.0]"];
        for text in flat {
            assert_eq!(too_deep(&format!("{text}\n").repeat(100)), None, "{text}");
        }
        let dates = parse("[environment]\nA = 1979-05-27\n").unwrap();
        assert_eq!(dates.settings.environment["A"], "1979-05-27");
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
            ("cpus = nan", 1, "NaN is no number"),
            ("[environment]\nA = inf", 1, "inf is no number"),
            ("[schedules.a]\ncron = \"@daily\"\n\ntimezone = \"Mars/X\"", 4, "Mars/X"),
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
