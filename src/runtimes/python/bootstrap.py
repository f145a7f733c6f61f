"""PID 1 of a Python instance: runs the function's main file in a new process for each invocation.

The bootstrap speaks protocol v3 on stdin and stdout, see src/sandbox/protocol.rs. The supervisor forks a child from
this warm interpreter *ahead* of each request, so that a request only wakes the child. The child must be
indistinguishable from `python3 main.py`. For this reason the bootstrap imports few modules, forgets its imports, and
ends the child in the interpreter's own order. The bootstrap needs Python 3.9 or later with ctypes and select (Debian:
python3, not python3-minimal).
"""
import sys

BASELINE = set(sys.modules)

import _signal
import ctypes
import gc
import os
import select
import time

VERSION = 3
PROTOCOL_IN, PROTOCOL_OUT = 0, 1
MAX_REQUEST = 4 << 20
FLUSH_BYTES, FLUSH_SECONDS = 32768, 0.02
READ_BYTES = 65536
SHORT_SECONDS = 0.005
WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")
SYSV_IPC = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
PACKAGES = "/opt/youtube-serverless/packages"
PR_SET_DUMPABLE = 4
# The files of /proc/self that another process of the same user can change. Only files that the bootstrap itself can
# write are watched.
KNOBS = ("autogroup", "coredump_filter", "oom_score_adj", "timerslack_ns")
RLIMITS = 16
# The numbers of sched_getattr and ioprio_get by processor. The C library has no functions for these calls.
CALLS = {"x86_64": (315, 252), "aarch64": (275, 31)}
IOPRIO_CLASS_SHIFT = 13
CHILD_ENDED = (_signal.SIGCHLD,)
HELD_BACK = (_signal.SIGCHLD, _signal.SIGINT)

libc = ctypes.CDLL(None)
prctl = libc.prctl


class Child:
    """A forked process that waits for its request, and the supervisor's ends of its pipes."""

    def __init__(self, pid, request, stdout, stderr):
        self.pid, self.request, self.stdout, self.stderr = pid, request, stdout, stderr
        self.status = self.usage = None


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_exactly(fd, size):
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def frame(kind, *parts):
    body = kind + b"".join(parts)
    return len(body).to_bytes(4, "big") + body


class Memory:
    """Bytes of an invocation. Later children are copies of the supervisor, so used bytes must be overwritten."""

    def __init__(self, size):
        self.place = (ctypes.c_char * size)()
        self.view = memoryview(self.place).cast("B")

    def forget(self, size):
        ctypes.memset(self.place, 0, size)


def read_request(memory):
    """Reads the next request. Returns the memory with the body of its frame, and the body's size.

    Raises EOFError when the platform has closed the pipe.
    """
    size = int.from_bytes(read_exactly(PROTOCOL_IN, 4), "big")
    if not 25 <= size <= MAX_REQUEST:
        raise ValueError("a request of %d bytes" % size)
    if size > len(memory.view):
        # The larger memory serves this request only: otherwise each later child would have its pages, too.
        memory = Memory(size)
    filled = 0
    while filled < size:
        more = os.readv(PROTOCOL_IN, (memory.view[filled:size],))
        if not more:
            raise EOFError
        filled += more
    if memory.view[0] != ord("I"):
        raise ValueError("a frame of kind %d" % memory.view[0])
    return memory, size


def fork_child():
    request, request_in = os.pipe()
    stdout, stdout_in = os.pipe()
    stderr, stderr_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HELD_BACK)
        os.setsid()
        os.dup2(request, 0)
        os.dup2(stdout_in, 1)
        os.dup2(stderr_in, 2)
        os.closerange(3, stderr_in + 64)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        return None
    os.close(request)
    os.close(stdout_in)
    os.close(stderr_in)
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    return Child(pid, request_in, stdout, stderr)


def reap(child, options):
    """Reaps every process that has ended: the child, and orphans, which PID 1 inherits."""
    try:
        while True:
            pid, status, usage = os.wait4(-1, options)
            if pid == 0:
                return
            if pid == child.pid:
                child.status, child.usage = status, usage
    except ChildProcessError:
        return


