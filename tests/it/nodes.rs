//! Nodes: several services that share a PostgreSQL. The engine is one for all, so an image of one node is there for the
//! others, too; the tests of the cluster have an engine for each node.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{Answer, Service, answer, eventually, postgres, python};

/// Nodes with folders of their own and one database.
pub(crate) struct Nodes {
    pub(crate) url: String,
    pub(crate) folders: Vec<tempfile::TempDir>,
}

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        let url = postgres::database(&format!("nodes-{}", uuid::Uuid::new_v4()));
        Self { url, folders: (0..count).map(|_| tempfile::tempdir().unwrap()).collect() }
    }

    pub(crate) async fn start(&self, index: usize) -> Service {
        self.start_with(index, &[]).await
    }

    /// Starts a node with further settings.
    pub(crate) async fn start_with(&self, index: usize, more: &[(&str, &str)]) -> Service {
        let key = "1a".repeat(32);
        let settings =
            [("STORE_URL", self.url.as_str()), ("SECRETS_KEY", key.as_str()), ("DOCKER_CONTAINER_LIMIT", "4")];
        Service::start(self.folders[index].path(), &[&settings, more].concat()).await.healthy().await
    }
}

async fn update(service: &Service, id: &str, program: &str) -> Answer {
    let form = Form::new().part("code", Part::bytes(python(program)).file_name("function.zip"));
    answer(service.client.put(format!("{}/api/functions/{id}", service.url)).multipart(form)).await
}

async fn defer(service: &Service, id: &str, key: Option<&str>) -> Answer {
    let request = service.client.request(Method::POST, format!("{}/api/execute", service.url));
    let request = request.header("prefer", "respond-async").json(&json!({"functionId": id}));
    answer(key.into_iter().fold(request, |request, key| request.header("idempotency-key", key))).await
}

