//! The rehearsal of pages: what the process of a request finds adapted, and that nothing else is left of a rehearsal.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Answer, Deployed, Index, TestApp, answer, wheel, zip};

/// Tells which code the interpreter has adapted before the program ran, and then what a rehearsal might have left.
const LOOKS: &str = "
import dis, logging, os, sys, threading, warnings
from wsgiref.handlers import BaseHandler, CGIHandler
import flask

def is_adapted(function):
    return any(one.opname != one.baseopname for one in dis.get_instructions(function, adaptive=True))

print(is_adapted(BaseHandler.run), is_adapted(flask.Flask.wsgi_app))
print(sorted(logging.root.manager.loggerDict), len(warnings.filters), sorted(os.environ), threading.active_count())
print(flask.has_app_context(), flask.has_request_context(), sys.argv, CGIHandler.os_environ, sys.stdin.read())
";

async fn deploy(app: &TestApp, program: &str) -> Deployed {
    let zip = zip(&[("main.py", program), ("requirements.txt", "flask\n")]);
    let submitted = app.submit_form(Form::new().part("code", Part::bytes(zip).file_name("a.zip"))).await;
    let id = submitted.assert_status(200).body["functionId"].as_str().unwrap().to_owned();
    Deployed { id, image: String::new() }
}

async fn preload(app: &TestApp, function: &Deployed, mode: &str) -> Answer {
    let path = format!("/api/functions/{}", function.id);
    answer(app.request(Method::PATCH, &path).json(&json!({"preload": mode}))).await.assert_status(200)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_finds_code_that_is_adapted_and_nothing_else() {
    TestApp::run(&[], async |app| {
        let function = deploy(app, LOOKS).await;
        let run = async || app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
        let (first, second) = (run().await, run().await);
        assert_eq!(first, second);
        preload(app, &function, "off").await;
        let alone = run().await;
        let (adapted, left) = first.split_once('\n').unwrap();
        assert_eq!((adapted, alone.split_once('\n').unwrap()), ("True True", ("False False", left)));
        // Without installed packages, the standard library's part is rehearsed.
        preload(app, &function, "stdlib").await;
        assert_eq!(run().await.split_once('\n').unwrap(), ("True False", left));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_library_that_is_not_the_known_one_is_preloaded_or_left_out() {
    let program = "import sys\nprint('flask' in sys.modules)\nfrom wsgiref.handlers import CGIHandler\nimport flask\n";
    for (content, reason) in [
        ("X = 1\n", None),
        ("def Flask(name):\n    raise RuntimeError(name)\n", None),
        ("def Flask(name):\n    print(name)\n", Some("prints")),
        ("def Flask(name):\n    raise SystemExit(3)\n", Some("raises SystemExit")),
        ("import os\ndef Flask(name):\n    os.pipe()\n", Some("opens a descriptor")),
        ("def Flask(name):\n    import helper\n", Some("imports helper, a module of the zip")),
    ] {
        let names = "jsonify = redirect = request = None\n";
        let (name, content) = wheel("flask", &[("flask.py", &format!("{names}{content}"))]);
        let index = Index::of(&[(&name, content)], None);
        let url = format!("http://{}/simple", index.authority);
        TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
            let zip = [("main.py", program), ("helper.py", "print('helper')\n"), ("requirements.txt", "flask\n")];
            let submission = Form::new().part("code", Part::bytes(crate::support::zip(&zip)).file_name("a.zip"));
            let submitted = app.submit_form(submission).await.assert_status(200);
            let id = submitted.body["functionId"].as_str().unwrap().to_owned();
            let function = Deployed { id, image: String::new() };
            let expected = if reason.is_some() { "False\n" } else { "True\n" };
            assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), expected, "{reason:?}");
            let found = app.get(&format!("/api/functions/{}/settings", function.id)).await.body["preload"].clone();
            let excluded: &Vec<Value> = found["excluded"].as_array().unwrap();
            let said = excluded.first().map(|one| one["reason"].as_str().unwrap());
            assert!(excluded.len() == usize::from(reason.is_some()), "{found:#}");
            assert!(said.is_none_or(|said| said.starts_with(reason.unwrap())), "{found:#}");
        })
        .await;
    }
}
