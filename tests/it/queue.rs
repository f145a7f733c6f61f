//! Turns: functions take turns, executions with a waiting client come first, and no execution is given up for the
//! platform's fault.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Deployed, Service, TestApp, answer, docker, eventually, labelled, python};

const SLEEPER: &str = "import os, time\ntime.sleep(float(os.environ['SECONDS']))\nprint('slept')\n";

fn execution(app: &TestApp, function: &Deployed, input: Value) -> RequestBuilder {
    app.request(Method::POST, "/api/execute").json(&json!({"functionId": function.id, "input": input}))
}

async fn defer(app: &TestApp, function: &Deployed, input: Value) -> String {
    let accepted = answer(execution(app, function, input).header("prefer", "respond-async")).await.assert_status(202);
    accepted.body["invocationId"].as_str().unwrap().to_owned()
}

async fn keyed(app: &TestApp, function: &Deployed, key: &str) -> Answer {
    answer(execution(app, function, json!({"seconds": 0})).header("idempotency-key", key)).await
}

async fn with_outcome(app: &TestApp, function: &Deployed, outcome: &str) -> usize {
    let path = format!("/api/functions/{}/invocations?limit=500&outcome={outcome}", function.id);
    app.get(&path).await.assert_status(200).body["invocations"].as_array().unwrap().len()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn long_runs_of_one_function_keep_no_other_from_its_turn() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "4"), ("DOCKER_RUN_TIMEOUT", "60s"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        let (long, other) = (app.deploy(python(SLEEPER)).await, app.deploy(python(SLEEPER)).await);
        for _ in 0..44 {
            defer(app, &long, json!({"seconds": 6})).await;
        }
        eventually("all containers are taken", async || (with_outcome(app, &long, "running").await == 4).then_some(()))
            .await;
        let async_one = async {
            let id = defer(app, &other, json!({"seconds": 0})).await;
            let path = format!("/api/invocations/{id}");
            eventually("the other function has its turn", async || {
                (app.get(&path).await.body["outcome"] == "ok").then_some(())
            })
            .await;
        };
        let plain = app.execute_with(&other, json!({"seconds": 0}));
        let ((), with_key, plain) = tokio::join!(async_one, keyed(app, &other, "one"), plain);
        with_key.assert_outcome(200, "ok");
        plain.assert_outcome(200, "ok");
        let queued = with_outcome(app, &long, "queued").await;
        assert!(queued >= 44 - 5 * 4, "{queued}: they came before the backlog");
        // The long executions go on in their containers.
        assert!(with_outcome(app, &long, "running").await >= 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_execution_with_a_key_waits_as_long_as_any_and_is_taken_back_then() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "2m"), ("QUEUE_TIMEOUT", "5s")];
    TestApp::run(&settings, async |app| {
        let (long, other) = (app.deploy(python(SLEEPER)).await, app.deploy(python(SLEEPER)).await);
        let running = defer(app, &long, json!({"seconds": 60})).await;
        eventually("the long execution runs", async || (with_outcome(app, &long, "running").await == 1).then_some(()))
            .await;
        let since = Instant::now();
        let refused = keyed(app, &other, "one").await;
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        assert!(refused.headers.contains_key("retry-after"));
        refused.assert_problem(429, "overloaded", "QUEUE_TIMEOUT");
        let path = format!("/api/functions/{}/invocations", other.id);
        assert_eq!(app.get(&path).await.body, json!({"invocations": []}), "the execution is taken back");

        // A promised execution is not taken back, even when a client with a short patience waits for the execution.
        let promised = execution(app, &other, json!({"seconds": 0})).header("idempotency-key", "two");
        let promised = answer(promised.header("prefer", "respond-async")).await.assert_status(202).body;
        keyed(app, &other, "two").await.assert_problem(429, "overloaded", "QUEUE_TIMEOUT");
        // Nor is an execution whose client leaves before the refusal.
        let leaving = execution(app, &other, json!({"seconds": 0})).header("idempotency-key", "three");
        let leaving = tokio::spawn(leaving.send());
        eventually("both executions wait", async || (with_outcome(app, &other, "queued").await == 2).then_some(()))
            .await;
        leaving.abort();
        assert_eq!(with_outcome(app, &long, "running").await, 1);
        answer(app.request(Method::DELETE, &format!("/api/invocations/{running}"))).await.assert_status(200);

        eventually("both executions have run", async || (with_outcome(app, &other, "ok").await == 2).then_some(()))
            .await;
        assert_eq!(
            keyed(app, &other, "two").await.assert_outcome(200, "ok").body["invocationId"],
            promised["invocationId"]
        );
        keyed(app, &other, "three").await.assert_outcome(200, "ok");
        // The key of the execution that was taken back is free.
        let first = keyed(app, &other, "one").await.assert_outcome(200, "ok").body;
        assert_eq!(keyed(app, &other, "one").await.body, first);
        assert_eq!(with_outcome(app, &other, "ok").await, 3, "each execution ran once");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_may_be_a_functions_fault_is_given_up_after_some_tries_also_across_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let function = service.deploy(python("print('ran')")).await;
    service.stop().await;
    for image in labelled(dir.path(), &["images"]) {
        docker(&["image", "rm", "--force", &image]);
    }
    // No build of the function ends in time any more.
    let settings = [("DOCKER_BUILD_TIMEOUT", "1ms")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let accepted = service.defer(&function, json!({})).await.assert_status(202);
    let id = accepted.body["invocationId"].as_str().unwrap();
    eventually("the execution is tried twice", async || (late_builds(&service).await >= 2).then_some(())).await;
    service.signal("KILL");
    service.end().await;
    let open = crate::stored::open_invocations(dir.path()).await;
    assert_eq!(open.len(), 1);
    assert!((1..=2).contains(&open[0].tries) && open[0].retry_at.is_some(), "{open:?}");

    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let ended = service.ended(id).await;
    assert_eq!(ended["outcome"], "lost");
    assert!(ended["error"].as_str().unwrap().contains("DOCKER_BUILD_TIMEOUT"), "{ended:#}");
    assert_eq!(late_builds(&service).await + open[0].tries, 6, "the count of tries goes on");
    service.delete_all(dir.path()).await;
}

/// The number of builds that have not ended in time.
async fn late_builds(service: &Service) -> u32 {
    let metrics = service.text("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("youtube_serverless_builds_total{result=\"timeout\"}"));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}
