//! The history of executions, asynchronous executions, and requests that are sent twice.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use youtube_serverless::domain::{Outcome, Page};

use crate::support::{Answer, Deployed, Service, TestApp, answer, eventually, python};

const NO_ID: &str = "123e4567-e89b-42d3-a456-426614174000";

/// Sends an asynchronous execution.
async fn defer(app: &TestApp, function: &Deployed, input: Value) -> Answer {
    let body = json!({"functionId": function.id, "input": input}).to_string();
    let request = app.request(Method::POST, "/api/execute").header("content-type", "application/json");
    answer(request.header("prefer", "respond-async").body(body)).await
}

/// An invocation, once the invocation has ended.
async fn ended(app: &TestApp, id: &str) -> Value {
    let path = format!("/api/invocations/{id}");
    eventually("the invocation has ended", async || {
        let shown = app.get(&path).await.assert_status(200).body;
        (!["queued", "running"].contains(&shown["outcome"].as_str().unwrap())).then_some(shown)
    })
    .await
}

/// The events of an invocation, from now to its end: names and data.
async fn followed(app: &TestApp, id: &str) -> Vec<(String, Value)> {
    let response = app.request(Method::GET, &format!("/api/invocations/{id}/events")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
        (200, &b"text/event-stream"[..])
    );
    let text = response.text().await.unwrap();
    let events = text.split_terminator("\n\n").filter(|event| !event.starts_with(':')).map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), data)
    });
    events.collect()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_invocation_is_followed_as_it_goes() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let program = "import sys, time\nprint('first é', flush=True)\ntime.sleep(4)\nprint('second', file=sys.stderr, flush=True)\ntime.sleep(0.2)\nprint('third', end='')\n";
        let function = app.deploy(python(program)).await;
        let text = |events: &[(String, Value)], stream: &str| {
            let of_stream = events.iter().filter(|(name, _)| name == stream);
            of_stream.map(|(_, data)| data.as_str().unwrap()).collect::<String>()
        };
        let check = |events: &[(String, Value)], id: &str| {
            assert_eq!((text(events, "stdout").as_str(), text(events, "stderr").as_str()), ("first é\nthird", "second\n"));
            let (name, ended) = events.last().unwrap();
            assert_eq!((name.as_str(), &ended["outcome"], &ended["invocationId"]), ("ended", &json!("ok"), &json!(id)));
        };
        let first = defer(app, &function, json!({})).await.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
        let second = defer(app, &function, json!({})).await.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
        // The second invocation waits for its turn meanwhile.
        let (events, of_second) = tokio::join!(followed(app, &first), followed(app, &second));
        check(&events, &first);
        check(&of_second, &second);
        // The events came as the function wrote its output, not all at the end.
        assert!(events.len() >= 4, "{events:?}");
        // An ended invocation has the same events.
        check(&followed(app, &first).await, &first);
        let path = |id: &str| format!("/api/invocations/{id}/events");
        app.get(&path(NO_ID)).await.assert_problem(404, "invocation_not_found", NO_ID);

        // A synchronous invocation has events by the id in its environment.
        let telling = "import os, time\nprint(os.environ['INVOCATION_ID'], flush=True)\ntime.sleep(1)\n";
        let function = app.deploy(python(telling)).await;
        let executed = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(followed(app, executed.output().trim()).await.last().unwrap().1["outcome"], "ok");
        // A cancelled invocation ends its stream.
        let slow = app.deploy(python("import time\nprint('on', flush=True)\ntime.sleep(20)\n")).await;
        let id = defer(app, &slow, json!({})).await.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
        let cancel = async {
            let path = format!("/api/invocations/{id}");
            eventually("the line is written", async || (app.get(&path).await.body["output"] == "on\n").then_some(())).await;
            answer(app.request(Method::DELETE, &format!("/api/invocations/{id}"))).await.assert_status(200);
        };
        let (events, ()) = tokio::join!(followed(app, &id), cancel);
        assert_eq!((text(&events, "stdout").as_str(), &events.last().unwrap().1["outcome"]), ("on\n", &json!("cancelled")));
        assert_eq!(app.get(&format!("/api/invocations/{id}")).await.body["output"], "on\n", "the output until then is kept");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn every_execution_is_in_the_history() {
    TestApp::run(&[("INVOCATION_OUTPUT_SIZE", "10")], async |app| {
        let program =
            "import os, sys\nprint('o' * 20)\nprint('err', file=sys.stderr)\nsys.exit(int(os.environ.get('CODE', 0)))\n";
        let function = app.deploy(python(program)).await;
        let path = format!("/api/functions/{}/invocations", function.id);
        assert_eq!(app.get(&path).await.assert_status(200).body, json!({"invocations": []}));
        let ok = app.execute(&function).await.assert_outcome(200, "ok").body;
        let failed = app.execute_with(&function, json!({"code": 3})).await.assert_outcome(500, "exit").body;

        // The record is there at once, with all fields of the answer.
        let shown =
            app.get(&format!("/api/invocations/{}", failed["invocationId"].as_str().unwrap())).await.assert_status(200).body;
        for field in
            ["invocationId", "outcome", "statusCode", "exitCode", "error", "start", "durationMs", "cpuMs", "peakMemoryBytes"]
        {
            assert_eq!(shown[field], failed[field], "{field}: {shown:#}");
        }
        assert_eq!((&shown["functionId"], &shown["input"]), (&json!(function.id), &json!({"code": 3})));
        // The output is cut at the kept length.
        assert_eq!((shown["output"].as_str(), shown["stderr"].as_str()), (Some("oooooooooo"), Some("err\n")));
        let large = app.execute_with(&function, json!({"text": "longer than ten"})).await.assert_outcome(200, "ok").body;
        let shown = app.get(&format!("/api/invocations/{}", large["invocationId"].as_str().unwrap())).await.body;
        assert!(shown["input"].is_null(), "{shown:#}");

        let listed = app.get(&path).await.assert_status(200).body;
        let ids: Vec<&Value> = listed["invocations"].as_array().unwrap().iter().map(|one| &one["invocationId"]).collect();
        assert_eq!(ids, [&large["invocationId"], &failed["invocationId"], &ok["invocationId"]]);
        assert!(listed["invocations"][0].get("output").is_none() && listed.get("nextCursor").is_none());
        let first = app.get(&format!("{path}?limit=2")).await.assert_status(200).body;
        assert_eq!(first["invocations"].as_array().unwrap().len(), 2);
        let rest = app.get(&format!("{path}?limit=2&cursor={}", first["nextCursor"].as_str().unwrap())).await.body;
        assert_eq!(rest["invocations"][0]["invocationId"], ok["invocationId"]);
        assert!(rest.get("nextCursor").is_none(), "{rest:#}");
        let exits = app.get(&format!("{path}?outcome=exit")).await.body;
        assert_eq!(exits["invocations"].as_array().unwrap().len(), 1);

        for bad in ["limit=0", "limit=501", "limit=x", "cursor=x", "outcome=odd"] {
            app.get(&format!("{path}?{bad}")).await.assert_problem(400, "invalid_request", bad.split('=').next().unwrap());
        }
        app.get(&format!("/api/functions/{NO_ID}/invocations")).await.assert_problem(404, "function_not_found", NO_ID);
        app.get(&format!("/api/invocations/{NO_ID}")).await.assert_problem(404, "invocation_not_found", NO_ID);
        app.get("/api/invocations/x").await.assert_problem(400, "invalid_invocation_id", "`x`");
        // The deletion of a function deletes its history.
        app.delete(&function.id).await.assert_status(200);
        let gone = format!("/api/invocations/{}", ok["invocationId"].as_str().unwrap());
        app.get(&gone).await.assert_problem(404, "invocation_not_found", "");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_execution_whose_client_left_is_in_the_history_too() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("import time\ntime.sleep(60)")).await;
        let left = tokio::time::timeout(Duration::from_secs(3), app.execute(&function)).await;
        assert!(left.is_err());
        let path = format!("/api/functions/{}/invocations", function.id);
        let cancelled =
            eventually("the record is there", async || app.get(&path).await.body["invocations"].get(0).cloned()).await;
        assert_eq!(cancelled["outcome"], "cancelled");
        assert!(cancelled["executedAt"].is_u64() && cancelled.get("statusCode").is_none(), "{cancelled:#}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_execution_that_nobody_waits_for_is_accepted_run_and_shown() {
    TestApp::run(&[("INVOCATION_OUTPUT_SIZE", "10")], async |app| {
        let function = app.deploy(python("import os\nprint('Hello,', os.environ['NAME'], 'x' * 100)\n")).await;
        let accepted = defer(app, &function, json!({"name": "John"})).await.assert_status(202);
        let id = accepted.body["invocationId"].as_str().unwrap().to_owned();
        assert_eq!(accepted.headers["location"], format!("/api/invocations/{id}"));
        assert_eq!(accepted.headers["preference-applied"], "respond-async");
        assert_eq!(accepted.body["outcome"], "queued");
        let shown = ended(app, &id).await;
        assert_eq!((shown["outcome"].as_str(), shown["statusCode"].as_u64()), (Some("ok"), Some(200)));
        // No answer has the output of an asynchronous invocation, so the history keeps all of the output.
        assert_eq!(shown["output"], format!("Hello, John {}\n", "x".repeat(100)));
        assert_eq!(app.get(&format!("/api/functions/{}", function.id)).await.body["lastExecuted"], shown["executedAt"]);

        let unknown = Deployed { id: NO_ID.to_owned(), image: String::new() };
        defer(app, &unknown, json!({})).await.assert_problem(404, "function_not_found", NO_ID);
        defer(app, &function, json!({"a b": 1})).await.assert_problem(400, "invalid_input", "a b");
        answer(app.request(Method::DELETE, &format!("/api/invocations/{id}"))).await.assert_problem(
            409,
            "invocation_ended",
            "\"ok\"",
        );
        answer(app.request(Method::DELETE, &format!("/api/invocations/{NO_ID}"))).await.assert_problem(
            404,
            "invocation_not_found",
            "",
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_queued_or_running_one_can_be_cancelled() {
    TestApp::run(
        &[("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "60s"), ("ASYNC_QUEUE_LIMIT", "2")],
        async |app| {
            let function =
                app.deploy(python("import os, time\ntime.sleep(int(os.environ['SECONDS']))\nprint('slept')\n")).await;
            let id = |accepted: Answer| accepted.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
            let running = id(defer(app, &function, json!({"seconds": 50})).await);
            let outcome = async |id: &str| {
                app.get(&format!("/api/invocations/{id}")).await.body["outcome"].as_str().unwrap().to_owned()
            };
            eventually("the invocation runs", async || (outcome(&running).await == "running").then_some(())).await;
            let queued = id(defer(app, &function, json!({"seconds": 50})).await);
            let last = id(defer(app, &function, json!({"seconds": 0})).await);
            defer(app, &function, json!({"seconds": 0})).await.assert_problem(429, "overloaded", "ASYNC_QUEUE_LIMIT");
            for cancelled in [&queued, &running] {
                answer(app.request(Method::DELETE, &format!("/api/invocations/{cancelled}"))).await.assert_status(200);
                assert_eq!(outcome(cancelled).await, "cancelled");
            }
            // The only container is free for the last invocation, long before the others would have ended.
            assert_eq!(ended(app, &last).await["output"], "slept\n");
            assert_eq!([outcome(&queued).await, outcome(&running).await], ["cancelled", "cancelled"]);
        },
    )
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_with_a_key_is_carried_out_once() {
    TestApp::run(&[], async |app| {
        let program = "import uuid\nprint(uuid.uuid4())\n";
        let submit = async |key: &str, program: &str| {
            let form = Form::new().part("code", Part::bytes(python(program)).file_name("f.zip"));
            answer(app.request(Method::POST, "/api/submit").header("idempotency-key", key).multipart(form)).await
        };
        let (one, other) = tokio::join!(submit("deploy-1", program), submit("deploy-1", program));
        // One of two requests at once is refused for a moment. Only one function is made.
        let mut done: Vec<Answer> = [one, other].into_iter().filter(|answer| answer.status == 200).collect();
        assert!(!done.is_empty());
        let first = done.remove(0).body;
        assert_eq!(submit("deploy-1", program).await.assert_status(200).body, first);
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
        submit("deploy-1", "print(2)").await.assert_problem(422, "idempotency_key_reused", "Idempotency-Key");
        submit("", program).await.assert_problem(400, "invalid_request", "Idempotency-Key");

        let function = first["functionId"].as_str().unwrap();
        let execute = async |key: &str, input: Value, prefer: &str| {
            let body = json!({"functionId": function, "input": input}).to_string();
            let request = app.request(Method::POST, "/api/execute").header("content-type", "application/json");
            answer(request.header("idempotency-key", key).header("prefer", prefer).body(body)).await
        };
        let first = execute("run-1", json!({}), "").await.assert_outcome(200, "ok");
        let again = execute("run-1", json!({}), "").await.assert_outcome(200, "ok");
        assert_eq!(first.body, again.body);
        assert_ne!(execute("run-2", json!({}), "").await.assert_outcome(200, "ok").output(), first.output());
        execute("run-1", json!({"a": 1}), "").await.assert_problem(422, "idempotency_key_reused", "");
        let deferred = execute("run-1", json!({}), "respond-async").await.assert_status(202);
        assert_eq!(deferred.body["invocationId"], first.body["invocationId"]);
        let (one, other) = tokio::join!(execute("run-3", json!({}), ""), execute("run-3", json!({}), ""));
        assert_eq!(one.output(), other.output());
    })
    .await;
}

/// The number of queued invocations, and the rows of all ended invocations, to the letter.
async fn on_disk(dir: &Path) -> (usize, Vec<String>) {
    let store = crate::stored::store(dir).await;
    let functions = store.changes(None).await.unwrap().changed;
    let mut rows = Vec::new();
    for function in functions {
        let page = Page::of(function.id, 2000);
        for (_, listed) in store.invocations(&page).await.unwrap() {
            rows.push(store.invocation(listed.id).await.unwrap().unwrap());
        }
    }
    store.close().await;
    let queued = rows.iter().filter(|row| row.outcome == Outcome::Queued).count();
    let ended = rows.iter().filter(|row| !row.outcome.is_open());
    (queued, ended.map(|row| format!("{row:?}")).collect())
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_stop_leaves_what_waits_to_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "60s"), ("SERVER_SHUTDOWN_TIMEOUT", "1s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let sleeper =
        service.deploy(python("import os, time\ntime.sleep(int(os.environ['SECONDS']))\nprint('slept')\n")).await;
    let other = service.deploy(python("print('served')")).await;
    let id = |answer: Answer| answer.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
    let running = id(service.defer(&sleeper, json!({"seconds": 50})).await);
    let path = format!("/api/invocations/{running}");
    eventually("the invocation runs", async || (service.get(&path).await.body["outcome"] == "running").then_some(()))
        .await;
    let mut queued = Vec::new();
    for n in 0..12 {
        queued.push(id(service.defer(if n % 2 == 0 { &sleeper } else { &other }, json!({"seconds": 0})).await));
    }
    // The execution of a client that leaves at once is accepted, too.
    let left = tokio::time::timeout(Duration::from_millis(1), service.defer(&other, json!({}))).await;
    drop(left);
    service.stop().await;
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    for id in &queued {
        let path = format!("/api/invocations/{id}");
        let outcome = async || {
            let outcome = service.get(&path).await.body["outcome"].as_str().unwrap().to_owned();
            (!["queued", "running"].contains(&outcome.as_str())).then_some(outcome)
        };
        assert_eq!(eventually("the invocation has ended", outcome).await, "ok");
    }
    assert_eq!(service.get(&path).await.body["outcome"], "lost");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn of_a_thousand_accepted_before_a_crash_none_is_missing_and_none_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    // Each invocation prints its time. Two runs of one invocation would print two times, and the history has room for
    // one time.
    let function = service.deploy(python("import os, time\nprint(os.environ['N'], time.time_ns())\n")).await;
    let mut accepted = Vec::new();
    for n in 0..1000 {
        let answer = service.defer(&function, json!({"n": n})).await.assert_status(202);
        accepted.push((n, answer.body["invocationId"].as_str().unwrap().to_owned()));
    }
    service.signal("KILL");
    service.end().await;
    let (queued, ended_before) = on_disk(dir.path()).await;
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let mut outcomes: HashMap<String, u32> = HashMap::new();
    for (n, id) in &accepted {
        let path = format!("/api/invocations/{id}");
        let shown = eventually("the invocation has ended", async || {
            let shown = service.get(&path).await.assert_status(200).body;
            (!["queued", "running"].contains(&shown["outcome"].as_str().unwrap())).then_some(shown)
        })
        .await;
        let outcome = shown["outcome"].as_str().unwrap();
        match outcome {
            "ok" => assert_eq!(shown["output"].as_str().unwrap().split(' ').next().unwrap(), n.to_string()),
            "lost" => assert!(shown["error"].as_str().unwrap().contains("went away"), "{shown:#}"),
            _ => panic!("{shown:#}"),
        }
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    println!("{outcomes:?}; {queued} were queued at the crash");
    // No ended invocation ran again, and each queued invocation ran once.
    let (_, ended_after) = on_disk(dir.path()).await;
    assert!(ended_before.iter().all(|row| ended_after.contains(row)));
    let metrics = service.text("/metrics").await;
    let ran: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("youtube_serverless_invocations_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(ran as usize, queued);
    assert!(outcomes["ok"] >= 980, "{outcomes:?}");
    // No more invocations than could run at that moment may be lost.
    assert!(outcomes.get("lost").is_none_or(|&lost| lost <= 10), "{outcomes:?}");
    service.delete_all(dir.path()).await;
}
