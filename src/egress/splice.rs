//! Bytes that go from one socket to the other without a copy, by splice(2): for streams that come faster than a buffer
//! at a time. The kernel holds them in a pipe.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time;

/// The most tries in a row to write to a socket that has no room in truth.
const MAX_VAIN: u32 = 1000;
/// The size of a pipe in bytes, where each page of the pipe has a page of memory. Half of this costs up to a seventh of
/// the speed on a machine whose memory is fast.
const PIPE: usize = 512 << 10;
/// The most bytes of a call, and so in a pipe: a page of the pipe may have more than a page of memory.
const MOST: usize = PIPE;
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
/// The time for which a stream that has nothing more keeps its pipe.
const PATIENCE: Duration = Duration::from_millis(20);

/// Why no more bytes are spliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing more comes just now, or the kernel splices no such sockets.
    Later,
    /// The stream has ended.
    End,
}

/// Passes on what comes, until nothing more comes for a moment. `count` gets the number of bytes that were passed on,
/// each time. All that was taken from `from` is in `to` when this function returns without an error.
pub(super) async fn splice(from: &ReadHalf<'_>, to: &WriteHalf<'_>, count: impl Fn(usize)) -> io::Result<Rest> {
    // Without descriptors for a pipe, the bytes are copied.
    let Ok((out, into)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else { return Ok(Rest::Later) };
    // A user who has many pipes gets small ones, which do as well.
    let _ = fcntl_setpipe_size(&into, PIPE);
    loop {
        match take(from.as_ref(), &into) {
            Ok(0) => return Ok(Rest::End),
            Ok(length) => {
                let stream: &TcpStream = to.as_ref();
                let give = |given| {
                    stream.try_io(Interest::WRITABLE, || {
                        Ok(rustix::pipe::splice(&out, None, stream, None, length - given, FLAGS)?)
                    })
                };
                write_all(to, length, &count, give).await?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let Ok(ready) = time::timeout(PATIENCE, from.readable()).await else { return Ok(Rest::Later) };
                ready?;
            }
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(Rest::Later),
            Err(error) => return Err(error),
        }
    }
}

fn take(from: &TcpStream, into: &OwnedFd) -> io::Result<usize> {
    from.try_io(Interest::READABLE, || Ok(rustix::pipe::splice(from, None, into, None, MOST, FLAGS)?))
}

/// Writes so many bytes, and counts what has gone also when not all does. `write` makes a try, and gets the number of
/// bytes that have gone. Fails where the socket says again and again that there is room, and has none: what a bootstrap
/// may set on a door's socket has this effect.
pub(super) async fn write_all(
    to: &WriteHalf<'_>,
    length: usize,
    count: impl Fn(usize),
    write: impl Fn(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut gone, mut vain) = (0, 0);
    while gone < length {
        to.writable().await?;
        match write(gone) {
            Ok(written) => {
                count(written);
                (gone, vain) = (gone + written, 0);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && vain < MAX_VAIN => vain += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
