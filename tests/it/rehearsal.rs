//! The rehearsal of pages: what the process of a request finds adapted, and that nothing else is left of a rehearsal.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Deployed, Index, TestApp, answer, wheel, zip};

/// Tells which code the interpreter has adapted before the program ran, and then what a rehearsal might have left.
const LOOKS: &str = "
import dis, logging, os, sys, threading, warnings
from wsgiref.handlers import BaseHandler, CGIHandler
import flask

def is_adapted(function):
    now, written = (dis.get_instructions(function, adaptive=adaptive) for adaptive in (True, False))
    return [one.opname for one in now] != [one.opname for one in written]

print(is_adapted(BaseHandler.run), is_adapted(flask.Flask.wsgi_app))
names = [name for name in os.environ if not name.endswith('_NUM_THREADS')]
print(sorted(logging.root.manager.loggerDict), len(warnings.filters), sorted(names), threading.active_count())
print(flask.has_app_context(), flask.has_request_context(), sys.argv, CGIHandler.os_environ, sys.stdin.read())
";

async fn deploy(app: &TestApp, program: &str) -> Deployed {
    let zip = zip(&[("main.py", program), ("helper.py", "print('helper')\n"), ("requirements.txt", "flask\n")]);
    let submitted = app.submit_form(Form::new().part("code", Part::bytes(zip).file_name("a.zip"))).await;
    let id = submitted.assert_status(200).body["functionId"].as_str().unwrap().to_owned();
    Deployed { id, image: String::new() }
}

async fn configure(app: &TestApp, function: &Deployed, change: &Value) {
    let path = format!("/api/functions/{}", function.id);
    answer(app.request(Method::PATCH, &path).json(change)).await.assert_status(200);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_finds_code_that_is_adapted_and_nothing_else() {
    TestApp::run(&[], async |app| {
        let function = deploy(app, LOOKS).await;
        let run = async || app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
        let (first, second) = (run().await, run().await);
        assert_eq!(first, second);
        configure(app, &function, &json!({"preload": "off"})).await;
        let alone = run().await;
        let (adapted, left) = first.split_once('\n').unwrap();
        assert_eq!((adapted, alone.split_once('\n').unwrap()), ("True True", ("False False", left)));
        // Without installed packages, the standard library's part is rehearsed.
        configure(app, &function, &json!({"preload": "stdlib"})).await;
        assert_eq!(run().await.split_once('\n').unwrap(), ("True False", left));
    })
    .await;
}

/// A library of the name whose pages are all right, but for what the variable says.
const FLASK: &str = "
import os, threading, time
CALLS = []
jsonify = redirect = request = None

class App:
    config = {}

    def __call__(self, environ, start_response):
        start_response('200 OK', [])
        return [b'']

    def route(self, *_, **__):
        return lambda page: page

    get = post = route

def Flask(name):
    CALLS.append(name)
    exec(os.environ.get('CASE', ''))
    return App()
";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_library_whose_rehearsal_goes_wrong_is_preloaded_all_the_same() {
    let program = "import sys\nprint(len(sys.modules['flask'].CALLS))\n\
                   from wsgiref.handlers import CGIHandler\nimport flask\n";
    let (name, wheel) = wheel("flask", &[("flask.py", FLASK)]);
    let index = Index::of(&[(&name, wheel)], None);
    let url = format!("http://{}/simple", index.authority);
    TestApp::run(&[("PIP_INDEX_URL", &url)], async |app| {
        let function = deploy(app, program).await;
        for (case, calls) in [
            ("", 3),
            ("print(name)", 0),
            ("raise RuntimeError(name)", 0),
            ("raise SystemExit(3)", 0),
            ("os.pipe()", 0),
            ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", 0),
            ("import helper", 0),
            ("App.__call__ = lambda *_: 1 / 0", 0),
        ] {
            configure(app, &function, &json!({"environment": {"CASE": case}})).await;
            // After a rehearsal that went wrong, another zygote answers.
            let output = app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
            assert_eq!(output, format!("{calls}\n"), "{case}");
            let found = app.get(&format!("/api/functions/{}/settings", function.id)).await.body["preload"].clone();
            assert_eq!((&found["excluded"], &found["modules"][2]), (&json!([]), &json!("flask")), "{case}");
        }
    })
    .await;
}
