//! Tokens from their making to their end, and what each scope opens, over HTTP.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Service, answer, eventually, python};

pub(crate) const API_TOKEN: &str = "of-the-operator";

/// A client with a token, for a service.
pub(crate) struct Holder {
    url: String,
    token: String,
    client: Client,
}

impl Holder {
    pub(crate) fn new(service: &Service, token: &str) -> Self {
        let client = Client::builder().pool_idle_timeout(Duration::from_millis(300)).build().unwrap();
        Self { url: service.url.clone(), token: token.to_owned(), client }
    }

    pub(crate) fn admin(service: &Service) -> Self {
        Self::new(service, API_TOKEN)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Submits a zip under a name, and returns the function's id.
    pub(crate) async fn deploy(&self, name: &str, program: &str) -> String {
        let part = reqwest::multipart::Part::bytes(python(program)).file_name(format!("{name}.zip"));
        let form = reqwest::multipart::Form::new().part("code", part);
        let submitted = answer(self.request(Method::POST, "/api/submit").multipart(form)).await.assert_status(200);
        submitted.body["functionId"].as_str().unwrap().to_owned()
    }

    /// Makes a token as an admin, and returns a client with the token.
    pub(crate) async fn make(&self, body: Value) -> Self {
        let made = self.post("/api/tokens", body).await.assert_status(201);
        let token = made.body["token"].as_str().unwrap().to_owned();
        Self { url: self.url.clone(), token, client: self.client.clone() }
    }

    /// The same token at another node.
    pub(crate) fn at(&self, service: &Service) -> Self {
        Self::new(service, &self.token)
    }
}

pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Service {
    Service::start(dir, &[settings, &[("API_TOKEN", API_TOKEN)]].concat()).await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_token_is_shown_once_and_ends_with_its_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let made = admin.post("/api/tokens", json!({"name": "ci", "scopes": ["invoke", "read"]})).await.assert_status(201);
    assert_eq!(made.headers["cache-control"], "no-store");
    let text = made.body["token"].as_str().unwrap();
    assert!(text.starts_with("ysp_") && text.len() == 68, "{text}");
    let fields: Vec<&String> = made.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["createdAt", "name", "scopes", "token"]);
    assert_eq!((&made.body["name"], &made.body["scopes"]), (&json!("ci"), &json!(["read", "invoke"])));
    let holder = Holder::new(&service, text);
    let listed = admin.get("/api/tokens").await.assert_status(200).body;
    assert!(listed[0].get("lastUsedAt").is_none() && listed[0].get("token").is_none(), "{listed}");
    holder.get("/api/functions").await.assert_status(200);
    let listed = admin.get("/api/tokens").await.assert_status(200).body;
    assert!(listed[0]["lastUsedAt"].as_u64().unwrap() >= listed[0]["createdAt"].as_u64().unwrap(), "{listed}");
    // Only the hash is on disk.
    for file in ["store.db", "store.db-wal"] {
        let bytes = std::fs::read(dir.path().join("data").join(file)).unwrap_or_default();
        assert!(!bytes.windows(64).any(|window| window == &text.as_bytes()[4..]), "{file}");
    }
    let again = json!({"name": "ci", "scopes": ["read"]});
    admin.post("/api/tokens", again.clone()).await.assert_problem(409, "name_taken", "ci");
    // A restart changes nothing.
    service.stop().await;
    let service = start(dir.path(), &[]).await;
    let (admin, holder) = (Holder::admin(&service), holder.at(&service));
    let listed_again = admin.get("/api/tokens").await.assert_status(200).body;
    assert_eq!(listed_again, listed, "the last use is written down at the end");
    holder.get("/api/functions").await.assert_status(200);
    let deleted = admin.delete("/api/tokens/ci").await.assert_status(200);
    assert_eq!(deleted.body, json!({"message": "Token ci deleted successfully"}));
    holder.get("/api/functions").await.assert_problem(401, "unauthorized", "Authorization: Bearer");
    admin.delete("/api/tokens/ci").await.assert_problem(404, "token_not_found", "ci");
    // The name is free for another token, and the deleted token stays out, also after a start.
    admin.post("/api/tokens", again).await.assert_status(201);
    holder.get("/api/functions").await.assert_problem(401, "unauthorized", "");
    service.stop().await;
    let service = start(dir.path(), &[]).await;
    holder.at(&service).get("/api/functions").await.assert_problem(401, "unauthorized", "");
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_can_be_no_token_is_refused_with_the_field_named() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let id = "123e4567-e89b-42d3-a456-426614174000";
    for (body, named) in [
        (json!({"name": "a b", "scopes": ["read"]}), "`name`"),
        (json!({"name": "ci", "scopes": []}), "`scopes`"),
        (json!({"name": "ci", "scopes": ["write"]}), "`scopes` has \"write\""),
        (json!({"name": "ci"}), "scopes"),
        (json!({"name": "ci", "scopes": ["read"], "functions": []}), "`functions`"),
        (json!({"name": "ci", "scopes": ["read"], "functions": ["hello"]}), "`functions`"),
        (json!({"name": "ci", "scopes": ["admin"], "functions": [id]}), "`functions`"),
        (json!({"name": "ci", "scopes": ["read"], "expiresAt": 1_700_000_000}), "`expiresAt`"),
        (json!({"name": "ci", "scopes": ["read"], "expires": 1}), "expires"),
    ] {
        admin.post("/api/tokens", body).await.assert_problem(400, "invalid_request", named);
    }
    let unknown = admin.post("/api/tokens", json!({"name": "ci", "scopes": ["read"], "functions": [id]})).await;
    unknown.assert_problem(404, "function_not_found", "`functions`: no function with id");
    admin.delete("/api/tokens/a%20b").await.assert_problem(400, "invalid_request", "`name`");
    assert_eq!(admin.get("/api/tokens").await.body, json!([]));
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn without_api_token_there_are_no_tokens_and_requests_need_none() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let reader = Holder::admin(&service).make(json!({"name": "ci", "scopes": ["read"]})).await;
    service.stop().await;
    let service = Service::start(dir.path(), &[]).await;
    let create = service.client.post(format!("{}/api/tokens", service.url));
    answer(create.json(&json!({"name": "x", "scopes": ["read"]}))).await.assert_problem(
        409,
        "tokens_off",
        "set API_TOKEN",
    );
    service.get("/api/tokens").await.assert_problem(409, "tokens_off", "API_TOKEN");
    let delete = service.client.delete(format!("{}/api/tokens/ci", service.url));
    answer(delete).await.assert_problem(409, "tokens_off", "API_TOKEN");
    // A header that nobody asks for changes nothing.
    reader.at(&service).get("/metrics-of-nothing").await.assert_problem(404, "not_found", "");
    reader.at(&service).get("/api/nodes").await.assert_status(200);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_token_ends_at_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 10;
    let holder = admin.make(json!({"name": "short", "scopes": ["read"], "expiresAt": end})).await;
    holder.get("/api/functions").await.assert_status(200);
    let expired = eventually("the token expires", async || {
        Some(holder.get("/api/functions").await).filter(|answer| answer.status != 200)
    })
    .await;
    assert_eq!(expired.headers["www-authenticate"], "Bearer");
    expired.assert_problem(401, "token_expired", "short");
    assert!(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() >= end);
    let listed = admin.get("/api/tokens").await.body;
    assert_eq!((&listed[0]["name"], &listed[0]["expiresAt"]), (&json!("short"), &json!(end)));
    service.stop().await;
}

