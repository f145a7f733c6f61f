"""The function's output on the way to the platform."""
import os

from protocol import PROTOCOL_OUT, READ_BYTES, Memory, write_all

FLUSH_BYTES = 32768


class Frames:
    """Frames on their way to the platform.

    The memory is allocated before the function runs, because the function may set the supervisor's memory limits to 0.
    """

    HEAD = 4 + 1 + 16

    def __init__(self):
        self.memory = Memory(FLUSH_BYTES + 2 * (self.HEAD + READ_BYTES) + 256)
        self.view = self.memory.view
        # The end of the frames, and the end of all bytes that were written: bytes above an output's cap are in no
        # frame.
        self.size = self.used = 0

    def add(self, data):
        end = self.size + len(data)
        self.view[self.size : end] = data
        self.size = end

    def flush(self):
        write_all(PROTOCOL_OUT, self.view[: self.size])
        self.memory.forget(max(self.size, self.used))
        self.size = self.used = 0


class Output:
    """One stream of the function. The bytes within the cap go out in frames, the other bytes are discarded."""

    def __init__(self, fd, kind, nonce, room):
        self.fd, self.kind, self.nonce, self.room = fd, kind, nonce, room
        self.truncated = False

    def drain(self, frames):
        """Reads the rest. Returns whether the stream ends."""
        while True:
            end = self.pump(frames)
            if end is not False:
                return end is True

    def pump(self, frames):
        """Reads the available bytes. True at the end of the stream, None when there are no bytes."""
        if frames.size >= FLUSH_BYTES:
            frames.flush()
        begin = frames.size + frames.HEAD
        try:
            size = os.readv(self.fd, (frames.view[begin : begin + READ_BYTES],))
        except BlockingIOError:
            return None
        if not size:
            return True
        frames.used = max(frames.used, begin + size)
        if size > self.room:
            self.truncated = True
            size = self.room
        if size:
            self.room -= size
            frames.add((size + 17).to_bytes(4, "big") + self.kind + self.nonce)
            frames.size += size
        return False
