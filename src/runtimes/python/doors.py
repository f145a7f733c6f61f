"""Doors: listening sockets on loopback addresses, which the platform gets and serves.

The C library is called, as the interpreter's module of sockets must not be in this process: the zygote would have the
module, too.
"""
import _struct
import ctypes
import os
import sys

from control import SCM_RIGHTS, SOCK_CLOEXEC, SOL_SOCKET, Head, Vector
from protocol import PROTOCOL_OUT, SOCK_STREAM, frame, libc

AF_INET, SOCK_NONBLOCK = 2, 0o4000
BACKLOG = 4096
# The bytes of a door's address: the host and the port.
ADDRESS_BYTES = 6


class DoorError(Exception):
    """A door can't be opened."""


def open_doors(addresses):
    """Listens on these addresses, and passes the listening sockets to the platform. None stays in this process."""
    listeners = []
    try:
        for begin in range(0, len(addresses), ADDRESS_BYTES):
            listeners.append(listen(addresses[begin : begin + ADDRESS_BYTES]))
        pass_on(listeners)
    finally:
        for listener in listeners:
            os.close(listener)


def listen(address):
    host, port = address[:4], address[4:]
    listener = libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    if listener >= 0:
        # The address as the kernel has it: family, port, host, and eight zeros.
        place = AF_INET.to_bytes(2, sys.byteorder) + port + host + bytes(8)
        if libc.bind(listener, place, len(place)) == 0 and libc.listen(listener, BACKLOG) == 0:
            return listener
    reason = os.strerror(ctypes.get_errno())
    if listener >= 0:
        os.close(listener)
    name = "%s:%d" % (".".join(map(str, host)), int.from_bytes(port, "big"))
    raise DoorError("the door %s can't be opened: %s" % (name, reason))


def pass_on(listeners):
    """Sends one message with the sockets, in the order of the addresses."""
    body = frame(b"L")
    place = ctypes.create_string_buffer(body, len(body))
    rights = b"".join(listener.to_bytes(4, sys.byteorder) for listener in listeners)
    rights = _struct.pack("@Nii", _struct.calcsize("@Nii") + len(rights), SOL_SOCKET, SCM_RIGHTS) + rights
    control = ctypes.create_string_buffer(rights, len(rights))
    vector = Vector(ctypes.addressof(place), len(body))
    head = Head(None, 0, ctypes.addressof(vector), 1, ctypes.addressof(control), len(control), 0)
    if libc.sendmsg(PROTOCOL_OUT, ctypes.byref(head), 0) != len(body):
        raise DoorError("the doors can't be passed to the platform: %s" % os.strerror(ctypes.get_errno()))
