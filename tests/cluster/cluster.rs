//! The cluster that `scripts/cluster` has made: its members, requests to these, and what they have logged.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// The longest time that the members take until all is well again, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(90);
/// Longer than what a request may wait for: a build, a node's lease, and a member that is frozen.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// The longest time for the first submit: at the start of a cluster all engines compile Go's standard library.
pub(crate) const FIRST_SUBMIT: Duration = Duration::from_secs(600);

/// Where a request goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Haproxy,
    /// A node by its number, from 1.
    Node(usize),
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None where no answer came, or not the whole of an answer.
    pub(crate) status: Option<u16>,
    /// The answer. In place of an answer, what went wrong.
    pub(crate) body: Value,
    pub(crate) target: Target,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Reply {
    pub(crate) fn is(&self, status: u16) -> bool {
        self.status == Some(status)
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or("")
    }
}

pub(crate) struct Cluster {
    client: Client,
    haproxy: String,
    nodes: Vec<String>,
    dir: PathBuf,
}

impl Cluster {
    pub(crate) fn of_environment() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this test by scripts/cluster"))
        };
        // Each request has a connection of its own: the end of a member then fails no request to another one.
        let client = Client::builder().pool_max_idle_per_host(0).timeout(REQUEST_LIMIT).build().unwrap();
        Self {
            client,
            haproxy: variable("CLUSTER_URL"),
            nodes: (1..=3).map(|number| variable(&format!("NODE{number}_URL"))).collect(),
            dir: PathBuf::from(variable("CLUSTER_DIR")),
        }
    }

    pub(crate) fn request(&self, target: Target, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url(target)))
    }

    /// The files of functions that a node has on disk for slots, and the node's temporary files.
    pub(crate) fn files(&self, number: usize) -> [Vec<PathBuf>; 2] {
        let node = self.dir.join(format!("node{number}"));
        let list = |folder: PathBuf| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        [list(node.join("data/trees")), list(node.join("temp")).into_iter().flat_map(list).collect()]
    }

    pub(crate) fn url(&self, target: Target) -> &str {
        match target {
            Target::Haproxy => &self.haproxy,
            Target::Node(number) => &self.nodes[number - 1],
        }
    }

    pub(crate) async fn send(&self, target: Target, request: RequestBuilder) -> Reply {
        let began = Instant::now();
        let answered = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        };
        let (status, body) = match answered.await {
            Ok((status, text)) => (Some(status), serde_json::from_str(&text).unwrap_or(Value::String(text))),
            Err(error) => (None, Value::String(chain(&error))),
        };
        Reply { status, body, target, began, ended: Instant::now() }
    }

    pub(crate) async fn get(&self, target: Target, path: &str) -> Reply {
        self.send(target, self.request(target, Method::GET, path)).await
    }

    pub(crate) fn node_targets(&self) -> impl Iterator<Item = Target> + use<> {
        (1..=self.nodes.len()).map(Target::Node)
    }

    /// Whether every node is healthy and takes all three for ready, and HAProxy has a node.
    async fn is_well(&self) -> Result<(), String> {
        for target in self.node_targets().chain([Target::Haproxy]) {
            for path in ["/health", "/api/nodes"] {
                let request = self.request(target, Method::GET, path).timeout(Duration::from_secs(3));
                let reply = self.send(target, request).await;
                let is_ready = |node: &&Value| node["ready"] == true;
                let ready = reply.body.as_array().map(|nodes| nodes.iter().filter(is_ready).count());
                if !reply.is(200) || ready.is_some_and(|ready| ready != self.nodes.len()) {
                    return Err(format!("{target:?} {path}: {:?} {}", reply.status, reply.body));
                }
            }
        }
        Ok(())
    }

    /// Waits until all is well, and has been for a while: HAProxy looks once in half a second whether a node is back.
    pub(crate) async fn until_well(&self) {
        let deadline = Instant::now() + RECOVERY;
        let mut times = 0;
        while times < 3 {
            match self.is_well().await {
                Ok(()) => times += 1,
                Err(why) => {
                    times = 0;
                    assert!(Instant::now() < deadline, "the cluster is not well again: {why}");
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Runs `scripts/cluster-node`.
    pub(crate) async fn act(&self, arguments: &[&str]) {
        let program = std::env::var("CLUSTER_NODE").unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        let acted = tokio::task::spawn_blocking(move || {
            let status = Command::new(program).args(&arguments).stdin(Stdio::null()).status().unwrap();
            assert!(status.success(), "cluster-node {arguments:?}: {status}");
        });
        acted.await.unwrap();
    }

    /// What docker prints on the engine of a node.
    pub(crate) fn docker(&self, number: usize, arguments: &[&str]) -> String {
        let socket = format!("unix://{}", self.dir.join(format!("node{number}/docker.sock")).display());
        let output = Command::new("docker").args(["--host", &socket]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What all services have in their environment, a variable a line.
    pub(crate) fn environment(&self) -> String {
        std::fs::read_to_string(self.dir.join("environment")).unwrap()
    }

    /// Sets what the next starts of services have in their environment.
    pub(crate) fn set_environment(&self, text: &str) {
        std::fs::write(self.dir.join("environment"), text).unwrap();
    }

    /// What the kernel says of the process of a node's service.
    pub(crate) fn service_status(&self, number: usize) -> String {
        let pid = std::fs::read_to_string(self.dir.join(format!("node{number}/service.pid"))).unwrap();
        std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap()
    }

    /// What HAProxy has logged until now, which is a line for each request that ended.
    pub(crate) fn haproxy_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("haproxy/service.log")).unwrap()
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
