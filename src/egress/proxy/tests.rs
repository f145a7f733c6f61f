use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{self, Instant};

use crate::domain::Destined;
use crate::egress::Gate;
use crate::egress::tests::{Opened, Outside, SHORT_HEAD_LIMIT, SOON, dead, echo, free_port};

const HOSTS: &str = "127.0.0.1 a.example\n127.0.0.1 b.example\n127.0.0.79 dead.example\n";

fn outside() -> Outside {
    Outside::new(HOSTS, &["127.0.0.0/8"])
}

/// What the proxy answers to these bytes, until the connection ends, and what was counted.
async fn answer(outside: &Outside, rules: &[String], bytes: &[u8]) -> (String, Option<Destined>) {
    let Opened { mut program, task, traffic } = outside.open(Gate::Proxy, rules).await;
    program.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    program.read_to_end(&mut answer).await.unwrap();
    drop(program);
    task.await.unwrap();
    (String::from_utf8(answer).unwrap(), traffic.report().pop())
}

/// Asserts that the proxy refuses these bytes with a status, and returns the reason.
async fn refused(outside: &Outside, rules: &[String], bytes: &[u8], status: u16) -> String {
    let (answer, destined) = answer(outside, rules, bytes).await;
    let asked = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked:?}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n") && head.ends_with("Connection: close"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    let destined = destined.unwrap();
    assert_eq!((destined.connections, destined.refused, destined.sent_bytes), (0, 1, 0), "{asked:?}");
    let reason = destined.reason.unwrap();
    assert_eq!(body, format!("{reason}\n"));
    reason
}

/// A destination that takes one connection, notes all that comes until the end, and answers when `wait` has come.
async fn site(wait: &'static str, reply: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(wait.as_bytes()) {
            assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&got));
        }
        // What should not follow has time to do so.
        while let Ok(Ok(length)) = time::timeout(Duration::from_millis(150), stream.read_buf(&mut got)).await
            && length > 0
        {}
        stream.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8(got).unwrap()
    });
    (port, got)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_tunnel_carries_all_bytes_of_an_allowed_destination() {
    let port = echo("127.0.0.1").await;
    let outside = outside();
    let rules = [format!("a.example:{port}"), format!("127.0.0.0/8:{port}")];
    for host in ["a.example", "A.EXAMPLE.", "127.0.0.1", "2130706433", "0x7f.1", "0177.1", "127.1"] {
        let mut opened = outside.open(Gate::Proxy, &rules).await;
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\nearly ");
        opened.program.write_all(request.as_bytes()).await.unwrap();
        opened.program.write_all(b"late").await.unwrap();
        opened.program.shutdown().await.unwrap();
        let mut answer = String::new();
        opened.program.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\nearly late", "{host}");
        let destined = opened.destined().await;
        assert_eq!((destined.connections, destined.sent_bytes, destined.received_bytes), (1, 10, 10));
    }
}

