//! Acknowledged functions outlive restarts, crashes and the loss of every image.

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use crate::service::outcome;
use crate::stored::FILE;
use crate::support::{Deployed, Service, TestApp, docker, eventually, labelled, python};

/// Ends idle containers at once, so that a test can take their image away.
const NONE_IDLE: (&str, &str) = ("INSTANCE_IDLE_TIMEOUT", "50ms");

#[tokio::test]
#[ignore = "needs docker"]
async fn functions_outlive_a_restart_and_deleted_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let (kept, gone) = (service.deploy(python("print('ran')")).await, service.deploy(python("print('gone')")).await);
    service.execute(&kept).await.assert_outcome(200, "ok");
    service.delete(&gone).await.assert_status(200);
    let before = service.get("/api/functions").await.body;
    assert!(before[0]["lastExecuted"].is_u64() && before.as_array().unwrap().len() == 1, "{before}");
    service.stop().await;
    assert_eq!(labelled(dir.path(), &["ps", "--all"]), [""; 0]);
    assert_eq!(std::fs::read_dir(dir.path().join("temp")).unwrap().count(), 0);

    let service = Service::start(dir.path(), &[]).await;
    assert_eq!(
        service.get("/api/functions").await.body,
        before,
        "the function is listed as soon as the service listens"
    );
    let service = service.healthy().await;
    assert_eq!(service.execute(&kept).await.assert_outcome(200, "ok").output(), "ran\n");
    service.delete(&kept).await.assert_status(200);
    service.signal("KILL");
    service.end().await;

    let service = Service::start(dir.path(), &[]).await.healthy().await;
    assert_eq!(service.get("/api/functions").await.body, json!([]));
    service.delete(&kept).await.assert_problem(404, "function_not_found", &kept);
    eventually("no image is left", async || labelled(dir.path(), &["images"]).is_empty().then_some(())).await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn after_a_crash_its_own_containers_are_removed_and_no_others() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut services = Vec::new();
    for dir in [dir.path(), other.path()] {
        let service = Service::start(dir, &[("DOCKER_RUN_TIMEOUT", "5m")]).await.healthy().await;
        let function = service.deploy(python("import time\nprint('up', flush=True)\ntime.sleep(30)\n")).await;
        services.push((service, function));
    }
    let begin = async |(service, function): (Service, String)| {
        let url = format!("{}/api/execute?functionId={function}", service.url);
        let execution = tokio::spawn(async move { reqwest::get(url).await });
        let path = format!("/api/functions/{function}");
        eventually("the execution runs", async || service.get(&path).await.body["lastExecuted"].as_u64()).await;
        (service, execution)
    };
    let (other_service, other_execution) = begin(services.pop().unwrap()).await;
    let (service, execution) = begin(services.pop().unwrap()).await;
    service.signal("KILL");
    service.end().await;
    execution.await.unwrap().expect_err("the service is gone");
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    eventually("the execution's container is gone", async || {
        labelled(dir.path(), &["ps", "--all"]).is_empty().then_some(())
    })
    .await;
    service.delete_all(dir.path()).await;
    let response = other_execution.await.unwrap().expect("the other service was left alone");
    assert_eq!(response.status(), 200);
    other_service.delete_all(other.path()).await;
}

