//! `token create`, `token ls` and `token rm`.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, part};
use super::{functions, output};
use crate::domain::Scope;
use crate::resources::clock;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print the token alone. The platform never shows the token again.
    Create {
        /// The token's name.
        name: String,
        /// What the token opens, once for each: read, invoke, deploy (has read) or admin (has all).
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = Scope::ALL.map(Scope::name))]
        scopes: Vec<String>,
        /// A function that the token is for, once for each: an id, or a name that only one function has. The default is
        /// all functions.
        #[arg(long = "function", value_name = "FUNCTION")]
        functions: Vec<String>,
        /// The time after which the token is refused, such as 90d or 12h. The default is never.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List the tokens, without the tokens' texts.
    Ls,
    /// Delete tokens. No node takes a deleted token.
    Rm {
        /// The tokens' names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

impl TokenCommand {
    pub(super) fn ask(self, client: &Client, json: bool) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create { name, scopes, functions, expires } => {
                create(client, &name, &scopes, &functions, expires, json)
            }
            Self::Ls => list(client, json),
            Self::Rm { names } => remove(client, &names, json),
        }
    }
}

fn create(
    client: &Client,
    name: &str,
    scopes: &[String],
    functions: &[String],
    expires: Option<Duration>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let ids: Vec<String> =
        functions.iter().map(|function| functions::resolve(client, function)).collect::<anyhow::Result<_>>()?;
    let mut body = json!({"name": name, "scopes": scopes});
    if !ids.is_empty() {
        body["functions"] = json!(ids);
    }
    if let Some(expires) = expires {
        body["expiresAt"] = json!(clock::unix_seconds().saturating_add(expires.as_secs()));
    }
    let made = client.post_json("/api/tokens", &body.to_string(), &[])?.body;
    if json {
        output::json(&made);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(made["token"].as_str().context("the platform did not answer with a token")?);
    output::error(&format!("Token '{name}' made. The platform never shows the token again\n"));
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let tokens = client.get("/api/tokens")?.body;
    if json {
        output::json(&tokens);
        return Ok(ExitCode::SUCCESS);
    }
    let tokens = tokens.as_array().context("the platform did not answer with a list")?;
    let names = if tokens.iter().any(|token| token["functions"].is_array()) {
        functions::names(client)?
    } else {
        HashMap::new()
    };
    let mut rows = vec![["NAME", "SCOPES", "FUNCTIONS", "CREATED", "EXPIRES", "LAST USED"].map(str::to_owned).to_vec()];
    for token in tokens {
        rows.push(vec![
            token["name"].as_str().unwrap_or("-").to_owned(),
            words(&token["scopes"], |scope| scope.to_owned()).unwrap_or_default(),
            words(&token["functions"], |id| names.get(id).cloned().unwrap_or_else(|| id.to_owned()))
                .unwrap_or_else(|| "all".to_owned()),
            output::time(token["createdAt"].as_i64()),
            output::time(token["expiresAt"].as_i64()),
            output::time(token["lastUsedAt"].as_i64()),
        ]);
    }
    output::table(&rows);
    Ok(ExitCode::SUCCESS)
}

fn remove(client: &Client, names: &[String], json: bool) -> anyhow::Result<ExitCode> {
    for name in names {
        let answer = client.delete(&format!("/api/tokens/{}", part(name)))?;
        if json {
            output::json(&answer.body);
        } else {
            output::line(answer.body["message"].as_str().unwrap_or_default());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The words of a list with commas between. None where there is no list.
fn words(list: &Value, shown: impl Fn(&str) -> String) -> Option<String> {
    let words = list.as_array()?.iter().filter_map(Value::as_str).map(shown);
    Some(words.collect::<Vec<_>>().join(","))
}
