//! Ways by which a function with a network may try to reach what was not given. Each way is refused with its reason,
//! and the canaries, which are listeners where the ways lead, see nothing.

mod requests;
mod sockets;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::alone;
use crate::support::process::free_port;
use crate::support::{Program, Service, bridge, docker, postgres_at, python};

/// Sends bytes to the proxy or runs code, and prints what comes of that.
const PROGRAM: &str = r#"
import ctypes, errno, os, socket
def call(name, *arguments):
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
def reach(host, port, kind=socket.SOCK_STREAM):
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    with socket.socket(family, kind) as connection:
        connection.settimeout(5)
        connection.connect(address)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        print(connection.recv(100).split(b"\r\n")[0].decode() or "nothing")
def ask(request):
    with socket.create_connection(("127.1.0.1", 3128), 5) as connection:
        connection.settimeout(20)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        print(answer.split(b"\r\n")[0].decode())
def name(error):
    return "unknown name" if isinstance(error, socket.gaierror) else errno.errorcode.get(error.errno, repr(error))
try:
    if "CODE" in os.environ:
        exec(os.environ["CODE"])
    else:
        ask(bytes.fromhex(os.environ["BYTES"]))
except OSError as error:
    print(name(error))
"#;

/// A way out.
struct Way {
    name: String,
    function: Function,
    act: Act,
    end: End,
}

/// A function, by its rules.
#[derive(Clone, Copy, PartialEq)]
enum Function {
    /// One host, the names below a parent, and one address.
    Narrow,
    /// Everything on the ports of the allowed host, the canaries, the service, the database and the registry.
    Wide,
}

enum Act {
    /// The bytes go to the proxy.
    Ask(Vec<u8>),
    /// The program runs this code.
    Run(String),
}

enum End {
    /// The proxy answers with this status and the reason, which is in the receipt, too. An invalid request has no
    /// destination.
    Answered { status: u16, to: Option<String>, reason: String },
    /// A door resets the connection. The receipt has the reason.
    Reset { to: String, reason: String },
    /// The program sees this, and the service sees nothing.
    Said(&'static str),
    /// The allowed host gets these bytes and nothing else.
    Allowed(String),
    /// The allowed host sends the program to this destination, which is refused.
    Redirected { to: String },
}

/// Where the ways lead.
struct Places {
    /// The port of the allowed host and of the canaries.
    port: u16,
    /// A port of the allowed host's address with a canary.
    other: u16,
    api: u16,
    registry: u16,
    /// The machine's address on Docker's bridge.
    bridge: String,
}

impl Places {
    /// The text with the ports and the machine's address in place of their names.
    fn fill(&self, text: &str) -> String {
        let ports =
            [("{port}", self.port), ("{other}", self.other), ("{api}", self.api), ("{registry}", self.registry)];
        let text = text.replace("{bridge}", &self.bridge);
        ports.iter().fold(text, |text, (name, port)| text.replace(name, &port.to_string()))
    }

    fn rules(&self, text: &str) -> Vec<String> {
        self.fill(text).split_whitespace().map(str::to_owned).collect()
    }
}

const NARROW: &str = "allowed.example:{port} *.wild.example:{port} 127.0.0.1:{port}";
const WIDE: &str = "*:{port} 0.0.0.0/0:{port} [::/0]:{port} private.example:{port} metadata.example:{port} \
                    six.example:{port} zero.example:{port} mapped.example:{port} mixed.example:{port} \
                    *:{api} 0.0.0.0/0:{api} [::/0]:{api} service.example:{api} machine.example:{api} \
                    *:5432 0.0.0.0/0:5432 store.example:5432 *:{registry} 0.0.0.0/0:{registry}";
const HOSTS: &str = "127.0.0.1 localhost allowed.example service.example\n{bridge} machine.example\n\
                     127.0.0.78 store.example\n127.0.0.3 private.example a.wild.example mixed.example\n\
                     169.254.169.254 metadata.example metadata.wild.example mixed.example\n10.0.0.1 lan.wild.example\n\
                     ::1 six.example\n0.0.0.0 zero.example\n::ffff:127.0.0.3 mapped.example\n";
/// The address of the service's database.
const STORE: &str = "127.0.0.78";

/// Everything that the allowed host has got, for each connection.
type Got = Arc<Mutex<Vec<String>>>;

/// Serves the allowed host: notes what comes until nothing more does, and answers. A path that begins with `/to/` leads
/// elsewhere.
fn serve(listener: TcpListener) -> Got {
    let got = Got::default();
    listener.set_nonblocking(true).unwrap();
    let (listener, all) = (tokio::net::TcpListener::from_std(listener).unwrap(), Arc::clone(&got));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                // A program on a busy machine sends late; a smuggled request follows its head at once.
                let mut patience = Duration::from_secs(3);
                while let Ok(Ok(1..)) = timeout(patience, stream.read_buf(&mut bytes)).await {
                    patience = Duration::from_secs(1);
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let answer = match text.strip_prefix("GET /to/").and_then(|rest| rest.split(' ').next()) {
                    Some(to) => format!("302 Found\r\nLocation: http://{to}/"),
                    None => "200 OK".to_owned(),
                };
                all.lock().unwrap().push(text);
                let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            });
        }
    });
    got
}

