//! A function's output is there as soon as a line is whole, however the function ends. A function's clock has the zone
//! that the function asks for.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::json;

use crate::support::{Deployed, TestApp, answer, docker, eventually, go, python};

const STEPS: &str = r#"
import os, time
print("step 1 done")
mode = os.environ.get("MODE")
if mode == "timeout":
    time.sleep(60)
if mode == "memory":
    hog = []
    while True:
        hog.append(bytearray(1 << 20))
if mode == "kill":
    os.kill(os.getpid(), 9)
if mode == "crash":
    import ctypes
    ctypes.string_at(0)
if mode == "exit":
    print("half a line", end="")
    os._exit(0)
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn whole_lines_outlive_whatever_ends_the_function() {
    TestApp::run(&[("DOCKER_RUN_TIMEOUT", "2m")], async |app| {
        let function = app.deploy(python(STEPS)).await;
        let ends = [("memory", 500, "out_of_memory"), ("kill", 500, "signal"), ("crash", 500, "signal")];
        for (mode, status, outcome) in ends.into_iter().chain([("exit", 200, "ok")]) {
            let answer = app.execute_with(&function, json!({"mode": mode})).await.assert_outcome(status, outcome);
            assert_eq!(answer.output(), "step 1 done\n", "{mode}");
        }
        // The container goes away in the middle of the sleep.
        let body = json!({"functionId": function.id, "input": {"mode": "timeout"}});
        let request = app.request(Method::POST, "/api/execute").header("prefer", "respond-async").json(&body);
        let accepted = answer(request).await.assert_status(202).body;
        let path = format!("/api/invocations/{}", accepted["invocationId"].as_str().unwrap());
        eventually("the line is written", async || {
            (app.get(&path).await.body["output"] == "step 1 done\n").then_some(())
        })
        .await;
        // The newest comes first.
        docker(&["kill", &app.containers_of(&function)[0]]);
        let lost = eventually("the execution is lost", async || {
            Some(app.get(&path).await.body).filter(|shown| shown["outcome"] != "running")
        })
        .await;
        assert_eq!((&lost["outcome"], &lost["output"]), (&json!("lost"), &json!("step 1 done\n")));
        app.configure(&function, json!({"timeout": "5s"})).await.assert_status(200);
        let late = app.execute_with(&function, json!({"mode": "timeout"})).await.assert_outcome(504, "timeout");
        assert_eq!(late.output(), "step 1 done\n");
    })
    .await;
}

/// The time from the print of each line to its event, in an asynchronous execution whose lines are Unix times.
async fn delays(app: &TestApp, function: &Deployed) -> Vec<Duration> {
    let request = app.request(Method::POST, "/api/execute").header("prefer", "respond-async");
    let accepted = request.json(&json!({"functionId": function.id})).send().await.unwrap();
    let id = accepted.json::<serde_json::Value>().await.unwrap()["invocationId"].as_str().unwrap().to_owned();
    let mut response = app.request(Method::GET, &format!("/api/invocations/{id}/events")).send().await.unwrap();
    let mut delays = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        let seen = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        for time in text.split("tick ").skip(1) {
            let printed: f64 = time.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().parse().unwrap();
            delays.push(Duration::from_secs_f64((seen - printed).max(0.0)));
        }
    }
    delays
}

#[tokio::test]
#[ignore = "needs docker"]
async fn each_line_is_seen_as_it_is_printed() {
    TestApp::run(&[], async |app| {
        let function = app
            .deploy(python("import time\nfor _ in range(3):\n    print('tick', time.time())\n    time.sleep(3)\n"))
            .await;
        // Another test may take the processors for a moment. Still a line comes long before the next line.
        let mut last = Vec::new();
        for _ in 0..3 {
            last = delays(app, &function).await;
            assert_eq!(last.len(), 3);
            if last.iter().all(|&delay| delay < Duration::from_secs(2)) {
                return;
            }
        }
        panic!("{last:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn pythonunbuffered_is_accepted_and_other_variables_of_python_are_not() {
    TestApp::run(&[], async |app| {
        let function = app
            .deploy(python("import os, sys\nprint(os.environ.get('PYTHONUNBUFFERED'), sys.stdout.line_buffering)\n"))
            .await;
        app.configure(&function, json!({"environment": {"PYTHONUNBUFFERED": "1"}})).await.assert_status(200);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "1 True\n");
        app.configure(&function, json!({"environment": {"PYTHONPATH": "/tmp"}})).await.assert_status(400);
        app.execute_with(&function, json!({"pythonunbuffered": "1"})).await.assert_status(400);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_time_zone_of_input_or_environment_counts() {
    TestApp::run(&[], async |app| {
        // The zone is in POSIX words, which need no file of the image.
        let zone = "MEZ-1MESZ,M3.5.0,M10.5.0";
        let program = "import sys\nassert 'time' not in sys.modules or 'time' in sys.builtin_module_names\nimport datetime, time\nprint(time.tzname, time.localtime(1719828000).tm_hour, datetime.datetime.fromtimestamp(1719828000).hour)\n";
        let python = app.deploy(python(program)).await;
        let go = app.deploy(go("import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfmt.Println(os.Getenv(\"TZ\"))\n}\n")).await;
        assert_eq!(app.execute(&python).await.assert_outcome(200, "ok").output(), "('UTC', 'UTC') 10 10\n");
        let here = app.execute_with(&python, json!({"tz": zone})).await.assert_outcome(200, "ok");
        assert_eq!(here.output(), "('MEZ', 'MESZ') 12 12\n");
        // The next invocation has no zone.
        assert_eq!(app.execute(&python).await.assert_outcome(200, "ok").output(), "('UTC', 'UTC') 10 10\n");
        for function in [&python, &go] {
            app.configure(function, json!({"environment": {"TZ": zone}})).await.assert_status(200);
        }
        assert_eq!(app.execute(&python).await.assert_outcome(200, "ok").output(), "('MEZ', 'MESZ') 12 12\n");
        assert_eq!(app.execute(&go).await.assert_outcome(200, "ok").output(), format!("{zone}\n"));
    })
    .await;
}
