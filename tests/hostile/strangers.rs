//! Strangers on the listener for functions.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::alone;
use crate::support::{TestApp, python};

const PUBLIC: [(&str, &str); 2] = [("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "public")];

#[tokio::test]
#[ignore = "needs docker"]
async fn a_body_that_comes_slowly_holds_no_instance() {
    let _alone = alone().await;
    let settings = [&PUBLIC[..], &[("DOCKER_CONTAINER_LIMIT", "1"), ("SERVER_READ_TIMEOUT", "3s")]].concat();
    TestApp::run(&settings, async |app| {
        let function = app.deploy_site("site", python("print('ok')")).await;
        let address = app.functions_url.strip_prefix("http://").unwrap();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"POST /f/site HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\nbegin").await.unwrap();
            clients.push(client);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // The only instance is free.
        assert_eq!(app.execute(&function).await.assert_outcome(200, "ok").output(), "ok\n");
        for mut client in clients {
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("SERVER_READ_TIMEOUT"), "{said}");
        }
        assert_eq!(app.call(reqwest::Method::GET, "/f/site").send().await.unwrap().text().await.unwrap(), "ok\n");
    })
    .await;
}
