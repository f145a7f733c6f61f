//! Many bytes, and many connections.

use std::process::Command;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Barrier;
use youtube_serverless::resources::descriptors;

use crate::support::{Program, go, python};

/// The bytes each way: a hundred blocks of a MiB.
const SIZE: u64 = 100 << 20;
/// The length of a digest in hexadecimal.
const DIGEST: u64 = 64;

/// A server that reads up to the client's end, and only then answers: with the digest of what came, and with blocks of
/// its own. The server prints its port.
const SERVER: &str = r#"
import hashlib, socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        with listener.accept()[0] as connection:
            digest = hashlib.sha256()
            while data := connection.recv(1 << 20):
                digest.update(data)
            connection.sendall(digest.hexdigest().encode())
            for number in range(100):
                connection.sendall(bytes([number]) * (1 << 20))
"#;

/// Prints whether the server got what was sent, and whether all blocks came.
const PYTHON: &str = r#"
import hashlib, os, socket
with socket.create_connection(("one.example", int(os.environ["PORT"]))) as connection:
    sent, block = hashlib.sha256(), os.urandom(1 << 20)
    for number in range(100):
        data = block[number:] + block[:number]
        sent.update(data)
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    with connection.makefile("rb") as answer:
        print(answer.read(64).decode() == sent.hexdigest())
        print(all(answer.read(1 << 20) == bytes([number]) * (1 << 20) for number in range(100)), answer.read())
"#;

/// The same by the proxy.
const GO: &str = r#"
import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

func main() {
	connection, err := net.Dial("tcp", strings.TrimPrefix(os.Getenv("ALL_PROXY"), "http://"))
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(connection, "CONNECT one.example:%s HTTP/1.1\r\nHost: one.example\r\n\r\n", os.Getenv("PORT"))
	reader := bufio.NewReader(connection)
	established, err := reader.ReadString('\n')
	end, _ := reader.ReadString('\n')
	if !strings.HasPrefix(established, "HTTP/1.1 200 ") || end != "\r\n" {
		panic(fmt.Sprint(established, end, err))
	}
	sent, block := sha256.New(), make([]byte, 1<<20)
	rand.Read(block)
	for number := 0; number < 100; number++ {
		block[number]++
		io.MultiWriter(sent, connection).Write(block)
	}
	connection.(*net.TCPConn).CloseWrite()
	digest := make([]byte, 64)
	io.ReadFull(reader, digest)
	fmt.Println(map[bool]string{true: "True"}[string(digest) == fmt.Sprintf("%x", sent.Sum(nil))])
	all := "True"
	for number := 0; number < 100; number++ {
		io.ReadFull(reader, block)
		if !bytes.Equal(block, bytes.Repeat([]byte{byte(number)}, 1<<20)) {
			all = "False"
		}
	}
	rest, err := io.ReadAll(reader)
	fmt.Printf("%s b'%s'\n", all, rest)
}
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_hundred_megabytes_arrive_whole_and_the_answer_after_the_programs_end() {
    let (_server, port) = Program::announced(Command::new("python3").args(["-c", SERVER]));
    let (to, range) = (format!("one.example:{}", port), format!("127.0.0.1:{}", port));
    let dir = tempfile::tempdir().unwrap();
    let service = super::start(dir.path(), &[("EGRESS_ALLOW", &format!("{to},{range}"))]).await;
    for (zip, rules) in [(python(PYTHON), vec![to.clone()]), (go(GO), vec![to.clone(), range])] {
        let function = service.deploy_with(zip, &rules, &[]).await;
        let answer = service.execute_with(&function, json!({"port": port})).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), "True\nTrue b''\n");
        let expected =
            json!([{"to": to, "connections": 1, "sentBytes": SIZE, "receivedBytes": SIZE + DIGEST, "refused": 0}]);
        assert_eq!(answer.body["network"], expected);
    }
    service.delete_all(dir.path()).await;
}

/// A server that answers a connection's byte when so many connections have each sent a byte.
async fn gather(connections: usize) -> u16 {
    // Each connection has a descriptor in this process.
    assert!(descriptors::most() > 2 * connections as u64, "the limit of open files is too low");
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let barrier = Arc::new(Barrier::new(connections));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                let byte = stream.read_u8().await.unwrap();
                barrier.wait().await;
                stream.write_u8(byte).await.unwrap();
            });
        }
    });
    port
}

/// Opens connections, and prints how many of these have answered with their own byte.
const CROWD_IN_PYTHON: &str = r#"
import os, socket
to = ("one.example", int(os.environ["PORT"]))
all = [socket.create_connection(to) for _ in range(int(os.environ["COUNT"]))]
for number, connection in enumerate(all):
    connection.sendall(bytes([number]))
print(sum(connection.recv(1) == bytes([number]) for number, connection in enumerate(all)))
"#;

const CROWD_IN_GO: &str = r#"
import (
	"fmt"
	"net"
	"os"
)

func main() {
	var count int
	fmt.Sscan(os.Getenv("COUNT"), &count)
	answers := make(chan int)
	for number := 0; number < count; number++ {
		go func() {
			connection, err := net.Dial("tcp", "one.example:"+os.Getenv("PORT"))
			if err != nil {
				panic(err)
			}
			own, got := []byte{byte(number)}, []byte{0}
			connection.Write(own)
			connection.Read(got)
			answers <- map[bool]int{true: 1}[own[0] == got[0]]
		}()
	}
	sum := 0
	for number := 0; number < count; number++ {
		sum += <-answers
	}
	fmt.Println(sum)
}
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_thousand_connections_are_open_at_once() {
    const INSTANCES: usize = 10;
    const EACH: usize = 100;
    let port = gather(INSTANCES * EACH).await;
    let rule = format!("one.example:{port}");
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("EGRESS_ALLOW", rule.as_str()),
        ("DOCKER_CONTAINER_LIMIT", "10"),
        ("EGRESS_CONNECTIONS", "100"),
        ("QUEUE_TIMEOUT", "60s"),
    ];
    let service = super::start(dir.path(), &settings).await;
    let mut functions = Vec::new();
    for zip in [python(CROWD_IN_PYTHON), go(CROWD_IN_GO)] {
        functions.push(service.deploy_with(zip, std::slice::from_ref(&rule), &[("timeout", "60s")]).await);
    }
    // Each execution waits for all others, so each has an instance of its own.
    let input = json!({"port": port, "count": EACH});
    let executions = (0..INSTANCES).map(|number| service.execute_with(&functions[number % 2], input.clone()));
    for answer in join_all(executions).await {
        let answer = answer.assert_outcome(200, "ok");
        assert_eq!(answer.output(), format!("{EACH}\n"));
        let expected =
            json!([{"to": rule, "connections": EACH, "sentBytes": EACH, "receivedBytes": EACH, "refused": 0}]);
        assert_eq!(answer.body["network"], expected);
    }
    service.delete_all(dir.path()).await;
}
