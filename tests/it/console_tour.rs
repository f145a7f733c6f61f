//! From an empty platform to a mended function in the browser alone, and then by the command line alone.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::browser::Browser;
use crate::support::{Service, eventually};

/// What the program of the tour asks of a host that the function may not reach at first.
const ASKS: &str = "import socket, sys\n\ntry:\n    print(socket.create_connection(('api.example', PORT), 15).recv(9).decode() or sys.exit('not reached'))\nexcept OSError as error:\n    sys.exit(f'not reached: {error}')\n";

/// Keeps a screenshot for the documentation, where UPDATE_PICTURES says so.
fn keep(picture: &Path, name: &str) {
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        std::fs::copy(picture, Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap();
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_browser_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    // The host answers once, and is gone then.
    let host = std::thread::spawn(move || server.accept().unwrap().0.write_all(b"reached").unwrap());
    let allow = format!("api.example:{port}");
    let settings = [
        ("EGRESS_ALLOW", allow.as_str()),
        ("EGRESS_PRIVATE", "127.0.0.0/8"),
        ("FUNCTIONS_PORT", "0"),
        ("HTTP_FUNCTIONS", "public"),
        ("INSTANCE_TRANSPORT", "auto"),
    ];
    let hosts = "127.0.0.1 localhost api.example\n";
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let browser = Browser::open(1280, 1000, false).await;
    browser.goto(&service.url).await;
    browser.says("welcome", "no functions yet").await;

    // Written here, and deployed.
    browser.click("welcome-new").await;
    browser.says("files", "main.py").await;
    browser.type_into("new-name", "tour").await;
    browser.replace_text(&ASKS.replace("PORT", &port.to_string())).await;
    browser.says("code-changed", "not deployed yet").await;
    browser.shoot("tour-1-written").await;
    browser.click("new-deploy").await;
    browser.says("detail-title", "tour").await;
    browser.says("versions", "1, which runs").await;

    // The function fails, as it may not reach the host, and is allowed to.
    browser.click("execute").await;
    browser.says("outcome", "exit").await;
    browser.says("stderr", "not reached").await;
    browser.click("tab-settings").await;
    browser.says("preloaded", "saves ").await;
    browser.type_into("network-rules", &allow).await;
    browser.click("network-save").await;
    browser.says("network-status", "saved").await;
    browser.type_into("setting-timeout", "20s").await;
    browser.click("settings-save").await;
    browser.says("settings-status", "saved").await;
    browser.type_into("variable-name", "COLOUR").await;
    browser.type_into("variable-value", "red").await;
    browser.click("variable-save").await;
    browser.says("environment", "COLOUR=red").await;
    browser.type_into("secret-name", "API_KEY").await;
    browser.type_into("secret-value", "s3cret").await;
    browser.click("secret-save").await;
    browser.says("secret-status", "not shown again").await;
    browser.says("secrets", "API_KEY").await;
    browser.click("execute").await;
    browser.says("output", "reached").await;
    browser.says("destinations", &format!("{allow} · 1 connections")).await;
    browser.shoot("tour-2-settings").await;

    // Scheduled.
    browser.click("tab-triggers").await;
    browser.type_into("schedule-name", "nightly").await;
    browser.type_into("schedule-cron", "0 3 * * *").await;
    browser.click("schedule-save").await;
    browser.says("schedules", "nightly · 0 3 * * *").await;
    host.join().unwrap();
    browser.press_button("Run nightly now").await;

    // Failing, as the host is gone: the overview shows the failure, whose output is one click away.
    browser.click("nav-overview").await;
    let failures = "return document.querySelectorAll('#failures a').length";
    eventually("the second failure is shown", async || (browser.script(failures).await == 2).then_some(())).await;
    browser.says("failures", "tour: exit").await;
    browser.says("next-runs", "tour: nightly").await;
    keep(&browser.shoot("tour-3-overview").await, "console-overview.png");
    browser.script("document.querySelector('#failures a').click()").await;
    browser.says("stderr", "not reached").await;
    browser.says("runs-of", "tour").await;
    browser.script("document.querySelector('#runs-outcome').value = 'failed'").await;
    browser.click("runs-show").await;
    browser.says("runs-history", "schedule:nightly").await;
    browser.shoot("tour-4-runs").await;
    browser.script("document.querySelector('#runs-of a').click()").await;

    // Mended: the deployed version's files are changed, and the next version answers.
    browser.click("tab-code").await;
    browser.says("code-of", "version 1").await;
    browser.says("files", "main.py").await;
    browser.replace_text("import os\nprint('mended', os.environ['COLOUR'])\n").await;
    browser.click("code-deploy").await;
    browser.says("update-status", "runs version 2").await;
    browser.press_button("Log of version 2").await;
    browser.says("build-log", "Build of version 2").await;
    browser.click("execute").await;
    browser.says("output", "mended red").await;
    browser.press_button("Run again with the same input").await;
    browser.click("tab-history").await;
    let ok =
        "return [...document.querySelectorAll('#history .outcome')].filter((one) => one.textContent === 'ok').length";
    eventually("three runs went well", async || (browser.script(ok).await == 3).then_some(())).await;
    browser.click("chart").await;
    keep(&browser.shoot("tour-5-mended").await, "console.png");

    // Known by a URL, too.
    browser.click("tab-triggers").await;
    browser.is_read("part-triggers").await;
    browser.script("document.getElementById('http-mode').value = 'public'").await;
    browser.click("http-save").await;
    browser.says("http-status", "saved").await;
    let url = browser.text("http-path").await;
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "mended red\n"), "{url}");
    browser.close().await;
    service.delete_all(dir.path()).await;
}

