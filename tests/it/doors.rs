//! Functions with a network: what they reach, and what becomes of their connections. Hosts are servers of this machine,
//! whose names only the service under test knows.

pub(crate) mod authority;
mod databases;
mod ends;
mod failures;
mod mail;
mod objects;
mod transfers;
mod web;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Answer, Engine, Program, Service, TestApp, answer, docker, go, python};

/// The names of this machine's servers.
const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 one.example two.example\n";

/// A server that reads a line, answers with the line, and goes on until the client is done.
struct Server {
    port: u16,
    /// The first lines of all clients.
    lines: Arc<Mutex<Vec<String>>>,
    /// The number of connections that are open.
    open: Arc<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), lines: Arc::default(), open: Arc::default() };
        let (lines, open) = (Arc::clone(&server.lines), Arc::downgrade(&server.open));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(open) = open.upgrade() else { return };
                tokio::spawn(echo(stream, Arc::clone(&lines), open));
            }
        });
        server
    }

    fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

async fn echo(stream: TcpStream, lines: Arc<Mutex<Vec<String>>>, _open: Arc<()>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if let Ok(1..) = stream.read_line(&mut line).await {
        lines.lock().unwrap().push(line.trim().to_owned());
        let _ = stream.write_all(line.as_bytes()).await;
    }
    let mut rest = [0; 1024];
    while let Ok(size @ 1..) = stream.read(&mut rest).await {
        if stream.write_all(&rest[..size]).await.is_err() {
            return;
        }
    }
}

/// Starts a service whose functions may reach the servers of this machine.
async fn start(dir: &Path, settings: &[(&str, &str)]) -> Service {
    let own = [("EGRESS_ALLOW", "*.example:1"), ("EGRESS_PRIVATE", "127.0.0.0/8"), ("DOCKER_CONTAINER_LIMIT", "2")];
    Service::start_with_hosts(dir, &[&own[..], settings].concat(), HOSTS).await.healthy().await
}

/// What EGRESS_ALLOW says for these servers.
fn allow(servers: &[&Server]) -> String {
    servers.iter().map(|server| format!("*.example:{}", server.port)).collect::<Vec<_>>().join(",")
}

impl Program {
    /// Starts a program that prints its port when the program serves.
    fn announced(command: &mut Command) -> (Self, String) {
        let silent = command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut process = silent.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut port).unwrap();
        (Self(process), port.trim().to_owned())
    }
}

impl Service {
    /// Changes what a function may reach.
    async fn configure(&self, function: &str, network: Value) {
        let url = format!("{}/api/functions/{function}", self.url);
        answer(self.client.patch(url).json(&json!({"network": network}))).await.assert_status(200);
    }

    /// The names and counts of this process's threads.
    fn threads(&self) -> BTreeMap<String, usize> {
        let mut threads = BTreeMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let name = std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default();
            *threads.entry(name.trim().to_owned()).or_default() += 1;
        }
        threads
    }

    /// The number of instances with doors.
    fn doors(&self) -> usize {
        self.threads().get("doors").copied().unwrap_or_default()
    }

    /// The number of TCP sockets that the service has, and of all its other descriptors but regular files.
    fn descriptors_of_sockets(&self) -> usize {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let links = all.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }
}

/// Prints what becomes of a line to each address of the input: the answer, or the error's name.
const PYTHON: &str = r#"
import errno, json, os, socket
for host, port in json.loads(os.environ["TO"]):
    try:
        with socket.create_connection((host, port), 5) as connection:
            connection.sendall(b"hello %d\n" % port)
            print(connection.makefile().readline().strip())
    except socket.gaierror:
        print("unknown name")
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))
"#;

const GO: &str = r#"
import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

func main() {
	var to [][2]any
	json.Unmarshal([]byte(os.Getenv("TO")), &to)
	for _, address := range to {
		var errno syscall.Errno
		connection, err := net.Dial("tcp", fmt.Sprintf("%v:%v", address[0], address[1]))
		switch {
		case err == nil:
			fmt.Fprintf(connection, "hello %v\n", address[1])
			line, _ := bufio.NewReader(connection).ReadString('\n')
			fmt.Print(line)
			connection.Close()
		case errors.As(err, &errno):
			fmt.Println(map[syscall.Errno]string{syscall.ENETUNREACH: "ENETUNREACH", syscall.ECONNREFUSED: "ECONNREFUSED"}[errno])
		default:
			fmt.Println("unknown name")
		}
	}
}
"#;

