"""Imports in the zygote what the program imports, so that each child has the modules from its start.

The zygote reports to the supervisor: a line with the names of all modules, an empty line as each import begins, and at
the end microseconds, a reason, and a NUL. A module that leaves in the process what a child must not inherit is the
reason that the zygote ends. The next zygote leaves that module out, and a child imports the module by itself.
"""
import os
import sys
import time

from guard import Guard, Refused, is_standard
from imports import Program, find
from inheritance import Inheritance
from leftovers import open_tables
from plan import SPOILED
from protocol import write_all
from rehearsal import Rehearsal
from traces import Traces

MAX_REASON = 160
# Libraries for numbers start as many threads as the machine has processors, unless a variable says otherwise.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def preload(plan, entry, package, control, stash=None):
    """Imports the modules of a plan in this process, those of a slot's stash without running their code.

    Returns the end of the report. Ends a process that is not fit.
    """
    program = Program(os.getcwd())
    wanted = program.imports(entry, package)
    if plan.mode == "list":
        wanted = {name: () for name in plan.names}
    wanted = {name: names for name, names in wanted.items() if plan.allows(name)}
    if any(is_installed(name) for name in wanted):
        for name in THREADS:
            os.environ.setdefault(name, plan.processors)
    write_all(control, ",".join(wanted).encode(errors="replace") + b"\n")
    with Guard(program, plan.is_standard_only) as guard:
        # A slot has no time for a rehearsal: its function's client waits.
        rehearsal = Rehearsal() if plan.rehearses and stash is None else None
        began = time.perf_counter()
        if stash:
            stash.hidden = {name.partition(".")[0] for name in os.listdir(program.root)}.union(guard.hidden)
            sys.meta_path.insert(0, stash)
        reason = quietly(lambda said: import_all(wanted, guard, said, control, stash, rehearsal))
        if stash:
            sys.meta_path.remove(stash)
    end = report(time.perf_counter() - began - (rehearsal.seconds if rehearsal else 0), reason)
    if reason:
        write_all(control, end)
        os._exit(0)
    return end


def report(seconds, reason):
    reason = " ".join((reason or "").split()).encode(errors="replace")[:MAX_REASON]
    return b"%d %b\0" % (seconds * 1e6, reason)


def is_installed(name):
    spec = find(name.partition(".")[0], None)
    return spec is not None and not is_standard(spec)


def import_all(wanted, guard, said, control, stash, rehearsal):
    """Imports modules. Returns the reason to leave out the module whose import began last; None when all are fit."""
    inheritance, tables = Inheritance(), open_tables()
    traces = Traces(inheritance, tables, said)
    for name, names in wanted.items():
        write_all(control, b"\n")
        reason = None
        try:
            __import__(name, None, None, names)
        except Refused:
            pass
        except BaseException as error:
            reason = "raises %s: %s" % (type(error).__name__, error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        reason = guard.reason or reason
        if not reason and (stash is None or stash.take_missed()):
            reason = traces.difference()
        if not reason and rehearsal and not rehearsal.go_on(lambda: guard.reason or traces.difference()):
            reason = SPOILED
        if reason:
            return reason
    if "socket" in sys.modules:
        # Whoever looks up a name or encodes a host needs this codec, which Python imports at its first use only.
        import encodings.idna
    inheritance.close()
    for table in tables:
        os.close(table)
    return None


def quietly(work):
    """Does work while output goes to a file in memory, whose descriptor the work gets."""
    kept = [os.dup(fd) for fd in (1, 2)]
    said = os.memfd_create("said")
    os.dup2(said, 1)
    os.dup2(said, 2)
    try:
        return work(said)
    finally:
        for fd, old in enumerate(kept, 1):
            os.dup2(old, fd)
        for old in (*kept, said):
            os.close(old)
