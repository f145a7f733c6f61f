//! Many functions and a long queue: what each node keeps in memory for these, and how lists answer meanwhile.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Target};
use crate::zips::python;

const FUNCTIONS: usize = 3000;
const QUEUED: usize = 100_000;
/// The functions that have the queued executions; the test deletes these.
const BUSY: usize = 100;
const NODES: usize = 3;
const CLIENTS_OF_A_NODE: usize = 16;
/// Containers of a node. As many executions sleep on each node, so that all others wait.
const CONTAINERS: usize = 2;
/// The largest resident memory of a node's service, in MB.
const MEMORY: f64 = 60.0;
/// The longest time for a list of all functions, and for the first page of a function's history.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest time for all that is counted on each node to get to an expected number.
const SETTLE: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn nodes_hold_many_functions_and_a_long_queue_in_little_memory() {
    let _alone = crate::alone().await;
    let cluster = Cluster::of_environment();
    let before = cluster.environment();
    let settings = format!("ASYNC_QUEUE_LIMIT={QUEUED}\nDOCKER_CONTAINER_LIMIT={CONTAINERS}\nDOCKER_RUN_TIMEOUT=15m\n");
    cluster.set_environment(&format!("{before}{settings}"));
    let sleeper = submit(&cluster, "sleeper", "import time; time.sleep(900)").await;
    let hello = submit(&cluster, "hello", "print('hello')").await;
    let began = Instant::now();
    fill(&hello, FUNCTIONS - 2);
    eprintln!("{FUNCTIONS} functions are in the store after {:.1?}", began.elapsed());
    restart(&cluster).await;
    let functions = listed(&cluster, FUNCTIONS).await;
    told_memory(&cluster, "with the functions").await;
    let other = functions.iter().find(|id| **id != sleeper && **id != hello).unwrap();
    let executed = cluster.get(Target::Node(2), &format!("/api/execute?functionId={other}")).await;
    assert_eq!(executed.text("output"), "hello\n", "{:?} {}", executed.status, executed.body);

    occupy(&cluster, &sleeper).await;
    let busy: Vec<String> = functions.into_iter().filter(|id| *id != sleeper).take(BUSY).collect();
    let began = Instant::now();
    accept(&cluster, &busy).await;
    let (seconds, rate) = (began.elapsed().as_secs_f64(), QUEUED as f64 / began.elapsed().as_secs_f64());
    eprintln!("{QUEUED} executions are accepted after {seconds:.0} s: {rate:.0}/s on {NODES} nodes");
    until_waiting(&cluster, QUEUED..=QUEUED).await;
    // The nodes look for work of others and of their own, and renew their leases.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let memory = told_memory(&cluster, "with the functions and the queue").await;
    listed(&cluster, FUNCTIONS).await;
    first_page(&cluster, &busy[0]).await;

    // A node that starts with all this goes on with what the node had accepted. Its sleepers are lost, so some begin.
    cluster.act(&["kill", "2", "service"]).await;
    cluster.act(&["restart", "2"]).await;
    cluster.until_well().await;
    until_waiting(&cluster, QUEUED - QUEUED / 50..=QUEUED).await;
    told_memory(&cluster, "after a crash of node 2").await;

    let began = Instant::now();
    delete(&cluster, &busy).await;
    until_waiting(&cluster, 0..=0).await;
    eprintln!("{BUSY} functions with their queue are gone after {:.1?}", began.elapsed());
    listed(&cluster, FUNCTIONS - BUSY).await;
    delete(&cluster, &[sleeper]).await;
    cluster.set_environment(&before);
    restart(&cluster).await;
    assert!(memory.iter().all(|&mb| mb < MEMORY), "a node has more than {MEMORY} MB: {memory:.1?}");
}

async fn submit(cluster: &Cluster, name: &str, program: &str) -> String {
    let form = Form::new().part("code", Part::bytes(python(program)).file_name(format!("{name}.zip")));
    let request = cluster.request(Target::Node(1), Method::POST, "/api/submit").multipart(form);
    let submitted = cluster.send(Target::Node(1), request).await;
    assert!(submitted.is(200), "{:?} {}", submitted.status, submitted.body);
    submitted.text("functionId").to_owned()
}

/// Copies a function straight in the database, without its image: each copy's image is built at the first execution.
fn fill(function: &str, count: usize) {
    let mut copies = String::from("BEGIN; CREATE TEMPORARY TABLE copies AS SELECT gen_random_uuid()::text AS copy, n ");
    write!(copies, "FROM generate_series(1, {count}) AS n; UPDATE changes SET value = value + 1; ").unwrap();
    // Columns that a copy has from the original, and columns with their own values.
    let tables = [
        (
            "functions",
            "created_at, version, generation, last_version, preload, preloaded",
            [("id", "copy"), ("name", "'copy ' || n"), ("changed", "(SELECT value FROM changes)")].as_slice(),
        ),
        (
            "versions",
            "number, language, entry, created_at, zip_size, zip_sha256, unpacked_size, image_id, image_size",
            &[("function_id", "copy"), ("state", "'rebuild'")],
        ),
        ("zips", "version, zip", &[("function_id", "copy")]),
        ("version_logs", "version, log", &[("function_id", "copy")]),
    ];
    for (table, same, own) in tables {
        let (id, _) = own[0];
        let (columns, values): (Vec<&str>, Vec<&str>) = own.iter().copied().unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        write!(
            copies,
            "INSERT INTO {table} ({same}, {columns}) SELECT {same}, {values} FROM {table}, copies \
             WHERE {id} = '{function}'; "
        )
        .unwrap();
    }
    copies += "COMMIT";
    let url = std::env::var("DATABASE_URL").unwrap();
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command", &copies, &url]).stdin(Stdio::null());
    assert!(psql.status().unwrap().success());
}

