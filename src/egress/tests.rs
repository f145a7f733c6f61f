use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::config::Rule;
use crate::domain::Destined;

/// The way out with names of a hosts file, and no name server.
pub(super) struct Outside {
    pub(super) egress: Egress,
    dir: TempDir,
}

/// The limits of the tests.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
pub(super) const SHORT_HEAD_LIMIT: Duration = Duration::from_secs(2);
/// The time for what happens at once, on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(10);

impl Outside {
    pub(super) fn new(hosts: &str, private: &[&str]) -> Self {
        Self::with(hosts, &["*"], private, Forbidden::default())
    }

    /// EGRESS_ALLOW allows these hosts on all ports, which no operator can write.
    fn with(hosts: &str, allow: &[&str], private: &[&str], forbidden: Forbidden) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hosts"), hosts).unwrap();
        let rules = |host: &str| {
            let Rule { hosts, .. } = format!("{host}:1").parse().unwrap();
            (1..=u16::MAX).map(move |port| Rule { hosts: hosts.clone(), port })
        };
        let config = config::Egress {
            allow: allow.iter().flat_map(|host| rules(host)).collect(),
            private: private.iter().map(|range| range.parse().unwrap()).collect(),
            connections: 64,
            connect_timeout: CONNECT_LIMIT,
        };
        let names =
            Names::new(dir.path().join("hosts"), dir.path().join("resolv.conf"), DNS_PORT, config.connect_timeout);
        Self { egress: Egress::with(&config, forbidden, names, SHORT_HEAD_LIMIT), dir }
    }

    /// A program's connection at a door of a function with these rules.
    pub(super) async fn open(&self, gate: Gate, rules: &[String]) -> Opened {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let program = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (inner, _) = listener.accept().await.unwrap();
        let (egress, network, traffic) = (self.egress.clone(), Network::new(rules).unwrap(), Traffic::default());
        let counted = traffic.clone();
        let task = tokio::spawn(async move { egress.serve(&gate, &network, inner, &counted).await });
        Opened { program, task, traffic }
    }
}

/// A connection of a program.
pub(super) struct Opened {
    pub(super) program: TcpStream,
    pub(super) task: JoinHandle<()>,
    pub(super) traffic: Traffic,
}

impl Opened {
    /// The only entry of the traffic, when the connection has ended.
    pub(super) async fn destined(self) -> Destined {
        drop(self.program);
        self.task.await.unwrap();
        let [destined] = &self.traffic.report()[..] else { panic!("{:?}", self.traffic) };
        destined.clone()
    }

    /// Asserts that the connection is reset, and returns the reason.
    async fn reset(mut self) -> String {
        let error = self.program.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let destined = self.destined().await;
        assert_eq!((destined.connections, destined.refused), (0, 1));
        destined.reason.unwrap()
    }
}

pub(super) fn host(name: &str, port: u16) -> (Gate, Vec<String>) {
    (Gate::Host { name: name.to_owned(), port }, vec![format!("{name}:{port}")])
}

/// A server that sends back what comes, with its port.
pub(super) async fn echo(ip: &str) -> u16 {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    port
}

/// A port of an address on which nothing listens.
pub(super) async fn free_port(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap().port()
}