async fn reach(service: &Service, function: &str, to: &[(&str, u16)]) -> Answer {
    service.execute_with(function, json!({"to": to})).await.assert_outcome(200, "ok")
}

fn destined(port: u16, connections: u64, bytes: u64) -> Value {
    json!({"to": format!("one.example:{port}"), "connections": connections, "sentBytes": bytes,
        "receivedBytes": bytes, "refused": 0})
}

#[tokio::test]
#[ignore = "needs docker"]
async fn programs_reach_what_they_were_given_and_nothing_else() {
    let (one, other) = (Server::start().await, Server::start().await);
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[("EGRESS_ALLOW", &allow(&[&one, &other]))]).await;
    let rules = [format!("one.example:{}", one.port), format!("two.example:{}", other.port)];
    for zip in [python(PYTHON), go(GO)] {
        let function = service.deploy_with(zip, &rules, &[]).await;
        let to = [
            ("one.example", one.port),
            ("two.example", other.port),
            ("one.example", other.port),
            ("two.example", one.port),
            ("three.example", one.port),
            ("127.0.0.1", one.port),
            ("1.1.1.1", 80),
            ("127.1.0.1", 3128),
        ];
        let answer = reach(&service, &function, &to).await;
        let expected = format!(
            "hello {}\nhello {}\nECONNREFUSED\nECONNREFUSED\nunknown name\nECONNREFUSED\nENETUNREACH\nECONNREFUSED\n",
            one.port, other.port
        );
        assert_eq!(answer.output(), expected);
        let bytes = format!("hello {}\n", one.port).len() as u64;
        let network = answer.body["network"].as_array().unwrap();
        assert!(network.contains(&destined(one.port, 1, bytes)) && network.len() == 2, "{network:?}");
        // Warm invocations have connections of their own.
        for _ in 0..20 {
            let answer = reach(&service, &function, &[("one.example", one.port); 3]).await;
            assert_eq!(answer.body["start"], "warm");
            assert_eq!(answer.body["network"], json!([destined(one.port, 3, 3 * bytes)]));
        }
        let id = answer.body["invocationId"].as_str().unwrap();
        let kept = crate::support::eventually("the history has the invocation", async || {
            let kept = service.get(&format!("/api/invocations/{id}")).await;
            (kept.status == 200).then_some(kept)
        });
        assert_eq!(kept.await.body["network"], answer.body["network"]);
        let quiet = reach(&service, &function, &[]).await;
        assert!(quiet.body.get("network").is_none(), "{:#}", quiet.body);
    }
    assert!(service.doors() > 0);
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn another_network_takes_effect_with_the_answer() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[("EGRESS_ALLOW", &allow(&[&server]))]).await;
    let function = service.deploy_with(python(PYTHON), &[format!("one.example:{}", server.port)], &[]).await;
    let both = [("one.example", server.port), ("two.example", server.port)];
    let hello = format!("hello {}\n", server.port);
    assert_eq!(reach(&service, &function, &both).await.output(), format!("{hello}unknown name\n"));
    service.configure(&function, json!({"allow": [format!("two.example:{}", server.port)]})).await;
    let answer = reach(&service, &function, &both).await;
    assert_eq!((answer.output(), &answer.body["start"]), (&*format!("unknown name\n{hello}"), &json!("warm")));
    service.configure(&function, Value::Null).await;
    let answer = reach(&service, &function, &both).await;
    assert_eq!(answer.output(), "unknown name\nunknown name\n");
    assert!(answer.body.get("network").is_none());
    crate::support::eventually("no doors are left", async || (service.doors() == 0).then_some(())).await;
    service.delete_all(dir.path()).await;
}

