//! A bootstrap that was taken over, against the receipt of the sockets and against the thread at the doors.

mod connections;
mod receipt;

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::config;
use crate::egress::Forbidden;

const FRAME: [u8; 5] = [0, 0, 0, 1, b'L'];
/// The longest time that anything here may take.
const SOON: Duration = Duration::from_secs(10);

/// A plan with these rules.
fn plan(rules: &[String], connections: u32) -> Arc<Plan> {
    let network = Network::new(rules).unwrap();
    let (allow, private) = (network.allow.clone(), Vec::new());
    let config = config::Egress { allow, private, connections, connect_timeout: Duration::from_secs(5) };
    let (doors, egress) = (Doors::of(&network), Egress::new(&config, Forbidden::default()));
    Arc::new(Plan { function: FunctionId::random(), network, doors, egress, connections })
}

/// A plan with one named host for each listening socket that comes with the plan.
fn plan_with_sockets(count: u8) -> (Arc<Plan>, Vec<TcpListener>) {
    let listen = |number| TcpListener::bind((Ipv4Addr::new(127, 1, 0, 2 + number), 0)).unwrap();
    let listeners: Vec<TcpListener> = (0..count).map(listen).collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let rules: Vec<String> =
        listeners.iter().enumerate().map(|(n, listener)| format!("{n}.example:{}", port(listener))).collect();
    (plan(&rules, 64), listeners)
}

/// Sends a message with these descriptors.
fn pass(way: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(way, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// What the kernel calls an open file or socket. All descriptors of one have the same name.
fn name_of(descriptor: impl AsFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())).unwrap();
    link.to_str().unwrap().to_owned()
}

/// The number of descriptors of this process for the file or socket of this name.
fn count_open(name: &str) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|link| link.to_str() == Some(name)))
        .count()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "the test waited in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the doors of a doorkeeper that was dropped are closed. Returns the time that takes.
async fn end_of(tasks: TaskTracker) -> Duration {
    let began = Instant::now();
    tasks.close();
    timeout(SOON, tasks.wait()).await.expect("the end of the doors");
    began.elapsed()
}
