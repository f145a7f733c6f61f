"""Waits for the end of a child, and passes on the child's output meanwhile."""
import _signal
import os
import select
import time

from output import FLUSH_BYTES
from protocol import PROTOCOL_IN

FLUSH_SECONDS = 0.02
SHORT_SECONDS = 0.005
CHILD_ENDED = (_signal.SIGCHLD,)


class Events:
    """The descriptors to wait for during an invocation.

    They are opened before the function runs, because the function may set the supervisor's limit on descriptors to 0.
    """

    def __init__(self):
        # poll(2) would obey that limit.
        self.poll = select.epoll()
        self.wakeup, self.wakeup_in = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self.wakeup_in, False)
        self.poll.register(PROTOCOL_IN, select.EPOLLIN)
        self.poll.register(self.wakeup, select.EPOLLIN)

    def drain_wakeup(self):
        try:
            while os.read(self.wakeup, 4096):
                pass
        except BlockingIOError:
            pass


def relay(child, outputs, frames, events):
    """Passes on the child's output until the child has ended. The last output is left in the pipes."""
    wait_shortly(child)
    if child.status is None:
        _signal.set_wakeup_fd(events.wakeup_in, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, CHILD_ENDED)
        relay_long(child, {output.fd: output for output in outputs}, frames, events)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, CHILD_ENDED)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.set_wakeup_fd(-1)
        events.drain_wakeup()


def wait_shortly(child):
    """Waits for a child that ends soon, as most children do.

    The pipes are not read during this wait, because they can hold the output of a short invocation.
    """
    deadline = time.perf_counter() + SHORT_SECONDS
    while child.status is None:
        left = deadline - time.perf_counter()
        if left <= 0 or _signal.sigtimedwait(CHILD_ENDED, left) is None:
            return
        reap(child)


def relay_long(child, by_fd, frames, events):
    for fd in by_fd:
        events.poll.register(fd, select.EPOLLIN)
    flushed = time.perf_counter()
    while child.status is None:
        for fd, _ in events.poll.poll(FLUSH_SECONDS if frames.size else None):
            if fd == PROTOCOL_IN:
                # The platform sends nothing during an invocation, so the platform has gone away or breaks the protocol.
                os._exit(0)
            elif fd == events.wakeup:
                events.drain_wakeup()
                reap(child)
            elif fd in by_fd and by_fd[fd].pump(frames):
                events.poll.unregister(fd)
                del by_fd[fd]
        if frames.size and (frames.size >= FLUSH_BYTES or time.perf_counter() - flushed >= FLUSH_SECONDS):
            frames.flush()
            flushed = time.perf_counter()
    for fd in by_fd:
        events.poll.unregister(fd)


def reap(child):
    """Reaps every process that has ended: the child, and orphans, which PID 1 inherits."""
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == child.pid:
                child.status, child.usage = status, usage
    except ChildProcessError:
        return
