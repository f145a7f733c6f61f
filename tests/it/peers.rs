//! What nodes show each other: to whom CLUSTER_TOKEN is sent, and what the token is good for.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::forwarding::{Pair, TOKEN, defer, follow, runs, sql, talk, talks};
use crate::support::{Service, eventually, python};

const API_TOKEN: &str = "of-clients";

/// A listener that notes what the first bytes of each connection are, gives one answer, and closes.
struct Listener {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    async fn new(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 4096];
                let length = stream.read(&mut bytes).await.unwrap_or(0);
                notes.lock().push(String::from_utf8_lossy(&bytes[..length]).into_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> usize {
        self.heard.lock().len()
    }
}

/// Has the node that runs `service` look to others as if its NODE_URL were this.
async fn say(pair: &Pair, service: &Service, url: &str) {
    let id = std::fs::read_to_string(service.dir.join("data/platform-id")).unwrap();
    sql(&pair.store, &format!("UPDATE nodes SET url = '{url}' WHERE id = '{}'", id.trim()));
}

/// A client that shows a token.
fn client(token: &str) -> Client {
    let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
    let builder = Client::builder().pool_idle_timeout(Duration::from_millis(300));
    builder.default_headers(headers).build().unwrap()
}

/// A service whose client shows a token.
fn with_token(mut service: Service, token: &str) -> Service {
    service.client = client(token);
    service
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn the_token_goes_to_the_url_of_the_moment_and_nowhere_else() {
    let pair = Pair::new();
    let first = pair.start(0, &[]).await;
    let (elsewhere, proxy) = (Listener::new(String::new()).await, Listener::new(String::new()).await);
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let second = pair.start(1, &proxies.map(|name| (name, proxy.url.as_str()))).await;
    let id = first.deploy(talks(15)).await;

    // A node that answers with a way to somewhere else.
    let location = format!("HTTP/1.1 302 Found\r\nlocation: {}/x\r\ncontent-length: 0\r\n\r\n", elsewhere.url);
    let leads_away = Listener::new(location).await;
    say(&pair, &first, &leads_away.url).await;
    let invocation = defer(&first, &id).await;
    runs(&second, &invocation).await;
    let followed = follow(&second, &invocation).await;
    assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(15)), "the store has it in the end");
    let heard = leads_away.heard.lock().clone();
    assert!(!heard.is_empty() && heard.len() < 12, "{heard:?}");
    assert!(heard.iter().all(|head| head.contains(&format!("Bearer {TOKEN}\r\n"))), "{heard:?}");
    assert_eq!(elsewhere.heard(), 0, "no redirect is followed");
    assert_eq!(pair.logged(1, "live output"), 1, "a fault is in the log once");