// The program runs on a thread of its own, so that the service's answers to the test don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn the_command_line_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("EGRESS_ALLOW", "api.example:443"), ("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "public")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let folder = dir.path().join("tour");
    let at = folder.to_str().unwrap().to_owned();
    tokio::task::block_in_place(|| {
        let run = |arguments: &[&str], stdin: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
            command.env("YOUTUBE_SERVERLESS_URL", &service.url).current_dir(dir.path()).args(arguments);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
        };
        let ok = |arguments: &[&str]| {
            let (status, output, said) = run(arguments, "");
            assert_eq!(status, 0, "{arguments:?}: {said}");
            output
        };
        ok(&["init", &at]);
        std::fs::write(folder.join("main.py"), "import os\nprint(os.environ['COLOUR'], len(os.environ['KEY']))\n")
            .unwrap();
        ok(&["deploy", &at]);
        let (status, _, said) = run(&["invoke", "tour"], "");
        assert!(status == 1 && said.contains("COLOUR"), "{said}");
        let failed = ok(&["runs", "tour", "--outcome", "failed", "--since", "1h"]);
        assert_eq!(failed.matches(" exit ").count(), 1, "{failed}");

        // What is missing is given.
        ok(&["env", "set", "tour", "COLOUR=red"]);
        assert_eq!(run(&["secret", "set", "tour", "KEY"], "s3cret\n").0, 0);
        assert_eq!(ok(&["env", "ls", "tour"]), "COLOUR=red\n");
        assert_eq!(ok(&["secret", "ls", "tour"]), "KEY\n");
        assert_eq!(ok(&["allow", "tour", "api.example:443"]), "api.example:443\n");
        let (status, _, said) = run(&["allow", "tour", "other.example:443"], "");
        assert!(status == 125 && said.contains("EGRESS_ALLOW"), "{said}");
        assert_eq!(ok(&["allow", "tour", "--rm", "api.example:443"]), "");
        let shown = ok(&["settings", "tour", "timeout=5s", "memory=64MB", "http=public"]);
        for line in ["timeout      5s", "http         public", "secrets      KEY"] {
            assert!(shown.contains(line), "{shown}");
        }
        let (status, _, said) = run(&["settings", "tour", "timeout=soon"], "");
        assert!(status == 125 && said.contains("timeout"), "{said}");
        assert!(ok(&["schedule", "add", "tour", "0 3 * * *"]).contains("comes next at"));
        let (status, output, said) = run(&["invoke", "tour"], "");
        assert_eq!((status, output.as_str()), (0, "red 6\n"), "{said}");

        // Run again, by the invocation's id.
        let runs: serde_json::Value = serde_json::from_str(&ok(&["runs", "tour", "--json", "-n", "1"])).unwrap();
        let id = runs["invocations"][0]["invocationId"].as_str().unwrap();
        assert_eq!(ok(&["again", id]), "red 6\n");

        // The code comes back, as it was sent.
        std::fs::write(folder.join("main.py"), "print('mended')\n").unwrap();
        ok(&["deploy", &at]);
        assert_eq!(ok(&["invoke", "tour"]), "mended\n");
        let versions = ok(&["versions", "tour"]);
        assert!(versions.contains("2        yes") && versions.contains("1        -"), "{versions}");
        assert_eq!(ok(&["code", "tour", "--version", "1"]), "tour-1.zip\n");
        let (status, _, said) = run(&["code", "tour", "--version", "1"], "");
        assert!(status == 125 && said.contains("tour-1.zip"), "{said}");
        let zip = std::fs::read(dir.path().join("tour-1.zip")).unwrap();
        assert!(zip.starts_with(b"PK") && !ok(&["versions", "tour", "1"]).is_empty());
        assert!(ok(&["open", "tour"]).contains("/#/functions/"));
        let list: serde_json::Value = serde_json::from_str(&ok(&["versions", "tour", "--json"])).unwrap();
        assert_eq!((&list[0]["isCurrent"], &list[1]["zipBytes"]), (&json!(true), &json!(zip.len())));
    });
    service.delete_all(dir.path()).await;
}
