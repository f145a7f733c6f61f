use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use super::*;

/// Passes these descriptors for the doors of the plan, and expects the doorkeeper or the refusal. Nothing that was
/// refused stays open.
async fn received(plan: &Arc<Plan>, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), DoorsError> {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let names: Vec<String> = descriptors.iter().map(name_of).collect();
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    pass(&theirs, bytes, &borrowed).unwrap();
    drop(descriptors);
    let tasks = TaskTracker::new();
    let result = timeout(SOON, receive(ours.into(), plan, &tasks)).await.unwrap();
    let result = result.map(drop);
    end_of(tasks).await;
    for name in names {
        eventually(&format!("{name} is closed"), || count_open(&name) == 0).await;
    }
    result
}

/// Passes one descriptor for one door, and expects the refusal.
#[track_caller]
fn refused(plan: &Arc<Plan>, descriptor: impl Into<OwnedFd>, expected: &'static str) -> impl Future<Output = ()> {
    let result = received(plan, &FRAME, vec![descriptor.into()]);
    async move {
        let error = result.await.unwrap_err();
        let is_expected = matches!(error, DoorsError::Descriptor { reason, .. } if reason == expected);
        assert!(is_expected, "{expected}: {error}");
    }
}

#[tokio::test]
async fn the_sockets_of_the_doors_are_taken() {
    for count in [1, 2, 3, 32] {
        let (plan, listeners) = plan_with_sockets(count);
        received(&plan, &FRAME, listeners.into_iter().map(OwnedFd::from).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_listening_socket_is_refused() {
    let (plan, listeners) = plan_with_sockets(1);
    let dir = tempfile::tempdir().unwrap();
    refused(&plan, File::create(dir.path().join("file")).unwrap(), "is no socket").await;
    refused(&plan, File::open(dir.path()).unwrap(), "is no socket").await;
    let (end, _) = std::io::pipe().unwrap();
    refused(&plan, end, "is no socket").await;
    let family = "is a socket of another family than IPv4";
    refused(&plan, UnixListener::bind(dir.path().join("socket")).unwrap(), family).await;
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        refused(&plan, listener, family).await;
    }
    refused(&plan, UdpSocket::bind("127.1.0.2:0").unwrap(), "is no socket of streams").await;
    let raw = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::TCP));
    if let Ok(raw) = raw {
        refused(&plan, raw, "is no socket of streams").await;
    }
    let listens_not = "is a socket that does not listen";
    refused(&plan, TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap(), listens_not).await;
    let bound = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&bound, &SocketAddrV4::new(Ipv4Addr::new(127, 1, 0, 2), 0)).unwrap();
    refused(&plan, bound, listens_not).await;
    refused(&plan, TcpListener::bind("127.1.0.2:0").unwrap(), "is a socket that listens on another address").await;
    refused(&plan, TcpListener::bind("0.0.0.0:0").unwrap(), "is a socket that listens on another address").await;
}

#[tokio::test]
async fn a_socket_of_another_protocol_or_a_shared_one_is_refused() {
    let (plan, listeners) = plan_with_sockets(1);
    let SocketAddr::V4(address) = listeners[0].local_addr().unwrap() else { unreachable!() };
    drop(listeners);
    let stream = |protocol| socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, protocol);
    let open = |socket: &OwnedFd| bind(socket, &address).and_then(|()| listen(socket, 1));
    if let Ok(socket) = stream(Some(ipproto::MPTCP)) {
        open(&socket).unwrap();
        refused(&plan, socket, "is no socket of TCP").await;
    }
    let shared = [stream(None).unwrap(), stream(None).unwrap()];
    for socket in &shared {
        sockopt::set_socket_reuseport(socket, true).unwrap();
        open(socket).unwrap();
    }
    let [one, _other] = shared;
    refused(&plan, one, "is a socket that shares its address with others").await;
}

#[tokio::test]
async fn each_door_has_its_own_socket() {
    for order in [[0, 0], [1, 1], [1, 0]] {
        let (plan, listeners) = plan_with_sockets(2);
        let passed = order.map(|place| OwnedFd::from(listeners[place].try_clone().unwrap()));
        drop(listeners);
        let error = received(&plan, &FRAME, passed.into()).await.unwrap_err();
        assert!(matches!(error, DoorsError::Descriptor { .. }), "{order:?}: {error}");
    }
}

