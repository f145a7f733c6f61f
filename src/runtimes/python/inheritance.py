"""The attributes of the supervisor that each later child inherits."""
import ctypes
import os

from protocol import libc

# The files of /proc/self that another process of the same user can change. Only files that the bootstrap itself can
# write are watched.
KNOBS = ("autogroup", "coredump_filter", "oom_score_adj", "timerslack_ns")
RLIMITS = 16
# The numbers of sched_getattr and ioprio_get by processor. The C library has no functions for these calls.
CALLS = {"x86_64": (315, 252), "aarch64": (275, 31)}
IOPRIO_CLASS_SHIFT = 13



class Inheritance:
    """The attributes that a child inherits from the supervisor and that a process of the same user can change.

    A look needs no new descriptor and almost no memory, because the function may change the supervisor's limits.
    """

    def __init__(self):
        attributes, processors = 128, 1024
        self.buffer = ctypes.create_string_buffer(16 * RLIMITS + attributes + processors)
        place = ctypes.addressof(self.buffer)
        pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        getrlimit = libc.getrlimit
        getrlimit.argtypes = (number, pointer)
        self.looks = [(getrlimit, (limit, place + 16 * limit)) for limit in range(RLIMITS)]
        place += 16 * RLIMITS
        libc.sched_getaffinity.argtypes = (number, size, pointer)
        self.looks.append((libc.sched_getaffinity, (0, processors, place + attributes)))
        self.looks.append((libc.getpriority, (os.PRIO_PROCESS, 0)))
        self.ioprio_get = None
        if os.uname().machine in CALLS:
            sched_getattr, self.ioprio_get = CALLS[os.uname().machine]
            libc.syscall.argtypes = (ctypes.c_long, number, pointer, ctypes.c_uint, ctypes.c_uint)
            self.looks.append((libc.syscall, (sched_getattr, 0, place, attributes, 0)))
        knobs = [path for path in map("/proc/self/".__add__, KNOBS) if os.access(path, os.W_OK)]
        self.knobs = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in knobs]
        self.began_with = self.look()

    def look(self):
        answers = [call(*arguments) for call, arguments in self.looks]
        io_priority = libc.syscall(self.ioprio_get, 1, 0, 0, 0) if self.ioprio_get else 0
        # A priority without a class is the kernel's default, for which the kernel returns several numbers.
        answers.append(io_priority if io_priority >> IOPRIO_CLASS_SHIFT else 0)
        for knob in self.knobs:
            answers.append(os.pread(knob, 32, 0))
        return self.buffer.raw, answers

    def is_left(self):
        return self.look() == self.began_with