#[tokio::test]
async fn a_tunnel_to_what_is_not_allowed_is_refused() {
    let port = echo("127.0.0.1").await;
    let outside = outside();
    let connect = |host: &str, port| format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n");
    let rules = [format!("a.example:{port}"), format!("*.b.example:{port}"), format!("10.0.0.0/8:{port}")];
    let hosts =
        ["b.example", "127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "a.example.b", "localhost", "0"];
    for host in hosts {
        let reason = refused(&outside, &rules, connect(host, port).as_bytes(), 403).await;
        assert!(reason.ends_with("no rule of the function's network allows this"), "{host}: {reason}");
    }
    refused(&outside, &rules, connect("a.example", port ^ 1).as_bytes(), 403).await;
    // A star allows the name, and not the address.
    let star = [format!("*:{port}")];
    for host in ["a.example", "127.0.0.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "[::]", "0", "[::1]"] {
        let reason = refused(&outside, &star, connect(host, port).as_bytes(), 403).await;
        assert!(reason.contains(": the address is "), "{host}: {reason}");
    }
    for host in ["[::1%25lo]", "[fe80::1%lo]", "fe80::1%lo", "user@a.example", "a.example/x", "a.exa%6dple"] {
        refused(&outside, &star, connect(host, port).as_bytes(), 400).await;
    }
    let reason = refused(&outside, &star, connect("169.254.169.254", port).as_bytes(), 403).await;
    assert!(reason.ends_with("the address is metadata of a cloud, which no function reaches"), "{reason}");
}

#[tokio::test]
async fn a_destination_that_fails_has_its_status() {
    let outside = outside();
    let port = free_port("127.0.0.1").await;
    let connect = |host: &str, port| format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
    let reason = refused(&outside, &[format!("a.example:{port}")], connect("a.example", port).as_bytes(), 502).await;
    assert_eq!(reason, format!("a.example:{port}: Connection refused (os error 111)"));
    let get = format!("GET http://a.example:{port}/ HTTP/1.1\r\n\r\n");
    refused(&outside, &[format!("a.example:{port}")], get.as_bytes(), 502).await;
    refused(&outside, &["*:443".to_owned()], connect("unknown.example", 443).as_bytes(), 502).await;
    let (listener, _waiting) = dead(Ipv4Addr::new(127, 0, 0, 79)).await;
    let port = listener.local_addr().unwrap().port();
    let began = Instant::now();
    refused(&outside, &[format!("dead.example:{port}")], connect("dead.example", port).as_bytes(), 504).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_plain_request_goes_to_the_host_of_its_url_alone() {
    let (port, got) = site("\r\n\r\n", OK).await;
    let outside = outside();
    let rules = [format!("a.example:{port}")];
    let request = format!(
        "GET http://a.example:{port}/x?y HTTP/1.1\r\nHost: b.example\r\nProxy-Authorization: secret\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAccept: */*\r\n\r\n\
         GET http://b.example/second HTTP/1.1\r\nHost: b.example\r\n\r\n"
    );
    let (answer, destined) = answer(&outside, &rules, request.as_bytes()).await;
    assert_eq!(answer, OK);
    let head = format!("GET /x?y HTTP/1.1\r\nHost: a.example:{port}\r\nConnection: close\r\nAccept: */*\r\n\r\n");
    assert_eq!(got.await.unwrap(), head);
    let destined = destined.unwrap();
    assert_eq!((destined.sent_bytes, destined.received_bytes), (head.len() as u64, OK.len() as u64));

    let other = format!("GET http://b.example:{port}/ HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n");
    refused(&outside, &rules, other.as_bytes(), 403).await;
    let other_port = "GET http://a.example/ HTTP/1.1\r\n\r\n";
    assert!(refused(&outside, &rules, other_port.as_bytes(), 403).await.starts_with("a.example:80: "));
}

#[tokio::test]
async fn one_body_goes_with_a_request_and_nothing_behind_the_body() {
    let outside = outside();
    let (port, got) = site("hello", OK).await;
    let rules = [format!("a.example:{port}")];
    let request =
        format!("POST http://a.example:{port}/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /second HTTP/1.1\r\n\r\n");
    assert_eq!(answer(&outside, &rules, request.as_bytes()).await.0, OK);
    assert!(got.await.unwrap().ends_with("Content-Length: 5\r\n\r\nhello"));

    let (port, got) = site("0\r\n\r\n", OK).await;
    let rules = [format!("a.example:{port}")];
    let request = format!(
        "PUT http://a.example:{port}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n\
         GET /second HTTP/1.1\r\n\r\n"
    );
    assert_eq!(answer(&outside, &rules, request.as_bytes()).await.0, OK);
    assert!(got.await.unwrap().ends_with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_body_whose_chunks_are_none_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outside = outside();
    let mut opened = outside.open(Gate::Proxy, &[format!("a.example:{port}")]).await;
    let head = format!("POST http://a.example:{port}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    opened.program.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
    let (mut destination, _) = listener.accept().await.unwrap();
    let mut got = vec![0; 1000];
    let mut length = 0;
    while !got[..length].ends_with(b"hello\r\n") {
        length += destination.read(&mut got[length..]).await.unwrap();
    }
    opened.program.write_all(b"nonsense\r\n0\r\n\r\n").await.unwrap();
    for stream in [&mut destination, &mut opened.program] {
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let destined = opened.destined().await;
    assert_eq!((destined.connections, destined.refused), (1, 1));
    assert_eq!(destined.reason.as_deref(), Some("a chunk has no size"));
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outside = outside();
    let mut opened = outside.open(Gate::Proxy, &[format!("a.example:{port}")]).await;
    let head = format!("POST http://a.example:{port}/ HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nhello");
    opened.program.write_all(head.as_bytes()).await.unwrap();
    let (mut destination, _) = listener.accept().await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"hello") {
        destination.read_buf(&mut got).await.unwrap();
    }
    destination.write_all(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(destination);
    let mut answer = String::new();
    opened.program.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    drop(opened.program);
    opened.task.await.unwrap();
}

#[tokio::test]
async fn requests_that_may_be_read_in_two_ways_reach_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outside = outside();
    let rules = [format!("a.example:{port}"), format!("b.example:{port}")];
    let url = format!("POST http://a.example:{port}/ HTTP/1.1\r\n");
    let hidden = "GET /second HTTP/1.1\r\n\r\n";
    for (name, bytes) in [
        ("CL.TE", format!("{url}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("TE.CL", format!("{url}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n{hidden}\r\n0\r\n\r\n")),
        ("two lengths", format!("{url}Content-Length: 0\r\nContent-Length: 24\r\n\r\n{hidden}")),
        ("a list of lengths", format!("{url}Content-Length: 0, 24\r\n\r\n{hidden}")),
        ("obs-fold", format!("{url}X: y\r\n Content-Length: 24\r\n\r\n{hidden}")),
        ("obs-fold of TE", format!("{url}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")),
        ("a space before the colon", format!("{url}Content-Length : 24\r\n\r\n{hidden}")),
        ("bare LF", format!("{url}X: y\nContent-Length: 24\r\n\r\n{hidden}")),
        ("only LF", format!("POST http://a.example:{port}/ HTTP/1.1\n\n{hidden}")),
        ("bare CR", format!("{url}X: y\rContent-Length: 24\r\n\r\n{hidden}")),
        ("NUL", format!("{url}X: y\0z\r\n\r\n")),
        ("NUL in a name", format!("{url}X\0: y\r\n\r\n")),
        ("two hosts", format!("{url}Host: a.example\r\nHost: b.example\r\n\r\n")),
        ("a user", format!("GET http://a.example:{port}@b.example:{port}/ HTTP/1.1\r\n\r\n")),
        ("https", format!("GET https://a.example:{port}/ HTTP/1.1\r\n\r\n")),
        ("origin form", format!("GET / HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n")),
        ("authority form", format!("GET a.example:{port} HTTP/1.1\r\n\r\n")),
        ("a backslash", format!("GET http://a.example:{port}\\@b.example/ HTTP/1.1\r\n\r\n")),
        ("a tab", format!("GET\thttp://a.example:{port}/ HTTP/1.1\r\n\r\n")),
        ("a body of CONNECT", format!("CONNECT a.example:{port} HTTP/1.1\r\nContent-Length: 24\r\n\r\n{hidden}")),
        ("chunks of CONNECT", format!("CONNECT a.example:{port} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("a line before", format!("\r\n\r\n{url}\r\n")),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", format!("GET http://a.example:{port}/\r\n\r\n")),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned()),
        ("SOCKS", "\u{5}\u{1}\0".to_owned()),
    ] {
        let reason = refused(&outside, &rules, bytes.as_bytes(), 400).await;
        assert!(!reason.is_empty(), "{name}");
    }
    let trace = format!("TRACE http://a.example:{port}/ HTTP/1.1\r\n\r\n");
    refused(&outside, &rules, trace.as_bytes(), 405).await;
    assert!(time::timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "something has come");
}

#[tokio::test]
async fn a_head_has_its_limits() {
    let outside = outside();
    let rules = ["*:443".to_owned()];
    let long = format!("CONNECT a.example:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    refused(&outside, &rules, long.as_bytes(), 431).await;
    let endless = "x".repeat(200_000);
    refused(&outside, &rules, endless.as_bytes(), 431).await;
    let began = Instant::now();
    assert_eq!(refused(&outside, &rules, b"CONNECT a.exa", 408).await, "the head did not come in time");
    assert!(began.elapsed() >= SHORT_HEAD_LIMIT, "{:?}", began.elapsed());

    let mut opened = outside.open(Gate::Proxy, &rules).await;
    opened.program.write_all(b"CONNECT a.exa").await.unwrap();
    opened.program.shutdown().await.unwrap();
    let mut answer = String::new();
    opened.program.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    let Opened { program, task, traffic } = outside.open(Gate::Proxy, &rules).await;
    drop(program);
    task.await.unwrap();
    assert_eq!(traffic.report(), [], "a connection that says nothing is no refusal");
}

#[tokio::test]
async fn a_client_that_sends_its_head_byte_by_byte_is_served() {
    let port = echo("127.0.0.1").await;
    let outside = outside();
    let mut opened = outside.open(Gate::Proxy, &[format!("a.example:{port}")]).await;
    opened.program.set_nodelay(true).unwrap();
    for byte in format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\n").bytes() {
        opened.program.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 39];
    opened.program.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, super::ESTABLISHED);
}

/// The proxy of a process that serves many functions says nothing before the client has.
#[tokio::test]
async fn the_proxy_does_not_speak_first() {
    let outside = outside();
    let mut opened = outside.open(Gate::Proxy, &["*:443".to_owned()]).await;
    let waited = time::timeout(SHORT_HEAD_LIMIT / 2, opened.program.read_u8()).await;
    assert!(waited.is_err());
}
