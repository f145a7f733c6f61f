//! Part A of the contract, line by line, and the form of errors.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::support::{TestApp, answer, go, python};

const HELLO: &str = "import os\n\ndef main():\n    print('Hello,', os.environ.get('NAME', 'World'))\n\nif __name__ == '__main__':\n    main()\n";
const GO_HELLO: &str =
    "import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfmt.Println(\"Hello,\", os.Getenv(\"NAME\"))\n}\n";
const NO_ID: &str = "123e4567-e89b-42d3-a456-426614174000";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_python_function_lives_as_the_contract_says() {
    TestApp::run(&[], async |app| lives_as_the_contract_says(app, python(HELLO), "python").await).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_go_function_lives_as_the_contract_says() {
    TestApp::run(&[], async |app| lives_as_the_contract_says(app, go(GO_HELLO), "golang").await).await;
}

async fn lives_as_the_contract_says(app: &TestApp, zip: Vec<u8>, language: &str) {
    let form = Form::new().part("code", Part::bytes(zip).file_name("other.zip")).text("name", "my function");
    let submitted = app.submit_form(form).await.assert_status(200).body;
    assert_eq!(submitted.as_object().unwrap().len(), 3, "{submitted}");
    assert_eq!(submitted["message"], "Function 'my function' deployed successfully");
    let (id, image) = (submitted["functionId"].as_str().unwrap(), submitted["imageId"].as_str().unwrap());
    assert!(image.starts_with("sha256:") && id.len() == 36, "{submitted}");

    let shown = app.get(&format!("/api/functions/{id}")).await.assert_status(200).body;
    assert_eq!(shown["functionId"], id);
    assert_eq!(shown["imageId"], image);
    assert_eq!((shown["language"].as_str(), shown["name"].as_str()), (Some(language), Some("my function")));
    assert!(shown.get("lastExecuted").is_none(), "{shown}");
    let created = shown["createdAt"].as_u64().unwrap();
    assert!(created.abs_diff(now()) < 600, "{shown}");
    assert_eq!(app.get("/api/functions").await.assert_status(200).body, json!([shown]));

    let executed = app.get(&format!("/api/execute?functionId={id}")).await.assert_outcome(200, "ok").body;
    assert_eq!(
        executed["output"].as_str().unwrap().trim_end(),
        if language == "python" { "Hello, World" } else { "Hello," }
    );
    assert!(executed["executedAt"].as_u64().unwrap() >= created);
    assert_eq!((&executed["exitCode"], &executed["stderr"]), (&json!(0), &json!("")));
    assert_eq!(executed["truncated"], false);
    for receipt in ["queuedMs", "durationMs", "cpuMs", "peakMemoryBytes"] {
        assert!(executed[receipt].as_f64().is_some_and(|number| number > 0.0), "{receipt}: {executed}");
    }
    let body = json!({"functionId": id, "input": {"name": "John"}}).to_string();
    let executed = app.post_json("/api/execute", body).await.assert_outcome(200, "ok");
    assert_eq!(executed.output(), "Hello, John\n");
    let executed = app.post_json("/api/execute", json!({"functionId": id}).to_string()).await;
    executed.assert_outcome(200, "ok");
    let shown = app.get(&format!("/api/functions/{id}")).await.assert_status(200).body;
    assert!(shown["lastExecuted"].as_u64().unwrap() >= created, "{shown}");

    let deleted = app.delete(id).await.assert_status(200).body;
    assert_eq!(deleted, json!({"message": format!("Function {id} deleted successfully")}));
    app.get(&format!("/api/functions/{id}")).await.assert_problem(404, "function_not_found", id);
    app.get(&format!("/api/execute?functionId={id}")).await.assert_problem(404, "function_not_found", id);
    app.delete(id).await.assert_problem(404, "function_not_found", id);
    assert_eq!(app.get("/api/functions").await.body, json!([]));
}

#[tokio::test]
#[ignore = "needs docker"]
async fn health_tells_that_all_is_well() {
    TestApp::run(&[], async |app| {
        for path in ["/health", "/health/live"] {
            let health = app.get(path).await.assert_status(200).body;
            assert_eq!(health.as_object().unwrap().len(), 2, "{health}");
            assert_eq!(health["status"], "ok");
            let time = health["time"].as_str().unwrap();
            assert_eq!((time.len(), &time[10..11], &time[19..]), (20, "T", "Z"), "{time}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn every_refusal_is_a_problem() {
    TestApp::run(&[], async |app| {
        app.get("/nothing/here").await.assert_problem(404, "not_found", "/nothing/here");
        app.get("/api/functions/not-an-id").await.assert_problem(400, "invalid_function_id", "`not-an-id`");
        app.get("/api/functions/%ff").await.assert_problem(400, "invalid_function_id", "UUID");
        app.get(&format!("/api/functions/{NO_ID}")).await.assert_problem(404, "function_not_found", NO_ID);
        app.get("/api/execute").await.assert_problem(400, "invalid_function_id", "?functionId=UUID");
        app.get("/api/execute?functionId=1").await.assert_problem(400, "invalid_function_id", "`1`");
        app.get(&format!("/api/execute?functionId={NO_ID}")).await.assert_problem(404, "function_not_found", NO_ID);
        let put = answer(app.request(Method::PUT, "/api/functions")).await;
        assert_eq!(put.headers["allow"], "GET,HEAD");
        put.assert_problem(405, "method_not_allowed", "allow");
        answer(app.request(Method::DELETE, "/health")).await.assert_problem(405, "method_not_allowed", "allow");

        let text = answer(app.request(Method::POST, "/api/execute").body("functionId=1")).await;
        text.assert_problem(415, "unsupported_media_type", "application/json");
        let json =
            answer(app.request(Method::POST, "/api/submit").header("content-type", "application/json").body("{}"))
                .await;
        json.assert_problem(415, "unsupported_media_type", "multipart/form-data");
        app.post_json("/api/execute", "{").await.assert_problem(400, "invalid_request", "JSON");
        app.post_json("/api/execute", "[]").await.assert_problem(400, "invalid_request", "");
        app.post_json("/api/execute", "{}").await.assert_problem(400, "invalid_request", "functionId");
        let unknown = json!({"functionId": NO_ID, "inptu": {}}).to_string();
        app.post_json("/api/execute", unknown).await.assert_problem(400, "invalid_request", "inptu");
        let large = json!({"functionId": NO_ID, "input": {"a": "x".repeat(1 << 20)}}).to_string();
        app.post_json("/api/execute", large).await.assert_problem(413, "too_large", "1 MiB");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_keeps_its_id() {
    TestApp::run(&[], async |app| {
        let sent = answer(app.request(Method::GET, "/health").header("x-request-id", "build-7")).await;
        assert_eq!(sent.headers["x-request-id"], "build-7");
        let bad = answer(app.request(Method::GET, "/nothing").header("x-request-id", "not <valid>")).await;
        assert_eq!(bad.headers["x-request-id"].len(), 36);
        bad.assert_problem(404, "not_found", "");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn with_a_token_set_only_its_bearer_and_probes_are_let_in() {
    TestApp::run(&[("API_TOKEN", "s3cret")], async |app| {
        app.get("/health").await.assert_status(200);
        app.get("/health/live").await.assert_status(200);
        let refused = app.get("/api/functions").await;
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        refused.assert_problem(401, "unauthorized", "Authorization: Bearer");
        app.submit(python("")).await.assert_problem(401, "unauthorized", "");
        app.get("/nothing").await.assert_problem(401, "unauthorized", "");
        let wrong = answer(app.request(Method::GET, "/api/functions").bearer_auth("s3crets")).await;
        wrong.assert_problem(401, "unauthorized", "");
        let right = answer(app.request(Method::GET, "/api/functions").bearer_auth("s3cret")).await;
        assert_eq!(right.assert_status(200).body, json!([]));
        app.stop();
    })
    .await;
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_page_of_another_site_cannot_use_a_visitors_browser() {
    TestApp::run(&[("ALLOWED_HOSTS", "functions.test")], async |app| {
        let refused = async |name: &str, value: &str| {
            let form = Form::new().part("code", Part::bytes(python("print('planted')")).file_name("x.zip"));
            let request = app.request(Method::POST, "/api/submit").header(name, value).multipart(form);
            answer(request).await.assert_problem(403, "cross_site", value);
        };
        refused("origin", "http://evil.example").await;
        refused("sec-fetch-site", "cross-site").await;
        // A page whose own name resolves to this machine.
        refused("host", "evil.example").await;
        assert_eq!(app.get("/api/functions").await.body, json!([]));
        answer(app.request(Method::GET, "/api/functions").header("host", "functions.test")).await.assert_status(200);
        answer(app.request(Method::GET, "/health").header("host", "some-probe")).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn head_executes_nothing() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(HELLO)).await;
        let path = format!("/api/execute?functionId={}", function.id);
        let head = app.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["allow"]), (405, &"GET,POST".parse().unwrap()));
        let other = answer(app.request(Method::PUT, &path)).await;
        assert_eq!(other.headers["allow"], "GET,POST");
        other.assert_problem(405, "method_not_allowed", "allow");
        let shown = app.get(&format!("/api/functions/{}", function.id)).await;
        assert!(shown.assert_status(200).body.get("lastExecuted").is_none());
        // A HEAD request of a route that only reads is answered as before.
        for path in ["/api/functions", "/health", "/metrics", "/"] {
            assert_eq!(app.request(Method::HEAD, path).send().await.unwrap().status(), 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bodies_are_read_as_they_are_meant_or_refused() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(HELLO)).await;
        let invoke = format!("/api/functions/{}/invoke", function.id);
        let send = async |method: Method, path: &str, kind: &str, body: Vec<u8>| {
            let request = app.request(method, path).body(body);
            answer(if kind.is_empty() { request } else { request.header("content-type", kind) }).await
        };
        let input = br#"{"name": "John"}"#.to_vec();
        let marked = [b"\xef\xbb\xbf", input.as_slice()].concat();
        for (kind, body) in [("application/json", input.clone()), ("application/json; charset=utf-8", marked)] {
            assert_eq!(
                send(Method::POST, &invoke, kind, body).await.assert_outcome(200, "ok").output(),
                "Hello, John\n"
            );
        }
        let body = format!("\u{feff}{{\"functionId\": \"{}\", \"input\": {{\"name\": \"BOM\"}}}}", function.id);
        assert_eq!(app.post_json("/api/execute", body).await.assert_outcome(200, "ok").output(), "Hello, BOM\n");
        let wide = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        send(Method::POST, &invoke, "application/json", wide).await.assert_problem(400, "invalid_request", "UTF-16");
        // An empty body means no input. The service guesses no type for a body without a content type.
        for kind in ["", "application/json", "application/x-www-form-urlencoded", "text/plain"] {
            let nothing = send(Method::POST, &invoke, kind, Vec::new()).await;
            assert_eq!(nothing.assert_outcome(200, "ok").output(), "Hello, World\n");
        }
        let change = format!("/api/functions/{}", function.id);
        for (method, path) in
            [(Method::POST, invoke.as_str()), (Method::POST, "/api/execute"), (Method::PATCH, &change)]
        {
            for kind in ["", "text/plain"] {
                let refused = send(method.clone(), path, kind, input.clone()).await;
                refused.assert_problem(415, "unsupported_media_type", "`Content-Type: application/json`");
            }
        }
        for (method, path) in [
            (Method::POST, invoke.as_str()),
            (Method::POST, "/api/execute"),
            (Method::PATCH, &change),
            (Method::POST, "/api/submit"),
            (Method::PUT, &change),
        ] {
            let request = app.request(method, path).header("content-type", "application/json").body(input.clone());
            let refused = answer(request.header("content-encoding", "gzip")).await;
            assert_eq!(refused.headers["accept-encoding"], "identity");
            refused.assert_problem(415, "unsupported_media_type", "\"gzip\"");
        }
        let plain = app.request(Method::POST, &invoke).header("content-type", "application/json").body(input.clone());
        answer(plain.header("content-encoding", "identity")).await.assert_outcome(200, "ok");
    })
    .await;
}
