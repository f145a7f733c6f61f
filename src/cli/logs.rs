//! `logs`: what invocations came to, the oldest first, and on request for ever.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::{functions, output};

/// How often it is looked for new ones.
const PERIOD: Duration = Duration::from_secs(1);
/// As many as are asked for at once.
const PART: u32 = 100;

pub(super) fn run(client: &Client, function: &str, follow: bool, lines: u32, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/api/functions/{}/invocations", functions::last_of(client, function)?);
    let mut shown: Vec<String> = Vec::new();
    let mut limit = lines.clamp(1, 500);
    loop {
        let found = client.get(&format!("{path}?limit={limit}"))?.body;
        let mut new: Vec<String> = Vec::new();
        for invocation in found["invocations"].as_array().into_iter().flatten() {
            let id = invocation["invocationId"].as_str().unwrap_or_default().to_owned();
            let has_ended = !matches!(invocation["outcome"].as_str(), Some("queued" | "running"));
            if has_ended && !shown.contains(&id) {
                new.push(id);
            }
        }
        for id in new.iter().rev() {
            show(&client.get(&format!("/api/invocations/{id}"))?.body, json);
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        shown.extend(new);
        // Those that can be in the next part, and no more.
        let excess = shown.len().saturating_sub(10 * PART as usize);
        shown.drain(..excess);
        limit = PART;
        std::thread::sleep(PERIOD);
    }
}

fn show(invocation: &Value, json: bool) {
    if json {
        return output::json(invocation);
    }
    let duration = invocation["durationMs"].as_f64().unwrap_or_default();
    let at = output::time(invocation["executedAt"].as_i64());
    let (id, outcome) =
        (invocation["invocationId"].as_str().unwrap_or_default(), invocation["outcome"].as_str().unwrap_or_default());
    output::line(&format!("{at} {id} {outcome} {duration:.1} ms"));
    for stream in ["output", "stderr"] {
        for text in invocation[stream].as_str().unwrap_or_default().lines() {
            output::line(&format!("  {text}"));
        }
    }
    if let Some(error) = invocation["error"].as_str() {
        output::line(&format!("  {error}"));
    }
}
