//! Faults made for real: each fault gives a clear answer in bounded time, loses nothing, and ends with its cause.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::multipart::{Form, Part};

use crate::held::HeldBuilds;
use crate::service::outcome;
use crate::stored::FILE;
use crate::support::{Answer, Engine, Service, TestApp, docker, eventually, python};

const PROGRAM: &str = "print('served')";

/// No client waits longer than this for an answer, whatever has broken.
const BOUND: Duration = Duration::from_secs(75);

async fn within(limit: Duration, answer: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(limit, answer).await.expect("the answer comes in bounded time")
}

async fn assert_served(service: &Service, function: &str) {
    let served = async || {
        let answer = service.execute(function).await;
        (answer.status == 200).then(|| assert_eq!(answer.output(), "served\n"))
    };
    eventually("the function is served again", served).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_daemon_that_is_stopped_restarted_or_hung_costs_no_function() {
    let mut engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("DOCKER_HOST", engine.host()),
        ("DOCKER_RUN_TIMEOUT", "60s".to_owned()),
        ("INSTANCE_IDLE_TIMEOUT", "1s".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let long = service.deploy(python("import time\ntime.sleep(50)\nprint('served')")).await;

    // The engine stops under an execution. That execution is lost, later executions fail at once, and every function is
    // listed.
    let stopped = async {
        let path = format!("/api/functions/{long}");
        eventually("the execution runs", async || service.get(&path).await.body["lastExecuted"].as_u64()).await;
        engine.stop().await;
    };
    let (answer, ()) = tokio::join!(within(BOUND, service.execute(&long)), stopped);
    assert_eq!((answer.status, answer.body["outcome"].as_str()), (500, Some("lost")), "{:#}", answer.body);
    within(Duration::from_secs(15), service.execute(&function)).await.assert_problem(
        503,
        "docker_unavailable",
        "/health",
    );
    within(Duration::from_secs(15), service.submit(python(PROGRAM))).await.assert_problem(
        503,
        "docker_unavailable",
        "/health",
    );
    eventually("the service is unhealthy", async || (service.get("/health").await.status == 503).then_some(())).await;
    assert_eq!(service.get("/api/functions").await.body.as_array().unwrap().len(), 2);
    engine.run().await;
    assert_served(&service, &function).await;

    // The engine restarts between executions.
    engine.stop().await;
    engine.run().await;
    assert_served(&service, &function).await;

    // The engine hangs. Probes answer, executions and submits end in bounded time, and the service recovers.
    eventually("the instances have ended", async || {
        engine.docker(&["ps", "--quiet"]).filter(|list| list.trim().is_empty()).map(drop)
    })
    .await;
    engine.signal("STOP");
    let (execution, submit, probe) = tokio::join!(
        within(BOUND, service.execute(&function)),
        within(BOUND, service.submit(python(PROGRAM))),
        within(Duration::from_secs(10), service.get("/health/live")),
    );
    assert!(matches!(execution.body["code"].as_str(), Some("docker_unavailable" | "overloaded")), "{execution:?}");
    submit.assert_problem(503, "docker_unavailable", "/health");
    probe.assert_status(200);
    within(Duration::from_secs(10), service.get("/health")).await.assert_status(503);
    engine.signal("CONT");
    assert_served(&service, &function).await;
    assert_eq!(service.get("/api/functions").await.body.as_array().unwrap().len(), 2);
    service.stop().await;
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]).unwrap(), "");
    engine.remove().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_killed_by_hand_loses_one_execution_and_no_more() {
    TestApp::run(&[], async |app| {
        let function =
            app.deploy(python("import time, os\ntime.sleep(float(os.environ['SECONDS']))\nprint('served')\n")).await;
        let long = app.execute_with(&function, serde_json::json!({"seconds": 30}));
        let killed = async {
            docker(&["kill", &app.begun(&function).await]);
        };
        let (answer, ()) = tokio::join!(long, killed);
        assert!(answer.assert_outcome(500, "lost").body["error"].is_string());
        let answer = app.execute_with(&function, serde_json::json!({"seconds": 0})).await;
        assert_eq!(answer.assert_outcome(200, "ok").output(), "served\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_the_docker_program_it_says_so_until_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let service = Service::start(dir.path(), &[("PATH", bin.to_str().unwrap())]).await;
    let submit = within(Duration::from_secs(5), service.submit(python(PROGRAM))).await;
    submit.assert_problem(503, "docker_unavailable", "/health");
    let health = eventually("the service is unhealthy", async || {
        let body = service.get("/health").await.body;
        body["reason"].as_str().filter(|reason| reason.contains("failed to run the docker client")).map(str::to_owned)
    });
    health.await;
    symlink(program("docker"), bin.join("docker")).unwrap();
    let service = service.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    std::fs::remove_file(bin.join("docker")).unwrap();
    // The warm instance needs no docker. A new instance would.
    assert_eq!(within(BOUND, service.execute(&function)).await.assert_outcome(200, "ok").output(), "served\n");
    symlink(program("docker"), bin.join("docker")).unwrap();
    service.healthy().await.delete_all(dir.path()).await;
}

/// The path of a program.
fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.exists()).expect(name)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_disk_below_the_floor_takes_no_submit() {
    TestApp::run(&[("MIN_FREE_DISK", "1000TB")], async |app| {
        app.submit(python(PROGRAM)).await.assert_problem(507, "insufficient_storage", "MIN_FREE_DISK");
        assert_eq!(app.get("/api/functions").await.assert_status(200).body, serde_json::json!([]));
    })
    .await;
}

/// A small disk. A drop unmounts the disk. Needs root.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, options: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        mount(&["-t", "tmpfs", "-o", options, "tmpfs", folder.to_str().unwrap()]);
        Self(folder.to_owned())
    }

    /// Takes all room but for some bytes, and returns the file that takes the room.
    fn fill(&self, left: u64) -> PathBuf {
        let file = self.0.join("filler");
        let _ = std::fs::write(&file, vec![0; 64 << 20]);
        let size = std::fs::metadata(&file).unwrap().len();
        std::fs::File::options().write(true).open(&file).unwrap().set_len(size - left).unwrap();
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.0.to_str().unwrap()]).status();
    }
}

