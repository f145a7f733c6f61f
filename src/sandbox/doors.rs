//! The doors of an instance: listening sockets of the container's own network, which the bootstrap makes and the
//! service serves.
//!
//! What a bootstrap passes is hostile: the other side may hold copies of a socket, may change the socket at any time,
//! and may make a call on the socket block, even a close. So each instance with doors has a thread that serves nothing
//! else. The thread receives and checks the sockets, and is the only place that accepts:
//!
//! ```text
//! Doorkeeper (the instance) ── open, close, drop ──> Board <── connections, one task each (Visit)
//!        └─ thread: receipt, then accept ───────────> Board
//! ```
//! A connection that was accepted is the service's alone, and goes to a task of the invocation under way. Between
//! invocations each connection is reset.

mod board;
mod keeper;
mod listener;
mod receipt;
mod thread;

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::domain::FunctionId;
use crate::domain::settings::network::Network;
use crate::egress::{Doors, Egress};
use crate::sandbox::protocol::{self, ProtocolError};
use crate::sandbox::transport::Wire;

pub use keeper::Doorkeeper;

/// The longest time in which a bootstrap may open the doors.
const RECEIPT_LIMIT: Duration = Duration::from_secs(10);

/// What the doors of an instance are, and who serves the connections.
#[derive(Debug)]
pub struct Plan {
    /// The function, for the log.
    pub function: FunctionId,
    /// What programs may reach.
    pub network: Network,
    /// The doors for that.
    pub doors: Doors,
    /// Serves the connections.
    pub egress: Egress,
    /// The most connections at one time. Further connections wait.
    pub connections: u32,
}

/// Why an instance has no doors.
#[derive(Debug, Error)]
pub enum DoorsError {
    /// The instance is reached by pipes, which pass no sockets.
    #[error("the function's network needs sockets to the containers, and the service reaches the containers by pipes")]
    Pipes,
    /// The bootstrap did not pass the sockets in time.
    #[error("the bootstrap did not open the doors within {0:?}")]
    Late(Duration),
    /// The bootstrap has closed the connection. The bootstrap prints the reason.
    #[error("the bootstrap went away before the doors were open")]
    Gone,
    /// The bootstrap said something else.
    #[error("the bootstrap did not answer with the doors")]
    Frame,
    /// The bootstrap passed more or fewer descriptors than there are doors.
    #[error("the bootstrap passed {passed} descriptors for {expected} doors")]
    Count {
        /// The number of doors.
        expected: usize,
        /// The number of descriptors for which the service had room.
        passed: usize,
    },
    /// A descriptor is not what the door needs.
    #[error("the descriptor for the door {door} {reason}")]
    Descriptor {
        /// The door's address in the container.
        door: SocketAddrV4,
        /// What is wrong.
        reason: &'static str,
    },
    /// The service lacks a thread, descriptors or memory.
    #[error("the service has no room for doors")]
    Room(#[source] io::Error),
}

/// The reason to end an instance: a door is closed, or connections wait at a door for ever.
#[derive(Debug, Error)]
#[error("the doors of the instance are closed, or can't be emptied")]
pub struct DoorsClosed;

/// Has a bootstrap open the doors of a plan, and waits until the service has the doors. Until the first invocation each
/// connection is reset.
///
/// # Errors
/// On an error nothing that the bootstrap has passed stays open.
pub(super) async fn open(wire: &mut Wire, plan: &Arc<Plan>, tasks: &TaskTracker) -> Result<Doorkeeper, DoorsError> {
    let socket = match wire.socket() {
        None => return Err(DoorsError::Pipes),
        // The bootstrap has said something unasked.
        Some((_, true)) => return Err(DoorsError::Frame),
        Some((socket, false)) => socket.try_clone().map_err(DoorsError::Room)?,
    };
    let addresses: Vec<SocketAddrV4> = plan.doors.iter().map(|door| door.address).collect();
    let asked = protocol::send_doors(&mut wire.writer, &addresses).await;
    asked.map_err(|error| if let ProtocolError::Io(_) = error { DoorsError::Gone } else { DoorsError::Frame })?;
    receive(socket, plan, tasks).await
}

async fn receive(socket: OwnedFd, plan: &Arc<Plan>, tasks: &TaskTracker) -> Result<Doorkeeper, DoorsError> {
    let received = tokio::time::timeout(RECEIPT_LIMIT, Doorkeeper::start(socket, Arc::clone(plan), tasks.clone()));
    received.await.unwrap_or(Err(DoorsError::Late(RECEIPT_LIMIT)))
}

#[cfg(test)]
mod tests;
