//! Tokens that are for some functions, keys that belong to tokens, and the share of a token in RATE_LIMIT.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Answer, answer, eventually, python};
use crate::tokens::{Holder, start};

const PRINTS: &str = "import os\nprint(os.environ.get('NAME', 'nobody'))\n";
const NO_ID: &str = "123e4567-e89b-42d3-a456-426614174000";
const NO_NAME: &str = "nothing-of-that-name";

/// The parts of an answer that do not differ from request to request, without the words that were asked for.
fn plain(answer: &Answer, words: &[&str]) -> (u16, String) {
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().remove("requestId");
    (answer.status, words.iter().fold(body.to_string(), |text, word| text.replace(word, "IT")))
}

fn form() -> Form {
    Form::new().part("code", Part::bytes(python(PRINTS)).file_name("function.zip"))
}

/// All requests about a function of this id, invocation and name.
async fn ask_all(holder: &Holder, id: &str, invocation: &str, name: &str) -> Vec<(String, Answer)> {
    let of = |rest: &str| format!("/api/functions/{id}{rest}");
    let get = |path: String| (path.clone(), holder.request(Method::GET, &path));
    let post = |path: String| (path.clone(), holder.request(Method::POST, &path));
    let requests = vec![
        get(of("")),
        get(of("/settings")),
        get(of("/versions")),
        get(of("/invocations")),
        get(of("/invocations?outcome=nonsense")),
        post(of("/rollback")),
        post(of("/rollback?version=1")),
        post(of("/invoke")),
        post(format!("/api/functions/{name}/invoke")),
        ("a key".to_owned(), holder.request(Method::POST, &of("/invoke")).header("idempotency-key", "k")),
        ("async".to_owned(), holder.request(Method::POST, &of("/invoke")).header("prefer", "respond-async")),
        get(format!("/api/execute?functionId={id}")),
        (
            "execute".to_owned(),
            holder.request(Method::POST, "/api/execute").json(&json!({"functionId": id, "input": {"PATH": "x"}})),
        ),
        ("delete".to_owned(), holder.request(Method::DELETE, &of(""))),
        ("patch".to_owned(), holder.request(Method::PATCH, &of("")).json(&json!({"memory": "64MB"}))),
        ("bad patch".to_owned(), holder.request(Method::PATCH, &of("")).json(&json!({"memory": "lots"}))),
        ("put".to_owned(), holder.request(Method::PUT, &of("")).multipart(form())),
        (
            "put with a key".to_owned(),
            holder.request(Method::PUT, &of("")).header("idempotency-key", "k").multipart(form()),
        ),
        (
            "put with events".to_owned(),
            holder.request(Method::PUT, &of("")).header("accept", "text/event-stream").multipart(form()),
        ),
        (
            "encoded".to_owned(),
            holder.request(Method::GET, &format!("/api/functions/%{:x}{}", id.as_bytes()[0], &id[1..])),
        ),
        get(format!("/api/invocations/{invocation}")),
        get(format!("/api/invocations/{invocation}/events")),
        ("cancel".to_owned(), holder.request(Method::DELETE, &format!("/api/invocations/{invocation}"))),
    ];
    let mut answers = Vec::new();
    for (what, request) in requests {
        answers.push((what, answer(request).await));
    }
    answers
}

