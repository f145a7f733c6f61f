//! Descriptors that a bootstrap passes over its socket. Such a descriptor is hostile: a close may wait for ever, as the
//! close of a connection that lingers and whose other side takes nothing does.

use std::io::IoSliceMut;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// The most descriptors of a message, by the kernel (SCM_MAX_FD).
const MOST: usize = 253;

/// What a call of recvmsg(2) has brought.
#[derive(Debug)]
pub(super) struct Received {
    /// The number of bytes.
    pub(super) size: usize,
    /// The descriptors, each of which has this owner from the call on, and is close-on-exec.
    pub(super) descriptors: Vec<OwnedFd>,
    /// Whether the kernel has closed descriptors for which this process has no room.
    pub(super) is_cut: bool,
}

/// Receives what has arrived: bytes, up to and with those that came with descriptors. Does not wait.
pub(super) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok(Received { size: received.bytes, descriptors, is_cut: received.flags.contains(ReturnFlags::CTRUNC) })
}

/// Closes what came from a bootstrap, in a thread of its own. Where a close waits for ever, nothing else does. What no
/// thread can be had for stays open for ever.
pub(super) fn close(hostile: impl Send + 'static) {
    let hostile = ManuallyDrop::new(hostile);
    let closing = std::thread::Builder::new().name("close".to_owned()).stack_size(64 << 10);
    if let Err(error) = closing.spawn(move || drop(ManuallyDrop::into_inner(hostile))) {
        tracing::error!(%error, "no thread for the close of descriptors, which stay open");
    }
}
