//! `ls` and `rm`.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::client::Client;
use super::output;

pub(super) fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let functions = client.get("/api/functions")?.body;
    if json {
        output::json(&functions);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut rows = vec![["NAME", "ID", "LANGUAGE", "VERSION", "CREATED", "LAST EXECUTED"].map(str::to_owned).to_vec()];
    for function in functions.as_array().into_iter().flatten() {
        rows.push(vec![
            text(&function["name"]),
            text(&function["functionId"]),
            text(&function["language"]),
            function["version"].to_string(),
            output::time(function["createdAt"].as_i64()),
            output::time(function["lastExecuted"].as_i64()),
        ]);
    }
    output::table(&rows);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn roll_back(client: &Client, function: &str, version: Option<u32>, json: bool) -> anyhow::Result<ExitCode> {
    let id = resolve(client, function)?;
    let target = version.map_or_else(String::new, |version| format!("?version={version}"));
    let answer = client.post_json(&format!("/api/functions/{id}/rollback{target}"), "", &[])?;
    if json {
        output::json(&answer.body);
    } else {
        output::line(answer.body["message"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(client: &Client, functions: &[String], json: bool) -> anyhow::Result<ExitCode> {
    for function in functions {
        let id = resolve(client, function)?;
        let answer = client.delete(&format!("/api/functions/{id}"))?;
        if json {
            output::json(&answer.body);
        } else {
            output::line(answer.body["message"].as_str().unwrap_or_default());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The id of the one function that is meant.
pub(super) fn resolve(client: &Client, function: &str) -> anyhow::Result<String> {
    let functions = client.get("/api/functions")?.body;
    let functions = functions.as_array().context("the platform did not answer with a list")?;
    let ids: Vec<&str> = functions
        .iter()
        .filter(|one| one["functionId"] == function || one["name"] == function)
        .filter_map(|one| one["functionId"].as_str())
        .collect();
    match ids.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => bail!("no function has the name or id {function:?}"),
        ids => bail!("{} functions have the name {function:?}; name one by its id: {}", ids.len(), ids.join(", ")),
    }
}

/// The id of the function that an invocation by this name would run: the last of that name.
pub(super) fn last_of(client: &Client, function: &str) -> anyhow::Result<String> {
    let functions = client.get("/api/functions")?.body;
    let of_name = functions.as_array().into_iter().flatten().rev();
    let mut of_name = of_name.filter(|one| one["functionId"] == function || one["name"] == function);
    let id = of_name.next().and_then(|one| one["functionId"].as_str());
    id.map(str::to_owned).with_context(|| format!("no function has the name or id {function:?}"))
}

/// The names of all functions, by their ids.
pub(super) fn names(client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let functions = client.get("/api/functions")?.body;
    let pair = |one: &Value| Some((one["functionId"].as_str()?.to_owned(), one["name"].as_str()?.to_owned()));
    Ok(functions.as_array().into_iter().flatten().filter_map(pair).collect())
}
