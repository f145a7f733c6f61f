//! `deploy`: a folder becomes a zip, and that a function.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::client::{Client, Method, part};
use super::folder::zipped;
use super::{functions, output};
use crate::build::package;
use crate::domain::FunctionName;

/// What the form has beside the zip.
#[derive(Debug)]
pub(super) struct Texts {
    /// The function's name. None for the default.
    pub(super) name: Option<String>,
    /// The language, for code that fits two.
    pub(super) language: Option<String>,
    /// The rules of the function's network. Without any the form has no network.
    pub(super) allow: Vec<String>,
    /// Whose requests the function answers over HTTP. None leaves that as it is.
    pub(super) http: Option<String>,
    /// The URL of the receiver of notifications, and the events. An empty URL is no receiver.
    pub(super) notify: Option<(String, Vec<String>)>,
}

/// Which function the code is for.
#[derive(Debug)]
pub(super) enum Target {
    /// The function of the name, which is made where there is none.
    Named,
    /// A new function.
    New,
    /// This function, by its id or its name.
    Update(String),
}

pub(super) fn run(
    client: &Client,
    path: &Path,
    Texts { name, language, allow, http, notify }: Texts,
    target: Target,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let metadata = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut zip = if metadata.is_dir() { zipped(path)? } else { File::open(path)? };
    let length = zip.seek(SeekFrom::End(0))?;
    zip.rewind()?;
    let own_name = |zip: &mut File| match &name {
        Some(name) => Ok(name.clone()),
        None => name_in(zip)?.map_or_else(|| default_name(path), Ok),
    };
    let (place, name) = match target {
        Target::New => ((Method::Post, "/api/submit".to_owned()), Some(own_name(&mut zip)?)),
        Target::Named => ((Method::Put, format!("/api/functions/{}", part(&own_name(&mut zip)?))), None),
        Target::Update(function) => {
            ((Method::Put, format!("/api/functions/{}", functions::resolve(client, &function)?)), name)
        }
    };
    let boundary = Uuid::new_v4().simple().to_string();
    let mut head = String::new();
    let network = (!allow.is_empty()).then(|| serde_json::json!({"allow": allow}).to_string());
    let notify = notify.map(|(url, on)| match url.as_str() {
        "" => String::new(),
        url => serde_json::json!({"url": url, "on": on}).to_string(),
    });
    for (field, value) in
        [("name", name), ("language", language), ("network", network), ("http", http), ("notify", notify)]
    {
        if let Some(value) = value {
            ensure!(!value.contains(['\r', '\n']), "--{field} can't hold the end of a line");
            head += &format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        }
    }
    head += &format!("--{boundary}\r\ncontent-disposition: form-data; name=\"code\"; filename=\"code.zip\"\r\n\r\n");
    let tail = format!("\r\n--{boundary}--\r\n");
    let whole = head.len() as u64 + length + tail.len() as u64;

    // Indicatif draws on stderr, and only where that is a terminal.
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(length) };
    bar.set_style(
        ProgressStyle::with_template("uploading {bar:30} {bytes}/{total_bytes}").expect("the template is valid"),
    );
    let building = BuildingReader { bar: bar.clone(), zip: bar.wrap_read(zip) };
    let body = Cursor::new(head).chain(building).chain(Cursor::new(tail));
    let content_type = format!("multipart/form-data; boundary={boundary}");
    // What the build prints is for people.
    let log =
        |line: &str| bar.suspend(|| if json { Ok(()) } else { writeln!(std::io::stderr(), "{line}") }).unwrap_or(());
    let deployed = client.send_for_events((place.0, &place.1), &content_type, whole, body, log);
    bar.finish_and_clear();
    let deployed = deployed?;
    if json {
        output::json(&deployed);
    } else {
        eprintln!("{}", deployed["message"].as_str().unwrap_or_default());
        for warning in deployed["warnings"].as_array().into_iter().flatten() {
            eprintln!("warning: {}", warning.as_str().unwrap_or_default());
        }
        if let Some(key) = deployed["notifySecret"].as_str() {
            eprintln!("the key of the notifications' signatures, which is not shown again: {key}");
        }
        output::line(deployed["functionId"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

/// Says "building" once all is sent.
struct BuildingReader<R> {
    bar: ProgressBar,
    zip: R,
}

impl<R: Read> Read for BuildingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.zip.read(buffer)?;
        if read == 0 {
            self.bar.set_style(
                ProgressStyle::with_template("building {spinner} {elapsed}").expect("the template is valid"),
            );
            self.bar.enable_steady_tick(Duration::from_millis(100));
        }
        Ok(read)
    }
}

/// The name in the zip's function.toml. What is wrong with the file or the zip is for the platform to say.
fn name_in(zip: &mut File) -> anyhow::Result<Option<String>> {
    let manifest = package::manifest(zip).ok().flatten();
    zip.rewind()?;
    let manifest: Option<toml::Table> = manifest.and_then(|text| toml::from_str(std::str::from_utf8(&text).ok()?).ok());
    Ok(manifest.and_then(|manifest| Some(manifest.get("name")?.as_str()?.to_owned())))
}

/// Of a folder its own name, of a file that without `.zip`, without the characters that a name can't have.
pub(super) fn default_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize()?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    Ok(FunctionName::from_file_name(&name).to_string())
}