def end_all(child):
    """Kills and reaps all processes that the function left running.

    No process can escape by forks: PID 1 kills all processes at once.
    """
    try:
        while True:
            os.kill(-1, _signal.SIGKILL)
            reap(child, 0)
    except ProcessLookupError:
        pass


class Frames:
    """Frames on their way to the platform.

    The memory is allocated before the function runs, because the function may set the supervisor's memory limits to 0.
    """

    HEAD = 4 + 1 + 16

    def __init__(self):
        self.memory = Memory(FLUSH_BYTES + 2 * (self.HEAD + READ_BYTES) + 256)
        self.view = self.memory.view
        # The end of the frames, and the end of all bytes that were written: bytes above an output's cap are in no
        # frame.
        self.size = self.used = 0

    def add(self, data):
        end = self.size + len(data)
        self.view[self.size : end] = data
        self.size = end

    def flush(self):
        write_all(PROTOCOL_OUT, self.view[: self.size])
        self.memory.forget(max(self.size, self.used))
        self.size = self.used = 0


class Output:
    """One stream of the function. The bytes within the cap go out in frames, the other bytes are discarded."""

    def __init__(self, fd, kind, nonce, room):
        self.fd, self.kind, self.nonce, self.room = fd, kind, nonce, room
        self.truncated = False

    def pump(self, frames):
        """Reads the available bytes. True at the end of the stream."""
        if frames.size >= FLUSH_BYTES:
            frames.flush()
        begin = frames.size + frames.HEAD
        try:
            size = os.readv(self.fd, (frames.view[begin : begin + READ_BYTES],))
        except BlockingIOError:
            return False
        if not size:
            return True
        frames.used = max(frames.used, begin + size)
        if size > self.room:
            self.truncated = True
            size = self.room
        if size:
            self.room -= size
            frames.add((size + 17).to_bytes(4, "big") + self.kind + self.nonce)
            frames.size += size
        return False


def wait_shortly(child):
    """Waits for a child that ends soon, as most children do.

    The pipes are not read during this wait, because they can hold the output of a short invocation.
    """
    deadline = time.perf_counter() + SHORT_SECONDS
    while child.status is None:
        left = deadline - time.perf_counter()
        if left <= 0 or _signal.sigtimedwait(CHILD_ENDED, left) is None:
            return
        reap(child, os.WNOHANG)


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
    """Passes on the child's output until the child has ended. The last frames are left for the caller to send."""
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
    end_all(child)
    for output in outputs:
        # No writer is left, so the stream ends with the content of the pipe.
        while not output.pump(frames):
            pass


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
                reap(child, os.WNOHANG)
            elif fd in by_fd and by_fd[fd].pump(frames):
                events.poll.unregister(fd)
                del by_fd[fd]
        if frames.size and (frames.size >= FLUSH_BYTES or time.perf_counter() - flushed >= FLUSH_SECONDS):
            frames.flush()
            flushed = time.perf_counter()
    for fd in by_fd:
        events.poll.unregister(fd)


def open_oom_counter():
    for path in OOM_COUNTERS:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
    return None


def oom_kills(counter):
    """How many processes of this container the kernel's OOM killer has ended. None when unknown."""
    if counter is None:
        return None
    for line in os.pread(counter, 4096, 0).splitlines():
        if line.startswith(b"oom_kill "):
            return int(line[9:])
    return None


def remove_tree(path):
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                remove_tree(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)


def is_clean(tables):
    """Whether the container holds no file and no IPC object of a function."""
    # The first line is the table's header.
    return not any(map(listing, WRITABLE)) and all(os.pread(table, 4096, 0).count(b"\n") <= 1 for table in tables)


