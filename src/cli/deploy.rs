//! `deploy`: a folder becomes a zip, and that a function.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::client::{Client, Method};
use super::folder::zipped;
use super::{functions, output};

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

pub(super) fn run(
    client: &Client,
    path: &Path,
    Texts { name, language, allow, http, notify }: Texts,
    update: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let metadata = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut zip = if metadata.is_dir() { zipped(path)? } else { File::open(path)? };
    let length = zip.seek(SeekFrom::End(0))?;
    zip.rewind()?;
    let name = match (name, update) {
        (None, None) => Some(default_name(path)?),
        (name, _) => name,
    };
    let id = update.map(|function| functions::resolve(client, function)).transpose()?;
    let place = id.map_or((Method::Post, "/api/submit".to_owned()), |id| (Method::Put, format!("/api/functions/{id}")));
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

/// Of a folder its own name, of a file that without `.zip`.
fn default_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize()?;
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    Ok(name.map_or_else(|| "function".to_owned(), |name| name.to_string_lossy().into_owned()))
}
