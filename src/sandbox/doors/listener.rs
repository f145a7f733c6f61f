//! One listening socket of an instance. All but [`Listener::shut`] and a look by poll(2) belongs to the thread at the
//! doors, as the other side can make such calls block.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use super::DoorsError;
use crate::egress::Door;

/// A socket that is a door's.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// What an accept(2) came to.
pub(super) enum Accepted {
    /// A connection, which is the service's alone.
    Connection(OwnedFd),
    /// No connection waits any more.
    Nothing,
    /// The service can take no connection now.
    Lack(Errno),
    /// The socket listens no more.
    Closed,
}

impl Listener {
    /// Takes a descriptor without a [`fault`].
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Takes the next connection. The call may block where the other side has taken the connection, and has made the
    /// socket a blocking one.
    pub(super) fn accept(&self) -> Accepted {
        let accepted = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        // A connection has the options of the socket that listens. A close of a connection with another lingering time
        // would block, whatever thread closes the connection. So connections are reset unless they end in good order.
        let accepted =
            accepted.and_then(|socket| sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map(|()| socket));
        match accepted {
            Ok(socket) => Accepted::Connection(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Accepted::Nothing,
            Err(Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => Accepted::Closed,
            // Too many descriptors, mostly. The connection still waits, so a further try at once would fail again.
            Err(error) => Accepted::Lack(error),
        }
    }

    /// Ends the listening, for all who hold the socket: connections that wait are reset, and a thread that waits in
    /// accept(2) goes on.
    pub(super) fn shut(&self) {
        // What the other side has made of the socket must not make the close block.
        let _ = sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What keeps a descriptor from being the listening socket of a door; None when nothing does.
pub(super) fn fault(socket: &OwnedFd, door: &Door) -> Option<DoorsError> {
    fault_at(socket, door.address).map(|reason| DoorsError::Descriptor { door: door.address, reason })
}

fn fault_at(socket: &OwnedFd, address: SocketAddrV4) -> Option<&'static str> {
    let Ok(domain) = sockopt::socket_domain(socket) else { return Some("is no socket") };
    if domain != AddressFamily::INET {
        return Some("is a socket of another family than IPv4");
    }
    if sockopt::socket_type(socket) != Ok(SocketType::STREAM) {
        return Some("is no socket of streams");
    }
    if sockopt::socket_protocol(socket) != Ok(Some(ipproto::TCP)) {
        return Some("is no socket of TCP");
    }
    if sockopt::socket_acceptconn(socket) != Ok(true) {
        return Some("is a socket that does not listen");
    }
    if sockopt::socket_reuseport(socket) != Ok(false) {
        return Some("is a socket that shares its address with others");
    }
    let bound = rustix::net::getsockname(socket).ok().and_then(|bound| SocketAddrV4::try_from(bound).ok());
    if bound != Some(address) {
        return Some("is a socket that listens on another address");
    }
    // The other side can undo this at any time. Among honest sides no accept(2) blocks.
    let set = fcntl_getfl(socket).and_then(|flags| fcntl_setfl(socket, flags | OFlags::NONBLOCK));
    set.is_err().then_some("is a socket whose flags can't be set")
}
