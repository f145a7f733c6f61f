//! The live output of an invocation on the node that does not run the invocation.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::process::{command, free_port};
use crate::support::{Answer, Service, answer, eventually, postgres, python};

pub(crate) const TOKEN: &str = "what-the-nodes-show-each-other";

/// Two nodes with one database, of which the first runs what the tests execute.
pub(crate) struct Pair {
    pub(crate) store: String,
    folders: [tempfile::TempDir; 2],
    ports: [u16; 2],
}

impl Pair {
    pub(crate) fn new() -> Self {
        let store = postgres::database(&format!("forwarding-{}", uuid::Uuid::new_v4()));
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Self { store, folders, ports: [free_port(), free_port()] }
    }

    /// Starts a node, whose log is in a file.
    pub(crate) async fn start(&self, index: usize, settings: &[(&str, &str)]) -> Service {
        let (key, url) = ("1a".repeat(32), format!("http://127.0.0.1:{}", self.ports[index]));
        let mut all = vec![("STORE_URL", self.store.as_str()), ("SECRETS_KEY", &key), ("LOG_LEVEL", "warn")];
        all.extend([("NODE_URL", url.as_str()), ("CLUSTER_TOKEN", TOKEN), ("DOCKER_CONTAINER_LIMIT", "2")]);
        all.extend_from_slice(settings);
        let folder = self.folders[index].path();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        Service::start_on(self.ports[index], folder, &all, log.into()).await.healthy().await
    }

    pub(crate) async fn both(&self) -> [Service; 2] {
        [self.start(0, &[]).await, self.start(1, &[]).await]
    }

    /// The lines in the log of a node that contain a text.
    pub(crate) fn logged(&self, index: usize, text: &str) -> usize {
        let log = std::fs::read_to_string(self.folders[index].path().join("log")).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

/// What a client that follows an invocation has got.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The times, names and data of the events.
    events: Vec<(Instant, String, Value)>,
}

impl Followed {
    pub(crate) fn text(&self, stream: &str) -> String {
        self.events.iter().filter(|(_, name, _)| name == stream).map(|(_, _, data)| data.as_str().unwrap()).collect()
    }

    /// The outcome at the end, which comes once and last.
    #[track_caller]
    pub(crate) fn outcome(&self) -> &str {
        let ends: Vec<_> = self.events.iter().filter(|(_, name, _)| name == "ended").collect();
        assert_eq!(ends.len(), 1, "{self:?}");
        assert_eq!(self.events.last().unwrap().1, "ended", "{self:?}");
        ends[0].2["outcome"].as_str().unwrap()
    }

    /// Whether output came long before the end.
    pub(crate) fn is_live(&self) -> bool {
        self.events.last().unwrap().0 - self.events[0].0 > Duration::from_secs(1)
    }
}

/// Follows an invocation to the end of the stream.
pub(crate) async fn follow(service: &Service, id: &str) -> Followed {
    let request = service.client.get(format!("{}/api/invocations/{id}/events", service.url));
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut text, mut events) = (Vec::new(), Vec::new());
    while let Some(piece) = response.chunk().await.unwrap() {
        text.extend_from_slice(&piece);
        while let Some(length) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..length + 2).collect();
            let event = String::from_utf8(event).unwrap();
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(name) = field("event: ") {
                events.push((Instant::now(), name, serde_json::from_str(&field("data: ").unwrap()).unwrap()));
            }
        }
    }
    assert!(text.is_empty(), "{text:?}");
    Followed { events }
}

/// Begins an asynchronous execution, and returns the invocation's id.
pub(crate) async fn defer(service: &Service, id: &str) -> String {
    let accepted = service.defer(id, json!({})).await.assert_status(202);
    accepted.body["invocationId"].as_str().unwrap().to_owned()
}

/// Waits until the invocation runs, by what the other node shows.
pub(crate) async fn runs(service: &Service, id: &str) -> Answer {
    let path = format!("/api/invocations/{id}");
    eventually("the invocation runs", async || {
        let shown = service.get(&path).await.assert_status(200);
        (shown.body["outcome"] == "running").then_some(shown)
    })
    .await
}

