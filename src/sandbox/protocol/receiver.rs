//! Reads frames from a bootstrap.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Event, Exit, NONCE_SIZE, Nonce, ProtocolError, VERSION};

/// The largest body of a frame, in bytes. Bootstraps read at most 64 KiB at a time from a function.
const MAX_FRAME: u32 = 128 << 10;
/// The room for what arrives at once, in bytes.
const ROOM: usize = 8 << 10;
/// The size of the length before a frame's body, in bytes.
const LENGTH: usize = 4;

/// The platform's reading end of the way to a bootstrap. A call that is cancelled loses nothing of what has arrived.
#[derive(Debug)]
pub struct Receiver<R> {
    pipe: R,
    arrived: BytesMut,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Reads frames from this pipe or socket.
    pub fn new(pipe: R) -> Self {
        Self { pipe, arrived: BytesMut::new() }
    }

    /// The pipe or socket, and whether bytes have arrived that no call has returned.
    pub fn pipe(&self) -> (&R, bool) {
        (&self.pipe, !self.arrived.is_empty())
    }

    /// Receives the next frame. A hello and a prepared have no nonce.
    pub async fn receive(&mut self, nonce: Nonce) -> Result<Event, ProtocolError> {
        loop {
            if let Some(body) = self.take_frame()? {
                return event(body, nonce);
            }
            if self.pipe.read_buf(&mut self.arrived).await? == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads to the end, and throws away what arrives.
    pub async fn drain(&mut self) {
        self.arrived.clear();
        self.arrived.reserve(ROOM);
        while let Ok(1..) = self.pipe.read_buf(&mut self.arrived).await {
            self.arrived.clear();
        }
    }

    /// The body of the next frame, if the whole frame has arrived. Otherwise there is room for more bytes.
    fn take_frame(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let Some(&length) = self.arrived.first_chunk::<LENGTH>() else {
            self.arrived.reserve(ROOM);
            return Ok(None);
        };
        let size = u32::from_be_bytes(length);
        if size == 0 || size > MAX_FRAME {
            return Err(ProtocolError::Size { kind: '?', size });
        }
        let end = LENGTH + size as usize;
        if self.arrived.len() < end {
            self.arrived.reserve((end - self.arrived.len()).max(ROOM));
            return Ok(None);
        }
        self.arrived.advance(LENGTH);
        Ok(Some(self.arrived.split_to(size as usize).freeze()))
    }
}

/// The event that a frame's body stands for.
fn event(mut body: Bytes, nonce: Nonce) -> Result<Event, ProtocolError> {
    let size = body.len() as u32;
    let kind = body.get_u8();
    let bad_size = ProtocolError::Size { kind: char::from(kind), size };
    if kind == b'H' {
        return match body.first() {
            Some(&VERSION) => Ok(Event::Hello),
            Some(&other) => Err(ProtocolError::Version(other)),
            None => Err(bad_size),
        };
    }
    if kind == b'P' {
        return Ok(Event::Prepared(body));
    }
    if body.len() < NONCE_SIZE {
        return Err(bad_size);
    }
    if body.split_to(NONCE_SIZE) != nonce.0[..] {
        return Err(ProtocolError::Nonce);
    }
    match kind {
        b'O' => Ok(Event::Stdout(body)),
        b'E' => Ok(Event::Stderr(body)),
        b'X' if body.len() == 31 => Ok(Event::Exit(Exit {
            wait_status: body.get_i32(),
            oom: match body.get_u8() {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
            truncated: body.get_u8() != 0,
            clean: body.get_u8() != 0,
            duration: Duration::from_micros(body.get_u64()),
            cpu: Duration::from_micros(body.get_u64()),
            peak_memory: body.get_u64(),
        })),
        b'R' if body.is_empty() => Ok(Event::Ready),
        b'X' | b'R' => Err(bad_size),
        other => Err(ProtocolError::Kind(char::from(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::protocol::tests::{NONCE, frame};

    async fn received(bytes: &[u8]) -> Result<Event, ProtocolError> {
        Receiver::new(bytes).receive(NONCE).await
    }

    #[tokio::test]
    async fn each_kind_of_frame_is_understood() {
        assert_eq!(received(&frame(b'H', &[&[7]])).await.unwrap(), Event::Hello);
        assert_eq!(received(&frame(b'P', &[b"\0"])).await.unwrap(), Event::Prepared(Bytes::from("\0")));
        assert_eq!(received(&frame(b'O', &[&[7; 16], b"hi"])).await.unwrap(), Event::Stdout(Bytes::from("hi")));
        assert_eq!(received(&frame(b'E', &[&[7; 16]])).await.unwrap(), Event::Stderr(Bytes::new()));
        assert_eq!(received(&frame(b'R', &[&[7; 16]])).await.unwrap(), Event::Ready);
        let numbers = [1500_u64.to_be_bytes(), 900_u64.to_be_bytes(), 4096_u64.to_be_bytes()].concat();
        let exit = received(&frame(b'X', &[&[7; 16], &[0, 0, 1, 0], &[255, 1, 1], &numbers])).await.unwrap();
        let expected = Exit {
            wait_status: 256,
            oom: None,
            truncated: true,
            clean: true,
            duration: Duration::from_micros(1500),
            cpu: Duration::from_micros(900),
            peak_memory: 4096,
        };
        assert_eq!(exit, Event::Exit(expected));
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_is_refused() {
        use ProtocolError as E;
        assert!(matches!(received(&frame(b'O', &[&[8; 16], b"forged"])).await, Err(E::Nonce)));
        assert!(matches!(received(&frame(b'O', &[b"short"])).await, Err(E::Size { kind: 'O', .. })));
        assert!(matches!(received(&frame(b'X', &[&[7; 16], b"short"])).await, Err(E::Size { kind: 'X', .. })));
        assert!(matches!(received(&frame(b'H', &[&[1]])).await, Err(E::Version(1))));
        assert!(matches!(received(&frame(b'Z', &[&[7; 16]])).await, Err(E::Kind('Z'))));
        assert!(matches!(received(&frame(b'L', &[&[7; 16]])).await, Err(E::Kind('L'))));
        assert!(matches!(received(&[255; 64]).await, Err(E::Size { .. })));
        assert!(matches!(received(&[0; 64]).await, Err(E::Size { .. })));
        assert!(matches!(received(&frame(b'H', &[&[1]])[..5]).await, Err(E::Io(_))));
    }

    #[tokio::test]
    async fn a_cancelled_call_loses_nothing() {
        let (mut bootstrap, platform) = tokio::io::duplex(1 << 20);
        let mut receiver = Receiver::new(platform);
        let mut events = Vec::new();
        let whole = [frame(b'O', &[&[7; 16], &[b'x'; 50_000]]), frame(b'R', &[&[7; 16]])].concat();
        for piece in whole.chunks(9_000) {
            tokio::io::AsyncWriteExt::write_all(&mut bootstrap, piece).await.unwrap();
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(5), receiver.receive(NONCE)).await {
                events.push(event.unwrap());
            }
        }
        events.push(receiver.receive(NONCE).await.unwrap());
        assert_eq!(events, [Event::Stdout(Bytes::from(vec![b'x'; 50_000])), Event::Ready]);
        assert!(!receiver.pipe().1);
    }
}
