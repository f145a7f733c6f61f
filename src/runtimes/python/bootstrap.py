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
from program import compile_ahead, forget, make_main, prepare_interpreter
from preload import preload
from protocol import PROTOCOL_OUT, VERSION, connect, frame, write_all
from seeds import seeds
from supervisor import HELD_BACK, Supervisor
from zygote import serve

HELLO = frame(b"H", bytes([VERSION]))
connect()
_signal.pthread_sigmask(_signal.SIG_BLOCK, HELD_BACK)
supervisor = Supervisor()
STASH, IS_SLOT = None, len(sys.argv) < 2
if IS_SLOT:
    # A slot: the function comes later.
    from stash import filled

    if os.statvfs(os.getcwd()).f_flag & os.ST_NOEXEC:
        sys.exit("%s is on a file system that is mounted with noexec" % os.getcwd())
    forget(BASELINE)
    sys.path[0] = os.getcwd()
    STASH = filled()
    write_all(PROTOCOL_OUT, HELLO)
    sys.argv += supervisor.take_code()
ENTRY = os.path.abspath(sys.argv[1])
# The name of the package that the program's own folder is. The program may import the package by this name.
PACKAGE = sys.argv[2] if len(sys.argv) > 2 else None
CODE = compile_ahead(ENTRY)
forget(BASELINE)
prepare_interpreter(ENTRY, PACKAGE)
if not IS_SLOT:
    write_all(PROTOCOL_OUT, HELLO)
# Only a zygote gets here.
plan, control = supervisor.run()
REPORT = b"0 \0" if plan.mode == "off" else preload(plan, ENTRY, PACKAGE, control, STASH)
# A module that the program imports comes after this one.
LAST_MODULE = next(reversed(sys.modules))
SEEDS = seeds()
if STASH and "random" in sys.modules:
    SEEDS += STASH.seeds
del supervisor, plan
gc.collect()
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
