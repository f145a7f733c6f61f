//! Traces, as a collector gets them over real HTTP.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Service, python};

/// Takes posted bodies, and returns all bodies once `until` is true of the bodies.
async fn collect(listener: TcpListener, until: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bodies = Vec::new();
    while !until(&bodies) {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let (head, length) = loop {
            assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0, "a request was cut short");
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(request[..end].to_vec()).unwrap().to_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .unwrap()
                    .parse::<usize>()
                    .unwrap();
                break (head, end + 4 + length);
            }
        };
        assert!(
            head.starts_with("post /v1/traces ")
                && head.contains("application/x-protobuf")
                && head.contains("x-key: k"),
            "{head}"
        );
        while request.len() < length {
            assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0, "a request was cut short");
        }
        bodies.extend(request);
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    }
    bodies
}

/// Whether there is a span of this name in this trace. A span has the trace's id, the span's id, the parent's id and
/// the name, in this order, each as a tag, a length and that many bytes,
/// <https://protobuf.dev/programming-guides/encoding/>.
fn holds_span(bytes: &[u8], trace: &[u8; 16], name: &str) -> bool {
    let trace = [&[0x0a, 16], &trace[..]].concat();
    let name = [&[0x2a, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    let of_trace = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&trace));
    of_trace.into_iter().any(|at| bytes.get(at + 18 + 10 + 10..).is_some_and(|rest| rest.starts_with(&name)))
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_collector_gets_the_spans_of_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
    ];
    let (submit, execute): ([u8; 16], [u8; 16]) = (*b"that of a submit", *b"of the execution");
    let parent =
        |trace: [u8; 16]| format!("00-{}-00f067aa0ba902b7-01", trace.map(|byte| format!("{byte:02x}")).concat());
    let execution = async {
        let service = Service::start(dir.path(), &settings).await.healthy().await;
        let submission = service.submission(python("print(1)\n")).header("traceparent", parent(submit));
        let submitted: serde_json::Value = submission.send().await.unwrap().json().await.unwrap();
        let id = submitted["functionId"].as_str().unwrap().to_owned();
        let request = reqwest::Client::new().get(format!("{}/api/execute?functionId={id}", service.url));
        assert_eq!(request.header("traceparent", parent(execute)).send().await.unwrap().status(), 200);
        service.delete_all(dir.path()).await;
        id
    };
    // The client's traces have spans of the requests, and of the steps that the requests waited for.
    let spans = [
        (&submit, "POST /api/submit"),
        (&submit, "build"),
        (&submit, "docker"),
        (&execute, "GET /api/execute"),
        (&execute, "queue"),
        (&execute, "run"),
    ];
    let attributes = ["youtube-serverless", "deployment.environment", "http.response.status_code"];
    let collected = collect(listener, |bodies| {
        spans.iter().all(|(trace, name)| holds_span(bodies, trace, name))
            && attributes.iter().all(|text| holds(bodies, text.as_bytes()))
    });
    let limited = tokio::time::timeout(Duration::from_secs(120), collected);
    let (id, collected) = tokio::join!(execution, limited);
    let collected = collected.expect("all spans arrive");
    assert!(holds(&collected, id.as_bytes()));
}