#[tokio::test]
async fn there_are_as_many_descriptors_as_doors() {
    for (doors, passed) in [(1, 0), (2, 0), (2, 1), (1, 2), (2, 3), (3, 4), (1, 253), (32, 33), (32, 253)] {
        let (plan, listeners) = plan_with_sockets(doors);
        let copies = (0..passed).map(|n| listeners[n % listeners.len()].try_clone().unwrap().into()).collect();
        drop(listeners);
        let error = received(&plan, &FRAME, copies).await.unwrap_err();
        assert!(matches!(error, DoorsError::Count { .. }), "{passed} for {doors}: {error}");
    }
}

#[tokio::test]
async fn only_the_whole_frame_in_one_message_counts() {
    for bytes in [&b"\0\0\0\x01X"[..], b"\0\0\0\x02L", b"L", b"\0\0\0\x01"] {
        let (plan, listeners) = plan_with_sockets(1);
        let error = received(&plan, bytes, listeners.into_iter().map(OwnedFd::from).collect()).await.unwrap_err();
        assert!(matches!(error, DoorsError::Frame), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_bootstrap_that_goes_away_or_says_nothing_leaves_nothing() {
    let (plan, _listeners) = plan_with_sockets(1);
    let (theirs, ours) = UnixStream::pair().unwrap();
    drop(theirs);
    let error = receive(ours.into(), &plan, &TaskTracker::new()).await.unwrap_err();
    assert!(matches!(error, DoorsError::Gone), "{error}");
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (name, tasks) = (name_of(&ours), TaskTracker::new());
    let silent = timeout(Duration::from_millis(50), receive(ours.into(), &plan, &tasks)).await;
    assert!(silent.is_err());
    assert!(end_of(tasks).await < SOON);
    assert_eq!(count_open(&name), 0);
    drop(theirs);
}

#[tokio::test]
async fn a_second_message_is_no_frame_and_its_descriptors_are_closed() {
    let (plan, listeners) = plan_with_sockets(1);
    let (theirs, mut ours) = UnixStream::pair().unwrap();
    let (second, _kept) = std::io::pipe().unwrap();
    let name = name_of(&second);
    pass(&theirs, &FRAME, &[listeners[0].as_fd()]).unwrap();
    pass(&theirs, &FRAME, &[second.as_fd()]).unwrap();
    drop(second);
    let tasks = TaskTracker::new();
    let keeper = receive(ours.try_clone().unwrap().into(), &plan, &tasks).await.unwrap();
    assert!(keeper.is_open());
    let mut bytes = [0; 8];
    assert_eq!(ours.read(&mut bytes).unwrap(), FRAME.len());
    // Both ends of a pipe have one name.
    assert_eq!(count_open(&name), 1);
    drop(keeper);
    end_of(tasks).await;
}

#[tokio::test]
async fn descriptors_in_flight_by_the_thousand_go_with_the_socket() {
    let (plan, listeners) = plan_with_sockets(1);
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (end, mut kept) = std::io::pipe().unwrap();
    let name = name_of(&end);
    let mut sent = 0;
    // The kernel stops the sender at the sender's limit on descriptors, or when the socket is full.
    while sent < 10_000 && pass(&theirs, &FRAME, &[end.as_fd(); 250]).is_ok() {
        sent += 250;
    }
    drop(end);
    assert!(sent >= 1000, "{sent}");
    let tasks = TaskTracker::new();
    let error = receive(ours.into(), &plan, &tasks).await.unwrap_err();
    assert!(matches!(error, DoorsError::Count { .. }), "{error}");
    end_of(tasks).await;
    drop(theirs);
    // A thread of its own closes what was received.
    eventually("the received descriptors are closed", || count_open(&name) == 1).await;
    // Nobody can read any more, so all descriptors in flight are closed, too.
    eventually("all are closed", || std::io::Write::write(&mut kept, b"x").is_err()).await;
    drop(listeners);
}
