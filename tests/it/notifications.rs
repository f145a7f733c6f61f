//! Notifications: who is told of which ends of invocations, by which messages, and what becomes of messages that are
//! not taken. Receivers are servers of this machine.

mod crashes;
mod receiver;
mod refusals;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::doors::authority::Authority;
use crate::support::{Answer, Service, answer, eventually, python};
use receiver::{ENDLESS, ERROR, OK, Receiver, SILENCE};

/// Ends as the input says, and prints what nobody is to be told.
const PROGRAM: &str = "\
import os, sys, time
print('hidden output')
print('hidden error', file=sys.stderr)
time.sleep(float(os.environ.get('SECONDS', '0')))
sys.exit(int(os.environ.get('CODE', '0')))
";

/// Settings by which the receivers of this machine may be reached.
async fn start(dir: &Path, receivers: &[&Receiver], settings: &[(&str, &str)]) -> Service {
    let allow = receivers.iter().map(|receiver| receiver.rule()).collect::<Vec<_>>().join(",");
    let own = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8"), ("DOCKER_CONTAINER_LIMIT", "4")];
    Service::start(dir, &[&own[..], settings].concat()).await.healthy().await
}

impl Service {
    /// Changes whom a function tells.
    async fn tell(&self, function: &str, notify: Value) -> Answer {
        let url = format!("{}/api/functions/{function}", self.url);
        answer(self.client.patch(url).json(&json!({"notify": notify}))).await
    }

    /// Has a function tell a receiver, and returns the key.
    async fn tell_with_key(&self, function: &str, notify: Value) -> String {
        let changed = self.tell(function, notify).await.assert_status(200);
        changed.body["notifySecret"].as_str().unwrap().to_owned()
    }

    async fn notifications(&self, function: &str) -> Vec<Value> {
        let path = format!("/api/functions/{function}/notifications");
        self.get(&path).await.assert_status(200).body.as_array().unwrap().clone()
    }

    /// Begins an asynchronous execution, and returns the invocation's id.
    async fn begin(&self, function: &str, input: Value) -> String {
        let accepted = self.defer(function, input).await.assert_status(202);
        accepted.body["invocationId"].as_str().unwrap().to_owned()
    }

    /// Waits until a notification of the function has this state, and returns the notification.
    async fn notified(&self, function: &str, state: &str) -> Value {
        let found = async || self.notifications(function).await.into_iter().find(|told| told["state"] == state);
        eventually("a notification has the state", found).await
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_failure_is_told_by_a_signed_message_with_the_receipt_and_nothing_else() {
    let (first, second) = (Receiver::start(&[OK]).await, Receiver::start(&[OK]).await);
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&first, &second], &[]).await;
    let function = service.deploy(python(PROGRAM)).await;
    let secrets = json!({"secrets": {"KEY": "hidden secret"}});
    let url = format!("{}/api/functions/{function}", service.url);
    answer(service.client.patch(url).json(&secrets)).await.assert_status(200);
    let changed = service.tell(&function, json!({"url": first.url()})).await.assert_status(200);
    let shown = json!({"url": first.url(), "on": ["failure"]});
    assert_eq!(changed.body["settings"]["notify"], shown);
    let key = changed.body["notifySecret"].as_str().unwrap().to_owned();

    let id = service.begin(&function, json!({"code": 3, "word": "hidden input"})).await;
    let told = first.told(1).await.remove(0);
    told.verify(&key);
    assert_eq!(told.head, "POST /told?by=test HTTP/1.1");
    assert_eq!(told.headers["host"], format!("127.0.0.1:{}", first.port));
    let kept = service.ended(&id).await;
    let data = json!({"functionId": function, "functionName": "function", "invocationId": id, "outcome": "exit",
        "exitCode": 3, "error": "the function ended with exit status 3", "trigger": "api", "version": 1,
        "executedAt": kept["executedAt"], "durationMs": kept["durationMs"]});
    let timestamp = told.body["timestamp"].as_str().unwrap();
    assert_eq!(told.body, json!({"type": "invocation.failed", "timestamp": timestamp, "data": data}));
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
    assert!(!format!("{told:?}").contains("hidden"), "{told:?}");
    let listed = service.notified(&function, "delivered").await;
    assert_eq!((&listed["invocationId"], &listed["webhookId"]), (&json!(id), &json!(told.id())));
    assert_eq!((&listed["type"], &listed["tries"]), (&json!("invocation.failed"), &json!(1)));
    assert_eq!((&listed["lastStatus"], &listed["lastError"]), (&json!(204), &Value::Null));
    assert!(listed["lastTryAt"].is_u64() && listed["nextTryAt"].is_null(), "{listed:#}");
    let metrics = service.text("/metrics").await;
    assert!(metrics.contains("youtube_serverless_notification_tries_total{result=\"delivered\"} 1"), "{metrics}");

