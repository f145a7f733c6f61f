"""The attributes of a process that its later children inherit."""
import ctypes
import os

from protocol import libc

# The files of a process in /proc that another process of the same user can change. Only files that the bootstrap itself
# can write are watched.
KNOBS = ("autogroup", "coredump_filter", "oom_score_adj", "timerslack_ns")
# The numbers of sched_getattr and ioprio_get by processor. The C library has no functions for these calls.
CALLS = {"x86_64": (315, 252), "aarch64": (275, 31)}
IOPRIO_CLASS_SHIFT = 13
# The most bytes that are read of a file.
SIZE = 4096


class Inheritance:
    """The attributes that a child inherits from a process and that another process of the same user can change.

    A look needs no new descriptor and almost no memory, because the function may change the supervisor's limits.
    """

    def __init__(self, process="self"):
        attributes, processors = 128, 1024
        pid = 0 if process == "self" else process
        self.buffer = ctypes.create_string_buffer(attributes + processors)
        place = ctypes.addressof(self.buffer)
        pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        libc.sched_getaffinity.argtypes = (number, size, pointer)
        self.calls = [(libc.sched_getaffinity, (pid, processors, place + attributes))]
        self.io_priority = None
        if os.uname().machine in CALLS:
            sched_getattr, ioprio_get = CALLS[os.uname().machine]
            libc.syscall.argtypes = (ctypes.c_long, number, pointer, ctypes.c_uint, ctypes.c_uint)
            self.calls.append((libc.syscall, (sched_getattr, pid, place, attributes, 0)))
            self.io_priority = (ioprio_get, 1, pid, 0, 0)
        else:
            self.calls.append((libc.getpriority, (os.PRIO_PROCESS, pid)))
        knobs = [name for name in KNOBS if os.access("/proc/self/" + name, os.W_OK)]
        # No other process can write to a file that this process can't read.
        files = [file for file in (open_file(process, name) for name in knobs) if file is not None]
        self.files = [os.open("/proc/%s/limits" % process, os.O_RDONLY | os.O_CLOEXEC), *files]
        self.began_with = self.look()

    def look(self):
        answers = [call(*arguments) for call, arguments in self.calls]
        io_priority = libc.syscall(*self.io_priority) if self.io_priority else 0
        # A priority without a class is the kernel's default, for which the kernel returns several numbers.
        answers.append(io_priority if io_priority >> IOPRIO_CLASS_SHIFT else 0)
        answers += [os.pread(file, SIZE, 0) for file in self.files]
        return self.buffer.raw, answers

    def is_left(self):
        try:
            return self.look() == self.began_with
        except OSError:
            # The process has ended.
            return False

    def close(self):
        for file in self.files:
            os.close(file)


def open_file(process, name):
    """Opens a file of a process in /proc. None for a file that can't be read."""
    try:
        file = os.open("/proc/%s/%s" % (process, name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.pread(file, SIZE, 0)
        return file
    except OSError:
        os.close(file)
        return None
