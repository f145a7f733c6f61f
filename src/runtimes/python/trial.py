"""Follows the imports of zygotes, until a zygote has imported all that is fit."""
import os
import select
import sys
import time

from leftovers import clean
from plan import MEMORY, SPOILED, Preloaded

# The time limits for the import of one module, for all zygotes, and for a last zygote after that, in seconds.
MODULE_SECONDS, ALL_SECONDS, LAST_SECONDS = 15, 25, 20
# The most modules that are left out one by one.
MAX_EXCLUDED = 20
LATE = "takes too long to import"


class Trial:
    """What is known of the modules so far. The plan gets what the next zygote must leave out."""

    def __init__(self, plan):
        self.plan, self.result = plan, Preloaded()
        self.deadline = time.perf_counter() + ALL_SECONDS

    def passes(self, zygote):
        """Waits for a zygote. True when the zygote is ready. Otherwise the zygote has ended, with all it began."""
        said, seconds, is_late = follow(zygote.control, self.deadline)
        names, *begun, end = said.decode(errors="replace").split("\n") if b"\n" in said else ("", said.decode())
        names = names.split(",") if names else []
        microseconds, _, reason = end.rstrip("\0").partition(" ")
        if end.endswith("\0") and not reason:
            self.result.modules, self.result.microseconds = names, int(microseconds)
            return True
        status = zygote.end_all()
        clean()
        if reason == SPOILED:
            self.plan.rehearses = False
            return False
        if not reason:
            is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
            reason = LATE if is_late else MEMORY if is_killed else "ends the process"
        if not names or not begun or self.plan.fit is not None:
            # No module is to blame, or a module was fit before. Another instance may do better.
            sys.stderr.write("a process that imports modules ahead: %s\n" % reason)
            os._exit(4)
        self.leave_out(names, len(begun) - 1, reason, seconds)
        return False

    def leave_out(self, names, position, reason, seconds):
        """Leaves out the module at this position. Leaves out all modules behind when no further try is allowed."""
        self.result.excluded.append((names[position], reason, seconds))
        self.plan.excluded.add(names[position])
        rest = None
        if len(self.result.excluded) == MAX_EXCLUDED:
            rest = "comes after too many modules that are left out"
        elif time.perf_counter() >= self.deadline:
            rest = "comes after modules that took too long to import"
        if rest:
            self.plan.fit = names[:position]
            self.result.excluded += [(name, rest, 0.0) for name in names[position + 1 :]]
            self.deadline = time.perf_counter() + LAST_SECONDS


def follow(control, deadline):
    """Returns what a zygote reports, the seconds of the last import, and whether the time was up."""
    said, began = b"", time.perf_counter()
    while not said.endswith(b"\0"):
        left = min(deadline, began + MODULE_SECONDS) - time.perf_counter()
        if left <= 0 or not select.select((control,), (), (), left)[0]:
            return said, time.perf_counter() - began, True
        more = os.read(control, 65536)
        if not more:
            break
        if b"\n" in more:
            began = time.perf_counter()
        said += more
    return said, time.perf_counter() - began, False
