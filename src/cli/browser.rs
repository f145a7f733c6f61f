//! `open`: the console in a person's browser.

use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use super::client::Client;
use super::{functions, output};

/// Opens the console, or a function's page there, in the person's browser, and prints the address.
pub(super) fn open(client: &Client, function: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let page = match function {
        Some(function) => format!("/#/functions/{}", functions::resolve(client, function)?),
        None => "/".to_owned(),
    };
    let address = client.at(&page);
    if json {
        output::json(&Value::from_iter([("url", address.as_str())]));
    } else {
        output::line(&address);
    }
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    #[expect(clippy::disallowed_methods, reason = "nobody waits for a browser")]
    let mut browser = Command::new(opener);
    let opened = browser.arg(&address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if opened.is_err() {
        output::error("no browser is found here; open the address in one\n");
    }
    Ok(ExitCode::SUCCESS)
}
