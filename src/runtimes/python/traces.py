"""What the import of a module can leave in a process that a child must not inherit, or would not inherit."""
import _signal
import ctypes
import os

from leftovers import is_clean
from protocol import libc

LC_ALL = 6
TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)

libc.setlocale.restype, libc.setlocale.argtypes = ctypes.c_char_p, (ctypes.c_int, ctypes.c_char_p)


class Traces:
    """The state of this process at one moment. The output of imports goes to the descriptor `said`."""

    def __init__(self, inheritance, tables, said):
        self.inheritance, self.tables, self.said = inheritance, tables, said
        self.before = self.look()

    def difference(self):
        """What has happened since, as the reason to leave a module out. None when nothing has."""
        now = self.look()
        return next((reason for reason in now if now[reason] != self.before[reason]), None)

    def look(self):
        with open("/proc/self/status", "rb") as file:
            status = dict(line.split(b":", 1) for line in file.read().splitlines())
        return {
            "starts a thread": status[b"Threads"],
            "starts a process": [name for name in os.listdir("/proc") if name.isdigit()],
            "opens a descriptor": os.listdir("/proc/self/fd"),
            "maps memory that processes share": shared_mappings(),
            "changes what a signal does": [status[name] for name in (b"SigBlk", b"SigIgn", b"SigCgt")],
            "sets a timer": [_signal.getitimer(timer) != (0.0, 0.0) for timer in TIMERS],
            "changes the working directory": os.getcwd(),
            "changes the umask": status.get(b"Umask"),
            "changes the locale": libc.setlocale(LC_ALL, None),
            "changes a limit or priority": self.inheritance.is_left(),
            "leaves a file or an IPC object": is_clean(self.tables),
            "prints": os.fstat(self.said).st_size,
        }


def shared_mappings():
    with open("/proc/self/maps", "rb") as file:
        return [line for line in file if line.split(None, 2)[1][1:4:2] == b"ws"]
