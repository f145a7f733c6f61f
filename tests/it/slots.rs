//! Slots: containers that run already, without a function, and take a function's code at its call.

mod lazy_imports;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Deployed, Service, TestApp, docker, eventually, go, labelled, python, zip};

/// One container for a function, and a slot for each language. An instance is idle for a short time only.
pub(crate) const ONE_EACH: [(&str, &str); 4] =
    [("DOCKER_CONTAINER_LIMIT", "4"), ("SLOTS_PYTHON", "1"), ("SLOTS_GO", "1"), ("INSTANCE_IDLE_TIMEOUT", "100ms")];

/// Tells what a process sees of its container, but for what differs between two containers.
const EVIDENCE: &str = "
import os, re
for name in ('/proc/self/status', '/proc/self/mounts', '/proc/self/limits', '/proc/net/dev'):
    for line in open(name):
        if re.match('Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig|Shd|Umask|/|Max|tmpfs|overlay|proc| *lo:', line):
            print(re.sub('7[0-9]{4}|lowerdir=.*', 'X', line.strip()))
for name in ('memory.max', 'pids.max', 'cpu.max', 'memory/memory.limit_in_bytes', 'pids/pids.max', 'cpu/cpu.cfs_quota_us'):
    if os.path.exists('/sys/fs/cgroup/' + name):
        print(name, open('/sys/fs/cgroup/' + name).read())
print(os.listdir('/sys/class/net'), sorted(os.listdir('/proc/self/fd')), sorted(os.environ), os.getcwd())
";

impl TestApp {
    /// The number of slots that are ready.
    pub(crate) async fn slots(&self) -> usize {
        self.instances("slot").await
    }

    pub(crate) async fn slots_are_ready(&self, count: usize) {
        eventually("slots are ready", async || (self.slots().await == count).then_some(())).await;
    }

    /// Waits until the next execution of the function starts with a slot: the function's files are on disk, no instance
    /// is left, and slots are ready.
    pub(crate) async fn fit(&self, trees: usize, slots: usize) {
        let folder = self.dir.path().join("data/trees");
        eventually("the files are on disk", async || (names(&folder).len() == trees).then_some(())).await;
        // An instance is busy for a moment after the answer, and idle only then.
        let none = ["busy", "idle"].map(|state| format!("youtube_serverless_instances{{state=\"{state}\"}} 0"));
        eventually("no instance is left", async || {
            let text = self.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
            none.iter().all(|line| text.contains(line)).then_some(())
        })
        .await;
        self.slots_are_ready(slots).await;
    }
}

