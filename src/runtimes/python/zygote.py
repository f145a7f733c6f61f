"""The zygote forks a child for each invocation. The supervisor never forks, and runs no code of a package.

A fork makes both processes copy each page that they write to afterwards. The supervisor would copy a hundred pages for
each invocation, and the zygote waits meanwhile.
"""
import _signal
import ctypes
import os
import select
import time

from clone import Clone
from control import Message, socket_pair
from plan import Plan
from program import set_environment
from protocol import libc, read_exactly, write_all

# The commands of the supervisor.
FORK, KILL = 1, 2
PR_SET_DUMPABLE = 4
ETOOMANYREFS = 109
# How long the supervisor waits for a command to be taken, and for the end of all other processes, in seconds.
SEND_SECONDS, KILL_SECONDS = 2, 1
# The place of the pending signals in /proc/PID/stat, behind the command's name.
PENDING = 28
# How often the supervisor looks, a millisecond each, whether the zygote waits for a command.
IDLE_LOOKS = 500

prctl = libc.prctl


class Child:
    """A forked process that waits for its request, and the supervisor's ends of its pipes."""

    def __init__(self, request, stdout, stderr):
        self.pid, self.request, self.stdout, self.stderr = None, request, stdout, stderr
        self.status = self.usage = None

    def close(self):
        """Closes the supervisor's ends."""
        for fd in (self.request, self.stdout, self.stderr):
            os.close(fd)


class Gone(Exception):
    """The zygote has ended or does not answer."""


class Zygote:
    """The supervisor's view of a zygote. All calls raise Gone where the zygote is gone."""

    def __init__(self, pid, control):
        self.pid, self.control, self.message = pid, control, Message()
        self.stat = os.open("/proc/%d/stat" % pid, os.O_RDONLY | os.O_CLOEXEC)

    def give_function(self, arguments, environment, plan):
        """Tells a slot's zygote its function: the bootstrap's arguments, the environment and the text of a plan."""
        parts = ("\0".join(arguments).encode(), environment, plan.encode())
        try:
            write_all(self.control, b"".join(len(part).to_bytes(4, "big") + part for part in parts))
        except OSError:
            raise Gone("the zygote of the slot has ended") from None

    def fork_child(self):
        """Has a child forked. Does not wait for the fork."""
        request, request_in = os.pipe()
        stdout, stdout_in = os.pipe()
        stderr, stderr_in = os.pipe()
        fds = (request, stdout_in, stderr_in)
        self.wake()
        self.send(fds)
        for fd in fds:
            os.close(fd)
        os.set_blocking(stdout, False)
        os.set_blocking(stderr, False)
        return Child(request_in, stdout, stderr)

    def send(self, fds):
        """Sends the command to fork. Descriptors that the function has left on their way count against this process."""
        deadline = time.perf_counter() + SEND_SECONDS
        while self.message.send(self.control, FORK, fds) != 1:
            error = ctypes.get_errno()
            if error != ETOOMANYREFS or time.perf_counter() >= deadline:
                raise Gone("the zygote takes no command: %s" % os.strerror(error))
            # The kernel looks for such descriptors when a socket is closed.
            for socket in socket_pair():
                os.close(socket)
            time.sleep(0.001)

    def wake(self):
        """Resumes a zygote that the function has stopped."""
        try:
            os.kill(self.pid, _signal.SIGCONT)
        except ProcessLookupError:
            raise Gone("the zygote was killed") from None

    def answer(self):
        """The number that answers the oldest command."""
        data = os.read(self.control, 4)
        if len(data) < 4:
            raise Gone("the zygote has ended")
        return int.from_bytes(data, "big")

    def kill_others(self):
        """Kills all processes but the zygote and PID 1 at once. Returns whether there was any."""
        self.wake()
        try:
            os.write(self.control, bytes([KILL]))
        except OSError:
            raise Gone("the zygote has ended") from None
        # A process that is to be killed may stop the zygote again and again.
        if not select.select((self.control,), (), (), KILL_SECONDS)[0]:
            raise Gone("the zygote does not answer")
        return self.answer()

    def is_fit(self):
        """Whether the zygote waits for a command, and no signal is about to end the zygote.

        A signal that ends the zygote wakes the zygote before the sender's call returns, unless the zygote is stopped.
        """
        for _ in range(IDLE_LOOKS):
            try:
                fields = os.pread(self.stat, 4096, 0).rpartition(b")")[2].split()
            except OSError:
                return False
            if fields[PENDING] != b"0" or fields[0] in b"ZX":
                return False
            if fields[0] == b"S":
                return True
            # The zygote still finishes the last fork, or ends, or was stopped. A stopped process keeps other signals.
            if fields[0] == b"T":
                self.wake()
            time.sleep(0.001)
        return False

    def end_all(self):
        """Kills and reaps all processes but PID 1. Returns the zygote's status."""
        ended = None
        try:
            while True:
                os.kill(-1, _signal.SIGKILL)
                pid, status = os.wait()
                if pid == self.pid:
                    ended = status
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.control)
        os.close(self.stat)
        return ended


def fork_zygote():
    """Returns the supervisor's view of a new zygote, and None. In the zygote, returns None and its end of the way."""
    ours, theirs = socket_pair()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return Zygote(pid, ours), None
    # Nothing of the supervisor's stays open but stderr: packages' code runs here.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(theirs, 3, inheritable=False)
    os.closerange(4, max(null, theirs) + 64)
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    return None, 3


def take_function(control):
    """Says that this slot's zygote is ready, and waits for the function. Returns the arguments and the plan."""
    write_all(control, b"\0")
    try:
        parts = [read_exactly(control, int.from_bytes(read_exactly(control, 4), "big")) for _ in range(3)]
    except EOFError:
        os._exit(0)
    arguments, environment, plan = parts
    set_environment(environment)
    return arguments.decode().split("\0"), Plan(plan.decode())


def serve(control, held_back, report):
    """Forks children on the supervisor's command, after the report. Only a child returns from here."""
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    message, clone = Message(), Clone()
    write_all(control, report)
    while True:
        command, fds = message.receive(control)
        if command == FORK:
            pid = clone.fork()
            if pid == 0:
                break
        elif command == KILL:
            pid = kill_others()
        else:
            os._exit(0)
        for fd in fds:
            os.close(fd)
        write_all(control, pid.to_bytes(4, "big"))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, held_back)
    os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 64)
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def kill_others():
    try:
        os.kill(-1, _signal.SIGKILL)
        return 1
    except ProcessLookupError:
        return 0
