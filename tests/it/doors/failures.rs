//! Hosts that don't take a connection: what programs see, and what the receipt says.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::process::free_port;
use crate::support::{Service, eventually, go, python};

/// An address for documentation, to which nobody sends.
const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// A route by which the kernel refuses connections to an address. A drop removes the route.
struct Route;

impl Route {
    fn new() -> Self {
        let added = Command::new("ip").args(["route", "replace", "unreachable", &UNREACHABLE.to_string()]).status();
        assert!(added.unwrap().success());
        Self
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["route", "del", "unreachable", &UNREACHABLE.to_string()]).status();
    }
}

/// A listener whose backlog is full, so that a connection gets no answer. The connections keep the backlog full.
async fn silent() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

/// Prints what becomes of a request to each host: the status and the reason, or the error's name.
const PYTHON: &str = r#"
import errno, json, os, urllib.error, urllib.request
for to in json.loads(os.environ["TO"]):
    try:
        urllib.request.urlopen("http://%s/" % to, timeout=60)
    except urllib.error.HTTPError as error:
        print(error.code, error.reason)
    except OSError as error:
        print(errno.errorcode[getattr(error, "reason", error).errno])
"#;

const GO: &str = r#"
import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"
)

func main() {
	var to []string
	json.Unmarshal([]byte(os.Getenv("TO")), &to)
	for _, to := range to {
		client := &http.Client{Timeout: time.Minute}
		answer, err := client.Get("http://" + to + "/")
		switch {
		// A write that comes after the reset was read tells of the reset by EPIPE.
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			fmt.Println("ECONNRESET")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(answer.Status)
		}
	}
}
"#;

#[tokio::test]
#[ignore = "needs docker and ip"]
async fn programs_and_receipts_tell_of_hosts_that_refuse_can_t_be_reached_or_are_silent() {
    let (_route, (silent, _waiting)) = (Route::new(), silent().await);
    // A socket that does not listen refuses, and keeps the port from others.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = (closed.local_addr().unwrap().port(), closed);
    let ports = [closed.0, free_port(), silent.local_addr().unwrap().port()];
    let names = ["closed.example", "unreachable.example", "silent.example"];
    let exact: Vec<String> = names.iter().zip(ports).map(|(name, port)| format!("{name}:{port}")).collect();
    // The pattern gives a function the proxy.
    let allow = format!("{},*.example:{}", exact.join(","), ports[0]);
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("EGRESS_ALLOW", allow.as_str()),
        ("EGRESS_PRIVATE", "127.0.0.0/8,198.51.100.77"),
        ("EGRESS_CONNECT_TIMEOUT", "3s"),
        ("DOCKER_RUN_TIMEOUT", "2m"),
    ];
    let hosts = format!("127.0.0.1 localhost closed.example silent.example\n{UNREACHABLE} unreachable.example\n");
    let service = Service::start_with_hosts(dir.path(), &settings, &hosts).await.healthy().await;
    let reasons = [
        "Connection refused (os error 111)",
        "No route to host (os error 113)",
        "no connection within 3s (EGRESS_CONNECT_TIMEOUT)",
    ];
    let reasons: Vec<String> = exact.iter().zip(reasons).map(|(to, reason)| format!("{to}: {reason}")).collect();
    let mut network: Vec<Value> = exact
        .iter()
        .zip(&reasons)
        .map(|(to, reason)| {
            json!({"to": to, "connections": 0, "sentBytes": 0, "receivedBytes": 0, "refused": 1, "reason": reason})
        })
        .collect();
    network.sort_by_key(|destined| destined["to"].to_string());
    let by_proxy: String =
        reasons.iter().zip([502, 502, 504]).map(|(reason, status)| format!("{status} {reason}\n")).collect();
    let rules: Vec<&str> = allow.split(',').collect();
    let by_door = "ECONNRESET\n".repeat(3);
    for zip in [python(PYTHON), go(GO)] {
        let function = service.deploy_with(zip, &exact, &[]).await;
        for (rules, expected) in [(&rules[..3], &by_door), (&rules[..], &by_proxy)] {
            service.configure(&function, json!({"allow": rules})).await;
            let answer = service.execute_with(&function, json!({"to": exact})).await.assert_outcome(200, "ok");
            assert_eq!(answer.output(), *expected);
            assert_eq!(answer.body["network"], json!(network));
            let path = format!("/api/invocations/{}", answer.body["invocationId"].as_str().unwrap());
            let record = eventually("the history has the invocation", async || {
                Some(service.get(&path).await).filter(|record| record.status == 200)
            });
            assert_eq!(record.await.body["network"], json!(network));
        }
    }
    service.delete_all(dir.path()).await;
}
