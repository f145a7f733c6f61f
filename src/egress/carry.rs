//! The bytes of a connection, both ways, without more of them here than a buffer each way.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time;

use super::splice::{Rest, splice, write_all};
use super::traffic::Meter;

/// The bytes that are read at a time, and the most that wait here for a reader. Half of this costs a quarter of the
/// speed, and twice as much wins little.
pub(super) const BUFFER: usize = 64 << 10;

/// The time and the bytes that a client has to see an answer, before its connection is ended.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
const MAX_THROWN_AWAY: usize = 64 << 10;

/// One end of what is carried. An end that is dropped before [`End::close`] is reset, so that no half of a transfer
/// looks whole.
#[derive(Debug)]
pub(super) struct End(TcpStream);

impl End {
    /// Takes a connection, with all that the other side may have set on the socket: a socket that lingers would hold up
    /// the thread that closes the socket.
    pub(super) fn new(stream: TcpStream) -> Self {
        let _ = stream.set_zero_linger();
        Self(stream)
    }

    /// Ends the connection in order. The kernel delivers what was written.
    pub(super) fn close(self) {
        let _ = set_socket_linger(&self.0, None);
    }

    /// Ends the connection in order, when the other side has seen what was written or a while later. A socket that is
    /// closed with unread bytes is reset, and the other side would lose what was written.
    pub(super) async fn close_after_last_words(mut self) {
        let seen = async {
            self.0.shutdown().await?;
            throw_away(&mut self.0).await
        };
        let _ = time::timeout(LAST_WORDS, seen).await;
        self.close();
    }
}

impl Deref for End {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl DerefMut for End {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

/// Carries bytes both ways until both sides have ended their halves. `early` came from the inside before. Fails, and
/// resets both, when either side does.
pub(super) async fn carry(mut inner: End, mut outer: End, early: &[u8], meter: &Meter) -> io::Result<()> {
    {
        let ((mut from_inner, mut to_inner), (mut from_outer, mut to_outer)) = (inner.split(), outer.split());
        let out = async {
            write(&mut to_outer, early, |count| meter.sent(count)).await?;
            pass(&mut from_inner, &mut to_outer, |count| meter.sent(count)).await
        };
        let back = pass(&mut from_outer, &mut to_inner, |count| meter.received(count));
        tokio::try_join!(out, back)?;
    }
    inner.close();
    outer.close();
    Ok(())
}

/// Passes on all that comes, and then the end. `count` gets the number of bytes that were passed on, each time.
pub(super) async fn pass(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, count: impl Fn(usize)) -> io::Result<()> {
    loop {
        from.readable().await?;
        // A connection on which nothing comes has no buffer.
        let mut buffer = vec![0; BUFFER];
        let is_full = loop {
            match from.try_read(&mut buffer) {
                Ok(0) => return to.shutdown().await,
                Ok(length) => {
                    write(to, &buffer[..length], &count).await?;
                    if length == BUFFER {
                        break true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) => return Err(error),
            }
        };
        drop(buffer);
        if is_full && splice(from, to, &count).await? == Rest::End {
            return to.shutdown().await;
        }
    }
}

/// Writes all bytes, and counts what has gone also when not all does.
pub(super) async fn write(to: &mut WriteHalf<'_>, bytes: &[u8], count: impl Fn(usize)) -> io::Result<()> {
    write_all(to, bytes.len(), count, |gone| to.try_write(&bytes[gone..])).await
}

/// Reads what still comes, up to the end or to a limit.
pub(super) async fn throw_away(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut left = MAX_THROWN_AWAY;
    while left > 0 {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        left = left.saturating_sub(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