/// Listeners where the ways lead.
struct Canaries(Vec<TcpListener>, UdpSocket);

impl Canaries {
    fn start(places: &Places) -> Self {
        let at = |address: SocketAddr| TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let ip = |ip: &str, port| at(SocketAddr::new(ip.parse().unwrap(), port));
        let all = vec![ip("127.0.0.3", places.port), ip("::1", places.port), ip("127.0.0.1", places.other)];
        Self(all, UdpSocket::bind((places.bridge.as_str(), places.port)).unwrap())
    }

    /// Expects that nobody has come.
    fn assert_unseen(&self) {
        for listener in &self.0 {
            listener.set_nonblocking(true).unwrap();
            let came = listener.accept().map(|(_, from)| from);
            assert!(came.is_err(), "{:?} has a connection from {came:?}", listener.local_addr());
        }
        self.1.set_nonblocking(true).unwrap();
        assert!(self.1.recv(&mut [0; 100]).is_err(), "a datagram has come");
    }
}

impl Way {
    /// What the program prints, and the receipt.
    fn expected(&self, places: &Places) -> (String, Value) {
        let refused = |to: &str, reason: &str| json!({"to": to, "connections": 0, "sentBytes": 0, "receivedBytes": 0, "refused": 1, "reason": reason});
        match &self.end {
            End::Answered { status, to: Some(to), reason } => {
                let reason = format!("{to}: {reason}");
                (format!("HTTP/1.1 {status} {reason}"), json!([refused(to, &reason)]))
            }
            End::Answered { status, to: None, reason } => {
                (format!("HTTP/1.1 {status} {reason}"), json!([refused("proxy", reason)]))
            }
            End::Reset { to, reason } => ("ECONNRESET".to_owned(), json!([refused(to, &format!("{to}: {reason}"))])),
            End::Said(said) => ((*said).to_owned(), Value::Null),
            End::Allowed(bytes) => {
                let received = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".len();
                let to = places.fill("allowed.example:{port}");
                let network = json!([{"to": to, "connections": 1, "sentBytes": bytes.len(), "receivedBytes": received, "refused": 0}]);
                let is_tunnel = matches!(&self.act, Act::Ask(bytes) if bytes.starts_with(b"CONNECT "));
                (format!("HTTP/1.1 200 {}", if is_tunnel { "Connection established" } else { "OK" }), network)
            }
            End::Redirected { to } => {
                let reason = format!("{to}: {}", requests::NO_RULE);
                (format!("403 {reason}"), refused(to, &reason))
            }
        }
    }

