"""The function's main file, and an interpreter that looks as if the interpreter had been started for that file."""
import os
import sys
import time

PACKAGES = "/opt/youtube-serverless/packages"

VARIABLES = os.environ._data


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


def set_environment(variables):
    """Sets variables, each as `NAME=VALUE` with a NUL behind."""
    for pair in variables.split(b"\0"):
        name, _, value = pair.partition(b"=")
        if name:
            # As os.environ does, without the conversion to a text and back.
            os.putenv(name, value)
            VARIABLES[name] = value
        if name == b"TZ":
            # The C library has read the time zone at the start.
            time.tzset()


def forget(baseline):
    """Takes away the modules that the bootstrap has imported."""
    for name in set(sys.modules) - baseline:
        del sys.modules[name]


def prepare_interpreter(path, package):
    """Makes the interpreter look to the program as if the interpreter had been started for the program."""
    sys.path[0] = os.path.dirname(path)
    if package:
        sys.path.append(PACKAGES)
    sys.argv[:] = [os.path.basename(path)]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = ["python3", sys.argv[0]]
    sys.path_importer_cache.clear()
    # Output reaches the platform line by line, so that printed lines survive a sudden end of the process.
    sys.stdout.reconfigure(line_buffering=True)


def make_main(path, package):
    """The namespace of a new module for the function's file, with the names that the interpreter itself would set."""
    main = type(sys)("__main__")
    main.__file__ = path
    main.__cached__ = None
    main.__builtins__ = sys.modules["builtins"]
    main.__loader__ = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    if package and os.path.basename(path) == "__main__.py":
        main.__package__ = package
    sys.modules["__main__"] = main
    return main.__dict__
