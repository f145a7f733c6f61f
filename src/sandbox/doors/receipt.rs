//! Receives the listening sockets: one message of the bootstrap with one descriptor for each door.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::DoorsError;
use super::listener::Listener;
use crate::egress::Doors;
use crate::sandbox::descriptors;

/// The only message: a frame of kind `L` without more.
const FRAME: [u8; 5] = [0, 0, 0, 1, b'L'];

/// Receives the message, if the message has come. All descriptors are closed when the message or any descriptor is not
/// as the protocol wants.
pub(super) fn take(socket: impl AsFd, doors: &Doors) -> Result<Option<Vec<Listener>>, DoorsError> {
    let mut bytes = [0; FRAME.len()];
    let received = match descriptors::receive(socket, &mut bytes) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(_) => return Err(DoorsError::Gone),
    };
    let passed = received.descriptors.len();
    if received.size == 0 {
        return Err(DoorsError::Gone);
    }
    if passed != doors.len() || received.is_cut {
        return Err(DoorsError::Count { expected: doors.len(), passed });
    }
    if received.size != FRAME.len() || bytes != FRAME {
        return Err(DoorsError::Frame);
    }
    let checked = received.descriptors.into_iter().zip(doors).map(|(socket, door)| Listener::check(socket, door));
    checked.collect::<Result<_, _>>().map(Some)
}
