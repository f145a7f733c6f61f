//! Schedules: what clients make and see of them, and their runs.

mod nodes;
mod week;

use reqwest::Method;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::support::{Answer, Service, TestApp, answer, eventually, python};

const PROGRAM: &str = "import os\nprint(os.environ.get('NAME', 'nobody'))\n";

async fn put(service: &Service, id: &str, name: &str, definition: Value) -> Answer {
    let url = format!("{}/api/functions/{id}/schedules/{name}", service.url);
    answer(service.client.put(url).json(&definition)).await
}

async fn put_to(app: &TestApp, id: &str, name: &str, definition: Value) -> Answer {
    answer(app.request(Method::PUT, &format!("/api/functions/{id}/schedules/{name}")).json(&definition)).await
}

/// The function's invocations, the first first.
async fn history(service: &Service, id: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut part =
            service.get(&format!("/api/functions/{id}/invocations?limit=500{cursor}")).await.assert_status(200);
        all.append(part.body["invocations"].as_array_mut().unwrap());
        match part.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_schedule_is_made_shown_replaced_run_and_deleted() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(PROGRAM)).await;
        let id = &function.id;
        let path = format!("/api/functions/{id}/schedules");
        assert_eq!(app.get(&path).await.assert_status(200).body, json!([]));
        let made = put_to(app, id, "nightly", json!({"cron": "0 3 * * *"})).await.assert_status(200).body;
        let next = made["nextAt"].as_u64().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(now < next && next <= now + 86_400 && next % 86_400 == 3 * 3600, "{made:#}");
        let days: Vec<u64> = (0..5).map(|day| next + day * 86_400).collect();
        let expected = json!({"functionId": id, "name": "nightly", "cron": "0 3 * * *", "timezone": "UTC", "input": {},
            "enabled": true, "overlap": "skip", "missed": "skip", "declared": false, "nextAt": next, "upcoming": days,
            "lastInvocationId": null, "lastOutcome": null, "lastSkipped": null});
        assert_eq!(made, expected);
        let definition = json!({"cron": "@hourly", "timezone": "europe/berlin", "input": {"name": "Ada"},
            "enabled": false, "overlap": "queue", "missed": "once"});
        let replaced = put_to(app, id, "nightly", definition).await.assert_status(200).body;
        assert_eq!(replaced["timezone"], "Europe/Berlin");
        assert_eq!((&replaced["nextAt"], &replaced["upcoming"]), (&Value::Null, &json!([])));
        assert_eq!(app.get(&format!("{path}/nightly")).await.assert_status(200).body, replaced);
        assert_eq!(app.get(&path).await.body, json!([replaced]));
        // Also while the schedule pauses.
        let run = app.post_json(&format!("{path}/nightly/run"), "").await.assert_status(202);
        let invocation = run.body["invocationId"].as_str().unwrap().to_owned();
        assert_eq!(run.body["outcome"], "queued");
        assert_eq!(run.headers["location"], format!("/api/invocations/{invocation}"));
        let shown = eventually("the run has ended", async || {
            let shown = app.get(&format!("{path}/nightly")).await.body;
            (shown["lastOutcome"] == "ok").then_some(shown)
        })
        .await;
        assert_eq!(shown["lastInvocationId"], invocation);
        let record = app.get(&format!("/api/invocations/{invocation}")).await.body;
        assert_eq!((record["output"].as_str(), record["trigger"].as_str()), (Some("Ada\n"), Some("schedule:nightly")));
        let gone = answer(app.request(Method::DELETE, &format!("{path}/nightly"))).await.assert_status(200);
        assert!(gone.body["message"].as_str().unwrap().contains("nightly"), "{:#}", gone.body);
        let detail = "no schedule \"nightly\"";
        app.get(&format!("{path}/nightly")).await.assert_problem(404, "schedule_not_found", detail);
        answer(app.request(Method::DELETE, &format!("{path}/nightly"))).await.assert_problem(
            404,
            "schedule_not_found",
            detail,
        );
        app.post_json(&format!("{path}/nightly/run"), "").await.assert_problem(404, "schedule_not_found", detail);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_no_schedule_is_refused_with_words() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(PROGRAM)).await;
        let id = &function.id;
        let refused = async |name: &str, definition: Value, code: &str, detail: &str| {
            put_to(app, id, name, definition).await.assert_problem(400, code, detail);
        };
        let cron = |cron: &str| json!({"cron": cron});
        refused("a", cron("@reboot"), "invalid_schedule", "@hourly").await;
        refused("a", cron("0 0 3 * * *"), "invalid_schedule", "6 fields").await;
        refused("a", cron("61 * * * *"), "invalid_schedule", "can't be read").await;
        refused("a", cron("0 0 31 2 *"), "invalid_schedule", "never comes").await;
        refused("a", json!({"cron": "@daily", "timezone": "Mars/Base"}), "invalid_schedule", "Mars/Base").await;
        refused("a", json!({"cron": "@daily", "overlap": "once"}), "invalid_schedule", "`skip` or `queue`").await;
        refused("a", json!({"cron": "@daily", "missed": "queue"}), "invalid_schedule", "`skip` or `once`").await;
        refused("a", json!({"cron": "@daily", "input": {"path": 1}}), "invalid_input", "reserved").await;
        refused("a", json!({"cron": "@daily", "every": 1}), "invalid_request", "every").await;
        refused("a", json!({}), "invalid_request", "cron").await;
        refused("-a", cron("@daily"), "invalid_schedule", "\"-a\"").await;
        refused("a%20b", cron("@daily"), "invalid_schedule", "\"a b\"").await;
        assert_eq!(app.get(&format!("/api/functions/{id}/schedules")).await.body, json!([]));
        for n in 0..20 {
            put_to(app, id, &format!("s{n}"), cron("@yearly")).await.assert_status(200);
        }
        put_to(app, id, "more", cron("@yearly")).await.assert_problem(409, "too_many_schedules", "20 schedules");
        put_to(app, id, "s7", cron("@monthly")).await.assert_status(200);
        // An input that replaces a secret of the function.
        let secret = json!({"secrets": {"KEY": "s"}}).to_string();
        let patch = app.request(Method::PATCH, &format!("/api/functions/{id}"));
        answer(patch.header("content-type", "application/json").body(secret)).await.assert_status(200);
        let input = json!({"cron": "@daily", "input": {"key": 1}});
        put_to(app, id, "s7", input).await.assert_problem(400, "invalid_input", "secret");
        // A rollback or a change of settings leaves the schedules, and a deletion takes them along.
        assert_eq!(app.get(&format!("/api/functions/{id}/schedules")).await.body.as_array().unwrap().len(), 20);
        app.delete(id).await.assert_status(200);
        let gone = app.get(&format!("/api/functions/{id}/schedules")).await;
        gone.assert_problem(404, "function_not_found", "no function");
        put_to(app, id, "a", cron("@daily")).await.assert_problem(404, "function_not_found", "no function");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slot_is_run_on_time_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(dir.path());
    // A minute is about to end.
    let slot = (clock.now() / 60 + 10) * 60;
    clock.set(slot - 20);
    let service = Service::start(dir.path(), &clock.settings()).await.healthy().await;
    let id = service.deploy(python(PROGRAM)).await;
    clock.set(slot - 15);
    let definition = json!({"cron": "* * * * *", "input": {"name": "Ada"}});
    assert_eq!(put(&service, &id, "each", definition.clone()).await.assert_status(200).body["nextAt"], slot);
    let run = eventually("the slot is run", async || history(&service, &id).await.pop()).await;
    assert_eq!(run["trigger"], "schedule:each");
    assert!(run["createdAt"].as_u64().unwrap() - slot < 5, "{run:#}");
    let shown = service.get(&format!("/api/functions/{id}/schedules/each")).await.body;
    assert_eq!((shown["nextAt"].as_u64(), &shown["lastInvocationId"]), (Some(slot + 60), &run["invocationId"]));
    // What a replacement with the same times leaves, and what a pause forgets.
    assert_eq!(put(&service, &id, "each", definition).await.body["nextAt"], slot + 60);
    let pauses = json!({"cron": "* * * * *", "enabled": false, "missed": "once"});
    assert_eq!(put(&service, &id, "each", pauses).await.body["nextAt"], Value::Null);
    clock.set(slot + 3600 + 30);
    let goes_on = json!({"cron": "* * * * *", "missed": "once"});
    assert_eq!(put(&service, &id, "each", goes_on).await.body["nextAt"], slot + 3660);
    assert_eq!(history(&service, &id).await.len(), 1);
    let metrics = service.text("/metrics").await;
    assert!(metrics.contains("youtube_serverless_schedule_slots_total{result=\"run\"} 1"), "{metrics}");
    assert!(metrics.contains("youtube_serverless_schedule_delay_seconds_count 1"), "{metrics}");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slot_waits_for_room_in_the_queue_and_is_missed_after_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(dir.path());
    let slot = (clock.now() / 3600 + 2) * 3600;
    clock.set(slot - 1000);
    let settings = [&clock.settings()[..], &[("ASYNC_QUEUE_LIMIT", "1"), ("DOCKER_CONTAINER_LIMIT", "1")]].concat();
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("import os, time\ntime.sleep(float(os.environ.get('SECONDS', '0')))\n")).await;
    let defer = async |seconds: f64| {
        let request = service.client.post(format!("{}/api/execute", service.url)).header("prefer", "respond-async");
        answer(request.json(&json!({"functionId": id, "input": {"seconds": seconds}}))).await
    };
    // One runs, and one waits: the queue is full.
    let first = defer(8.0).await.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
    eventually("the first runs", async || {
        (service.get(&format!("/api/invocations/{first}")).await.body["outcome"] == "running").then_some(())
    })
    .await;
    defer(0.0).await.assert_status(202);
    defer(0.0).await.assert_problem(429, "overloaded", "ASYNC_QUEUE_LIMIT");
    put(&service, &id, "waits", json!({"cron": "@hourly"})).await.assert_status(200);
    let run_now = format!("/api/functions/{id}/schedules/waits/run");
    answer(service.client.post(format!("{}{run_now}", service.url))).await.assert_problem(
        429,
        "overloaded",
        "ASYNC_QUEUE_LIMIT",
    );
    clock.set(slot);
    // Any change of a schedule has the scheduler look at once.
    put(&service, &id, "other", json!({"cron": "@yearly"})).await.assert_status(200);
    let shown = async || service.get(&format!("/api/functions/{id}/schedules/waits")).await.body;
    assert_eq!(shown().await["nextAt"], slot, "the slot waits");
    let run = eventually("the slot is run", async || {
        history(&service, &id).await.into_iter().find(|run| run["trigger"] == "schedule:waits")
    })
    .await;
    assert!(run["createdAt"].as_u64().unwrap() < slot + 60, "{run:#}");
    // Full for longer than a minute.
    let second = eventually("there is room again", async || {
        let answer = defer(20.0).await;
        answer.body["invocationId"].as_str().map(str::to_owned)
    })
    .await;
    eventually("the second runs", async || {
        (service.get(&format!("/api/invocations/{second}")).await.body["outcome"] == "running").then_some(())
    })
    .await;
    defer(0.0).await.assert_status(202);
    clock.set(slot + 3600 + 50);
    put(&service, &id, "other", json!({"cron": "@yearly"})).await.assert_status(200);
    assert_eq!(shown().await["nextAt"], slot + 3600);
    clock.set(slot + 3600 + 61);
    put(&service, &id, "other", json!({"cron": "@yearly"})).await.assert_status(200);
    let missed = eventually("the slot is missed", async || {
        let shown = shown().await;
        (shown["nextAt"] == slot + 7200).then_some(shown)
    })
    .await;
    assert_eq!(missed["lastSkipped"], json!({"slot": slot + 3600, "reason": "missed"}));
    assert_eq!(missed["lastInvocationId"], run["invocationId"]);
    service.delete_all(dir.path()).await;
}
