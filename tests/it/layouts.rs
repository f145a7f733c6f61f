//! Zips as people make zips: layouts, toolchains and habits from elsewhere.

use crate::support::{OF_NO_PLATFORM, TestApp, docker, go, zip};

const MAIN: &str = "package main\n\nfunc main() { println(\"main\") }\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_go_package_that_is_not_main_is_refused_by_its_name() {
    TestApp::run(&[], async |app| {
        let refused = async |files: &[(&str, &str)], name: &str| {
            let answer = app.submit(zip(files)).await;
            answer.assert_problem(422, "language_not_detected", &format!("is `{name}`, not `main`"));
        };
        let module = ("go.mod", "module hello\n");
        refused(&[module, ("h.go", "package hello\n\nfunc Hello() {}\n")], "hello").await;
        // A build constraint takes the main package away, however the constraint is written.
        refused(&[module, ("h.go", "package lib\n"), ("m.go", &format!("//go:build ignore\n\n{MAIN}"))], "lib").await;
        refused(&[module, ("h.go", "package lib\n"), ("m_windows.go", MAIN)], "lib").await;
        refused(&[("h.go", "package lib\n"), ("m.go", &format!("// +build ignore\n\n{MAIN}"))], "lib").await;
        assert_eq!(app.get("/api/functions").await.body, serde_json::json!([]));
        // A file that a build constraint leaves out is no obstacle.
        let tool = ("gen.go", "//go:build ignore\n\npackage gen\n");
        let function = app.deploy(zip(&[module, ("m.go", MAIN), tool])).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").stderr(), "main\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_go_workspace_is_built() {
    TestApp::run(&[], async |app| {
        let workspace = [
            ("go.work", "go 1.19\n\nuse (\n\t.\n\t./lib\n)\n"),
            ("go.mod", "module hello\n\ngo 1.19\n"),
            ("main.go", "package main\n\nimport \"example.com/lib\"\n\nfunc main() { println(lib.X) }\n"),
            ("lib/go.mod", "module example.com/lib\n\ngo 1.19\n"),
            ("lib/lib.go", "package lib\n\nconst X = \"of the workspace\"\n"),
        ];
        let function = app.deploy(zip(&workspace)).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").stderr(), "of the workspace\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_line_of_advice_stands_before_the_go_compilers_words() {
    TestApp::run(&[], async |app| {
        let advised = async |files: &[(&str, &str)], advice: &str, words: &str| {
            let answer = app.submit(zip(files)).await.assert_problem(422, "build_failed", "");
            let log = answer.body["buildLog"].as_str().unwrap();
            let (first, rest) = log.split_once('\n').unwrap_or((log, ""));
            assert!(first.contains(advice) && rest.contains(words), "{log}");
        };
        let version =
            docker(&["run", "--rm", "--network=none", &std::env::var("GO_IMAGE").unwrap(), "go", "env", "GOVERSION"]);
        let module = ("go.mod", "module hello\n");
        advised(&[("go.mod", "module hello\n\ngo 1.99.0\n"), ("main.go", MAIN)], &version[0], "1.99.0").await;
        advised(
            &[module, ("main.go", "package main\n\nimport \"C\"\n\nfunc main() {}\n")],
            "cgo",
            "exclude all Go files",
        )
        .await;
        let imports = "package main\n\nimport \"example.com/dep\"\n\nfunc main() { dep.Do() }\n";
        let without_sum = ("go.mod", "module hello\n\nrequire example.com/dep v1.0.0\n");
        advised(&[without_sum, ("main.go", imports)], "go mod tidy", "example.com/dep").await;
        advised(&[module, ("cmd/app/main.go", MAIN)], "must be in the zip's root", "no Go files").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn time_zones_and_certificates_are_there() {
    TestApp::run(&[], async |app| {
        let zone = "import datetime, os, ssl, time\nfrom zoneinfo import ZoneInfo\n\
                    at = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc)\n\
                    print(os.environ.get('TZ'), at.astimezone().isoformat(), time.tzname)\n\
                    print(at.astimezone(ZoneInfo('Europe/Berlin')).isoformat())\n\
                    print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 50)\n";
        let function = app.deploy(zip(&[("main.py", zone)])).await;
        let answer = app.execute_with(&function, serde_json::json!({"TZ": "Europe/Berlin"})).await;
        let berlin = "Europe/Berlin 2024-07-01T14:00:00+02:00 ('CET', 'CEST')\n2024-07-01T14:00:00+02:00\nTrue\n";
        assert_eq!(answer.assert_outcome(200, "ok").output(), berlin);
        // The zone of an invocation is not the zone of the next invocation.
        let utc = "None 2024-07-01T12:00:00+00:00 ('UTC', 'UTC')\n2024-07-01T14:00:00+02:00\nTrue\n";
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), utc);
        let zone = "import (\n\t\"crypto/x509\"\n\t\"fmt\"\n\t\"os\"\n\t\"time\"\n)\n\nfunc main() {\n\
                    \tt := time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC)\n\tl, err := time.LoadLocation(\"Europe/Berlin\")\n\
                    \tpool, _ := x509.SystemCertPool()\n\
                    \tfmt.Println(os.Getenv(\"TZ\"), t.Local(), l, err, len(pool.Subjects()) > 50)\n}\n";
        let function = app.deploy(go(zone)).await;
        let answer = app.execute_with(&function, serde_json::json!({"TZ": "Europe/Berlin"})).await;
        let berlin = "Europe/Berlin 2024-07-01 14:00:00 +0200 CEST Europe/Berlin <nil> true\n";
        assert_eq!(answer.assert_outcome(200, "ok").output(), berlin);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_package_with_a_main_module_can_import_itself() {
    TestApp::run(&[], async |app| {
        let core = ("myapp/core.py", "from . import data\n\nNAME = 'core of ' + data.X\n");
        let data = ("myapp/data.py", "X = 'myapp'\n");
        let init = ("myapp/__init__.py", "");
        let program = "import myapp\nimport myapp.core as core\nfrom myapp.core import NAME\nfrom . import data\nimport data as d\n\
                       print(core.NAME, NAME == core.NAME, data.X, d.X, __name__, __package__, myapp.__name__)\n";
        for files in [vec![("myapp/__main__.py", program), core, data, init], vec![("myapp/__main__.py", program), core, data]] {
            let function = app.deploy(zip(&files)).await;
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!(answer.output(), "core of myapp True myapp myapp __main__ myapp myapp\n");
        }
        // A program beside its package's modules, as web frameworks have such programs.
        let main = ("myapp/main.py", "from myapp.core import NAME\nimport data\nprint(NAME, data.X, __package__)\n");
        let function = app.deploy(zip(&[main, core, data, init])).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "core of myapp myapp None\n");
        // A folder whose name can't be a package's name runs as before.
        let function = app.deploy(zip(&[("my-app/__main__.py", "import sib\nprint(sib.X)\n"), ("my-app/sib.py", "X = 1\n")])).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "1\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_file_that_is_no_program_is_told_at_the_containers_start() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(zip(&[("main.go", MAIN), ("data.txt", "data")])).await;
        for (file, complaint) in [("/app/data.txt", "is not a program"), ("/nothing", "no such file")] {
            let program = ["--entrypoint=/bootstrap", &function.image, file];
            let args = [&["run", "--rm", "--network=none"], &OF_NO_PLATFORM[..], &program].concat();
            let ended = std::process::Command::new("docker").args(args).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.code() == Some(3) && said.contains(complaint), "{file}: {ended:?}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_probably_not_meant_is_warned_of_each_time() {
    TestApp::run(&[], async |app| {
        let handler = [("lambda_function.py", "def lambda_handler(event, context):\n    return {'statusCode': 200}\n")];
        let broken = [("main.py", "print('runs')\n"), ("lib/broken.py", "this does not compile\n")];
        for (files, warning) in [
            (&handler[..], "lambda_function.py defines `lambda_handler`, and nothing calls it"),
            (&broken[..], "lib/broken.py does not compile: SyntaxError"),
        ] {
            // A build that finds its steps in the cache warns, too.
            for _ in 0..2 {
                let answer = app.submit(zip(files)).await.assert_status(200);
                let warnings = answer.body["warnings"].as_array().unwrap();
                assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().starts_with(warning), "{warnings:?}");
            }
        }
        let answer = app.submit(zip(&[("main.py", "print('fine')\n")])).await.assert_status(200);
        assert!(answer.body.get("warnings").is_none(), "{:#}", answer.body);
    })
    .await;
}
