//! Protocol v7 between the platform and a bootstrap, over the stdin and stdout of a container. This module starts no
//! processes.
//!
//! A frame is the length of its body as a `u32`, then the body: one byte for the kind and the rest. All integers are
//! big-endian. The bootstrap begins with a hello. Each invocation has a random nonce, and every frame about the
//! invocation bears the nonce, so that the platform refuses stale and forged frames.
//!
//! The version also rises when a bootstrap promises more; images with an earlier version are built again. A bootstrap
//! of version 7 passes on output without a cap, takes a large input, may be a slot's, opens doors, takes a setup,
//! reports no instance as clean whose limits or priorities were changed, and buffers Python's output by line.
//!
//! The body after the kind, by kind:
//!
//! - `H`, hello, from the bootstrap: version `u8`.
//! - `C`, code, from the platform, once after the hello of a slot's bootstrap, which began without a function: the main
//!   file and the package's name with a NUL between, for Python; nothing for Go. The function's files are there.
//! - `D`, doors, from the platform, once before the setup where the function has doors: for each door the IPv4 address
//!   `u32` and the port `u16` to listen on.
//! - `L`, listening, from the bootstrap, once after the doors: nothing. The frame is one message on the socket, with
//!   the listening sockets as descriptors (SCM_RIGHTS) in the order of the doors. `doors/receipt.rs` receives the
//!   message.
//! - `S`, setup, from the platform, once after the hello or the code: size of the environment `u32`, the function's
//!   own environment, the text that asks for preloading (`preload.rs`).
//! - `P`, prepared, from the bootstrap, once after the setup: OOM `u8`, what was preloaded (`preload.rs`). Then the
//!   bootstrap is ready for its first request.
//! - `I`, invoke, from the platform: nonce, cap of stdout `u32` (0xffffffff for none), cap of stderr `u32`, size of the
//!   environment `u32`, the environment as `NAME=VALUE` with a NUL after each variable, stdin.
//! - `O` and `E`, output, from the bootstrap: nonce, bytes of stdout or of stderr, within the stream's cap.
//! - `X`, exit, from the bootstrap: nonce, wait status `u32`, OOM `u8` (0, 1, 255 for unknown), truncated `u8`, clean
//!   `u8`, duration in µs `u64`, CPU time in µs `u64`, peak memory in bytes `u64`.
//! - `R`, ready, from the bootstrap: nonce of the invocation that was cleaned up. A ready follows only an exit that is
//!   not clean.
//!
//! After a clean exit the platform may send the next request at once, while the bootstrap still prepares for that
//! request.

mod receiver;
mod stdin;

use std::fmt;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::preload;

pub use receiver::Receiver;
pub use stdin::{Spooled, Stdin};

const VERSION: u8 = 7;
/// The cap of a stream without a limit.
const NO_CAP: u32 = u32::MAX;
const NONCE_SIZE: usize = 16;

/// A random number that only the platform and the bootstrap know. Each invocation has a new nonce.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_SIZE]);

impl Nonce {
    /// A new random nonce.
    pub fn random() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(nonce)")
    }
}

/// What holds for all invocations of an instance.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The function's own environment and secrets, in the form of [`Request::environment`]. Empty where nothing is
    /// preloaded.
    pub environment: Vec<(String, String)>,
    /// What to preload.
    pub preload: preload::Plan,
}

/// The input of an invocation.
#[derive(Debug)]
pub struct Request<'a> {
    /// The nonce of this invocation.
    pub nonce: Nonce,
    /// How many bytes of stdout the bootstrap passes on. None for all.
    pub stdout_cap: Option<u32>,
    /// How many bytes of stderr the bootstrap passes on.
    pub stderr_cap: u32,
    /// The names and values of environment variables, beside those of the setup. No name contains `=` or NUL, and no
    /// value contains NUL.
    pub environment: &'a [(String, Vec<u8>)],
    /// What the function reads from stdin.
    pub stdin: &'a Stdin,
}

/// How an invocation ended, as the bootstrap reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The status of the function's process as wait(2) returns.
    pub wait_status: i32,
    /// Whether the kernel's OOM killer acted in the container during the invocation. None when the bootstrap can't
    /// know.
    pub oom: Option<bool>,
    /// Output above the cap was discarded.
    pub truncated: bool,
    /// Nothing of the invocation is left in the container. Otherwise a ready follows after the cleanup.
    pub clean: bool,
    /// The time from the request's arrival in the container to the end of the function's process.
    pub duration: Duration,
    /// The user and system time of the function's process and of the children that the process waited for.
    pub cpu: Duration,
    /// The largest resident set of the function's process, in bytes.
    pub peak_memory: u64,
}

/// A frame from a bootstrap.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The bootstrap is there, and waits for its setup.
    Hello,
    /// The bootstrap is ready for its first request. The bytes say what was preloaded.
    Prepared(Bytes),
    /// Bytes of stdout.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// The invocation has ended.
    Exit(Exit),
    /// Nothing of the invocation is left in the container.
    Ready,
}