/// The trees in the cache, without those that are being made.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[track_caller]
pub(crate) fn start_of(answer: &Answer) -> &str {
    answer.body["start"].as_str().unwrap()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn functions_of_both_languages_take_slots() {
    // The second execution finds the instance of the first.
    TestApp::run(&[&ONE_EACH[..], &[("INSTANCE_IDLE_TIMEOUT", "3s")]].concat(), async |app| {
        let hello = app.deploy(python("import json\nprint(json.dumps('hello'))")).await;
        let other = app.deploy(go("import \"os\"\n\nfunc main() {\n\tos.Stdout.WriteString(\"hello\")\n}\n")).await;
        for (function, output) in [(&hello, "\"hello\"\n"), (&other, "hello")] {
            app.fit(2, 2).await;
            let answer = app.execute(function).await.assert_outcome(200, "ok");
            assert_eq!((answer.output(), start_of(&answer)), (output, "slot"));
            let answer = app.execute(function).await.assert_outcome(200, "ok");
            assert_eq!((answer.output(), start_of(&answer)), (output, "warm"));
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_instance_from_a_slot_is_as_isolated_as_any_other() {
    let mut seen = Vec::new();
    for slots in ["0", "1"] {
        let settings = [ONE_EACH[0], ("SLOTS_PYTHON", slots), ONE_EACH[3]];
        TestApp::run(&settings, async |app| {
            let writer = "for name in ('/app/x', '/app/main.py', '/opt/youtube-serverless/packages/x', '/x'):\n    try:\n        open(name, 'a')\n        print('written', name)\n    except OSError:\n        pass\n";
            let function = app.deploy(python(&format!("{EVIDENCE}{writer}"))).await;
            if slots == "1" {
                app.fit(1, 1).await;
            }
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!(start_of(&answer) == "slot", slots == "1");
            let lines = answer.output().lines().map(str::to_owned);
            // The files come by mounts, which the function can't write to.
            let is_mount = |line: &String| line.contains(" /app ") || line.contains(" /opt/youtube-serverless/packages ");
            let (mounts, rest): (Vec<String>, Vec<String>) = lines.partition(is_mount);
            assert!(mounts.iter().all(|line| line.split(' ').nth(3).unwrap().starts_with("ro,")), "{mounts:#?}");
            assert_eq!(mounts.len(), if slots == "1" { 2 } else { 0 });
            assert!(!rest.iter().any(|line| line.starts_with("written")), "{rest:#?}");
            seen.push(rest);
        })
        .await;
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slot_is_never_a_second_functions() {
    TestApp::run(&ONE_EACH, async |app| {
        let program = "import os\nprint(os.uname().nodename)\n";
        let mut functions = Vec::new();
        for _ in 0..3 {
            functions.push(app.deploy(python(program)).await);
        }
        let mut hosts = std::collections::HashSet::new();
        for function in &functions {
            app.fit(3, 2).await;
            let answer = app.execute(function).await.assert_outcome(200, "ok");
            assert_eq!(start_of(&answer), "slot");
            assert!(hosts.insert(answer.output().to_owned()), "a container was used twice");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn all_files_are_there_as_in_the_image() {
    TestApp::run(&ONE_EACH, async |app| {
        let program = "import os, sys\nfrom pkg.part import VALUE\nfor place, folders, files in sorted(os.walk('/app')):\n    for name in [*folders, *files]:\n        info = os.stat(os.path.join(place, name))\n        print(place, name, oct(info.st_mode), info.st_size, int(info.st_mtime), info.st_uid, info.st_gid)\ninfo = os.stat('/app')\nprint(oct(info.st_mode), int(info.st_mtime), info.st_uid, info.st_gid)\nprint(VALUE, open('pkg/data.bin').read(), sys.path, 'own' in dir())\nimport own.main\n";
        // One folder at the top, whose name is a package's.
        let files = zip(&[
            ("own/main.py", program),
            ("own/pkg/__init__.py", ""),
            ("own/pkg/part.py", "VALUE = 7\n"),
            ("own/pkg/data.bin", "data"),
        ]);
        let function = app.deploy(files).await;
        let of_image = app.execute(&function).await.assert_outcome(200, "ok");
        assert_ne!(start_of(&of_image), "slot");
        app.fit(1, 2).await;
        let of_slot = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(start_of(&of_slot), "slot");
        assert_eq!(of_slot.output(), of_image.output());
        assert!(of_slot.output().contains("__pycache__"), "{}", of_slot.output());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_update_takes_the_new_code_and_a_delete_the_files() {
    TestApp::run(&ONE_EACH, async |app| {
        let function = app.deploy(python("print('old')")).await;
        app.fit(1, 2).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "old\n");
        app.update(&function, python("print('new')")).await.assert_status(200);
        app.fit(2, 2).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), start_of(&answer)), ("new\n", "slot"));
        app.delete(&function.id).await.assert_status(200);
        let folder = app.dir.path().join("data/trees");
        eventually("no files are left", async || names(&folder).is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn functions_that_take_no_slot_start_as_before() {
    TestApp::run(&[ONE_EACH[0], ONE_EACH[1], ONE_EACH[3]], async |app| {
        let fit = app.deploy(python("print('ok')")).await;
        let unfit = app.deploy(python("print('ok')")).await;
        app.fit(2, 1).await;
        for settings in [
            json!({"memory": "64MB"}),
            json!({"memory": null, "preload": "off"}),
            json!({"preload": null, "environment": {"OPENSSL_CONF": "/x"}}),
        ] {
            let patched = app.patch(&unfit, settings).await.assert_status(200);
            app.fit(2, 1).await;
            let answer = app.execute(&unfit).await.assert_outcome(200, "ok");
            assert_ne!(start_of(&answer), "slot", "{:#}", patched.body);
        }
        app.fit(2, 1).await;
        assert_eq!(start_of(&app.execute(&fit).await.assert_outcome(200, "ok")), "slot");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slot_that_is_gone_and_files_that_are_damaged_cost_no_request() {
    TestApp::run(&ONE_EACH, async |app| {
        let function = app.deploy(python("print('ok')")).await;
        app.fit(1, 2).await;
        for name in app.all_containers().iter().filter(|name| name.contains("-slot-")) {
            docker(&["kill", name]);
        }
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "ok\n");
        app.fit(1, 2).await;
        let folder = app.dir.path().join("data/trees");
        let main = || names(&folder).first().map(|name| folder.join(name).join("app/main.py"));
        std::fs::write(main().unwrap(), "print('no')").unwrap();
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((answer.output(), start_of(&answer)), ("ok\n", "cold"));
        eventually("the files are taken anew", async || {
            let content = std::fs::read_to_string(main()?).unwrap_or_default();
            (content == "print('ok')").then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_that_goes_out_of_memory_takes_no_slot_afterwards() {
    TestApp::run(&ONE_EACH, async |app| {
        let function = app.deploy(python("import os\nif 'MUCH' in os.environ:\n    bytearray(500 << 20)\n")).await;
        app.fit(1, 2).await;
        let answer = app.execute_with(&function, json!({"much": "1"})).await;
        assert_eq!(start_of(&answer.assert_outcome(500, "out_of_memory")), "slot");
        app.fit(1, 2).await;
        assert_eq!(start_of(&app.execute(&function).await.assert_outcome(200, "ok")), "cold");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn slots_make_room_for_functions_that_take_none() {
    let settings = [("DOCKER_CONTAINER_LIMIT", "2"), ("SLOTS_PYTHON", "1"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        app.slots_are_ready(1).await;
        let functions = [app.deploy(python("print('a')")).await, app.deploy(python("print('b')")).await];
        // Two functions in use have all containers.
        for _ in 0..5 {
            for (function, output) in functions.iter().zip(["a\n", "b\n"]) {
                assert_eq!(app.execute(function).await.assert_outcome(200, "ok").output(), output);
                assert!(app.all_containers().iter().filter(|name| !name.contains("-tree-")).count() <= 2);
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_files_keep_within_their_budget() {
    TestApp::run(&[&ONE_EACH[..], &[("SLOT_CACHE_SIZE", "60KB")]].concat(), async |app| {
        let large = "#".repeat(20_000);
        let mut functions = Vec::new();
        for _ in 0..4 {
            functions.push(app.deploy(python(&format!("print('ok') {large}"))).await);
        }
        let folder = app.dir.path().join("data/trees");
        eventually("one or two trees are left", async || (1..=2).contains(&names(&folder).len()).then_some(())).await;
        for function in &functions {
            app.execute(function).await.assert_outcome(200, "ok");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_is_left_of_slots_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("SLOTS_PYTHON", "1"), ("SLOTS_GO", "1")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("print('ok')")).await;
    let platform = std::fs::read_to_string(dir.path().join("data/platform-id")).unwrap();
    eventually("slots run", async || {
        let label = format!("label=youtube-serverless.platform={platform}");
        let names = docker(&["ps", "--filter", &label, "--format", "{{.Names}}"]);
        (names.iter().filter(|name| name.contains("-slot-")).count() == 2).then_some(())
    })
    .await;
    assert!(service.temp_files() >= 2);
    service.signal("KILL");
    service.end().await;
    let trees = dir.path().join("data/trees");
    std::fs::create_dir(trees.join(".half")).unwrap();
    std::fs::write(trees.join("stray"), "a file").unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    assert!(!trees.join(".half").exists() && !trees.join("stray").exists());
    service.execute(&id).await.assert_outcome(200, "ok");
    eventually("one container is left", async || (labelled(dir.path(), &["ps", "--all"]).len() == 1).then_some(()))
        .await;
    eventually("no folder is left", async || (service.temp_files() == 0).then_some(())).await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn where_there_are_pipes_there_are_no_slots() {
    TestApp::run(&[("SLOTS_PYTHON", "1"), ("SLOTS_GO", "1"), ("INSTANCE_TRANSPORT", "pipes")], async |app| {
        let function = app.deploy(python("print('ok')")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(app.slots().await, 0);
        app.execute(&function).await.assert_outcome(200, "ok");
    })
    .await;
}

impl TestApp {
    async fn patch(&self, function: &Deployed, settings: serde_json::Value) -> Answer {
        let request = self.request(reqwest::Method::PATCH, &format!("/api/functions/{}", function.id));
        crate::support::answer(request.json(&settings)).await
    }
}
