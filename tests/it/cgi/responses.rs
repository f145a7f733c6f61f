//! What functions may answer, and what becomes of functions that fail.

use reqwest::Method;
use serde_json::json;

use crate::cgi::PUBLIC;
use crate::support::{TestApp, answer, eventually, python};

/// Writes the bytes that the request's body has, then ends with the status of the query.
const ECHO: &str = "import os, sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())\nsys.stdout.flush()\nsys.exit(int(os.environ['QUERY_STRING'] or 0))\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_says_status_fields_and_body() {
    TestApp::run(&PUBLIC, async |app| {
        app.deploy_site("echo", python(ECHO)).await;
        let say = async |method: Method, output: &str| {
            app.call(method, "/f/echo").body(output.to_owned()).send().await.unwrap()
        };
        let response = say(Method::POST, "Status: 201 Created\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Own: x\r\nContent-Type: a/b\r\n\r\nbody").await;
        assert_eq!(response.status(), 201);
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!((&response.headers()["x-own"], &response.headers()["content-type"]), (&"x".parse().unwrap(), &"a/b".parse().unwrap()));
        assert_eq!(response.text().await.unwrap(), "body");

        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let redirect = client.post(format!("{}/f/echo", app.functions_url)).body("Location: /f/echo/login\n\n");
        let redirect = redirect.send().await.unwrap();
        assert_eq!((redirect.status(), &redirect.headers()["location"]), (status(302), &"/f/echo/login".parse().unwrap()));

        // Neither the connection nor the browser is the function's to bind.
        let bound = "Connection: close\nTransfer-Encoding: gzip\nService-Worker-Allowed: /\nClear-Site-Data: \"*\"\nStrict-Transport-Security: max-age=1\nAlt-Svc: h3\nX-Invocation-Id: forged\nContent-Type: a/b\n\nbody";
        let response = say(Method::POST, bound).await;
        for name in ["service-worker-allowed", "clear-site-data", "strict-transport-security", "alt-svc"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        assert_ne!(response.headers()["x-invocation-id"], "forged");
        assert_eq!(response.text().await.unwrap(), "body");

        // Other output is text, which no browser takes for a page.
        for output in ["<script>alert(1)</script>\n", "{\"a\": 1}", "", "Name: Jo\nAge: 7\n\n"] {
            let response = say(Method::POST, output).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(response.text().await.unwrap(), output);
        }

        // An error page is the function's own.
        let response = say(Method::POST, "Status: 404 Not Found\nContent-Type: text/html\n\n<h1>none</h1>").await;
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (status(404), "<h1>none</h1>"));
        let response = say(Method::POST, "Status: 204\n\n").await;
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (status(204), ""));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn head_has_the_fields_without_the_body() {
    TestApp::run(&PUBLIC, async |app| {
        let program = "import os\nprint('Content-Type: text/x\\nContent-Length: 300000\\nX-Method: ' + os.environ['REQUEST_METHOD'] + '\\n')\nprint('x' * 299999)\n";
        app.deploy_site("site", python(program)).await;
        for (method, size) in [(Method::HEAD, 0), (Method::GET, 300_000), (Method::HEAD, 0)] {
            let response = app.call(method.clone(), "/f/site").send().await.unwrap();
            assert_eq!((response.status(), &response.headers()["x-method"]), (status(200), &method.as_str().parse().unwrap()));
            assert_eq!(response.headers()["content-length"], "300000");
            assert_eq!(response.bytes().await.unwrap().len(), size);
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_that_fails_is_no_response() {
    TestApp::run(&PUBLIC, async |app| {
        let function = app.deploy_site("echo", python(ECHO)).await;
        // The service ends an invocation after the answer, and another request must not take a second instance.
        let quiet = async || {
            eventually("no invocation runs", async || {
                (app.instances("busy").await + app.instances("ending").await == 0).then_some(())
            })
            .await;
        };
        let say =
            |output: &str, status: &str| app.call(Method::POST, &format!("/f/echo?{status}")).body(output.to_owned());
        for output in ["", "a text\n", "Content-Type: text/html\n"] {
            let failed = answer(say(output, "3")).await.assert_problem(502, "function_failed", "exit");
            assert_eq!(failed.body["outcome"], "exit");
            let path = format!("/api/invocations/{}", failed.body["invocationId"].as_str().unwrap());
            let record = app.get(&path).await.assert_status(200).body;
            assert_eq!((&record["exitCode"], &record["trigger"]), (&json!(3), &json!("http")));
            quiet().await;
        }
        // A response that has begun breaks off, so that nobody takes a part for the whole.
        let begun = say("Content-Type: text/html\n\n<p>", "3").send().await.unwrap();
        assert_eq!(begun.status(), 200);
        begun.bytes().await.unwrap_err();
        quiet().await;
        for output in [
            "Content-Type: a/b\nX: a\rSet-Cookie: evil=1\n\n",
            "Content-Type: a/b\nX: a\0b\n\n",
            "Content-Type: a/b\nContent-Length: 5\nContent-Length: 6\n\nhello",
            "Status: 99\n\n",
        ] {
            answer(say(output, "0")).await.assert_problem(502, "invalid_response", "the function's response");
            quiet().await;
        }
        // A body of another length than said is cut, or breaks off.
        let long = say("Content-Type: a/b\nContent-Length: 3\n\nhello", "0").send().await.unwrap();
        assert_eq!(long.text().await.unwrap(), "hel");
        quiet().await;
        let short = say("Content-Type: a/b\nContent-Length: 9\n\nhello", "0").send().await.unwrap();
        short.bytes().await.unwrap_err();
        quiet().await;
        // The next request finds a clean function.
        assert_eq!(say("Content-Type: a/b\n\nok", "0").send().await.unwrap().text().await.unwrap(), "ok");
        assert!(app.containers_of(&function).len() <= 1);
        let stderr = app.deploy_site("stderr", python("import sys\nsys.exit('a secret of the owner')\n")).await;
        let failed = answer(app.call(Method::GET, "/f/stderr")).await.assert_problem(502, "function_failed", "exit");
        assert!(!failed.body.to_string().contains("secret of the owner"));
        assert_eq!(app.last_invocation(&stderr, 1).await["stderr"], "a secret of the owner\n");
    })
    .await;
}

fn status(code: u16) -> reqwest::StatusCode {
    reqwest::StatusCode::from_u16(code).unwrap()
}
