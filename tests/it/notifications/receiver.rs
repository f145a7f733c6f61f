//! A receiver of notifications: a server of this machine that notes each request.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::doors::authority::Authority;
use crate::support::eventually;

/// An answer after which the receiver sends bytes without an end.
pub(super) const ENDLESS: &str = "200 OK\r\ntransfer-encoding: chunked";
/// No answer at all.
pub(super) const SILENCE: &str = "";
pub(super) const OK: &str = "204 No Content";
pub(super) const ERROR: &str = "500 Internal Server Error";

/// Checks a signature as the libraries of Standard Webhooks do, by Python's own HMAC.
const VERIFIER: &str = r#"
import base64, hashlib, hmac, json, sys
message = json.load(sys.stdin)
key = base64.b64decode(sys.argv[1].removeprefix("whsec_"), validate=True)
assert sys.argv[1].startswith("whsec_") and 24 <= len(key) <= 64
signed = "%s.%s.%s" % (message["id"], message["timestamp"], message["body"])
expected = "v1," + base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
assert hmac.compare_digest(expected, message["signature"]), (expected, message)
"#;

pub(super) struct Receiver {
    pub(super) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) at: Instant,
    pub(super) head: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) text: String,
    pub(super) body: Value,
}

impl Receiver {
    /// Starts a receiver that gives these answers, one after the other, and then the last one again and again.
    pub(super) async fn start(answers: &[&str]) -> Self {
        Self::start_on("127.0.0.1", answers, None).await
    }

    /// The same with TLS.
    pub(super) async fn start_tls(answers: &[&str], authority: &Authority) -> Self {
        let certificate = CertificateDer::from_pem_file(&authority.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&authority.key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        Self::start_on("127.0.0.1", answers, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_on(host: &str, answers: &[&str], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let receiver = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let requests = Arc::clone(&receiver.requests);
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, answers, tls) = (Arc::clone(&requests), answers.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &requests, &answers).await,
                            Err(_) => None,
                        },
                        None => serve(stream, &requests, &answers).await,
                    }
                });
            }
        });
        receiver
    }

    /// What EGRESS_ALLOW says for this receiver.
    pub(super) fn rule(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/told?by=test", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// Waits for a number of requests.
    pub(super) async fn told(&self, count: usize) -> Vec<Request> {
        let enough = async || Some(self.requests()).filter(|requests| requests.len() >= count);
        eventually("the receiver is told", enough).await
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &Mutex<Vec<Request>>,
    answers: &[String],
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut headers) = (String::new(), BTreeMap::new());
    stream.read_line(&mut head).await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let text = String::from_utf8(body).unwrap();
    let body = serde_json::from_str(&text).unwrap();
    let answer = {
        let mut requests = requests.lock();
        requests.push(Request { at: Instant::now(), head: head.trim_end().to_owned(), headers, text, body });
        answers[(requests.len() - 1).min(answers.len() - 1)].clone()
    };
    if answer == SILENCE {
        let _ = stream.read_u8().await;
        return None;
    }
    if answer != ENDLESS {
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    }
    stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.ok()?;
    loop {
        stream.write_all(b"1\r\nx\r\n").await.ok()?;
        stream.flush().await.ok()?;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

impl Request {
    pub(super) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(super) fn invocation(&self) -> &str {
        self.body["data"]["invocationId"].as_str().unwrap()
    }

    /// Expects a message that this key signs, at this time.
    #[track_caller]
    pub(super) fn verify(&self, key: &str) {
        let header = |name: &str| self.headers[name].as_str();
        assert_eq!(header("content-type"), "application/json");
        let sent: i64 = header("webhook-timestamp").parse().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
        assert!((now - sent - self.at.elapsed().as_secs().cast_signed()).abs() < 5, "{sent} {now}");
        assert_eq!(self.id(), format!("msg_{}", self.invocation()));
        let message = json!({"id": self.id(), "timestamp": header("webhook-timestamp"), "body": self.text,
            "signature": header("webhook-signature")});
        let mut python = Command::new("python3");
        let mut python = python.args(["-c", VERIFIER, key]).stdin(Stdio::piped()).spawn().unwrap();
        python.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
        assert!(python.wait().unwrap().success(), "{message:#}");
    }
}
