use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{Shutdown, accept, listen, shutdown, sockopt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use super::*;
use crate::egress::Traffic;
use crate::sandbox::doors::listener::{Accepted, Listener, fault};
use crate::sandbox::doors::thread::{BURST, LEAST_BACKLOG};

/// The longest time in which the doors are emptied here.
const EMPTY_LIMIT_OF_HONEST: Duration = Duration::from_millis(2900);
/// The only door, where a connection is held until the program says something.
const PROXY: &str = "127.1.0.1:3128";

/// An instance's doors, and a copy of the socket that a bootstrap has kept.
struct Instance {
    keeper: Doorkeeper,
    copy: TcpListener,
    tasks: TaskTracker,
    _alone: MutexGuard<'static, ()>,
}

impl Instance {
    async fn start(connections: u32) -> Self {
        // The proxy's door has one address, for all tests.
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let mut bound = None;
        eventually("the proxy's address is free", || {
            bound = TcpListener::bind(PROXY).ok();
            bound.is_some()
        })
        .await;
        let copy = bound.unwrap();
        copy.set_nonblocking(true).unwrap();
        let (plan, tasks) = (plan(&["10.0.0.0/8:1".to_owned()], connections), TaskTracker::new());
        let (theirs, ours) = UnixStream::pair().unwrap();
        pass(&theirs, &FRAME, &[copy.as_fd()]).unwrap();
        let keeper = receive(ours.into(), &plan, &tasks).await.unwrap();
        Self { keeper, copy, tasks, _alone: alone }
    }

    async fn open(&mut self) {
        self.keeper.open(&Traffic::default()).await.unwrap();
    }

    async fn serves(&self, connections: u32) {
        eventually(&format!("{connections} are served"), || self.keeper.connections() == connections).await;
    }

    /// Ends the doors. Returns the time that takes.
    async fn end(self) -> Duration {
        drop(self.keeper);
        let took = end_of(self.tasks).await;
        let refused = TcpStream::connect(PROXY).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        took
    }
}

async fn connect() -> io::Result<TcpStream> {
    TcpStream::connect(PROXY).await
}

/// Expects the reset of a connection, which may come before the client knows that the connection is there.
async fn reset(client: io::Result<TcpStream>) {
    let end = match client {
        Ok(mut client) => timeout(SOON, client.read(&mut [0])).await.expect("an end").map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_are_served_within_an_invocation_only() {
    let mut instance = Instance::start(64).await;
    reset(connect().await).await;
    for _ in 0..3 {
        instance.open().await;
        let clients = [connect().await, connect().await, connect().await];
        instance.serves(3).await;
        instance.keeper.close().await.unwrap();
        assert_eq!(instance.keeper.connections(), 0);
        for client in clients {
            reset(client).await;
        }
        reset(connect().await).await;
    }
    assert!(instance.end().await < SOON);
}

#[tokio::test]
async fn more_connections_wait_for_their_turn() {
    let mut instance = Instance::start(2).await;
    instance.open().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connect().await.unwrap());
    }
    instance.serves(2).await;
    for _ in 0..2 {
        // The kernel keeps the order in which the connections came.
        clients.remove(0);
        sleep(Duration::from_millis(20)).await;
        instance.serves(2).await;
    }
    assert!(clients.iter().all(|client| client.try_read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock)));
    let began = Instant::now();
    instance.keeper.close().await.unwrap();
    assert!(began.elapsed() < SOON);
    for client in clients {
        reset(Ok(client)).await;
    }
    instance.open().await;
    assert_eq!(instance.keeper.connections(), 0);
    instance.end().await;
}

#[tokio::test]
async fn no_connection_of_an_invocation_is_served_in_the_next() {
    let mut instance = Instance::start(2).await;
    for round in 0..500 {
        instance.open().await;
        let wants = round % 4 + 1;
        let mut clients = Vec::new();
        for _ in 0..wants {
            clients.push(connect().await.unwrap());
        }
        if round % 2 == 0 {
            // The thread is somewhere between the look and the hand-over.
            tokio::task::yield_now().await;
        }
        if round % 3 == 0 {
            // As a process that is killed.
            clients.clear();
        }
        instance.keeper.close().await.unwrap();
        assert_eq!(instance.keeper.connections(), 0);
        instance.open().await;
        if round % 50 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(instance.keeper.connections(), 0, "round {round}");
        for client in clients {
            reset(Ok(client)).await;
        }
        instance.keeper.close().await.unwrap();
    }
    instance.end().await;
}

#[tokio::test]
async fn nothing_stays_of_many_connections() {
    for is_closed_before in [true, false] {
        let mut instance = Instance::start(64).await;
        instance.open().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(connect().await);
        }
        instance.serves(64).await;
        if is_closed_before {
            instance.keeper.close().await.unwrap();
        }
        assert!(instance.end().await < SOON);
        for client in clients {
            reset(client).await;
        }
    }
}

