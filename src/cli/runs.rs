//! `runs` and `again`: the invocations of all functions.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::client::{Client, part};
use super::{functions, invoke, output};
use crate::resources::clock;

#[derive(Args, Debug)]
pub(super) struct Runs {
    /// Only the invocations of this function: an id, or a name.
    #[arg(add = super::complete::functions())]
    function: Option<String>,
    /// Only those with this outcome: failed for all that failed, or ok, exit, signal, out_of_memory, timeout, lost,
    /// cancelled, queued, running.
    #[arg(long)]
    outcome: Option<String>,
    /// Only those that were begun by this: api, http, schedule or schedule:NAME.
    #[arg(long)]
    trigger: Option<String>,
    /// Only those of this time until now, such as 90s, 15m, 2h or 3d.
    #[arg(long, value_parser = age)]
    since: Option<Duration>,
    /// The largest number of invocations, up to 500.
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: u32,
}

pub(super) fn list(client: &Client, runs: Runs, json: bool) -> anyhow::Result<ExitCode> {
    let mut query = vec![("limit", runs.lines.to_string())];
    query.extend(runs.function.map(|function| ("function", function)));
    query.extend(runs.outcome.map(|outcome| ("outcome", outcome)));
    query.extend(runs.trigger.map(|trigger| ("trigger", trigger)));
    let from = runs.since.map(|age| clock::unix_seconds().saturating_sub(age.as_secs()));
    query.extend(from.map(|from| ("since", from.to_string())));
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", part(value))).collect();
    let found = client.get(&format!("/api/invocations?{}", query.join("&")))?.body;
    if json {
        output::json(&found);
        return Ok(ExitCode::SUCCESS);
    }
    let names = functions::names(client)?;
    output::table(&rows(&found["invocations"], &names));
    Ok(ExitCode::SUCCESS)
}

fn rows(invocations: &Value, names: &HashMap<String, String>) -> Vec<Vec<String>> {
    let heads = ["WHEN", "FUNCTION", "INVOCATION", "OUTCOME", "TRIGGER", "START", "DURATION"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for one in invocations.as_array().into_iter().flatten() {
        let text = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
        let duration = one["durationMs"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
        let at = one["executedAt"].as_i64().or_else(|| one["createdAt"].as_i64());
        let id = text("functionId");
        let name = names.get(&id).cloned().unwrap_or(id);
        rows.push(vec![
            output::time(at),
            name,
            text("invocationId"),
            text("outcome"),
            text("trigger"),
            text("start"),
            duration,
        ]);
    }
    rows
}

pub(super) fn again(client: &Client, id: &str, is_async: bool, json: bool) -> anyhow::Result<ExitCode> {
    let headers: &[(&str, &str)] = if is_async { &[("prefer", "respond-async")] } else { &[] };
    let answer = client.post_json(&format!("/api/invocations/{}/again", part(id)), "", headers)?;
    Ok(invoke::show(&answer, json))
}

/// A time span such as `15m`.
fn age(text: &str) -> anyhow::Result<Duration> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let count = text.strip_suffix(|last: char| Some(last) == unit).unwrap_or(text);
    let seconds = match unit {
        None | Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        Some(unit) => anyhow::bail!("{unit:?} is not s, m, h or d"),
    };
    let count: u64 = count.parse().context("a time span is a number with s, m, h or d, such as 15m")?;
    Ok(Duration::from_secs(count.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_has_a_unit() {
        let seconds = |text| age(text).map(|age| age.as_secs()).ok();
        assert_eq!(
            [seconds("90s"), seconds("15m"), seconds("2h"), seconds("3d"), seconds("7")].map(Option::unwrap),
            [90, 900, 7200, 259_200, 7]
        );
        assert_eq!((seconds("2w"), seconds("h"), seconds("")), (None, None, None));
    }
}
