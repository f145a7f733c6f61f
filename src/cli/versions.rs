//! `versions` and `code`: a function's code.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::client::Client;
use super::{functions, output};

/// Lists the versions, or shows the log of a version's build.
pub(super) fn list(client: &Client, function: &str, number: Option<u32>, json: bool) -> anyhow::Result<ExitCode> {
    let id = functions::resolve(client, function)?;
    if let Some(number) = number {
        let version = client.get(&format!("/api/functions/{id}/versions/{number}"))?.body;
        if json {
            output::json(&version);
        } else {
            output::line(version["buildLog"].as_str().unwrap_or_default().trim_end());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let versions = client.get(&format!("/api/functions/{id}/versions"))?.body;
    if json {
        output::json(&versions);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["VERSION", "CURRENT", "LANGUAGE", "CREATED", "ZIP"].map(str::to_owned).to_vec()];
    for version in versions.as_array().into_iter().flatten() {
        rows.push(vec![
            version["version"].to_string(),
            if version["isCurrent"] == true { "yes" } else { "-" }.to_owned(),
            version["language"].as_str().unwrap_or("-").to_owned(),
            output::time(version["createdAt"].as_i64()),
            format!("{} B", version["zipBytes"]),
        ]);
    }
    output::table(&rows);
    Ok(ExitCode::SUCCESS)
}

/// Writes the zip of a version into a file, and prints the file's name.
pub(super) fn code(
    client: &Client,
    function: &str,
    number: Option<u32>,
    to: Option<PathBuf>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let id = functions::resolve(client, function)?;
    let shown = client.get(&format!("/api/functions/{id}"))?.body;
    let number = number.map_or_else(|| shown["version"].to_string(), |number| number.to_string());
    let zip = client.get_bytes(&format!("/api/functions/{id}/versions/{number}/code"))?;
    let name = shown["name"].as_str().unwrap_or("function");
    let to = to.unwrap_or_else(|| format!("{name}-{number}.zip").into());
    if to.as_os_str() == "-" {
        output::bytes(&zip);
        return Ok(ExitCode::SUCCESS);
    }
    // A file that is there may be a person's only copy of something.
    let mut file = std::fs::File::create_new(&to).with_context(|| format!("can't make the file {}", to.display()))?;
    std::io::Write::write_all(&mut file, &zip).with_context(|| format!("can't write {}", to.display()))?;
    if json {
        output::json(&serde_json::json!({"file": to.to_string_lossy(), "bytes": zip.len()}));
    } else {
        output::line(&to.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}