    /// Goes the way, and returns what is not as expected.
    async fn go(&self, service: &Service, function: &str, places: &Places, got: &Got) -> Option<String> {
        let input = match &self.act {
            Act::Ask(bytes) => json!({"bytes": hex::encode(bytes)}),
            Act::Run(code) => json!({"code": code}),
        };
        let answer = service.execute_with(function, input).await.assert_outcome(200, "ok");
        let (output, network) = self.expected(places);
        let (said, receipt) = (answer.output().trim_end(), &answer.body["network"]);
        let got = std::mem::take(&mut *got.lock().unwrap());
        let is_right = match &self.end {
            End::Allowed(bytes) => got == [bytes.as_str()] && *receipt == network,
            End::Redirected { .. } => got.len() == 1 && receipt[1] == network,
            _ => got.is_empty() && *receipt == network,
        };
        let stderr = answer.stderr();
        (said != output || !is_right).then(|| {
            format!("{}: {said:?} for {output:?}\n  {receipt}\n  for {network}\n  {got:?} {stderr}", self.name)
        })
    }
}

#[tokio::test]
#[ignore = "needs docker, PostgreSQL and docker-registry"]
async fn no_door_leads_to_what_was_not_given() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let allowed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = allowed.local_addr().unwrap().port();
    let (other, api, registry) = (free_port(), free_port(), free_port());
    let places = Places { port, other, api, registry, bridge: bridge().to_string() };
    let (got, canaries) = (serve(allowed), Canaries::start(&places));
    // PostgreSQL runs as a user of its own.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let _store = postgres_at(STORE, &dir.path().join("postgres"), &[]);
    let _registry = start_registry(dir.path(), registry).await;
    let settings = [
        ("SERVER_PORT", api.to_string()),
        ("EGRESS_ALLOW", places.fill("*:{port},*:{api},*:5432,*:{registry}")),
        ("EGRESS_PRIVATE", places.fill("127.0.0.1,127.0.0.78,{bridge}")),
        ("STORE_URL", format!("postgres://youtube@{STORE}:5432/postgres?sslmode=disable")),
        ("SECRETS_KEY", "1a".repeat(32)),
        ("DOCKER_IMAGE_PREFIX", places.fill("127.0.0.1:{registry}/test/functions")),
        ("DOCKER_CONTAINER_LIMIT", "4".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = Service::start_with_hosts(dir.path(), &settings, &places.fill(HOSTS)).await.healthy().await;
    let narrow = service.deploy_with(python(PROGRAM), &places.rules(NARROW), &[]).await;
    let wide = service.deploy_with(python(PROGRAM), &places.rules(WIDE), &[]).await;
    let mut ways = requests::ways(&places);
    ways.extend(sockets::ways(&places));
    assert!(ways.len() >= 40);
    let (mut wrong, count) = (Vec::new(), ways.len());
    // At the end stand the ways that were given.
    for way in ways.into_iter().chain(given(&places)) {
        let function = if way.function == Function::Narrow { &narrow } else { &wide };
        wrong.extend(way.go(&service, function, &places, &got).await);
    }
    assert!(wrong.is_empty(), "{} of {count} ways:\n{}", wrong.len(), wrong.join("\n"));
    canaries.assert_unseen();
    service.delete_all(dir.path()).await;
    remove_images(registry);
}

/// What was given is reached by the door and by the proxy.
fn given(places: &Places) -> [Way; 2] {
    let request = "GET / HTTP/1.1\r\n\r\n";
    let code = places.fill("reach('allowed.example', {port})");
    let connect = places.fill("CONNECT allowed.example:{port} HTTP/1.1\r\n\r\n") + request;
    [Act::Run(code), Act::Ask(connect.into_bytes())].map(|act| Way {
        name: "what was given".to_owned(),
        function: Function::Narrow,
        act,
        end: End::Allowed(request.to_owned()),
    })
}

/// Starts a registry for the service's images.
async fn start_registry(dir: &Path, port: u16) -> Program {
    let data = dir.join("registry");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: 127.0.0.1:{port}}}\n",
        data.display()
    );
    std::fs::write(dir.join("registry.yml"), config).unwrap();
    let mut registry = Command::new("docker-registry");
    registry.args(["serve", "registry.yml"]).current_dir(dir).stderr(Stdio::null());
    Program::listen(&mut registry, "127.0.0.1", port).await
}

/// Removes the images that the engine has by the registry's name.
fn remove_images(registry: u16) {
    for kind in ["", "-runtime"] {
        let filter = format!("reference=127.0.0.1:{registry}/test/functions{kind}/*");
        for name in docker(&["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"]) {
            docker(&["image", "rm", "--force", &name]);
        }
    }
}
