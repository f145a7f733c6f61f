//! Submits and updates that are sent twice are carried out once, even when a client leaves, and have one answer.

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{Answer, Deployed, TestApp, answer, eventually, go, python};

fn form(zip: Vec<u8>) -> Form {
    Form::new().part("code", Part::bytes(zip).file_name("first.zip"))
}

fn submission(app: &TestApp, key: &str, form: Form) -> RequestBuilder {
    app.request(Method::POST, "/api/submit").header("idempotency-key", key).multipart(form)
}

fn update(app: &TestApp, id: &str, key: &str, form: Form) -> RequestBuilder {
    app.request(Method::PUT, &format!("/api/functions/{id}")).header("idempotency-key", key).multipart(form)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_key_answers_what_its_request_came_to_whatever_has_become_of_the_function() {
    TestApp::run(&[], async |app| {
        let submitted = answer(submission(app, "one", form(python("print(1)")))).await.assert_status(200).body;
        let id = &submitted["functionId"].as_str().unwrap().to_owned();
        assert_eq!(submitted["message"], "Function 'first' deployed successfully");
        let second = answer(update(app, id, "two", form(python("print(2)")))).await.assert_status(200).body;
        assert_eq!((&second["version"], &second["message"]), (&json!(2), &json!("Function 'first' runs version 2")));
        let function = Deployed { id: id.to_owned(), image: String::new() };
        app.configure(&function, json!({"name": "renamed"})).await.assert_status(200);
        app.update(&function, python("print(3)")).await.assert_status(200);

        let again = async || {
            let submitted = answer(submission(app, "one", form(python("print(1)")))).await.assert_status(200).body;
            let updated = answer(update(app, id, "two", form(python("print(2)")))).await.assert_status(200).body;
            (submitted, updated)
        };
        assert_eq!(again().await, (submitted.clone(), second.clone()));
        let shown = app.get(&format!("/api/functions/{id}")).await.body;
        assert_eq!(
            (&shown["version"], &shown["name"]),
            (&json!(3), &json!("renamed")),
            "no request is carried out again"
        );
        app.delete(id).await.assert_status(200);
        assert_eq!(again().await, (submitted, second), "no request is carried out again after the deletion");
        assert_eq!(app.get("/api/functions").await.body, json!([]));
        answer(update(app, id, "three", form(python("print(4)")))).await.assert_problem(404, "function_not_found", id);
    })
    .await;
}

/// Sends a request until the request has been carried out.
async fn settled(request: impl Fn() -> RequestBuilder) -> Answer {
    eventually("the request is carried out", async || {
        let answer = answer(request()).await;
        let is_in_progress = answer.status == 409;
        if is_in_progress {
            assert_eq!(answer.body["code"], "in_progress", "{:#}", answer.body);
        }
        (!is_in_progress).then_some(answer)
    })
    .await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_with_a_key_is_carried_out_though_its_client_left() {
    TestApp::run(&[], async |app| {
        // The build takes some seconds.
        let program =
            "import (\n\t\"encoding/json\"\n\t\"os\"\n)\n\nfunc main() { json.NewEncoder(os.Stdout).Encode(200) }\n";
        let first = || submission(app, "one", form(go(program)));
        let leaving = tokio::spawn(first().send());
        tokio::time::sleep(Duration::from_millis(700)).await;
        answer(first()).await.assert_problem(409, "in_progress", "Idempotency-Key");
        assert!(!leaving.is_finished(), "the function is being built");
        leaving.abort();
        let submitted = settled(first).await.assert_status(200).body;
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
        let id = submitted["functionId"].as_str().unwrap().to_owned();

        // The client of the update wants events.
        let changed = program.replace("200", "418");
        let second = || update(app, &id, "two", form(go(&changed)));
        let events = second().header("accept", "text/event-stream").send().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(events);
        assert_eq!(settled(second).await.assert_status(200).body["version"], 2, "the update was built once");
        let function = Deployed { id, image: String::new() };
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "418\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_request_that_failed_leaves_its_key_free() {
    TestApp::run(&[], async |app| {
        let broken = || submission(app, "one", form(go("func main() { nonsense }\n")));
        answer(broken()).await.assert_problem(422, "build_failed", "");
        answer(broken()).await.assert_problem(422, "build_failed", "");
        let settings = form(python("print(1)")).text("memory", "1");
        answer(submission(app, "one", settings)).await.assert_problem(400, "invalid_settings", "memory");
        answer(submission(app, "one", form(python("print(1)")))).await.assert_status(200);
        answer(broken()).await.assert_problem(422, "idempotency_key_reused", "");
    })
    .await;
}
