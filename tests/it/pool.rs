//! Warm instances: which instances are used again, which function gets an instance, and that nothing survives an
//! invocation.

use std::collections::HashSet;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Deployed, TestApp, answer, docker, eventually, go, python};

const WHERE: &str = "import socket\nprint(socket.gethostname())\n";

/// Waits until the instance of a submit is there.
async fn warmed(app: &TestApp, function: &Deployed) {
    eventually("the function is warm", async || {
        let answer = app.execute(function).await.assert_outcome(200, "ok");
        (answer.body["start"] == "warm").then_some(())
    })
    .await;
}

fn at_once(app: &TestApp, function: &Deployed, n: usize) -> JoinSet<Answer> {
    let mut executions = JoinSet::new();
    for _ in 0..n {
        let request = app.request(reqwest::Method::GET, &format!("/api/execute?functionId={}", function.id));
        executions.spawn(answer(request));
    }
    executions
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_instance_is_reused_and_says_so() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        for zip in [
            python(WHERE),
            go("import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tname, _ := os.Hostname()\n\tfmt.Println(name)\n}\n"),
        ] {
            let function = app.deploy(zip).await;
            warmed(app, &function).await;
            let mut hosts = HashSet::new();
            for _ in 0..20 {
                let answer = app.execute(&function).await.assert_outcome(200, "ok");
                assert_eq!(answer.body["start"], "warm");
                assert!(answer.headers["server-timing"].to_str().unwrap().starts_with("queue;dur="));
                hosts.insert(answer.output().to_owned());
            }
            assert_eq!(hosts.len(), 1, "{hosts:?}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_survives_an_invocation() {
    // The one other process is the zygote.
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let program = r#"
import os, sys, time
left = [os.listdir(d) for d in ("/tmp", "/dev/shm", "/dev/mqueue")]
others = [p for p in os.listdir("/proc") if p.isdigit() and p not in ("1", str(os.getpid()))]
print(left, len(others), os.environ.get("SECRET_BEFORE"), "sibling" in sys.modules, os.getcwd())
os.environ["SECRET_BEFORE"] = "x"
os.makedirs("/tmp/a/b/c")
open("/tmp/a/b/file", "w").write("x")
os.symlink("/etc", "/tmp/link")
os.mkfifo("/tmp/fifo")
os.chmod("/tmp/a/b", 0)
open("/dev/shm/left", "w").write("x")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        time.sleep(600)
    os._exit(0)
os.wait()
"#;
        let function = app.deploy(python(program)).await;
        warmed(app, &function).await;
        for _ in 0..5 {
            let answer = app.execute_with(&function, json!({"secret": "y"})).await.assert_outcome(200, "ok");
            assert_eq!(
                (answer.output(), answer.body["start"].as_str()),
                ("[[], [], []] 1 None False /app\n", Some("warm"))
            );
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_cannot_be_cleaned_is_replaced() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        // A SysV segment outlives every process.
        let program = "import ctypes, socket\nlibc = ctypes.CDLL(None)\nassert libc.shmget(0, 4096, 0o1600) >= 0\nprint(socket.gethostname())\n";
        let function = app.deploy(python(program)).await;
        let mut hosts = HashSet::new();
        for _ in 0..3 {
            hosts.insert(app.execute(&function).await.assert_outcome(200, "ok").output().to_owned());
        }
        assert_eq!(hosts.len(), 3, "{hosts:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn with_one_invocation_an_instance_each_is_fresh_and_warm() {
    TestApp::run(&[("INSTANCE_MAX_INVOCATIONS", "1"), ("DOCKER_CONTAINER_LIMIT", "4")], async |app| {
        let function = app.deploy(python(WHERE)).await;
        let mut hosts = HashSet::new();
        for _ in 0..5 {
            // At a moderate rate the replacement has its time to start.
            eventually("the replacement is there", async || (app.instances("idle").await == 1).then_some(())).await;
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!(answer.body["start"], "warm");
            assert!(hosts.insert(answer.output().to_owned()), "a container was used twice");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn concurrent_first_requests_and_short_bursts_share_a_start() {
    TestApp::run(&[], async |app| {
        // Where the machine keeps the first instance from its work, more starts are right.
        let mut fewest = usize::MAX;
        for _ in 0..5 {
            let function = app.deploy(python(WHERE)).await;
            let answers = at_once(app, &function, 16).join_all().await;
            let hosts: HashSet<String> =
                answers.into_iter().map(|answer| answer.assert_outcome(200, "ok").output().to_owned()).collect();
            fewest = fewest.min(hosts.len());
            if fewest <= 3 {
                break;
            }
        }
        assert!(fewest <= 3, "16 requests of a millisecond started {fewest} containers");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn long_requests_get_an_instance_each() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "4"), ("DOCKER_RUN_TIMEOUT", "15m"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        let function = app.deploy(python("import time\ntime.sleep(600)\n")).await;
        let _executions = at_once(app, &function, 4);
        eventually("each has an instance", async || (app.instances("busy").await == 4).then_some(())).await;
        assert_eq!(app.containers_of(&function).len(), 4);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn idle_instances_make_room_and_end_in_time() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("INSTANCE_IDLE_TIMEOUT", "2s"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        let first = app.deploy(python("print(1)")).await;
        warmed(app, &first).await;
        let second = app.deploy(python("print(2)")).await;
        assert_eq!(app.execute(&second).await.assert_outcome(200, "ok").output(), "2\n");
        assert_eq!(app.containers_of(&first), [""; 0]);
        eventually("idle instances have ended", async || app.containers().is_empty().then_some(())).await;
        assert_eq!(app.execute(&first).await.assert_outcome(200, "ok").body["start"], "cold");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_under_full_load_starves_no_other() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "3"), ("QUEUE_TIMEOUT", "120s")], async |app| {
        let loaded = app.deploy(python("import time\ntime.sleep(1)\n")).await;
        let other = app.deploy(python("print('my turn')")).await;
        let mut load = at_once(app, &loaded, 60);
        app.begun(&loaded).await;
        let answer = app.execute(&other).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "my turn\n");
        let waiting = load.len() - std::iter::from_fn(|| load.try_join_next()).count();
        assert!(waiting > 20, "the load was over before the other function had its turn: {waiting} of 60 left");
        for answer in load.join_all().await {
            answer.assert_outcome(200, "ok");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_idle_container_that_was_killed_is_replaced() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")], async |app| {
        let function = app.deploy(python("print('ok')")).await;
        warmed(app, &function).await;
        let name = app.containers_of(&function).pop().unwrap();
        docker(&["kill", &name]);
        // Docker learns of the end after the socket has ended.
        eventually("the container has ended", async || {
            docker(&["ps", "--quiet", "--filter", &format!("name={name}")]).is_empty().then_some(())
        })
        .await;
        app.execute(&function).await.assert_outcome(200, "ok");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_idle_container_that_was_killed_is_replaced_also_where_a_docker_client_is_attached() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s"), ("INSTANCE_TRANSPORT", "pipes")];
    TestApp::run(&settings, async |app| {
        let function = app.deploy(python("print('ok')")).await;
        warmed(app, &function).await;
        let name = app.containers_of(&function).pop().unwrap();
        let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_client = |entry: &std::fs::DirEntry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
        };
        let client = processes.find(|entry| is_client(entry)).expect("a docker client").path();
        docker(&["kill", &name]);
        // An ending process loses its command line before its parent can wait for the process. Its first thread may end
        // before the others.
        eventually("the docker client has ended", async || match std::fs::read_to_string(client.join("stat")) {
            Ok(stat) if !stat.contains(") Z ") => None,
            Ok(_) if std::fs::read_dir(client.join("task")).is_ok_and(|threads| threads.count() > 1) => None,
            Ok(_) | Err(_) => Some(()),
        })
        .await;
        app.execute(&function).await.assert_outcome(200, "ok");
    })
    .await;
}