#[track_caller]
fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}; these tests need root");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_full_disk_is_an_answer_and_costs_no_function() {
    for folder in ["data", "temp"] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::mount(&dir.path().join(folder), "size=8m");
        let service = Service::start(dir.path(), &[("MIN_FREE_DISK", "1"), FILE]).await.healthy().await;
        let function = service.deploy(python(PROGRAM)).await;
        let filler = disk.fill(40 << 10);
        // The text compresses poorly, so that the zip is larger than the room that is left.
        let noise: String = (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let large = python(&format!("print('served')\n# {noise}\n"));
        within(BOUND, service.submit(large.clone())).await.assert_problem(507, "insufficient_storage", "full");
        assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "served\n");
        std::fs::remove_file(filler).unwrap();
        let second = service.deploy(large).await;
        service.signal("KILL");
        service.end().await;
        let service = Service::start(dir.path(), &[("MIN_FREE_DISK", "1"), FILE]).await.healthy().await;
        for function in [function, second] {
            assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "served\n");
        }
        service.delete_all(dir.path()).await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn on_a_full_disk_the_history_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&dir.path().join("data"), "size=8m");
    let service = Service::start(dir.path(), &[("MIN_FREE_DISK", "1")]).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let executed = async || {
        let answer = service.execute(&function).await.assert_outcome(200, "ok");
        answer.body["invocationId"].as_str().unwrap().to_owned()
    };
    let mut ids = vec![executed().await];
    let list = format!("/api/functions/{function}/invocations");
    assert_eq!(service.get(&list).await.body["invocations"].as_array().unwrap().len(), 1);
    let filler = disk.fill(0);
    // The log of the database may have a little room yet.
    for _ in 0..60 {
        ids.push(executed().await);
    }
    let check = async || {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let part = service.get(&format!("{list}?limit=25{cursor}")).await.assert_status(200).body;
            found.extend(part["invocations"].as_array().unwrap().iter().map(|shown| shown["invocationId"].clone()));
            let Some(next) = part["nextCursor"].as_str() else { return found };
            cursor = format!("&cursor={next}");
        }
    };
    let newest_first: Vec<_> = ids.iter().rev().map(|id| serde_json::json!(id)).collect();
    assert_eq!(check().await, newest_first);
    let shown = service.get(&format!("/api/invocations/{}", ids[60])).await.assert_status(200);
    assert_eq!(shown.body["output"], "served\n");
    let events = service.text(&format!("/api/invocations/{}/events", ids[60])).await;
    assert!(events.contains("event: ended"), "{events}");
    std::fs::remove_file(filler).unwrap();
    assert_eq!(check().await, newest_first);
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn room_is_looked_for_when_it_is_a_builds_turn() {
    let dir = tempfile::tempdir().unwrap();
    let held = HeldBuilds::new(dir.path());
    let path = held.path();
    let disk = Disk::mount(&dir.path().join("temp"), "size=80m");
    let settings = [("PATH", path.as_str()), ("MAX_CONCURRENT_BUILDS", "1"), ("MIN_FREE_DISK", "40MB")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let submit = async |name: &str| {
        let part = Part::bytes(python(PROGRAM)).file_name(format!("{name}.zip"));
        let request = reqwest::Client::new().post(format!("{}/api/submit", service.url));
        crate::support::answer(request.multipart(Form::new().part("code", part))).await
    };
    let filled = async {
        held.begun().await;
        let second = submit("second");
        let full = async {
            // The upload has arrived while there was room.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let filler = disk.fill(20 << 20);
            held.release();
            filler
        };
        tokio::join!(second, full)
    };
    let (first, (second, filler)) = tokio::join!(submit("held"), filled);
    first.assert_status(200);
    second.assert_problem(507, "insufficient_storage", "MIN_FREE_DISK");
    std::fs::remove_file(filler).unwrap();
    submit("third").await.assert_status(200);
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn on_a_full_disk_what_waits_goes_on_waiting_and_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&dir.path().join("data"), "size=8m");
    let settings = [("MIN_FREE_DISK", "1"), ("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let slow = service.deploy(python("import time\ntime.sleep(1)\nprint('waited')")).await;
    let mut waiting = Vec::new();
    for n in 0..5 {
        let accepted = service.defer(&slow, serde_json::json!({"n": n})).await.assert_status(202);
        waiting.push(accepted.body["invocationId"].as_str().unwrap().to_owned());
    }
    let filler = disk.fill(0);
    let noise: String = (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let refused = within(BOUND, service.defer(&slow, serde_json::json!({"noise": &noise[..60_000]}))).await;
    refused.assert_problem(507, "insufficient_storage", "");
    for _ in 0..3 {
        assert_eq!(within(BOUND, service.execute(&function)).await.assert_outcome(200, "ok").output(), "served\n");
    }
    service.signal("KILL");
    service.end().await;

    // The start itself finds a little room to write. The start's backlog finds none.
    std::fs::remove_file(filler).unwrap();
    let filler = disk.fill(40 << 10);
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    for _ in 0..3 {
        assert_eq!(within(BOUND, service.execute(&function)).await.assert_outcome(200, "ok").output(), "served\n");
    }
    std::fs::remove_file(filler).unwrap();
    for id in waiting {
        let path = format!("/api/invocations/{id}");
        let ended = eventually("the invocation has ended", async || {
            let shown = service.get(&path).await.assert_status(200).body;
            (!["queued", "running"].contains(&shown["outcome"].as_str().unwrap())).then_some(shown)
        });
        let ended = ended.await;
        // One invocation may have run when the service was killed.
        assert!(ended["outcome"] == "lost" || ended["output"] == "waited\n", "{ended:#}");
    }
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_database_that_is_damaged_or_read_only_stops_the_start_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    Service::start(dir.path(), &[FILE]).await.stop().await;
    let file = dir.path().join("data/store.db");
    let said = || {
        let output = outcome(dir.path(), &[], &[("SERVER_PORT", "0"), FILE]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    {
        // No permission would stop a service that runs as root.
        let file = file.to_str().unwrap();
        mount(&["--bind", file, file]);
        let _mounted = Disk(file.into());
        mount(&["-o", "remount,bind,ro", file]);
        let message = said();
        assert!(
            message.contains("store.db can't be opened and written to") && message.contains("DATA_DIR"),
            "{message}"
        );
    }
    std::fs::write(&file, "not a database, not even nearly ".repeat(200)).unwrap();
    let message = said();
    assert!(message.contains("store.db is damaged") && message.contains("restore a backup"), "{message}");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_clock_that_jumps_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let library =
        ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];
    let library =
        library.into_iter().find(|library| Path::new(library).exists()).expect("Debian's package libfaketime");
    let settings = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let mut last = 0;
    for jump in ["+0", "+400d", "-400d", "+0"] {
        std::fs::write(&clock, jump).unwrap();
        let answer = within(BOUND, service.execute(&function)).await.assert_outcome(200, "ok");
        let executed_at = answer.body["executedAt"].as_u64().unwrap();
        let real = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert_eq!(executed_at.abs_diff(real) > 300 * 86400, jump != "+0", "the clock did jump");
        let shown = service.get(&format!("/api/functions/{function}")).await.body["lastExecuted"].as_u64().unwrap();
        assert!(shown >= last, "the last execution never goes back");
        last = shown;
        service.well().await;
    }
    service.signal("KILL");
    service.end().await;
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "served\n");
    service.delete_all(dir.path()).await;
}
