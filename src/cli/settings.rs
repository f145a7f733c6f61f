//! `settings`, `env`, `secret` and `allow`: what a function has beside its code.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use rustix::termios::{self, LocalModes, OptionalActions};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{functions, output};

/// The settings that are a number, so that a text becomes JSON's number.
const NUMBERS: [&str; 3] = ["cpus", "concurrency", "keepWarm"];
/// The settings that `settings` shows and sets.
const NAMES: [&str; 8] = ["name", "memory", "cpus", "timeout", "concurrency", "keepWarm", "preload", "http"];

#[derive(Args, Debug)]
pub(super) struct Settings {
    /// The function's id, or a name that only one function has.
    #[arg(add = super::complete::functions())]
    function: String,
    /// What to change: memory=256MB, cpus=2, timeout=10s, concurrency=4, keepWarm=1, preload=off, http=public or
    /// name=other. An empty value, as in memory=, has the default count again.
    #[arg(value_name = "NAME=VALUE")]
    changes: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Env {
    /// Set variables of a function's environment.
    Set {
        /// The function's id, or a name that only one function has.
        #[arg(add = super::complete::functions())]
        function: String,
        /// The variables.
        #[arg(required = true, value_name = "NAME=VALUE")]
        variables: Vec<String>,
    },
    /// Remove variables of a function's environment.
    Rm(Names),
    /// List the variables of a function's environment.
    Ls(One),
}

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Set a secret of a function. The value is read from stdin, without its last line end, and is never shown again.
    Set {
        /// The function's id, or a name that only one function has.
        #[arg(add = super::complete::functions())]
        function: String,
        /// The name of the variable in the function's environment.
        name: String,
    },
    /// Remove secrets of a function.
    Rm(Names),
    /// List the names of a function's secrets.
    Ls(One),
}

#[derive(Args, Debug)]
pub(super) struct Allow {
    /// The function's id, or a name that only one function has.
    #[arg(add = super::complete::functions())]
    function: String,
    /// Hosts and ports that the function may reach from now on, such as api.example.com:443. Without any, the command
    /// lists what the function may reach.
    #[arg(value_name = "HOST:PORT")]
    rules: Vec<String>,
    /// A host and a port that the function may reach no more, once for each.
    #[arg(long, value_name = "HOST:PORT")]
    rm: Vec<String>,
}

/// Variables of a function.
#[derive(Args, Debug)]
pub(super) struct Names {
    /// The function's id, or a name that only one function has.
    #[arg(add = super::complete::functions())]
    function: String,
    /// The names of the variables.
    #[arg(required = true)]
    names: Vec<String>,
}

/// A function.
#[derive(Args, Debug)]
pub(super) struct One {
    /// The function's id, or a name that only one function has.
    #[arg(add = super::complete::functions())]
    pub(super) function: String,
}

pub(super) fn settings(
    client: &Client,
    Settings { function, changes }: Settings,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let id = functions::resolve(client, &function)?;
    let shown = if changes.is_empty() {
        read(client, &id)?
    } else {
        let changes = changes.iter().map(|change| changed(change)).collect::<anyhow::Result<Map<_, _>>>()?;
        change(client, &id, changes)?
    };
    if json {
        output::json(&shown);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, value) in shown.as_object().into_iter().flatten() {
        let text = match (name.as_str(), value) {
            (_, Value::Null) => "-".to_owned(),
            (_, Value::String(text)) => text.clone(),
            ("preload", value) => preload(value),
            ("network", value) => words(&value["allow"]),
            ("notify", value) => format!("{} on {}", value["url"].as_str().unwrap_or_default(), words(&value["on"])),
            (_, Value::Object(variables)) => variables.keys().cloned().collect::<Vec<_>>().join(" "),
            (_, value @ Value::Array(_)) => words(value),
            (_, value) => value.to_string(),
        };
        rows.push(vec![name.clone(), if text.is_empty() { "-".to_owned() } else { text }]);
    }
    output::table(&rows);
    Ok(ExitCode::SUCCESS)
}

/// A change as the API takes the change.
fn changed(text: &str) -> anyhow::Result<(String, Value)> {
    let (name, value) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=VALUE"))?;
    if !NAMES.contains(&name) {
        bail!("{name:?} is not one of {}; see also `env`, `secret`, `allow` and `schedule`", NAMES.join(", "));
    }
    let number = || value.parse::<serde_json::Number>().map(Value::from);
    let value = match value {
        "" => Value::Null,
        // A list of modules.
        list if name == "preload" && list.starts_with('[') => {
            serde_json::from_str(list).context("preload is no list")?
        }
        _ if NUMBERS.contains(&name) => number().unwrap_or_else(|_| value.into()),
        text => text.into(),
    };
    Ok((name.to_owned(), value))
}

fn preload(value: &Value) -> String {
    let mode = value["mode"].as_str().map_or_else(|| value["mode"].to_string(), str::to_owned);
    let saved = value["savedMs"].as_f64().map(|saved| format!(", saves {saved:.1} ms"));
    let excluded = value["excluded"].as_array().into_iter().flatten();
    let excluded = excluded.map(|one| {
        format!("{} ({})", one["module"].as_str().unwrap_or_default(), one["reason"].as_str().unwrap_or_default())
    });
    let excluded: Vec<String> = excluded.collect();
    let left = if excluded.is_empty() { String::new() } else { format!("; without {}", excluded.join(", ")) };
    format!("{mode}: {}{}{left}", words(&value["modules"]), saved.unwrap_or_default())
}

