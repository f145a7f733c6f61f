use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::domain::Destined;
use crate::egress::Traffic;
use crate::egress::tests::SOON;

/// A connection through [`carry`], as the program and the destination have its ends.
struct Carried {
    program: TcpStream,
    destination: TcpStream,
    task: JoinHandle<io::Result<()>>,
    traffic: Traffic,
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

async fn carried(early: &'static [u8]) -> Carried {
    let ((program, inner), (outer, destination)) = (pair().await, pair().await);
    let traffic = Traffic::default();
    let meter = traffic.connected("a.example:1");
    let task = tokio::spawn(async move { carry(End::new(inner), End::new(outer), early, &meter).await });
    Carried { program, destination, task, traffic }
}

impl Carried {
    fn counts(&self) -> (u64, u64) {
        let [Destined { sent_bytes, received_bytes, .. }] = &self.traffic.report()[..] else { panic!("one entry") };
        (*sent_bytes, *received_bytes)
    }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn each_half_ends_by_itself() {
    let mut all = carried(b"early ").await;
    all.program.write_all(b"question").await.unwrap();
    all.program.shutdown().await.unwrap();
    assert_eq!(read_all(&mut all.destination).await, b"early question");
    all.destination.write_all(b"answer").await.unwrap();
    time::sleep(Duration::from_millis(50)).await;
    assert!(!all.task.is_finished(), "the destination's half is open");
    all.destination.shutdown().await.unwrap();
    assert_eq!(read_all(&mut all.program).await, b"answer");
    all.task.await.unwrap().unwrap();
    assert_eq!(all.traffic.report()[0].sent_bytes, 14);

    let mut all = carried(b"").await;
    all.destination.shutdown().await.unwrap();
    assert_eq!(read_all(&mut all.program).await, b"");
    all.program.write_all(b"more").await.unwrap();
    all.program.shutdown().await.unwrap();
    assert_eq!(read_all(&mut all.destination).await, b"more");
    all.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hundred_megabytes_go_through_and_are_counted() {
    const SIZE: usize = 100_000_000;
    let Carried { program, destination, task, traffic } = carried(b"").await;
    let send = |mut to: tokio::net::tcp::OwnedWriteHalf| async move {
        let piece: Arc<[u8]> = (0..=255).cycle().take(100_000).collect::<Vec<u8>>().into();
        for _ in 0..SIZE / piece.len() {
            to.write_all(&piece).await.unwrap();
        }
    };
    let receive = |mut from: tokio::net::tcp::OwnedReadHalf| async move {
        let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
        loop {
            match from.read(&mut buffer).await.unwrap() {
                0 => return total,
                length => total += length,
            }
        }
    };
    let ((from_program, to_program), (from_destination, to_destination)) =
        (program.into_split(), destination.into_split());
    let before = resident();
    let (_, _, out, back) =
        tokio::join!(send(to_program), send(to_destination), receive(from_destination), receive(from_program));
    assert_eq!((out, back), (SIZE, SIZE));
    // Other tests of this process take memory at the same time.
    assert!(resident() < before + 50_000_000, "{before} {}", resident());
    task.await.unwrap().unwrap();
    let report = &traffic.report()[0];
    assert_eq!((report.sent_bytes, report.received_bytes), (SIZE as u64, SIZE as u64));
}

/// The memory of this process, in bytes.
fn resident() -> u64 {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn a_reader_that_stalls_holds_the_writer() {
    let mut all = carried(b"").await;
    let mut written = 0;
    // The buffers of the kernel fill up. Then nothing more goes.
    while let Ok(length) = time::timeout(Duration::from_millis(300), all.program.write(&[1; 1 << 16])).await {
        written += length.unwrap();
        assert!(written < 100_000_000, "the writer is not held");
    }
    let mut read = 0;
    let mut buffer = vec![0; 1 << 16];
    all.program.shutdown().await.unwrap();
    loop {
        match all.destination.read(&mut buffer).await.unwrap() {
            0 => break,
            length => read += length,
        }
    }
    assert_eq!((read, all.counts().0), (written, written as u64));
}

#[tokio::test]
async fn a_drop_and_a_reset_reset_both_ends() {
    let mut all = carried(b"").await;
    all.program.write_all(b"x").await.unwrap();
    assert_eq!(all.destination.read_u8().await.unwrap(), b'x');
    all.task.abort();
    for stream in [&mut all.program, &mut all.destination] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    for is_program in [true, false] {
        let Carried { program, destination, task, .. } = carried(b"").await;
        let (gone, mut left) = if is_program { (program, destination) } else { (destination, program) };
        gone.set_zero_linger().unwrap();
        drop(gone);
        assert_eq!(left.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(task.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_socket_that_lingers_holds_no_thread_up() {
    for in_order in [true, false] {
        let (mut program, inner) = pair().await;
        // As a listener that a hostile supervisor has made passes on.
        set_socket_linger(&inner, Some(Duration::from_secs(30))).unwrap();
        let mut inner = End::new(inner);
        while time::timeout(Duration::from_millis(200), inner.write(&[1; 1 << 16])).await.is_ok() {}
        let began = Instant::now();
        if in_order {
            inner.close()
        } else {
            drop(inner)
        }
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        let read = tokio::io::copy(&mut program, &mut tokio::io::sink()).await;
        assert_eq!(read.is_ok(), in_order, "{read:?}");
    }
}

#[tokio::test]
async fn last_words_are_seen_by_a_client_that_still_writes() {
    // The client needs its processor within the time for the last words, which a busy machine may not give at once.
    let mut is_heard = false;
    for _ in 0..10 {
        let (mut client, server) = pair().await;
        client.write_all(&[0; 50_000]).await.unwrap();
        let mut server = End::new(server);
        server.write_all(b"no").await.unwrap();
        let began = Instant::now();
        let (heard, ()) = tokio::join!(
            async {
                time::sleep(Duration::from_millis(100)).await;
                let mut heard = Vec::new();
                let is_whole = client.read_to_end(&mut heard).await.is_ok();
                drop(client);
                is_whole && heard == b"no"
            },
            server.close_after_last_words()
        );
        is_heard = heard && began.elapsed() < LAST_WORDS;
        if is_heard {
            break;
        }
    }
    assert!(is_heard);
    let (_client, server) = pair().await;
    let began = Instant::now();
    End::new(server).close_after_last_words().await;
    assert!(began.elapsed() >= LAST_WORDS, "a client that says nothing is waited for");
}
