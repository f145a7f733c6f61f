//! The starters of `init`, each from the command to a working answer.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Service, answer, eventually};

const FORM: &str = "application/x-www-form-urlencoded";

/// Runs a command of the program itself, which must end with 0. Returns what the command prints.
fn run(service: &Service, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    let output = command.env("YOUTUBE_SERVERLESS_URL", &service.url).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a function of a starter, twice deployed: the second time is an update. Returns the function's id.
fn start(service: &Service, dir: &Path, name: &str, starter: &str) -> String {
    let folder = dir.join(name);
    let folder = folder.to_str().unwrap();
    let files = run(service, &["init", folder, "--starter", starter]);
    assert!(files.contains("function.toml") && files.contains("main."), "{files}");
    let made = run(service, &["deploy", folder]);
    let updated: serde_json::Value = serde_json::from_str(&run(service, &["--json", "deploy", folder])).unwrap();
    assert_eq!((updated["functionId"].as_str(), &updated["version"]), (Some(made.trim()), &json!(2)));
    made.trim().to_owned()
}

// The program runs on a thread of its own, so that the service's answers don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker and PyPI"]
async fn each_starter_answers() {
    let dir = tempfile::tempdir().unwrap();
    let port = crate::support::process::free_port().to_string();
    let settings = [("FUNCTIONS_PORT", port.as_str()), ("HTTP_FUNCTIONS", "public")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let at = |path: &str| format!("http://127.0.0.1:{port}/f/{path}");
    let start = |name: &str, starter: &str| tokio::task::block_in_place(|| start(&service, dir.path(), name, starter));
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| run(&service, arguments));
    let client = reqwest::Client::new();
    let text = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };

    start("hello", "python");
    assert_eq!(run(&["invoke", "hello", "-i", r#"{"name": "John"}"#]), "Hello, John!\n");

    for (name, starter) in [("shop", "flask"), ("api", "go")] {
        start(name, starter);
        let hello = client.get(at(&format!("{name}/hello/John")));
        assert_eq!(text(hello).await, (200, "Hello, John!\n".to_owned()), "{starter}");
        let sum = client.post(at(&format!("{name}/sum"))).json(&json!([1, 2, 3]));
        assert_eq!(text(sum).await, (200, "{\"sum\":6}\n".to_owned()), "{starter}");
        assert_eq!(text(client.get(at(&format!("{name}/nothing")))).await.0, 404, "{starter}");
    }
    let greeted = client.post(at("shop/greet")).header("content-type", FORM).body("name=Ada");
    assert_eq!(text(greeted).await, (200, "Hello, Ada!\n".to_owned()), "by the redirection");
    assert!(text(client.get(at("shop/"))).await.1.contains("<form"));
    assert!(text(client.get(at("shop/headers"))).await.1.contains("\"Host\":\"127.0.0.1:"));

    let hook = start("hook", "webhook");
    let secret = json!({"secrets": {"WEBHOOK_SECRET": "It's a Secret to Everybody"}});
    let patch = client.patch(format!("{}/api/functions/{hook}", service.url)).json(&secret);
    answer(patch).await.assert_status(200);
    assert_eq!(text(client.post(at("hook")).body("{}")).await.0, 401, "without a signature");

    let night = start("night", "cron");
    assert!(run(&["schedule", "ls", "night"]).contains("0 3 * * *"));
    run(&["schedule", "run", "night", "--name", "nightly"]);
    run(&["invoke", "--async", "night", "-i", r#"{"day": "someday"}"#]);
    let path = format!("/api/functions/{night}/invocations");
    let ended = eventually("both runs have ended", async || {
        let all = service.get(&path).await.body["invocations"].as_array().unwrap().clone();
        let mut ended: Vec<(String, String)> = all
            .iter()
            .map(|one| (one["trigger"].as_str().unwrap().to_owned(), one["outcome"].as_str().unwrap().to_owned()))
            .collect();
        ended.sort();
        (ended.len() == 2 && ended.iter().all(|(_, outcome)| outcome == "ok" || outcome == "exit")).then_some(ended)
    })
    .await;
    let expected = [("api", "exit"), ("schedule:nightly", "ok")];
    assert_eq!(ended, expected.map(|(trigger, outcome)| (trigger.to_owned(), outcome.to_owned())));

    // A folder with work in it stays as it is.
    let mut again = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    let again = again.arg("init").arg(dir.path().join("shop")).output().unwrap();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is there already"));
    service.delete_all(dir.path()).await;
}
