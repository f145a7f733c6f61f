//! The service as its users run it: the program itself, with nothing but environment variables.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use reqwest::Client;

use super::{Answer, answer, eventually, vars};

/// A process of the service. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    client: Client,
}

impl Service {
    /// Starts it on its data in `dir`, and waits until it listens.
    pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        // Free a moment ago; nobody else here takes ports by number.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = command(dir, settings).env("SERVER_PORT", port.to_string()).spawn().unwrap();
        let service = Self { child, url: format!("http://127.0.0.1:{port}"), client: Client::new() };
        let live = format!("{}/health/live", service.url);
        eventually("it listens", async || service.client.get(&live).send().await.ok().map(drop)).await;
        service
    }

    /// Waits until it says that it can execute functions.
    pub(crate) async fn healthy(self) -> Self {
        eventually("it is healthy", async || (self.get("/health").await.status == 200).then_some(())).await;
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.client.get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Answer {
        answer(self.client.delete(format!("{}/api/functions/{id}", self.url))).await
    }

    pub(crate) async fn submit(&self, zip: Vec<u8>) -> Answer {
        let part = reqwest::multipart::Part::bytes(zip).file_name("function.zip");
        answer(self.client.post(format!("{}/api/submit", self.url)).multipart(reqwest::multipart::Form::new().part("code", part)))
            .await
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it until it ends by itself.
pub(crate) fn outcome(dir: &Path, settings: &[(&str, &str)]) -> Output {
    command(dir, settings).stderr(Stdio::piped()).output().unwrap()
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    command.current_dir(dir).envs(vars(dir, &[("LOG_LEVEL", "error")])).envs(settings.iter().copied());
    command
}
