//! Tokens by the command line.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::Service;
use crate::tokens::{API_TOKEN, Holder, start};

/// Runs a command of the program itself with a token.
fn run(service: &Service, token: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    command.env("YOUTUBE_SERVERLESS_URL", &service.url).env("API_TOKEN", token).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

// The program runs on a thread of its own, so that the service's answers to the test don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn a_token_lives_by_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await.healthy().await;
    let admin = Holder::admin(&service);
    let (hello, other) = (admin.deploy("hello", "print('hello')").await, admin.deploy("other", "print(1)").await);
    tokio::task::block_in_place(|| {
        let run = |token: &str, arguments: &[&str]| run(&service, token, arguments);
        let create = ["token", "create", "ci", "--scope", "deploy", "--scope", "invoke", "--function", "hello"];
        let (status, text, said) = run(API_TOKEN, &[&create[..], &["--expires", "90d"]].concat());
        assert_eq!(status, 0, "{said}");
        let token = text.strip_suffix('\n').unwrap();
        assert!(token.starts_with("ysp_") && token.len() == 68, "the token alone is on stdout: {text:?}");
        assert!(said.contains("'ci'") && !said.contains(token), "{said}");
        // The token does what its scopes say, for its function.
        assert_eq!(run(token, &["invoke", "hello"]), (0, "hello\n".to_owned(), String::new()));
        let (_, table, _) = run(token, &["ls"]);
        assert!(table.contains(&hello) && !table.contains(&other), "{table}");
        let (status, _, said) = run(token, &["invoke", "other"]);
        assert!(status == 125 && said.contains("404 function_not_found"), "{said}");
        let (status, _, said) = run(token, &["token", "ls"]);
        assert!(status == 125 && said.contains("`admin`") && said.contains("403 forbidden"), "{said}");

        let (status, _, said) = run(API_TOKEN, &["token", "create", "all", "--scope", "admin", "--json"]);
        assert_eq!((status, said.as_str()), (0, ""));
        let (status, table, said) = run(API_TOKEN, &["token", "ls"]);
        assert_eq!(status, 0, "{said}");
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "SCOPES", "FUNCTIONS", "CREATED", "EXPIRES", "LAST", "USED"]);
        assert_eq!(lines[1][..3], ["ci", "invoke,deploy", "hello"]);
        assert_ne!(lines[1][5], "-", "the token was used: {table}");
        assert_eq!((&lines[2][..3], &lines[2][4..]), (&["all", "admin", "all"][..], &["-", "-"][..]));
        let (_, listed, _) = run(API_TOKEN, &["token", "ls", "--json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let lasts = listed[0]["expiresAt"].as_u64().unwrap() - listed[0]["createdAt"].as_u64().unwrap();
        assert!(lasts.abs_diff(90 * 24 * 3600) < 60, "{listed}");

        // What is wrong is said, before or by the platform.
        let (status, _, said) = run(API_TOKEN, &["token", "create", "x", "--scope", "write"]);
        assert!(status == 2 && said.contains("[possible values: read, invoke, deploy, admin]"), "{said}");
        let (status, _, said) = run(API_TOKEN, &["token", "create", "x", "--scope", "read", "--expires", "soon"]);
        assert!(status == 2 && said.contains("--expires"), "{said}");
        let (status, out, said) = run(API_TOKEN, &["token", "create", "ci", "--scope", "read"]);
        assert!(status == 125 && out.is_empty() && said.contains("409 name_taken"), "{said}");
        let (status, _, said) = run(API_TOKEN, &["token", "create", "x", "--scope", "read", "--function", "nobody"]);
        assert!(status == 125 && said.contains("nobody"), "{said}");
        let removed = "Token ci deleted successfully\nToken all deleted successfully\n".to_owned();
        assert_eq!(run(API_TOKEN, &["token", "rm", "ci", "all"]), (0, removed, String::new()));
        let (status, _, said) = run(token, &["ls"]);
        assert!(status == 125 && said.contains("401 unauthorized"), "{said}");
        let (status, _, said) = run(API_TOKEN, &["token", "rm", "ci"]);
        assert!(status == 125 && said.contains("404 token_not_found"), "{said}");
    });
    for id in [hello, other] {
        admin.delete(&format!("/api/functions/{id}")).await.assert_status(200);
    }
    service.stop().await;
}
