use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;

use super::*;
use crate::egress::tests::{SOON, dead};

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 77, last)
}

async fn to(addresses: &[Ipv4Addr], port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = addresses.iter().map(|address| IpAddr::V4(*address)).collect();
    connect(Lookup::of(addresses), port, |_| Ok(())).await
}

#[tokio::test]
async fn an_address_without_an_answer_holds_the_next_up_for_a_quarter_of_a_second() {
    let (first, _waiting) = dead(ip(1)).await;
    let port = first.local_addr().unwrap().port();
    let _second = TcpListener::bind((ip(2), port)).await.unwrap();
    let began = Instant::now();
    let stream = to(&[ip(1), ip(2)], port).await.unwrap();
    let took = began.elapsed();
    assert_eq!(stream.peer_addr().unwrap().ip(), ip(2));
    assert!(took >= ATTEMPT_DELAY && took < SOON, "{took:?}");
    assert!(stream.nodelay().unwrap());
}

#[tokio::test]
async fn an_address_that_refuses_holds_nothing_up() {
    let listener = TcpListener::bind((ip(12), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let began = Instant::now();
    // As many as are tried. A delay after each would take 3.75 s.
    let mut addresses: Vec<_> = (30..45).map(ip).collect();
    addresses.push(ip(12));
    let stream = to(&addresses, port).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip(), ip(12));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(listener);
    let error = to(&[ip(10), ip(11), ip(12)], port).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_address_that_answers_late_is_still_taken() {
    let (first, waiting) = dead(ip(21)).await;
    let port = first.local_addr().unwrap().port();
    let connecting = tokio::spawn(async move { to(&[ip(21), ip(22)], port).await });
    time::sleep(Duration::from_millis(400)).await;
    assert!(!connecting.is_finished());
    drop(waiting);
    while let Ok(Ok(_)) = time::timeout(Duration::from_millis(100), first.accept()).await {}
    let stream = connecting.await.unwrap().unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip(), ip(21));
}

#[tokio::test]
async fn only_addresses_that_pass_the_check_are_connected_to() {
    let listener = TcpListener::bind((ip(31), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _other = TcpListener::bind((ip(32), port)).await.unwrap();
    let check = |address: IpAddr| if address == ip(31) { Err("not this one".to_owned()) } else { Ok(()) };
    let both = || Lookup::of(vec![ip(31).into(), ip(32).into()]);
    let stream = connect(both(), port, check).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip(), ip(32));
    let error = connect(both(), port, |_| Err("none".to_owned())).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Refused(reason) if reason == "none"), "{error:?}");
    let alone = connect(Lookup::of(vec![ip(31).into()]), port, check).await.unwrap_err();
    assert!(matches!(&alone, ConnectError::Refused(reason) if reason == "not this one"), "{alone:?}");
    assert!(time::timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "nothing has come");
    let nothing = connect(Lookup::of(Vec::new()), port, check).await.unwrap_err();
    assert!(matches!(nothing, ConnectError::Name(NameError::Unknown)), "{nothing:?}");
}

#[test]
fn families_take_turns() {
    let mut queue = Queue::default();
    let (v4, v6) = (|last| IpAddr::V4(ip(last)), |last| IpAddr::V6(Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, last])));
    for address in [v4(1), v4(2), v4(3), v4(1), v6(1), v6(2)] {
        queue.push(address);
    }
    let order: Vec<IpAddr> = std::iter::from_fn(|| queue.next()).collect();
    assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v4(3)]);
    assert!(queue.is_empty());
    for last in 0..100 {
        queue.push(v4(last));
    }
    assert_eq!(queue.v4.len(), MAX_ADDRESSES);
}