#[tokio::test]
async fn an_instance_whose_queue_may_have_been_full_ends() {
    // The kernel holds back what comes when a queue is full, and may deliver that in a later invocation.
    let mut instance = Instance::start(64).await;
    instance.open().await;
    instance.keeper.close().await.unwrap();
    for _ in 0..*LEAST_BACKLOG {
        drop(connect().await);
    }
    assert!(instance.keeper.open(&Traffic::default()).await.is_err());
    instance.end().await;
}

#[tokio::test]
async fn a_program_that_connects_in_circles_waits() {
    let mut instance = Instance::start(u32::MAX).await;
    instance.open().await;
    let (mut clients, began) = (Vec::new(), Instant::now());
    for _ in 0..BURST + 200 {
        clients.push(connect().await.unwrap());
    }
    instance.serves(BURST + 200).await;
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    // The wait keeps no invocation from its end.
    let began = Instant::now();
    instance.keeper.close().await.unwrap();
    assert!(began.elapsed() < EMPTY_LIMIT_OF_HONEST, "{:?}", began.elapsed());
    instance.end().await;
}

#[tokio::test]
async fn an_accept_that_blocks_ends_with_the_instance() {
    let (began, mut stuck, mut tries) = (Instant::now(), 0, 0);
    // A busy machine needs many tries.
    while stuck < 3 && (tries < 10 || stuck == 0) && began.elapsed() < Duration::from_secs(60) {
        tries += 1;
        let mut instance = Instance::start(64).await;
        instance.open().await;
        let copy = instance.copy.try_clone().unwrap();
        fcntl_setfl(&copy, fcntl_getfl(&copy).unwrap() - OFlags::NONBLOCK).unwrap();
        // The copy takes connections away between the thread's look and the thread's accept.
        let thief = thread::spawn(move || while accept(&copy).is_ok() {});
        for _ in 0..200 {
            drop(connect().await);
        }
        let began = Instant::now();
        if instance.keeper.close().await.is_err() {
            stuck += 1;
        }
        assert!(began.elapsed() < SOON);
        assert!(instance.end().await < SOON);
        thief.join().unwrap();
    }
    assert!(stuck > 0, "no accept has blocked in {tries} tries");
}

#[tokio::test]
async fn a_door_that_the_other_side_closes_is_the_end_of_the_instance() {
    let mut instance = Instance::start(64).await;
    instance.open().await;
    let client = connect().await;
    instance.serves(1).await;
    assert!(instance.keeper.is_open());
    shutdown(&instance.copy, Shutdown::Both).unwrap();
    eventually("the doors are known to be closed", || !instance.keeper.is_open()).await;
    // What was served goes on to the end of the invocation.
    assert_eq!(instance.keeper.connections(), 1);
    instance.keeper.close().await.unwrap_err();
    reset(client).await;
    instance.keeper.open(&Traffic::default()).await.unwrap_err();
    assert!(instance.end().await < SOON);
}

#[tokio::test]
async fn a_socket_that_listens_again_and_again_does_not_keep_the_thread() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let mut instance = Instance::start(64).await;
    instance.open().await;
    let copy = instance.copy.try_clone().unwrap();
    let again = thread::spawn(move || {
        fcntl_setfl(&copy, fcntl_getfl(&copy).unwrap() - OFlags::NONBLOCK).unwrap();
        while !IS_OVER.load(Ordering::Relaxed) {
            let _ = listen(&copy, 128);
        }
    });
    for _ in 0..50 {
        drop(connect().await);
    }
    let (keeper, tasks) = (instance.keeper, instance.tasks);
    drop(keeper);
    assert!(end_of(tasks).await < SOON);
    IS_OVER.store(true, Ordering::Relaxed);
    again.join().unwrap();
}

#[tokio::test]
async fn a_connection_does_not_linger_as_the_listening_socket_says() {
    let listener = TcpListener::bind("127.1.0.2:0").unwrap();
    let address = listener.local_addr().unwrap();
    let plan = plan(&[format!("a.example:{}", address.port())], 1);
    sockopt::set_socket_linger(&listener, Some(Duration::from_secs(3600))).unwrap();
    let door = plan.doors.iter().next().unwrap();
    let listener = OwnedFd::from(listener);
    assert!(fault(&listener, door).is_none());
    let listener = Listener::new(listener);
    let _client = std::net::TcpStream::connect(address).unwrap();
    let Accepted::Connection(socket) = listener.accept() else { panic!("no connection") };
    assert_eq!(sockopt::socket_linger(&socket), Ok(Some(Duration::ZERO)));
    assert!(matches!(listener.accept(), Accepted::Nothing));
    listener.shut();
    assert!(matches!(listener.accept(), Accepted::Closed));
}
