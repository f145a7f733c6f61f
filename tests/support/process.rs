//! The service as operators run the service: the program itself, configured by environment variables only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder};

use super::{Answer, answer, eventually, labelled, vars};

/// A process of the service. A drop kills the process.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) dir: PathBuf,
    pub(crate) client: Client,
}

impl Service {
    /// Starts the service on its data in `dir`, and waits until the service listens.
    pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_with(dir, settings, Stdio::inherit()).await
    }

    pub(crate) async fn start_with(dir: &Path, settings: &[(&str, &str)], log: Stdio) -> Self {
        Self::start_on(free_port(), dir, settings, log).await
    }

    pub(crate) async fn start_on(port: u16, dir: &Path, settings: &[(&str, &str)], log: Stdio) -> Self {
        Self::run(command(dir, settings), port, dir, log).await
    }

    /// Starts the service where names mean what `hosts` says in place of /etc/hosts. The service listens on
    /// SERVER_PORT, or on a free port. Needs root.
    pub(crate) async fn start_with_hosts(dir: &Path, settings: &[(&str, &str)], hosts: &str) -> Self {
        let file = dir.join("hosts");
        std::fs::write(&file, hosts).unwrap();
        let service = command(dir, settings);
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$1\""]);
        outer.arg(file).arg(service.get_program()).current_dir(dir);
        outer.envs(service.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let port = settings.iter().find(|(name, _)| *name == "SERVER_PORT");
        let port = port.map_or_else(free_port, |(_, port)| port.parse().unwrap());
        Self::run(outer, port, dir, Stdio::inherit()).await
    }

    /// Runs a command that is the service, or becomes the service.
    pub(crate) async fn run(mut command: Command, port: u16, dir: &Path, log: Stdio) -> Self {
        // The client must not use a connection again that the service may be about to close.
        let client = Client::builder().pool_idle_timeout(Duration::from_millis(300)).build().unwrap();
        let child = command.env("SERVER_PORT", port.to_string()).stderr(log).spawn().unwrap();
        let service = Self { child, url: format!("http://127.0.0.1:{port}"), dir: dir.to_owned(), client };
        let live = format!("{}/health/live", service.url);
        eventually("the service listens", async || service.client.get(&live).send().await.ok().map(drop)).await;
        service
    }

    /// Waits until the service reports that functions can be executed.
    pub(crate) async fn healthy(self) -> Self {
        self.well().await;
        self
    }

    /// Waits until the service reports that functions can be executed. A busy engine answers late.
    pub(crate) async fn well(&self) {
        eventually("the service is healthy", async || (self.get("/health").await.status == 200).then_some(())).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.client.get(format!("{}{path}", self.url))).await
    }

    /// The text of an answer that is not JSON.
    pub(crate) async fn text(&self, path: &str) -> String {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }

    pub(crate) async fn delete(&self, id: &str) -> Answer {
        answer(self.client.delete(format!("{}/api/functions/{id}", self.url))).await
    }

    pub(crate) async fn execute(&self, id: &str) -> Answer {
        self.get(&format!("/api/execute?functionId={id}")).await
    }

    pub(crate) async fn execute_with(&self, id: &str, input: serde_json::Value) -> Answer {
        answer(
            self.client
                .post(format!("{}/api/execute", self.url))
                .json(&serde_json::json!({"functionId": id, "input": input})),
        )
        .await
    }

    pub(crate) async fn submit(&self, zip: Vec<u8>) -> Answer {
        answer(self.submission(zip)).await
    }

    /// A request that submits a zip and is not sent yet.
    pub(crate) fn submission(&self, zip: Vec<u8>) -> RequestBuilder {
        let part = Part::bytes(zip).file_name("function.zip");
        self.client.post(format!("{}/api/submit", self.url)).multipart(Form::new().part("code", part))
    }

    /// Deploys a function from a zip, expects success, and returns the function's id.
    pub(crate) async fn deploy(&self, zip: Vec<u8>) -> String {
        self.submit(zip).await.assert_status(200).body["functionId"].as_str().unwrap().to_owned()
    }

    /// Deploys a function that may reach these hosts, and returns the function's id.
    pub(crate) async fn deploy_with(
        &self,
        zip: Vec<u8>,
        rules: &[String],
        settings: &[(&'static str, &str)],
    ) -> String {
        let part = Part::bytes(zip).file_name("function.zip");
        let network = serde_json::json!({"allow": rules}).to_string();
        let mut form = Form::new().part("code", part).text("network", network);
        for (name, value) in settings {
            form = form.text(*name, (*value).to_owned());
        }
        let answer = answer(self.client.post(format!("{}/api/submit", self.url)).multipart(form)).await;
        answer.assert_status(200).body["functionId"].as_str().unwrap().to_owned()
    }

    /// Stops the service by a signal, and expects exit status 0.
    pub(crate) async fn stop(self) {
        self.signal("TERM");
        assert!(self.end().await.success());
    }

    /// Deletes all functions, waits until Docker has none of their containers and images, and stops the service.
    pub(crate) async fn delete_all(self, dir: &Path) {
        for function in self.get("/api/functions").await.body.as_array().unwrap() {
            self.delete(function["functionId"].as_str().unwrap()).await.assert_status(200);
        }
        eventually("nothing is left", async || {
            [labelled(dir, &["ps", "--all"]), labelled(dir, &["images"])].concat().is_empty().then_some(())
        })
        .await;
        self.stop().await;
    }

    /// Sends the service a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The number of clients that are connected to the service.
    pub(crate) fn connections(&self) -> usize {
        self.established().len()
    }

    /// The ports of the clients that are connected, seen from the service's side.
    pub(crate) fn established(&self) -> Vec<u16> {
        self.sockets(|row| row[3] == "01")
    }

    /// The clients' ports of the kernel's sockets for connections to the service: of those whose row in /proc/net/tcp
    /// is wanted.
    pub(crate) fn sockets(&self, is_wanted: impl Fn(&[&str]) -> bool) -> Vec<u16> {
        let own = self.url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap_or(0);
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| port(row[1]) == own && is_wanted(row)).map(|row| port(row[2])).collect()
    }

    /// The ids of the service's child processes.
    pub(crate) fn child_ids(&self) -> Vec<u32> {
        let path = format!("/proc/{pid}/task/{pid}/children", pid = self.child.id());
        let ids = std::fs::read_to_string(path).unwrap();
        ids.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    /// The number of files and folders in the service's temp directory.
    pub(crate) fn temp_files(&self) -> usize {
        let temp = std::fs::read_dir(self.dir.join("temp")).unwrap();
        temp.map(|own| std::fs::read_dir(own.unwrap().path()).unwrap().count()).sum()
    }

    /// A size in the service's /proc/PID/status, in bytes.
    pub(crate) fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Waits for the end of the process.
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

/// A port that was free a moment ago. No other process on this machine takes ports by number.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program with a test's own variables.
pub(crate) fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    command.current_dir(dir).envs(vars(dir, &[("LOG_LEVEL", "error")])).envs(settings.iter().copied());
    command
}
