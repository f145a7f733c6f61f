//! Concurrency and warmth: how many invocations of a function run at one time, and which instances are kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Deployed, Service, TestApp, answer, docker, eventually, python};

/// Prints when an invocation begins and ends. The clock is the host's.
const NOTES: &str = "import os, time\nprint(time.time(), flush=True)\n\
                     time.sleep(float(os.environ.get('SECONDS', '0.3')))\nprint(time.time())\n";

/// Beginning and end of an invocation, in Unix seconds.
type Span = (f64, f64);

fn span(output: &str) -> Span {
    let mut times = output.lines().map(|line| line.parse().unwrap());
    (times.next().unwrap(), times.next().unwrap())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// How many of the invocations ran at this moment.
fn running_at(spans: &[Span], at: f64) -> usize {
    spans.iter().filter(|&&(begun, ended)| begun <= at && at < ended).count()
}

fn most_at_one_time(spans: &[Span]) -> usize {
    spans.iter().map(|&(begun, _)| running_at(spans, begun)).max().unwrap()
}

fn at_once(app: &TestApp, function: &Deployed, count: usize, seconds: f64) -> JoinSet<Answer> {
    let mut executions = JoinSet::new();
    for _ in 0..count {
        let body = json!({"functionId": function.id, "input": {"seconds": seconds}});
        executions.spawn(answer(app.request(Method::POST, "/api/execute").json(&body)));
    }
    executions
}

async fn spans(executions: JoinSet<Answer>) -> Vec<Span> {
    let answers = executions.join_all().await;
    answers.into_iter().map(|answer| span(answer.assert_outcome(200, "ok").output())).collect()
}

async fn defer(app: &TestApp, function: &Deployed, seconds: f64) -> String {
    let body = json!({"functionId": function.id, "input": {"seconds": seconds}});
    let request = app.request(Method::POST, "/api/execute").header("prefer", "respond-async").json(&body);
    answer(request).await.assert_status(202).body["invocationId"].as_str().unwrap().to_owned()
}

async fn ended(app: &TestApp, invocation: &str) -> Span {
    eventually("the invocation has ended", async || {
        let body = app.get(&format!("/api/invocations/{invocation}")).await.body;
        (body["outcome"] == "ok").then(|| span(body["output"].as_str().unwrap()))
    })
    .await
}

async fn deploy(app: &TestApp, program: &str, settings: &[(&'static str, &'static str)]) -> Deployed {
    let form = Form::new().part("code", Part::bytes(python(program)).file_name("function.zip"));
    let form = settings.iter().fold(form, |form, &(name, value)| form.text(name, value));
    let body = app.submit_form(form).await.assert_status(200).body;
    Deployed { id: body["functionId"].as_str().unwrap().to_owned(), image: String::new() }
}

/// What `GET /api/instances` says of a function.
async fn instances(app: &TestApp, function: &Deployed) -> Value {
    let all = app.get("/api/instances").await.assert_status(200).body;
    let own = all.as_array().unwrap().iter().find(|one| one["functionId"] == function.id.as_str());
    own.cloned().unwrap_or_else(|| json!({"starting": 0, "idle": 0, "busy": 0}))
}

async fn idle(app: &TestApp, function: &Deployed, count: usize) {
    eventually(&format!("{count} instances are idle"), async || {
        let own = instances(app, function).await;
        ((&own["idle"], &own["starting"]) == (&json!(count), &json!(0))).then_some(())
    })
    .await;
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[tokio::test]
#[ignore = "needs docker"]
async fn invocations_with_concurrency_1_do_not_overlap() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "4"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let function = deploy(app, NOTES, &[("concurrency", "1")]).await;
        let settings = app.get(&format!("/api/functions/{}/settings", function.id)).await.body;
        assert_eq!((&settings["concurrency"], &settings["keepWarm"]), (&json!(1), &json!(0)));
        let waiting = at_once(app, &function, 5, 0.4);
        let mut deferred = Vec::new();
        for _ in 0..3 {
            deferred.push(defer(app, &function, 0.4).await);
        }
        let mut all = spans(waiting).await;
        for invocation in deferred {
            all.push(ended(app, &invocation).await);
        }
        assert_eq!((all.len(), most_at_one_time(&all)), (8, 1), "{all:?}");
        assert_eq!(app.containers_of(&function).len(), 1, "a container that can't be used was started");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn another_limit_counts_at_once_for_callers_that_wait() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "4"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let function = deploy(app, NOTES, &[("concurrency", "1")]).await;
        let waiting = at_once(app, &function, 5, 8.0);
        app.begun(&function).await;
        app.configure(&function, json!({"concurrency": 3})).await.assert_status(200);
        let raised = now();
        let all = spans(waiting).await;
        let (before, after): (Vec<Span>, Vec<Span>) = all.iter().partition(|&&(begun, _)| begun < raised);
        assert_eq!((before.len(), most_at_one_time(&all)), (1, 3), "{all:?}");
        let first_end = before[0].1;
        assert!(after.iter().any(|&(begun, _)| begun < first_end), "no caller saw the change at once: {all:?}");

        let waiting = at_once(app, &function, 5, 6.0);
        eventually("three run", async || (instances(app, &function).await["busy"] == 3).then_some(())).await;
        app.configure(&function, json!({"concurrency": 1})).await.assert_status(200);
        let mut all = spans(waiting).await;
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        // Those that ran before the change end, and the others come one at a time.
        for &(begun, _) in &all[3..] {
            assert_eq!(running_at(&all, begun), 1, "{all:?}");
        }
        app.configure(&function, json!({"concurrency": null})).await.assert_status(200);
        let all = spans(at_once(app, &function, 4, 4.0)).await;
        assert!(most_at_one_time(&all) > 1, "{all:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn asynchronous_executions_at_their_limit_hold_back_no_other_function() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "3"), ("DOCKER_RUN_TIMEOUT", "60s")], async |app| {
        let limited = deploy(app, NOTES, &[("concurrency", "1")]).await;
        let other = app.deploy(python(NOTES)).await;
        let mut deferred = Vec::new();
        for _ in 0..6 {
            deferred.push(defer(app, &limited, 20.0).await);
        }
        app.begun(&limited).await;
        ended(app, &defer(app, &other, 0.0).await).await;
        let first = app.get(&format!("/api/invocations/{}", deferred[0])).await.body;
        assert_eq!(first["outcome"], "running", "the other function waited for the limited function");
        app.configure(&limited, json!({"concurrency": 3})).await.assert_status(200);
        eventually("three run", async || (instances(app, &limited).await["busy"] == 3).then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_limit_holds_across_an_update_and_for_callers_that_left() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "4"), ("DOCKER_RUN_TIMEOUT", "2m"), ("QUEUE_TIMEOUT", "2m")];
    TestApp::run(&settings, async |app| {
        let function = deploy(app, NOTES, &[("concurrency", "1")]).await;
        let old = at_once(app, &function, 1, 30.0);
        app.begun(&function).await;
        app.update(&function, python(NOTES)).await.assert_status(200);
        let answered = now();
        let new = spans(at_once(app, &function, 2, 0.1)).await;
        let old = spans(old).await;
        assert!(answered < old[0].1, "the update waited for the old invocation");
        let all = [old, new].concat();
        assert_eq!(most_at_one_time(&all), 1, "{all:?}");

        let is_one = async || (app.containers_of(&function).len() == 1).then_some(());
        eventually("the old version's container is gone", is_one).await;
        let body = json!({"functionId": function.id, "input": {"seconds": 60}});
        let leaving = app.request(Method::POST, "/api/execute").json(&body).timeout(Duration::from_secs(1));
        leaving.send().await.unwrap_err();
        app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(app.containers_of(&function).len(), 1, "the container of the caller that left was not gone");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn kept_instances_stay_whatever_idles_and_are_replaced() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "3"), ("INSTANCE_IDLE_TIMEOUT", "1s")], async |app| {
        let kept = deploy(app, NOTES, &[("keepWarm", "2")]).await;
        idle(app, &kept, 2).await;
        let names = sorted(app.containers_of(&kept));
        let others = [app.deploy(python("print('a')")).await, app.deploy(python("print('b')")).await];
        for _ in 0..2 {
            for other in &others {
                app.execute(other).await.assert_outcome(200, "ok");
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(sorted(app.containers_of(&kept)), names, "they neither expire nor make room");
        assert_eq!(app.execute(&kept).await.assert_outcome(200, "ok").body["start"], "warm");

        docker(&["kill", &names[0]]);
        eventually("the dead instance is replaced", async || {
            let now = app.containers_of(&kept);
            (now.len() == 2 && !now.contains(&names[0]) && now.contains(&names[1])).then_some(())
        })
        .await;
        idle(app, &kept, 2).await;
        let names = app.containers_of(&kept);
        app.update(&kept, python(NOTES)).await.assert_status(200);
        eventually("the new version's instances are kept", async || {
            let now = app.containers_of(&kept);
            (now.len() == 2 && !now.iter().any(|name| names.contains(name))).then_some(())
        })
        .await;
        idle(app, &kept, 2).await;

        // The limit on all functions together is one less than DOCKER_CONTAINER_LIMIT.
        for (function, change) in [(&kept, json!({"keepWarm": 3})), (&others[0], json!({"keepWarm": 1}))] {
            app.configure(function, change).await.assert_problem(400, "invalid_settings", "3 together; it can be 2");
        }
        app.configure(&kept, json!({"keepWarm": 11})).await.assert_problem(400, "invalid_settings", "0 to 10");
        app.configure(&kept, json!({"concurrency": 0})).await.assert_problem(400, "invalid_settings", "1 to 1000");
        app.configure(&kept, json!({"keepWarm": 1})).await.assert_status(200);
        idle(app, &kept, 1).await;
        app.configure(&others[0], json!({"keepWarm": 1})).await.assert_status(200);
        idle(app, &others[0], 1).await;
        app.configure(&kept, json!({"keepWarm": null})).await.assert_status(200);
        eventually("nothing is kept any more", async || app.containers_of(&kept).is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_instance_to_keep_takes_the_place_of_an_idle_one_and_comes_back_with_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("DOCKER_CONTAINER_LIMIT", "2")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        ids.push(service.deploy(python(&format!("print('{text}')"))).await);
    }
    let idle_of = async |service: &Service, id: &str| {
        eventually("the instance is kept", async || {
            let all = service.get("/api/instances").await.body;
            all.as_array().unwrap().iter().any(|one| one["functionId"] == id && one["idle"] == 1).then_some(())
        })
        .await;
    };
    // The two containers are of the last two functions.
    let path = format!("{}/api/functions/{}", service.url, ids[0]);
    answer(service.client.patch(path).json(&json!({"keepWarm": 1}))).await.assert_status(200);
    idle_of(&service, &ids[0]).await;
    service.stop().await;
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    idle_of(&service, &ids[0]).await;
    assert_eq!(service.execute(&ids[0]).await.assert_outcome(200, "ok").body["start"], "warm");
    service.stop().await;
    // One container has room for nobody's kept instance.
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    for id in [&ids[1], &ids[0], &ids[1]] {
        service.execute(id).await.assert_outcome(200, "ok");
    }
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_the_limit_costs_is_shown() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let first = app.deploy(python("print('a')")).await;
        let second = app.deploy(python("print('b')")).await;
        for function in [&first, &second, &first] {
            app.execute(function).await.assert_outcome(200, "ok");
        }
        let own = instances(app, &first).await;
        assert!(own["evictionsLastHour"].as_u64() >= Some(1), "{own}");
        assert!(own["coldStartsAfterEviction"].as_u64() >= Some(1), "{own}");
        let memory = own["idleMemoryBytes"].as_u64();
        if std::env::var("TEST_TRANSPORT").is_ok_and(|transport| transport == "pipes") {
            assert_eq!(memory, None, "{own}");
        } else {
            assert!(memory.is_some_and(|bytes| (1_000_000..128_000_000).contains(&bytes)), "{own}");
        }
        let other = instances(app, &second).await;
        assert_eq!((&other["idle"], other["evictionsLastHour"].as_u64() >= Some(1)), (&json!(0), true), "{other}");
    })
    .await;
}
