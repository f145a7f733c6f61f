//! Faults around slots: what fails costs no request, ends no instance, and ends by itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::slots::{ONE_EACH, start_of};
use crate::support::{Answer, Engine, Service, TestApp, docker, eventually, go, python};

/// The containers of slots on an engine.
fn slots_of(engine: &Engine) -> Vec<String> {
    let names = engine.docker(&["ps", "--filter", "name=youtube-serverless-slot-", "--format", "{{.Names}}"]);
    names.unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn saved(app: &TestApp, id: &str) -> Value {
    let answer = app.get(&format!("/api/functions/{id}/settings")).await.assert_status(200);
    let saved = answer.body["preload"]["savedMs"].clone();
    assert!(saved.as_f64().is_some(), "{:#}", answer.body);
    saved
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slot_that_hangs_costs_a_caller_little_more_than_a_start() {
    TestApp::run(&ONE_EACH, async |app| {
        let function = app.deploy(python("import decimal\nprint('ok')")).await;
        app.fit(1, 2).await;
        let found = saved(app, &function.id).await;
        assert_eq!(start_of(&app.execute(&function).await.assert_outcome(200, "ok")), "slot");
        assert_eq!(saved(app, &function.id).await, found, "a slot imports nothing, and tells no time of imports");
        app.fit(1, 2).await;
        for name in app.all_containers().iter().filter(|name| name.contains("-slot-")) {
            let pid = docker(&["inspect", "--format", "{{.State.Pid}}", name]).pop().unwrap();
            assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
        }
        let began = Instant::now();
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), start_of(&answer)), ("ok\n", "cold"));
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        let settings = app.get(&format!("/api/functions/{}/settings", function.id)).await.body;
        assert_eq!(settings["preload"]["modules"], json!(["decimal"]), "the function is preloaded as before");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_go_function_that_found_no_container_takes_a_slot_at_its_first_call() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "2"), ("SLOTS_GO", "1"), ("DOCKER_RUN_TIMEOUT", "120s")];
    TestApp::run(&settings, async |app| {
        app.slots_are_ready(1).await;
        let long = app.deploy(python("import time\ntime.sleep(100)")).await;
        let meanwhile = async {
            eventually("all containers are in use", async || {
                (app.instances("busy").await == 1 && app.slots().await == 1).then_some(())
            })
            .await;
            let function = app.deploy(go("func main() {\n\tprint(\"ok\")\n}\n")).await;
            let trees = app.dir.path().join("data/trees");
            eventually("the files are on disk", async || {
                let names = std::fs::read_dir(&trees).unwrap().map(|entry| entry.unwrap().file_name());
                names.filter(|name| !name.to_string_lossy().starts_with('.')).last()
            })
            .await;
            assert!(app.containers_of(&function).is_empty());
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!((answer.stderr(), start_of(&answer)), ("ok", "slot"));
        };
        tokio::select! {
            ended = app.execute(&long) => panic!("{ended:?}"),
            () = meanwhile => {}
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_temp_folder_that_is_gone_is_no_storm_of_starts() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let settings = [("SLOTS_PYTHON", "1"), ("INSTANCE_IDLE_TIMEOUT", "100ms"), ("LOG_LEVEL", "warn")];
    let service = Service::start_logged(dir.path(), &settings, &log).await.healthy().await;
    let id = service.deploy(python("print('ok')")).await;
    let ready = async || {
        let metrics = service.text("/metrics").await;
        metrics.contains("instances{state=\"slot\"} 1").then_some(())
    };
    eventually("a slot is ready", ready).await;
    let platform = std::fs::read_to_string(dir.path().join("data/platform-id")).unwrap();
    let folder = std::fs::read_dir(dir.path().join("temp")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&folder).unwrap();
    let filter = format!("label=youtube-serverless.platform={platform}");
    let only_slots = eventually("the function's instance is gone", async || {
        let names = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
        names.iter().all(|name| name.contains("-slot-")).then_some(names)
    });
    for name in only_slots.await {
        docker(&["rm", "--force", &name]);
    }
    let said = |text: &str| std::fs::read_to_string(&log).unwrap().matches(text).count();
    eventually("a start of a slot fails", async || (said("a slot did not start") > 0).then_some(())).await;
    let began = Instant::now();
    let refused = service.execute(&id).await;
    assert!(refused.status >= 500 && began.elapsed() < Duration::from_secs(5), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(said("a slot did not start"), 1);
    assert!(said("failed to start an instance") < 5);
    make(&folder);
    service.execute(&id).await.assert_outcome(200, "ok");
    eventually("a slot is ready again", ready).await;
    service.delete(&id).await.assert_status(200);
    service.stop().await;
}

fn make(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn slots_come_back_when_their_image_was_removed() {
    let engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let host = engine.host();
    let settings = [("DOCKER_HOST", host.as_str()), ("GO_IMAGE", "no-such-image"), ("SLOTS_PYTHON", "1")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let slot = async || slots_of(&engine).pop();
    let first = eventually("a slot is ready", slot).await;
    let image = engine.docker(&["inspect", "--format", "{{.Config.Image}}", &first]).unwrap();
    engine.docker(&["image", "rm", "--force", image.trim()]).expect("the image was there");
    engine.docker(&["rm", "--force", &first]).unwrap();
    eventually("the image is made again", async || engine.docker(&["image", "inspect", image.trim()])).await;
    eventually("a slot is ready again", async || slot().await.filter(|name| *name != first)).await;
    service.stop().await;
    engine.remove().await;
}

/// An OCI runtime whose containers can write to the folder of the files.
const LEAKY: &str = r#"#!/usr/bin/env python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    spec = json.load(open(path))
    for mount in spec["mounts"]:
        if mount["destination"] == "/app":
            mount["options"] = ["rw" if option == "ro" else option for option in mount["options"]]
    json.dump(spec, open(path, "w"))
os.execvp("runc", ["runc"] + sys.argv[1:])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn no_slot_is_held_where_a_slot_is_less_isolated_than_other_containers() {
    let engine = Engine::start_with_runtime(Some(LEAKY)).await;
    let dir = tempfile::tempdir().unwrap();
    let host = engine.host();
    let settings = [("DOCKER_HOST", host.as_str()), ("DOCKER_RUNTIME", "leaky"), ("GO_IMAGE", "no-such-image")];
    let settings = [&settings[..], &[("SLOTS_PYTHON", "1")]].concat();
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let said = async || {
        let health = service.get("/health").await.assert_status(200).body;
        let gaps = health["isolation"].as_array().cloned().unwrap_or_default();
        gaps.into_iter().find(|gap| gap.as_str().unwrap().starts_with("slot"))
    };
    let gap = eventually("a slot was looked into", said).await;
    assert_eq!(gap, "slot: /app is no read-only mount");
    let id = service.deploy(python("print('ok')")).await;
    assert_eq!(slots_of(&engine), [""; 0]);
    let answer: Answer = service.execute(&id).await.assert_outcome(200, "ok");
    assert_eq!(answer.output(), "ok\n");
    service.stop().await;
    engine.remove().await;
}
