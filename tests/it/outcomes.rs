//! How executions end: every row of the contract's table, with the evidence.

use std::time::{Duration, Instant};

use crate::support::{Engine, Service, TestApp, docker, go, python};

/// Takes all memory of the container, slowly enough that no other process takes the blame.
const HOG: &str = "hog = []\nwhile True:\n    hog.append(bytearray(1 << 20))\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn another_exit_status_is_the_functions_failure() {
    TestApp::run(&[], async |app| {
        let function =
            app.deploy(python("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)\n")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "exit");
        assert_eq!((answer.body["exitCode"].as_i64(), answer.output(), answer.stderr()), (Some(3), "out\n", "err\n"));
        assert!(answer.body["error"].as_str().unwrap().contains("exit status 3"), "{answer:?}");
        // A shell reports SIGKILL as 137. From the function itself 137 is only a number.
        let function = app.deploy(python("raise SystemExit(137)")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "exit");
        assert_eq!(answer.body["exitCode"], 137);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_exception_has_a_traceback_with_no_frame_of_ours() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("def f():\n    return 1 / 0\n\nf()\n")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "exit");
        let stderr = answer.stderr();
        assert!(
            stderr.starts_with("Traceback (most recent call last):\n  File \"/app/main.py\", line 4, in <module>"),
            "{stderr}"
        );
        assert!(stderr.ends_with("ZeroDivisionError: division by zero\n") && !stderr.contains("bootstrap"), "{stderr}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_signal_is_named() {
    TestApp::run(&[], async |app| {
        for signal in ["SIGKILL", "SIGSEGV", "SIGTERM"] {
            let program =
                format!("import os, signal\nprint('before', flush=True)\nos.kill(os.getpid(), signal.{signal})\n");
            let function = app.deploy(python(&program)).await;
            let answer = app.execute(&function).await.assert_outcome(500, "signal");
            assert!(answer.body["error"].as_str().unwrap().contains(signal), "{answer:?}");
            assert_eq!((answer.output(), answer.body["exitCode"].is_null()), ("before\n", true));
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn out_of_memory_is_told_from_a_crash() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(&format!("print('before', flush=True)\n{HOG}"))).await;
        let answer = app.execute(&function).await.assert_outcome(500, "out_of_memory");
        assert!(answer.body["error"].as_str().unwrap().contains("128000000 bytes"), "{answer:?}");
        assert_eq!(answer.output(), "before\n");
        // The kernel kills a child, and the function itself goes on.
        let program = format!("import os\nif os.fork() == 0:\n    exec({HOG:?})\nos.wait()\nprint('went on')\n");
        let function = app.deploy(python(&program)).await;
        let answer = app.execute(&function).await.assert_outcome(500, "out_of_memory");
        assert_eq!((answer.output(), answer.body["exitCode"].as_i64()), ("went on\n", Some(0)));
        let function = app.deploy(go("func main() {\n\tvar hog [][]byte\n\tfor {\n\t\tb := make([]byte, 1<<20)\n\t\tfor i := range b {\n\t\t\tb[i] = 1\n\t\t}\n\t\thog = append(hog, b)\n\t}\n}\n")).await;
        app.execute(&function).await.assert_outcome(500, "out_of_memory");
    })
    .await;
}

/// An OCI runtime that hides how often the OOM killer has acted, as some runtimes do. Docker itself still knows.
const SILENT: &str = r#"#!/usr/bin/env python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    spec = json.load(open(path))
    spec["linux"]["maskedPaths"] += ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
    json.dump(spec, open(path, "w"))
os.execvp("runc", ["runc"] + sys.argv[1:])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn out_of_memory_is_told_of_one_invocation_where_only_docker_knows() {
    let engine = Engine::start_with_runtime(Some(SILENT)).await;
    let host = engine.host();
    let dir = tempfile::tempdir().unwrap();
    let settings = [("DOCKER_HOST", host.as_str()), ("DOCKER_RUNTIME", "leaky"), ("GO_IMAGE", "no-such-image")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let program = format!(
        "import os, time\nif os.environ.get('HOG') == 'child' and os.fork() == 0:\n    exec({HOG:?})\nif os.environ.get('HOG') == 'self':\n    exec({HOG:?})\nif os.environ.get('HOG'):\n    os.wait()\n    time.sleep(3)\nprint('went on')\n"
    );
    let id = service.deploy(python(&program)).await;
    for hog in ["child", "self", "child"] {
        // The program runs twice, so that the second run is in a container that is used again.
        for _ in 0..2 {
            let answer = service.execute(&id).await.assert_outcome(200, "ok");
            assert_eq!(answer.output(), "went on\n", "after {hog}");
        }
        let answer =
            service.execute_with(&id, serde_json::json!({"hog": hog})).await.assert_outcome(500, "out_of_memory");
        assert_eq!(answer.body["exitCode"].as_i64(), (hog == "child").then_some(0));
        let after = service.execute(&id).await.assert_outcome(200, "ok");
        assert_eq!(after.body["start"], "cold");
    }
    service.stop().await;
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]).unwrap(), "");
    engine.remove().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn after_a_timeout_it_is_dead_and_its_output_is_kept() {
    TestApp::run(&[("DOCKER_RUN_TIMEOUT", "5s")], async |app| {
        let function = app.deploy(python("import time\nprint('before', flush=True)\ntime.sleep(600)\n")).await;
        let answer = app.execute(&function).await.assert_outcome(504, "timeout");
        assert_eq!(app.containers_of(&function), [""; 0]);
        assert_eq!(answer.output(), "before\n");
        assert!(answer.body["error"].as_str().unwrap().contains("DOCKER_RUN_TIMEOUT"), "{answer:?}");
        // Neither a handler nor a flood helps the function.
        let program = "import signal, sys\nfor s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    sys.stdout.write('x' * 65536)\n";
        let function = app.deploy(python(program)).await;
        let answer = app.execute(&function).await.assert_outcome(504, "timeout");
        assert_eq!(app.containers_of(&function), [""; 0]);
        assert_eq!((answer.output().len(), answer.body["truncated"].as_bool()), (1_000_000, Some(true)));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_that_is_killed_by_hand_is_lost() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("import time\nprint('before', flush=True)\ntime.sleep(20)\n")).await;
        let killed = async {
            let name = app.begun(&function).await;
            // The function's first line needs a moment more. The function must be in the middle of its sleep.
            tokio::time::sleep(Duration::from_secs(2)).await;
            docker(&["kill", &name]);
        };
        let (answer, ()) = tokio::join!(app.execute(&function), killed);
        let answer = answer.assert_outcome(500, "lost");
        assert_eq!(answer.output(), "before\n");
        app.execute_with(&function, serde_json::json!({})).await.assert_outcome(200, "ok");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_flood_is_drained_and_cut() {
    TestApp::run(&[], async |app| {
        let program = "import sys\nfor _ in range(1600):\n    sys.stdout.write('o' * 65536)\n    sys.stderr.write('e' * 65536)\nprint('end')\n";
        let function = app.deploy(python(program)).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output().len(), answer.stderr().len()), (1_000_000, 1_000_000));
        assert_eq!(answer.body["truncated"], true);
        assert!(answer.output().bytes().all(|b| b == b'o') && answer.stderr().bytes().all(|b| b == b'e'));
    })
    .await;
    TestApp::run(&[("MAX_OUTPUT_SIZE", "5")], async |app| {
        let function = app.deploy(python("print('12345', end='')")).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), answer.body["truncated"].as_bool()), ("12345", Some(false)));
        let function = app.deploy(python("print('1234é', end='')")).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), answer.body["truncated"].as_bool()), ("1234", Some(true)));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bytes_that_are_no_text_are_replaced() {
    TestApp::run(&[], async |app| {
        let program = r"import sys; sys.stdout.buffer.write(b'a\xff\xc3\xa9\x00b'); sys.stderr.buffer.write(b'\xc3')";
        let function = app.deploy(python(program)).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), answer.stderr()), ("a\u{fffd}é\0b", "\u{fffd}"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_left_running_does_not_hold_up_the_answer() {
    TestApp::run(&[], async |app| {
        let program = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\nos.wait()\nprint('done')\n";
        let function = app.deploy(python(program)).await;
        let started = Instant::now();
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "done\n");
        assert!(started.elapsed() < Duration::from_secs(20), "the execution took {:?}", started.elapsed());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_functions_end_as_python_functions_do() {
    TestApp::run(&[("DOCKER_RUN_TIMEOUT", "10s")], async |app| {
        let function = app.deploy(go("import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfmt.Println(\"out\")\n\tfmt.Fprintln(os.Stderr, \"err\")\n\tos.Exit(3)\n}\n")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "exit");
        assert_eq!((answer.body["exitCode"].as_i64(), answer.output(), answer.stderr()), (Some(3), "out\n", "err\n"));
        let function = app.deploy(go("func main() {\n\tpanic(\"oh no\")\n}\n")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "exit");
        assert_eq!(answer.body["exitCode"], 2);
        assert!(answer.stderr().starts_with("panic: oh no\n\ngoroutine 1 [running]:"), "{answer:?}");
        let function = app.deploy(go("import \"syscall\"\n\nfunc main() {\n\tsyscall.Kill(syscall.Getpid(), syscall.SIGKILL)\n}\n")).await;
        let answer = app.execute(&function).await.assert_outcome(500, "signal");
        assert!(answer.body["error"].as_str().unwrap().contains("SIGKILL"), "{answer:?}");
        let function = app.deploy(go("import (\n\t\"fmt\"\n\t\"time\"\n)\n\nfunc main() {\n\tfmt.Println(\"before\")\n\ttime.Sleep(time.Hour)\n}\n")).await;
        let answer = app.execute(&function).await.assert_outcome(504, "timeout");
        assert_eq!(answer.output(), "before\n");
        assert_eq!(app.containers_of(&function), [""; 0]);
    })
    .await;
}
