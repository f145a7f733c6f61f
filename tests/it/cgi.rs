//! Functions that answer HTTP requests of their own.

mod apps;
mod bodies;
mod hostile_page;
mod responses;
mod streams;
mod tls;
mod webhooks;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Deployed, TestApp, answer, eventually, python};

pub(crate) const PUBLIC: [(&str, &str); 2] = [("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "public")];

/// Answers with all variables that a request brings.
pub(crate) const ENVIRONMENT: &str = "import json, os, sys\nbody = sys.stdin.buffer.read()\nprint('Content-Type: application/json\\n')\nenviron = {name.decode('latin-1'): value.decode('latin-1') for name, value in os.environb.items()}\nprint(json.dumps({'body': body.decode('latin-1'), **environ}))\n";

impl TestApp {
    pub(crate) async fn fetch(&self, path: &str) -> reqwest::Response {
        self.call(Method::GET, path).send().await.unwrap()
    }

    /// The last invocation of a function, once the history has this many.
    async fn last_invocation(&self, function: &Deployed, count: usize) -> Value {
        let path = format!("/api/functions/{}/invocations", function.id);
        let all = eventually("the history has the invocation", async || {
            let all = self.get(&path).await.body["invocations"].as_array().unwrap().clone();
            (all.len() == count).then_some(all)
        })
        .await;
        let id = all[0]["invocationId"].as_str().unwrap();
        self.get(&format!("/api/invocations/{id}")).await.assert_status(200).body
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_is_an_invocation_with_the_variables_of_the_standard() {
    TestApp::run(&PUBLIC, async |app| {
        let function = app.deploy_site("my site", python(ENVIRONMENT)).await;
        let path = "/f/my%20site/a%20b/%E9?x=1&y=a%20b";
        let request = app.call(Method::PATCH, path).header("content-type", "text/x").header("proxy", "http://evil");
        let request = request.header("x-hub-signature-256", "sha256=1").header("authorization", "Basic eA==");
        let response = request.body("hello \u{e9}").send().await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (reqwest::StatusCode::OK, &"application/json".parse().unwrap())
        );
        let id = response.headers()["x-invocation-id"].to_str().unwrap().to_owned();
        let seen: Value = response.json().await.unwrap();
        let host = app.functions_url.strip_prefix("http://").unwrap();
        let port = host.rsplit(':').next().unwrap();
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "PATCH"),
            ("SCRIPT_NAME", "/f/my site"),
            ("PATH_INFO", "/a b/\u{e9}"),
            ("QUERY_STRING", "x=1&y=a%20b"),
            ("CONTENT_TYPE", "text/x"),
            ("CONTENT_LENGTH", "8"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("SERVER_NAME", "127.0.0.1"),
            ("SERVER_PORT", port),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("HTTP_HOST", host),
            ("HTTP_X_HUB_SIGNATURE_256", "sha256=1"),
            ("HTTP_AUTHORIZATION", "Basic eA=="),
            ("FUNCTION_NAME", "my site"),
            ("INVOCATION_ID", &id),
            ("body", "hello \u{c3}\u{a9}"),
        ] {
            assert_eq!(seen[name].as_str(), Some(value), "{name}");
        }
        assert!(seen["REMOTE_PORT"].as_str().unwrap().parse::<u16>().is_ok() && seen.get("HTTP_PROXY").is_none());
        let record = app.last_invocation(&function, 1).await;
        assert_eq!(
            (&record["trigger"], &record["outcome"], &record["invocationId"]),
            (&json!("http"), &json!("ok"), &json!(id))
        );
        assert_eq!((&record["input"], &record["output"]), (&Value::Null, &json!("")), "bodies are not kept");
        let by_id = app.fetch(&format!("/f/{}", function.id)).await;
        assert_eq!(by_id.json::<Value>().await.unwrap()["SCRIPT_NAME"], format!("/f/{}", function.id));
        // Nothing else is there, and the API has no functions.
        answer(app.call(Method::GET, "/api/functions")).await.assert_problem(404, "not_found", "/api/functions");
        app.get("/f/my%20site").await.assert_problem(404, "not_found", "/f/my");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_answers_those_whom_its_mode_lets_in() {
    let settings = [&PUBLIC[..], &[("API_TOKEN", "secret")]].concat();
    TestApp::run(&settings, async |app| {
        let api = |method, path: &str| app.request(method, path).bearer_auth("secret");
        let code = Part::bytes(python(ENVIRONMENT)).file_name("f.zip");
        let form = Form::new().part("code", code).text("name", "site").text("http", "public");
        let submitted = answer(api(Method::POST, "/api/submit").multipart(form)).await.assert_status(200);
        let id = submitted.body["functionId"].as_str().unwrap();
        let path = format!("/api/functions/{id}");
        let with_token = |path: &str| app.call(Method::GET, path).bearer_auth("secret");
        // A token of the platform is not the function's to see.
        let seen: Value = with_token("/f/site").send().await.unwrap().json().await.unwrap();
        assert_eq!((seen.get("HTTP_AUTHORIZATION"), &seen["REQUEST_METHOD"]), (None, &json!("GET")));
        let patch = async |mode: Value| {
            let patch = api(Method::PATCH, &path).header("content-type", "application/json");
            let patched = answer(patch.body(json!({ "http": mode }).to_string())).await.assert_status(200);
            patched.body["settings"]["http"].as_str().unwrap().to_owned()
        };
        assert_eq!(patch(json!("token")).await, "token");
        answer(app.call(Method::GET, "/f/site")).await.assert_problem(401, "unauthorized", "TOKEN");
        answer(app.call(Method::GET, "/f/site").bearer_auth("wrong")).await.assert_problem(
            401,
            "unauthorized",
            "TOKEN",
        );
        assert_eq!(with_token("/f/site").send().await.unwrap().status(), 200);
        for mode in [json!("off"), Value::Null] {
            assert_eq!(patch(mode).await, "off");
            for name in ["site", id] {
                answer(with_token(&format!("/f/{name}"))).await.assert_problem(404, "function_not_found", name);
            }
        }
        answer(api(Method::DELETE, &path)).await.assert_status(200);
        app.stop();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_name_is_one_functions_in_urls() {
    TestApp::run(&[&PUBLIC[..], &[("FUNCTIONS_DOMAIN", "fn.example.com")]].concat(), async |app| {
        let first = app.deploy_site("site", python("print('first')")).await;
        let form = |name: &str| {
            Form::new()
                .part("code", Part::bytes(python("print('second')")).file_name("f.zip"))
                .text("name", name.to_owned())
        };
        app.submit_form(form("site").text("http", "public")).await.assert_problem(409, "name_taken", "site");
        let second = app.submit_form(form("site")).await.assert_status(200);
        let path = format!("/api/functions/{}", second.body["functionId"].as_str().unwrap());
        let patch = |body: Value| {
            app.request(Method::PATCH, &path).header("content-type", "application/json").body(body.to_string())
        };
        answer(patch(json!({"http": "token"}))).await.assert_problem(409, "name_taken", "site");
        answer(patch(json!({"http": "public", "name": "Other"}))).await.assert_status(200);
        answer(patch(json!({"name": "site"}))).await.assert_problem(409, "name_taken", "site");
        assert_eq!(app.fetch("/f/site").await.text().await.unwrap(), "first\n");
        assert_eq!(app.fetch("/f/Other").await.text().await.unwrap(), "second\n");
        assert_eq!(app.fetch("/f/other").await.status(), 404);
        let host = app.call(Method::GET, "/any").header("host", "OTHER.fn.example.com:80");
        assert_eq!(host.send().await.unwrap().text().await.unwrap(), "second\n");
        app.delete(&first.id).await.assert_status(200);
        answer(patch(json!({"name": "site"}))).await.assert_status(200);
        assert_eq!(app.fetch("/f/site").await.text().await.unwrap(), "second\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_a_listener_or_leave_no_function_answers() {
    for (settings, code, variable) in [
        (vec![], "http_functions_off", "FUNCTIONS_PORT"),
        (vec![("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "off")], "http_functions_off", "HTTP_FUNCTIONS"),
        (vec![("FUNCTIONS_PORT", "0")], "http_not_allowed", "HTTP_FUNCTIONS"),
    ] {
        TestApp::run(&settings, async |app| {
            let form =
                Form::new().part("code", Part::bytes(python("print()")).file_name("f.zip")).text("http", "public");
            app.submit_form(form).await.assert_problem(400, code, variable);
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn strangers_take_at_most_half_of_the_queue() {
    let few = [("QUEUE_LIMIT", "4"), ("DOCKER_CONTAINER_LIMIT", "2"), ("QUEUE_TIMEOUT", "2m")];
    TestApp::run(&[&PUBLIC[..], &few].concat(), async |app| {
        let slow = "import time\ntime.sleep(8)\nprint('Content-Type: text/plain\\n\\nslow')\n";
        app.deploy_site("slow", python(slow)).await;
        let fast = app.deploy(python("print('fast')")).await;
        // One runs, as half of the containers are for a public function, and half of the queue waits.
        let mut strangers: FuturesUnordered<_> = (0..8).map(|_| app.fetch("/f/slow")).collect();
        for _ in 0..5 {
            assert_eq!(strangers.next().await.unwrap().status(), 429);
        }
        let client = app.execute(&fast);
        let (rest, client) = tokio::join!(strangers.collect::<Vec<_>>(), client);
        client.assert_outcome(200, "ok");
        assert!(rest.iter().all(|answer| answer.status() == 200), "{rest:?}");
    })
    .await;
}
