//! `invoke`: ends as the function did.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use super::client::{Answer, Client, part};
use super::{EX_PLATFORM, output};
use crate::domain::{Outcome, signal_name};

pub(super) fn run(
    client: &Client,
    function: &str,
    input: &str,
    is_async: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut text = input.to_owned();
    if input == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("stdin is not UTF-8")?;
    }
    serde_json::from_str::<serde_json::Map<String, Value>>(&text).context("the input is not a JSON object")?;
    let headers: &[(&str, &str)] = if is_async { &[("prefer", "respond-async")] } else { &[] };
    let answer = client.post_json(&format!("/api/functions/{}/invoke", part(function)), &text, headers)?;
    Ok(show(&answer, json))
}

/// Shows what an execution came to, and ends as the function did.
pub(super) fn show(answer: &Answer, json: bool) -> ExitCode {
    if json {
        output::json(&answer.body);
    } else if answer.status == 202 {
        output::line(answer.body["invocationId"].as_str().unwrap_or_default());
    } else {
        output::verbatim(answer.body["output"].as_str().unwrap_or_default());
        output::error(answer.body["stderr"].as_str().unwrap_or_default());
        if let Some(error) = answer.body["error"].as_str() {
            output::error(&format!("youtube-serverless: {error}\n"));
        }
    }
    if answer.status == 202 { ExitCode::SUCCESS } else { ExitCode::from(status_of(&answer.body)) }
}

/// The exit status that tells what an execution came to, as a shell would.
pub(super) fn status_of(execution: &Value) -> u8 {
    let exit_code = execution["exitCode"].as_u64().and_then(|code| u8::try_from(code).ok());
    let signal = signal(execution["error"].as_str().unwrap_or_default());
    let outcome = execution["outcome"].as_str().and_then(Outcome::from_name);
    outcome.and_then(|outcome| outcome.exit_status(exit_code, signal)).unwrap_or(EX_PLATFORM)
}

/// Its number, from its name in the text.
fn signal(error: &str) -> u8 {
    let name = error.rsplit("killed by ").next().unwrap_or_default();
    let number = match name.strip_prefix("signal ") {
        Some(number) => number.parse().ok(),
        None => (1..=31).find(|&number| signal_name(number) == name).and_then(|number| u8::try_from(number).ok()),
    };
    number.filter(|number| *number < 128).unwrap_or(9)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_status_follows_the_outcome() {
        let status = |outcome: &str, exit_code: Option<i32>, error: &str| {
            status_of(&json!({"outcome": outcome, "exitCode": exit_code, "error": error}))
        };
        assert_eq!(status("ok", Some(0), ""), 0);
        assert_eq!(status("exit", Some(3), ""), 3);
        assert_eq!(status("timeout", None, ""), 124);
        assert_eq!(status("out_of_memory", Some(1), ""), 137);
        assert_eq!(status("signal", None, "the function was killed by SIGSEGV"), 139);
        assert_eq!(status("signal", None, "the function was killed by SIGBUS"), 128 + 7);
        assert_eq!(status("signal", None, "the function was killed by signal 40"), 128 + 40);
        assert_eq!(status("lost", None, ""), 125);
    }
}
