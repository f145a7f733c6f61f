//! A webhook signed as GitHub does, with the example of this repository.

use std::process::Command;

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::cgi::PUBLIC;
use crate::support::{TestApp, python};

const SECRET: &str = "It's a Secret to Everybody";

/// The signature by OpenSSL.
fn signature(body: &str, secret: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), body).unwrap();
    let mut openssl = Command::new("openssl");
    let signed = openssl.args(["dgst", "-sha256", "-r", "-hmac", secret]).arg(file.path());
    let signed = String::from_utf8(signed.output().unwrap().stdout).unwrap();
    format!("sha256={}", signed.split(' ').next().unwrap())
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_signed_webhook_is_taken_and_a_forged_one_is_not() {
    // GitHub's own example, https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries.
    let known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signature("Hello, World!", SECRET), known);
    TestApp::run(&PUBLIC, async |app| {
        let code = Part::bytes(python(include_str!("../../../examples/python-webhook/main.py"))).file_name("f.zip");
        let form = Form::new().part("code", code).text("name", "webhook").text("http", "public");
        let form = form.text("secrets", serde_json::json!({"WEBHOOK_SECRET": SECRET}).to_string());
        app.submit_form(form).await.assert_status(200);
        let body = r#"{"repository": {"full_name": "octo/hello"}}"#;
        let send = async |signature: &str| {
            let request = app.call(Method::POST, "/f/webhook").header("content-type", "application/json");
            let request = request.header("x-hub-signature-256", signature).header("x-github-event", "push");
            let response = request.body(body).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        assert_eq!(send(&signature(body, SECRET)).await, (200, "push of octo/hello\n".to_owned()));
        assert_eq!(send(&signature(body, "another")).await.0, 401);
        assert_eq!(send("").await.0, 401);
    })
    .await;
}
