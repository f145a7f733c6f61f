"""PID 1 of a Python instance: runs the function's main file in a fresh process per invocation.

Speaks protocol v1 on stdin and stdout, see src/protocol.rs. A child is forked *ahead* of each request from
this warm interpreter, so that a request only wakes it. The child must be indistinguishable from
`python3 main.py`, which is why this file imports little, forgets what it imported, and leaves the exit of the
child to the interpreter. Needs Python 3.9+ with ctypes and select (Debian: python3, not python3-minimal).
"""
import sys

BASELINE = set(sys.modules)

import _signal
import ctypes
import gc
import os
import select
import time

VERSION = 1
PROTOCOL_IN, PROTOCOL_OUT = 0, 1
MAX_REQUEST = 4 << 20
FLUSH_BYTES, FLUSH_SECONDS = 32768, 0.02
WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")
SYSV_IPC = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
PR_SET_DUMPABLE = 4

prctl = ctypes.CDLL(None).prctl


class Run(Exception):
    """Unwinds a forked child from the supervisor's stack to the bottom of this file, where the function runs."""


class Child:
    """A forked process that waits for its request, and our ends of its pipes."""

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


def read_request():
    """The next request's body without its kind; EOFError when the platform has closed the pipe."""
    size = int.from_bytes(read_exactly(PROTOCOL_IN, 4), "big")
    if not 21 <= size <= MAX_REQUEST:
        raise ValueError("a request of %d bytes" % size)
    body = read_exactly(PROTOCOL_IN, size)
    if body[:1] != b"I":
        raise ValueError("a frame of kind %r" % body[:1])
    return body[1:]


def fork_child():
    request, request_in = os.pipe()
    stdout, stdout_in = os.pipe()
    stderr, stderr_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        os.setsid()
        os.dup2(request, 0)
        os.dup2(stdout_in, 1)
        os.dup2(stderr_in, 2)
        os.closerange(3, stderr_in + 64)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        # Of all processes here the function is the one that the kernel should end when memory is short.
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
        raise Run
    os.close(request)
    os.close(stdout_in)
    os.close(stderr_in)
    os.set_blocking(stdout, False)
    os.set_blocking(stderr, False)
    return Child(pid, request_in, stdout, stderr)


def reap(child, options):
    """Collects every process that ended: the child, and orphans, which become ours as we are PID 1."""
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
    """Kills and reaps whatever the function left running. Nothing can fork away: PID 1 kills all at once."""
    try:
        while True:
            os.kill(-1, _signal.SIGKILL)
            reap(child, 0)
    except ProcessLookupError:
        pass


class Output:
    """One stream of the function: what is within its cap goes out in frames, the rest is drained."""

    def __init__(self, fd, kind, nonce, room):
        self.fd, self.kind, self.nonce, self.room = fd, kind, nonce, room
        self.truncated = False

    def pump(self, frames):
        """Takes what there is. True at the end of the stream."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return False
        if not data:
            return True
        if len(data) > self.room:
            self.truncated = True
            data = data[: self.room]
        if data:
            self.room -= len(data)
            frames += frame(self.kind, self.nonce, data)
        return False


def relay(child, outputs, wakeup):
    """Passes on what the child prints until it has ended, then what is left in its pipes."""
    poll = select.poll()
    poll.register(PROTOCOL_IN, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    by_fd = {output.fd: output for output in outputs}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    frames = bytearray()
    flushed = time.perf_counter()
    while child.status is None:
        ready = poll.poll(FLUSH_SECONDS * 1000 if frames else None)
        for fd, _ in ready:
            if fd == PROTOCOL_IN:
                # Nothing is due during an invocation, so this is the platform that went away or talks nonsense.
                os._exit(0)
            elif fd == wakeup:
                os.read(wakeup, 4096)
                reap(child, os.WNOHANG)
            elif by_fd[fd].pump(frames):
                poll.unregister(fd)
                del by_fd[fd]
        if frames and (len(frames) >= FLUSH_BYTES or time.perf_counter() - flushed >= FLUSH_SECONDS):
            write_all(PROTOCOL_OUT, frames)
            frames.clear()
            flushed = time.perf_counter()
    end_all(child)
    for output in by_fd.values():
        # No writer is left, so this ends with the pipe's content.
        while not output.pump(frames):
            pass
    return frames


def open_oom_counter():
    for path in OOM_COUNTERS:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
    return None


def oom_kills(counter):
    """How many processes of this container the kernel's OOM killer has ended; None when it can't be known."""
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


def clean():
    """Removes what the function left in the container. False when something can't be removed: then we end."""
    for path in WRITABLE:
        try:
            if os.listdir(path):
                remove_tree(path)
        except FileNotFoundError:
            pass
        except (OSError, RecursionError):
            return False
    for path in SYSV_IPC:
        # The first line is the table's head. Removing the objects would need more than the platform needs to start anew.
        try:
            with open(path, "rb", 0) as table:
                if table.read(4096).count(b"\n") > 1:
                    return False
        except FileNotFoundError:
            pass
    return True


