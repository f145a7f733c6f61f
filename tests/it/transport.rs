//! The way to instances: a socket, or the pipes of a docker client.

use std::path::Path;
use std::time::Duration;

use crate::support::{Deployed, Service, TestApp, eventually, go, labelled, python};

#[tokio::test]
#[ignore = "needs docker"]
async fn no_docker_client_stays_with_an_instance_that_has_a_socket() {
    for (transport, expected) in [("auto", 0), ("pipes", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let service = started(dir.path(), transport).await;
        for zip in [python("print(1)"), go("func main() {\n\tprintln(1)\n}\n")] {
            let id = service.deploy(zip).await;
            service.execute(&id).await.assert_outcome(200, "ok");
        }
        eventually("no other client is left", async || (service.child_ids().len() == expected).then_some(())).await;
        // The folder of a socket goes when the bootstrap has connected.
        eventually("no folder is left", async || (service.temp_files() == 0).then_some(())).await;
        assert!(service.get("/health").await.body.get("transport").is_none());
        service.delete_all(dir.path()).await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn containers_end_by_themselves_when_the_service_is_killed() {
    for transport in ["auto", "pipes"] {
        let dir = tempfile::tempdir().unwrap();
        let service = started(dir.path(), transport).await;
        let idle = service.deploy(python("print(1)")).await;
        service.execute(&idle).await.assert_outcome(200, "ok");
        let sleeper = service.deploy(python("import time\ntime.sleep(600)\n")).await;
        service.defer(&sleeper, serde_json::json!({})).await.assert_status(202);
        let path = format!("/api/functions/{sleeper}");
        eventually("the execution runs", async || service.get(&path).await.body["lastExecuted"].as_u64()).await;
        assert_eq!(running(dir.path()).len(), 2);
        service.signal("KILL");
        service.end().await;
        eventually("no container runs", async || running(dir.path()).is_empty().then_some(())).await;
        let service = Service::start(dir.path(), &[]).await.healthy().await;
        service.delete_all(dir.path()).await;
    }
}

fn running(dir: &Path) -> Vec<String> {
    labelled(dir, &["ps"])
}

/// Starts a service, and waits until the service has found out whether sockets work.
async fn started(dir: &Path, transport: &str) -> Service {
    let log = dir.join("log");
    let settings = [("INSTANCE_TRANSPORT", transport), ("LOG_LEVEL", "info")];
    let service = Service::start_logged(dir, &settings, &log).await.healthy().await;
    if transport == "auto" {
        eventually("sockets are known to work", async || {
            std::fs::read_to_string(&log).unwrap().contains("instances are reached by sockets").then_some(())
        })
        .await;
    }
    service
}

#[tokio::test]
#[ignore = "needs docker"]
async fn where_the_engine_does_not_see_the_folder_pipes_serve_and_health_says_so() {
    // A comma parts the fields of a mount.
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("a,b");
    std::fs::create_dir(&temp).unwrap();
    TestApp::run(&[("TEMP_DIR_BASE", temp.to_str().unwrap())], async |app| {
        std::fs::create_dir(app.dir.path().join("temp")).unwrap();
        let reason = eventually("health has the reason", async || {
            app.get("/health").await.body["transport"].as_str().map(str::to_owned)
        });
        assert!(!reason.await.is_empty());
        let function = app.deploy(python("print('by pipes')")).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "by pipes\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_client_that_leaves_costs_no_instance_when_the_invocation_ends_soon() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let program =
            "import os, time\ntime.sleep(float(os.environ['SECONDS']))\nopen('/tmp/left', 'w')\nprint('done')\n";
        let function = app.deploy(python(program)).await;
        app.execute_with(&function, serde_json::json!({"seconds": 0})).await.assert_outcome(200, "ok");
        // On a busy machine an invocation may take too long after its client has left.
        let mut containers;
        let mut tries = 0;
        loop {
            containers = app.containers_of(&function);
            let leaving = execution(app, &function, "0.15").timeout(Duration::from_millis(100)).send().await;
            let next = app.execute_with(&function, serde_json::json!({"seconds": 0})).await.assert_outcome(200, "ok");
            assert_eq!(next.output(), "done\n");
            let is_kept = next.body["start"] == "warm" && app.containers_of(&function) == containers;
            if is_kept && leaving.is_err_and(|error| error.is_timeout()) {
                break;
            }
            tries += 1;
            assert!(tries < 10, "no instance of a client that left was kept");
        }
        // An instance is busy for a moment after the answer.
        let is_busy = async |count| (app.instances("busy").await == count).then_some(());
        eventually("nothing runs", async || is_busy(0).await).await;
        let leaving = tokio::spawn(execution(app, &function, "600").send());
        eventually("the execution runs", async || is_busy(1).await).await;
        leaving.abort();
        app.execute_with(&function, serde_json::json!({"seconds": 0})).await.assert_outcome(200, "ok");
        assert_ne!(app.containers_of(&function), containers);
    })
    .await;
}

fn execution(app: &TestApp, function: &Deployed, seconds: &str) -> reqwest::RequestBuilder {
    let body = serde_json::json!({"functionId": function.id, "input": {"seconds": seconds}});
    app.request(reqwest::Method::POST, "/api/execute").json(&body)
}
