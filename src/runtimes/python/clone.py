"""Forks a process whose parent is the parent of this process."""
import _signal
import ctypes
import os

CLONE_PARENT = 0x8000
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x200000, 0x1000000
PR_GET_TID_ADDRESS = 40
# The number of clone(2) by processor. The C library's fork can't choose the parent.
NUMBERS = {"x86_64": 56, "aarch64": 220, "riscv64": 220}

# Calls through this object keep the interpreter's lock, as os.fork does.
python = ctypes.PyDLL(None, use_errno=True)
python.syscall.argtypes = (ctypes.c_long,) + 5 * (ctypes.c_void_p,)
python.syscall.restype = ctypes.c_long


class Clone:
    """A call of clone(2), prepared once."""

    def __init__(self):
        machine = os.uname().machine
        if machine not in NUMBERS:
            raise SystemExit("no way is known to fork on a processor of kind %s" % machine)
        # Where the C library keeps the thread's id. A kernel that does not tell the place leaves the old id there.
        place = ctypes.c_void_p()
        flags = CLONE_PARENT | _signal.SIGCHLD
        if not python.prctl(PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0) and place.value:
            flags |= CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID
        # Processors have two orders of the last two arguments. The other argument has no effect here.
        self.arguments = (NUMBERS[machine], flags, None, None, place.value, place.value)

    def fork(self):
        """Returns 0 in the new process, and the id of the new process in this one."""
        python.PyOS_BeforeFork()
        pid = python.syscall(*self.arguments)
        if pid == 0:
            python.PyOS_AfterFork_Child()
            return 0
        python.PyOS_AfterFork_Parent()
        if pid < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return pid
