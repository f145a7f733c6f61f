//! Packages and modules of functions: which files name the packages, how packages come in, and who sees a secret on the
//! way.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{Index, Service, TestApp, docker, eventually, labelled, python, wheel, zip};

const SIX: &str = "import six\nprint(six.__version__, six.__file__, bool(six.__cached__))\n";
/// The hash of the wheel of six 1.16.0.
const HASH: &str = "sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254";

#[tokio::test]
#[ignore = "needs docker"]
async fn packages_are_installed_from_each_file_that_tools_write() {
    let exported = format!("six==1.16.0 ; python_version >= \"3.8\" \\\n    --hash={HASH}\n    # via x\n");
    let utf_16: Vec<u8> = "\u{feff}six==1.16.0\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let lock = format!(
        "version = 1\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"six\"\nversion = \"1.16.0\"\nsource = {{ registry = \
         \"https://pypi.org/simple\" }}\nwheels = [\n    {{ url = \"https://files.pythonhosted.org/packages/d9/5a/\
         e7c31adbe875f2abbb91bd84cf2dc52d792b5a01506781dbcf25c91daf11/six-1.16.0-py2.py3-none-any.whl\", hash = \"{HASH}\", size = \
         11053 }},\n]\n\n[[package]]\nname = \"x\"\nversion = \"1\"\nsource = {{ virtual = \".\" }}\ndependencies = [\n    {{ name = \
         \"six\" }},\n]\n\n[package.metadata]\nrequires-dist = [{{ name = \"six\" }}]\n"
    );
    let project = "[project]\nname = \"x\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six\"]\n";
    let pinned = "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"six==1.16.0\"]\n[build-system]\nrequires = []\n\
                  build-backend = \"evil\"\nbackend-path = [\".\"]\n";
    let nested: &[(&str, &[u8])] = &[
        ("requirements.txt", b"-r requirements/base.txt\n-c constraints.txt\n--only-binary :all:\n"),
        ("requirements/base.txt", b"-r ../requirements.txt\nsix\n"),
        ("constraints.txt", b"six==1.16.0\n"),
    ];
    TestApp::run(&[], async |app| {
        let cases: [&[(&str, &[u8])]; 6] = [
            &[("requirements.txt", exported.as_bytes())],
            &[("requirements.txt", b"\xef\xbb\xbfsix==1.16.0\n")],
            &[("requirements.txt", &utf_16)],
            nested,
            &[("pyproject.toml", pinned.as_bytes())],
            &[("pyproject.toml", project.as_bytes()), ("uv.lock", lock.as_bytes()), ("requirements.txt", b"-e .\n")],
        ];
        for files in cases {
            let files: Vec<(&str, &[u8])> =
                [("main.py", SIX.as_bytes())].into_iter().chain(files.iter().copied()).collect();
            let function = app.deploy(bytes(&files)).await;
            let answer = app.execute(&function).await.assert_outcome(200, "ok");
            let (version, rest) = answer.output().split_once(' ').unwrap();
            assert!(version == "1.16.0" && rest.contains("-packages/six.py True"), "{files:?}: {}", answer.output());
        }
        let wrong = exported.replace("8abb", "0abb");
        let refused = app.submit(zip(&[("main.py", SIX), ("requirements.txt", &wrong)])).await;
        let refused = refused.assert_problem(422, "build_failed", "buildLog");
        assert!(
            refused.body["buildLog"].as_str().unwrap().contains("Hash mismatch for `six==1.16.0`"),
            "{:#}",
            refused.body
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_is_equal_is_downloaded_once_and_goes_with_its_last_function() {
    let (name, content) = wheel("one", &[("one.py", "X = 1\n"), ("broken.py", "def\n"), ("one/data.txt", "data")]);
    let index = Index::of(&[(&name, content)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let program =
            |n: u32| zip(&[("main.py", &format!("import one\nprint(one.X, {n})\n")), ("requirements.txt", "one\n")]);
        let (first, second) = tokio::join!(app.deploy(program(1)), app.deploy(program(2)));
        assert_eq!(app.execute(&second).await.assert_outcome(200, "ok").output(), "1 2\n");
        assert_eq!(index.count("/simple/one/"), 1);
        let packages = || app.images().into_iter().filter(|image| image.contains("-packages/")).count();
        assert_eq!(packages(), 1);
        app.delete(&first.id).await.assert_status(200);
        let of_first = format!("youtube-serverless/{}", first.id);
        eventually("the function's image is gone", async || {
            docker(&["images", "--quiet", &of_first]).is_empty().then_some(())
        })
        .await;
        assert_eq!(packages(), 1);
        let third = app.deploy(program(3)).await;
        assert_eq!(app.execute(&third).await.assert_outcome(200, "ok").output(), "1 3\n");
        assert_eq!(index.count("/simple/one/"), 1, "the package was downloaded again");
        for function in [&second, &third] {
            app.delete(&function.id).await.assert_status(200);
        }
        eventually("the packages are gone", async || (packages() == 0).then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn credentials_of_an_index_are_nowhere_but_on_the_way_there() {
    const PASSWORD: &str = "correct-horse-42";
    let (name, content) = wheel("one", &[("one.py", "X = 1\n")]);
    // `me:correct-horse-42`
    let index = Index::of(&[(&name, content)], Some("bWU6Y29ycmVjdC1ob3JzZS00Mg=="));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let url = format!("http://me:{PASSWORD}@{}/simple", index.authority);
    let settings = [("PIP_INDEX_URL", url.as_str()), ("LOG_LEVEL", "debug"), ("PYTHON_ALLOW_SOURCE_BUILDS", "false")];
    let service = Service::start_logged(dir.path(), &settings, &log).await.healthy().await;
    let id =
        service.deploy(zip(&[("main.py", "import one\nprint(one.X)\n"), ("requirements.txt", "one==1.0\n")])).await;
    assert_eq!(service.execute(&id).await.assert_outcome(200, "ok").output(), "1\n");
    let refused = service.submit(zip(&[("main.py", ""), ("requirements.txt", "two==2.0\n")])).await;
    let mut seen = refused.assert_problem(422, "build_failed", "buildLog").body.to_string();
    seen += &service.get(&format!("/api/functions/{id}")).await.body.to_string();
    seen += &std::fs::read_to_string(&log).unwrap();
    for image in docker(&["images", "--all", "--quiet", "--no-trunc"]) {
        // An image of another test may go meanwhile.
        for args in [&["image", "inspect", &image][..], &["image", "history", "--no-trunc", &image]] {
            let output = std::process::Command::new("docker").args(args).output().unwrap();
            seen += &String::from_utf8_lossy(&output.stdout);
        }
    }
    for container in docker(&["ps", "--all", "--quiet"]) {
        let output = std::process::Command::new("docker").args(["inspect", &container]).output().unwrap();
        seen += &String::from_utf8_lossy(&output.stdout);
    }
    assert!(seen.contains("two was not found") && seen.contains(&id) && !seen.contains(PASSWORD));
    service.delete_all(dir.path()).await;
    // A build is cancelled while its download waits for the index.
    let url = url.replace("/simple", "/stalls");
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let stalled = zip(&[("main.py", ""), ("requirements.txt", "one==1.0\n")]);
        let submission =
            app.request(Method::POST, "/api/submit").multipart(Form::new().part("code", Part::bytes(stalled)));
        let sent = tokio::spawn(submission.send());
        eventually("the download has begun", async || (index.count("/stalls/one/") > 0).then_some(())).await;
        let inspected: Vec<String> =
            app.containers().iter().flat_map(|container| docker(&["inspect", container])).collect();
        sent.abort();
        let inspected = inspected.join("\n");
        assert!(inspected.contains("\"OomScoreAdj\": 500") && !inspected.contains(PASSWORD), "{inspected}");
        eventually("no container of the build is left", async || app.containers().is_empty().then_some(())).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_download_ends_with_its_build() {
    let index = Index::of(&[], None);
    let url = format!("http://{}/stalls", index.authority);
    // The runtime image that installs packages is there before the test counts images.
    TestApp::run(&[], async |app| {
        drop(app.deploy(zip(&[("main.py", SIX), ("requirements.txt", "six==1.16.0\n")])).await)
    })
    .await;
    let stalled = || zip(&[("main.py", ""), ("requirements.txt", "one\n")]);
    TestApp::run(&[("PIP_INDEX_URL", &url), ("DOCKER_BUILD_TIMEOUT", "6s")], async |app| {
        let answer = app.submit(stalled()).await;
        answer.assert_problem(504, "build_timeout", "DOCKER_BUILD_TIMEOUT");
        let is_clean = async || (app.containers().is_empty() && app.images().is_empty()).then_some(());
        eventually("nothing is left", is_clean).await;
    })
    .await;
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let begun = index.count("/one/");
        let leaving =
            app.request(Method::POST, "/api/submit").multipart(Form::new().part("code", Part::bytes(stalled())));
        let sent = tokio::spawn(leaving.send());
        eventually("the download has begun", async || (index.count("/one/") > begun).then_some(())).await;
        sent.abort();
        let is_clean = async || (app.containers().is_empty() && app.images().is_empty()).then_some(());
        eventually("no container of the build is left", is_clean).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn files_that_are_not_read_are_warned_of() {
    TestApp::run(&[], async |app| {
        let odd = || zip(&[("main.py", "print(1)\n"), ("Pipfile", ""), ("Requirements.txt", "six\n")]);
        let answer = app.submit(odd()).await.assert_status(200);
        let warnings: Vec<&str> =
            answer.body["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert!(warnings.len() == 2 && warnings[0].starts_with("Pipfile is not read"), "{warnings:?}");
        let plain = app.deploy(python("print(1)\n")).await;
        let updated = app.update(&plain, odd()).await.assert_status(200);
        assert_eq!(updated.body["warnings"], answer.body["warnings"]);
        let updated = app.update(&plain, python("print(2)\n")).await.assert_status(200);
        assert_eq!(updated.body.get("warnings"), None);
        let form = Form::new().part("code", Part::bytes(odd()).file_name("f.zip"));
        let request = app.request(Method::POST, "/api/submit").header("accept", "text/event-stream").multipart(form);
        let text = request.send().await.unwrap().text().await.unwrap();
        assert!(text.contains("event: deployed") && text.contains("Pipfile is not read"), "{text}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_modules_are_downloaded_before_a_build_without_a_network() {
    let module = "module example.com/dep\n\ngo 1.18\n";
    let source = zip(&[
        ("example.com/dep@v1.0.0/go.mod", module),
        ("example.com/dep@v1.0.0/dep.go", "package dep\n\nconst X = 7\n"),
    ]);
    let at = |file: &str, content: &[u8]| (format!("/example.com/dep/@v/{file}"), content.to_vec());
    let info = json!({"Version": "v1.0.0", "Time": "2020-01-01T00:00:00Z"}).to_string();
    let files =
        vec![at("v1.0.0.info", info.as_bytes()), at("v1.0.0.mod", module.as_bytes()), at("v1.0.0.zip", &source)];
    let index = Index::start(files, None);
    let proxy = format!("http://{}", index.authority);
    let needs = "module x\n\ngo 1.18\n\nrequire example.com/dep v1.0.0\n";
    let main =
        "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.com/dep\"\n)\n\nfunc main() { fmt.Println(dep.X) }\n";
    let settings = [("GOPROXY", proxy.as_str()), ("GONOSUMDB", "example.com/*")];
    TestApp::run(&settings, async |app| {
        // Go itself makes the sums of these files.
        let sums = docker_go_sum(&proxy, needs);
        let function = app.deploy(zip(&[("main.go", main), ("go.mod", needs), ("go.sum", &sums)])).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "7\n");
        let missing = needs.replace("v1.0.0", "v1.2.3");
        let answer =
            app.submit(zip(&[("main.go", main), ("go.mod", &missing)])).await.assert_problem(422, "build_failed", "");
        assert!(answer.body["buildLog"].as_str().unwrap().contains("example.com/dep@v1.2.3"), "{:#}", answer.body);
        let wrong = sums.replace("h1:", "h1:AAAA");
        let answer = app.submit(zip(&[("main.go", main), ("go.mod", needs), ("go.sum", &wrong)])).await;
        answer.assert_problem(422, "build_failed", "");
    })
    .await;
}

/// The `go.sum` of a module, as Go writes the file.
fn docker_go_sum(proxy: &str, module: &str) -> String {
    let script = format!(
        "mkdir /x && cd /x && printf '%s' '{module}' >go.mod && \
         printf 'package main\\nimport _ \"example.com/dep\"\\nfunc main() {{}}\\n' >main.go && go mod tidy >&2 && cat go.sum"
    );
    let (proxy, image) = (format!("GOPROXY={proxy}"), std::env::var("GO_IMAGE").unwrap());
    let mut args = vec!["run", "--rm", "--env", &proxy, "--env", "GONOSUMDB=example.com/*", "--entrypoint=sh"];
    args.extend([image.as_str(), "-c", script.as_str()]);
    docker(&args).join("\n") + "\n"
}

#[tokio::test]
#[ignore = "needs docker"]
async fn downloads_of_a_killed_service_are_ended_at_the_next_start() {
    let index = Index::of(&[], None);
    let url = format!("http://{}/stalls", index.authority);
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("PIP_INDEX_URL", &url)]).await.healthy().await;
    let submission = service.submission(zip(&[("main.py", ""), ("requirements.txt", "one\n")]));
    let sent = tokio::spawn(submission.send());
    eventually("the download has begun", async || (index.count("/one/") > 0).then_some(())).await;
    service.signal("KILL");
    service.end().await;
    sent.abort();
    assert_eq!(labelled(dir.path(), &["ps", "--filter", "name=youtube-serverless-download-"]).len(), 1);
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    service.delete_all(dir.path()).await;
}

/// A zip of files that need not be text.
fn bytes(files: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, ::zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Imports each package, does something small with the package, and looks for modules that are not compiled.
const SCIENCE: &str = r#"
import importlib.util, io, os

import numpy
assert numpy.arange(6).reshape(2, 3).sum() == 15
import scipy.linalg
assert round(scipy.linalg.det([[1, 2], [3, 4]])) == -2
import pandas
assert pandas.DataFrame({"a": [1, 2], "b": [3, 4]}).sum().to_list() == [3, 7]
import igraph
assert igraph.Graph.Ring(5).diameter() == 2
from PIL import Image
drawn = io.BytesIO()
Image.new("RGB", (4, 4), "red").save(drawn, "PNG")
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
pyplot.plot([1, 2], [3, 4])
pyplot.savefig(drawn, format="png")

site = os.path.dirname(os.path.dirname(numpy.__file__))
files = missing = broken = 0
for folder, _, names in os.walk(site):
    for path in (os.path.join(folder, name) for name in names if name.endswith(".py")):
        files += 1
        if not os.path.exists(importlib.util.cache_from_source(path)):
            missing += 1
            try:
                with open(path, "rb") as file:
                    compile(file.read(), path, "exec", dont_inherit=True)
                print("not compiled:", path)
            except (SyntaxError, ValueError):
                broken += 1
print(files > 1000, missing - broken)
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn packages_that_many_use_run_compiled_and_in_the_default_memory() {
    TestApp::run(&[("DOCKER_RUN_TIMEOUT", "60s")], async |app| {
        let wanted = "numpy\npandas\nigraph\nmatplotlib\npillow\nscipy\n";
        let function = app.deploy(zip(&[("main.py", SCIENCE), ("requirements.txt", wanted)])).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "True 0\n");
    })
    .await;
}
