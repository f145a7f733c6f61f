use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use parking_lot::Mutex as Lock;
use tempfile::TempDir;
use tokio::net::UdpSocket;

use super::*;
use crate::egress::tests::SOON;

/// What a name server says.
#[derive(Clone)]
enum Reply {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Failure,
    Silence,
}

/// A name server that runs in this process. All questions are noted.
struct Server {
    address: SocketAddr,
    asked: Arc<Lock<Vec<String>>>,
}

impl Server {
    /// A server on a loopback address that answers by `replies`, whose keys are like `a.example. A`.
    async fn start(ip: &str, port: u16, replies: &[(&str, Reply)]) -> Self {
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), port)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let replies: HashMap<String, Reply> =
            replies.iter().map(|(question, reply)| ((*question).to_owned(), reply.clone())).collect();
        let asked = Arc::new(Lock::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let (question, end) = question(&buffer[..length]);
                log.lock().push(question.clone());
                if let Some(reply) = reply(&buffer[..end], replies.get(&question).unwrap_or(&Reply::NoSuchName)) {
                    let _ = socket.send_to(&reply, client).await;
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().clone();
        asked.dedup();
        asked
    }
}

/// The question of a message, and where the question ends.
fn question(message: &[u8]) -> (String, usize) {
    let (mut place, mut name) = (12, String::new());
    while message[place] > 0 {
        let end = place + 1 + usize::from(message[place]);
        name.push_str(&String::from_utf8_lossy(&message[place + 1..end]));
        name.push('.');
        place = end;
    }
    let kind = if message[place + 2] == 28 { "AAAA" } else { "A" };
    (format!("{} {kind}", name.to_lowercase()), place + 5)
}

fn reply(query: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let (code, addresses) = match reply {
        Reply::Addresses(addresses) => (0, addresses.clone()),
        Reply::NoSuchName => (3, Vec::new()),
        Reply::Failure => (2, Vec::new()),
        Reply::Silence => return None,
    };
    let count = u8::try_from(addresses.len()).unwrap();
    let mut message = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &query[12..]].concat();
    for address in addresses {
        let (kind, bytes) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(bytes.len()).unwrap()]);
        message.extend(bytes);
    }
    Some(message)
}