    // Neither a success, nor an execution that a client waits for, nor one that is cancelled.
    let ok = service.begin(&function, json!({})).await;
    service.ended(&ok).await;
    service.execute_with(&function, json!({"code": 3})).await.assert_outcome(500, "exit");
    let keyed = service.client.post(format!("{}/api/execute", service.url)).header("idempotency-key", "k");
    let body = json!({"functionId": function, "input": {"code": 3}});
    answer(keyed.json(&body)).await.assert_outcome(500, "exit");
    let cancelled = service.begin(&function, json!({"seconds": 30})).await;
    answer(service.client.delete(format!("{}/api/invocations/{cancelled}", service.url))).await.assert_status(200);

    // Another receiver takes over with the same key, and the key is not shown again.
    let notify = json!({"url": second.url(), "on": ["success", "failure"]});
    let changed = service.tell(&function, notify.clone()).await.assert_status(200);
    assert!(changed.body.get("notifySecret").is_none(), "{:#}", changed.body);
    let ok = service.begin(&function, json!({})).await;
    let told = second.told(1).await.remove(0);
    told.verify(&key);
    assert_eq!((told.invocation(), &told.body["type"]), (ok.as_str(), &json!("invocation.succeeded")));
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    for path in ["", "/settings"] {
        let shown = service.get(&format!("/api/functions/{function}{path}")).await.body.to_string();
        assert!(!shown.contains(&key), "{shown}");
    }

