//! Receivers that may not be told: what is refused at once, and what is refused at the connection.

use serde_json::{Value, json};

use super::receiver::{OK, Receiver};
use super::{PROGRAM, start};
use crate::support::process::free_port;
use crate::support::{Service, TestApp, answer, eventually, python};

/// The reason why the last try of a function's last notification has failed.
async fn reason(service: &Service, function: &str, url: &str) -> String {
    service.tell(function, Value::Null).await.assert_status(200);
    service.tell(function, json!({"url": url})).await.assert_status(200);
    let id = service.begin(function, json!({"code": 1})).await;
    eventually("the receiver is tried", async || {
        let told = service.notifications(function).await.into_iter().find(|told| told["invocationId"] == id)?;
        told["lastError"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_receiver_must_be_covered_by_egress_allow_and_be_one_url() {
    TestApp::run(&[("EGRESS_ALLOW", "*.example:443, 10.0.0.0/8:8080")], async |app| {
        let function = app.deploy(python(PROGRAM)).await;
        let (invalid, not_allowed) = ("invalid_request", "network_not_allowed");
        for (notify, code, detail) in [
            (json!({"url": "https://a.example.org/x"}), not_allowed, "EGRESS_ALLOW"),
            (json!({"url": "https://a.example:8443/x"}), not_allowed, "a.example:8443"),
            (json!({"url": "http://a.example/x"}), not_allowed, "a.example:80"),
            (json!({"url": "https://example/x"}), not_allowed, "example:443"),
            (json!({"url": "http://10.1.2.3/x"}), not_allowed, "10.1.2.3:80"),
            (json!({"url": "http://[::ffff:10.1.2.3]:8080/x"}), not_allowed, "EGRESS_ALLOW"),
            (json!({"url": "https://localhost/x"}), invalid, "the container itself"),
            (json!({"url": "https://user:password@a.example/x"}), invalid, "password"),
            (json!({"url": "file:///etc/passwd"}), invalid, "`url`"),
            (json!({"url": "gopher://a.example"}), invalid, "`url`"),
            (json!({"url": "a.example:443"}), invalid, "`url`"),
            (json!({"url": "https://*.example/x"}), invalid, "single host"),
            (json!({"url": "https://a.example/x#y"}), invalid, "`#`"),
            (json!({"url": "https://a.example/x", "on": []}), invalid, "no event"),
            (json!({"url": "https://a.example/x", "on": ["lost"]}), invalid, "\"lost\""),
            (json!({"url": "https://a.example/x", "key": "whsec_"}), invalid, "`notify`"),
            (json!("https://a.example/x"), invalid, "`notify`"),
            (json!([]), invalid, "`notify`"),
        ] {
            app.configure(&function, json!({"notify": notify})).await.assert_problem(400, code, detail);
            let code_part = reqwest::multipart::Part::bytes(python(PROGRAM)).file_name("function.zip");
            let form = reqwest::multipart::Form::new().part("code", code_part).text("notify", notify.to_string());
            app.submit_form(form).await.assert_problem(400, code, detail);
        }
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
        for url in ["https://a.example/x", "http://10.1.2.3:8080", "https://A.EXAMPLE.:443"] {
            app.configure(&function, json!({"notify": {"url": url}})).await.assert_status(200);
        }
    })
    .await;
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(PROGRAM)).await;
        let change = json!({"notify": {"url": "https://a.example"}});
        app.configure(&function, change).await.assert_problem(400, "network_not_allowed", "EGRESS_ALLOW");
        app.configure(&function, json!({"notify": null})).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn private_addresses_and_the_service_itself_are_not_reached_whatever_leads_there() {
    let receiver = Receiver::start(&[OK]).await;
    let (dir, own) = (tempfile::tempdir().unwrap(), free_port().to_string());
    let port = receiver.port.to_string();
    let allow = format!("*:{port},*:{own},*:80,127.0.0.0/8:{port},169.254.0.0/16:80");
    let hosts = "127.0.0.1 localhost\n127.0.0.1 to-loopback.example\n169.254.169.254 to-metadata.example\n";
    // Loopback is not listed.
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "10.0.0.0/8"), ("SERVER_PORT", &own)];
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    for (url, said) in [
        (format!("http://127.0.0.1:{port}/"), "loopback"),
        (format!("http://127.1:{port}/"), "loopback"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "loopback"),
        (format!("http://to-loopback.example:{port}/"), "EGRESS_PRIVATE"),
        ("http://169.254.169.254/latest/meta-data".to_owned(), "metadata of a cloud"),
        ("http://to-metadata.example/".to_owned(), "metadata of a cloud"),
        (format!("http://0.0.0.0:{port}/"), "unspecified"),
    ] {
        let reason = reason(&service, &function, &url).await;
        assert!(reason.contains(said), "{url}: {reason}");
    }
    service.stop().await;
    // Loopback is listed, and the service's own port is not reached all the same.
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8"), ("SERVER_PORT", &own)];
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    for host in ["127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.1]", "to-loopback.example"] {
        let reason = reason(&service, &function, &format!("http://{host}:{own}/api/submit")).await;
        let is_refused = reason.contains("the service itself") || reason.contains("EGRESS_PRIVATE");
        assert!(is_refused, "{host}: {reason}");
    }
    assert!(receiver.requests().is_empty());
    service.tell(&function, Value::Null).await.assert_status(200);
    service.stop().await;
    // What EGRESS_ALLOW does not cover any more is not told.
    let service = start(dir.path(), &[&receiver], &[]).await;
    service.tell(&function, json!({"url": receiver.url()})).await.assert_status(200);
    service.stop().await;
    let service = start(dir.path(), &[], &[("EGRESS_ALLOW", "")]).await;
    let id = service.begin(&function, json!({"code": 1})).await;
    service.ended(&id).await;
    let told = eventually("the receiver is tried", async || {
        let told = service.notifications(&function).await.into_iter().find(|told| told["invocationId"] == id)?;
        told["lastError"].as_str().map(str::to_owned)
    });
    let told = told.await;
    assert!(told.contains("EGRESS_ALLOW does not allow this"), "{told}");
    assert!(receiver.requests().is_empty());
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_redirect_is_followed() {
    let elsewhere = Receiver::start(&[OK]).await;
    let location = format!("307 Temporary Redirect\r\nlocation: {}", elsewhere.url());
    let receiver = Receiver::start(&[&location]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&receiver, &elsewhere], &[]).await;
    let function = service.deploy(python(PROGRAM)).await;
    let reason = reason(&service, &function, &receiver.url()).await;
    assert_eq!(reason, "the receiver answered 307; no redirect is followed");
    // What is listed is a matter of the function alone.
    let other = service.deploy(python(PROGRAM)).await;
    assert_eq!(service.notifications(&other).await, [Value::Null; 0]);
    // The next try follows no redirect either.
    receiver.told(2).await;
    assert!(elsewhere.requests().is_empty());
    answer(service.client.delete(format!("{}/api/functions/{function}", service.url))).await.assert_status(200);
    let path = format!("/api/functions/{function}/notifications");
    service.get(&path).await.assert_problem(404, "function_not_found", "no function");
    service.delete_all(dir.path()).await;
}