/// What a program sees of its surroundings.
const SURROUNDINGS: &str = r#"
import os, sys
print(sorted(sys.modules))
print([fd for fd in range(200) if os.path.exists("/proc/self/fd/%d" % fd)])
print(sorted(name for name in os.environ if "PROXY" in name.upper()))
print([line.split() for line in open("/etc/hosts") if line.startswith("127.1.")])
print(sorted(name for name in os.listdir("/sys/class/net") if int(open("/sys/class/net/%s/flags" % name).read(), 16) & 1))
print(open("/proc/net/route").read().splitlines()[1:])
rows = [line.split() for path in ("tcp", "tcp6", "udp", "raw", "unix") for line in list(open("/proc/net/" + path))[1:]]
print(sorted(row[1] for row in rows if ":" in row[1] and row[3] == "0A"))
print(len([row for row in rows if ":" in row[1] and row[3] != "0A"]))
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_network_adds_loopback_listeners_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[("EGRESS_ALLOW", "*:443,*:80"), ("REQUIRE_ISOLATION", "true")]).await;
    let lines = async |function: &str| {
        let mut lines = Vec::new();
        for _ in 0..2 {
            let answer = service.execute(function).await.assert_outcome(200, "ok");
            lines = answer.output().lines().map(str::to_owned).collect();
        }
        lines
    };
    let without = lines(&service.deploy(python(SURROUNDINGS)).await).await;
    assert_eq!(without[2..], ["[]", "[]", "['lo']", "[]", "[]", "0"]);
    assert_eq!(service.doors(), 0);
    let rules = ["a.example:443", "b.example:443", "a.example:80", "*.example.org:443"].map(str::to_owned);
    let with = lines(&service.deploy_with(python(SURROUNDINGS), &rules, &[]).await).await;
    assert_eq!(with[..2], without[..2], "modules and descriptors");
    let variables = "['ALL_PROXY', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY', 'all_proxy', 'http_proxy', 'https_proxy', \
                     'no_proxy']";
    assert_eq!(with[2], variables);
    assert_eq!(with[3], "[['127.1.0.2', 'a.example'], ['127.1.0.3', 'b.example']]");
    assert_eq!(with[4..6], ["['lo']", "[]"]);
    let listeners = ["0100017F:0C38", "0200017F:0050", "0200017F:01BB", "0300017F:01BB"];
    assert_eq!(with[6], format!("{listeners:?}").replace('"', "'"));
    assert_eq!(with[7], "0");
    assert_eq!(service.doors(), 1);
    // The proxy's variables are there without preloading, too.
    let off = service.deploy_with(python(SURROUNDINGS), &rules, &[("preload", "off")]).await;
    assert_eq!(lines(&off).await[2..], with[2..]);
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_function_without_a_network_has_no_part_of_doors() {
    TestApp::run(&[("EGRESS_ALLOW", "*:443")], async |app| {
        let function = app.deploy(python("print(1)")).await;
        app.execute(&function).await.assert_outcome(200, "ok");
        let container = app.containers_of(&function).pop().unwrap();
        let format = "{{json .HostConfig.ExtraHosts}} {{json .Mounts}} {{json .HostConfig.NetworkMode}}";
        let said = docker(&["container", "inspect", "--format", format, &container]).concat();
        assert!(said.starts_with("null") || said.starts_with("[]"), "{said}");
        assert!(said.ends_with("\"none\"") && said.matches("\"Type\":\"bind\"").count() == 1, "{said}");
    })
    .await;
}

/// An OCI runtime that lets no user without privileges listen on a port below 1024.
const STRICT: &str = r#"#!/usr/bin/env python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    spec = json.load(open(path))
    spec["linux"].setdefault("sysctl", {})["net.ipv4.ip_unprivileged_port_start"] = "1024"
    json.dump(spec, open(path, "w"))
os.execvp("runc", ["runc"] + sys.argv[1:])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_door_that_can_t_be_opened_fails_the_start_in_words() {
    let engine = Engine::start_with_runtime(Some(STRICT)).await;
    let host = engine.host();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let settings = [
        ("DOCKER_HOST", host.as_str()),
        ("DOCKER_RUNTIME", "leaky"),
        ("GO_IMAGE", "no-such-image"),
        ("EGRESS_ALLOW", "*:443,*:1443"),
    ];
    let service = Service::start_logged(dir.path(), &settings, &log).await.healthy().await;
    let function = service.deploy_with(python("print(1)"), &["a.example:1443".to_owned()], &[]).await;
    service.execute(&function).await.assert_outcome(200, "ok");
    let function = service.deploy_with(python("print(1)"), &["a.example:443".to_owned()], &[]).await;
    service.execute(&function).await.assert_problem(500, "start_failed", "does not start");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the door 127.1.0.2:443 can't be opened: Permission denied"), "{said}");
    service.stop().await;
    engine.remove().await;
}
