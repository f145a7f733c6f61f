//! Requirement files and packages that want to run code, read files, or write where they must not.

use crate::alone;
use crate::builds::files_of;
use crate::support::{Index, TestApp, wheel, zip};

/// A distribution in source form, whose installation would show that its code ran.
fn source(index: &str) -> (String, Vec<u8>) {
    let setup = format!(
        "import urllib.request\nurllib.request.urlopen('{index}/ran')\nfrom setuptools import setup\nsetup(name='evil', version='1.0')\n"
    );
    (
        "evil-1.0.zip".to_owned(),
        zip(&[
            ("evil-1.0/setup.py", &setup),
            ("evil-1.0/PKG-INFO", "Metadata-Version: 1.0\nName: evil\nVersion: 1.0\n"),
        ]),
    )
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_requirement_runs_code_or_reads_a_file() {
    let _alone = alone().await;
    // The other index would get a request if the distribution's code ran.
    let witness = Index::of(&[], None);
    let (name, sdist) = source(&format!("http://{}", witness.authority));
    let index = Index::of(&[(&name, sdist)], None);
    let url = format!("http://{}/simple", index.authority);
    let direct = format!("evil @ http://{}/files/{name}", index.authority);
    let utf_16 = |text: &str| {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let with_end = |text: &str| [utf_16(text), b".whl".to_vec()].concat();
    TestApp::run(&[("PIP_EXTRA_INDEX_URL", &url)], async |app| {
        let refused = async |requirements: Vec<u8>, expected: &str| {
            let shown = String::from_utf8_lossy(&requirements).into_owned();
            let answer = app.submit(package(&requirements)).await;
            assert_eq!(
                (answer.status, answer.body["code"].as_str()),
                (422, Some("build_failed")),
                "{shown}: {:#}",
                answer.body
            );
            let said = format!("{} {}", answer.body["detail"], answer.body["buildLog"]);
            assert!(said.contains(expected) && !said.contains("root:"), "{shown}: {said}");
        };
        let no_wheel = "no usable wheels";
        refused(b"evil\n".to_vec(), no_wheel).await;
        refused(b"--only-binary :none:\nevil\n".to_vec(), no_wheel).await;
        let from_source = "`--no-binary` has packages built";
        for line in ["--no-binary=:all:", "--no-binary=:all:,x.whl", "--no-binary evil", "--no-\\\nbinary evil"] {
            let text = format!("{line}\nevil\n");
            for text in
                [text.clone(), format!("\\\n{text}"), text.replace('\n', "\r\n"), format!("--only-binary evil\n{text}")]
            {
                refused(text.clone().into_bytes(), from_source).await;
                refused([b"\xef\xbb\xbf", text.as_bytes()].concat(), from_source).await;
                refused(utf_16(&text), from_source).await;
                refused(with_end(&text), "").await;
            }
        }
        refused(b"evil --no-binary evil\n".to_vec(), "is not known").await;
        refused(direct.clone().into_bytes(), "disabled").await;
        refused(utf_16(&direct), "disabled").await;
        for (line, expected) in [
            ("-e .", "line 2: an editable requirement"),
            ("./local", "line 2: \\\"./local\\\" is a file or folder"),
            ("name @ file:///etc/passwd", "is a file or folder"),
            ("file:///app/x.whl", "is a file or folder"),
            ("--find-links /etc", "is a file or folder"),
            ("-r ../../etc/passwd", "is outside the zip"),
            ("-r /etc/passwd", "is outside the zip"),
            ("-r missing.txt", "the zip has no file"),
            ("-r https://example.org/x.txt", "is at a URL"),
            ("six ; '${PIP_EXTRA_INDEX_URL}'", "line 2: `${` would be replaced"),
        ] {
            let text = format!("six\n{line}\n");
            refused(text.clone().into_bytes(), expected).await;
            refused([b"\xef\xbb\xbf", text.as_bytes()].concat(), expected).await;
            refused(utf_16(&text.replace('\n', "\r\n")), expected).await;
        }
        assert_eq!(witness.count("/ran"), 0);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_wheel_writes_only_where_packages_are() {
    let _alone = alone().await;
    let script = "#!/bin/sh\necho evil\n";
    let files = [
        ("evil.py", "X = 'installed'\n"),
        ("evil.pth", "import sys; sys.evil = 1\n"),
        ("evil-1.0.data/scripts/sh", script),
        ("bin/python3", script),
        ("evil-1.0.data/scripts/evil-command", "#!python\nprint('command')\n"),
        ("evil-1.0.data/data/etc/evil", "evil"),
        ("evil-1.0.data/data/usr/local/bin/python3", script),
        ("evil-1.0.data/headers/evil.h", "evil"),
        ("compileall.py", "open('/tmp/ran', 'w')\n"),
        ("sitecustomize.py", "import sys; sys.customized = 1\n"),
    ];
    let (name, content) = wheel("evil", &files);
    let up = wheel("upward", &[("../../../../../../usr/local/bin/python3", script), ("upward.py", "")]);
    let data = wheel("dataward", &[("dataward-1.0.data/data/../../../../etc/evil", "evil"), ("dataward.py", "")]);
    let reserved = wheel("reserved", &[("reserved-1.0.data/scripts/python3", script), ("reserved.py", "")]);
    let index = Index::of(&[(&name, content), (&up.0, up.1), (&data.0, data.1), (&reserved.0, reserved.1)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let program = "import evil, sys, os, subprocess\nprint(evil.X, sys.executable, os.path.exists('/tmp/ran'))\n\
                       print(subprocess.run(['python3', '-c', 'print(1)'], capture_output=True, text=True).stdout)\n\
                       print(subprocess.run(['evil-command'], capture_output=True, text=True).stdout)\n";
        let function = app.deploy(zip(&[("main.py", program), ("requirements.txt", "evil\n"), ("x/y.py", "")])).await;
        let output = app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
        assert!(output.starts_with("installed /usr/") && output.contains(" False\n1\n\ncommand\n"), "{output}");
        // Beside the function's own files, a function with packages differs from a function without packages in one
        // folder.
        let plain = app.deploy(zip(&[("main.py", program), ("x/y.py", "")])).await;
        let lists = [files_of(&function.image), files_of(&plain.image)];
        let added: Vec<&String> = lists[0].iter().filter(|file| !lists[1].contains(file)).collect();
        let is_own = |file: &str| file.starts_with("app/") || file.contains("-packages/");
        assert!(added.len() > 8 && added.iter().all(|file| is_own(file)), "{added:?}");
        for name in ["upward", "dataward", "reserved"] {
            let answer = app.submit(zip(&[("main.py", "print('ran')\n"), ("requirements.txt", name)])).await;
            if answer.status == 200 {
                let files = files_of(answer.body["imageId"].as_str().unwrap());
                assert!(!files.iter().any(|file| file == "usr/local/bin/python3" || file == "etc/evil"), "{name}");
            } else {
                answer.assert_problem(422, "build_failed", "");
            }
        }
    })
    .await;
}

/// A zip with these requirements.
fn package(requirements: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [
        ("main.py", &b"import six\n"[..]),
        ("requirements.txt", requirements),
        ("setup.py", b"raise SystemExit('ran')\n"),
    ] {
        writer.start_file(name, ::zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
