//! The service's end of a socket to a bootstrap.
//!
//! What nobody receives is closed by the kernel, on the thread that reads from the socket or closes the socket. Such a
//! close must not hold up the thread of all tasks. So descriptors are received here, although none are wanted, and
//! end the instance; and the socket is closed by a thread of its own. A kernel before Linux 6.9 may then close what
//! other sockets, of other containers, have left in flight. The one message with descriptors that is wanted is received
//! elsewhere (`doors`).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{Shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::sandbox::descriptors;

/// The most bytes that are read at once.
const MOST: usize = 64 << 10;

/// From the bootstrap.
#[derive(Debug)]
pub struct Incoming(Arc<Socket>);

/// To the bootstrap.
#[derive(Debug)]
pub struct Outgoing(Arc<Socket>);

/// Both directions; None only within the drop.
#[derive(Debug)]
struct Socket(Option<UnixStream>);

/// The two directions of a socket. The socket is closed when both are dropped.
pub(super) fn split(stream: UnixStream) -> (Incoming, Outgoing) {
    // Otherwise each read throws away a byte that is sent "out of band", with the byte's descriptors.
    let _ = sockopt::set_socket_oobinline(&stream, true);
    let socket = Arc::new(Socket(Some(stream)));
    (Incoming(Arc::clone(&socket)), Outgoing(socket))
}

impl Incoming {
    /// A further descriptor for the socket.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.stream().as_fd().try_clone_to_owned()
    }

    fn stream(&self) -> &UnixStream {
        self.0.stream()
    }

    /// Reads what has arrived.
    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream().try_io(Interest::READABLE, || {
            let received = descriptors::receive(self.stream(), bytes)?;
            if received.descriptors.is_empty() && !received.is_cut {
                return Ok(received.size);
            }
            descriptors::close(received.descriptors);
            Err(io::Error::new(ErrorKind::InvalidData, "the bootstrap has passed descriptors unasked"))
        })
    }
}

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream().poll_read_ready(context))?;
            let most = buffer.remaining().min(MOST);
            match self.try_read(buffer.initialize_unfilled_to(most)) {
                Ok(size) => {
                    buffer.advance(size);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream().poll_write_ready(context))?;
            match self.0.stream().try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(self.0.stream(), Shutdown::Write).map_err(Into::into))
    }
}

impl Socket {
    fn stream(&self) -> &UnixStream {
        self.0.as_ref().expect("the socket is there until the drop")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(stream) = self.0.take() else { return };
        // The other side knows at once.
        let _ = rustix::net::shutdown(&stream, Shutdown::Both);
        if let Ok(stream) = stream.into_std() {
            descriptors::close(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream as StdStream;
    use std::time::Duration;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// The time that the close of a connection waits here.
    const LINGER: Duration = Duration::from_secs(20);
    const AT_ONCE: Duration = Duration::from_secs(10);

    /// A connection whose close waits, and its other side.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&connection, Some(LINGER)).unwrap();
        connection.set_nonblocking(true).unwrap();
        while connection.write(&[0; 65536]).is_ok() {}
        (connection.into(), other)
    }

    fn pass(way: &StdStream, descriptor: &OwnedFd) {
        pass_with(way, descriptor, SendFlags::empty());
    }

    fn pass_with(way: &StdStream, descriptor: &OwnedFd, flags: SendFlags) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptor = [descriptor.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptor)));
        sendmsg(way, &[io::IoSlice::new(b"byte")], &mut control, flags).unwrap();
    }

    fn pair() -> (StdStream, Incoming, Outgoing) {
        let (theirs, ours) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (incoming, outgoing) = split(UnixStream::from_std(ours).unwrap());
        (theirs, incoming, outgoing)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_to_the_end() {
        let (theirs, mut incoming, mut outgoing) = pair();
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = UnixStream::from_std(theirs).unwrap();
        let sent: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
        let echo = async {
            let mut bytes = vec![0; sent.len()];
            theirs.read_exact(&mut bytes).await.unwrap();
            theirs.write_all(&bytes).await.unwrap();
            drop(theirs);
        };
        let mut received = Vec::new();
        let ((), written, read) = tokio::join!(echo, outgoing.write_all(&sent), incoming.read_to_end(&mut received));
        written.and(read).unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn descriptors_with_a_frame_are_an_error_and_are_closed() {
        let (theirs, mut incoming, _outgoing) = pair();
        let (end, mut other) = io::pipe().unwrap();
        pass(&theirs, &end.into());
        let error = incoming.read(&mut [0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let began = Instant::now();
        while other.write(b"x").is_ok() {
            assert!(began.elapsed() < AT_ONCE);
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn descriptors_whose_close_waits_do_not_hold_up_a_reader() {
        for flags in [SendFlags::empty(), SendFlags::OOB] {
            let (theirs, mut incoming, _outgoing) = pair();
            let (connection, other) = lingering();
            pass_with(&theirs, &connection, flags);
            drop(connection);
            let began = Instant::now();
            let error = incoming.read(&mut [0; 100]).await.unwrap_err();
            assert!(began.elapsed() < AT_ONCE);
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            drop(other);
        }
    }

    #[tokio::test]
    async fn descriptors_whose_close_waits_do_not_hold_up_the_close() {
        for flags in [SendFlags::empty(), SendFlags::OOB] {
            let (theirs, incoming, outgoing) = pair();
            let (connection, other) = lingering();
            pass_with(&theirs, &connection, flags);
            drop(connection);
            let began = Instant::now();
            drop((incoming, outgoing));
            // The kernel closes what nobody refers to later.
            drop(theirs);
            sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < AT_ONCE);
            drop(other);
        }
    }
}
