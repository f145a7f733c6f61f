"""The supervisor forks a child ahead of each request, runs the invocation on the child, and cleans up afterwards."""
import _signal
import os
import time

from inheritance import Inheritance
from leftovers import SYSV_IPC, clean, is_clean
from output import Frames, Output
from protocol import PROTOCOL_OUT, READ_BYTES, Memory, frame, libc, microseconds, read_frame, write_all
from program import set_environment
from relay import Events, relay

OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
PR_SET_DUMPABLE = 4
HELD_BACK = (_signal.SIGCHLD, _signal.SIGINT)

prctl = libc.prctl


class Child:
    """A forked process that waits for its request, and the supervisor's ends of its pipes."""

    def __init__(self, pid, request, stdout, stderr):
        self.pid, self.request, self.stdout, self.stderr = pid, request, stdout, stderr
        self.status = self.usage = None


def fork_child():
    request, request_in = os.pipe()
    stdout, stdout_in = os.pipe()
    stderr, stderr_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HELD_BACK)
        os.setsid()
        os.dup2(request, 0)
        os.dup2(stdout_in, 1)
        os.dup2(stderr_in, 2)
        os.closerange(3, stderr_in + 64)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        return None
    os.close(request)
    os.close(stdout_in)
    os.close(stderr_in)
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    return Child(pid, request_in, stdout, stderr)


class Supervisor:
    """The state that lasts for a container's life."""

    def __init__(self):
        self.tables = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in SYSV_IPC if os.path.exists(path)]
        self.counter = open_oom_counter()
        self.events = Events()
        self.request = Memory(READ_BYTES)
        self.frames = Frames()
        self.inheritance = Inheritance()

    def set_up(self):
        """Reads the setup and sets the function's own environment. Returns the text that asks for preloading."""
        memory, size = read_frame(self.request, "S")
        end = 5 + int.from_bytes(memory.view[1:5], "big")
        set_environment(bytes(memory.view[5:end]))
        text = bytes(memory.view[end:size]).decode()
        memory.forget(size)
        return text

    def begin(self):
        """Notes the kills so far, which are those of the setup. The instance is ready for its first request then."""
        self.kills = oom_kills(self.counter)

    def serve(self, child):
        """Runs one invocation on the child, and cleans up afterwards.

        Returns False when the cleanup fails; the caller must then end the container.
        """
        memory, size = read_frame(self.request, "I")
        started = time.perf_counter()
        nonce, room = bytes(memory.view[1:17]), int.from_bytes(memory.view[17:21], "big")
        # The rest of the request is for the child. The size of the rest overwrites the output cap.
        memory.view[17:21] = (size - 21).to_bytes(4, "big")
        write_all(child.request, memory.view[17:size])
        os.close(child.request)
        memory.forget(size)
        del memory
        outputs = (Output(child.stdout, b"O", nonce, room), Output(child.stderr, b"E", nonce, room))
        relay(child, outputs, self.frames, self.events)
        duration = time.perf_counter() - started
        # The inheritance is checked first: with a changed limit no folder can be listed.
        is_inheritance_left = self.inheritance.is_left()
        is_left_clean = is_inheritance_left and is_clean(self.tables)
        kills_before, self.kills = self.kills, oom_kills(self.counter)
        exit = frame(
            b"X",
            nonce,
            (child.status & 0xFFFFFFFF).to_bytes(4, "big"),
            b"\xff" if self.kills is None else bytes([self.kills != kills_before]),
            bytes([outputs[0].truncated or outputs[1].truncated, is_left_clean]),
            microseconds(duration),
            microseconds(child.usage.ru_utime + child.usage.ru_stime),
            (child.usage.ru_maxrss * 1024).to_bytes(8, "big"),
        )
        self.frames.add(exit)
        self.frames.flush()
        os.close(child.stdout)
        os.close(child.stderr)
        if not is_inheritance_left:
            return False
        if not is_left_clean:
            clean()
            if not is_clean(self.tables):
                return False
            write_all(PROTOCOL_OUT, frame(b"R", nonce))
        return True


def open_oom_counter():
    for path in OOM_COUNTERS:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
    return None


def oom_kills(counter):
    """How many processes of this container the kernel's OOM killer has ended. None when unknown."""
    if counter is None:
        return None
    for line in os.pread(counter, 4096, 0).splitlines():
        if line.startswith(b"oom_kill "):
            return int(line[9:])
    return None
