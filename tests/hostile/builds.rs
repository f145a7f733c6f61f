//! Zips that want to run code, reach out, or take the machine while they are built.

use std::time::{Duration, Instant};

use crate::alone;
use crate::support::{OF_NO_PLATFORM, TestApp, docker, go, python, zip};

const HELLO: &str = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"built\") }\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_of_a_zip_runs_while_python_is_built() {
    let _alone = alone().await;
    TestApp::run(&[], async |app| {
        let evil = "import os\nopen('/app/evil', 'w').write('ran')\n";
        // A build, or Python by itself, imports modules of these names.
        let names = [
            "compileall",
            "pip",
            "setuptools",
            "sitecustomize",
            "usercustomize",
            "site",
            "os",
            "re",
            "encodings",
            "struct",
            "py_compile",
            "concurrent",
            "importlib",
            "setup",
        ];
        let mut files: Vec<(String, &str)> = names.iter().map(|name| (format!("{name}.py"), evil)).collect();
        files.push(("evil.pth".to_owned(), "import os; open('/app/evil', 'w')\n"));
        files.push((
            "pyproject.toml".to_owned(),
            "[build-system]\nrequires = []\nbuild-backend = 'setup'\nbackend-path = ['.']\n",
        ));
        files.push(("pip.conf".to_owned(), "[install]\nno-binary = :all:\n"));
        files.push(("requirements.txt".to_owned(), "six==1.16.0\n"));
        files.push(("main.py".to_owned(), "print('main')\n"));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let function = app.deploy(zip(&files)).await;
        let built = files_of(&function.image);
        assert!(built.iter().any(|file| file == "app/compileall.py"), "{built:?}");
        assert!(!built.iter().any(|file| file == "app/evil"), "code of the zip ran in its build");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_of_a_zip_steers_gos_build() {
    let _alone = alone().await;
    TestApp::run(&[], async |app| {
        // Go reads flags from its environment and from files in the user's folder. The zip has a say in neither.
        let planted = "GOFLAGS=-toolexec=/app/evil.sh\nGOPROXY=http://127.0.0.1:1/evil\nCGO_ENABLED=1\nGOTOOLCHAIN=go1.99.0\n";
        let evil = "#!/bin/sh\necho evil > /out/evil\nexit 1\n";
        let function = app
            .deploy(zip(&[
                ("main.go", HELLO),
                ("go.mod", "module x\n\ngo 1.18\n"),
                ("go.env", planted),
                (".config/go/env", planted),
                (".env", planted),
                ("evil.sh", evil),
                (".hg/hgrc", "[extensions]\nx = /app/evil.py\n[hooks]\npre-status = /app/evil.sh\n"),
                (".hg/requires", "revlogv1\n"),
                ("evil.py", "open('/out/evil', 'w')\n"),
                ("go.work", "go 1.18\n\nuse (\n\t.\n\t./evil\n)\n"),
                ("evil/go.mod", "module evil\n\ngo 1.18\n"),
                ("evil/main.go", "package main\n\nfunc init() { panic(1) }\n"),
                ("Makefile", "all:\n\ttouch /out/evil\n"),
                ("Dockerfile", "FROM nothing\nRUN false\n"),
            ]))
            .await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "built\n");
        let files = files_of(&function.image);
        assert!(!files.iter().any(|file| file.ends_with("/evil") || file == "evil"), "{files:?}");

        // Directives that run something, link something, or want another toolchain.
        let generate = "package main\n\n//go:generate sh -c \"touch /out/evil\"\n\nfunc main() { println(\"built\") }\n";
        let function = app.deploy(zip(&[("main.go", generate)])).await;
        assert!(!files_of(&function.image).iter().any(|file| file == "evil"));
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").stderr(), "built\n");
        let cgo = "package main\n\n// #cgo LDFLAGS: -fplugin=/app/evil.so\n// #include <stdio.h>\nimport \"C\"\n\nfunc main() { C.puts(nil) }\n";
        app.submit(zip(&[("main.go", cgo)])).await.assert_problem(422, "build_failed", "");
        // These toolchains are not there. Go from 1.21 on knows such lines, and would fetch the toolchains.
        for module in ["module x\n\ngo 1.99.0\n\ntoolchain go1.99.0\n", "module x\n\ngo 1.18\n\ntoolchain go1.99.0\n"] {
            let answer = app.submit(zip(&[("main.go", HELLO), ("go.mod", module)])).await;
            let log = answer.body["buildLog"].as_str().unwrap_or_default();
            let names_it = log.contains("invalid go version") || log.contains("GOTOOLCHAIN=local") || log.contains("unknown directive");
            assert!(answer.status == 200 || answer.status == 422 && names_it, "{:#}", answer.body);
            assert!(!log.contains("downloading"), "{log}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_file_but_the_zips_own_gets_into_an_image() {
    let _alone = alone().await;
    TestApp::run(&[], async |app| {
        let embed = "package main\n\nimport _ \"embed\"\n\n//go:embed ../../etc/passwd\nvar stolen string\n\nfunc main() { println(stolen) }\n";
        app.submit(zip(&[("main.go", embed)])).await.assert_problem(422, "build_failed", "");
        let replaced = "module x\n\ngo 1.18\n\nrequire y v1.0.0\n\nreplace y => /root\n";
        app.submit(zip(&[("main.go", HELLO), ("go.mod", replaced), ("a.go", "package main\n\nimport _ \"y\"\n")]))
            .await
            .assert_problem(422, "build_failed", "");
        let function = app.deploy(zip(&[("main.go", HELLO), ("data/x.txt", "x")])).await;
        let mut own: Vec<String> = files_of(&function.image).into_iter().filter(|file| file.starts_with("app/")).collect();
        own.sort();
        assert_eq!(own, ["app/", "app/data/", "app/data/x.txt", "app/main.go"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_build_has_its_share_of_memory_and_no_more() {
    let _alone = alone().await;
    TestApp::run(&[("DOCKER_BUILD_MEMORY_LIMIT", "48MB")], async |app| {
        // The compiler takes some kilobytes for each line of this table.
        let table: String = (0..30_000).map(|n| format!("\t\"key {n}\": {{{n}, \"value\", {n}}},\n")).collect();
        let heavy = format!(
            "var table = map[string]struct{{ a int; b string; c int }}{{\n{table}}}\n\nfunc main() {{ println(len(table)) }}\n"
        );
        // The runtime image is there, so that the test times only the function's own build.
        app.deploy(go("func main() {}\n")).await;
        // With the toolchain in no cache, the kernel takes the compiler's own pages away at the limit, and kills no
        // process.
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        let began = Instant::now();
        let refused = app.submit(go(&heavy)).await.assert_problem(422, "build_failed", "");
        assert!(began.elapsed() < Duration::from_secs(60), "the build took {:?} to end", began.elapsed());
        let log = refused.body["buildLog"].as_str().unwrap();
        assert!(log.contains("DOCKER_BUILD_MEMORY_LIMIT"), "{log}");
        // A Python function without requirements needs no build step.
        let function = app.deploy(python("print('built')")).await;
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "built\n");
    })
    .await;
}

/// The files of an image, by their paths.
pub(crate) fn files_of(image: &str) -> Vec<String> {
    let container = docker(&[&["create"], &OF_NO_PLATFORM[..], &[image]].concat()).pop().unwrap();
    let script = format!("docker export {container} | tar -t; docker rm {container} >/dev/null");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let files: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(!files.is_empty(), "{image} has no files: {}", String::from_utf8_lossy(&output.stderr));
    files
}
