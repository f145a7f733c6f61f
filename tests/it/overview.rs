//! The overview, the history of all functions, and the code of versions, as clients of the API get them.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{answer, eventually};
use crate::tokens::{Holder, start};

/// The data of the first event of this name of a stream.
pub(crate) async fn event(request: RequestBuilder, name: &str) -> Value {
    let mut sent = request.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(sent.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while let Some(piece) = sent.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        let events = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole).split("\n\n");
        let found = events.filter_map(|event| event.strip_prefix(&format!("event: {name}\ndata: "))).next();
        if let Some(data) = found {
            return serde_json::from_str(data).unwrap();
        }
    }
    panic!("the stream ended before {name}");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn clients_see_how_it_does_within_what_their_token_allows() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await.healthy().await;
    let admin = Holder::admin(&service);
    let (good, bad) = (admin.deploy("good", "print('fine')").await, admin.deploy("bad", "raise SystemExit(3)").await);
    let execute = async |id: &str| {
        let body = json!({"functionId": id, "input": {"count": 12_345_678_901_234_567_890_u64}});
        answer(admin.request(Method::POST, "/api/execute").json(&body)).await.body
    };
    let first = execute(&good).await["invocationId"].as_str().unwrap().to_owned();
    execute(&bad).await;
    admin
        .request(Method::PUT, &format!("/api/functions/{good}/schedules/nightly"))
        .json(&json!({"cron": "0 3 * * *"}))
        .send()
        .await
        .unwrap();

    let overview = admin.get("/api/overview").await.assert_status(200).body;
    assert_eq!((&overview["functions"], &overview["health"]["status"]), (&json!(2), &json!("ok")), "{overview}");
    let minutes = overview["minutes"].as_array().unwrap();
    let sum = |key: &str| minutes.iter().map(|minute| minute[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("invocations"), sum("failures")), (2, 1), "{overview}");
    assert_eq!(overview["lastFailures"][0]["functionId"], bad);
    assert_eq!(overview["nextRuns"][0]["schedule"], "nightly");
    assert!(overview["disks"][0]["freeBytes"].as_u64() > Some(0) && overview["nodes"][0]["ready"] == true);

    // The stream has all there is, and then what changes.
    let functions = event(admin.request(Method::GET, "/api/overview"), "functions").await;
    assert_eq!(functions["functions"].as_array().unwrap().len(), 2);
    // A look at the store that takes too long leaves out what only the store knows.
    eventually("the stream has the last failures", async || {
        let told = event(admin.request(Method::GET, "/api/overview"), "overview").await;
        (told["lastFailures"] == overview["lastFailures"]).then_some(())
    })
    .await;

    // A token that is for one function sees this function only.
    let limited = admin.make(json!({"name": "one", "scopes": ["read", "invoke"], "functions": [good]})).await;
    limited.get("/api/overview").await.assert_problem(403, "forbidden", "");
    let functions = event(limited.request(Method::GET, "/api/overview"), "functions").await;
    assert_eq!(functions["functions"].as_array().unwrap().len(), 1, "{functions}");
    let runs = limited.get("/api/invocations").await.assert_status(200).body;
    assert_eq!(runs["invocations"].as_array().unwrap().len(), 1, "{runs}");
    limited.get("/api/invocations?function=bad").await.assert_problem(404, "function_not_found", "bad");
    limited.get(&format!("/api/invocations?function={bad}")).await.assert_problem(404, "function_not_found", "");

    // The history of all, by what a client chooses.
    let count = async |query: &str| {
        let found = admin.get(&format!("/api/invocations?{query}")).await.assert_status(200).body;
        found["invocations"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!((count("outcome=failed").await, count("function=good").await, count("trigger=http").await), (1, 1, 0));
    assert_eq!((count("since=1").await, count("until=1").await, count("trigger=api&limit=1").await), (2, 0, 1));
    admin.get("/api/invocations?until=100000000001").await.assert_problem(400, "invalid_request", "until");
    admin.get("/api/invocations?outcome=odd").await.assert_problem(400, "invalid_request", "failed");
    admin.get("/api/invocations?trigger=schedule:%00").await.assert_problem(400, "invalid_request", "schedule:NAME");
    admin.get("/api/invocations?trigger=odd").await.assert_problem(400, "invalid_request", "schedule:NAME");

    // Once more with the same input, to the last digit.
    let again = limited.request(Method::POST, &format!("/api/invocations/{first}/again"));
    let again = answer(again).await.assert_status(200).body;
    let kept = admin.request(Method::GET, &format!("/api/invocations/{}", again["invocationId"].as_str().unwrap()));
    let kept = kept.send().await.unwrap().text().await.unwrap();
    assert!(kept.contains("12345678901234567890"), "{kept}");
    let failed = overview["lastFailures"][0]["invocationId"].as_str().unwrap();
    let unknown = limited.request(Method::POST, &format!("/api/invocations/{failed}/again"));
    answer(unknown).await.assert_problem(404, "invocation_not_found", "");

    // The code and the build of a version.
    let code = admin.request(Method::GET, &format!("/api/functions/{good}/versions/1/code")).send().await.unwrap();
    assert_eq!(code.headers()["content-type"], "application/zip");
    assert!(code.headers()["content-disposition"].to_str().unwrap().contains("good-1.zip"));
    let length = code.headers()["content-length"].to_str().unwrap().to_owned();
    let zip = code.bytes().await.unwrap();
    assert!(zip.starts_with(b"PK") && zip.len().to_string() == length);
    let version = admin.get(&format!("/api/functions/{good}/versions/1")).await.assert_status(200).body;
    assert_eq!((&version["entry"], &version["zipBytes"]), (&json!("main.py"), &json!(zip.len())));
    assert!(version["buildLog"].is_string());
    let of_good = |place: &str| format!("/api/functions/{good}/versions/{place}");
    admin.get(&of_good("9")).await.assert_problem(404, "version_not_found", "");
    admin.get(&of_good("9/code")).await.assert_problem(404, "version_not_found", "");
    admin.get(&of_good("x/code")).await.assert_problem(400, "invalid_request", "x");
    limited.get(&format!("/api/functions/{bad}/versions/1/code")).await.assert_problem(404, "function_not_found", "");

    // What begins is told, whoever begins it.
    let path = format!("/api/functions/{good}/invocations");
    let executions = async {
        for _ in 0..1000 {
            execute(&good).await;
        }
    };
    tokio::select! {
        began = event(limited.request(Method::GET, &path), "began") => assert!(began["invocationId"].is_string()),
        () = executions => panic!("no invocation was told of"),
    }
    // A stream ends with its token.
    let mut stream =
        limited.request(Method::GET, "/api/overview").header("accept", "text/event-stream").send().await.unwrap();
    admin.delete("/api/tokens/one").await.assert_status(200);
    let ended = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("the stream ends");
    service.abandon().await;
}
