"""The supervisor is PID 1: it runs each invocation on a child of the zygote, and cleans up afterwards."""
import _signal
import _struct
import os
import select
import sys
import time

from doors import DoorError, open_doors
from inheritance import Inheritance
from leftovers import clean, is_clean, open_tables
from output import Frames, Output
from plan import Plan
from protocol import ENDLESS, NO_CAP, PROTOCOL_IN, PROTOCOL_OUT, READ_BYTES, Memory, frame, read_frame, write_all
from program import set_environment
from relay import Events, reap, relay
from trial import Trial
from zygote import PR_SET_DUMPABLE, Gone, fork_zygote, prctl

OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
# The kernel's list of the processes that PID 1 has as children.
CHILDREN = "/proc/self/task/%d/children"
CHILD_ENDED = (_signal.SIGCHLD,)
HELD_BACK = (_signal.SIGCHLD, _signal.SIGINT)
REAP_SECONDS = 0.01
# A zygote that was forked ahead of its function is replaced when no request comes for a moment, and then at the latest.
# An instance that is used once needs no other.
LEAST_USES, MOST_USES, IDLE_SECONDS = 2, 10, 0.02
# The size of the rest, kind, nonce, wait status, OOM, truncated, clean, duration, processor time and peak memory.
EXIT = _struct.Struct(">Ic16sIBBBQQQ")


