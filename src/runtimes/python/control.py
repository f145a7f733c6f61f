"""The way between the supervisor and the zygote: a pair of sockets that carry bytes and descriptors."""
import ctypes
import os

from protocol import AF_UNIX, SOCK_STREAM, libc

SOL_SOCKET, SCM_RIGHTS = 1, 1
SOCK_CLOEXEC, MSG_CMSG_CLOEXEC = 0o2000000, 0x40000000
EINTR = 4
# The descriptors of a child: stdin, stdout and stderr.
COUNT = 3


class Vector(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Rights(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("fds", ctypes.c_int * COUNT),
    ]


class Head(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message:
    """The memory of one byte with descriptors, prepared once."""

    def __init__(self):
        self.byte, self.rights = ctypes.c_ubyte(), Rights()
        self.vector = Vector(ctypes.addressof(self.byte), 1)
        self.head = Head(None, 0, ctypes.addressof(self.vector), 1, ctypes.addressof(self.rights))
        self.place = ctypes.byref(self.head)

    def send(self, socket, byte, fds):
        self.byte.value, self.rights.fds[:] = byte, fds
        self.rights.level, self.rights.kind = SOL_SOCKET, SCM_RIGHTS
        self.rights.size = Rights.fds.offset + ctypes.sizeof(self.rights.fds)
        self.head.control_size = ctypes.sizeof(self.rights)
        return self.call(libc.sendmsg, socket, 0)

    def receive(self, socket):
        """The next byte and its descriptors; -1 at the end of the socket."""
        self.rights.size, self.head.control_size = 0, ctypes.sizeof(self.rights)
        if self.call(libc.recvmsg, socket, MSG_CMSG_CLOEXEC) != 1:
            return -1, ()
        return self.byte.value, self.rights.fds if self.rights.size else ()

    def call(self, function, socket, flags):
        while True:
            count = function(socket, self.place, flags)
            if count >= 0 or ctypes.get_errno() != EINTR:
                return count


def socket_pair():
    pair = (ctypes.c_int * 2)()
    if libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair):
        raise OSError(ctypes.get_errno(), "socketpair failed")
    return pair[0], pair[1]
