"""PID 1 of a Python instance: runs the function's main file in a new process for each invocation.

The bootstrap speaks protocol v6 on a socket or on stdin and stdout, see src/sandbox/protocol.rs. A zygote, which is a
warm interpreter, forks a child *ahead* of each request, so that a request only wakes the child. The child must be
indistinguishable from `python3 main.py`. For this reason the bootstrap imports few modules, forgets its imports, and
ends the child in the interpreter's own order. The bootstrap needs Python 3.9 or later with ctypes and select (Debian:
python3, not python3-minimal).
"""
import sys

BASELINE = set(sys.modules)

import _signal
import gc
import os

from child import run, take_request, wind_up
from immortal import immortalize
from program import compile_ahead, forget, make_main, prepare_interpreter
from preload import preload
from protocol import PROTOCOL_OUT, VERSION, connect, frame, write_all
from seeds import seeds
from stash import FIRST, filled
from supervisor import HELD_BACK, Supervisor
from zygote import serve, take_function

connect()
_signal.pthread_sigmask(_signal.SIG_BLOCK, HELD_BACK)
supervisor = Supervisor()
STASH, control, IS_SLOT = None, None, len(sys.argv) < 2
if IS_SLOT:
    # A slot: the function comes later.
    if os.statvfs(os.getcwd()).f_flag & os.ST_NOEXEC:
        sys.exit("%s is on a file system that is mounted with noexec" % os.getcwd())
    control = supervisor.fork_ahead() if sys.version_info >= FIRST else None
if control:
    # The zygote of a slot.
    forget(BASELINE)
    sys.path[0] = os.getcwd()
    STASH = filled()
    arguments, plan = take_function(control)
else:
    write_all(PROTOCOL_OUT, frame(b"H", bytes([VERSION])))
    arguments = supervisor.take_code() if IS_SLOT else sys.argv[1:]
    # Only a zygote gets behind this.
    plan, control = supervisor.run(arguments)
ENTRY = os.path.abspath(arguments[0])
# The name of the package that the program's own folder is. The program may import the package by this name.
PACKAGE = arguments[1] if len(arguments) > 1 else None
CODE = compile_ahead(ENTRY)
forget(BASELINE)
prepare_interpreter(ENTRY, PACKAGE)
REPORT = b"0 \0" if plan.mode == "off" else preload(plan, ENTRY, PACKAGE, control, STASH)
# A module that the program imports comes after this one.
LAST_MODULE = next(reversed(sys.modules))
SEEDS = seeds()
if STASH and "random" in sys.modules:
    SEEDS += STASH.seeds
del supervisor, plan, arguments
gc.collect()
immortalize()
gc.freeze()
serve(control, HELD_BACK, REPORT)
# Only a forked child gets here. The objects that the zygote has made since its own start are frozen as well: a
# collection at the child's end would otherwise copy the pages of these objects.
gc.freeze()
# Only now: the collector looks at no object that is older than the freeze, and so would never end the program's own.
MAIN = make_main(ENTRY, PACKAGE)
for seed in SEEDS:
    seed()
take_request()
wind_up(run(ENTRY, CODE, globals().pop("MAIN")), LAST_MODULE)
