//! How long a connection may be idle.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::TestApp;

/// Sends a request, and reads the answer.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 1024]);
    while !said.ends_with('}') {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "{said}");
        said += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_idle_connection_is_kept_for_75_seconds() {
    TestApp::run(&[("SERVER_READ_TIMEOUT", "1s")], async |app| {
        let address = app.url.trim_start_matches("http://");
        let with_requests = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..2 {
                ask(&mut stream).await;
                sleep(Duration::from_secs(3)).await;
            }
            ask(&mut stream).await;
            let took = silence(&mut stream).await;
            assert!((Duration::from_secs(70)..Duration::from_secs(85)).contains(&took), "{took:?}");
        };
        let without_a_request = async {
            // A connection without a request is closed after the time for a request.
            let took = silence(&mut TcpStream::connect(address).await.unwrap()).await;
            assert!(took < Duration::from_secs(10), "{took:?}");
        };
        tokio::join!(with_requests, without_a_request);
    })
    .await;
}

/// The time until the service closes a connection without a word.
async fn silence(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let read =
        timeout(Duration::from_secs(90), stream.read(&mut [0])).await.expect("the service closes the connection");
    assert_eq!(read.unwrap(), 0);
    began.elapsed()
}
