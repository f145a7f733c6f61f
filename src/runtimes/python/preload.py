"""Imports what the program imports before the first child is forked, so that each child has the modules from its start.

Each module is imported first in a process that is thrown away. A module that leaves there what a child must not inherit
is left out: a child imports the module by itself, as without preloading.
"""
import os
import select
import sys
import time

from guard import Guard, Refused, is_standard
from imports import Program, find
from inheritance import Inheritance
from leftovers import clean
from protocol import write_all
from relay import end_all
from supervisor import Child
from traces import Traces

# The time limits for the import of one module, and for all trials, in seconds.
MODULE_SECONDS, ALL_SECONDS = 15, 25
# The most modules that are left out one by one.
MAX_EXCLUDED = 20
MAX_REASON = 160
# Libraries for numbers start as many threads as the machine has processors, unless a variable says otherwise.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MEMORY = "needs more memory than the limit"


class Plan:
    """The platform's request: what to import, and what an earlier instance has found must be left out."""

    def __init__(self, text):
        mode, names, limit, processors, is_known, excluded = text.split("\0")
        self.mode, self.names, self.processors = mode, names.split(","), processors
        self.is_standard_only = "stdlib" in (mode, limit)
        self.is_known, self.excluded = bool(is_known), excluded.split(",")


class Preloaded:
    """The modules that were imported, and the modules that were left out, each with a reason and seconds."""

    def __init__(self):
        self.modules, self.excluded, self.seconds = [], [], 0.0

    def had_oom(self):
        return any(reason == MEMORY for _, reason, _ in self.excluded)

    def encoded(self):
        """A name, a reason and microseconds for each module. The reason is empty for a module that was imported."""
        rows = [(name, "", 0) for name in self.modules]
        rows += [(name, reason, int(seconds * 1e6)) for name, reason, seconds in self.excluded]
        rows.append(("", "", int(self.seconds * 1e6)))
        text = "\0".join("%s\0%s\0%d" % row for row in rows)
        return bytes([self.had_oom()]) + text.encode(errors="replace")


def preload(plan, entry, package, supervisor):
    """Imports the modules of a plan in this process."""
    result = Preloaded()
    program = Program(os.getcwd())
    wanted = program.imports(entry, package)
    if plan.mode == "list":
        wanted = {name: () for name in plan.names}
    if any(is_installed(name) for name in wanted):
        for name in THREADS:
            os.environ.setdefault(name, plan.processors)
    with Guard(program, plan.is_standard_only) as guard:
        if plan.is_known:
            wanted = {name: names for name, names in wanted.items() if name not in plan.excluded}
        else:
            leave_out(wanted, result, guard, supervisor)
        began = time.perf_counter()
        traces = lambda said: Traces(supervisor.inheritance, supervisor.tables, said)
        reason = quietly(lambda said: import_all(wanted, guard, traces(said), lambda: None))
        if reason:
            sys.stderr.write("a module that was fit for preloading %s now\n" % reason)
            os._exit(4)
        result.seconds, result.modules = time.perf_counter() - began, list(wanted)
    return result


def is_installed(name):
    spec = find(name.partition(".")[0], None)
    return spec is not None and not is_standard(spec)


def leave_out(wanted, result, guard, supervisor):
    """Takes from `wanted` the modules that must be left out."""
    deadline = time.perf_counter() + ALL_SECONDS
    while wanted:
        if len(result.excluded) == MAX_EXCLUDED or time.perf_counter() >= deadline:
            result.excluded += [(name, "comes after too many modules that are left out", 0.0) for name in wanted]
            wanted.clear()
            return
        found = attempt(wanted, guard, supervisor, deadline)
        if not found:
            return
        position, reason, seconds = found
        name = list(wanted)[position]
        del wanted[name]
        result.excluded.append((name, reason, seconds))


def attempt(wanted, guard, supervisor, deadline):
    """Imports modules in a process that is thrown away.

    Returns the position of the first module that must be left out, the reason, and the seconds of its import. None when
    all modules are fit.
    """
    reader, writer = os.pipe()
    child = Child(os.fork(), None, None, None)
    if child.pid == 0:
        # The inheritance of this process: the files of another process in /proc are not open to reads.
        traces = lambda said: Traces(Inheritance(), supervisor.tables, said)
        reason = quietly(lambda said: import_all(wanted, guard, traces(said), lambda: os.write(writer, b"\n")))
        write_all(writer, " ".join((reason or "").split()).encode(errors="replace")[:MAX_REASON] + b"\0")
        os._exit(0)
    os.close(writer)
    said, began, reason = b"", time.perf_counter(), None
    while reason is None and not said.endswith(b"\0"):
        left = min(deadline, began + MODULE_SECONDS) - time.perf_counter()
        if left <= 0 or not select.select((reader,), (), (), left)[0]:
            reason = "takes too long to import"
            break
        more = os.read(reader, 65536)
        if b"\n" in more:
            began = time.perf_counter()
        said += more
        if not more:
            break
    seconds = time.perf_counter() - began
    os.close(reader)
    end_all(child)
    clean()
    if said.endswith(b"\0"):
        reason = said[:-1].rpartition(b"\n")[2].decode(errors="replace")
    elif reason is None:
        reason = MEMORY if os.WIFSIGNALED(child.status) and os.WTERMSIG(child.status) == 9 else "ends the process"
    return (max(said.count(b"\n"), 1) - 1, reason, seconds) if reason else None


def import_all(wanted, guard, traces, begin):
    """Imports modules. Returns the reason to leave out the module whose import began last; None when all are fit."""
    for name, names in wanted.items():
        begin()
        reason = None
        try:
            __import__(name, None, None, names)
        except Refused:
            pass
        except BaseException as error:
            reason = "raises %s: %s" % (type(error).__name__, error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        reason = guard.reason or reason or traces.difference()
        if reason:
            return reason
    return None


def quietly(work):
    """Does work while stdin is empty and output goes to a file in memory, whose descriptor the work gets."""
    kept = [os.dup(fd) for fd in (0, 1, 2)]
    null, said = os.open("/dev/null", os.O_RDWR), os.memfd_create("said")
    os.dup2(null, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    try:
        return work(said)
    finally:
        for fd, old in enumerate(kept):
            os.dup2(old, fd)
        for old in (*kept, null, said):
            os.close(old)