class Supervisor:
    """The state that lasts for a container's life."""

    def __init__(self):
        self.tables = open_tables()
        self.counter = open_first(OOM_COUNTERS)
        self.children = open_first((CHILDREN % os.getpid(),))
        self.events = Events()
        self.request = Memory(READ_BYTES)
        self.frames = Frames()
        self.inheritance = Inheritance()
        self.zygote = None
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

    def fork_ahead(self):
        """Forks the zygote of a slot, and waits until the zygote knows all that needs no function.

        Returns None, and in the zygote its way to this process.
        """
        self.zygote, control = fork_zygote()
        if control is None and os.read(self.zygote.control, 1) != b"\0":
            # The zygote has said why.
            os._exit(4)
        return control

    def run(self, arguments):
        """Runs invocations until the platform leaves.

        Only a zygote returns from here, with the plan for preloading and its way to this process.
        """
        try:
            plan, environment, text = self.set_up()
            trial, is_ahead, is_told = Trial(plan), self.zygote is not None, False
            if is_ahead:
                self.zygote.give_function(arguments, environment, text)
            while True:
                while not self.zygote or not trial.passes(self.zygote):
                    is_ahead = False
                    self.zygote, control = fork_zygote()
                    if control:
                        return plan, control
                self.inherited = Inheritance(self.zygote.pid)
                # The kills so far are those of the setup.
                self.kills = oom_kills(self.counter)
                child = self.zygote.fork_child()
                if not is_told:
                    write_all(PROTOCOL_OUT, frame(b"P", b"\0" if plan.mode == "off" else trial.result.encoded()))
                    is_told = True
                if not self.serve_all(child, is_ahead):
                    break
                self.inherited.close()
                self.zygote.end_all()
                self.zygote, trial = None, Trial(plan)
        except EOFError:
            os._exit(0)
        except (DoorError, Gone) as error:
            sys.stderr.write("%s\n" % error)
        os._exit(3)

    def take_code(self):
        """Waits until a slot gets a function. Returns the names of the main file and, if there is one, the package."""
        try:
            memory, size = read_frame(self.request, "C")
        except EOFError:
            os._exit(0)
        entry, _, package = bytes(memory.view[1:size]).decode().partition("\0")
        memory.forget(size)
        return [entry, package] if package else [entry]

    def set_up(self):
        """Reads the setup and sets the function's own environment.

        Returns the plan for preloading, the environment, and the text of the plan. Before the setup the platform may
        ask for doors.
        """
        memory, size = read_frame(self.request, "DS")
        if memory.view[0] == ord("D"):
            addresses = bytes(memory.view[1:size])
            memory.forget(size)
            open_doors(addresses)
            memory, size = read_frame(self.request, "S")
        end = 5 + int.from_bytes(memory.view[1:5], "big")
        environment, text = bytes(memory.view[5:end]), bytes(memory.view[end:size]).decode()
        memory.forget(size)
        set_environment(environment)
        return Plan(text), environment, text

    def serve_all(self, child, is_ahead):
        """Runs invocations on children of the zygote, each of which is forked before its request.

        Returns whether the instance needs another zygote, in place of one that was forked ahead of the function. That
        zygote has many modules that the function does not import, and each fork copies the tables of their pages.
        """
        uses = 0
        while self.serve(child):
            child = self.zygote.fork_child()
            uses += 1
            if is_ahead and uses >= LEAST_USES and (uses >= MOST_USES or not has_request()):
                child.close()
                return True
        return False

    def serve(self, child):
        """Runs one invocation on the child, and cleans up afterwards.

        Returns False when the cleanup fails; the caller must then end the container.
        """
        memory, size = read_frame(self.request, "I")
        started = time.perf_counter()
        child.pid = self.zygote.answer()
        nonce, room = bytes(memory.view[1:17]), cap(memory.view[17:21])
        # The rest of the request is for the child. The sizes of the environment and of the input overwrite the cap of
        # stderr and the size of the environment.
        room_of_errors, variables = cap(memory.view[21:25]), int.from_bytes(memory.view[25:29], "big")
        memory.view[21:29] = (variables << 32 | size - 29 - variables).to_bytes(8, "big")
        try:
            write_all(child.request, memory.view[21:size])
        except BrokenPipeError:
            # The child has ended, and its status says why.
            pass
        os.close(child.request)
        memory.forget(size)
        del memory
        outputs = (Output(child.stdout, b"O", nonce, room), Output(child.stderr, b"E", nonce, room_of_errors))
        relay(child, outputs, self.frames, self.events)
        is_left = self.end_others(child)
        # No process is left to write, so the stream ends with the content of the pipe. A stream that does not end has a
        # writer among descriptors that the function has left on their way.
        is_left = all([output.drain(self.frames) for output in outputs]) and is_left
        duration = time.perf_counter() - started
        # The inheritance is checked first: with a changed limit no folder can be listed.
        is_left = is_left and self.inheritance.is_left() and self.inherited.is_left() and self.zygote.is_fit()
        is_left_clean = is_left and is_clean(self.tables)
        kills_before, self.kills = self.kills, oom_kills(self.counter)
        exit = EXIT.pack(
            EXIT.size - 4,
            b"X",
            nonce,
            child.status & 0xFFFFFFFF,
            255 if self.kills is None else self.kills != kills_before,
            outputs[0].truncated or outputs[1].truncated,
            is_left_clean,
            int(duration * 1e6),
            int((child.usage.ru_utime + child.usage.ru_stime) * 1e6),
            child.usage.ru_maxrss * 1024,
        )
        self.frames.add(exit)
        self.frames.flush()
        os.close(child.stdout)
        os.close(child.stderr)
        if not is_left:
            return False
        if not is_left_clean:
            clean()
            if not is_clean(self.tables):
                return False
            write_all(PROTOCOL_OUT, frame(b"R", nonce))
        return True

    def end_others(self, child):
        """Kills and reaps all processes that the function left running. False when the zygote has ended, too.

        No process can escape by forks: the zygote kills all others at once.
        """
        try:
            while not self.is_alone() and self.zygote.kill_others():
                _signal.sigtimedwait(CHILD_ENDED, REAP_SECONDS)
                reap(child)
            return True
        except Gone:
            self.zygote.end_all()
            return False

    def is_alone(self):
        """Whether PID 1 has no child but the zygote. A process whose parent ends becomes a child of PID 1."""
        return self.children is not None and os.pread(self.children, 4096, 0).split() == [b"%d" % self.zygote.pid]


def cap(field):
    """How many bytes of a stream go to the platform."""
    most = int.from_bytes(field, "big")
    return ENDLESS if most == NO_CAP else most


def has_request():
    """Whether the next request comes at once."""
    return bool(select.select((PROTOCOL_IN,), (), (), IDLE_SECONDS)[0])


def open_first(paths):
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
    return None


def oom_kills(counter):
    """How many processes of this container the kernel's OOM killer has ended. None when unknown."""
    if counter is None:
        return None
    _, name, rest = os.pread(counter, 4096, 0).partition(b"\noom_kill ")
    return int(rest.partition(b"\n")[0]) if name else None
