//! Starting and stopping, limits under load, clients that leave, and a Docker that is not there.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::service::outcome;
use crate::support::{OF_NO_PLATFORM, Service, TestApp, answer, docker, eventually, labelled, python};

#[tokio::test]
#[ignore = "needs docker"]
async fn running_executions_may_end_before_a_stop() {
    TestApp::run(&[("SERVER_SHUTDOWN_TIMEOUT", "60s")], async |app| {
        let function = app.deploy(python("import time\nprint('up', flush=True)\ntime.sleep(2)\nprint('done')\n")).await;
        let stopped = async {
            app.begun(&function).await;
            app.stop();
        };
        let (answer, ()) = tokio::join!(app.execute(&function), stopped);
        assert_eq!(answer.assert_outcome(200, "ok").output(), "up\ndone\n");
        app.client.get(&app.url).send().await.expect_err("the service no longer accepts connections");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_does_not_end_within_the_grace_is_ended() {
    TestApp::run(&[("SERVER_SHUTDOWN_TIMEOUT", "1s")], async |app| {
        let function = app.deploy(python("import time\ntime.sleep(600)\n")).await;
        let stopped = async {
            app.begun(&function).await;
            app.stop();
        };
        let request = app.request(reqwest::Method::GET, &format!("/api/execute?functionId={}", function.id));
        let (response, ()) = tokio::join!(request.send(), stopped);
        response.expect_err("the service cut the connection");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_container_limit_holds_under_load() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "2"), ("QUEUE_TIMEOUT", "120s")], async |app| {
        let function = app.deploy(python("import os\nprint(os.environ['N'])\n")).await;
        let mut executions = JoinSet::new();
        for n in 0..12 {
            let body = json!({"functionId": function.id, "input": {"n": n}}).to_string();
            let request = app
                .request(reqwest::Method::POST, "/api/execute")
                .header("content-type", "application/json")
                .body(body);
            executions.spawn(async move { (n, answer(request).await) });
        }
        while !executions.is_empty() {
            assert!(app.containers().len() <= 2, "there are more than two containers");
            // This thread polls the requests.
            tokio::time::sleep(Duration::from_millis(20)).await;
            while let Some(ended) = executions.try_join_next() {
                let (n, answer) = ended.unwrap();
                assert_eq!(answer.assert_outcome(200, "ok").output(), format!("{n}\n"));
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_full_queue_turns_away_at_once_and_a_long_wait_in_time() {
    let sleep = "import time\ntime.sleep(600)\n";
    for (settings, detail) in [(("QUEUE_LIMIT", "0"), "QUEUE_LIMIT"), (("QUEUE_TIMEOUT", "200ms"), "QUEUE_TIMEOUT")] {
        TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "15m"), settings], async |app| {
            let function = app.deploy(python(sleep)).await;
            let first = app.request(reqwest::Method::GET, &format!("/api/execute?functionId={}", function.id));
            let first = tokio::spawn(first.send());
            app.begun(&function).await;
            let answer = app.execute(&function).await.assert_problem(429, "overloaded", detail);
            assert_eq!(answer.headers["retry-after"], "1");
            assert!(!first.is_finished());
            first.abort();
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_client_that_leaves_frees_its_container() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let sleeper = app.deploy(python("import time\ntime.sleep(600)\n")).await;
        let request = app.request(reqwest::Method::GET, &format!("/api/execute?functionId={}", sleeper.id));
        let client = tokio::spawn(request.send());
        app.begun(&sleeper).await;
        client.abort();
        let function = app.deploy(python("print('my turn')")).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "my turn\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_deleted_functions_execution_ends_by_itself_and_then_its_image_goes() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("import time\ntime.sleep(3)\nprint('ended')\n")).await;
        let deleted = async {
            app.begun(&function).await;
            app.delete(&function.id).await.assert_status(200);
            app.execute(&function).await.assert_problem(404, "function_not_found", "");
        };
        let (answer, ()) = tokio::join!(app.execute(&function), deleted);
        assert_eq!(answer.assert_outcome(200, "ok").output(), "ended\n");
        eventually("the image is gone", async || app.images().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_that_does_not_arrive_in_time_is_ended() {
    TestApp::run(&[("SERVER_READ_TIMEOUT", "500ms")], async |app| {
        let address = app.url.strip_prefix("http://").unwrap();
        let answered = async |request: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            tokio::time::timeout(Duration::from_secs(20), read).await.expect("the service ends the connection").unwrap();
            answer
        };
        assert_eq!(answered("").await, "");
        let answer = answered("GET /health HTTP/1.1\r\nHo").await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
        let json = "POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
        let answer = answered(json).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
        let form = "POST /api/submit HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 100\r\nconnection: close\r\n\r\n--x\r\n";
        let answer = answered(form).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_an_answering_docker_it_serves_what_it_can_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]).await;
    let health = eventually("the service has asked docker", async || {
        let health = service.get("/health").await;
        (!health.body["reason"].as_str().unwrap().contains("not asked yet")).then_some(health)
    })
    .await;
    assert_eq!((health.status, health.body["status"].as_str()), (503, Some("unavailable")));
    assert!(health.body["reason"].as_str().unwrap().contains("does not answer"), "{health:?}");
    service.get("/health/live").await.assert_status(200);
    assert_eq!(service.get("/api/functions").await.assert_status(200).body, json!([]));
    service.submit(python("")).await.assert_problem(503, "docker_unavailable", "/health");
    service.signal("TERM");
    service.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_docker_that_hangs_hangs_no_probe() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    // The socket accepts connections and says nothing, like a stopped daemon.
    let _hung = UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    let service = Service::start(dir.path(), &[("DOCKER_HOST", &host)]).await;
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(service.get("/health").await.status, 503);
        // A probe that waited for Docker would take the 4 s that the question may take.
        assert!(started.elapsed() < Duration::from_millis(3500), "a probe took {:?}", started.elapsed());
    }
    eventually("the timeout is noticed", async || {
        service.get("/health").await.body["reason"].as_str().unwrap().contains("did not end within").then_some(())
    })
    .await;
    service.signal("TERM");
    service.signal("TERM");
    service.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_bad_start_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let said = |settings: &[(&str, &str)]| {
        let output = outcome(dir.path(), &[], settings);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = said(&[("DOCKER_RUN_TIMEOUT", "soon")]);
    assert_eq!(code, Some(78));
    assert!(message.contains("DOCKER_RUN_TIMEOUT is \"soon\"; expected a duration"), "{message}");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, message) = said(&[("SERVER_PORT", &port)]);
    assert_eq!(code, Some(1));
    assert!(message.contains(&port) && message.contains("SERVER_PORT"), "{message}");
    let service = Service::start(dir.path(), &[]).await;
    let (code, message) = said(&[("SERVER_PORT", "0")]);
    assert_eq!(code, Some(1));
    assert!(message.contains("another process (pid ") && message.contains("DATA_DIR"), "{message}");
    drop(service);
    // The service reads a `.env` in the working directory. The environment itself wins.
    std::fs::write(dir.path().join(".env"), "QUEUE_LIMIT=many\nSERVER_PORT=bad\n").unwrap();
    let (code, message) = said(&[("SERVER_PORT", "0")]);
    assert_eq!(code, Some(78));
    assert!(message.contains("QUEUE_LIMIT is \"many\""), "{message}");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_deleted_just_before_a_stop_leaves_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let id = service.deploy(python("print('served')")).await;
    service.execute(&id).await.assert_outcome(200, "ok");
    // The function's warm container still has the image.
    service.delete(&id).await.assert_status(200);
    service.stop().await;
    assert_eq!(labelled(dir.path(), &["images"]), [""; 0]);
    assert_eq!(labelled(dir.path(), &["ps", "--all"]), [""; 0]);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_image_without_a_name_goes_once_its_container_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let function = service.deploy(python("print('short')")).await;
    // Docker leaves such an image where a container is made of an image whose name is just removed.
    let label = format!(
        "LABEL youtube-serverless.platform={}",
        std::fs::read_to_string(dir.path().join("data/platform-id")).unwrap()
    );
    let base = docker(&["create", &std::env::var("PYTHON_IMAGE").unwrap(), "true"]).remove(0);
    let unnamed = docker(&["commit", "--change", &label, &base]).remove(0);
    let user = docker(&[&["create"], &OF_NO_PLATFORM[..], &[&unnamed, "true"]].concat()).remove(0);
    service.delete(&function).await.assert_status(200);
    let unnamed = &unnamed["sha256:".len()..][..12];
    eventually("only the unnamed image is left", async || {
        (labelled(dir.path(), &["images"]) == [unnamed]).then_some(())
    })
    .await;
    docker(&["rm", &base, &user]);
    service.delete_all(dir.path()).await;
}