def listing(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return ()


def clean():
    """Removes the files that a function left.

    IPC objects are not removed: their removal would cost more than the start of a new container.
    """
    for path in WRITABLE:
        try:
            if listing(path):
                remove_tree(path)
        except (OSError, RecursionError):
            pass


def microseconds(seconds):
    return int(seconds * 1e6).to_bytes(8, "big")


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


class Supervisor:
    """The state that lasts for a container's life."""

    def __init__(self):
        self.tables = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in SYSV_IPC if os.path.exists(path)]
        self.counter = open_oom_counter()
        self.kills = oom_kills(self.counter)
        self.events = Events()
        self.request = Memory(READ_BYTES)
        self.frames = Frames()
        self.inheritance = Inheritance()

    def serve(self, child):
        """Runs one invocation on the child, and cleans up afterwards.

        Returns False when the cleanup fails; the caller must then end the container.
        """
        memory, size = read_request(self.request)
        started = time.perf_counter()
        nonce, room = bytes(memory.view[1:17]), int.from_bytes(memory.view[17:21], "big")
        # The rest of the request is for the child. The size of the rest overwrites the output cap.
        memory.view[17:21] = (size - 21).to_bytes(4, "big")
        write_all(child.request, memory.view[17:size])
        os.close(child.request)
        memory.forget(size)
        del memory
        outputs = (Output(child.stdout, b"O", nonce, room), Output(child.stderr, b"E", nonce, room))
        relay(child, outputs, self.frames, self.events)
        duration = time.perf_counter() - started
        # The inheritance is checked first: with a changed limit no folder can be listed.
        is_inheritance_left = self.inheritance.is_left()
        is_left_clean = is_inheritance_left and is_clean(self.tables)
        kills_before, self.kills = self.kills, oom_kills(self.counter)
        exit = frame(
            b"X",
            nonce,
            (child.status & 0xFFFFFFFF).to_bytes(4, "big"),
            b"\xff" if self.kills is None else bytes([self.kills != kills_before]),
            bytes([outputs[0].truncated or outputs[1].truncated, is_left_clean]),
            microseconds(duration),
            microseconds(child.usage.ru_utime + child.usage.ru_stime),
            (child.usage.ru_maxrss * 1024).to_bytes(8, "big"),
        )
        self.frames.add(exit)
        self.frames.flush()
        os.close(child.stdout)
        os.close(child.stderr)
        if not is_inheritance_left:
            return False
        if not is_left_clean:
            clean()
            if not is_clean(self.tables):
                return False
            write_all(PROTOCOL_OUT, frame(b"R", nonce))
        return True


def compile_ahead(path):
    """The main file's code. None when the compiler warns or fails: then each child compiles, and prints the message."""

    class Recorder:
        said = False

        def write(self, _):
            self.said = True

        def flush(self):
            pass

    stderr, sys.stderr = sys.stderr, Recorder()
    try:
        code = compile_main(path)
        return None if sys.stderr.said else code
    except Exception:
        return None
    finally:
        sys.stderr = stderr
        # Python 3.13 and later note here that a warning was printed, and a child would not print the warning again.
        globals().pop("__warningregistry__", None)


def compile_main(path):
    with open(path, "rb") as source:
        return compile(source.read(), path, "exec", dont_inherit=True)


def take_request():
    """Sets the environment and stdin from the request on fd 0. The child calls this just before the function."""
    body = read_exactly(0, int.from_bytes(read_exactly(0, 4), "big"))
    size = int.from_bytes(body[:4], "big")
    for pair in body[4 : 4 + size].split(b"\0"):
        name, _, value = pair.partition(b"=")
        if name:
            os.environb[name] = value
        if name == b"TZ":
            # The C library has read the supervisor's time zone.
            time.tzset()
    stdin = body[4 + size :]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        fits = os.write(writer, stdin) == len(stdin)
    except BlockingIOError:
        fits = False
    os.close(writer)
    if not fits:
        # A pipe can't hold the input. A file in memory reads the same, and no process has to feed the file.
        os.close(reader)
        reader = os.memfd_create("stdin")
        write_all(reader, stdin)
        os.lseek(reader, 0, os.SEEK_SET)
    os.dup2(reader, 0)
    os.close(reader)


