//! Receives the listening sockets: one message of the bootstrap with one descriptor for each door.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::DoorsError;
use super::listener::{self, Listener};
use crate::egress::Doors;
use crate::sandbox::descriptors::{self, Received};

/// The only message: a frame of kind `L` without more.
const FRAME: [u8; 5] = [0, 0, 0, 1, b'L'];

/// Receives the message, if the message has come. All descriptors are closed when the message or any descriptor is not
/// as the protocol wants: by a thread of their own, as the reason must not wait for a hostile close.
pub(super) fn take(socket: impl AsFd, doors: &Doors) -> Result<Option<Vec<Listener>>, DoorsError> {
    let mut bytes = [0; FRAME.len()];
    let received = match descriptors::receive(socket, &mut bytes) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(_) => return Err(DoorsError::Gone),
    };
    if let Some(error) = fault(&received, &bytes, doors) {
        descriptors::close(received.descriptors);
        return Err(error);
    }
    Ok(Some(received.descriptors.into_iter().map(Listener::new).collect()))
}

fn fault(received: &Received, bytes: &[u8; FRAME.len()], doors: &Doors) -> Option<DoorsError> {
    let passed = received.descriptors.len();
    if received.size == 0 {
        return Some(DoorsError::Gone);
    }
    if passed != doors.len() || received.is_cut {
        return Some(DoorsError::Count { expected: doors.len(), passed });
    }
    if received.size != FRAME.len() || *bytes != FRAME {
        return Some(DoorsError::Frame);
    }
    received.descriptors.iter().zip(doors).find_map(|(socket, door)| listener::fault(socket, door))
}
