//! `logs`: what invocations came to, the oldest first, and on request for ever.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::client::Client;
use super::{functions, invoke, output};
use crate::domain::InvocationId;

/// How often it is looked for new ones.
const PERIOD: Duration = Duration::from_secs(1);
/// As many as are asked for at once.
const PART: u32 = 500;
/// As many parts are looked through for those that end late.
const PARTS: usize = 20;

pub(super) fn run(client: &Client, of: &str, follow: bool, lines: u32, json: bool) -> anyhow::Result<ExitCode> {
    let function = match functions::last_of(client, of) {
        Ok(function) => function,
        // An id that is no function's may be an invocation's.
        Err(_) if of.parse::<InvocationId>().is_ok() => return of_invocation(client, of, follow, json),
        Err(error) => return Err(error),
    };
    let path = format!("/api/functions/{function}/invocations");
    let mut seen = HashSet::new();
    let mut shown_at_first = Some(lines as usize);
    loop {
        let ended = look(client, &path)?;
        let mut new: Vec<&String> = ended.iter().filter(|id| !seen.contains(*id)).collect();
        new.truncate(shown_at_first.take().unwrap_or(usize::MAX));
        for id in new.into_iter().rev() {
            show(&client.get(&format!("/api/invocations/{id}"))?.body, json);
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        seen.extend(ended);
        std::thread::sleep(PERIOD);
    }
}

/// Ends as the invocation did, where it is followed.
fn of_invocation(client: &Client, id: &str, follow: bool, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/api/invocations/{id}");
    if !follow {
        show(&client.get(&path)?.body, json);
        return Ok(ExitCode::SUCCESS);
    }
    let mut ended = None;
    client.follow(id, |event, data| match (event, data.as_str()) {
        ("stdout", Some(text)) if !json => output::verbatim(text),
        ("stderr", Some(text)) if !json => output::error(text),
        ("ended", _) => ended = Some(data),
        _ if json => output::json(&serde_json::json!({ event: data })),
        _ => {}
    })?;
    let ended = ended.context("the platform or the function went away before the invocation ended")?;
    if json {
        output::json(&client.get(&path)?.body);
    } else if let Some(error) = ended["error"].as_str() {
        output::error(&format!("youtube-serverless: {error}\n"));
    }
    Ok(ExitCode::from(invoke::status_of(&ended)))
}

/// The ids of those that have ended, the last first, as far back as there are some that have not.
fn look(client: &Client, path: &str) -> anyhow::Result<Vec<String>> {
    let (mut ended, mut open) = (Vec::new(), 0);
    let mut cursor = String::new();
    for _ in 0..PARTS {
        let found = client.get(&format!("{path}?limit={PART}{cursor}"))?.body;
        let before = open;
        for invocation in found["invocations"].as_array().into_iter().flatten() {
            if matches!(invocation["outcome"].as_str(), Some("queued" | "running")) {
                open += 1;
            } else {
                ended.push(invocation["invocationId"].as_str().unwrap_or_default().to_owned());
            }
        }
        match found["nextCursor"].as_str() {
            Some(next) if open > before => cursor = format!("&cursor={next}"),
            Some(_) | None => break,
        }
    }
    Ok(ended)
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