    // Null ends the notifications, and the next ones have another key.
    let changed = service.tell(&function, Value::Null).await.assert_status(200);
    assert_eq!(changed.body["settings"]["notify"], Value::Null);
    let silent = service.begin(&function, json!({"code": 1})).await;
    service.ended(&silent).await;
    let other = service.tell_with_key(&function, notify).await;
    assert_ne!(other, key);
    service.begin(&function, json!({"code": 1})).await;
    second.told(2).await[1].verify(&other);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 2));
    let unknown = "/api/functions/123e4567-e89b-42d3-a456-426614174000/notifications";
    service.get(unknown).await.assert_problem(404, "function_not_found", "no function");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_receiver_with_https_must_have_a_certificate_that_the_machine_trusts() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "DNS:hooks.example,IP:127.0.0.1");
    let receiver = Receiver::start_tls(&[OK], &authority).await;
    let (root, port) = (dir.path().join("root.pem"), receiver.port);
    let allow = format!("*.example:{port},127.0.0.1:{port}");
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "127.0.0.1"), ("DOCKER_CONTAINER_LIMIT", "2")];
    let hosts = "127.0.0.1 localhost\n127.0.0.1 hooks.example other.example\n";
    let trust = [("SSL_CERT_FILE", root.to_str().unwrap())];
    let service = Service::start_with_hosts(dir.path(), &[&settings[..], &trust].concat(), hosts).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let key = service.tell_with_key(&function, json!({"url": format!("https://hooks.example:{port}/a")})).await;
    for (count, host) in ["hooks.example", "127.0.0.1"].into_iter().enumerate() {
        service.tell(&function, json!({"url": format!("https://{host}:{port}/a")})).await.assert_status(200);
        service.begin(&function, json!({"code": 1})).await;
        let told = receiver.told(count + 1).await.remove(count);
        told.verify(&key);
        assert_eq!(told.headers["host"], format!("{host}:{port}"));
    }
    // The certificate has not this name.
    service.tell(&function, json!({"url": format!("https://other.example:{port}/a")})).await.assert_status(200);
    service.begin(&function, json!({"code": 1})).await;
    let refused = service.notified(&function, "pending").await;
    service.stop().await;
    let tried = async |service: &Service| {
        eventually("the receiver is tried", async || {
            let told = service.notified(&function, "pending").await;
            told["lastError"].as_str().map(str::to_owned)
        })
        .await
    };
    // Nor does the machine trust the authority any more.
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let said = tried(&service).await;
    assert!(said.contains("no TLS connection"), "{said} {refused:#}");
    service.tell(&function, json!({"url": format!("https://hooks.example:{port}/a")})).await.assert_status(200);
    service.tell(&function, Value::Null).await.assert_status(200);
    service.tell(&function, json!({"url": format!("https://hooks.example:{port}/a")})).await.assert_status(200);
    service.begin(&function, json!({"code": 1})).await;
    let said = tried(&service).await;
    assert!(said.contains("no TLS connection") && said.contains("UnknownIssuer"), "{said}");
    assert_eq!(receiver.requests().len(), 2);
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_message_that_is_not_taken_is_sent_again_and_gone_ends_that() {
    let receiver = Receiver::start(&[ERROR, ENDLESS]).await;
    let gone = Receiver::start(&["410 Gone"]).await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let allow = format!("{},{}", receiver.rule(), gone.rule());
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", "127.0.0.1"), ("LOG_LEVEL", "info")];
    let service = Service::start_with(dir.path(), &settings, file.into()).await.healthy().await;
    let function = service.deploy(python(PROGRAM)).await;
    let key = service.tell_with_key(&function, json!({"url": receiver.url()})).await;
    let id = service.begin(&function, json!({"code": 1})).await;
    receiver.told(1).await;
    let listed = eventually("the failure is listed", async || {
        let listed = service.notifications(&function).await.remove(0);
        listed["lastStatus"].is_u64().then_some(listed)
    })
    .await;
    assert_eq!((&listed["state"], &listed["tries"]), (&json!("pending"), &json!(1)));
    assert_eq!((&listed["lastStatus"], &listed["lastError"]), (&json!(500), &json!("the receiver answered 500")));
    assert!(listed["nextTryAt"].as_u64() > listed["lastTryAt"].as_u64(), "{listed:#}");
    let told = receiver.told(2).await;
    assert_eq!((told[0].id(), &told[0].text, told[0].invocation()), (told[1].id(), &told[1].text, id.as_str()));
    let pause = told[1].at - told[0].at;
    assert!((Duration::from_millis(4900)..Duration::from_secs(20)).contains(&pause), "{pause:?}");
    told.iter().for_each(|told| told.verify(&key));
    // A body without an end does not make a success a failure.
    let listed = service.notified(&function, "delivered").await;
    assert_eq!((&listed["tries"], &listed["lastStatus"]), (&json!(2), &json!(200)));

    service.tell(&function, json!({"url": gone.url()})).await.assert_status(200);
    service.begin(&function, json!({"code": 1})).await;
    let listed = service.notified(&function, "failed").await;
    assert_eq!((&listed["tries"], &listed["lastStatus"], &listed["nextTryAt"]), (&json!(1), &json!(410), &Value::Null));
    let settings = service.get(&format!("/api/functions/{function}/settings")).await.body;
    assert_eq!(settings["notify"]["url"], gone.url(), "the setting stays");
    let metrics = service.text("/metrics").await;
    for result in ["delivered", "failed", "given_up"] {
        let line = format!("youtube_serverless_notification_tries_total{{result=\"{result}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let logged = std::fs::read_to_string(&log).unwrap();
    let count = |text: &str| logged.lines().filter(|line| line.contains(text)).count();
    assert_eq!((count("a notification could not be delivered"), count("gave up a notification")), (2, 1), "{logged}");
    assert!(!logged.contains("told?by=test") && !logged.contains(&key), "{logged}");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_dead_receiver_holds_up_no_other() {
    let (dead, other) = (Receiver::start(&[SILENCE]).await, Receiver::start(&[OK]).await);
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&dead, &other], &[]).await;
    let (one, two) = (service.deploy(python(PROGRAM)).await, service.deploy(python(PROGRAM)).await);
    service.tell(&one, json!({"url": dead.url()})).await.assert_status(200);
    service.tell(&two, json!({"url": other.url()})).await.assert_status(200);
    for _ in 0..30 {
        let id = service.begin(&one, json!({"code": 1})).await;
        service.ended(&id).await;
    }
    dead.told(4).await;
    let began = Instant::now();
    service.begin(&two, json!({"code": 1})).await;
    other.told(1).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let dead = dead.requests();
    let at_one_time = dead.iter().filter(|request| request.at - dead[0].at < Duration::from_secs(11)).count();
    assert_eq!(at_one_time, 4, "a receiver has so many tries at one time");
    let listed = eventually("a try has ended", async || {
        let told = service.notifications(&one).await;
        told.into_iter().find(|told| told["lastError"].is_string())
    })
    .await;
    assert_eq!(listed["lastError"], "no answer within 15s");
    service.delete_all(dir.path()).await;
}

// The program runs on a thread of its own, so that the service's answers to the test don't wait for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn a_submit_and_the_command_line_name_a_receiver() {
    let receiver = Receiver::start(&[OK]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&receiver], &[]).await;
    let notify = json!({"url": receiver.url(), "on": ["success"]}).to_string();
    let form = || {
        let code = Part::bytes(python(PROGRAM)).file_name("function.zip");
        Form::new().part("code", code).text("notify", notify.clone())
    };
    let submit = async || {
        let request = service.client.post(format!("{}/api/submit", service.url)).header("idempotency-key", "k");
        answer(request.multipart(form())).await.assert_status(200)
    };
    let submitted = submit().await;
    let function = submitted.body["functionId"].as_str().unwrap();
    let key = submitted.body["notifySecret"].as_str().unwrap();
    service.begin(function, json!({})).await;
    receiver.told(1).await[0].verify(key);
    let again = submit().await;
    assert_eq!(again.body["functionId"], function);
    assert!(again.body.get("notifySecret").is_none(), "a key is shown once");
    let updated = answer(service.client.put(format!("{}/api/functions/{function}", service.url)).multipart(form()));
    let updated = updated.await.assert_status(200).body;
    assert!(updated["version"] == 2 && updated.get("notifySecret").is_none(), "{updated:#}");

    let zip = dir.path().join("job.zip");
    std::fs::write(&zip, python(PROGRAM)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
        command.env("YOUTUBE_SERVERLESS_URL", &service.url).args(["deploy", zip.to_str().unwrap()]).args(arguments);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout).trim().to_owned(), text(output.stderr))
    };
    let (status, id, said) = run(&["--notify", &receiver.url(), "--notify-on", "failure,success"]);
    assert!(status == 0 && said.contains(": whsec_"), "{said}");
    let notify = async || service.get(&format!("/api/functions/{id}/settings")).await.body["notify"].clone();
    assert_eq!(notify().await, json!({"url": receiver.url(), "on": ["failure", "success"]}));
    assert_eq!(run(&["--update", "job"]).0, 0);
    assert_eq!(notify().await["url"], receiver.url(), "an update without the option leaves the receiver");
    let (status, _, said) = run(&["--update", "job", "--notify", &receiver.url()]);
    assert!(status == 0 && !said.contains("whsec_"), "{said}");
    assert_eq!(notify().await["on"], json!(["failure"]));
    assert_eq!(run(&["--update", "job", "--notify", ""]).0, 0);
    assert_eq!(notify().await, Value::Null);
    let (status, _, said) = run(&["--update", "job", "--notify", "https://a.example"]);
    assert!(status == 125 && said.contains("network_not_allowed") && said.contains("EGRESS_ALLOW"), "{said}");
    service.delete_all(dir.path()).await;
}
