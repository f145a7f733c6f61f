//! `init`: the first files of a function.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::{deploy, output};
use crate::starters;

/// What a function is to be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Starter {
    /// A program that greets, in Python.
    Python,
    /// A program that greets, in Go.
    GoHello,
    /// An API over HTTP, in Go.
    Go,
    /// A web application with Flask.
    Flask,
    /// A job that runs by itself at night, in Python.
    Cron,
    /// A receiver of GitHub's webhooks, in Python.
    Webhook,
}

impl Starter {
    /// The files. The text of function.toml follows its `name`.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        let starter = match self {
            Self::Python => starters::PYTHON,
            Self::GoHello => starters::GO_HELLO,
            Self::Go => starters::GO,
            Self::Flask => starters::FLASK,
            Self::Cron => starters::CRON,
            Self::Webhook => starters::WEBHOOK,
        };
        starter.files
    }

    /// What to do with the deployed function.
    fn next_step(self, name: &str) -> String {
        match self {
            Self::Python | Self::GoHello => format!("youtube-serverless invoke {name} -i '{{\"name\": \"John\"}}'"),
            Self::Go | Self::Flask => format!("curl http://127.0.0.1:8081/f/{name}/hello/John"),
            Self::Cron => format!("youtube-serverless schedule ls {name}"),
            Self::Webhook => "have GitHub send to /f/NAME, with the secret WEBHOOK_SECRET of the function".to_owned(),
        }
    }
}

pub(super) fn run(folder: &Path, starter: Starter, json: bool) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let name = deploy::default_name(folder)?;
    let mut files = starter.files().to_vec();
    let manifest = files.pop_if(|(name, _)| *name == "function.toml").map_or("", |(_, text)| text);
    let rest = manifest.split_once('\n').map_or("", |(_, rest)| rest);
    let manifest = format!("name = \"{name}\"\n{rest}");
    let all: Vec<(&str, &str)> = files.into_iter().chain([("function.toml", manifest.as_str())]).collect();
    // All or none: a folder that has one of the files is somebody's work.
    for (name, _) in &all {
        let path = folder.join(name);
        ensure!(!path.exists(), "{} is there already; name another folder", path.display());
    }
    for (name, text) in &all {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("can't write {}", path.display()))?;
    }
    if json {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        output::json(&serde_json::json!({"name": name, "files": names}));
    } else {
        for (name, _) in &all {
            output::line(&folder.join(name).display().to_string());
        }
        eprintln!("next: youtube-serverless deploy {} && {}", folder.display(), starter.next_step(&name));
    }
    Ok(ExitCode::SUCCESS)
}
