//! Mail by SMTP with STARTTLS, and what lies in the server's mailbox afterwards.

use std::process::Command;

use serde_json::json;

use super::authority::Authority;
use crate::support::process::free_port;
use crate::support::{Program, Service, zip};

const PYTHON: &str = r#"
import os, smtplib, ssl
from email.message import EmailMessage
message = EmailMessage()
message["From"], message["To"], message["Subject"] = "f@function.example", "a@mail.example", "Grüße"
message.set_content("." * 100_000 + "\n.\nlast line\n")
with smtplib.SMTP("mail.example", int(os.environ["PORT"]), timeout=10) as server:
    server.starttls(context=ssl.create_default_context(cafile="root.pem"))
    print(server.send_message(message), server.sock.version()[:3])
"#;

#[tokio::test]
#[ignore = "needs docker and Debian's python3-aiosmtpd"]
async fn mail_is_sent_with_starttls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "DNS:mail.example");
    let (port, mailbox) = (free_port(), dir.path().join("mailbox"));
    let mut server = Command::new("/usr/bin/python3");
    server.args(["-m", "aiosmtpd", "--nosetuid", "--listen", &format!("127.0.0.1:{port}"), "--tlscert"]);
    server.arg(&authority.certificate).arg("--tlskey").arg(&authority.key);
    server.args(["--class", "aiosmtpd.handlers.Mailbox"]).arg(&mailbox);
    let _server = Program::listen(&mut server, "127.0.0.1", port).await;
    let rule = format!("mail.example:{port}");
    let settings = [("EGRESS_ALLOW", rule.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8")];
    let hosts = "127.0.0.1 localhost mail.example\n";
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let python = zip(&[("main.py", PYTHON), ("root.pem", &authority.root)]);
    let function = service.deploy_with(python, std::slice::from_ref(&rule), &[]).await;
    let answer = service.execute_with(&function, json!({"port": port})).await.assert_outcome(200, "ok");
    assert_eq!(answer.output(), "{} TLS\n");
    let network = &answer.body["network"][0];
    assert_eq!((&network["to"], &network["connections"], &network["refused"]), (&json!(rule), &json!(1), &json!(0)));
    let mut messages = std::fs::read_dir(mailbox.join("new")).unwrap().map(|message| message.unwrap().path());
    let message = std::fs::read_to_string(messages.next().unwrap()).unwrap();
    assert!(message.contains("X-RcptTo: a@mail.example\n") && message.ends_with("last line\n"), "{message:.500}");
    assert_eq!(messages.next(), None);
    service.delete_all(dir.path()).await;
}