fn addresses(texts: &[&str]) -> Reply {
    Reply::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn names(dir: &Path, port: u16) -> Names {
    Names::new(dir.join("hosts"), dir.join("resolv.conf"), port, Duration::from_secs(2))
}

/// Names by a hosts file and by a `resolv.conf` for servers on a port.
fn files(hosts: &str, resolv_conf: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hosts"), hosts).unwrap();
    fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
    dir
}

async fn look(names: &Names, name: &str) -> Result<Vec<String>, NameError> {
    names.addresses(name).await.map(|found| found.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_name_has_addresses_of_both_families() {
    let replies = [
        ("a.example. A", addresses(&["192.0.2.1", "192.0.2.2"])),
        ("a.example. AAAA", addresses(&["2001:db8::1"])),
        ("_a_.b_1.example. A", addresses(&["192.0.2.3"])),
        ("xn--bcher-kva.example. A", addresses(&["192.0.2.4"])),
    ];
    let server = Server::start("127.0.0.1", 0, &replies).await;
    let dir = files("", "nameserver 127.0.0.1");
    let names = names(dir.path(), server.address.port());
    assert_eq!(look(&names, "a.example").await.unwrap(), ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
    let n_questions = server.asked.lock().len();
    assert_eq!(look(&names, "a.example").await.unwrap().len(), 3);
    assert_eq!(server.asked.lock().len(), n_questions, "answers are kept for their time");
    assert_eq!(look(&names, "b.example").await, Err(NameError::Unknown));
    assert_eq!(look(&names, "_a_.b_1.example").await.unwrap(), ["192.0.2.3"]);
    assert_eq!(look(&names, "xn--bcher-kva.example").await.unwrap(), ["192.0.2.4"]);
}

#[tokio::test]
async fn the_hosts_file_has_the_last_word_on_its_names() {
    let replies = [("a.example. A", addresses(&["192.0.2.1"])), ("a.example. AAAA", addresses(&["2001:db8::1"]))];
    let server = Server::start("127.0.0.1", 0, &replies).await;
    let dir = files("10.0.0.1 a.example\n10.0.0.2 db\n", "nameserver 127.0.0.1\nsearch example");
    let names = names(dir.path(), server.address.port());
    assert_eq!(look(&names, "a.example").await.unwrap(), ["10.0.0.1"]);
    assert_eq!(look(&names, "db").await.unwrap(), ["10.0.0.2"]);
    assert_eq!(server.asked(), [""; 0]);
    // The files are read again when they change.
    fs::write(dir.path().join("hosts"), "10.0.0.33 db\n").unwrap();
    time::sleep(LOOK_AGAIN).await;
    assert_eq!(look(&names, "db").await.unwrap(), ["10.0.0.33"]);
    assert_eq!(look(&names, "a.example").await.unwrap(), ["2001:db8::1", "192.0.2.1"]);
    fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.9").unwrap();
    time::sleep(LOOK_AGAIN).await;
    assert!(matches!(look(&names, "a.example").await, Err(NameError::Unresolved(_))));
}

#[tokio::test]
async fn without_a_usable_file_names_fail_with_the_reason() {
    let dir = files("10.0.0.1 a.example", "search example");
    let own = names(dir.path(), 53);
    assert_eq!(look(&own, "a.example").await.unwrap(), ["10.0.0.1"]);
    let path = dir.path().join("resolv.conf");
    for _ in 0..2 {
        let Err(NameError::Unresolved(reason)) = look(&own, "b.example").await else {
            panic!("a name without servers")
        };
        assert!(reason.starts_with(&format!("{}: ", path.display())), "{reason}");
        let _ = fs::remove_file(&path);
        time::sleep(LOOK_AGAIN).await;
    }
    let nothing = names(&dir.path().join("none"), 53);
    assert!(matches!(look(&nothing, "a.example").await, Err(NameError::Unresolved(_))));
}

#[tokio::test]
async fn the_search_list_is_tried_name_by_name() {
    let replies = [
        ("db.one.example. A", addresses(&[])),
        ("db.one.example. AAAA", addresses(&[])),
        ("db.two.example. A", addresses(&["192.0.2.2"])),
        ("db.two.example. AAAA", addresses(&[])),
        ("db.three.example. AAAA", addresses(&["2001:db8::3"])),
    ];
    let server = Server::start("127.0.0.1", 0, &replies).await;
    let dir = files("", "nameserver 127.0.0.1\nsearch one.example two.example three.example");
    let names = names(dir.path(), server.address.port());
    assert_eq!(look(&names, "db").await.unwrap(), ["192.0.2.2"]);
    let asked = server.asked();
    assert!(!asked.iter().any(|name| name.contains("three") || name.starts_with("db. ")), "{asked:?}");
}

#[tokio::test]
async fn a_family_without_an_answer_holds_the_other_up_for_a_moment_only() {
    let replies = [("a.example. A", addresses(&["192.0.2.1"])), ("a.example. AAAA", Reply::Silence)];
    let server = Server::start("127.0.0.1", 0, &replies).await;
    let dir = files("", "nameserver 127.0.0.1");
    let port = server.address.port();
    let slow = Names::new(dir.path().join("hosts"), dir.path().join("resolv.conf"), port, Duration::from_secs(60));
    let began = Instant::now();
    let mut lookup = slow.look_up("a.example").await;
    assert_eq!(lookup.next().await, Ok(Some(vec![Ipv4Addr::new(192, 0, 2, 1).into()])));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // The other family's silence is no error.
    assert_eq!(look(&names(dir.path(), port), "a.example").await.unwrap(), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_server_that_is_away_or_fails_is_followed_by_the_next() {
    let silent =
        Server::start("127.0.0.1", 0, &[("a.example. A", Reply::Silence), ("a.example. AAAA", Reply::Silence)]);
    let silent = silent.await;
    let port = silent.address.port();
    let failing = [("a.example. A", Reply::Failure), ("a.example. AAAA", Reply::Failure)];
    let _failing = Server::start("127.0.0.2", port, &failing).await;
    let _good = Server::start("127.0.0.3", port, &[("a.example. A", addresses(&["192.0.2.1"]))]).await;
    let dir = files("", "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4");
    assert_eq!(look(&names(dir.path(), port), "a.example").await.unwrap(), ["192.0.2.1"]);
    let dir = files("", "nameserver 127.0.0.2");
    assert!(matches!(look(&names(dir.path(), port), "a.example").await, Err(NameError::Unresolved(_))));
    // A server's "no" counts, and the next server is not asked.
    let dir = files("", "nameserver 127.0.0.3\nnameserver 127.0.0.1");
    assert_eq!(look(&names(dir.path(), port), "b.example").await, Err(NameError::Unknown));
    assert!(!silent.asked().iter().any(|question| question.starts_with("b.")));
}
