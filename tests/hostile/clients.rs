//! Clients that dawdle, stall, babble or come in crowds are cut, and the other clients are answered.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::alone;
use crate::support::{Service, eventually, python};

/// The time limits of the service under test.
const LIMITS: [(&str, &str); 2] = [("SERVER_READ_TIMEOUT", "3s"), ("SERVER_WRITE_TIMEOUT", "5s")];
/// The time in which a client that passes a limit is cut.
const CUT: Duration = Duration::from_secs(40);
/// The memory that an idle connection may take, in bytes.
const CONNECTION: u64 = 16 << 10;

/// Sends bytes, and returns all bytes until the service closes the connection.
async fn talk(service: &Service, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let _ = stream.write_all(bytes.as_ref()).await;
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let _ = timeout(CUT, stream.read_to_end(&mut said)).await.expect("the service closes the connection");
    String::from_utf8_lossy(&said).into_owned()
}

/// Sends a byte now and then, and returns the time until the service closes the connection.
async fn drip(service: &Service, head: String) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        loop {
            sleep(Duration::from_millis(200)).await;
            if writer.write_all(b"a").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = dripping => {}
        _ = timeout(CUT, reader.read_to_end(&mut said)) => {}
    }
    began.elapsed()
}

#[tokio::test]
#[ignore = "needs docker"]
async fn who_dawdles_is_cut_at_the_limit() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &LIMITS).await.healthy().await;
    let form = "POST /api/submit HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n";
    let (head, body, chunked, nothing) = tokio::join!(
        drip(&service, "GET /health HTTP/1.1\r\nx-slow: ".to_owned()),
        drip(&service, format!("{form}content-length: 1000\r\n\r\n--x\r\n")),
        drip(&service, format!("{form}transfer-encoding: chunked\r\n\r\nff\r\n")),
        drip(&service, String::new()),
    );
    for (what, took) in [("head", head), ("body", body), ("chunk", chunked), ("first byte", nothing)] {
        assert!((Duration::from_millis(2500)..CUT).contains(&took), "the {what} took {took:?}");
    }
    // The next head has the same limit, from its first byte on. A head that takes longer is answered.
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    sleep(Duration::from_secs(6)).await;
    stream.write_all(b"GET /").await.unwrap();
    let said = rest(&mut stream).await;
    let (first, second) = said.split_once("}HTTP/1.1 ").expect("two answers");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && second.starts_with("408 "), "{said}");
    assert!(second.contains("\"code\":\"request_timeout\"") && second.contains("\r\nx-request-id: "), "{said}");
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn who_does_not_take_the_answer_is_cut_at_the_limit() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [&LIMITS[..], &[("MAX_OUTPUT_SIZE", "60MB"), ("DOCKER_MEMORY_LIMIT", "256MB")]].concat();
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("import sys\nsys.stdout.write('x' * 60_000_000)")).await;
    service.execute(&id).await.assert_outcome(200, "ok");
    let memory = service.memory();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        let request = format!("GET /api/execute?functionId={id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    // A part of the answer is in the kernel's buffers. The service waits as long as the limit for the rest.
    let held = || stalled.iter().filter(|stream| service.holds(stream.local_addr().unwrap().port())).count();
    assert_eq!(held(), 2);
    eventually("the stalled clients are cut", async || (held() == 0).then_some(())).await;
    for mut stream in stalled {
        let mut said = Vec::new();
        let _ = timeout(CUT, stream.read_to_end(&mut said)).await.expect("the service closes the connection");
        assert!(said.len() < 60_000_000, "{} bytes came though nobody took them", said.len());
    }
    assert!(service.memory() < memory + (40 << 20), "{memory} -> {}", service.memory());
    // A client that takes the answer slowly gets the answer.
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let request = format!("GET /api/execute?functionId={id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 4 << 20]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        taken += n;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(taken > 60_000_000, "{taken}");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn who_leaves_half_way_frees_what_it_had() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "5m"), ("QUEUE_TIMEOUT", "60s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service
        .deploy(python("import os, time\ntime.sleep(0 if os.environ.get('QUICK') else 200)\nprint('done')\n"))
        .await;
    let slow = format!("GET /api/execute?functionId={id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let body = format!("{{\"functionId\": \"{id}\", \"input\": {{\"quick\": \"1\"}}}}");
    for half in [true, false] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(slow.as_bytes()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        // The client half-closes the connection, or is gone.
        let kept = if half {
            stream.shutdown().await.map(|()| stream).ok()
        } else {
            drop(stream);
            None
        };
        let request = format!(
            "POST /api/execute HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // The only container is free again long before that execution would have ended.
        let said = talk(&service, request).await;
        assert!(said.contains("\"output\":\"done\\n\""), "{said}");
        drop(kept);
    }
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn pipelined_requests_are_answered_in_their_order() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let mut requests = String::new();
    for n in 0..500 {
        let path = if n % 2 == 0 { "/api/functions" } else { "/nothing" };
        requests += &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: n{n}\r\n\r\n");
    }
    requests += "GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let said = talk(&service, requests).await;
    assert_eq!(said.matches("HTTP/1.1 ").count(), 501);
    let ids: Vec<&str> = said.split("x-request-id: ").skip(1).map(|rest| rest.split("\r\n").next().unwrap()).collect();
    let expected: Vec<String> = (0..500).map(|n| format!("n{n}")).collect();
    assert_eq!(ids[..500], expected);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn malformed_requests_are_refused_and_nothing_is_smuggled() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &LIMITS).await.healthy().await;
    let post = "POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let attacks = [
        ("no request", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "a quote in the URL",
            "GET /api/execute?functionId=\"1\" HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        ("a sign in the URL", "GET /api/functions/<1> HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a backtick in the URL", "GET /`id` HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a space in the URL", "GET /api/functions/a b HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a method that is none", "G@T / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a version that is none", "GET / HTTP/7.3\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("an old version", "GET /?a=\"1\" HTTP/1.0\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("half a head", "GET /health HTTP/1.1\r\nx-half: ".to_owned(), "HTTP/1.1 408"),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n".to_owned(), "HTTP/1.1 400"),
        ("HTTP/2 by force", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "a huge head",
            format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)),
            "HTTP/1.1 431",
        ),
        ("a huge path", format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(1 << 20)), "HTTP/1.1 431"),
        (
            "a thousand fields",
            format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000)),
            "HTTP/1.1 431",
        ),
        ("a length that is none", format!("{post}content-length: ten\r\n\r\n{{}}"), "HTTP/1.1 400"),
        ("a negative length", format!("{post}content-length: -1\r\n\r\n{{}}"), "HTTP/1.1 400"),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 50\r\n\r\n{{}}{smuggled}"), "HTTP/1.1 400"),
        (
            "a length and chunks",
            format!("{post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            "HTTP/1.1 400",
        ),
        ("chunks of no size", format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n\r\n"), "HTTP/1.1 400"),
        ("an endless size", format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), "HTTP/1.1 400"),
        ("another encoding", format!("{post}transfer-encoding: gzip\r\n\r\n{{}}"), "HTTP/1.1 400"),
        ("fewer bytes than said", format!("{post}content-length: 100\r\n\r\n{{}}"), "HTTP/1.1 408"),
        ("fewer fields than two lines", "GET /health\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a field without a name", "GET /health HTTP/1.1\r\n: x\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("a folded field", "GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ];
    for (name, bytes, answer) in attacks {
        let said = talk(&service, bytes).await;
        assert!(said.starts_with(answer), "{name}: {said:.300}");
        // Every refusal has the form of all other problems, whichever layer refuses.
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{name}: {said:.300}"));
        let problem: serde_json::Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{name}: {error}: {said:.900}"));
        assert!(head.contains("\r\ncontent-type: application/problem+json"), "{name}: {head}");
        let id = format!("\r\nx-request-id: {}\r\n", problem["requestId"].as_str().unwrap());
        assert!(head.contains(&id) && head.starts_with(&format!("{answer} ")), "{name}: {said:.900}");
        assert_eq!(problem["status"].to_string(), answer.rsplit(' ').next().unwrap(), "{name}");
        assert!(!said.contains("/smuggled"), "{name}: {said:.1000}");
        assert!(!said.contains("HTTP/1.1 5"), "{name}: {said:.300}");
    }
    let counted = "youtube_serverless_http_requests_total{method=\"other\",route=\"(unreadable)\",status=\"431\"} 3";
    let metrics = service.text("/metrics").await;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    service.well().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_upload_over_the_limit_is_answered_before_it_ends() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("MAX_FILE_SIZE", "1000")]).await.healthy().await;
    let field = "--x\r\ncontent-disposition: form-data; name=\"code\"; filename=\"a.zip\"\r\n\r\n";
    let head = "POST /api/submit HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n";
    let chunk = |bytes: &str| format!("{:x}\r\n{bytes}\r\n", bytes.len());
    // A body of the limit's size is taken, and the service waits for the rest. A body of one byte more is answered
    // before the body's end.
    for (size, is_refused) in [(1000, false), (1001, true)] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        let upload = format!("{head}transfer-encoding: chunked\r\n\r\n{}{}", chunk(field), chunk(&"x".repeat(size)));
        // The start of a boundary could still follow the bytes that have come, so more bytes must come.
        stream.write_all(format!("{upload}{}", chunk("\r\n--x--\r\n"[..6].trim_end())).as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        // No answer comes to the first, however long the client waits.
        let limit = Duration::from_secs(if is_refused { 20 } else { 2 });
        let answered = timeout(limit, stream.read_exact(&mut answer)).await.is_ok();
        assert_eq!(answered, is_refused, "{size} bytes");
        assert!(!is_refused || answer == b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&answer));
    }
    // The service does not wait at all for a body that is announced as too large.
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(format!("{head}content-length: 100000000\r\n\r\n").as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("1000 bytes (MAX_FILE_SIZE)"), "{said}");
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn five_thousand_idle_connections_cost_little_and_end() {
    let _alone = alone().await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map(|most| most.min(20_000)), ..limit }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("SERVER_READ_TIMEOUT", "40s")]).await.healthy().await;
    let id = service.deploy(python("print('served')")).await;
    service.execute(&id).await.assert_outcome(200, "ok");
    let (memory, descriptors) = (service.memory(), service.descriptors());
    let mut idle = Vec::new();
    for n in 0..5000 {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"GET /health HTTP/1.1\r\nx-half: ").await.unwrap(),
            _ => stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap(),
        }
        idle.push(stream);
    }
    eventually("all connections are open", async || (service.sockets(|row| row[9] != "0").len() >= 5000).then_some(()))
        .await;
    let grown = service.memory().saturating_sub(memory);
    println!("5,000 idle connections take {} kB each", grown / 5000 / 1024);
    assert!(grown < 5000 * CONNECTION, "{grown} bytes");
    for _ in 0..20 {
        assert_eq!(service.execute(&id).await.assert_outcome(200, "ok").output(), "served\n");
        service.well().await;
    }
    // Connections with an answered request may stay longer than connections without a request.
    let kept = idle.len() / 3;
    eventually("the other connections are closed", async || {
        (service.descriptors() <= descriptors + kept + 8).then_some(())
    })
    .await;
    assert!(service.descriptors() >= kept, "{}", service.descriptors());
    drop(idle);
    eventually("all connections are closed", async || (service.descriptors() <= descriptors + 8).then_some(())).await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bodies_that_stall_hold_no_more_than_there_is_room_for() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("SERVER_READ_TIMEOUT", "20s")]).await.healthy().await;
    let id = service.deploy(python("print('served')")).await;
    let memory = service.memory();
    let head = "POST /api/execute HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
    let body = vec![b' '; (1 << 20) - 1];
    let mut stalled = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&body).await;
        stalled.push(stream);
    }
    let most = service.peak_memory();
    println!("400 MB that stall take {} MB", (most - memory) >> 20);
    assert!(most < memory + (400 << 20), "{memory} -> {most}");
    let mut turned_away = 0;
    for mut stream in stalled {
        let said = rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 408") || said.starts_with("HTTP/1.1 429"), "{said:.300}");
        turned_away += usize::from(said.contains("\"overloaded\""));
    }
    assert!(turned_away > 50, "{turned_away}");
    // A request without a body is served meanwhile. A request with a body is served after the slow uploads.
    service.execute(&id).await.assert_outcome(200, "ok");
    service.execute_with(&id, serde_json::json!({})).await.assert_outcome(200, "ok");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn who_comes_too_often_is_turned_away_for_a_while() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service =
        Service::start(dir.path(), &[("RATE_LIMIT", "20/10s"), ("API_TOKEN", "s3cret")]).await.healthy().await;
    // Probes don't count.
    for _ in 0..50 {
        assert_ne!(service.get("/health").await.status, 429);
    }
    let mut refused = None;
    for n in 0..40 {
        let answer = service.get("/api/functions").await;
        if answer.status == 429 {
            assert!(n >= 20, "{n}");
            refused = Some(answer);
            break;
        }
        // Guesses of a token count as well.
        answer.assert_problem(401, "unauthorized", "");
    }
    let refused = refused.expect("twenty in ten seconds are enough").assert_problem(429, "rate_limited", "127.0.0.1");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_ne!(service.get("/health").await.status, 429);
    sleep(Duration::from_secs(wait)).await;
    service.get("/api/functions").await.assert_problem(401, "unauthorized", "");
    service.stop().await;
}
