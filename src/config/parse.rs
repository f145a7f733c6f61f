//! Parses a variable's text to its value. Each parser returns None when the text has a wrong form or is out of range.

use std::time::Duration;

use tracing::Level;

use super::{BuildNetwork, ImageBuilder, LogFormat, MIN_MEMORY, PreloadLimit, RateLimit, Secret};

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Parses a duration: `10s`, `500ms`, `5m`, or a number of seconds; above zero, and at most 366 days.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    // A year is as good as no limit, and any clock has room for the sum of its time and a year.
    (Duration::ZERO < parsed && parsed <= Duration::from_secs(366 * 24 * 3600)).then_some(parsed)
}

/// Parses a size in bytes: `10MB`, `10MiB`, or a number of bytes; above zero, and at most 1 PiB.
pub fn parse_size(text: &str) -> Option<u64> {
    let bytes = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
    (0 < bytes && bytes <= 1 << 50).then_some(bytes)
}

pub(super) fn parse_memory(text: &str) -> Option<u64> {
    parse_size(text).filter(|&bytes| bytes >= MIN_MEMORY)
}

/// Rounds a number of processors to thousandths: Docker takes no more than nine decimals.
pub fn whole_millis(cpus: f64) -> f64 {
    (cpus * 1e3).round() / 1e3
}

pub(super) fn parse_cpus(text: &str) -> Option<f64> {
    text.parse().ok().map(whole_millis).filter(|cpus| (0.01..=10_000.0).contains(cpus))
}

pub(super) fn parse_token(text: &str) -> Option<Option<Secret>> {
    let valid = text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| Some(Secret(text.to_owned())))
}

pub(super) fn parse_hosts(text: &str) -> Option<Vec<String>> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| is_name(name)).then_some(names)
}

pub(super) fn parse_names(text: &str) -> Option<Vec<String>> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| is_name(name)).then_some(names)
}

pub(super) fn parse_rate(text: &str) -> Option<Option<RateLimit>> {
    let (requests, period) = text.split_once('/')?;
    let period = if matches!(period, "s" | "m" | "h") { format!("1{period}") } else { period.to_owned() };
    Some(Some(RateLimit { requests: requests.parse().ok()?, period: parse_duration(&period)? }))
}

pub(super) fn parse_level(text: &str) -> Option<Level> {
    match text {
        "debug" => Some(Level::DEBUG),
        "info" => Some(Level::INFO),
        "warn" => Some(Level::WARN),
        "error" => Some(Level::ERROR),
        _ => None,
    }
}

pub(super) fn parse_builder(text: &str) -> Option<ImageBuilder> {
    match text {
        "0" => Some(ImageBuilder::Classic),
        "1" => Some(ImageBuilder::BuildKit),
        _ => None,
    }
}

pub(super) fn parse_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

pub(super) fn parse_transport(text: &str) -> Option<bool> {
    match text {
        "auto" => Some(false),
        "pipes" => Some(true),
        _ => None,
    }
}

pub(super) fn parse_preload(text: &str) -> Option<PreloadLimit> {
    match text {
        "auto" => Some(PreloadLimit::Auto),
        "stdlib" => Some(PreloadLimit::Stdlib),
        "off" => Some(PreloadLimit::Off),
        _ => None,
    }
}

pub(super) fn parse_network(text: &str) -> Option<BuildNetwork> {
    match text {
        "default" => Some(BuildNetwork::Default),
        "none" => Some(BuildNetwork::None),
        _ => None,
    }
}

pub(super) fn parse_runtime(text: &str) -> Option<Option<String>> {
    let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) && !text.starts_with('-');
    valid.then(|| Some(text.to_owned()))
}

pub(super) fn parse_repository(text: &str) -> Option<String> {
    let is_part = |part: &str| {
        let allowed = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let at_ends = |c: char| c.is_ascii_alphanumeric();
        allowed && part.starts_with(at_ends) && part.ends_with(at_ends)
    };
    (text.len() <= 128 && text.split('/').all(is_part)).then(|| text.to_owned())
}

pub(super) fn parse_image(text: &str) -> Option<String> {
    let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    (valid && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| text.to_owned())
}