    // The node has another URL now, at which the answer is no answer. For a while after the last fault the node is not
    // asked.
    let before = leads_away.heard();
    let long = first.deploy(talks(40)).await;
    let other = Listener::new("what?".to_owned()).await;
    let invocation = defer(&first, &long).await;
    say(&pair, &first, &other.url).await;
    runs(&second, &invocation).await;
    let followed = follow(&second, &invocation).await;
    assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(40)));
    assert!(other.heard() > 0);
    assert_eq!(leads_away.heard(), before, "nothing is sent to a former URL");

    // A node that came with CLUSTER_TOKEN itself gets what is here, which is nothing, and at once.
    let before = other.heard();
    let invocation = defer(&first, &id).await;
    eventually("the invocation runs", async || {
        let shown = first.get(&format!("/api/invocations/{invocation}")).await.body;
        (shown["outcome"] == "running").then_some(())
    })
    .await;
    for path in ["", "/events"] {
        let request = second.client.get(format!("{}/api/invocations/{invocation}{path}", second.url));
        let told = request.bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(told.status(), 200);
        let told = told.text().await.unwrap();
        assert!(!told.contains("ended") && !told.contains("ä"), "{told}");
    }
    assert_eq!(other.heard(), before, "a request of a node is not handed on");

    // A node whose lease has run out is not asked, and the true URL works again.
    let url = first.url.clone();
    say(&pair, &first, &url).await;
    let followed = follow(&second, &invocation).await;
    assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(15)));
    assert_eq!(other.heard(), before);
    assert_eq!(proxy.heard(), 0, "no proxy is asked: {:?}", proxy.heard.lock());
    first.delete(&id).await.assert_status(200);
    first.delete(&long).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_connection_that_breaks_is_made_again_and_no_output_is_missing_or_comes_twice() {
    let pair = Pair::new();
    let [first, second] = pair.both().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let node = first.url.trim_start_matches("http://").to_owned();
    let made = Arc::new(Mutex::new(0));
    let count = Arc::clone(&made);
    tokio::spawn(async move {
        loop {
            let (mut outer, _) = listener.accept().await.unwrap();
            *count.lock() += 1;
            let node = node.clone();
            tokio::spawn(async move {
                let mut inner = TcpStream::connect(node).await.unwrap();
                let copied = copy_bidirectional(&mut outer, &mut inner);
                let _ = tokio::time::timeout(Duration::from_millis(1500), copied).await;
            });
        }
    });
    let id = first.deploy(talks(40)).await;
    say(&pair, &first, &url).await;
    let invocation = defer(&first, &id).await;
    let followed = follow(&second, &invocation).await;
    assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(40)));
    assert_eq!(followed.text("stderr"), "err\n");
    let made = *made.lock();
    assert!((3..8).contains(&made), "{made} connections in 8 s, of which each lasted 1.5 s");
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn the_token_of_nodes_lets_in_only_what_nodes_ask() {
    let pair = Pair::new();
    let settings = [("API_TOKEN", API_TOKEN), ("RATE_LIMIT", "60/h"), ("DOCKER_RUN_TIMEOUT", "5m")];
    let first = with_token(pair.start(0, &settings).await, API_TOKEN);
    let second = with_token(pair.start(1, &[("API_TOKEN", API_TOKEN)]).await, API_TOKEN);
    let id = first.deploy(talks(25)).await;
    let invocation = defer(&first, &id).await;
    let followed = follow(&second, &invocation).await;
    assert!(followed.is_live(), "{followed:?}");

    // This invocation runs until its function is deleted.
    let long = first.deploy(talks(1000)).await;
    let invocation = defer(&first, &long).await;
    runs(&second, &invocation).await;
    let node = client(TOKEN);
    let path = format!("{}/api/invocations/{invocation}", first.url);
    for _ in 0..50 {
        for path in [&path, &format!("{path}/events")] {
            assert_eq!(node.get(path).send().await.unwrap().status(), 200, "no limit on the rate counts");
        }
    }
    let code = Form::new().part("code", Part::bytes(python("print(1)")).file_name("function.zip"));
    let url = |path: &str| format!("{}{path}", first.url);
    let refused = [
        node.post(url("/api/submit")).multipart(code),
        node.get(url(&format!("/api/execute?functionId={id}"))),
        node.post(url("/api/execute")).json(&json!({"functionId": id})),
        node.post(url("/api/functions/function/invoke")).json(&json!({})),
        node.patch(url(&format!("/api/functions/{id}"))).json(&json!({"memory": "64MB"})),
        node.post(url(&format!("/api/functions/{id}/rollback"))),
        node.delete(url(&format!("/api/functions/{id}"))),
        node.delete(&path),
        node.request(Method::HEAD, &path),
        node.post(&path),
        node.get(url("/api/functions")),
        node.get(url(&format!("/api/functions/{id}/settings"))),
        node.get(url(&format!("/api/functions/{id}/invocations"))),
        node.get(url("/api/nodes")),
        node.get(url("/api/instances")),
        node.get(url("/metrics")),
        node.get(url("/api/invocations/")),
    ];
    for request in refused {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{}", response.url());
    }
    for wrong in [&TOKEN[1..], "what-the-nodes-show-each-othex", ""] {
        let request = Client::new().get(&path).bearer_auth(wrong).send().await.unwrap();
        assert_eq!(request.status(), 401, "{wrong}");
    }
    assert_eq!(first.get(&format!("/api/invocations/{invocation}")).await.body["outcome"], "running");
    first.delete(&id).await.assert_status(200);
    first.delete(&long).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_wrong_token_costs_the_live_output_and_one_line_in_the_log() {
    let pair = Pair::new();
    let first = with_token(pair.start(0, &[("API_TOKEN", API_TOKEN)]).await, API_TOKEN);
    let settings = [("API_TOKEN", API_TOKEN), ("CLUSTER_TOKEN", "not-what-the-other-has")];
    let second = with_token(pair.start(1, &settings).await, API_TOKEN);
    let id = first.deploy(talks(25)).await;
    let invocation = defer(&first, &id).await;
    runs(&second, &invocation).await;
    let all = tokio::join!(follow(&second, &invocation), follow(&second, &invocation), follow(&second, &invocation));
    for followed in [all.0, all.1, all.2] {
        assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(25)));
        assert!(!followed.is_live(), "{followed:?}");
    }
    assert_eq!(pair.logged(1, "must be the same on each node"), 1);
    // Without a token there is no request at all, and a warning at the start.
    let second_url = second.url.clone();
    second.stop().await;
    let second = with_token(pair.start(1, &[("API_TOKEN", API_TOKEN), ("CLUSTER_TOKEN", "")]).await, API_TOKEN);
    assert_eq!(second.url, second_url);
    let invocation = defer(&first, &id).await;
    let followed = follow(&second, &invocation).await;
    assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(25)));
    assert!(!followed.is_live(), "{followed:?}");
    assert_eq!(pair.logged(1, "set NODE_URL and CLUSTER_TOKEN"), 1);
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn an_https_url_is_asked_where_its_certificate_is_trusted() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate"), path("key"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=node",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let first = pair.start(0, &[]).await;
    // TLS before the node, as by a proxy of the operator.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&key).unwrap(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = first.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, node) = (acceptor.clone(), node.clone());
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(node).await.unwrap();
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    let id = first.deploy(talks(40)).await;
    for (settings, host, is_live) in [
        (vec![("SSL_CERT_FILE", certificate.as_str())], "localhost", true),
        (vec![("SSL_CERT_FILE", certificate.as_str())], "127.0.0.1", false),
        (vec![], "localhost", false),
    ] {
        let second = pair.start(1, &settings).await;
        say(&pair, &first, &format!("https://{host}:{port}")).await;
        let invocation = defer(&first, &id).await;
        let followed = follow(&second, &invocation).await;
        assert_eq!((followed.outcome(), followed.text("stdout")), ("ok", talk(40)));
        assert_eq!(followed.is_live(), is_live, "{host}: {followed:?}");
        assert_eq!(pair.logged(1, "TLS"), usize::from(!is_live), "{host}");
        second.stop().await;
    }
    first.delete(&id).await.assert_status(200);
    first.stop().await;
}