#[tokio::test]
#[ignore = "needs docker"]
async fn for_a_token_of_some_functions_there_are_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await.healthy().await;
    let admin = Holder::admin(&service);
    let own = admin.deploy("shared", PRINTS).await;
    let other = admin.deploy("other", PRINTS).await;
    let same_name = admin.deploy("shared", "print('of another')").await;
    let invocation = admin.get(&format!("/api/execute?functionId={other}")).await.assert_outcome(200, "ok");
    let invocation = invocation.body["invocationId"].as_str().unwrap().to_owned();
    let body = json!({"name": "limited", "scopes": ["deploy", "invoke"], "functions": [own]});
    let holder = admin.make(body.clone()).await;
    let listed = admin.get("/api/tokens").await.body;
    assert_eq!(listed[0]["functions"], json!([own]));

    // What is about another function is answered as what is about no function.
    let hidden = ask_all(&holder, &other, &invocation, "other").await;
    let unknown = ask_all(&holder, NO_ID, NO_ID, NO_NAME).await;
    for ((what, hidden), (_, unknown)) in hidden.iter().zip(&unknown) {
        assert_eq!(hidden.status, 404, "{what}: {hidden:?}");
        let (hidden, unknown) = (plain(hidden, &[&other, &invocation, "other"]), plain(unknown, &[NO_ID, NO_NAME]));
        assert_eq!(hidden, unknown, "{what}");
    }
    let unchanged = admin.get(&format!("/api/functions/{other}")).await.assert_status(200);
    assert_eq!(unchanged.body["version"], 1);

    // Lists have the token's functions, and routes about all functions are closed.
    let ids = |answer: Answer| -> Vec<String> {
        let list = answer.assert_status(200).body;
        let ids = list.as_array().unwrap().iter().map(|one| one["functionId"].as_str().unwrap().to_owned());
        ids.collect()
    };
    assert_eq!(ids(holder.get("/api/functions").await), [own.as_str()]);
    assert!(ids(admin.get("/api/instances").await).contains(&other));
    assert!(!ids(holder.get("/api/instances").await).contains(&other));
    for path in ["/metrics", "/api/nodes"] {
        holder.get(path).await.assert_problem(403, "forbidden", "limited is for some functions only");
    }
    let submit = holder.request(Method::POST, "/api/submit").multipart(form());
    answer(submit).await.assert_problem(403, "forbidden", "limited is for some functions only");

    // The token's function has all that the scopes open. A name means the last of the token's functions.
    let named = holder.post("/api/functions/shared/invoke", json!({"name": "own"})).await.assert_outcome(200, "ok");
    assert_eq!(named.output(), "own\n");
    let named = admin.post("/api/functions/shared/invoke", json!({})).await.assert_outcome(200, "ok");
    assert_eq!(named.output(), "of another\n");
    let executed = holder.post("/api/execute", json!({"functionId": own})).await.assert_outcome(200, "ok");
    let invocation = executed.body["invocationId"].as_str().unwrap();
    holder.get(&format!("/api/invocations/{invocation}")).await.assert_status(200);
    let events = holder.request(Method::GET, &format!("/api/invocations/{invocation}/events")).send().await.unwrap();
    assert!(events.text().await.unwrap().contains("event: ended"));
    let change = holder.request(Method::PATCH, &format!("/api/functions/{own}")).json(&json!({"timeout": "9s"}));
    assert_eq!(answer(change).await.assert_status(200).body["settings"]["timeout"], "9s");
    let update = holder.request(Method::PUT, &format!("/api/functions/{own}")).multipart(form());
    assert_eq!(answer(update).await.assert_status(200).body["version"], 2);
    holder.get(&format!("/api/functions/{own}/versions")).await.assert_status(200);
    holder.delete(&format!("/api/functions/{own}")).await.assert_status(200);
    assert_eq!(holder.get("/api/functions").await.assert_status(200).body, json!([]));
    for id in [other, same_name] {
        admin.delete(&format!("/api/functions/{id}")).await.assert_status(200);
    }
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_running_invocation_of_another_function_is_unknown_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await.healthy().await;
    let admin = Holder::admin(&service);
    // Nothing but the program itself tells the id of a synchronous execution before its end.
    let program = "import os, sys\nids = [os.environ['FUNCTION_ID'], os.environ['INVOCATION_ID']]\nos.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(4)', *ids])\n";
    let (own, other) = (admin.deploy("own", program).await, admin.deploy("other", program).await);
    let holder = admin.make(json!({"name": "own", "scopes": ["read"], "functions": [own]})).await;
    for (function, status) in [(&own, 200), (&other, 404)] {
        let running = tokio::spawn(admin.request(Method::GET, &format!("/api/execute?functionId={function}")).send());
        let id = eventually("the program runs", async || running_id(function)).await;
        let events = holder.request(Method::GET, &format!("/api/invocations/{id}/events")).send().await.unwrap();
        assert_eq!(events.status(), status);
        running.await.unwrap().unwrap();
    }
    for id in [own, other] {
        admin.delete(&format!("/api/functions/{id}")).await.assert_status(200);
    }
    service.stop().await;
}

