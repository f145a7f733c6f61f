"""A child runs the function's main file as `python3 main.py` does, and ends as the interpreter does."""
import _signal
import gc
import os
import sys

from program import compile_main, set_environment
from protocol import READ_BYTES, read_exactly, write_all

# A pipe holds at least this size, whatever its owner's quota.
PIPE_LEAST = 4096
BOOTSTRAP = os.path.join(os.path.dirname(__file__), "")


def take_request():
    """Takes the environment from the request on stdin, so that the function's own input follows there."""
    head = read_exactly(0, 8)
    variables, input = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
    if variables:
        set_environment(read_exactly(0, variables))
    if input > PIPE_LEAST:
        # A pipe need not hold the input. A file in memory reads the same, and no process has to feed the file.
        file = os.memfd_create("stdin")
        while input:
            data = read_exactly(0, min(input, READ_BYTES))
            write_all(file, data)
            input -= len(data)
        os.lseek(file, 0, os.SEEK_SET)
        os.dup2(file, 0)
        os.close(file)


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


def without_our_frames(error):
    traceback = error.__traceback__
    while traceback and traceback.tb_frame.f_code.co_filename.startswith(BOOTSTRAP):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


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


def wind_up(status, last_module):
    """Ends the process in the same order as the interpreter does, but frees no memory of the interpreter.

    A full finalization of the interpreter writes to most of its pages. The child shares these pages with the
    zygote, and each write copies a page: the copies cost more than the rest of an invocation.
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
    # zygote made before the fork are frozen: the collector does not look at them.
    sys.last_type = sys.last_value = sys.last_traceback = sys.last_exc = None
    for name in modules_after(last_module):
        del sys.modules[name]
    sys.modules.pop("__main__", None)
    gc.collect()
    status = flush(status)
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def modules_after(last):
    """The modules that came after this module. A look at all modules would copy a page for most of their names."""
    names = []
    for name in reversed(sys.modules):
        if name == last:
            break
        names.append(name)
    return names


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
