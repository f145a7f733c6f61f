//! Functions that change: another version, a rollback, other settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{Service, TestApp, answer, eventually, go, python, store_url};

const NO_ID: &str = "123e4567-e89b-42d3-a456-426614174000";

fn printing(text: &str) -> Vec<u8> {
    python(&format!("print({text:?}, end='')\n"))
}

/// Clients that execute a function again and again. Each client expects the version that was last answered before the
/// client's request, or a later version.
async fn clients(
    url: String,
    id: String,
    outputs: &'static [&'static str],
    answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) {
    let one = async || {
        let (client, mut executions) = (Client::new(), 0);
        while !over.load(Ordering::Relaxed) {
            let before = answered.load(Ordering::Relaxed);
            let got = answer(client.get(format!("{url}/api/execute?functionId={id}"))).await.assert_outcome(200, "ok");
            let at =
                outputs.iter().position(|&output| output == got.output()).expect("the output is an expected output");
            assert!(at >= before, "{:?} after {:?} was answered", outputs[at], outputs[before]);
            executions += 1;
        }
        executions
    };
    let counts: [usize; 3] = tokio::join!(one(), one(), one()).into();
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_request_fails_or_runs_old_code_while_a_function_changes() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "4")], async |app| {
        let function = app.deploy(printing("one")).await;
        let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let outputs = &["one", "two", "three", "two "];
        let clients = clients(app.url.clone(), function.id.clone(), outputs, Arc::clone(&answered), Arc::clone(&over));
        let changes = async {
            let pause = || tokio::time::sleep(Duration::from_millis(500));
            pause().await;
            let updated = app.update(&function, printing("two")).await.assert_status(200).body;
            answered.store(1, Ordering::Relaxed);
            assert_eq!((&updated["functionId"], updated["version"].as_u64()), (&json!(function.id), Some(2)));
            assert_ne!(updated["imageId"], json!(function.image));
            pause().await;
            app.update(&function, printing("three")).await.assert_status(200);
            answered.store(2, Ordering::Relaxed);
            pause().await;
            app.update(&function, printing("two ")).await.assert_status(200);
            answered.store(3, Ordering::Relaxed);
            pause().await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(clients, changes);
        let shown = app.get(&format!("/api/functions/{}", function.id)).await.assert_status(200).body;
        assert_eq!(shown["version"], 4);
        // The images of the version and of the version before are kept.
        eventually("other images are gone", async || (app.images().len() == 2).then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn versions_are_listed_and_any_kept_one_runs_again() {
    TestApp::run(&[("MAX_FUNCTION_VERSIONS", "3")], async |app| {
        let function = app.deploy(printing("one")).await;
        app.roll_back(&function, "").await.assert_problem(409, "no_former_version", &function.id);
        app.update(&function, printing("two")).await.assert_status(200);
        let program = "import \"fmt\"\n\nfunc main() { fmt.Print(\"three\") }\n";
        app.update(&function, go(program)).await.assert_status(200);
        // The first request after the update finds an instance.
        let executed = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((executed.output(), &executed.body["start"]), ("three", &json!("warm")));
        assert_eq!(app.get(&format!("/api/functions/{}", function.id)).await.body["language"], "golang");

        // A rollback to the version before, and back, needs no build: both versions have their images.
        eventually("other images are gone", async || (app.images().len() == 2).then_some(())).await;
        let images = app.images();
        let back = app.roll_back(&function, "").await.assert_status(200).body;
        assert_eq!(back["version"], 2);
        assert_eq!(app.execute(&function).await.output(), "two");
        assert_eq!(app.roll_back(&function, "").await.assert_status(200).body["version"], 3);
        assert_eq!(app.execute(&function).await.output(), "three");
        assert_eq!(app.images(), images);
        // A rollback to a version without an image builds the image again.
        assert_eq!(app.roll_back(&function, "?version=1").await.assert_status(200).body["version"], 1);
        let executed = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(executed.output(), "one");
        let shown =
            app.get(&format!("/api/invocations/{}", executed.body["invocationId"].as_str().unwrap())).await.body;
        assert_eq!(shown["version"], 1, "{shown:#}");

        app.update(&function, printing("four")).await.assert_status(200);
        app.update(&function, printing("five")).await.assert_status(200);
        let versions = app.get(&format!("/api/functions/{}/versions", function.id)).await.assert_status(200).body;
        let numbers: Vec<_> = versions.as_array().unwrap().iter().map(|one| one["version"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [5, 4, 3], "{versions:#}");
        assert_eq!((&versions[0]["isCurrent"], &versions[2]["isCurrent"]), (&json!(true), &json!(false)));
        assert_eq!((&versions[0]["language"], &versions[2]["language"]), (&json!("python"), &json!("golang")));
        app.roll_back(&function, "?version=1").await.assert_problem(404, "version_not_found", "version 1");
        app.roll_back(&function, "?version=x").await.assert_problem(400, "invalid_request", "version");
        app.get(&format!("/api/functions/{NO_ID}/versions")).await.assert_problem(404, "function_not_found", NO_ID);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_does_not_become_a_version_changes_nothing() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(printing("one")).await;
        let images = app.images();
        let broken = app.update(&function, go("func main() { undefined() }\n")).await;
        let broken = broken.assert_problem(422, "build_failed", "buildLog").body;
        assert!(broken["buildLog"].as_str().unwrap().contains("undefined"), "{broken:#}");
        app.update(&function, b"no zip".to_vec()).await.assert_problem(400, "invalid_archive", "zip");
        let nobody = crate::support::Deployed { id: NO_ID.to_owned(), image: String::new() };
        app.update(&nobody, printing("two")).await.assert_problem(404, "function_not_found", NO_ID);
        // The update's client leaves during the build.
        let slow = go("import \"fmt\"\n\nfunc main() { fmt.Print(\"two\") }\n");
        let form = Form::new().part("code", Part::bytes(slow).file_name("function.zip"));
        let request = app.request(Method::PUT, &format!("/api/functions/{}", function.id)).multipart(form);
        assert!(request.timeout(Duration::from_millis(300)).send().await.is_err());
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "one");
        eventually("nothing else is left", async || (app.images() == images).then_some(())).await;
        let versions = app.get(&format!("/api/functions/{}/versions", function.id)).await.body;
        assert_eq!(versions.as_array().unwrap().len(), 1);
        // A function that is deleted during an update's build does not come back.
        let (updated, deleted) = tokio::join!(app.update(&function, go("func main() {}\n")), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            app.delete(&function.id).await
        });
        deleted.assert_status(200);
        updated.assert_problem(404, "function_not_found", &function.id);
        eventually("no image is left", async || app.images().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_busy_platform_keeps_no_function_from_changing() {
    // The long execution takes longer than QUEUE_TIMEOUT.
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_LIMIT", "1")];
    TestApp::run(&settings, async |app| {
        let function = app.deploy(printing("one")).await;
        let long = app.deploy(python("import time\ntime.sleep(20)\nprint('long')\n")).await;
        let busy = async || drop(app.execute(&long).await.assert_outcome(200, "ok"));
        // A new version waits for a container. A version that has run before needs no container first.
        let update = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            app.update(&function, printing("two")).await.assert_status(200);
            assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "two");
        };
        tokio::join!(busy(), update);
        let roll_back = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(app.roll_back(&function, "").await.assert_status(200).body["version"], 1);
        };
        tokio::join!(busy(), roll_back);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "one");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_update_that_is_sent_again_is_one_version() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(printing("one")).await;
        let put = async |key: &str, text: &str| {
            let form = Form::new().part("code", Part::bytes(printing(text)).file_name("function.zip"));
            let request = app.request(Method::PUT, &format!("/api/functions/{}", function.id)).multipart(form);
            answer(request.header("idempotency-key", key)).await
        };
        assert_eq!(put("a", "two").await.assert_status(200).body["version"], 2);
        assert_eq!(put("a", "two").await.assert_status(200).body["version"], 2);
        put("a", "three").await.assert_problem(422, "idempotency_key_reused", "Idempotency-Key");
        assert_eq!(put("b", "three").await.assert_status(200).body["version"], 3);
        let versions = app.get(&format!("/api/functions/{}/versions", function.id)).await.body;
        assert_eq!(versions.as_array().unwrap().len(), 3);
    })
    .await;
}

const SHOW: &str = "import os\nprint(os.environ.get('GREETING'), os.environ.get('API_KEY'), end='')\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_has_settings_of_its_own() {
    TestApp::run(&[], async |app| {
        let form = Form::new().part("code", Part::bytes(python(SHOW)).file_name("function.zip")).text("memory", "64MB");
        let form = form.text("cpus", "0.5").text("timeout", "5s").text("environment", r#"{"GREETING": "Hello"}"#);
        let submitted = app.submit_form(form.text("secrets", r#"{"API_KEY": "c0nf1dent1al"}"#)).await.assert_status(200).body;
        let id = submitted["functionId"].as_str().unwrap().to_owned();
        let function = crate::support::Deployed { id, image: String::new() };
        let path = format!("/api/functions/{}", function.id);
        let settings = without_preload(app.get(&format!("{path}/settings")).await.assert_status(200).body);
        let environment = json!({"GREETING": "Hello"});
        let expected =
            json!({"memory": 64_000_000, "cpus": 0.5, "timeout": "5s", "concurrency": null, "keepWarm": 0, "network": null, "http": "off", "notify": null, "environment": environment, "secrets": ["API_KEY"]});
        assert_eq!(settings, expected);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "Hello c0nf1dent1al");
        let replaced = app.execute_with(&function, json!({"greeting": "Bye"})).await;
        assert_eq!(replaced.assert_outcome(200, "ok").output(), "Bye c0nf1dent1al");
        app.execute_with(&function, json!({"api-key": "x"})).await.assert_problem(400, "invalid_input", "API_KEY");

        // The settings are the limits of the function's containers and invocations.
        let large = "import time\nx = bytearray(80_000_000)\n";
        app.update(&function, python(large)).await.assert_status(200);
        let failed = app.execute(&function).await.assert_outcome(500, "out_of_memory");
        assert!(failed.body["error"].as_str().unwrap().contains("64000000"), "{:#}", failed.body);
        app.configure(&function, json!({"memory": null})).await.assert_status(200);
        app.execute(&function).await.assert_outcome(200, "ok");
        app.update(&function, python("import time\ntime.sleep(20)\n")).await.assert_status(200);
        let failed = app.execute(&function).await.assert_outcome(504, "timeout");
        assert!(failed.body["error"].as_str().unwrap().contains("5s"), "{:#}", failed.body);

        // A variable that the request does not name stays. A variable with null goes.
        let change =
            json!({"name": "other", "timeout": null, "environment": {"GREETING": null, "N": 5}, "secrets": {"API_KEY": "n3w"}});
        let changed = app.configure(&function, change).await.assert_status(200).body;
        assert_eq!((&changed["name"], &changed["version"]), (&json!("other"), &json!(3)));
        let expected = json!({"memory": null, "cpus": 0.5, "timeout": null, "concurrency": null, "keepWarm": 0, "network": null, "http": "off", "notify": null, "environment": {"N": "5"}, "secrets": ["API_KEY"]});
        assert_eq!(without_preload(changed["settings"].clone()), expected);
        app.update(&function, python(SHOW)).await.assert_status(200);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "None n3w");
        app.post_json("/api/functions/other/invoke", "{}").await.assert_outcome(200, "ok");

        for (change, detail) in [
            (json!({"memory": "2GB"}), "MAX_FUNCTION_MEMORY"),
            (json!({"memory": 1}), "16000000"),
            (json!({"cpus": 1000}), "MAX_FUNCTION_CPUS"),
            (json!({"timeout": "1h"}), "MAX_FUNCTION_TIMEOUT"),
            (json!({"environment": {"PATH": "/"}}), "PATH"),
            (json!({"environment": {"API_KEY": "x"}}), "API_KEY"),
            (json!({"secrets": {"a=b": "x"}}), "a=b"),
        ] {
            app.configure(&function, change).await.assert_problem(400, "invalid_settings", detail);
        }
        app.configure(&function, json!({"memmory": 1})).await.assert_problem(400, "invalid_request", "`memory`");
        app.configure(&function, json!([])).await.assert_problem(400, "invalid_request", "JSON object");
        let leaky = app.configure(&function, json!({"secrets": "API_KEY=h1dden"})).await;
        let leaky = leaky.assert_problem(400, "invalid_request", "`secrets`");
        assert!(!leaky.body.to_string().contains("h1dden"), "{:#}", leaky.body);
        app.configure(&function, json!({"memory": "much"})).await.assert_problem(400, "invalid_request", "`memory`");
        let form = Form::new().part("code", Part::bytes(python(SHOW))).text("secrets", "API_KEY=x");
        app.submit_form(form).await.assert_problem(400, "invalid_request", "`secrets`");
        // No value of the environment is shown anywhere else.
        let listed = app.get("/api/functions").await.body.to_string();
        let versions = app.get(&format!("{path}/versions")).await.body.to_string();
        assert!(!listed.contains("n3w") && !versions.contains("n3w") && !listed.contains("settings"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn another_environment_costs_no_instance() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(SHOW)).await;
        // A module that is preloaded sees the environment, and then another environment needs another instance.
        app.configure(&function, json!({"preload": "off"})).await.assert_status(200);
        eventually("the instance before is gone", async || (app.containers_of(&function).len() == 1).then_some(()))
            .await;
        app.execute(&function).await.assert_outcome(200, "ok");
        let containers = app.containers_of(&function);
        app.configure(&function, json!({"environment": {"GREETING": "Hi"}, "timeout": "5s"})).await.assert_status(200);
        let executed = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!((executed.output(), &executed.body["start"]), ("Hi None", &json!("warm")));
        assert_eq!(app.containers_of(&function), containers);
        // Other limits need another instance: the instance before goes, and another waits.
        app.configure(&function, json!({"memory": "96MB"})).await.assert_status(200);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").body["start"], "warm");
        eventually("the instance before is gone", async || (app.containers_of(&function).len() == 1).then_some(()))
            .await;
        assert_ne!(app.containers_of(&function), containers);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn versions_and_settings_outlive_a_crash_and_no_secret_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let id = service.deploy(printing("one")).await;
    let client = Client::new();
    let path = format!("{}/api/functions/{id}", service.url);
    let put = |zip: Vec<u8>| {
        client.put(&path).multipart(Form::new().part("code", Part::bytes(zip).file_name("function.zip")))
    };
    answer(put(printing("two"))).await.assert_status(200);
    answer(put(printing("three"))).await.assert_status(200);
    let change = json!({"environment": {"GREETING": "Hi"}, "secrets": {"API_KEY": "c0nf1dent1al"}, "memory": "96MB"});
    answer(client.patch(&path).json(&change)).await.assert_status(200);
    let states = async |service: &Service| {
        let function = service.get(&format!("/api/functions/{id}")).await.body;
        (function, service.get(&format!("/api/functions/{id}/settings")).await.body)
    };
    let before = states(&service).await;
    service.signal("KILL");
    let _ = service.end().await;

    let log = dir.path().join("log");
    let service = Service::start_logged(dir.path(), &[("LOG_LEVEL", "debug")], &log).await.healthy().await;
    let path = format!("{}/api/functions/{id}", service.url);
    assert_eq!(states(&service).await, before);
    assert_eq!(service.execute(&id).await.assert_outcome(200, "ok").output(), "three");
    let back: Value = answer(client.post(format!("{path}/rollback"))).await.assert_status(200).body;
    assert_eq!(back["version"], 2);
    assert_eq!(service.execute(&id).await.assert_outcome(200, "ok").output(), "two");
    answer(client.patch(&path).json(&json!({"secrets": {"API_KEY": "n3ws3cret"}}))).await.assert_status(200);
    service.execute(&id).await.assert_outcome(200, "ok");
    service.delete_all(dir.path()).await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("function changed") && !log.contains("c0nf1dent1al") && !log.contains("n3ws3cret"), "{log}");
    // PostgreSQL keeps its own files.
    if store_url(dir.path()).is_some() {
        return;
    }
    let mode = |file: &str| {
        std::os::unix::fs::PermissionsExt::mode(&dir.path().join("data").join(file).metadata().unwrap().permissions())
    };
    assert_eq!(mode("store.db") & 0o077, 0, "no other user of this machine may read secrets");
}

/// Settings without what the tests of preloading look at.
fn without_preload(mut settings: Value) -> Value {
    settings.as_object_mut().unwrap().remove("preload");
    settings
}