fn words(list: &Value) -> String {
    let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(" ")
}

pub(super) fn env(client: &Client, command: Env, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Env::Set { function, variables } => {
            let pairs = variables.iter().map(|text| {
                let (name, value) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=VALUE"))?;
                Ok((name.to_owned(), value.into()))
            });
            set(client, &function, "environment", pairs.collect::<anyhow::Result<_>>()?)?;
        }
        Env::Rm(Names { function, names }) => remove(client, &function, "environment", names)?,
        Env::Ls(One { function }) => {
            let shown = read(client, &functions::resolve(client, &function)?)?;
            let environment = shown["environment"].as_object().cloned().unwrap_or_default();
            if json {
                output::json(&environment.into());
            } else {
                for (name, value) in &environment {
                    output::line(&format!("{name}={}", value.as_str().unwrap_or_default()));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn secret(client: &Client, command: Secret, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Secret::Set { function, name } => {
            let value = read_secret()?;
            let value =
                value.strip_suffix('\n').map(|value| value.strip_suffix('\r').unwrap_or(value)).unwrap_or(&value);
            set(client, &function, "secrets", Map::from_iter([(name, value.into())]))?;
        }
        Secret::Rm(Names { function, names }) => remove(client, &function, "secrets", names)?,
        Secret::Ls(One { function }) => {
            let shown = read(client, &functions::resolve(client, &function)?)?;
            if json {
                output::json(&shown["secrets"]);
            } else {
                shown["secrets"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(output::line);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn allow(client: &Client, Allow { function, rules, rm }: Allow, json: bool) -> anyhow::Result<ExitCode> {
    let id = functions::resolve(client, &function)?;
    let mut shown = read(client, &id)?;
    if !rules.is_empty() || !rm.is_empty() {
        let before = shown["network"]["allow"].as_array().cloned().unwrap_or_default();
        if let Some(unknown) = rm.iter().find(|rule| !before.iter().any(|one| one == rule.as_str())) {
            bail!("the function may not reach {unknown} anyway; `allow {function}` lists what the function may reach");
        }
        let kept = before.iter().filter_map(Value::as_str).filter(|rule| !rm.iter().any(|gone| gone == rule));
        let mut all: Vec<&str> = kept.collect();
        for rule in &rules {
            if !all.contains(&rule.as_str()) {
                all.push(rule);
            }
        }
        let network = if all.is_empty() { Value::Null } else { json!({ "allow": all }) };
        shown = change(client, &id, Map::from_iter([("network".to_owned(), network)]))?;
    }
    if json {
        output::json(&shown["network"]);
    } else {
        shown["network"]["allow"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(output::line);
    }
    Ok(ExitCode::SUCCESS)
}

/// The text on stdin. A terminal does not show the text.
fn read_secret() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let mut value = String::new();
    if let Ok(shown) = termios::tcgetattr(&stdin) {
        output::error("the value, which is not shown, and Enter: ");
        let mut hidden = shown.clone();
        hidden.local_modes -= LocalModes::ECHO;
        termios::tcsetattr(&stdin, OptionalActions::Now, &hidden).context("the terminal can't hide the value")?;
        let read = stdin.read_line(&mut value);
        termios::tcsetattr(&stdin, OptionalActions::Now, &shown).context("the terminal still hides what is typed")?;
        output::error("\n");
        read.context("stdin is not UTF-8")?;
    } else {
        stdin.lock().read_to_string(&mut value).context("stdin is not UTF-8")?;
    }
    // A command that has failed leaves an empty pipe.
    ensure!(!value.is_empty(), "stdin is empty: the value of a secret is read from stdin");
    Ok(value)
}

fn set(client: &Client, function: &str, kind: &str, values: Map<String, Value>) -> anyhow::Result<()> {
    let id = functions::resolve(client, function)?;
    change(client, &id, Map::from_iter([(kind.to_owned(), values.into())])).map(drop)
}

fn remove(client: &Client, function: &str, kind: &str, names: Vec<String>) -> anyhow::Result<()> {
    set(client, function, kind, names.into_iter().map(|name| (name, Value::Null)).collect())
}

fn read(client: &Client, id: &str) -> anyhow::Result<Value> {
    Ok(client.get(&format!("/api/functions/{id}/settings"))?.body)
}

fn change(client: &Client, id: &str, changes: Map<String, Value>) -> anyhow::Result<Value> {
    let mut answer = client.patch_json(&format!("/api/functions/{id}"), &Value::from(changes).to_string())?;
    Ok(answer.body["settings"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_the_api_takes() {
        let change = |text| changed(text).unwrap().1;
        assert_eq!(change("memory=256MB"), "256MB");
        assert_eq!(
            (change("cpus=1.5"), change("keepWarm=2"), change("cpus=many")),
            (json!(1.5), json!(2), json!("many"))
        );
        assert_eq!((change("timeout="), change("preload=[\"json\"]")), (Value::Null, json!(["json"])));
        assert!(changed("memory").is_err() && changed("color=red").unwrap_err().to_string().contains("keepWarm"));
    }
}
