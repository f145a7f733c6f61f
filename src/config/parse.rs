//! Parses a variable's text to its value. Each parser returns None when the text has a wrong form or is out of range.

use std::time::Duration;

/// The least that a container can live with, in bytes.
pub const MIN_MEMORY: u64 = 16_000_000;

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

pub(super) fn parse_names(text: &str) -> Option<Vec<String>> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| is_name(name)).then_some(names)
}