/// Restarts the services, which take over their environment.
async fn restart(cluster: &Cluster) {
    for node in 1..=NODES {
        cluster.act(&["terminate", &node.to_string()]).await;
        cluster.act(&["restart", &node.to_string()]).await;
    }
    cluster.until_well().await;
}

/// The ids of the functions, which each node lists in time.
async fn listed(cluster: &Cluster, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for target in cluster.node_targets() {
        let reply = cluster.get(target, "/api/functions").await;
        let took = reply.ended - reply.began;
        let functions = reply.body.as_array().unwrap();
        eprintln!("{target:?} lists {} functions in {took:.0?}", functions.len());
        assert_eq!(functions.len(), count);
        assert!(took < PATIENCE);
        ids = functions.iter().map(|function| function["functionId"].as_str().unwrap().to_owned()).collect();
    }
    ids
}

async fn first_page(cluster: &Cluster, function: &str) {
    for target in cluster.node_targets() {
        let reply = cluster.get(target, &format!("/api/functions/{function}/invocations?limit=100")).await;
        let took = reply.ended - reply.began;
        eprintln!("{target:?} has the first page of a history in {took:.0?}");
        assert_eq!(reply.body["invocations"].as_array().unwrap().len(), 100);
        assert!(took < PATIENCE);
    }
}

/// Has all containers of all nodes in use.
async fn occupy(cluster: &Cluster, sleeper: &str) {
    for target in cluster.node_targets() {
        for _ in 0..CONTAINERS {
            let request = cluster.request(target, Method::POST, "/api/execute").header("prefer", "respond-async");
            let reply = cluster.send(target, request.json(&json!({"functionId": sleeper}))).await;
            assert!(reply.is(202), "{:?} {}", reply.status, reply.body);
        }
    }
    let path = format!("/api/functions/{sleeper}/invocations?outcome=running");
    let deadline = Instant::now() + SETTLE;
    loop {
        let reply = cluster.get(Target::Node(1), &path).await;
        let running = reply.body["invocations"].as_array().map_or(0, Vec::len);
        if running == NODES * CONTAINERS {
            return;
        }
        assert!(Instant::now() < deadline, "{running} executions sleep");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Has all nodes accept executions, by clients that keep their connections.
async fn accept(cluster: &Cluster, functions: &[String]) {
    let next = AtomicUsize::new(0);
    let client = async |number: usize| {
        let (client, url) = (Client::new(), format!("{}/api/execute", cluster.url(Target::Node(1 + number % NODES))));
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= QUEUED {
                return;
            }
            let input = json!({"name": format!("client {number}"), "text": "a text of an ordinary length"});
            let body = json!({"functionId": functions[number % functions.len()], "input": input});
            let request = client.post(&url).header("prefer", "respond-async").json(&body);
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body = response.text().await.unwrap();
            assert_eq!(status, 202, "{body}");
        }
    };
    futures_util::future::join_all((0..NODES * CLIENTS_OF_A_NODE).map(client)).await;
}

async fn delete(cluster: &Cluster, functions: &[String]) {
    for some in functions.chunks(8) {
        let deletions = some.iter().map(async |id| {
            let request = cluster.request(Target::Haproxy, Method::DELETE, &format!("/api/functions/{id}"));
            let reply = cluster.send(Target::Haproxy, request).await;
            assert!(reply.is(200), "{:?} {}", reply.status, reply.body);
        });
        futures_util::future::join_all(deletions).await;
    }
}

/// Waits until so many executions wait on all nodes together.
async fn until_waiting(cluster: &Cluster, count: RangeInclusive<usize>) {
    const GAUGE: &str = "youtube_serverless_queue_depth{queue=\"asynchronous\"} ";
    let deadline = Instant::now() + SETTLE;
    loop {
        let mut waiting = 0;
        for target in cluster.node_targets() {
            let reply = cluster.get(target, "/metrics").await;
            let Value::String(text) = &reply.body else { panic!("{:?} {}", reply.status, reply.body) };
            let value = text.lines().find_map(|line| line.strip_prefix(GAUGE)).expect("a gauge");
            waiting += value.parse::<usize>().unwrap();
        }
        if count.contains(&waiting) {
            return;
        }
        assert!(Instant::now() < deadline, "{waiting} executions wait in place of {count:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The resident memory of each node's service in MB, after a look at each.
async fn told_memory(cluster: &Cluster, when: &str) -> Vec<f64> {
    let mut all = Vec::new();
    for node in 1..=NODES {
        let status = cluster.service_status(node);
        let mb = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1e3
        };
        eprintln!(
            "node {node} {when}: {:.1} MB, of these {:.1} MB are no file's; the most was {:.1} MB",
            mb("VmRSS:"),
            mb("RssAnon:"),
            mb("VmHWM:")
        );
        all.push(mb("VmRSS:"));
    }
    all
}
