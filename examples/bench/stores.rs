//! A node on PostgreSQL beside a node on SQLite, in turn. Both stores sync each commit, on the same disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::report::{Report, percentile};
use crate::service::{Function, Service};

const BLOCKS: usize = 10;
const REQUESTS_OF_A_BLOCK: usize = 100;
const ROUNDS: usize = 3;
const ACCEPTED_IN_A_ROUND: usize = 1000;
const CLIENTS: usize = 8;

/// A server with its data in a folder of its own.
struct Postgres {
    process: Child,
    url: String,
}

/// A service with a function, and what was measured.
struct Node {
    name: &'static str,
    service: Service,
    function: Function,
    warm: Vec<Duration>,
    asynchronous: Duration,
}

/// Measures executions that a client waits for, and executions that are on disk before they begin.
pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(postgres) = Postgres::start()? else {
        report.note("stores: not measured, as there is no PostgreSQL (Debian's package postgresql)".to_owned());
        return Ok(());
    };
    let key = "1a".repeat(32);
    let sqlite = [("SERVER_PORT", "8087"), ("INSTANCE_UIDS", "71000-71999")];
    let shared = [
        ("SERVER_PORT", "8088"),
        ("INSTANCE_UIDS", "72000-72999"),
        ("STORE_URL", &postgres.url),
        ("SECRETS_KEY", &key),
    ];
    let mut nodes = [
        Node::start("SQLite", &dir.path().join("sqlite"), &sqlite).await?,
        Node::start("PostgreSQL", &dir.path().join("postgres"), &shared).await?,
    ];
    for _ in 0..BLOCKS {
        // Each node is the first one in every second block.
        nodes.reverse();
        for node in &mut nodes {
            for _ in 0..REQUESTS_OF_A_BLOCK {
                node.warm.push(node.service.execute(&node.function).await?);
            }
        }
    }
    for _ in 0..ROUNDS {
        nodes.reverse();
        for node in &mut nodes {
            node.asynchronous += node.service.defer(&node.function, ACCEPTED_IN_A_ROUND, CLIENTS).await?;
        }
    }
    nodes.sort_unstable_by_key(|node| std::cmp::Reverse(node.name));
    let figures = nodes.each_mut().map(Node::figures);
    for (node, [p50, p99, rate]) in nodes.iter().zip(figures) {
        report.add_store(format!("| {} | {p50:.2} | {p99:.2} | {rate:.0} |", node.name));
    }
    let [p50, p99, rate] = std::array::from_fn(|n| figures[1][n] / figures[0][n]);
    report.add_store(format!("| PostgreSQL of SQLite | {p50:.3} | {p99:.3} | {rate:.3} |"));
    for node in nodes {
        node.service.delete(&node.function).await?;
        node.service.stop()?;
    }
    postgres.stop()
}

impl Node {
    async fn start(name: &'static str, dir: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let service = Service::start(dir, settings).await?;
        let (function, _) = service.submit("python").await?;
        for _ in 0..REQUESTS_OF_A_BLOCK {
            service.execute(&function).await?;
        }
        Ok(Self { name, service, function, warm: Vec::new(), asynchronous: Duration::ZERO })
    }

    /// The warm p50 and p99 in milliseconds, and asynchronous executions a second.
    fn figures(&mut self) -> [f64; 3] {
        let [p50, p99] = [50, 99].map(|percent| percentile(&mut self.warm, percent).as_secs_f64() * 1e3);
        [p50, p99, (ROUNDS * ACCEPTED_IN_A_ROUND) as f64 / self.asynchronous.as_secs_f64()]
    }
}

impl Postgres {
    /// Starts a server. None where the machine has no PostgreSQL.
    fn start() -> Result<Option<Self>> {
        let mut process =
            Command::new("scripts/postgres").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("bash")?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().context("a stdout")?).read_line(&mut url)?;
        if url.is_empty() {
            process.wait()?;
            return Ok(None);
        }
        Ok(Some(Self { process, url: url.trim().to_owned() }))
    }

    /// Ends the server, whose folder goes.
    fn stop(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        ensure!(self.process.wait()?.success(), "PostgreSQL did not stop cleanly");
        Ok(())
    }
}

impl Service {
    /// Has clients ask for this many asynchronous executions, and returns the time until all of them have ended.
    async fn defer(&self, function: &Function, count: usize, clients: usize) -> Result<Duration> {
        let started = Instant::now();
        let client = async || {
            for _ in 0..count / clients {
                self.accept(function).await?;
            }
            anyhow::Ok(())
        };
        for accepted in futures_util::future::join_all((0..clients).map(|_| client())).await {
            accepted?;
        }
        for outcome in ["queued", "running"] {
            while self.has(function, outcome).await? {
                ensure!(started.elapsed() < Duration::from_secs(60), "executions are still {outcome}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let elapsed = started.elapsed();
        for outcome in ["lost", "exit", "timeout", "cancelled"] {
            ensure!(!self.has(function, outcome).await?, "an execution ended as {outcome}");
        }
        Ok(elapsed)
    }
}
