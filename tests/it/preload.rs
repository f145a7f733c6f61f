//! Preloading: what is imported ahead, what is left out and why, and what each process has of its own.

use std::collections::HashSet;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Answer, Deployed, Index, Service, TestApp, answer, go, python, wheel, zip};

const NOTES: &str = "NOTES = []\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn imports_are_there_from_the_start_of_a_process_and_each_process_is_fresh() {
    let main = "import sys\nfound = [name for name in ('json', 'decimal', 'fractions', 'helper') if name in sys.modules]\n\
                import json, helper\nif found is None:\n    import fractions\njson.marks = getattr(json, 'marks', 0) + 1\n\
                helper.NOTES.append(1)\nprint(found, json.marks, helper.NOTES)\n";
    let helper = format!("from decimal import Decimal\n{NOTES}");
    TestApp::run(&[], async |app| {
        let function = app.deploy(zip(&[("main.py", main), ("helper.py", &helper)])).await;
        for _ in 0..3 {
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!(answer.output(), "['json', 'decimal'] 1 [1]\n");
        }
        let found = preloaded(app, &function).await;
        assert_eq!((&found["mode"], &found["modules"]), (&json!("auto"), &json!(["sys", "json", "decimal"])));
        assert!(found["excluded"] == json!([]) && found["savedMs"].as_f64().unwrap() > 0.0, "{found:#}");
        let go = app.deploy(go("func main() {\n\tprint(1)\n}\n")).await;
        assert_eq!(preloaded(app, &go).await, Value::Null);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_function_and_the_operator_say_how_far_it_goes() {
    let (name, content) = wheel("one", &[("one.py", "X = 1\n")]);
    let index = Index::of(&[(&name, content)], None);
    let url = format!("http://{}/simple", index.authority);
    let program =
        "import sys\nprint([name for name in ('json', 'one', 'csv') if name in sys.modules])\nimport json, one\n";
    let package = || Part::bytes(zip(&[("main.py", program), ("requirements.txt", "one\n")])).file_name("a.zip");
    for (limit, expected) in [
        ("auto", ["['json', 'one']", "['json']", "[]", "['csv']"]),
        ("stdlib", ["['json']", "['json']", "[]", "['csv']"]),
        ("off", ["[]", "[]", "[]", "[]"]),
    ] {
        TestApp::run(&[("PIP_INDEX_URL", &url), ("PRELOAD", limit)], async |app| {
            let form = Form::new().part("code", package()).text("preload", "auto");
            let submitted = app.submit_form(form).await.assert_status(200);
            let id = submitted.body["functionId"].as_str().unwrap().to_owned();
            let function = Deployed { id, image: String::new() };
            for (wish, expected) in [json!("auto"), json!("stdlib"), json!("off"), json!(["csv"])].iter().zip(expected)
            {
                let changed = configure(app, &function, &json!({"preload": wish})).await.assert_status(200);
                let answer = app.execute(&function).await.assert_outcome(200, "ok");
                assert_eq!(answer.output().trim_end(), expected, "{wish} within {limit}");
                let mode = match (limit, wish.as_str()) {
                    ("off", _) => json!("off"),
                    ("stdlib", Some("auto")) => json!("stdlib"),
                    _ => wish.clone(),
                };
                assert_eq!(changed.body["settings"]["preload"]["mode"], mode, "{wish} within {limit}");
            }
            for wish in [json!("on"), json!(["a b"]), json!(7), json!({"json": true})] {
                let refused = configure(app, &function, &json!({"preload": wish})).await;
                refused.assert_problem(400, "invalid_request", "`preload`");
            }
        })
        .await;
    }
}

/// Modules that must be left out, with the reason.
const UNFIT: &[(&str, &str, &str)] = &[
    (
        "a_thread",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n",
        "starts a thread",
    ),
    ("a_process", "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n", "starts a process"),
    (
        "a_daemon",
        "import os, time\nif os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n",
        "starts a process",
    ),
    ("a_descriptor", "import os\nR, W = os.pipe()\n", "opens a descriptor"),
    ("a_mapping", "import mmap\nM = mmap.mmap(-1, 4096)\n", "maps memory"),
    ("a_handler", "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\n", "a signal does"),
    ("a_timer", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1000)\n", "sets a timer"),
    ("a_folder", "import os\nos.chdir('/')\n", "working directory"),
    ("a_umask", "import os\nos.umask(0)\n", "umask"),
    ("a_locale", "import locale\nlocale.setlocale(locale.LC_ALL, 'C')\n", "locale"),
    (
        "a_limit",
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nimport os\nos.nice(1)\n",
        "limit or priority",
    ),
    ("a_file", "open('/tmp/left', 'w').close()\n", "leaves a file"),
    ("a_print", "print('hello')\n", "prints"),
    ("a_write", "import os\nos.write(2, b'hello')\n", "prints"),
    ("an_error", "raise ValueError('no')\n", "raises ValueError: no"),
    ("an_exit", "raise SystemExit\n", "raises SystemExit"),
    ("a_hard_exit", "import os\nos._exit(0)\n", "ends the process"),
    ("a_crash", "import ctypes\nctypes.string_at(0)\n", "ends the process"),
    ("a_glutton", "x = [bytearray(1 << 20) for _ in range(1000)]\n", "needs more memory"),
    ("a_look_back", "try:\n    import helper\nexcept Exception:\n    pass\n", "imports helper, a module of the zip"),
];

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_new_process_must_not_inherit_is_left_out_with_the_reason() {
    let files: Vec<(String, &str)> = UNFIT.iter().map(|(name, code, _)| (format!("{name}.py"), *code)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, code)| (name.as_str(), *code)).collect();
    let slow = "import time\ntime.sleep(0.1)\nprint('slow')\n";
    let files = [&files[..], &[("fit.py", "X = 1\n"), ("a_slow_print.py", slow)]].concat();
    let (name, content) = wheel("unfit", &files);
    let index = Index::of(&[(&name, content)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        for half in UNFIT.chunks(10) {
            // The handler is for the modules that raise: each import stands at the top level.
            let imports: String = half
                .iter()
                .map(|(name, ..)| format!("try:\n    import {name}\nexcept BaseException: pass\n"))
                .collect();
            let main = format!(
                "import os, sys\nprint('fit' in sys.modules)\nsys.stdout.flush()\nimport fit\n\
                                if 'run' in os.environ:\n    sys.exit(0)\n{imports}"
            );
            let files = [("main.py", main.as_str()), ("helper.py", NOTES), ("requirements.txt", "unfit\n")];
            let function = app.deploy(zip(&files)).await;
            let found = preloaded(app, &function).await;
            let reason = |module: &str| {
                let rows = found["excluded"].as_array().unwrap();
                rows.iter().find(|row| row["module"] == module).map(|row| row["reason"].as_str().unwrap().to_owned())
            };
            for (module, _, expected) in half {
                let reason = reason(module);
                assert!(reason.as_ref().is_some_and(|reason| reason.contains(expected)), "{module}: {reason:?}");
            }
            assert!(found["modules"].as_array().unwrap().contains(&json!("fit")), "{found:#}");
            let input = json!({"RUN": "1"});
            let answer = app.execute_with(&function, input).await.assert_status(200);
            assert!(answer.output().starts_with("True\n"), "{}", answer.output());
        }
        let submitted = app.submit(zip(&[("main.py", "import a_slow_print\n"), ("requirements.txt", "unfit\n")])).await;
        let warnings = submitted.assert_status(200).body["warnings"].to_string();
        assert!(warnings.contains("a_slow_print takes ") && warnings.contains("the module prints"), "{warnings}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_module_that_does_not_fit_in_memory_has_a_clear_outcome() {
    let (name, content) = wheel("glutton", &[("glutton.py", UNFIT.iter().find(|row| row.0 == "a_glutton").unwrap().1)]);
    let index = Index::of(&[(&name, content)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let function = app.deploy(zip(&[("main.py", "import glutton\n"), ("requirements.txt", "glutton\n")])).await;
        for _ in 0..2 {
            app.execute(&function).await.assert_outcome(500, "out_of_memory");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_random_number_comes_twice() {
    let generators =
        "import random\nA = random.Random()\nB = random.Random(42)\nclass C(random.Random): pass\nD = C(7)\n";
    let main = "import random, secrets, tempfile, uuid, generators, numpy\nfrom numpy.random import default_rng, RandomState\n\
                import more\n\
                print(random.random(), random.gauss(0, 1), secrets.token_hex(), uuid.uuid4(), uuid.uuid1(), tempfile.mktemp())\n\
                print(generators.A.random(), generators.B.random(), generators.B.gauss(0, 1), generators.D.random())\n\
                print(numpy.random.rand(), numpy.random.standard_normal(), more.R.random(), more.S.rand(), more.S.standard_normal())\n";
    let more = "import numpy\nfrom numpy.random import MT19937, Generator, Philox, default_rng, RandomState\n\
                R = default_rng(1)\nS = RandomState(2)\nS.standard_normal()\nT = Generator(Philox(3))\n";
    let (name, content) = wheel("generators", &[("generators.py", generators), ("more.py", more)]);
    let index = Index::of(&[(&name, content)], None);
    let extra = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_EXTRA_INDEX_URL", &extra), ("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let function = app.deploy(zip(&[("main.py", main), ("requirements.txt", "generators\nnumpy\n")])).await;
        let found = preloaded(app, &function).await;
        assert!(found["modules"].as_array().unwrap().contains(&json!("numpy")), "{found:#}");
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            for word in answer.output().split_whitespace() {
                assert!(seen.insert(word.to_owned()), "{word} came twice");
            }
        }
        assert!(seen.len() >= 200 * 14, "{}", seen.len());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_module_sees_the_functions_own_environment_and_a_change_of_the_environment() {
    let files = [("seen.py", "import os, time\nSEEN = os.environ.get('A'), os.environ.get('KEY'), time.tzname[0]\n")];
    let (name, content) = wheel("seen", &files);
    let index = Index::of(&[(&name, content)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let program = "import os, seen\nprint(seen.SEEN, os.environ.get('A'))\n";
        let function = app.deploy(zip(&[("main.py", program), ("requirements.txt", "seen\n")])).await;
        assert_eq!(app.execute(&function).await.output(), "(None, None, 'UTC') None\n");
        let change = json!({"environment": {"A": "1", "TZ": "Asia/Tokyo"}, "secrets": {"KEY": "k"}});
        configure(app, &function, &change).await.assert_status(200);
        assert_eq!(app.execute(&function).await.output(), "('1', 'k', 'JST') 1\n");
        assert_eq!(app.execute_with(&function, json!({"A": "2"})).await.output(), "('1', 'k', 'JST') 2\n");
        assert_eq!(app.execute(&function).await.output(), "('1', 'k', 'JST') 1\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_was_found_out_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let id = service.deploy(python("import json\nprint(1)\n")).await;
    let path = format!("/api/functions/{id}/settings");
    let before = service.get(&path).await.body["preload"].clone();
    assert_eq!(before["modules"], json!(["json"]));
    service.stop().await;
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    assert_eq!(service.get(&path).await.body["preload"], before);
    service.execute(&id).await.assert_outcome(200, "ok");
    service.delete(&id).await.assert_status(200);
    service.stop().await;
}

async fn preloaded(app: &TestApp, function: &Deployed) -> Value {
    app.get(&format!("/api/functions/{}/settings", function.id)).await.assert_status(200).body["preload"].clone()
}

async fn configure(app: &TestApp, function: &Deployed, change: &Value) -> Answer {
    answer(app.request(Method::PATCH, &format!("/api/functions/{}", function.id)).json(change)).await
}
