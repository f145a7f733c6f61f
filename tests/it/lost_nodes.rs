//! What a client gets that sends a request again, with its key, to another node when the node of the request has died.

use std::time::{Duration, Instant};

use reqwest::RequestBuilder;
use serde_json::json;

use crate::held::HeldBuilds;
use crate::nodes::{Nodes, prints};
use crate::support::{Service, answer, eventually, python};

/// The lease of a node, the looks for what dead nodes have left, and a build on a busy machine.
const SOON: Duration = Duration::from_secs(60);

async fn kill(service: Service) {
    service.signal("KILL");
    service.end().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_submit_whose_node_died_is_carried_out_by_the_node_that_gets_it_next() {
    let nodes = Nodes::new(2);
    let held = HeldBuilds::new(nodes.folders[0].path());
    let path = held.path();
    let (first, second) = (nodes.start_with(0, &[("PATH", &path)]).await, nodes.start(1).await);
    let submit = |service: &Service| HeldBuilds::submission(service, &prints("one")).header("idempotency-key", "k");
    let begun = tokio::spawn(submit(&first).send());
    held.begun().await;
    kill(first).await;
    held.release();
    assert!(begun.await.unwrap().is_err(), "the node has died before its answer");
    let began = Instant::now();
    let again = answer(submit(&second)).await.assert_status(200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let listed = second.get("/api/functions").await.body;
    assert_eq!(listed.as_array().unwrap().len(), 1, "the request was carried out once");
    let first = nodes.start(0).await;
    first.delete(again.body["functionId"].as_str().unwrap()).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn an_execution_whose_node_died_runs_once_or_is_lost() {
    const LIMIT: usize = 4;
    const LIMITS: [(&str, &str); 2] = [("DOCKER_RUN_TIMEOUT", "5m"), ("QUEUE_TIMEOUT", "5m")];
    let nodes = Nodes::new(2);
    let (first, second) = (nodes.start_with(0, &LIMITS).await, nodes.start_with(1, &LIMITS).await);
    let sleeps = "import os, time\ntime.sleep(float(os.environ['SECONDS']))\nprint('ran')\n";
    let id = first.deploy(python(sleeps)).await;
    let execute = |service: &Service, key: &str, seconds: u32| -> RequestBuilder {
        let body = json!({"functionId": id, "input": {"seconds": seconds}});
        service.client.post(format!("{}/api/execute", service.url)).json(&body).header("idempotency-key", key)
    };
    let count = async |outcome: &str| {
        let path = format!("/api/functions/{id}/invocations?outcome={outcome}");
        second.get(&path).await.body["invocations"].as_array().unwrap().len()
    };
    // As many as run at a time, and the last waits for an instance.
    let keys: Vec<String> = (0..=LIMIT).map(|number| format!("k{number}")).collect();
    let mut begun = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        begun.push(tokio::spawn(execute(&first, key, if number < LIMIT { 60 } else { 1 }).send()));
        let (outcome, many) = if number < LIMIT { ("running", number + 1) } else { ("queued", 1) };
        eventually("the execution is on disk", async || (count(outcome).await == many).then_some(())).await;
    }
    kill(first).await;
    for one in begun {
        assert!(one.await.unwrap().is_err(), "the node has died before its answer");
    }
    let began = Instant::now();
    let again =
        keys.iter().enumerate().map(|(number, key)| answer(execute(&second, key, if number < LIMIT { 60 } else { 1 })));
    let mut again = futures_util::future::join_all(again).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let waited = again.pop().unwrap().assert_outcome(200, "ok");
    assert_eq!(waited.output(), "ran\n");
    for ran in again {
        ran.assert_outcome(500, "lost");
    }
    assert_eq!((count("ok").await, count("lost").await), (1, LIMIT), "no execution has run twice");
    let first = nodes.start(0).await;
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}
