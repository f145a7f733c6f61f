//! The command line as people and scripts use it, against a running service.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::Service;

/// Runs a command of the program itself against a service.
fn run(service: &Service, arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    command.env("YOUTUBE_SERVERLESS_URL", &service.url).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    parts(child.wait_with_output().unwrap())
}

fn parts(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What bash offers for the last of these words, when the platform is at this address.
fn completed(url: &str, words: &[&str]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_youtube-serverless"));
    let script = format!(
        "source <(youtube-serverless completions bash); COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         function=$(complete -p youtube-serverless | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); $function youtube-serverless; \
         echo \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1
    );
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    parts(bash.args(["-c", &script]).env("PATH", path).env("YOUTUBE_SERVERLESS_URL", url).output().unwrap()).1
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

const PROGRAM: &str = "import os, sys, time\nfrom lib import greet\n\ndef main():\n    print(greet(os.environ.get('NAME', 'World')), os.path.exists('secret.txt'), os.path.exists('.hidden'))\n    print('warned', file=sys.stderr)\n    if os.environ.get('HOW') == 'oom':\n        hog = [bytearray(1 << 20) for _ in range(1000)]\n    if os.environ.get('HOW') == 'slow':\n        time.sleep(60)\n    if os.environ.get('HOW') == 'crash':\n        os.abort()\n    sys.exit(int(os.environ.get('CODE', 0)))\n\nif __name__ == '__main__':\n    main()\n";

// The program runs on a thread of its own, so that the service's answers to the test don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn a_function_lives_by_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("DOCKER_RUN_TIMEOUT", "15s")]).await.healthy().await;
    let code = dir.path().join("greeter");
    write(
        &code,
        &[
            ("main.py", PROGRAM),
            ("lib/__init__.py", "def greet(name):\n    return 'Hello, ' + name\n"),
            (".gitignore", "secret.txt\n*.log\n"),
            ("secret.txt", "x"),
            ("big.log", "x"),
            (".hidden", "x"),
            (".git/config", "x"),
        ],
    );
    // A library that several functions share.
    std::fs::rename(code.join("lib"), dir.path().join("lib")).unwrap();
    std::os::unix::fs::symlink("../lib", code.join("lib")).unwrap();
    tokio::task::block_in_place(|| {
        let run = |arguments: &[&str]| run(&service, arguments, "");
        let (status, id, said) = run(&["deploy", code.to_str().unwrap()]);
        assert_eq!((status, said.as_str()), (0, "Function 'greeter' deployed successfully\n"), "{id}");
        let id = id.trim();

        // `invoke` takes a name or an id, and input. The exit status is the function's.
        let greeted = (0, "Hello, World False True\n".to_owned(), "warned\n".to_owned());
        assert_eq!(run(&["invoke", "greeter"]), greeted);
        assert_eq!(run(&["invoke", id]), greeted);
        let (status, output, _) = run(&["invoke", "greeter", "-i", r#"{"name": "John", "code": 3}"#]);
        assert_eq!((status, output.as_str()), (3, "Hello, John False True\n"));
        let (_, output, _) = self::run(&service, &["invoke", "greeter", "-i", "-"], r#"{"name": "stdin"}"#);
        assert_eq!(output, "Hello, stdin False True\n");
        for (how, expected) in [("oom", 137), ("slow", 124), ("crash", 128 + 6)] {
            let (status, _, said) = run(&["invoke", "greeter", "-i", &format!(r#"{{"how": "{how}"}}"#)]);
            assert_eq!(status, expected, "{how}: {said}");
            assert!(said.contains("youtube-serverless: the function"), "{said}");
        }
        let (status, output, _) = run(&["invoke", "--json", "greeter"]);
        let executed: Value = serde_json::from_str(&output).unwrap();
        assert_eq!((status, executed["outcome"].as_str()), (0, Some("ok")));
        let (status, accepted, _) = run(&["invoke", "--async", "greeter", "-i", r#"{"name": "later"}"#]);
        assert_eq!((status, accepted.trim().len()), (0, 36), "{accepted}");
        let logs = (0..60)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(500));
                run(&["logs", "greeter", "-n", "2"]).1
            })
            .find(|logs| logs.contains(accepted.trim()))
            .expect("the invocation has ended within half a minute");
        assert!(logs.contains("Hello, later False True\n  warned\n"), "{logs}");
        assert_eq!(logs.matches(" ms\n").count(), 2, "{logs}");
        // `logs --follow` goes on with invocations that end later, and shows each invocation once.
        let mut follow = Command::new("timeout");
        follow
            .args(["120", env!("CARGO_BIN_EXE_youtube-serverless")])
            .env("YOUTUBE_SERVERLESS_URL", &service.url)
            .args(["logs", "-f", "-n", "1", "greeter"])
            .stdout(Stdio::piped());
        let mut follow = follow.spawn().unwrap();
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        let mut followed = String::new();
        let mut read_to = |end: &str| {
            while !followed.ends_with(end) {
                followed += &lines.next().expect("the command goes on").unwrap();
                followed += "\n";
            }
        };
        read_to("Hello, later False True\n  warned\n");
        run(&["invoke", "greeter", "-i", r#"{"name": "followed"}"#]);
        read_to(" ms\n");
        // A signal that `timeout` hands on to the command.
        assert!(Command::new("kill").arg(follow.id().to_string()).status().unwrap().success());
        follow.wait().unwrap();
        assert_eq!((followed.matches("later").count(), followed.matches("followed").count()), (1, 1), "{followed}");
        assert_eq!(followed.matches(" ms\n").count(), 2, "{followed}");
        // A shell is not kept waiting: where the service takes longer, nothing is offered.
        let offered = || completed(&service.url, &["youtube-serverless", "logs", "gr"]);
        let offered = (0..60).map(|_| offered()).find(|offered| !offered.is_empty()).expect("names are offered");
        assert!(offered.starts_with("greeter"), "{offered}");
        let (_, table, _) = run(&["ls"]);
        assert!(table.starts_with("NAME ") && table.contains(&format!("greeter  {id}  python")), "{table}");
        let (_, listed, _) = run(&["ls", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["functionId"], id);

        // The output of one invocation arrives as the function prints, and the exit status is the function's.
        let (_, id_of_one, _) = run(&["invoke", "--async", "greeter", "-i", r#"{"name": "one", "code": 4}"#]);
        let (status, output, said) = run(&["logs", "-f", id_of_one.trim()]);
        assert_eq!((status, output.as_str()), (4, "Hello, one False True\n"), "{said}");
        assert!(said.starts_with("warned\n") && said.contains("exit status 4"), "{said}");
        let (_, shown, _) = run(&["logs", id_of_one.trim()]);
        assert!(shown.contains("exit ") && shown.contains("  Hello, one"), "{shown}");

        // A deploy puts another version in the function's place, and a rollback puts the version before back.
        write(&code, &[("lib/__init__.py", "def greet(name):\n    return 'Bye, ' + name\n")]);
        let (status, updated, said) = run(&["deploy", code.to_str().unwrap(), "--update", "greeter"]);
        assert_eq!((status, updated.trim(), said.as_str()), (0, id, "Function 'greeter' runs version 2\n"));
        assert_eq!(run(&["invoke", "greeter"]).1, "Bye, World False True\n");
        assert!(run(&["ls"]).1.contains(&format!("greeter  {id}  python    2 ")));
        assert_eq!(run(&["rollback", "greeter"]).1, "Function 'greeter' runs version 1\n");
        assert_eq!(run(&["invoke", "greeter"]), greeted);
        assert_eq!(run(&["rollback", "greeter", "--version", "2"]).1, "Function 'greeter' runs version 2\n");
        let (status, _, said) = run(&["rollback", "greeter", "--version", "9"]);
        assert!(status == 125 && said.contains("404 version_not_found"), "{said}");

        // A failure of the platform or of the command line has a message and exit status 125.
        let (status, _, said) = run(&["invoke", "nobody"]);
        assert_eq!(status, 125);
        assert!(said.contains("nobody") && said.contains("404 function_not_found"), "{said}");
        let (status, _, said) = run(&["invoke", "greeter", "-i", "[]"]);
        assert!(status == 125 && said.contains("not a JSON object"), "{said}");
        let (status, _, said) = run(&["--url", "http://127.0.0.1:1", "ls"]);
        assert!(status == 125 && said.contains("--url"), "{said}");
        std::os::unix::fs::symlink("../gone.py", code.join("common.py")).unwrap();
        let (status, _, said) = run(&["deploy", code.to_str().unwrap()]);
        assert!(status == 125 && said.contains("common.py is a link to ../gone.py"), "{said}");
        std::fs::remove_file(code.join("common.py")).unwrap();
        write(&code, &[("main.py", "x"), ("requirements.txt", "no-such-package-of-anybody==9.9\n")]);
        let (status, _, said) = run(&["deploy", code.to_str().unwrap(), "--name", "broken"]);
        assert!(
            status == 125 && said.contains("not found in the package registry") && said.contains("422 build_failed"),
            "{said}"
        );

        // Schedules.
        let (status, made, said) = run(&["schedule", "add", "greeter", "0 3 * * *", "--zone", "Europe/Berlin"]);
        assert_eq!((status, made.matches("00:00Z").count()), (0, 5), "{made}{said}");
        assert!(made.starts_with("schedule default comes next at 20"), "{made}");
        let other = ["--name", "other", "--input", r#"{"name": "timer"}"#, "--overlap", "queue", "--missed", "once"];
        let (status, made, said) =
            run(&[&["schedule", "add", "greeter", "@yearly", "--disabled"], &other[..]].concat());
        assert_eq!((status, made.as_str()), (0, "schedule other pauses\n"), "{said}");
        let (_, table, _) = run(&["schedule", "ls", "greeter"]);
        let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(row("default").contains("0 3 * * *  Europe/Berlin  20"), "{table}");
        assert!(row("other").contains("@yearly    UTC            paused  "), "{table}");
        assert_eq!(run(&["schedule", "ls"]).1, table);
        let (status, id_of_run, _) = run(&["schedule", "run", "greeter", "--name", "other"]);
        let (_, output, said) = run(&["logs", "-f", id_of_run.trim()]);
        assert_eq!((status, output.as_str()), (0, "Bye, timer False True\n"), "{said}");
        let (status, resumed, _) = run(&["schedule", "resume", "greeter", "--name", "other"]);
        assert!(status == 0 && resumed.starts_with("schedule other comes next at 20"), "{resumed}");
        let (_, listed, _) = run(&["schedule", "ls", "greeter", "--json"]);
        let listed = &serde_json::from_str::<Value>(&listed).unwrap()[1];
        assert_eq!((&listed["missed"], &listed["overlap"]), (&"once".into(), &"queue".into()));
        assert_eq!((&listed["input"]["name"], &listed["lastOutcome"]), (&"timer".into(), &"ok".into()));
        assert_eq!(run(&["schedule", "pause", "greeter"]).1, "schedule default pauses\n");
        assert_eq!(run(&["schedule", "rm", "greeter"]).0, 0);
        let (status, _, said) = run(&["schedule", "rm", "greeter"]);
        assert!(status == 125 && said.contains("404 schedule_not_found"), "{said}");
        let (status, _, said) = run(&["schedule", "add", "greeter", "@reboot"]);
        assert!(status == 125 && said.contains("@hourly") && said.contains("400 invalid_schedule"), "{said}");

        assert_eq!(run(&["rm", "greeter"]), (0, format!("Function {id} deleted successfully\n"), String::new()));
        assert_eq!(run(&["rm", "greeter"]).0, 125);
    });
    service.delete_all(dir.path()).await;
}

#[test]
fn help_teaches_and_shells_complete() {
    let alone = |arguments: &[&str]| {
        parts(
            Command::new(env!("CARGO_BIN_EXE_youtube-serverless"))
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        )
    };
    let (status, help, _) = alone(&["--help"]);
    assert_eq!(status, 0);
    for word in [
        "deploy",
        "invoke",
        "logs",
        "ls",
        "rm",
        "rollback",
        "schedule",
        "serve",
        "backup",
        "completions",
        "Examples:",
        "exit status",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = alone(&["completions", shell]);
        assert!(status == 0 && script.contains("youtube-serverless"), "{shell}");
    }
    assert!(completed("", &["youtube-serverless", "dep"]).contains("deploy"));
    let (status, _, said) = alone(&["deplyo"]);
    assert!(status == 2 && said.contains("deploy"), "{said}");
}
