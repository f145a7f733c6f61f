//! Requests that are refused before the service has read the body. A client that first writes and then reads sees the
//! answer, too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::alone;
use crate::support::{Service, eventually};

const TOKEN: &str = "s3cret";
/// How often each request is sent.
const TIMES: usize = 20;

/// A path below the root of this repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a client to its end, and returns the client's output.
async fn said(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn every_client_sees_the_answer_to_what_is_refused_early() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("API_TOKEN", TOKEN), ("MAX_FILE_SIZE", "10MB")]).await;
    let expected = ["413 too_large\n", "400 invalid_request\n", "401 unauthorized\n"].concat().repeat(TIMES);
    for (program, script) in [
        (at("scripts/node"), "tests/hostile/early/fetch.mjs"),
        ("python3".into(), "tests/hostile/early/http_client.py"),
        ("python3".into(), "tests/hostile/early/url_lib.py"),
    ] {
        let mut client = Command::new(program);
        client.arg(at(script)).args([&service.url, TOKEN, &TIMES.to_string()]);
        assert_eq!(said(client).await, expected, "{script}");
    }
    // The service reads less than the last body, so that the client's writing fails.
    for (size, name, token, answer) in [
        (12_000_000, "a", TOKEN, "(413 too_large)\n"),
        (9_900_000, "a/b", TOKEN, "(400 invalid_request)\n"),
        (9_900_000, "a", "another", "(401 unauthorized)\n"),
        (200_000_000, "a", TOKEN, "(413 too_large)\n"),
    ] {
        let zip = dir.path().join("function.zip");
        std::fs::File::create(&zip).unwrap().set_len(size).unwrap();
        for _ in 0..TIMES {
            let mut deploy = Command::new(env!("CARGO_BIN_EXE_youtube-serverless"));
            deploy.args(["--url", &service.url, "--token", token, "deploy", "--name", name]).arg(&zip);
            let said = said(deploy).await;
            assert!(said.ends_with(answer), "{size} bytes: {said}");
        }
    }
    service.stop().await;
}

/// Sends a head, and returns the response and its connection.
async fn answered(service: &Service, head: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let response = response(&mut stream).await;
    (response, stream)
}

/// A response that comes whole and at once.
async fn response(stream: &mut TcpStream) -> String {
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while !said.ends_with('}') {
        let read = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("an answer at once").unwrap();
        assert!(read > 0, "{said}");
        said += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    said
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_refused_body_is_read_within_bounds() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("SERVER_READ_TIMEOUT", "2s")]).await.healthy().await;
    let next = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // The bytes after the body on the connection are another request.
    let (said, mut stream) =
        answered(&service, "POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 404") && !said.contains("connection: close"), "{said}");
    stream.write_all(&[b'x'; 1_000_000]).await.unwrap();
    stream.write_all(next.as_bytes()).await.unwrap();
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
    // A client that waits for 100 gets the answer instead, and learns that the connection ends.
    let submit = "POST /api/submit HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n";
    for (head, status) in [
        (format!("{submit}content-length: 100000000\r\nexpect: 100-continue\r\n\r\n"), "HTTP/1.1 413"),
        (
            "POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n".to_owned(),
            "HTTP/1.1 404",
        ),
        ("POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n".to_owned(), "HTTP/1.1 404"),
    ] {
        let (said, mut stream) = answered(&service, &head).await;
        assert!(said.starts_with(status) && said.contains("connection: close\r\n"), "{said}");
        assert_eq!(
            timeout(Duration::from_secs(10), stream.read(&mut [0])).await.expect("the end of the connection").unwrap(),
            0
        );
    }
    // The connection of a client that does not go on is closed after the read timeout, whether or not the connection is
    // kept.
    for path in ["/nothing", "/api/submit"] {
        let began = Instant::now();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 60000000\r\n\r\nx"
        );
        let (_, stream) = answered(&service, &head).await;
        let port = stream.local_addr().unwrap().port();
        eventually("the service lets the connection go", async || (!service.has_socket(port)).then_some(())).await;
        let took = began.elapsed();
        assert!((Duration::from_millis(1500)..Duration::from_secs(20)).contains(&took), "{path}: {took:?}");
    }
    service.stop().await;
    // The service does not keep bytes that are thrown away.
    let service = Service::start(dir.path(), &[("SERVER_READ_TIMEOUT", "60s")]).await.healthy().await;
    let memory = service.memory();
    let flood = async || {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        let head = format!("{submit}content-length: 60000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..57 {
            stream.write_all(&chunk).await.unwrap();
        }
        assert!(response(&mut stream).await.starts_with("HTTP/1.1 413"));
    };
    futures_util::future::join_all((0..16).map(|_| flood())).await;
    let most = service.peak_memory();
    assert!(most < memory + (32 << 20), "{memory} -> {most}");
    service.well().await;
    service.stop().await;
}