/// A program that prints this many lines, one each 200 ms.
pub(crate) fn talks(lines: u32) -> Vec<u8> {
    let each = "    print(f'{n}: ä€😀', flush=True)\n    time.sleep(0.2)\n";
    python(&format!("import sys, time\nprint('err', file=sys.stderr)\nfor n in range({lines}):\n{each}"))
}

pub(crate) fn talk(lines: u32) -> String {
    (0..lines).map(|n| format!("{n}: ä€😀\n")).collect()
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn output_is_live_on_the_other_node_whole_in_order_and_once() {
    const LINES: u32 = 60;
    let pair = Pair::new();
    let [first, second] = pair.both().await;
    let id = first.deploy(talks(LINES)).await;
    let invocation = defer(&first, &id).await;
    // The command line, at the other node.
    let mut logs = command(&second.dir, &[]);
    logs.args(["logs", "--url", &second.url, "--follow", &invocation]);
    let logs = tokio::task::spawn_blocking(move || logs.output());
    let shown = async {
        runs(&second, &invocation).await;
        eventually("the invocation has printed three lines", async || {
            let shown = second.get(&format!("/api/invocations/{invocation}")).await.assert_status(200).body;
            assert_eq!(shown["outcome"], "running", "what is shown is of a running invocation");
            let output = shown["output"].as_str().unwrap().to_owned();
            assert!(talk(LINES).starts_with(&output), "{output}");
            (output.lines().count() >= 3).then_some(())
        })
        .await;
    };
    let (here, there, ()) = tokio::join!(follow(&first, &invocation), follow(&second, &invocation), shown);
    for followed in [here, there] {
        assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(LINES)));
        assert_eq!(followed.text("stderr"), "err\n");
        assert!(followed.is_live(), "the lines came as they were printed: {followed:?}");
    }
    let logs = logs.await.unwrap().unwrap();
    assert_eq!(String::from_utf8(logs.stdout).unwrap(), talk(LINES), "{}", String::from_utf8_lossy(&logs.stderr));
    assert!(logs.status.success());
    let late = follow(&second, &invocation).await;
    assert_eq!((late.outcome(), late.text("stdout")), ("ok", talk(LINES)));
    let done = second.get(&format!("/api/invocations/{invocation}")).await.assert_status(200).body;
    assert_eq!(done["output"], talk(LINES));
    assert_eq!(pair.logged(1, "live output"), 0);
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn fifty_followers_of_a_queued_invocation_cost_little_and_get_its_output_live() {
    const FOLLOWERS: usize = 50;
    let pair = Pair::new();
    let first = pair.start(0, &[("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "5m")]).await;
    let second = pair.start(1, &[]).await;
    let (slow, id) = (first.deploy(python("import time\ntime.sleep(200)\n")).await, first.deploy(talks(60)).await);
    let before = defer(&first, &slow).await;
    runs(&second, &before).await;
    let invocation = defer(&first, &id).await;
    let followers = join_all((0..FOLLOWERS).map(|_| follow(&second, &invocation)));
    let watched = async {
        eventually("all clients follow", async || (second.connections() >= FOLLOWERS).then_some(())).await;
        let asked = async || {
            sql(
                &pair.store,
                "SELECT xact_commit FROM pg_stat_database WHERE datname = \
                                               current_database()",
            )
            .parse::<u64>()
            .unwrap()
        };
        // With each statement goes a question whether its connection may be used again. Looks of each follower alone
        // would be more than 200 a second. Each follower begins with a few questions, which PostgreSQL counts late.
        eventually("one look is for all followers", async || {
            let (began, earlier) = (Instant::now(), asked().await);
            tokio::time::sleep(Duration::from_secs(4)).await;
            let each_second = (asked().await - earlier) as f64 / began.elapsed().as_secs_f64();
            println!("two nodes and {FOLLOWERS} followers made {each_second:.1} transactions a second");
            (each_second < 2.0 * FOLLOWERS as f64).then_some(())
        })
        .await;
        // Also a check that a cancellation works on any node.
        answer(second.client.delete(format!("{}/api/invocations/{before}", second.url))).await.assert_status(200);
    };
    let (all, ()) = tokio::join!(followers, watched);
    for followed in &all {
        assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(60)));
        assert!(followed.is_live(), "{followed:?}");
    }
    eventually("the connections between the nodes end", async || (first.connections() <= 2).then_some(())).await;
    for function in [&slow, &id] {
        first.delete(function).await.assert_status(200);
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_client_that_leaves_ends_the_request_between_the_nodes_and_a_cancellation_ends_the_stream() {
    let pair = Pair::new();
    let (first, second) = (pair.start(0, &[("DOCKER_RUN_TIMEOUT", "5m")]).await, pair.start(1, &[]).await);
    let id = first.deploy(talks(1000)).await;
    let invocation = defer(&first, &id).await;
    runs(&second, &invocation).await;
    eventually("the clients' connections are gone", async || (first.connections() == 0).then_some(())).await;
    let path = format!("{}/api/invocations/{invocation}/events", second.url);
    let mut leaves = second.client.get(&path).send().await.unwrap();
    assert!(leaves.chunk().await.unwrap().is_some());
    assert_eq!(first.connections(), 1);
    drop(leaves);
    eventually("the request between the nodes ends", async || (first.connections() == 0).then_some(())).await;
    let cancelled = async {
        eventually("a client follows", async || (first.connections() == 1).then_some(())).await;
        shows(&second, &invocation, 5).await;
        let request = second.client.delete(format!("{}/api/invocations/{invocation}", second.url));
        answer(request).await.assert_status(200);
        Instant::now()
    };
    let (followed, cancelled) = tokio::join!(follow(&second, &invocation), cancelled);
    // The program itself would go on for minutes.
    assert!(cancelled.elapsed() < Duration::from_secs(20));
    assert_eq!(followed.outcome(), "cancelled");
    assert!(talk(1000).starts_with(&followed.text("stdout")) && followed.text("stdout").lines().count() > 3);
    eventually("the run ends on its node", async || {
        let running = first.get("/api/instances").await.body;
        (!running.to_string().contains("\"busy\":1")).then_some(())
    })
    .await;
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_stream_ends_when_the_running_node_is_killed_or_hangs() {
    for signal in ["KILL", "STOP"] {
        let pair = Pair::new();
        let [first, second] = pair.both().await;
        let id = first.deploy(talks(140)).await;
        let invocation = defer(&first, &id).await;
        runs(&second, &invocation).await;
        let ended = async {
            eventually("a client follows", async || (first.connections() > 0).then_some(())).await;
            shows(&second, &invocation, 6).await;
            first.signal(signal);
            Instant::now()
        };
        let followed = async {
            let followed = follow(&second, &invocation).await;
            (followed, Instant::now())
        };
        let ((followed, end), ended) = tokio::join!(followed, ended);
        assert_eq!(followed.outcome(), "lost", "{signal}");
        assert!(end - ended < Duration::from_secs(25), "{signal}: {:?}", end - ended);
        println!("{signal}: the stream ended {:?} later", end - ended);
        let told = followed.text("stdout");
        assert!(talk(140).starts_with(&told) && told.lines().count() > 5, "{signal}: {told}");
        assert!(pair.logged(1, "live output") <= 2, "{signal}");
        if signal == "STOP" {
            // Not even a client that comes now waits for long.
            let began = Instant::now();
            let shown = second.get(&format!("/api/invocations/{invocation}")).await.assert_status(200).body;
            // A question to the hung node would take 5 s.
            assert!(shown["outcome"] == "lost" && began.elapsed() < Duration::from_secs(4), "{shown}");
            first.signal("CONT");
            eventually("the node is back", async || (first.get("/health").await.status == 200).then_some(())).await;
            second.delete(&id).await.assert_status(200);
            first.stop().await;
        } else {
            first.end().await;
            let first = pair.start(0, &[]).await;
            second.delete(&id).await.assert_status(200);
            first.stop().await;
        }
        second.stop().await;
    }
}

/// Waits until a node shows this many lines of a running invocation.
async fn shows(node: &Service, invocation: &str, lines: usize) {
    eventually("the node shows the output", async || {
        let shown = node.get(&format!("/api/invocations/{invocation}")).await.body;
        (shown["output"].as_str()?.lines().count() >= lines).then_some(())
    })
    .await;
}

/// The answer of the database to a statement.
pub(crate) fn sql(url: &str, statement: &str) -> String {
    let arguments = ["--no-psqlrc", "--tuples-only", "--no-align", "--command", statement, url];
    let output = std::process::Command::new("psql").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
