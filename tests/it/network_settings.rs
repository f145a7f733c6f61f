//! The setting `network` of a function: its forms, what is refused, and what becomes of the setting. What programs
//! reach is no matter here.

use std::process::Command;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{Answer, Deployed, Service, TestApp, answer, docker, eventually, python};

/// Doors need sockets, which TEST_TRANSPORT may take away from other tests.
const SOCKETS: (&str, &str) = ("INSTANCE_TRANSPORT", "auto");
const ALLOW: (&str, &str) = ("EGRESS_ALLOW", "*.example:443, 10.0.0.0/8:5432");
const PROGRAM: &str = "import os\nprint(os.environ.get('GREETING'), end='')\n";

fn form(fields: &[(&'static str, &str)]) -> Form {
    let form = Form::new().part("code", Part::bytes(python(PROGRAM)).file_name("function.zip"));
    fields.iter().fold(form, |form, &(name, value)| form.text(name, value.to_owned()))
}

async fn submit(app: &TestApp, network: &str) -> Answer {
    app.submit_form(form(&[("network", network)])).await
}

async fn update(app: &TestApp, function: &Deployed, fields: &[(&'static str, &str)]) -> Answer {
    answer(app.request(Method::PUT, &format!("/api/functions/{}", function.id)).multipart(form(fields))).await
}

fn deployed(answer: Answer) -> Deployed {
    let text = |key: &str| answer.body[key].as_str().unwrap().to_owned();
    Deployed { id: text("functionId"), image: text("imageId") }
}

async fn network(app: &TestApp, function: &Deployed) -> Value {
    let path = format!("/api/functions/{}/settings", function.id);
    app.get(&path).await.assert_status(200).body["network"].clone()
}

async fn one_container(app: &TestApp, function: &Deployed) -> Vec<String> {
    eventually("one container is left", async || Some(app.containers_of(function)).filter(|all| all.len() == 1)).await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_network_is_set_shown_kept_and_taken_away() {
    TestApp::run(&[SOCKETS, ALLOW], async |app| {
        let rules = r#" {"allow": ["API.one.example.:443", "10.1.2.3:5432", "api.one.example:443"]} "#;
        let function = deployed(submit(app, rules).await.assert_status(200));
        let first = json!({"allow": ["api.one.example:443", "10.1.2.3:5432"]});
        assert_eq!(network(app, &function).await, first);
        // An update and a rollback keep the network, as they keep the other settings.
        update(app, &function, &[]).await.assert_status(200);
        assert_eq!(network(app, &function).await, first);
        let second = json!({"allow": ["*.two.example:443"]});
        update(app, &function, &[("network", &second.to_string())]).await.assert_status(200);
        assert_eq!(network(app, &function).await, second);
        app.roll_back(&function, "").await.assert_status(200);
        assert_eq!(network(app, &function).await, second);
        // A change that does not name the network leaves the network. A network takes the place of the network before.
        let changed = app.configure(&function, json!({"timeout": "5s"})).await.assert_status(200);
        assert_eq!(changed.body["settings"]["network"], second);
        let changed = app.configure(&function, json!({"network": first})).await.assert_status(200);
        assert_eq!(changed.body["settings"]["network"], first);
        for nothing in ["", "null"] {
            app.configure(&function, json!({"network": first})).await.assert_status(200);
            update(app, &function, &[("network", nothing)]).await.assert_status(200);
            assert_eq!(network(app, &function).await, Value::Null, "{nothing:?}");
        }
        app.configure(&function, json!({"network": second})).await.assert_status(200);
        let changed = app.configure(&function, json!({"network": null})).await.assert_status(200);
        assert_eq!(changed.body["settings"]["network"], Value::Null);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn another_network_is_another_revision() {
    TestApp::run(&[SOCKETS, ALLOW], async |app| {
        let function = deployed(app.submit_form(form(&[("preload", "off")])).await.assert_status(200));
        let mut container = one_container(app, &function).await;
        let networks =
            [json!({"allow": ["a.example:443"]}), json!({"allow": ["a.example:443", "b.example:443"]}), Value::Null];
        for network in networks {
            app.configure(&function, json!({"network": network})).await.assert_status(200);
            assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").body["start"], "warm", "{network}");
            let next = one_container(app, &function).await;
            assert_ne!(next, container, "{network}");
            container = next;
            // The same network in other words is no change.
            let same = network.to_string().replace("a.example", "A.EXAMPLE.");
            let same: Value = serde_json::from_str(&same).unwrap();
            app.configure(&function, json!({"network": same})).await.assert_status(200);
            assert_eq!(one_container(app, &function).await, container, "{network}");
        }
        // Without preloading, another environment costs no instance, and the network stays out of that.
        app.configure(&function, json!({"environment": {"GREETING": "Hi"}})).await.assert_status(200);
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "Hi");
        assert_eq!(app.containers_of(&function), container);
        for name in container {
            let mode = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &name]);
            assert_eq!(mode, ["none"]);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_no_network_or_not_allowed_is_refused_by_its_rule() {
    TestApp::run(&[SOCKETS, ALLOW], async |app| {
        let function = app.deploy(python(PROGRAM)).await;
        let many: Vec<String> = (0..33).map(|n| format!("a{n}.example:443")).collect();
        let (invalid, not_allowed) = ("invalid_request", "network_not_allowed");
        for (network, code, detail) in [
            (json!({"allow": []}), invalid, "no rules"),
            (json!({"allow": many}), invalid, "33 rules; the limit is 32"),
            (json!({"allow": ["a.example:443", "b.example"]}), invalid, "\"b.example\""),
            (json!({"allow": ["localhost:443"]}), invalid, "the container itself"),
            (json!({"allow": ["ip6-allnodes:443"]}), invalid, "the container itself"),
            (json!({"allow": ["http://a.example:443"]}), invalid, "\"http://a.example:443\""),
            (json!({"allow": [1]}), invalid, "`network`"),
            (json!({"allow": ["a.example:443"], "deny": []}), invalid, "`deny`"),
            (json!({}), invalid, "`allow`"),
            (json!(["a.example:443"]), invalid, "`network`"),
            (json!("a.example:443"), invalid, "`network`"),
            (json!(true), invalid, "`network`"),
            (json!({"allow": ["a.example:443", "a.example:80"]}), not_allowed, "a.example:80"),
            (json!({"allow": ["*:443"]}), not_allowed, "*:443"),
            (json!({"allow": ["example:443"]}), not_allowed, "EGRESS_ALLOW"),
            (json!({"allow": ["10.0.0.0/7:5432"]}), not_allowed, "10.0.0.0/7:5432"),
            (json!({"allow": ["10.1.2.3/8:5432"]}), invalid, "bits set"),
            (json!({"allow": ["[::ffff:10.1.2.3]:5432"]}), not_allowed, "EGRESS_ALLOW"),
        ] {
            let change = json!({"network": network});
            app.configure(&function, change).await.assert_problem(400, code, detail);
            let text = network.to_string();
            submit(app, &text).await.assert_problem(400, code, detail);
            update(app, &function, &[("network", &text)]).await.assert_problem(400, code, detail);
        }
        submit(app, "{").await.assert_problem(400, invalid, "`network`");
        assert_eq!(network(app, &function).await, Value::Null);
        let versions = app.get(&format!("/api/functions/{}/versions", function.id)).await.body;
        assert_eq!(versions.as_array().unwrap().len(), 1, "a refused update was built");
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn variables_of_proxies_are_reserved_with_a_network() {
    TestApp::run(&[SOCKETS, ALLOW], async |app| {
        let (environment, secrets) = (json!({"http_proxy": "http://10.0.0.1:3128"}), json!({"NO_PROXY": "*"}));
        let network = json!({"allow": ["a.example:443"]});
        let function = app.deploy(python(PROGRAM)).await;
        let input = json!({"https-proxy": "http://10.0.0.1:3128"});
        app.execute_with(&function, input.clone()).await.assert_outcome(200, "ok");
        for (part, variables) in [("environment", &environment), ("secrets", &secrets)] {
            let name = variables.as_object().unwrap().keys().next().unwrap();
            let refused = async |change| {
                app.configure(&function, change).await.assert_problem(400, "invalid_settings", name);
            };
            // The variable first, then the network; then the other way round; then both at one time.
            app.configure(&function, json!({part: variables})).await.assert_status(200);
            refused(json!({"network": network})).await;
            let instead = json!({"network": network, part: {name: null}});
            app.configure(&function, instead).await.assert_status(200);
            refused(json!({part: variables})).await;
            app.configure(&function, json!({"network": null})).await.assert_status(200);
            refused(json!({"network": network, part: variables})).await;
        }
        app.configure(&function, json!({"network": network})).await.assert_status(200);
        app.execute_with(&function, input.clone()).await.assert_problem(400, "invalid_input", "HTTPS_PROXY");
        let body = json!({"functionId": function.id, "input": input});
        let later = app.request(Method::POST, "/api/execute").header("prefer", "respond-async").json(&body);
        answer(later).await.assert_problem(400, "invalid_input", "HTTPS_PROXY");
        app.execute_with(&function, json!({"greeting": "Hi"})).await.assert_outcome(200, "ok");
        app.configure(&function, json!({"network": null})).await.assert_status(200);
        app.execute_with(&function, input).await.assert_outcome(200, "ok");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_sockets_there_is_no_network() {
    let network = json!({"allow": ["a.example:443"]});
    TestApp::run(&[("INSTANCE_TRANSPORT", "pipes"), ALLOW], async |app| {
        let refused = |answer: Answer| answer.assert_problem(400, "network_not_available", "INSTANCE_TRANSPORT");
        refused(submit(app, &network.to_string()).await);
        let function = app.deploy(python(PROGRAM)).await;
        refused(app.configure(&function, json!({"network": network})).await);
        app.configure(&function, json!({"network": null})).await.assert_status(200);
        let change = json!({"network": {"allow": ["*:443"]}});
        app.configure(&function, change).await.assert_problem(400, "network_not_allowed", "*:443");
    })
    .await;
    // A comma parts the fields of a mount, so that the engine does not reach the folder of sockets.
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("a,b");
    std::fs::create_dir(&temp).unwrap();
    TestApp::run(&[SOCKETS, ALLOW, ("TEMP_DIR_BASE", temp.to_str().unwrap())], async |app| {
        std::fs::create_dir(app.dir.path().join("temp")).unwrap();
        let refused = submit(app, &network.to_string()).await.assert_problem(400, "network_not_available", "pipes");
        let reason = app.get("/health").await.body["transport"].as_str().unwrap().to_owned();
        assert!(refused.body["detail"].as_str().unwrap().ends_with(&reason), "{:#}", refused.body);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_network_outlives_a_restart_and_a_narrower_egress_allow() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[SOCKETS, ALLOW]).await.healthy().await;
    let asked = json!({"allow": ["a.example:443", "10.1.2.3:5432"]});
    let submission = service.client.post(format!("{}/api/submit", service.url));
    let submitted = answer(submission.multipart(form(&[("network", &asked.to_string())]))).await.assert_status(200);
    let path = format!("/api/functions/{}", submitted.body["functionId"].as_str().unwrap());
    service.stop().await;
    for allow in ["a.example:443", ""] {
        let service = Service::start(dir.path(), &[SOCKETS, ("EGRESS_ALLOW", allow)]).await.healthy().await;
        let shown = service.get(&format!("{path}/settings")).await.assert_status(200).body;
        assert_eq!(shown["network"], asked, "{allow:?}");
        let patch =
            async |change: Value| answer(service.client.patch(format!("{}{path}", service.url)).json(&change)).await;
        // The setting is in nobody's way, and can't be asked for again.
        let changed = patch(json!({"timeout": "5s"})).await.assert_status(200);
        assert_eq!(changed.body["settings"]["network"], asked, "{allow:?}");
        let rule = if allow.is_empty() { "a.example:443" } else { "10.1.2.3:5432" };
        patch(json!({"network": asked})).await.assert_problem(400, "network_not_allowed", rule);
        service.execute(path.rsplit('/').next().unwrap()).await.assert_outcome(200, "ok");
        service.stop().await;
    }
    let service = Service::start(dir.path(), &[SOCKETS]).await.healthy().await;
    service.delete_all(dir.path()).await;
}

// The program runs on a thread of its own, so that the service's answers to the test don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn the_command_line_gives_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[SOCKETS, ALLOW]).await.healthy().await;
    let zip = dir.path().join("fetch.zip");
    std::fs::write(&zip, python(PROGRAM)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
        command.env("YOUTUBE_SERVERLESS_URL", &service.url).args(["deploy", zip.to_str().unwrap()]).args(arguments);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap().trim().to_owned(), output.stderr)
    };
    let (status, id, _) = run(&["--allow", "a.example:443", "--allow", "10.1.2.3:5432"]);
    assert_eq!(status, 0, "{id}");
    let network = async || service.get(&format!("/api/functions/{id}/settings")).await.body["network"].clone();
    assert_eq!(network().await, json!({"allow": ["a.example:443", "10.1.2.3:5432"]}));
    // An update without the option leaves the network, and an update with the option gives another one.
    assert_eq!(run(&["--update", "fetch"]).0, 0);
    assert_eq!(network().await, json!({"allow": ["a.example:443", "10.1.2.3:5432"]}));
    assert_eq!(run(&["--update", "fetch", "--allow", "b.example:443"]).0, 0);
    assert_eq!(network().await, json!({"allow": ["b.example:443"]}));
    for (rule, said) in [("*:443", "400 network_not_allowed"), ("b.example", "400 invalid_request")] {
        let (status, _, stderr) = run(&["--update", "fetch", "--allow", rule]);
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status == 125 && stderr.contains(rule) && stderr.contains(said), "{stderr}");
    }
    service.delete_all(dir.path()).await;
}

/// Connects to a host that is not there, or asks the proxy for the host of the input.
const ASKS: &str = "
import os, socket, urllib.parse
host = os.environ.get('HOST')
try:
    if host:
        proxy = urllib.parse.urlsplit(os.environ['https_proxy'])
        way = socket.create_connection((proxy.hostname, proxy.port))
        way.sendall(f'CONNECT {host} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n'.encode())
        print(way.recv(9999))
    else:
        socket.create_connection(('a.example', 443)).recv(1)
except OSError as error:
    print(error)
";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_person_sees_and_changes_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[SOCKETS, ALLOW]).await.healthy().await;
    let (one, two) = (service.deploy(python(ASKS)).await, service.deploy(python(PROGRAM)).await);
    let network = async |id: &str| service.get(&format!("/api/functions/{id}/settings")).await.body["network"].clone();
    let browser = Browser::open(1280, 1200, false).await;
    let open = async |id: &str| {
        browser.goto(&format!("{}/#/functions/{id}/settings", service.url)).await;
        browser.says("detail-facts", id).await;
        browser.is_read("part-settings").await;
    };
    let rules = async |expected: &str| {
        let read = async || browser.script("return document.getElementById('network-rules').value").await;
        eventually("the rules are shown", async || (read().await == expected).then_some(())).await;
    };
    open(&one).await;
    browser.type_into("network-rules", "A.example:443\n10.1.2.3:5432").await;
    browser.click("network-save").await;
    browser.says("network-status", "saved").await;
    rules("a.example:443\n10.1.2.3:5432").await;
    browser.shoot("9-network").await;
    assert_eq!(network(&one).await, json!({"allow": ["a.example:443", "10.1.2.3:5432"]}));
    browser.click("execute").await;
    browser.says("outcome", "ok").await;
    browser.says("destinations", "a.example:443 · 0 connections").await;
    browser.says("destinations", "1 refused: a.example:443: ").await;
    // What was refused is allowed by a click, within what the operator allows.
    for host in ["b.example:443", "c.example:80"] {
        let input = json!({"host": host});
        let asked = service.client.post(format!("{}/api/execute", service.url));
        let run = answer(asked.json(&json!({"functionId": &one, "input": input}))).await;
        run.assert_outcome(200, "ok");
    }
    open(&two).await;
    open(&one).await;
    browser.says("refused", "refused lately: c.example:80 · ").await;
    browser.press_button("Allow b.example:443").await;
    rules("a.example:443\n10.1.2.3:5432\nb.example:443").await;
    browser.says("network-status", "saved").await;
    let left = async || !browser.text("refused").await.contains("b.example");
    eventually("what is allowed is offered no more", async || left().await.then_some(())).await;
    let three = json!({"allow": ["a.example:443", "10.1.2.3:5432", "b.example:443"]});
    assert_eq!(network(&one).await, three);
    browser.press_button("Allow c.example:80").await;
    browser.says("problem-text", "EGRESS_ALLOW").await;
    assert_eq!(network(&one).await, three);
    browser.click("problem-close").await;
    browser.type_into("network-rules", "*:443").await;
    browser.click("network-save").await;
    browser.says("problem-text", "EGRESS_ALLOW").await;
    browser.click("problem-close").await;
    open(&two).await;
    rules("").await;
    assert_eq!(browser.text("network-status").await, "");
    open(&one).await;
    rules("a.example:443\n10.1.2.3:5432\nb.example:443").await;
    browser.type_into("network-rules", " ").await;
    browser.click("network-save").await;
    browser.says("network-status", "reaches nothing").await;
    assert_eq!((network(&one).await, network(&two).await), (Value::Null, Value::Null));
    browser.close().await;
    service.delete_all(dir.path()).await;
}