def prepare_interpreter(path):
    """Makes the interpreter look to the program as if the interpreter had been started for the program."""
    sys.path[0] = os.path.dirname(path)
    if PACKAGE:
        sys.path.append(PACKAGES)
    sys.argv[:] = [os.path.basename(path)]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = ["python3", sys.argv[0]]
    sys.path_importer_cache.clear()
    # Output reaches the platform line by line, so that printed lines survive a sudden end of the process.
    sys.stdout.reconfigure(line_buffering=True)
    for name in set(sys.modules) - BASELINE:
        del sys.modules[name]


def make_main(path):
    """The namespace of a new module for the function's file, with the names that the interpreter itself would set."""
    main = type(sys)("__main__")
    main.__file__ = path
    main.__cached__ = None
    main.__builtins__ = sys.modules["builtins"]
    main.__loader__ = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    if PACKAGE and os.path.basename(path) == "__main__.py":
        main.__package__ = PACKAGE
    sys.modules["__main__"] = main
    return main.__dict__


def without_our_frames(error):
    traceback = error.__traceback__
    while traceback and traceback.tb_frame.f_code.co_filename == run.__code__.co_filename:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def run(path, code, namespace):
    """Runs the function. An exception is shown as `python3 main.py` shows it. Returns an exit status."""
    try:
        exec(code or compile_main(path), namespace)
        return 0
    except SystemExit as error:
        return exit_status(error.code)
    except BaseException as error:
        failure = without_our_frames(error)
    # The exception is no longer being handled here, so that an error in its display does not get this exception as
    # context.
    return show(failure)


def exit_status(code):
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    try:
        sys.stderr.write(str(code) + "\n")
    except Exception:
        pass
    return 1


def show(error):
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as exit:
        return exit_status(exit.code)
    except BaseException as second:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, without_our_frames(second).__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, error.__traceback__)
    return -_signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def wind_up(status):
    """Ends the process in the same order as the interpreter does, but frees no memory of the interpreter.

    A full finalization of the interpreter writes to most of its pages. The child shares these pages with the
    supervisor, and each write copies a page: the copies cost more than the rest of an invocation.
    """
    if "threading" in sys.modules:
        try:
            sys.modules["threading"]._shutdown()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    status = flush(status)
    # The function's own modules are released, so that finalizers run and files are flushed. The objects that the
    # supervisor made before the fork are frozen: the collector does not look at them.
    sys.last_type = sys.last_value = sys.last_traceback = sys.last_exc = None
    for name in [name for name in sys.modules if name not in BASELINE or name == "__main__"]:
        del sys.modules[name]
    gc.collect()
    status = flush(status)
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def flush(status):
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException as error:
            # As in the interpreter, a failed write to stdout changes the exit status.
            if stream is sys.stdout:
                unraisable(error, stream)
                status = 120
    return status


def unraisable(error, stream):
    try:
        sys.stderr.write("Exception ignored in: %r\n" % (stream,))
        sys.__excepthook__(type(error), error, None)
    except BaseException:
        pass


ENTRY = os.path.abspath(sys.argv[1])
# The name of the package that the program's own folder is. The program may import the package by this name.
PACKAGE = sys.argv[2] if len(sys.argv) > 2 else None
CODE = compile_ahead(ENTRY)
prepare_interpreter(ENTRY)
gc.collect()
gc.freeze()
prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
_signal.pthread_sigmask(_signal.SIG_BLOCK, HELD_BACK)
supervisor = Supervisor()
child = fork_child()
if child:
    write_all(PROTOCOL_OUT, frame(b"H", bytes([VERSION])))
while child:
    try:
        if not supervisor.serve(child):
            os._exit(3)
    except EOFError:
        os._exit(0)
    child = fork_child()
# Only a forked child gets here. The objects that the supervisor has made since its own start are frozen as well: a
# collection at the child's end would otherwise copy the pages of these objects.
gc.freeze()
MAIN = make_main(ENTRY)
take_request()
wind_up(run(ENTRY, CODE, globals().pop("MAIN")))