/// The scopes that open what needs `needed`.
fn openers(needed: &str) -> &'static [&'static str] {
    match needed {
        "read" => &["read", "deploy", "admin"],
        "invoke" => &["invoke", "admin"],
        "deploy" => &["deploy", "admin"],
        "admin" => &["admin"],
        other => panic!("there is no scope {other}"),
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn each_route_is_open_to_the_scope_that_its_description_names_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let document = admin.get("/api/openapi.json").await.assert_status(200).body;
    let mut holders = Vec::new();
    for scope in ["read", "invoke", "deploy", "admin"] {
        holders.push((scope, admin.make(json!({"name": scope, "scopes": [scope]})).await));
    }
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let needed = security[0]["token"][0].as_str();
            let at = path
                .replace("{name}", "nobody")
                .replace("{name-or-id}", "nobody")
                .replace("{id}", "123e4567-e89b-42d3-a456-426614174000");
            let method: Method = method.to_uppercase().parse().unwrap();
            for (scope, holder) in &holders {
                let answer = holder.request(method.clone(), &at).send().await.unwrap();
                let (status, is_json) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
                let text = answer.text().await.unwrap();
                let is_open = needed.is_none_or(|needed| openers(needed).contains(scope));
                assert_eq!(status != 403, is_open, "{method} {path} with {scope}: {status} {text}");
                assert!(status != 401 && status < 500 || path == "/health", "{method} {path}: {status} {text}");
                if let Some(needed) = needed.filter(|_| !is_open) {
                    assert_eq!(is_json, "application/problem+json");
                    let problem: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(problem["code"], "forbidden");
                    let detail = problem["detail"].as_str().unwrap();
                    assert!(detail.contains(&format!("`{needed}`")) && detail.contains(scope), "{detail}");
                }
                if method == Method::GET {
                    let head = holder.request(Method::HEAD, &at).send().await.unwrap().status();
                    assert_eq!(head != 403, is_open, "HEAD {path} with {scope}");
                }
                tried += 1;
            }
            assert!(operation["responses"].get("403").is_some() || needed.is_none(), "{method} {path}");
        }
    }
    assert!(tried >= 4 * 25, "{tried}");
    // A method that a path does not take, and a path that does not exist.
    let (_, reader) = &holders[0];
    answer(reader.request(Method::PUT, "/api/functions")).await.assert_problem(405, "method_not_allowed", "allow");
    reader.get("/api/nothing").await.assert_problem(404, "not_found", "/api/nothing");
    service.stop().await;
}