pub(crate) fn prints(text: &str) -> String {
    format!("print('{text}')\n")
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn what_one_node_answers_holds_on_each_node() {
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start(0).await, nodes.start(1).await);
    let id = first.deploy(python(&prints("one"))).await;
    // At once, without a wait.
    assert_eq!(second.execute(&id).await.assert_outcome(200, "ok").output(), "one\n");
    for number in 0..6 {
        let (here, there) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let text = format!("version {number}");
        update(here, &id, &prints(&text)).await.assert_status(200);
        assert_eq!(there.execute(&id).await.assert_outcome(200, "ok").output(), format!("{text}\n"));
    }
    let named =
        answer(first.client.post(format!("{}/api/functions/function/invoke", first.url)).json(&json!({}))).await;
    named.assert_outcome(200, "ok");
    let listed = second.get("/api/nodes").await.assert_status(200).body;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|node| node["ready"] == true), "{listed:?}");
    eventually("each node knows of the executions", async || {
        let seen = first.get(&format!("/api/functions/{id}")).await.body["lastExecuted"].as_u64();
        (seen == second.get(&format!("/api/functions/{id}")).await.body["lastExecuted"].as_u64()).then_some(())
    })
    .await;
    second.delete(&id).await.assert_status(200);
    first.execute(&id).await.assert_problem(404, "function_not_found", "no function");
    let listed = first.get("/api/functions").await.body;
    assert_eq!(listed, json!([]));
    first.stop().await;
    let listed = second.get("/api/nodes").await.body;
    assert_eq!(listed.as_array().unwrap().len(), 1, "a node that ends leaves: {listed}");
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn updates_on_two_nodes_at_one_time_leave_one_of_the_two_everywhere() {
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start(0).await, nodes.start(1).await);
    let id = first.deploy(python(&prints("one"))).await;
    for _ in 0..3 {
        let (one, other) = (prints("a"), prints("b"));
        let (one, other) = tokio::join!(update(&first, &id, &one), update(&second, &id, &other));
        let numbers = [one, other].map(|answer| answer.assert_status(200).body["version"].as_u64().unwrap());
        assert_ne!(numbers[0], numbers[1], "each version has its own number");
        let here = first.execute(&id).await.assert_outcome(200, "ok").output().to_owned();
        assert_eq!(second.execute(&id).await.assert_outcome(200, "ok").output(), here);
    }
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_request_with_a_key_is_carried_out_once_whichever_nodes_it_is_sent_to() {
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start(0).await, nodes.start(1).await);
    let submit = |service: &Service| service.submission(python(&prints("one"))).header("idempotency-key", "k");
    let (one, other) = tokio::join!(answer(submit(&first)), answer(submit(&second)));
    let done: Vec<&Answer> = [&one, &other].into_iter().filter(|answer| answer.status == 200).collect();
    assert!(!done.is_empty(), "{one:?} {other:?}");
    let id = done[0].body["functionId"].as_str().unwrap().to_owned();
    for service in [&first, &second] {
        let again = answer(submit(service)).await.assert_status(200);
        assert_eq!(again.body["functionId"], json!(id));
    }
    let accepted = defer(&first, &id, Some("run")).await.assert_status(202).body["invocationId"].clone();
    assert_eq!(defer(&second, &id, Some("run")).await.assert_status(202).body["invocationId"], accepted);
    let request = second.client.post(format!("{}/api/execute", second.url)).json(&json!({"functionId": id}));
    let waited = answer(request.header("idempotency-key", "run")).await.assert_outcome(200, "ok");
    assert_eq!(waited.body["invocationId"], accepted, "a client may wait on another node");
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn what_a_dead_node_has_accepted_runs_elsewhere_once() {
    const COUNT: usize = 40;
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start(0).await, nodes.start(1).await);
    let id = first.deploy(python("import time\ntime.sleep(0.2)\nprint('ran')\n")).await;
    let mut accepted = Vec::new();
    for _ in 0..COUNT {
        let answer = defer(&first, &id, None).await.assert_status(202);
        accepted.push(answer.body["invocationId"].as_str().unwrap().to_owned());
    }
    first.signal("KILL");
    first.end().await;
    let mut ended = Vec::new();
    for invocation in &accepted {
        let record = eventually("the invocation ends", async || {
            let record = second.get(&format!("/api/invocations/{invocation}")).await.assert_status(200).body;
            (!matches!(record["outcome"].as_str().unwrap(), "queued" | "running")).then_some(record)
        })
        .await;
        ended.push(record["outcome"].as_str().unwrap().to_owned());
    }
    assert!(ended.iter().all(|outcome| outcome == "ok" || outcome == "lost"), "{ended:?}");
    let lost = ended.iter().filter(|outcome| *outcome == "lost").count();
    assert!(lost <= 4, "no more than ran: {ended:?}");
    // The node starts again, removes its containers, and finds nothing to do.
    let first = nodes.start(0).await;
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn an_invocation_is_followed_and_cancelled_on_any_node() {
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start_with(0, &[("DOCKER_RUN_TIMEOUT", "5m")]).await, nodes.start(1).await);
    let id = first.deploy(python("import time\nprint('begun')\ntime.sleep(200)\nprint('ended')\n")).await;
    let invocation = defer(&first, &id, None).await.assert_status(202).body["invocationId"].clone();
    let path = format!("/api/invocations/{}", invocation.as_str().unwrap());
    eventually("the invocation runs", async || {
        (second.get(&path).await.assert_status(200).body["outcome"] == "running").then_some(())
    })
    .await;
    let follower = second.client.get(format!("{}{path}/events", second.url)).send().await.unwrap();
    let began = Instant::now();
    answer(second.client.delete(format!("{}{path}", second.url))).await.assert_status(200);
    let events = follower.text().await.unwrap();
    assert!(events.contains("event: ended") && events.contains("cancelled"), "{events}");
    eventually("the run ends on its node", async || {
        let running = first.get("/api/instances").await.body;
        (!running.to_string().contains("\"busy\":1")).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "the run was ended, and did not end by itself");
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_node_that_hangs_holds_up_an_update_for_its_lease_and_then_runs_no_old_code() {
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start(0).await, nodes.start(1).await);
    let id = first.deploy(python(&prints("old"))).await;
    second.execute(&id).await.assert_outcome(200, "ok");
    second.signal("STOP");
    let began = Instant::now();
    update(&first, &id, &prints("new")).await.assert_status(200);
    let waited = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(60)).contains(&waited), "{waited:?}");
    let made = first.deploy(python(&prints("made meanwhile"))).await;
    // The requests are on their way when the node goes on.
    let accepting = second.client.post(format!("{}/api/execute", second.url)).header("prefer", "respond-async");
    let accepting = tokio::spawn(accepting.json(&json!({"functionId": made})).send());
    let reading = tokio::spawn(second.client.get(format!("{}/api/functions/{made}", second.url)).send());
    let late = tokio::spawn(second.client.get(format!("{}/api/execute?functionId={id}", second.url)).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    second.signal("CONT");
    let late = crate::support::read(late.await.unwrap().unwrap()).await;
    assert!(late.status == 503 || late.output() == "new\n", "{late:?}");
    // The node must not say that there is no such function.
    let (accepting, reading) = tokio::join!(accepting, reading);
    for (late, good) in [(accepting, 202), (reading, 200)] {
        let late = crate::support::read(late.unwrap().unwrap()).await;
        assert!(late.status == 503 || late.status == good, "{late:?}");
    }
    eventually("the node executes again", async || (second.execute(&id).await.status == 200).then_some(())).await;
    assert_eq!(second.execute(&id).await.assert_outcome(200, "ok").output(), "new\n");
    first.delete(&id).await.assert_status(200);
    first.delete(&made).await.assert_status(200);
    first.stop().await;
    second.abandon().await;
}
