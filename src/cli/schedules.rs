//! `schedule`: the times at which a function runs by itself.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Answer, Client, part};
use super::{functions, output};

/// The name of a schedule that is given no other.
const NAME: &str = "default";

#[derive(Debug, Subcommand)]
pub(super) enum Schedule {
    /// Make or replace a schedule of a function.
    Add {
        #[command(flatten)]
        which: Which,
        /// Five fields as in crontab(5), in quotes, such as '0 3 * * *'; or @hourly, @daily, @weekly, @monthly,
        /// @yearly.
        cron: String,
        /// The time zone, by its IANA name.
        #[arg(long, default_value = "UTC")]
        zone: String,
        /// The input of each run, a JSON object.
        #[arg(short, long, default_value = "{}")]
        input: String,
        /// What becomes of a slot while an earlier run has not ended: skip or queue.
        #[arg(long, default_value = "skip")]
        overlap: String,
        /// What becomes of slots that nobody has begun in time: skip, or once for one run.
        #[arg(long, default_value = "skip")]
        missed: String,
        /// Make a schedule that pauses until `schedule resume`.
        #[arg(long)]
        disabled: bool,
    },
    /// List the schedules of a function, or of all functions.
    Ls {
        /// The function's id, or a name that only one function has.
        #[arg(add = super::complete::functions())]
        function: Option<String>,
    },
    /// Remove a schedule.
    Rm(Which),
    /// Run now, apart from the schedule's times: print the id of the invocation.
    Run(Which),
    /// Begin no more runs until `schedule resume`.
    Pause(Which),
    /// Go on after a pause. What came meanwhile is not made up for.
    Resume(Which),
}

/// A schedule of a function.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// The function's id, or a name that only one function has.
    #[arg(add = super::complete::functions())]
    function: String,
    /// The schedule's name.
    #[arg(long, default_value = NAME)]
    name: String,
}

pub(super) fn run(client: &Client, command: Schedule, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Schedule::Add { which, cron, zone, input, overlap, missed, disabled } => {
            let input: Map<String, Value> = serde_json::from_str(&input).context("the input is not a JSON object")?;
            let definition = json!({"cron": cron, "timezone": zone, "input": input, "enabled": !disabled,
                "overlap": overlap, "missed": missed});
            let answer = client.put_json(&path(client, &which)?, &definition.to_string())?;
            tell(&answer, json);
        }
        Schedule::Ls { function } => list(client, function.as_deref(), json)?,
        Schedule::Rm(which) => {
            let answer = client.delete(&path(client, &which)?)?;
            say(&answer, "message", json);
        }
        Schedule::Run(which) => {
            let answer = client.post_json(&format!("{}/run", path(client, &which)?), "", &[])?;
            say(&answer, "invocationId", json);
        }
        Schedule::Pause(which) => enable(client, &which, false, json)?,
        Schedule::Resume(which) => enable(client, &which, true, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn enable(client: &Client, which: &Which, is_enabled: bool, json: bool) -> anyhow::Result<()> {
    let path = path(client, which)?;
    let shown = client.get(&path)?.body;
    let keys = ["cron", "timezone", "input", "overlap", "missed"];
    let mut definition: Map<String, Value> = keys.iter().map(|&key| (key.to_owned(), shown[key].clone())).collect();
    definition.insert("enabled".to_owned(), is_enabled.into());
    tell(&client.put_json(&path, &Value::from(definition).to_string())?, json);
    Ok(())
}

fn list(client: &Client, function: Option<&str>, json: bool) -> anyhow::Result<()> {
    let functions = client.get("/api/functions")?.body;
    let only = function.map(|function| functions::resolve(client, function)).transpose()?;
    let mut all = Vec::new();
    let heads = ["FUNCTION", "NAME", "CRON", "ZONE", "NEXT", "LAST OUTCOME", "LAST INVOCATION"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for function in functions.as_array().into_iter().flatten() {
        let id = function["functionId"].as_str().unwrap_or_default();
        if only.as_deref().is_some_and(|only| only != id) {
            continue;
        }
        let schedules = client.get(&format!("/api/functions/{id}/schedules"))?.body;
        for schedule in schedules.as_array().into_iter().flatten() {
            let text = |key: &str| schedule[key].as_str().unwrap_or("-").to_owned();
            let next = match schedule["enabled"].as_bool() {
                Some(false) => "paused".to_owned(),
                _ => output::time(schedule["nextAt"].as_i64()),
            };
            rows.push(vec![
                function["name"].as_str().unwrap_or_default().to_owned(),
                text("name"),
                text("cron"),
                text("timezone"),
                next,
                text("lastOutcome"),
                text("lastInvocationId"),
            ]);
            all.push(schedule.clone());
        }
    }
    if json {
        output::json(&all.into());
    } else {
        output::table(&rows);
    }
    Ok(())
}

fn path(client: &Client, which: &Which) -> anyhow::Result<String> {
    let id = functions::resolve(client, &which.function)?;
    Ok(format!("/api/functions/{id}/schedules/{}", part(&which.name)))
}

/// Prints when a schedule comes next.
fn tell(answer: &Answer, json: bool) {
    if json {
        return output::json(&answer.body);
    }
    let name = answer.body["name"].as_str().unwrap_or_default();
    let slots = answer.body["upcoming"].as_array().into_iter().flatten();
    let slots: Vec<String> = slots.map(|slot| output::time(slot.as_i64())).collect();
    let next = if slots.is_empty() { "pauses".to_owned() } else { format!("comes next at {}", slots.join(", ")) };
    output::line(&format!("schedule {name} {next}"));
}

fn say(answer: &Answer, key: &str, json: bool) {
    if json {
        output::json(&answer.body);
    } else {
        output::line(answer.body[key].as_str().unwrap_or_default());
    }
}
