//! Requests and looks of these tests only, for a service in a process of its own.

use std::path::Path;
use std::process::{Output, Stdio};

use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};

use crate::support::process::command;
use crate::support::*;

impl Service {
    /// Starts the service as [`Service::start`] does, with its log in a file.
    pub(crate) async fn start_logged(dir: &Path, settings: &[(&str, &str)], log: &Path) -> Self {
        Self::start_with(dir, settings, std::fs::File::create(log).unwrap().into()).await
    }

    /// Waits until an invocation has ended, and returns the invocation.
    pub(crate) async fn ended(&self, id: &str) -> serde_json::Value {
        let path = format!("/api/invocations/{id}");
        eventually("the invocation has ended", async || {
            let shown = self.get(&path).await.assert_status(200).body;
            (!["queued", "running"].contains(&shown["outcome"].as_str().unwrap())).then_some(shown)
        })
        .await
    }

    /// Sends an asynchronous execution.
    pub(crate) async fn defer(&self, id: &str, input: serde_json::Value) -> Answer {
        let request = self.client.post(format!("{}/api/execute", self.url)).header("prefer", "respond-async");
        answer(request.json(&serde_json::json!({"functionId": id, "input": input}))).await
    }

    /// Submits a zip. None when the service goes away before its answer.
    pub(crate) async fn try_submit(&self, zip: Vec<u8>) -> Option<Answer> {
        attempt(self.submission(zip)).await
    }

    /// Updates a function. None when the service goes away before its answer.
    pub(crate) async fn try_update(&self, id: &str, zip: Vec<u8>) -> Option<Answer> {
        let form = Form::new().part("code", Part::bytes(zip).file_name("function.zip"));
        attempt(self.client.put(format!("{}/api/functions/{id}", self.url)).multipart(form)).await
    }

    /// Executes a function. None when the service goes away before its answer.
    pub(crate) async fn try_execute(&self, id: &str) -> Option<Answer> {
        attempt(self.client.get(format!("{}/api/execute?functionId={id}", self.url))).await
    }

    /// Deletes a function. None when the service goes away before its answer.
    pub(crate) async fn try_delete(&self, id: &str) -> Option<Answer> {
        attempt(self.client.delete(format!("{}/api/functions/{id}", self.url))).await
    }

    /// The number of times that the database's threads have waited for work so far.
    pub(crate) fn database_waits(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let waits = tasks.filter_map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            // A thread's name has at most 15 characters.
            field("Name:")?.starts_with("sqlx-sqlite").then(|| field("voluntary_ctxt_switches:"))??.parse::<u64>().ok()
        });
        let waits: Vec<u64> = waits.collect();
        assert!(!waits.is_empty(), "the database has a thread of its own");
        waits.into_iter().sum()
    }
}

async fn attempt(request: RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    Some(Answer { status, headers, body })
}

/// Runs the program until the program ends by itself.
pub(crate) fn outcome(dir: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    command(dir, settings).args(arguments).stderr(Stdio::piped()).output().unwrap()
}
