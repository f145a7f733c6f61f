//! The service as operators run the service: the program itself, configured by environment variables only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder};

use super::{Answer, answer, eventually, labelled, vars};

/// A process of the service. A drop kills the process.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    dir: PathBuf,
    client: Client,
}

impl Service {
    /// Starts the service on its data in `dir`, and waits until the service listens.
    pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_with(dir, settings, Stdio::inherit()).await
    }

    /// Starts the service as [`Service::start`] does, with its log in a file.
    pub(crate) async fn start_logged(dir: &Path, settings: &[(&str, &str)], log: &Path) -> Self {
        Self::start_with(dir, settings, std::fs::File::create(log).unwrap().into()).await
    }

    async fn start_with(dir: &Path, settings: &[(&str, &str)], log: Stdio) -> Self {
        // The port was free a moment ago, and no other process on this machine takes ports by number.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The client must not use a connection again that the service may be about to close.
        let client = Client::builder().pool_idle_timeout(Duration::from_millis(300)).build().unwrap();
        let child = command(dir, settings).env("SERVER_PORT", port.to_string()).stderr(log).spawn().unwrap();
        let service = Self { child, url: format!("http://127.0.0.1:{port}"), dir: dir.to_owned(), client };
        let live = format!("{}/health/live", service.url);
        eventually("it listens", async || service.client.get(&live).send().await.ok().map(drop)).await;
        service
    }

    /// Waits until the service reports that functions can be executed.
    pub(crate) async fn healthy(self) -> Self {
        eventually("it is healthy", async || (self.get("/health").await.status == 200).then_some(())).await;
        self
    }

    /// Expects the service to report now that functions can be executed.
    pub(crate) async fn healthy_now(&self) {
        self.get("/health").await.assert_status(200);
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

    /// Waits until an invocation has ended, and returns the invocation.
    pub(crate) async fn ended(&self, id: &str) -> serde_json::Value {
        let path = format!("/api/invocations/{id}");
        eventually("it has ended", async || {
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

    /// The peak of the service's resident memory so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The service's resident memory now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// How often the database's threads have waited for work so far.
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

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The number of the service's open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The number of clients that are connected to the service.
    pub(crate) fn connections(&self) -> usize {
        self.established().count()
    }

    /// Whether the connection from this client's port is still established.
    pub(crate) fn holds(&self, port: u16) -> bool {
        self.established().any(|client| client == port)
    }

    /// Whether the service has a descriptor for the connection from this client's port. The connection may be half
    /// closed.
    pub(crate) fn has_socket(&self, port: u16) -> bool {
        self.sockets().any(|socket| socket.client == port && socket.is_owned)
    }

    /// The ports of the clients that are connected, seen from the service's side.
    fn established(&self) -> impl Iterator<Item = u16> {
        self.sockets().filter(|socket| socket.is_established).map(|socket| socket.client)
    }

    /// All of the kernel's sockets for connections to the service.
    fn sockets(&self) -> impl Iterator<Item = Socket> {
        let own = self.url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap_or(0);
        let sockets = table.lines().filter_map(move |line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let socket = Socket { client: port(words[2]), is_established: words[3] == "01", is_owned: words[9] != "0" };
            (port(words[1]) == own).then_some(socket)
        });
        sockets.collect::<Vec<_>>().into_iter()
    }

    /// The number of the service's child processes.
    pub(crate) fn children(&self) -> usize {
        self.child_ids().len()
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

    /// The address at which the service listens.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Waits for the end of the process.
    pub(crate) async fn end(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }
}

/// A connection, seen from the service's side.
struct Socket {
    /// The client's port.
    client: u16,
    is_established: bool,
    /// Whether a process has a descriptor of the socket.
    is_owned: bool,
}

async fn attempt(request: RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    Some(Answer { status, headers, body })
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program until the program ends by itself.
pub(crate) fn outcome(dir: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    command(dir, settings).args(arguments).stderr(Stdio::piped()).output().unwrap()
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    command.current_dir(dir).envs(vars(dir, &[("LOG_LEVEL", "error")])).envs(settings.iter().copied());
    command
}
