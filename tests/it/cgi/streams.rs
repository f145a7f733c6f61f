//! Responses that leave as functions write.

use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cgi::PUBLIC;
use crate::support::process::free_port;
use crate::support::{Service, TestApp, answer, eventually, python};

#[tokio::test]
#[ignore = "needs docker"]
async fn events_arrive_as_they_are_written() {
    TestApp::run(&PUBLIC, async |app| {
        let program = "import time\nprint('Content-Type: text/event-stream\\n', flush=True)\nfor n in range(2):\n    print(f'data: {n}\\n', flush=True)\n    time.sleep(6 * (n == 0))\n";
        app.deploy_site("events", python(program)).await;
        let mut response = app.fetch("/f/events").await;
        let mut times = Vec::new();
        let mut whole = String::new();
        while let Some(bytes) = response.chunk().await.unwrap() {
            times.push(Instant::now());
            whole += std::str::from_utf8(&bytes).unwrap();
        }
        assert_eq!(whole, "data: 0\n\ndata: 1\n\n");
        let spread = *times.last().unwrap() - times[0];
        assert!(spread > Duration::from_secs(3), "{} pieces in {spread:?}", times.len());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_long_download_takes_no_memory_of_the_service() {
    // A process of its own, as other tests take memory of this process.
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let settings = [("FUNCTIONS_PORT", port.as_str()), PUBLIC[1], ("DOCKER_RUN_TIMEOUT", "5m")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let program = "import sys\nsys.stdout.write('Content-Type: application/octet-stream\\n\\n')\nsys.stdout.flush()\npiece = bytes(range(256)) * 4096\nfor _ in range(200):\n    sys.stdout.buffer.write(piece)\n";
    let form = Form::new().part("code", Part::bytes(python(program)).file_name("function.zip"));
    let form = form.text("name", "download").text("http", "public");
    answer(service.client.post(format!("{}/api/submit", service.url)).multipart(form)).await.assert_status(200);
    // Memory that is in no file.
    let resident = || service.status("RssAnon:");
    let mut client = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    client.write_all(b"GET /f/download HTTP/1.0\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut size, mut sum, mut before) = (0_u64, 0_u64, None);
    loop {
        let read = client.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        size += read as u64;
        sum += buffer[..read].iter().map(|&byte| u64::from(byte)).sum::<u64>();
        before.get_or_insert_with(resident);
    }
    let content = 200 * 1_048_576_u64;
    assert!(size > content && size < content + 1000, "{size}");
    assert!(sum > content / 2 * 255 && sum < content / 2 * 255 + 100_000, "{sum}");
    let grown = resident().saturating_sub(before.unwrap());
    assert!(grown < 8 << 20, "the service grew by {grown} bytes");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_reader_that_stalls_or_leaves_ends_the_invocation() {
    let settings = [&PUBLIC[..], &[("SERVER_WRITE_TIMEOUT", "2s"), ("DOCKER_RUN_TIMEOUT", "60s")]].concat();
    TestApp::run(&settings, async |app| {
        let endless =
            "import sys\nsys.stdout.write('Content-Type: a/b\\n\\n')\nwhile True:\n    sys.stdout.write('x' * 65536)\n";
        let function = app.deploy_site("endless", python(endless)).await;
        let address = app.functions_url.strip_prefix("http://").unwrap();
        for stalls in [true, false] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /f/endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut buffer = [0; 4096];
            client.read_exact(&mut buffer).await.unwrap();
            if !stalls {
                drop(client);
            }
            eventually("the instance is free or gone", async || app.containers_of(&function).is_empty().then_some(()))
                .await;
        }
        let record = app.last_invocation(&function, 2).await;
        assert_eq!((&record["outcome"], &record["trigger"]), (&json!("cancelled"), &json!("http")));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_slow_reader_of_a_short_response_holds_no_instance() {
    let settings = [&PUBLIC[..], &[("DOCKER_CONTAINER_LIMIT", "1")]].concat();
    TestApp::run(&settings, async |app| {
        let program = "print('Content-Type: a/b\\n')\nprint('x' * 200_000)\n";
        let function = app.deploy_site("site", python(program)).await;
        let address = app.functions_url.strip_prefix("http://").unwrap();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /f/site HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut begin = [0; 9];
            client.read_exact(&mut begin).await.unwrap();
            clients.push(client);
        }
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output().len(), 200_000 + 20);
    })
    .await;
}