/// A listener whose backlog is full, so that a connection gets no answer. The connections keep the backlog full.
pub(super) async fn dead(ip: Ipv4Addr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn a_door_leads_to_its_host() {
    let port = echo("127.0.0.1").await;
    let outside = Outside::new("127.0.0.1 echo.example\n", &["127.0.0.0/8"]);
    let (gate, rules) = host("echo.example", port);
    let mut opened = outside.open(gate, &rules).await;
    opened.program.write_all(b"hello").await.unwrap();
    opened.program.shutdown().await.unwrap();
    let mut answer = String::new();
    opened.program.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
    let to = format!("echo.example:{port}");
    let expected = Destined { to, connections: 1, sent_bytes: 5, received_bytes: 5, refused: 0, reason: None };
    assert_eq!(opened.destined().await, expected);
}

#[tokio::test]
async fn a_host_of_both_families_is_reached_by_either() {
    let v6 = echo("::1").await;
    let v4 = echo("127.0.0.5").await;
    let outside = Outside::new("127.0.0.5 both.example\n::1 both.example\n", &["127.0.0.0/8", "::1/128"]);
    for port in [v6, v4] {
        let (gate, rules) = host("both.example", port);
        let mut opened = outside.open(gate, &rules).await;
        opened.program.write_all(b"x").await.unwrap();
        assert_eq!(opened.program.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn a_private_address_needs_a_range_of_the_operator() {
    let port = echo("127.0.0.1").await;
    let hosts = "127.0.0.1 echo.example\n";
    let (gate, rules) = host("echo.example", port);
    let reason = Outside::new(hosts, &[]).open(gate.clone(), &rules).await.reset().await;
    let expected = "the address is loopback, and no range of EGRESS_PRIVATE holds the address";
    assert_eq!(reason, format!("echo.example:{port}: {expected}"));
    let reason = Outside::new(hosts, &["127.0.0.2/32", "::/0"]).open(gate, &rules).await.reset().await;
    assert!(reason.ends_with(expected), "{reason}");
}

#[tokio::test]
async fn only_those_addresses_of_a_name_are_reached_that_may_be() {
    let port = echo("127.0.0.2").await;
    let other = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let hosts = "127.0.0.1 mixed.example\n169.254.169.254 mixed.example\n127.0.0.2 mixed.example\n";
    let outside = Outside::new(hosts, &["127.0.0.2/32", "169.254.0.0/16"]);
    let (gate, rules) = host("mixed.example", port);
    let mut opened = outside.open(gate, &rules).await;
    opened.program.write_all(b"x").await.unwrap();
    assert_eq!(opened.program.read_u8().await.unwrap(), b'x');
    assert!(time::timeout(Duration::from_millis(100), other.accept()).await.is_err(), "something has come");
}

#[tokio::test]
async fn rules_of_the_function_and_of_the_operator_count_at_each_connection() {
    let port = echo("127.0.0.1").await;
    let hosts = "127.0.0.1 echo.example other.example\n";
    let outside = Outside::new(hosts, &["127.0.0.0/8"]);
    let (gate, _) = host("echo.example", port);
    for rules in [format!("echo.example:{}", port ^ 1), format!("other.example:{port}")] {
        let reason = outside.open(gate.clone(), &[rules]).await.reset().await;
        assert_eq!(reason, format!("echo.example:{port}: no rule of the function's network allows this"));
    }
    let narrow = Outside::with(hosts, &["other.example"], &["127.0.0.0/8"], Forbidden::default());
    let reason = narrow.open(gate, &[format!("echo.example:{port}")]).await.reset().await;
    assert_eq!(reason, format!("echo.example:{port}: EGRESS_ALLOW does not allow this"));
}

#[tokio::test]
async fn a_host_that_fails_is_reset_in_time_with_the_reason() {
    let hosts = "127.0.0.1 echo.example\n127.0.0.78 dead.example\n";
    let outside = Outside::new(hosts, &["127.0.0.0/8"]);
    let port = free_port("127.0.0.1").await;
    let (gate, rules) = host("echo.example", port);
    let reason = outside.open(gate, &rules).await.reset().await;
    assert_eq!(reason, format!("echo.example:{port}: Connection refused (os error 111)"));

    let (listener, _waiting) = dead(Ipv4Addr::new(127, 0, 0, 78)).await;
    let port = listener.local_addr().unwrap().port();
    let (gate, rules) = host("dead.example", port);
    let began = Instant::now();
    let reason = outside.open(gate, &rules).await.reset().await;
    assert_eq!(reason, format!("dead.example:{port}: no connection within 2s (EGRESS_CONNECT_TIMEOUT)"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());

    let (gate, rules) = host("unknown.example", 443);
    let reason = outside.open(gate, &rules).await.reset().await;
    let path = outside.dir.path().join("resolv.conf");
    assert!(reason.starts_with("unknown.example:443: the name does not resolve: "), "{reason}");
    assert!(reason.contains(path.to_str().unwrap()), "{reason}");
}

#[tokio::test]
async fn the_service_is_no_destination() {
    let port = echo("127.0.0.1").await;
    let hosts = "127.0.0.1 own.example\n127.0.0.2 own.example\n::1 own.example\n";
    let forbidden = Forbidden { ports: vec![port], ..Forbidden::default() };
    let outside = Outside::with(hosts, &["*"], &["0.0.0.0/0", "::/0"], forbidden);
    let (gate, rules) = host("own.example", port);
    let reason = outside.open(gate, &rules).await.reset().await;
    assert_eq!(reason, format!("own.example:{port}: this is the service itself, which no function reaches"));
}

#[tokio::test]
async fn a_drop_resets_both_sides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outside = Outside::new("127.0.0.1 echo.example\n", &["127.0.0.0/8"]);
    let (gate, rules) = host("echo.example", port);
    let mut opened = outside.open(gate, &rules).await;
    let (mut destination, _) = listener.accept().await.unwrap();
    destination.write_all(b"x").await.unwrap();
    assert_eq!(opened.program.read_u8().await.unwrap(), b'x');
    opened.task.abort();
    for stream in [&mut opened.program, &mut destination] {
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(opened.traffic.report()[0].received_bytes, 1, "what went through is counted");
}

#[test]
fn all_instances_together_have_no_more_descriptors_than_there_are() {
    assert_eq!(share_of_each(32_768, 10), 204);
    assert_eq!(share_of_each(4096, 10), 25);
    // However many there are, each has a connection.
    assert_eq!((share_of_each(1024, 100_000), share_of_each(0, 0)), (1, 1));
    assert_eq!(share_of_each(u64::MAX, 1), u32::MAX);
}