/// Why the platform can't go on with a bootstrap.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// The pipe failed or ended.
    #[error("the pipe to the bootstrap broke")]
    Io(#[from] io::Error),
    /// A frame is empty, is larger than the platform accepts, or has a wrong size for its kind.
    #[error("a frame of kind {kind:?} with {size} bytes")]
    Size {
        /// The frame's kind, `?` when the kind was not read.
        kind: char,
        /// The size that the frame announces, in bytes.
        size: u32,
    },
    /// A frame has an unknown kind.
    #[error("a frame of unknown kind {0:?}")]
    Kind(char),
    /// The bootstrap speaks another version of the protocol.
    #[error("the bootstrap speaks version {0} of the protocol, not {VERSION}")]
    Version(u8),
    /// A frame is about another invocation.
    #[error("a frame with a wrong nonce")]
    Nonce,
    /// No frame arrived in time.
    #[error("no frame within {0:?}")]
    Late(Duration),
    /// A listening socket of the instance does not listen any more.
    #[error("the doors of the instance are closed")]
    DoorsClosed,
    /// A well-formed frame arrived where the protocol does not allow the frame.
    #[error("an unexpected frame: {0:?}")]
    Unexpected(Event),
}

/// Sends a setup as one frame.
pub async fn set_up(pipe: &mut (impl AsyncWrite + Unpin), setup: &Setup) -> Result<(), ProtocolError> {
    let (environment, preload) = (block(&setup.environment), setup.preload.encode());
    let size = 1 + 4 + environment.len() + preload.len();
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_u32(size as u32);
    frame.put_u8(b'S');
    frame.put_u32(environment.len() as u32);
    frame.put_slice(&environment);
    frame.put_slice(preload.as_bytes());
    pipe.write_all(&frame).await?;
    pipe.flush().await?;
    Ok(())
}

/// Tells a slot's bootstrap that the function's files are there, with the arguments that a bootstrap of the function's
/// image gets.
pub(super) async fn send_code(pipe: &mut (impl AsyncWrite + Unpin), arguments: &[String]) -> Result<(), ProtocolError> {
    let text = arguments.join("\0");
    let mut frame = BytesMut::with_capacity(4 + 1 + text.len());
    frame.put_u32((1 + text.len()) as u32);
    frame.put_u8(b'C');
    frame.put_slice(text.as_bytes());
    pipe.write_all(&frame).await?;
    pipe.flush().await?;
    Ok(())
}

/// Asks a bootstrap to listen on these addresses of its own network.
pub(super) async fn send_doors(
    pipe: &mut (impl AsyncWrite + Unpin),
    addresses: &[SocketAddrV4],
) -> Result<(), ProtocolError> {
    let size = 1 + 6 * addresses.len();
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_u32(size as u32);
    frame.put_u8(b'D');
    for address in addresses {
        frame.put_u32(address.ip().to_bits());
        frame.put_u16(address.port());
    }
    pipe.write_all(&frame).await?;
    pipe.flush().await?;
    Ok(())
}

/// An environment as the protocol has it.
fn block(variables: &[(String, impl AsRef<[u8]>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in variables {
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_ref());
        block.push(0);
    }
    block
}

/// Sends a request as one frame.
pub async fn send(pipe: &mut (impl AsyncWrite + Unpin), request: &Request<'_>) -> Result<(), ProtocolError> {
    let environment = block(request.environment);
    let size = 1 + NONCE_SIZE + 4 + 4 + 4 + environment.len() + request.stdin.size();
    let in_memory = match request.stdin {
        Stdin::Memory(bytes) => bytes.as_slice(),
        Stdin::File(..) => &[],
    };
    let mut frame = BytesMut::with_capacity(4 + size - request.stdin.size() + in_memory.len());
    frame.put_u32(size as u32);
    frame.put_u8(b'I');
    frame.put_slice(&request.nonce.0);
    frame.put_u32(request.stdout_cap.unwrap_or(NO_CAP));
    frame.put_u32(request.stderr_cap);
    frame.put_u32(environment.len() as u32);
    frame.put_slice(&environment);
    // One write for what a pipe may take at once.
    frame.put_slice(in_memory);
    pipe.write_all(&frame).await?;
    if let Stdin::File(file) = request.stdin {
        file.write_to(pipe).await?;
    }
    pipe.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const NONCE: Nonce = Nonce([7; NONCE_SIZE]);

    pub(super) fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        [&(1 + body.len() as u32).to_be_bytes()[..], &[kind], &body].concat()
    }

    #[tokio::test]
    async fn a_request_has_the_documented_form() {
        let environment = [("NAME".to_owned(), b"Jo=hn".to_vec()), ("X".to_owned(), Vec::new())];
        let stdin = Stdin::Memory(b"{}".to_vec());
        let mut request =
            Request { nonce: NONCE, stdout_cap: Some(258), stderr_cap: 1, environment: &environment, stdin: &stdin };
        let mut sent = Vec::new();
        send(&mut sent, &request).await.unwrap();
        let rest = [&[0, 0, 0, 1], &[0, 0, 0, 14], &b"NAME=Jo=hn\0X=\0"[..], b"{}"].concat();
        assert_eq!(sent, frame(b'I', &[&[7; 16], &[0, 0, 1, 2], &rest]));
        request.stdout_cap = None;
        sent.clear();
        send(&mut sent, &request).await.unwrap();
        assert_eq!(sent, frame(b'I', &[&[7; 16], &[0xff; 4], &rest]));
    }

    #[tokio::test]
    async fn doors_have_the_documented_form() {
        let mut sent = Vec::new();
        let addresses = ["127.1.0.1:3128", "127.1.0.2:443"].map(|address| address.parse().unwrap());
        send_doors(&mut sent, &addresses).await.unwrap();
        assert_eq!(sent, frame(b'D', &[&[127, 1, 0, 1, 0x0c, 0x38], &[127, 1, 0, 2, 1, 0xbb]]));
    }
}