def microseconds(seconds):
    return int(seconds * 1e6).to_bytes(8, "big")


def serve():
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    wakeup, wakeup_in = os.pipe()
    os.set_blocking(wakeup_in, False)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
    counter = open_oom_counter()
    kills = oom_kills(counter)
    child = fork_child()
    write_all(PROTOCOL_OUT, frame(b"H", bytes([VERSION])))
    while True:
        body = read_request()
        started = time.perf_counter()
        nonce, room = body[:16], int.from_bytes(body[16:20], "big")
        write_all(child.request, (len(body) - 20).to_bytes(4, "big") + body[20:])
        os.close(child.request)
        outputs = (Output(child.stdout, b"O", nonce, room), Output(child.stderr, b"E", nonce, room))
        frames = relay(child, outputs, wakeup)
        duration = time.perf_counter() - started
        kills_before, kills = kills, oom_kills(counter)
        frames += frame(
            b"X",
            nonce,
            (child.status & 0xFFFFFFFF).to_bytes(4, "big"),
            b"\xff" if kills is None else bytes([kills != kills_before]),
            bytes([outputs[0].truncated or outputs[1].truncated]),
            microseconds(duration),
            microseconds(child.usage.ru_utime + child.usage.ru_stime),
            (child.usage.ru_maxrss * 1024).to_bytes(8, "big"),
        )
        write_all(PROTOCOL_OUT, frames)
        os.close(child.stdout)
        os.close(child.stderr)
        if not clean():
            return
        child = fork_child()
        write_all(PROTOCOL_OUT, frame(b"R", nonce))


def compile_ahead(path):
    """The main file's code, or None where compiling it says something: then each child compiles and says it."""

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


def compile_main(path):
    with open(path, "rb") as source:
        return compile(source.read(), path, "exec", dont_inherit=True)


def take_request():
    """In the child: sets the environment and stdin from the request on fd 0. Runs just before the function."""
    body = read_exactly(0, int.from_bytes(read_exactly(0, 4), "big"))
    size = int.from_bytes(body[:4], "big")
    for pair in body[4 : 4 + size].split(b"\0"):
        name, _, value = pair.partition(b"=")
        if name:
            os.environb[name] = value
    stdin = body[4 + size :]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        fits = os.write(writer, stdin) == len(stdin)
    except BlockingIOError:
        fits = False
    os.close(writer)
    if not fits:
        # More than a pipe holds: a file in memory reads the same and needs no one to feed it.
        os.close(reader)
        reader = os.memfd_create("stdin")
        write_all(reader, stdin)
        os.lseek(reader, 0, os.SEEK_SET)
    os.dup2(reader, 0)
    os.close(reader)


def prepare_main(path):
    """The module that the function's file runs in, as the interpreter itself would have made it."""
    main = type(sys)("__main__")
    main.__file__ = path
    main.__cached__ = None
    main.__builtins__ = sys.modules["builtins"]
    main.__loader__ = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    sys.path[0] = os.path.dirname(path)
    sys.argv[:] = [os.path.basename(path)]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = ["python3", sys.argv[0]]
    sys.path_importer_cache.clear()
    for name in set(sys.modules) - BASELINE:
        del sys.modules[name]
    return main


def without_our_frames(error):
    traceback = error.__traceback__
    while traceback and traceback.tb_frame.f_code.co_filename == run.__code__.co_filename:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def run(path, code, namespace):
    """Runs the function. What it raises ends as it would at the bottom of `python3 main.py`."""
    try:
        exec(code or compile_main(path), namespace)
        return
    except SystemExit:
        raise
    except BaseException as error:
        error = without_our_frames(error)
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
        sys.excepthook(type(error), error, error.__traceback__)
    if interrupted:
        end_by_sigint()
    raise SystemExit(1)


def end_by_sigint():
    """As the interpreter does it: everything is wound up first, then the process dies of the signal."""
    import atexit

    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGINT)


ENTRY = os.path.abspath(sys.argv[1])
CODE = compile_ahead(ENTRY)
MAIN = prepare_main(ENTRY)
gc.collect()
gc.freeze()
try:
    serve()
    os._exit(3)
except EOFError:
    os._exit(0)
except Run:
    pass
# Only a forked child gets here, with the supervisor's frames gone.
take_request()
run(ENTRY, CODE, MAIN.__dict__)
