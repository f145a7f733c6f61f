"""Protocol v7 with the platform on a socket or on stdin and stdout, see src/sandbox/protocol.rs."""
import ctypes
import os
import sys

VERSION = 7
PROTOCOL_IN, PROTOCOL_OUT = 0, 1
MAX_FRAME = 128 << 20
# The cap of a stream without a limit, and a number of bytes that no stream has.
NO_CAP, ENDLESS = 0xFFFFFFFF, 1 << 62
READ_BYTES = 65536
SOCKET = "/run/youtube-serverless/socket"
AF_UNIX, SOCK_STREAM = 1, 1

libc = ctypes.CDLL(None, use_errno=True)


def connect():
    """Puts the socket that the platform listens on, where there is one, in the place of stdin and stdout."""
    if not os.path.exists(SOCKET):
        return
    socket = libc.socket(AF_UNIX, SOCK_STREAM, 0)
    # The address as the kernel has it: the family in two bytes, and the path.
    address = AF_UNIX.to_bytes(2, sys.byteorder) + SOCKET.encode() + b"\0"
    if libc.connect(socket, address, len(address)):
        sys.exit("the platform does not listen on %s" % SOCKET)
    os.dup2(socket, PROTOCOL_IN)
    os.dup2(socket, PROTOCOL_OUT)
    os.close(socket)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_exactly(fd, size):
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def frame(kind, *parts):
    body = kind + b"".join(parts)
    return len(body).to_bytes(4, "big") + body


class Memory:
    """Bytes of an invocation. The next zygote or child must find no byte of an earlier invocation."""

    def __init__(self, size):
        self.place = (ctypes.c_char * size)()
        self.view = memoryview(self.place).cast("B")

    def forget(self, size):
        ctypes.memset(self.place, 0, size)


def read_frame(memory, kinds):
    """Reads the next frame, of one of these kinds. Returns the memory with the frame's body, and the body's size.

    Raises EOFError when the platform has closed the pipe.
    """
    size = int.from_bytes(read_exactly(PROTOCOL_IN, 4), "big")
    if not 1 <= size <= MAX_FRAME:
        raise ValueError("a frame of %d bytes" % size)
    if size > len(memory.view):
        # The larger memory serves this request only, so that an idle instance stays small.
        memory = Memory(size)
    filled = 0
    while filled < size:
        more = os.readv(PROTOCOL_IN, (memory.view[filled:size],))
        if not more:
            raise EOFError
        filled += more
    if chr(memory.view[0]) not in kinds:
        raise ValueError("a frame of kind %d" % memory.view[0])
    return memory, size
