//! `logs`: what invocations came to, the oldest first, and on request what they print, as they print it.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context;
use serde_json::Value;

use super::client::{Client, part};
use super::{functions, invoke, output};
use crate::domain::InvocationId;

/// The largest number of invocations whose output is followed at one time. Others wait.
const FOLLOWERS: usize = 32;

pub(super) fn run(client: &Client, of: &str, follow: bool, lines: u32, json: bool) -> anyhow::Result<ExitCode> {
    let function = match functions::last_of(client, of) {
        Ok(function) => function,
        // An id that is no function's may be an invocation's.
        Err(_) if of.parse::<InvocationId>().is_ok() => return of_invocation(client, of, follow, json),
        Err(error) => return Err(error),
    };
    let path = format!("/api/functions/{function}/invocations");
    if !follow {
        show_last(client, &path, lines, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    follow_all(client, &path, lines, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the last invocations that have ended, and returns their ids.
fn show_last(client: &Client, path: &str, lines: u32, json: bool) -> anyhow::Result<HashSet<String>> {
    let mut shown = HashSet::new();
    if lines == 0 {
        return Ok(shown);
    }
    let found = client.get(&format!("{path}?limit={}", lines.min(500)))?.body;
    let is_open = |one: &Value| matches!(one["outcome"].as_str(), Some("queued" | "running"));
    let ended = found["invocations"].as_array().into_iter().flatten().filter(|one| !is_open(one));
    let ids: Vec<&str> = ended.filter_map(|one| one["invocationId"].as_str()).collect();
    for id in ids.into_iter().rev() {
        show(&client.get(&format!("/api/invocations/{id}"))?.body, json);
        shown.insert(id.to_owned());
    }
    Ok(shown)
}

/// Shows the output of all invocations that begin, until the platform goes away.
fn follow_all(client: &Client, path: &str, lines: u32, json: bool) -> anyhow::Result<()> {
    let (sender, begun) = sync_channel::<String>(FOLLOWERS);
    let begun = Mutex::new(begun);
    std::thread::scope(|scope| {
        for _ in 0..FOLLOWERS {
            scope.spawn(|| follow_each(client, &begun, json));
        }
        let mut seen = HashSet::new();
        let followed = client.follow(path, |event, data| match (event, data["invocationId"].as_str()) {
            // What begins from now on is told.
            ("listening", _) => match show_last(client, path, lines, json) {
                Ok(shown) => seen = shown,
                Err(error) => output::error(&format!("youtube-serverless: {error:#}\n")),
            },
            // The send fails only when no follower is left.
            ("began", Some(id)) if !seen.contains(id) => drop(sender.send(id.to_owned())),
            _ => {}
        });
        drop(sender);
        let gone = || anyhow::anyhow!("the platform went away, or the function or the token did");
        let error = followed.err().unwrap_or_else(gone);
        // Invocations that run are shown to their ends, which may take long.
        output::error(&format!("youtube-serverless: {error:#}; no further invocations are followed\n"));
    });
    Err(anyhow::anyhow!("the following has ended"))
}

/// Follows one invocation after another, until no more come.
fn follow_each(client: &Client, begun: &Mutex<Receiver<String>>, json: bool) {
    loop {
        let next = begun.lock().map(|begun| begun.recv());
        let Ok(Ok(id)) = next else { return };
        let mark = id.get(..8).unwrap_or(&id).to_owned();
        let mut texts = [Lines::new(&mark, ""), Lines::new(&mark, "stderr: ")];
        let mut ended = None;
        let followed = client.follow(&format!("/api/invocations/{id}/events"), |event, data| match event {
            "stdout" if !json => texts[0].push(data.as_str().unwrap_or_default()),
            "stderr" if !json => texts[1].push(data.as_str().unwrap_or_default()),
            "ended" => ended = Some(data),
            _ => {}
        });
        texts.iter_mut().for_each(Lines::finish);
        match (followed, ended) {
            (Ok(()), Some(_)) if json => match client.get(&format!("/api/invocations/{id}")) {
                Ok(whole) => output::json(&whole.body),
                Err(error) => output::error(&format!("youtube-serverless: {error:#}\n")),
            },
            (Ok(()), Some(ended)) => output::line(&format!("{mark} | {}", end_of(&ended))),
            (Ok(()), None) => {}
            (Err(error), _) => output::error(&format!("youtube-serverless: {error:#}\n")),
        }
    }
}

/// The lines of a stream, each shown when the line is whole, with the invocation's mark.
struct Lines {
    head: String,
    rest: String,
}

impl Lines {
    fn new(mark: &str, stream: &str) -> Self {
        Self { head: format!("{mark} | {stream}"), rest: String::new() }
    }

    fn push(&mut self, text: &str) {
        self.rest.push_str(text);
        while let Some(end) = self.rest.find('\n') {
            output::line(&format!("{}{}", self.head, &self.rest[..end]));
            self.rest.drain(..=end);
        }
    }

    fn finish(&mut self) {
        if !self.rest.is_empty() {
            output::line(&format!("{}{}", self.head, self.rest));
        }
    }
}

/// Ends as the invocation did, where it is followed.
fn of_invocation(client: &Client, id: &str, follow: bool, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/api/invocations/{}", part(id));
    if !follow {
        show(&client.get(&path)?.body, json);
        return Ok(ExitCode::SUCCESS);
    }
    let mut ended = None;
    client.follow(&format!("{path}/events"), |event, data| match (event, data.as_str()) {
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

fn show(invocation: &Value, json: bool) {
    if json {
        return output::json(invocation);
    }
    let at = output::time(invocation["executedAt"].as_i64());
    let id = invocation["invocationId"].as_str().unwrap_or_default();
    output::line(&format!("{at} {id} {}", end_of(invocation)));
    for stream in ["output", "stderr"] {
        for text in invocation[stream].as_str().unwrap_or_default().lines() {
            output::line(&format!("  {text}"));
        }
    }
    if let Some(error) = invocation["error"].as_str() {
        output::line(&format!("  {error}"));
    }
}

fn end_of(invocation: &Value) -> String {
    let duration = invocation["durationMs"].as_f64().unwrap_or_default();
    format!("{} {duration:.1} ms", invocation["outcome"].as_str().unwrap_or_default())
}
