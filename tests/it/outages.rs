//! Invocations and removals wait quietly while Docker is away or full, and go on once Docker is back.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Engine, Service, eventually, python, zip};

/// The number of docker commands that have ended, without those that ask whether Docker answers.
async fn commands(service: &Service) -> u64 {
    let metrics = service.text("/metrics").await;
    let counts = metrics.lines().filter(|line| {
        line.starts_with("youtube_serverless_docker_command_duration_seconds_count") && !line.contains("\"version\"")
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn accept(service: &Service, function: &str, count: u32) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0..count {
        let answer = service.defer(function, json!({"n": n})).await.assert_status(202);
        accepted.push(answer.body["invocationId"].as_str().unwrap().to_owned());
    }
    accepted
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_is_tried_again_and_again_while_docker_is_away() {
    let mut engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let host = engine.host();
    let settings = [("DOCKER_HOST", host.as_str()), ("LOG_LEVEL", "warn"), ("INSTANCE_IDLE_TIMEOUT", "1s")];
    let service = Service::start_logged(dir.path(), &settings, &log).await.healthy().await;
    let kept = service.deploy(python("print('kept')")).await;
    let mut gone = Vec::new();
    for _ in 0..3 {
        gone.push(service.deploy(python("print('gone')")).await);
    }
    engine.stop().await;
    eventually("the service is unhealthy", async || (service.get("/health").await.status == 503).then_some(())).await;
    for _ in 0..4 {
        service.submit(python("print('new')")).await.assert_problem(503, "docker_unavailable", "/health");
    }
    for id in &gone {
        service.delete(id).await.assert_status(200);
    }
    let accepted = accept(&service, &kept, 20).await;
    eventually("the last commands have ended", async || {
        let before = commands(&service).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        (commands(&service).await == before).then_some(())
    })
    .await;

    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    let said = |text: &str| std::fs::read_to_string(&log).unwrap().matches(text).count();
    let (commands_before, lines_before) = (commands(&service).await, lines());
    let (began, before, mut new) = (Instant::now(), service.child_ids(), HashSet::new());
    for _ in 0..120 {
        new.extend(service.child_ids().into_iter().filter(|id| !before.contains(id)));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (commands_then, lines_then) = (commands(&service).await, lines());
    assert_eq!(commands_then, commands_before, "the only docker commands ask whether Docker is back");
    assert_eq!(lines_then, lines_before, "{}", std::fs::read_to_string(&log).unwrap());
    let most = began.elapsed().as_secs() as usize / 2 + 2;
    assert!(new.len() <= most, "{new:?}: docker clients beside one in two seconds");
    assert_eq!(said("docker does not answer"), 1);

    engine.run().await;
    for id in accepted {
        assert_eq!(service.ended(&id).await["outcome"], "ok");
    }
    eventually("the images of deleted functions are gone", async || {
        let images = engine.docker(&["images", "--format", "{{.Repository}}"]).unwrap();
        gone.iter().all(|id| !images.contains(id)).then_some(())
    })
    .await;
    service.delete(&kept).await.assert_status(200);
    service.stop().await;
    engine.remove().await;
}

/// A disk without room. A drop unmounts the disk. Needs root.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(folder: PathBuf) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&folder).status().unwrap();
        assert!(mounted.success(), "these tests need root");
        let _ = std::fs::write(folder.join("filler"), vec![0; 64 << 10]);
        Self(folder)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// An engine, a service with a short patience for idle instances, and a function whose first instances have ended.
struct Outage {
    engine: Engine,
    dir: tempfile::TempDir,
    service: Service,
    function: String,
}

fn settings(host: &str) -> [(&str, &str); 3] {
    [("DOCKER_HOST", host), ("INSTANCE_IDLE_TIMEOUT", "1s"), ("DOCKER_CONTAINER_LIMIT", "3")]
}

impl Outage {
    async fn prepare() -> Self {
        let engine = Engine::start().await;
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start(dir.path(), &settings(&engine.host())).await.healthy().await;
        let function = service.deploy(python("print('ran')")).await;
        // The instance that the pool starts ahead of need has come up by then.
        service.execute(&function).await.assert_outcome(200, "ok");
        eventually("no container is left", async || {
            engine.docker(&["ps", "--all", "--quiet"]).filter(|list| list.trim().is_empty()).map(drop)
        })
        .await;
        Self { engine, dir, service, function }
    }

    /// All accepted executions end well, and the service stops cleanly.
    async fn assert_over(self, accepted: &[String]) {
        for id in accepted {
            assert_eq!(self.service.ended(id).await["outcome"], "ok");
        }
        self.service.delete(&self.function).await.assert_status(200);
        self.service.stop().await;
        self.engine.remove().await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn accepted_executions_outlive_a_full_disk_of_docker() {
    let outage = Outage::prepare().await;
    let Outage { engine, service, function, .. } = &outage;
    let disk = FullDisk::mount(engine.containers_dir());
    service.execute(function).await.assert_problem(507, "insufficient_storage", "full");
    let accepted = accept(service, function, 5).await;
    // The outage lasts longer than all tries of an invocation whose failure may be the function's fault.
    tokio::time::sleep(Duration::from_secs(35)).await;
    drop(disk);
    outage.assert_over(&accepted).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn accepted_executions_outlive_a_hung_docker() {
    let Outage { engine, dir, service, function } = Outage::prepare().await;
    engine.signal("STOP");
    let mut accepted = accept(&service, &function, 5).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    // No accepted invocation is lost or given up.
    service.signal("KILL");
    service.end().await;
    let open = crate::stored::open_invocations(dir.path()).await;
    assert_eq!(open.iter().map(|one| one.tries).collect::<Vec<_>>(), [0; 5]);
    let service = Service::start(dir.path(), &settings(&engine.host())).await;
    accepted.extend(accept(&service, &function, 5).await);
    engine.signal("CONT");
    Outage { engine, dir, service, function }.assert_over(&accepted).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_build_left_in_an_engine_that_was_killed_goes_when_the_engine_is_back() {
    let mut engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &settings(&engine.host())).await.healthy().await;
    // The looks after a start are over, and the next one is in ten minutes.
    tokio::time::sleep(Duration::from_secs(45)).await;
    // Python needs many seconds to compile the modules.
    let module =
        (0..20_000).fold(String::new(), |code, n| code + &format!("def f{n}(a, b):\n    return [a, b, {n}]\n"));
    let names: Vec<String> = (0..30).map(|n| format!("module{n}.py")).collect();
    let mut files = vec![("main.py", "print(1)")];
    files.extend(names.iter().map(|name| (name.as_str(), module.as_str())));
    let submitting = tokio::spawn(service.submission(zip(&files)).send());
    eventually("a step of the build runs", async || {
        let names = engine.docker(&["ps", "--format", "{{.Names}}"]).unwrap();
        names.lines().any(|name| !name.starts_with("youtube-serverless-")).then_some(())
    })
    .await;
    engine.kill().await;
    assert_ne!(crate::support::read(submitting.await.unwrap().unwrap()).await.status, 200);
    eventually("the service is unhealthy", async || (service.get("/health").await.status == 503).then_some(())).await;
    engine.run().await;
    let left = || engine.docker(&["ps", "--all", "--quiet"]).unwrap();
    assert!(!left().trim().is_empty(), "the engine has the container of the step");
    eventually("no container is left", async || left().trim().is_empty().then_some(())).await;
    service.stop().await;
    engine.remove().await;
}
