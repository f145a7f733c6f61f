//! From zip to image: builds that work, builds that fail, and images that are left.

use std::time::Duration;

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::support::{Service, TestApp, docker, eventually, go, python, zip};

#[tokio::test]
#[ignore = "needs docker"]
async fn requirements_are_installed_in_a_layer_of_their_own() {
    TestApp::run(&[], async |app| {
        let with_six = |program: &str| zip(&[("main.py", program), ("requirements.txt", "six==1.16.0\n")]);
        let first = app.deploy(with_six("import six\nprint(six.__version__)\n")).await;
        assert_eq!(app.execute(&first).await.assert_outcome(200, "ok").output(), "1.16.0\n");
        let second = app.deploy(with_six("import six\nprint('again', six.__version__)\n")).await;
        assert_eq!(app.execute(&second).await.assert_outcome(200, "ok").output(), "again 1.16.0\n");
        let layers = |image: &str| {
            docker(&["image", "inspect", "--format", "{{range .RootFS.Layers}}{{println .}}{{end}}", image])
        };
        let (first, second) = (layers(&first.image), layers(&second.image));
        let shared = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
        // The images share all layers but the code, the bytecode, and the blank line at the end.
        assert_eq!(shared, first.len() - 3, "{first:?} {second:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_failed_build_has_the_tools_own_message_and_leaves_nothing() {
    TestApp::run(&[], async |app| {
        let refused = async |zip: Vec<u8>, message: &str| {
            let answer = app.submit(zip).await.assert_problem(422, "build_failed", "buildLog");
            let log = answer.body["buildLog"].as_str().unwrap();
            assert!(log.contains(message) && !log.contains("Step ") && !log.contains("/bin/sh"), "{log}");
        };
        refused(go("func main() {\n\tundefinedFunction()\n}\n"), "undefined: undefinedFunction").await;
        refused(go("import \"example.com/nothing\"\n\nfunc main() { nothing.Do() }\n"), "example.com/nothing").await;
        let nothing = zip(&[("main.py", ""), ("requirements.txt", "no-such-package-of-any-name==99.99\n")]);
        refused(nothing, "no-such-package-of-any-name was not found in the package registry").await;
        refused(zip(&[("main.py", ""), ("requirements.txt", "six =! 1\n")]), "no such comparison operator \"=!\"")
            .await;
        eventually("nothing is left", async || app.images().is_empty().then_some(())).await;
        assert_eq!(app.get("/api/functions").await.body, serde_json::json!([]));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slow_build_ends_at_its_deadline() {
    TestApp::run(&[("DOCKER_BUILD_TIMEOUT", "300ms")], async |app| {
        let answer = app.submit(go("import _ \"net/http\"\n\nfunc main() {}\n")).await;
        answer.assert_problem(504, "build_timeout", "DOCKER_BUILD_TIMEOUT");
        eventually("nothing is left", async || app.images().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_client_that_leaves_in_mid_build_leaves_nothing() {
    TestApp::run(&[], async |app| {
        // The runtime image is there, so that only the function's own build remains.
        app.deploy(go("func main() {}\n")).await;
        let before =
            eventually("the stage of the build is removed", async || Some(app.images().len()).filter(|&n| n == 1))
                .await;
        for patience in [50, 200, 400, 800] {
            let part = Part::bytes(go(&format!("import _ \"net/http\"\n\nfunc main() {{ println({patience}) }}\n")));
            let request = app.request(reqwest::Method::POST, "/api/submit").multipart(Form::new().part("code", part));
            request.timeout(Duration::from_millis(patience)).send().await.expect_err("the build has no time to end");
        }
        let temp = std::fs::read_dir(app.dir.path().join("temp")).unwrap().next().unwrap().unwrap().path();
        eventually("nothing is left", async || {
            // Instances have names of the platform. Containers of build steps have names of Docker.
            let no_steps = app.containers().iter().all(|name| name.starts_with("youtube-serverless-"));
            let clean = app.images().len() == before && no_steps && std::fs::read_dir(&temp).unwrap().count() == 0;
            clean.then_some(())
        })
        .await;
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_package_arrives_whole_and_cannot_steer_its_build() {
    TestApp::run(&[], async |app| {
        let program = "import os, lib.deep as deep, sibling\nprint(sorted(os.listdir('.')), open('data.txt').read(), deep.X, sibling.X)\nprint(os.path.exists('lib/__pycache__'))\n";
        let package = zip(&[
            ("repo/main.py", program),
            ("repo/sibling.py", "X = 1\n"),
            ("repo/lib/deep.py", "X = 2\n"),
            ("repo/data.txt", "data"),
            ("repo/Dockerfile", "FROM scratch\nRUN nonsense\n"),
            ("repo/.dockerignore", "*\n"),
            ("repo/broken.py", "this does not compile\n"),
            ("__MACOSX/repo/._main.py", "x"),
        ]);
        let function = app.deploy(package).await;
        let answer = app.execute(&function).await.assert_outcome(200, "ok");
        let expected = "['.dockerignore', 'Dockerfile', '__pycache__', 'broken.py', 'data.txt', 'lib', 'main.py', 'sibling.py'] data 2 1\nTrue\n";
        assert_eq!(answer.output(), expected);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_modules_packages_and_vendored_code_are_built() {
    TestApp::run(&[], async |app| {
        let main = "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\n\t\"example.com/dep\"\n\t\"my/function/sub\"\n)\n\nfunc main() {\n\tdata, err := os.ReadFile(\"data.txt\")\n\tfmt.Println(dep.X, sub.X, string(data), err)\n}\n";
        let package = zip(&[
            ("go.mod", "module my/function\n\ngo 1.19\n\nrequire example.com/dep v1.0.0\n"),
            ("main.go", main),
            ("main_test.go", "package main\n\nthis is not compiled\n"),
            ("sub/sub.go", "package sub\n\nconst X = 2\n"),
            ("vendor/modules.txt", "# example.com/dep v1.0.0\n## explicit\nexample.com/dep\n"),
            ("vendor/example.com/dep/dep.go", "package dep\n\nconst X = 1\n"),
            ("data.txt", "data"),
        ]);
        let function = app.deploy(package).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "1 2 data <nil>\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn images_say_whose_they_are() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("")).await;
        let labels = docker(&["image", "inspect", "--format", "{{json .Config.Labels}}", &function.image]).join("");
        let labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
        assert_eq!(labels["youtube-serverless.function.id"], function.id);
        assert_eq!(labels["youtube-serverless.function.name"], "function");
        assert_eq!(labels["youtube-serverless.language"], "python");
        let platform = std::fs::read_to_string(app.dir.path().join("data/platform-id")).unwrap();
        assert_eq!(labels["youtube-serverless.platform"], platform);
        assert!(labels["youtube-serverless.created"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn functions_are_built_with_buildkit_too() {
    let dir = tempfile::tempdir().unwrap();
    // Debian's own client has BuildKit inside. Other clients take BuildKit from their buildx.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap());
    let service = Service::start(dir.path(), &[("DOCKER_BUILDKIT", "1"), ("PATH", &path)]).await.healthy().await;
    let failed =
        service.submit(go("func main() {\n\tundefinedFunction()\n}\n")).await.assert_problem(422, "build_failed", "");
    let log = failed.body["buildLog"].as_str().unwrap();
    assert!(log.contains("\n./main.go:4:2: undefined: undefinedFunction") && !log.contains("#9 "), "{log}");
    for zip in [python("print('built')"), go("import \"fmt\"\n\nfunc main() { fmt.Println(\"built\") }\n")] {
        let function = service.submit(zip).await.assert_status(200).body;
        let id = function["functionId"].as_str().unwrap();
        let answer = service.get(&format!("/api/execute?functionId={id}")).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "built\n");
        service.delete(id).await.assert_status(200);
        let image = format!("youtube-serverless/{id}");
        eventually("the image is gone", async || docker(&["images", "--quiet", &image]).is_empty().then_some(())).await;
    }
    service.signal("TERM");
    assert!(service.end().await.success());
}

#[tokio::test]
#[ignore = "needs docker"]
async fn packages_are_built_from_source_only_where_that_is_allowed() {
    // This version has no wheel.
    let from_source =
        || zip(&[("main.py", "import docopt\nprint(docopt.__version__)\n"), ("requirements.txt", "docopt==0.6.2\n")]);
    let sneaky = || zip(&[("main.py", ""), ("requirements.txt", "six\n--no-binary :all:\n")]);
    TestApp::run(&[], async |app| {
        let answer = app.submit(from_source()).await.assert_problem(422, "build_failed", "");
        let log = answer.body["buildLog"].as_str().unwrap();
        assert!(
            log.contains("docopt==0.6.2 has no usable wheels") && log.contains("PYTHON_ALLOW_SOURCE_BUILDS"),
            "{log}"
        );
        app.submit(sneaky()).await.assert_problem(422, "build_failed", "requirements.txt, line 2: `--no-binary`");
    })
    .await;
    TestApp::run(&[("PYTHON_ALLOW_SOURCE_BUILDS", "true")], async |app| {
        let function = app.deploy(from_source()).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "0.6.2\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_build_is_told_of_as_it_goes() {
    TestApp::run(&[], async |app| {
        let events = async |zip: Vec<u8>| {
            let form = Form::new().part("code", Part::bytes(zip).file_name("f.zip"));
            let request =
                app.request(Method::POST, "/api/submit").header("accept", "text/event-stream").multipart(form);
            let response = request.send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
                (200, "text/event-stream")
            );
            let text = response.text().await.unwrap();
            let event = |block: &str| {
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
                (field("event: "), field("data: "))
            };
            text.split("\n\n").filter(|block| block.starts_with("event")).map(event).collect::<Vec<_>>()
        };
        let mut told =
            events(zip(&[("main.py", "import six\nprint('built')\n"), ("requirements.txt", "six==1.16.0\n")])).await;
        let (name, data) = told.pop().unwrap();
        let deployed: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(
            (name.as_str(), deployed["message"].as_str()),
            ("deployed", Some("Function 'f' deployed successfully"))
        );
        assert!(told.iter().all(|(name, _)| name == "log"), "{told:?}");
        assert!(told.iter().any(|(_, line)| line == " + six==1.16.0"), "{told:?}");
        assert!(!told.iter().any(|(_, line)| line.starts_with("Step ")), "{told:?}");
        let mut told = events(go("func main() {\n\tundefinedFunction()\n}\n")).await;
        let (name, data) = told.pop().unwrap();
        let problem: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!((name.as_str(), problem["code"].as_str()), ("problem", Some("build_failed")));
        assert!(
            problem["requestId"].is_string() && problem["buildLog"].as_str().unwrap().contains("undefinedFunction")
        );
        assert!(told.iter().any(|(_, line)| line.contains("undefined: undefinedFunction")), "{told:?}");
        // A refusal before the build is a problem with its status, not an event.
        let form = Form::new().text("name", "x");
        let refused = app.request(Method::POST, "/api/submit").header("accept", "text/event-stream").multipart(form);
        crate::support::answer(refused).await.assert_problem(400, "invalid_request", "no file field");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_a_network_a_build_reaches_nothing() {
    TestApp::run(&[("BUILD_NETWORK", "none")], async |app| {
        let answer = app.submit(zip(&[("main.py", ""), ("requirements.txt", "six==1.16.0\n")])).await;
        answer.assert_problem(422, "build_failed", "BUILD_NETWORK");
        // A function that needs no network is built.
        let function = app.deploy(go("func main() { println(\"built\") }\n")).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").stderr(), "built\n");
    })
    .await;
}
