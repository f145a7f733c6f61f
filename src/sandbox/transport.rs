//! The way between the platform and a bootstrap: a Unix socket in a folder that is mounted into the container. Where
//! the engine does not see this service's folders, the pipes of an attached docker client.
//!
//! Each instance has a folder of its own in the temp folder. The outer folder is the service's alone (0700). The inner
//! folder (0755) is mounted read-only and holds the socket (0666). The bootstrap connects before any code of the
//! function runs. The service takes one peer, which must be the container's user, and removes the folder.

mod socket;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio_util::either::Either;

use crate::resources::scratch::{Scratch, Temporary};
use crate::sandbox::output::{Output, Stream};
use crate::sandbox::protocol::{Event, Exit, Nonce, ProtocolError, Receiver};

pub use socket::{Incoming, Outgoing};

/// The name of the inner folder, which is short because a socket's path has at most 107 bytes.
const INNER: &str = "s";
/// The name of the socket. The bootstraps know the name.
const SOCKET: &str = "socket";

/// Decides how instances are reached, and makes the sockets.
#[derive(Debug)]
pub struct Transport {
    scratch: Scratch,
    way: watch::Sender<Way>,
}

#[derive(Debug)]
enum Way {
    /// No start has found out yet whether sockets work.
    Unknown,
    Sockets,
    /// The reason why sockets can't be used; None where the operator wants pipes.
    Pipes(Option<String>),
}

/// A socket that waits for its bootstrap. A drop removes the socket and its folder.
#[must_use]
#[derive(Debug)]
pub struct Rendezvous {
    folder: Temporary<TempDir>,
    listener: UnixListener,
}

/// The platform's end of the way to a bootstrap.
#[derive(Debug)]
pub struct Wire {
    /// To the bootstrap.
    pub writer: Either<Outgoing, ChildStdin>,
    /// From the bootstrap.
    pub reader: Receiver<Either<Incoming, ChildStdout>>,
    /// The process of the bootstrap, where this process sees that process.
    pub pid: Option<u32>,
}

impl Transport {
    /// A transport over pipes until [`Transport::note`] says that sockets work.
    pub fn new(scratch: Scratch, wants_pipes: bool) -> Self {
        Self { scratch, way: watch::Sender::new(if wants_pipes { Way::Pipes(None) } else { Way::Unknown }) }
    }

    /// Whether it must still be found out whether sockets work.
    pub fn is_unknown(&self) -> bool {
        matches!(*self.way.borrow(), Way::Unknown)
    }

    /// Notes whether sockets work; otherwise with the reason.
    pub fn note(&self, works: Result<(), String>) {
        self.way.send_replace(match works {
            Ok(()) => Way::Sockets,
            Err(reason) => Way::Pipes(Some(reason)),
        });
    }

    /// The reason why sockets can't be used, for people.
    pub fn reason(&self) -> Option<String> {
        match &*self.way.borrow() {
            Way::Pipes(reason) => reason.clone(),
            Way::Unknown | Way::Sockets => None,
        }
    }

    /// Whether instances are reached by sockets.
    pub fn has_sockets(&self) -> bool {
        matches!(*self.way.borrow(), Way::Sockets)
    }

    /// Waits until it is known whether sockets work. Fails where they do not, with the reason, for people.
    pub async fn sockets(&self) -> Result<(), String> {
        let mut way = self.way.subscribe();
        let known = way.wait_for(|way| !matches!(way, Way::Unknown)).await;
        match &*known.expect("the sender is the transport's own") {
            Way::Pipes(None) => Err("INSTANCE_TRANSPORT is pipes".to_owned()),
            Way::Pipes(Some(reason)) => Err(reason.clone()),
            Way::Sockets | Way::Unknown => Ok(()),
        }
    }

    /// A socket for a new instance. None for an instance that is reached by pipes.
    pub async fn rendezvous(&self) -> io::Result<Option<Rendezvous>> {
        if self.has_sockets() { self.open().await.map(Some) } else { Ok(None) }
    }

    /// A socket, whether or not sockets are known to work.
    pub async fn open(&self) -> io::Result<Rendezvous> {
        let folder = self.scratch.folder().await?;
        let inner = folder.path().join(INNER);
        let listener = tokio::task::spawn_blocking(move || listen(&inner)).await.map_err(io::Error::other)??;
        Ok(Rendezvous { folder, listener: UnixListener::from_std(listener)? })
    }
}

/// Makes the inner folder and the socket in the folder. The modes do not depend on the service's umask.
fn listen(inner: &Path) -> io::Result<StdListener> {
    fs::create_dir(inner)?;
    let socket = inner.join(SOCKET);
    let listener = StdListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    fs::set_permissions(inner, fs::Permissions::from_mode(0o755))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Rendezvous {
    /// The folder to be mounted into the container.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join(INNER)
    }

    /// Waits for the bootstrap, which runs as the user `uid`. Nothing else can connect afterwards.
    pub async fn accept(self, uid: u32) -> io::Result<Wire> {
        let (stream, peer) = loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?;
            if peer.uid() == uid {
                break (stream, peer);
            }
        };
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
        let (reader, writer) = socket::split(stream);
        Ok(Wire { writer: Either::Left(writer), reader: Receiver::new(Either::Left(reader)), pid })
    }
}

impl Wire {
    /// The pipes of an attached docker client.
    pub fn of_pipes(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        Self { writer: Either::Right(stdin), reader: Receiver::new(Either::Right(stdout)), pid: None }
    }

    /// The socket to the bootstrap, and whether bytes have arrived that no call has returned. None for pipes.
    pub fn socket(&self) -> Option<(&Incoming, bool)> {
        match self.reader.pipe() {
            (Either::Left(socket), has_spoken) => Some((socket, has_spoken)),
            (Either::Right(_), _) => None,
        }
    }

    /// Receives output until the exit. The output is capped here as well as in the bootstrap, because the platform does
    /// not trust the bootstrap. While `output` has no room, nothing is received, so that the function waits.
    pub async fn exit(&mut self, nonce: Nonce, output: &Output) -> Result<Exit, ProtocolError> {
        loop {
            output.room().await;
            match self.reader.receive(nonce).await? {
                Event::Stdout(bytes) => output.keep(Stream::Stdout, &bytes),
                Event::Stderr(bytes) => output.keep(Stream::Stderr, &bytes),
                Event::Exit(exit) => return Ok(exit),
                other => return Err(ProtocolError::Unexpected(other)),
            }
        }
    }

    /// Whether the bootstrap still holds its end of a socket, and says nothing unasked. None for pipes, which the
    /// docker client holds.
    pub fn is_open(&self) -> Option<bool> {
        let (socket, has_spoken) = self.socket()?;
        let read = socket.try_read(&mut [0]);
        Some(!has_spoken && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
    }
}