/// Returns when a function has run and has no container any more.
async fn unused(app: &TestApp, function: &Deployed) {
    app.execute(function).await.assert_outcome(200, "ok");
    eventually("the function has no container", async || app.containers_of(function).is_empty().then_some(())).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_image_that_is_gone_is_built_again_once_for_all_who_wait() {
    TestApp::run(&[NONE_IDLE], async |app| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().to_string();
        let function = app.deploy(python("print('here again')")).await;
        unused(app, &function).await;
        docker(&["image", "rm", "--force", &function.image]);
        let executions = (0..8).map(|_| app.execute(&function));
        for answer in futures_util::future::join_all(executions).await {
            assert_eq!(answer.assert_outcome(200, "ok").output(), "here again\n");
        }
        let until = (SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1).to_string();
        let tagged = [
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "event=tag",
            "--format",
            "{{.Actor.Attributes.name}}",
        ];
        let of_this = docker(&tagged).into_iter().filter(|name| name.contains(&function.id)).count();
        assert_eq!(of_this, 2, "the image was built at the submit and once more");
        let shown = app.get(&format!("/api/functions/{}", function.id)).await.body["imageId"].clone();
        assert!(app.images().iter().any(|image| shown.as_str().unwrap().contains(image.split(' ').nth(1).unwrap())));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_image_that_is_removed_under_its_instances_is_built_again_when_it_is_needed() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("import time\ntime.sleep(2)\nprint('done')\n")).await;
        app.execute(&function).await.assert_outcome(200, "ok");
        // Docker keeps the image, without a name, for as long as a container runs from the image.
        docker(&["image", "rm", "--force", &app.image_name(&function)]);
        for _ in 0..2 {
            // One execution finds the instance. The others need a new instance each.
            let executions = (0..3).map(|_| app.execute(&function));
            for answer in futures_util::future::join_all(executions).await {
                assert_eq!(answer.assert_outcome(200, "ok").output(), "done\n");
            }
            // The first instance may have served the others, too, while their containers start.
            eventually("no instance starts", async || (app.instances("starting").await == 0).then_some(())).await;
            for container in app.containers_of(&function) {
                docker(&["rm", "--force", &container]);
            }
            let image = app.get(&format!("/api/functions/{}", function.id)).await.body["imageId"].clone();
            docker(&["image", "rm", "--force", image.as_str().unwrap()]);
        }
        app.execute(&function).await.assert_outcome(200, "ok");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_deleted_while_its_image_is_built_again_leaves_nothing() {
    TestApp::run(&[NONE_IDLE], async |app| {
        let function = app.deploy(python("print('x')")).await;
        unused(app, &function).await;
        docker(&["image", "rm", "--force", &function.image]);
        let deleted = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            app.delete(&function.id).await.assert_status(200);
        };
        let (answer, ()) = tokio::join!(app.execute(&function), deleted);
        assert!(answer.status == 404 || answer.status == 200, "{answer:?}");
        eventually("no image is left", async || app.images().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_longest_unused_image_goes_when_the_cache_is_full() {
    TestApp::run(&[NONE_IDLE, ("IMAGE_CACHE_LIMIT", "1")], async |app| {
        let first = app.deploy(python("print('first')")).await;
        unused(app, &first).await;
        let second = app.deploy(python("print('second')")).await;
        let has_image = |id: &str| app.images().iter().any(|image| image.contains(id));
        eventually("the first image is evicted", async || (!has_image(&first.id)).then_some(())).await;
        assert!(has_image(&second.id));
        eventually("the second image is evicted", async || {
            assert_eq!(app.execute(&first).await.assert_outcome(200, "ok").output(), "first\n");
            (!has_image(&second.id)).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_backup_made_while_the_service_runs_is_restored_where_no_image_is() {
    let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(dir.path(), &[FILE]).await.healthy().await;
    let function = service.deploy(python("import os\nprint('hello', os.environ['FUNCTION_NAME'])")).await;
    let file = dir.path().join("backup.db");
    let backup = |file: &Path| outcome(dir.path(), &["backup", file.to_str().unwrap()], &[FILE]);
    assert!(backup(&file).status.success());
    let again = backup(&file);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("exists"), "{said}");
    service.delete_all(dir.path()).await;

    std::fs::create_dir(restored.path().join("data")).unwrap();
    std::fs::copy(&file, restored.path().join("data/store.db")).unwrap();
    let service = Service::start(restored.path(), &[FILE]).await.healthy().await;
    let listed = service.get("/api/functions").await.body;
    assert_eq!(listed[0]["functionId"], function.as_str());
    assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "hello function\n");
    service.delete_all(restored.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_image_that_cannot_be_built_again_is_an_error_to_all_who_wait_and_the_function_stays() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let function = service.deploy(python("print('still here')")).await;
    service.stop().await;
    for image in labelled(dir.path(), &["images"]) {
        docker(&["image", "rm", "--force", &image]);
    }
    // A base image that is in no registry.
    let service = Service::start(dir.path(), &[("PYTHON_IMAGE", "localhost:1/nothing:0")]).await.healthy().await;
    let executions = (0..5).map(|_| service.execute(&function));
    for answer in futures_util::future::join_all(executions).await {
        answer.assert_problem(500, "internal", "");
    }
    assert_eq!(service.get("/api/functions").await.body.as_array().unwrap().len(), 1);
    service.stop().await;
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "still here\n");
    service.delete_all(dir.path()).await;
}