/// The invocation that a process of the function has on its command line, behind the function.
fn running_id(function: &str) -> Option<String> {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>())
    });
    let mut ids = lines.filter_map(|words| words.iter().skip_while(|word| *word != function).nth(1).cloned());
    ids.next()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_key_is_the_tokens_that_sent_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await.healthy().await;
    let admin = Holder::admin(&service);
    let function = admin.deploy("echo", PRINTS).await;
    let make = async |name: &str| admin.make(json!({"name": name, "scopes": ["deploy", "invoke"]})).await;
    let (one, other) = (make("one").await, make("other").await);
    let execute = async |holder: &Holder, name: &str| {
        let request = holder.request(Method::POST, "/api/execute").header("idempotency-key", "k");
        answer(request.json(&json!({"functionId": function, "input": {"name": name}}))).await
    };
    let mut invocations = Vec::new();
    for (holder, name) in [(&admin, "a"), (&one, "b"), (&other, "c")] {
        let first = execute(holder, name).await.assert_outcome(200, "ok");
        assert_eq!(first.output(), format!("{name}\n"));
        let again = execute(holder, name).await.assert_outcome(200, "ok");
        assert_eq!(again.body["invocationId"], first.body["invocationId"]);
        execute(holder, "another").await.assert_problem(422, "idempotency_key_reused", "");
        invocations.push(first.body["invocationId"].clone());
    }
    assert!(invocations[0] != invocations[1] && invocations[1] != invocations[2]);
    let submit = async |holder: &Holder| -> Value {
        let request = holder.request(Method::POST, "/api/submit").header("idempotency-key", "k");
        answer(request.multipart(form())).await.assert_status(200).body["functionId"].clone()
    };
    let ids = [submit(&one).await, submit(&one).await, submit(&other).await, submit(&admin).await];
    assert_eq!(ids[0], ids[1]);
    assert!(ids[1] != ids[2] && ids[2] != ids[3] && ids[3] != ids[1], "{ids:?}");
    // Another token of the same name does not get what its predecessor has asked for.
    admin.delete("/api/tokens/one").await.assert_status(200);
    let successor = make("one").await;
    let executed = execute(&successor, "b").await.assert_outcome(200, "ok");
    assert_ne!(executed.body["invocationId"], invocations[1]);
    for id in admin.get("/api/functions").await.body.as_array().unwrap() {
        let id = id["functionId"].as_str().unwrap();
        admin.delete(&format!("/api/functions/{id}")).await.assert_status(200);
    }
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_token_has_a_share_of_its_own_in_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[("RATE_LIMIT", "12/h")]).await;
    // Two requests of this address make the tokens.
    let admin = Holder::admin(&service);
    let (one, other) = (
        admin.make(json!({"name": "one", "scopes": ["read"]})).await,
        admin.make(json!({"name": "other", "scopes": ["read"]})).await,
    );
    // All addresses of 127.0.0.0/8 are this machine's, and each counts by itself.
    let from = async |holder: &Holder, address: [u8; 4]| {
        let client = reqwest::Client::builder().local_address(std::net::IpAddr::from(address)).build().unwrap();
        let request = holder.request(Method::GET, "/api/functions").build().unwrap();
        crate::support::read(client.execute(request).await.unwrap()).await
    };
    let mut refused = None;
    for n in 0..24_u8 {
        let answer = from(&one, [127, 0, 1, n]).await;
        if answer.status == 429 {
            refused = Some((n, answer));
            break;
        }
        answer.assert_status(200);
    }
    let (n, refused) = refused.expect("a token is counted wherever its holders are");
    assert_eq!(n, 12);
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 60);
    refused.assert_problem(429, "rate_limited", "the token one");
    // Another token has its own share, and the address counts as before.
    for _ in 0..10 {
        other.get("/api/functions").await.assert_status(200);
    }
    other.get("/api/functions").await.assert_problem(429, "rate_limited", "127.0.0.1");
    from(&other, [127, 0, 2, 1]).await.assert_status(200);
    service.stop().await;
}
