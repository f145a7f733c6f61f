use std::fs;

use tempfile::TempDir;

use super::*;

fn names(hosts: &str) -> (TempDir, Names) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hosts"), hosts).unwrap();
    // Nothing listens on this address, so names beyond the file stay unresolved.
    fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1").unwrap();
    let names = Names::new(dir.path().join("hosts"), dir.path().join("resolv.conf"), 1, Duration::from_secs(1));
    (dir, names)
}

fn server(host: &str, port: u16) -> Server {
    Server { kind: "the database", host: host.to_owned(), port }
}

fn guard(ports: &[u16], servers: &[Server], urls: &[&str]) -> Guard {
    let nodes = NodeUrls::default();
    nodes.replace(urls);
    Guard::new(Forbidden { ports: ports.to_vec(), servers: servers.to_vec(), nodes })
}

/// Whether an address with a port is forbidden to a connection to `destination`, and why.
async fn check(guard: &Guard, names: &Names, destination: &str, address: &str, port: u16) -> Result<(), Prohibition> {
    let destination = destination.parse().unwrap();
    guard.addresses(names, &destination, port).await?.check(address.parse().unwrap())
}

/// The addresses of this machine's interfaces beside loopback.
fn own_addresses() -> Vec<IpAddr> {
    // A socket that is connected, which sends nothing, has the address of the machine on the way there.
    ["198.51.100.1:9", "[2001:db8::1]:9"]
        .iter()
        .filter_map(|target| {
            let any: IpAddr = if target.starts_with('[') { "::".parse().unwrap() } else { "0.0.0.0".parse().unwrap() };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.connect(target).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .collect()
}

#[tokio::test]
async fn the_service_is_not_reached_by_any_of_its_addresses() {
    let (_dir, names) = names("");
    let guard = guard(&[8080, 8081], &[], &[]);
    let mut own: Vec<String> = own_addresses().iter().map(ToString::to_string).collect();
    own.extend(["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"].map(str::to_owned));
    own.extend(["64:ff9b::127.0.0.1", "0.0.0.0", "::"].map(str::to_owned));
    for address in &own {
        for port in [8080, 8081] {
            let refused = check(&guard, &names, "a.example", address, port).await;
            assert_eq!(refused, Err(Prohibition::Server(OWN)), "{address}");
        }
        assert_eq!(check(&guard, &names, "a.example", address, 8082).await, Ok(()), "{address}");
    }
    for address in ["198.51.100.1", "2001:db8::1"] {
        assert_eq!(check(&guard, &names, "a.example", address, 8080).await, Ok(()), "{address}");
    }
}

#[tokio::test]
async fn a_server_is_not_reached_by_its_name_nor_by_its_address() {
    let (_dir, names) = names("10.0.0.5 db.internal\n10.0.0.6 db.internal\nfd00::5 db.internal\n");
    let servers = [server("DB.internal", 5432), server("10.9.9.9", 5000), server("fd00::9", 5000)];
    let guard = guard(&[], &servers, &["http://node.internal:9000", "https://10.7.7.7"]);
    let forbidden = Err(Prohibition::Server("the database"));
    assert_eq!(check(&guard, &names, "db.internal.", "1.1.1.1", 5432).await, forbidden);
    for address in ["10.0.0.5", "10.0.0.6", "fd00::5", "::ffff:10.0.0.5", "2002:a00:5::1", "64:ff9b::10.0.0.6"] {
        assert_eq!(check(&guard, &names, "alias.example", address, 5432).await, forbidden, "{address}");
        assert_eq!(check(&guard, &names, "alias.example", address, 5433).await, Ok(()), "{address}");
    }
    assert_eq!(check(&guard, &names, "alias.example", "10.0.0.7", 5432).await, Ok(()));
    assert_eq!(check(&guard, &names, "10.9.9.9", "10.9.9.9", 5000).await, forbidden);
    assert_eq!(check(&guard, &names, "alias.example", "fd00::9", 5000).await, forbidden);
    assert_eq!(check(&guard, &names, "a.example", "10.7.7.7", 443).await, Err(Prohibition::Server(NODE)));
    assert_eq!(check(&guard, &names, "node.internal", "1.1.1.1", 9000).await, Err(Prohibition::Server(NODE)));
    // Whether another name means the node can't be told while the node's name does not resolve.
    assert_eq!(check(&guard, &names, "a.example", "1.1.1.1", 9000).await, Err(Prohibition::Unknown(NODE)));
}

#[tokio::test]
async fn a_server_of_this_machine_is_not_reached_by_the_machines_other_addresses() {
    let (_dir, names) = names("127.0.0.1 localhost\n");
    let guard = guard(&[], &[server("localhost", 5432)], &[]);
    for address in own_addresses().iter().map(ToString::to_string).chain(["127.0.0.9".to_owned(), "::1".to_owned()]) {
        let refused = check(&guard, &names, "a.example", &address, 5432).await;
        assert_eq!(refused, Err(Prohibition::Server("the database")), "{address}");
    }
    assert_eq!(check(&guard, &names, "a.example", "198.51.100.1", 5432).await, Ok(()));
}

#[tokio::test]
async fn a_servers_last_addresses_count_when_its_name_leads_elsewhere() {
    let (dir, names) = names("10.0.0.5 db.internal\n");
    let guard = guard(&[], &[server("db.internal", 5432)], &[]);
    assert!(check(&guard, &names, "a.example", "10.0.0.5", 5432).await.is_err());
    assert_eq!(check(&guard, &names, "a.example", "10.0.0.6", 5432).await, Ok(()));
    fs::write(dir.path().join("hosts"), "10.0.0.6 db.internal\n").unwrap();
    guard.known.lock().values_mut().for_each(|known| known.asked -= MAX_AGE);
    time::sleep(Duration::from_millis(1100)).await;
    for address in ["10.0.0.5", "10.0.0.6"] {
        assert!(check(&guard, &names, "a.example", address, 5432).await.is_err(), "{address}");
    }
    // The last addresses also count while the name does not resolve.
    fs::write(dir.path().join("hosts"), "").unwrap();
    guard.known.lock().values_mut().for_each(|known| known.asked -= MAX_AGE);
    time::sleep(Duration::from_millis(1100)).await;
    assert!(check(&guard, &names, "a.example", "10.0.0.6", 5432).await.is_err());
    assert_eq!(check(&guard, &names, "a.example", "10.0.0.7", 5432).await, Ok(()));
}
