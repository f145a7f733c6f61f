"""Imports a module in a function, and tells what the module and the code in C below it think of each other.

The text must be the same in each instance of the function. The input names the module.
"""
import os
import sys

BEFORE = list(sys.modules)


def tell(*values):
    print(*values, flush=True)


def look(name):
    """Tells what the import has brought: whether each class and each function is that of the module in sys.modules."""
    for module in [sys.modules[name] for name in sys.modules if name not in BEFORE]:
        tell(module.__name__, type(module).__name__, module.__spec__ and type(module.__spec__.loader).__name__)
        for key, value in vars(module).items():
            if module.__name__ == "ast" and key.endswith(("_getter", "_setter")):
                # These functions are made by the first copy only, and are then those of classes that all copies share.
                continue
            home = sys.modules.get(getattr(value, "__module__", None) or "")
            kind = type(value).__name__
            if isinstance(value, type):
                # A second copy of a module would have classes of its own.
                tell(" ", key, kind, vars(home).get(value.__name__) is value if home else home)
            elif kind == "function":
                tell(" ", key, kind, value.__globals__ is vars(home) if home else home)
            elif kind == "module":
                tell(" ", key, kind, sys.modules.get(value.__name__) is value)
            else:
                tell(" ", key, kind)


def raises(work, *values):
    """The class of the error, when the class is that of the module in sys.modules."""
    try:
        work(*values)
    except Exception as error:
        kind = type(error)
        return kind.__name__, getattr(sys.modules[kind.__module__], kind.__name__, None) is kind, kind.__mro__
    return None


def of_json():
    import json
    import json.decoder

    tell(raises(json.loads, "{"), json.JSONDecodeError is json.decoder.JSONDecodeError, json.dumps([1.5, "x", None]))
    tell(json.encoder.c_make_encoder, json.scanner.make_scanner, raises(json.dumps, object()))


def of_decimal():
    import decimal
    import numbers
    from decimal import Decimal

    import _decimal

    tell(Decimal is _decimal.Decimal, decimal.getcontext(), isinstance(decimal.getcontext(), decimal.Context))
    tell(Decimal(1) / 3, raises(Decimal, "x"), raises(lambda: Decimal(1) / 0), isinstance(Decimal(1), numbers.Number))
    with decimal.localcontext(prec=3) as context:
        tell(Decimal(1) / 3, context.prec, hash(Decimal(2)) == hash(2), Decimal("1.5") == 1.5)
    tell(sys.modules["decimal"].ROUND_UP, repr(Decimal("NaN")), f"{Decimal(1234):,}")


def of_fractions():
    from decimal import Decimal
    from fractions import Fraction

    tell(Fraction(Decimal("0.5")), Fraction(1, 3) + 1, Fraction("1.5") == 1.5, hash(Fraction(3)) == hash(3))


def of_datetime():
    import datetime

    import _datetime

    tell(datetime.datetime is _datetime.datetime, datetime.datetime.strptime("2001-02-03 +0100", "%Y-%m-%d %z"))
    tell(raises(datetime.datetime.strptime, "x", "%Y"), datetime.datetime.fromtimestamp(0, datetime.timezone.utc))
    tell(isinstance(datetime.timezone.utc, datetime.tzinfo), datetime.timedelta(1) * 2,
        datetime.datetime.min.strftime("%A"))
    import zoneinfo

    tell(datetime.datetime(2020, 7, 1, tzinfo=zoneinfo.ZoneInfo("UTC")).utcoffset())


def of_pickle():
    import collections
    import copy
    import copyreg
    import datetime
    import functools
    import io
    import pickle
    import re
    import uuid
    from decimal import Decimal

    import _pickle

    values = [
        collections.OrderedDict(a=1), collections.deque([1], 2), collections.Counter("aa"), functools.partial(int,
        base=2),
        Decimal("1.5"), datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), uuid.UUID(int=7), re.compile("a+"),
        collections.defaultdict(list, a=[1]), {1, 2}, 1j, range(3), Ellipsis, int, len, ValueError("x"), b"x",
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in values:
            again = pickle.loads(pickle.dumps(value, protocol))
            tell(type(again) is type(value), again if protocol == 4 and type(value) is not functools.partial else "")
    tell(pickle.Pickler is _pickle.Pickler, pickle.PicklingError is _pickle.PicklingError)
    tell(raises(pickle.dumps, lambda: 0), raises(pickle.loads, b"x"), [type(copy.deepcopy(value)) for value in values])
    tell(sorted(kind.__name__ for kind in copyreg.dispatch_table), copyreg._extension_registry, io.StringIO)

    class Own:
        pass

    copyreg.pickle(Own, lambda own: (str, ("own",)))
    tell(pickle.loads(pickle.dumps(Own())), copy.copy(Own()))


def of_sqlite3():
    import datetime
    import sqlite3

    import _sqlite3

    tell([getattr(_sqlite3, name) is getattr(sqlite3, name) for name in ("Error", "OperationalError", "Connection",
        "Row")])
    base = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
    base.row_factory = sqlite3.Row
    tell(raises(base.execute, "x"), raises(base.execute, "select ?", ()), issubclass(sqlite3.Error, Exception))
    base.execute("create table t (a, b blob)")
    base.execute("insert into t values (?, ?)", ("1", b"x"))
    tell([tuple(row) for row in base.execute("select * from t")], raises(base.execute, "select ?", (object(),)))
    sqlite3.register_adapter(datetime.time, str)
    sqlite3.register_converter("upper", bytes.upper)
    tell(base.execute("select ?", (datetime.time(1),)).fetchone()[0])
    base.create_function("f", 1, lambda value: value + 1)
    tell(base.execute("select f(1)").fetchone()[0])


def of_socket():
    import errno
    import select
    import socket

    import _socket

    tell(socket.timeout is TimeoutError, socket.error is OSError, issubclass(socket.gaierror, OSError))
    tell(socket.gaierror is _socket.gaierror, issubclass(socket.socket, _socket.socket), socket.AF_INET,
        socket.SOCK_STREAM)
    ours, theirs = socket.socketpair()
    ours.settimeout(0.001)
    tell(raises(ours.recv, 1), ours.family is socket.AF_UNIX, repr(ours.type), select.select([theirs], [], [], 0))
    tell(raises(socket.create_connection, ("127.0.0.1", 9)), errno.ECONNREFUSED, "x".encode("idna"))
    tell(raises(socket.getaddrinfo, "name.invalid", 1)[:2], socket.getdefaulttimeout(),
        socket._GLOBAL_DEFAULT_TIMEOUT is not None)


def of_ssl():
    import socket
    import ssl

    import _ssl

    tell([getattr(_ssl, name) is getattr(ssl, name) for name in ("SSLError", "SSLWantReadError", "MemoryBIO",
        "SSLSession")])
    tell(issubclass(ssl.SSLError, OSError), ssl.OPENSSL_VERSION, ssl.get_default_verify_paths(),
        ssl.socket_error is OSError)
    context = ssl.create_default_context()
    tell(context.verify_mode, repr(context.options), context.minimum_version, len(context.get_ciphers()) > 5)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="example.org")
    tell(raises(tls.do_handshake), outgoing.pending > 100, type(tls).__name__,
        raises(context.load_verify_locations, "/no"))
    incoming.write(b"no such protocol")
    tell(raises(tls.do_handshake))
    ours, theirs = socket.socketpair()
    ours.settimeout(0.001)
    tell(raises(context.wrap_socket, ours, False, True, True, "x"), theirs.recv(1))


def of_asyncio():
    import asyncio
    import concurrent.futures

    import _asyncio

    tell([getattr(_asyncio, name) is getattr(asyncio, name) for name in ("Future", "Task", "current_task",
        "get_running_loop")])

    async def main():
        loop = asyncio.get_running_loop()
        tell(loop is asyncio.events.get_running_loop(), type(asyncio.current_task()) is asyncio.Task)
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        tell(await future, isinstance(future, asyncio.Future), asyncio.isfuture(future), len(asyncio.all_tasks()))
        tell(await asyncio.gather(asyncio.sleep(0, "a"), asyncio.to_thread(lambda: "b")))
        task = asyncio.create_task(asyncio.sleep(9))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            tell(type(error) is asyncio.exceptions.CancelledError)
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(9)
        except TimeoutError as error:
            tell(type(error) is asyncio.TimeoutError)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            tell(await loop.run_in_executor(pool, lambda: 7), asyncio.wrap_future(pool.submit(int)).done())
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(1)", stdout=-1)
        tell(await process.communicate(), process.returncode)
        future.set_result(2)

    tell(raises(asyncio.run, main()), raises(asyncio.get_running_loop), concurrent.futures.CancelledError)


def of_threading():
    import _thread
    import threading

    main = threading.main_thread()
    tell(main is threading.current_thread(), main.ident == threading.get_ident(),
        main.native_id == threading.get_native_id())
    tell(threading.Lock, threading.RLock() is not None, threading.local, threading.get_ident is _thread.get_ident)
    tell(main.is_alive(), threading.active_count(), main.name, [thread.name for thread in threading.enumerate()])
    thread = threading.Thread(target=tell, args=("in a thread",))
    thread.start()
    thread.join()
    tell(threading.active_count(), raises(_thread.allocate_lock().release), threading.ThreadError is _thread.error)
    event = threading.Event()
    tell(event.wait(0.001), threading.excepthook is threading.__excepthook__)
    pid = os.fork()
    if not pid:
        tell(threading.main_thread() is threading.current_thread(), threading.active_count())
        tell(threading.main_thread().native_id == os.getpid())
        os._exit(0)
    tell(os.waitpid(pid, 0)[1])


def of_concurrent():
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        tell(list(pool.map(abs, (-1, 2))), type(pool.submit(int)) is concurrent.futures.Future)
        tell(raises(pool.submit(int, "x").result), concurrent.futures.TimeoutError is TimeoutError)
    tell(raises(pool.submit, int))


def of_logging():
    import atexit
    import io
    import logging

    tell(logging.root.handlers, logging.getLogger() is logging.root, logging.root.level,
        logging.Logger.manager.loggerDict)
    stream = io.StringIO()
    logging.basicConfig(stream=stream, format="%(levelname)s %(name)s %(message)s %(threadName)s %(process)d")
    logging.getLogger("a.b").warning("x %s", 1)
    tell(stream.getvalue().replace(str(os.getpid()), "PID"), list(logging._handlers), len(logging._handlerList))
    atexit.register(tell, "at the end", stream.closed)


def of_re():
    import copyreg
    import enum
    import re

    tell(re.Pattern is type(re.compile("a")), re.Match is type(re.match("a", "a")), raises(re.compile, "("))
    tell(repr(re.IGNORECASE), isinstance(re.I | re.M, enum.Flag), re.sub("a", "b", "aa"), re.error is re.PatternError)
    tell(re.Pattern in copyreg.dispatch_table)


def of_random():
    import random

    import _random

    first, second = os.fork, random.random()
    tell(issubclass(random.Random, _random.Random), random.Random(7).random(), random._inst.random() != second, first)
    numbers = set()
    for _ in range(3):
        way, in_child = os.pipe()
        if not os.fork():
            os.write(in_child, b"%r" % random.random())
            os._exit(0)
        numbers.add(os.read(way, 99))
    tell(len(numbers))


def of_rest():
    import base64
    import binascii
    import bisect
    import collections
    import csv
    import enum
    import functools
    import hashlib
    import heapq
    import hmac
    import io
    import ipaddress
    import itertools
    import math
    import operator
    import queue
    import secrets
    import signal
    import string
    import struct
    import subprocess
    import tempfile
    import unicodedata
    import urllib.error
    import urllib.request
    import uuid
    import zipfile
    import zlib
    import http.client
    import email.message
    import email.policy
    import gzip
    import xml.etree.ElementTree as tree
    import _csv, _functools, _queue, _struct, _io, _blake2

    tell(raises(struct.unpack, "i", b""), struct.error is _struct.error, raises(zlib.decompress, b"x"))
    tell(raises(csv.reader, "", "no"), csv.Error is _csv.Error, list(csv.reader(["a;b"], delimiter=";")),
        csv.list_dialects())
    tell(raises(queue.Queue().get_nowait), raises(queue.SimpleQueue().get_nowait), queue.Empty is _queue.Empty)
    tell(raises(base64.b64decode, "a"), binascii.Error, functools.partial is _functools.partial,
        io.StringIO is _io.StringIO)
    tell(raises(tree.fromstring, "<"), tree.tostring(tree.fromstring("<a b='c'>d</a>")), tree.Element.__module__)
    tell(isinstance(tree.fromstring("<a/>"), tree.Element), tree.ParseError.__mro__, tree.iterparse)
    tell(hashlib.sha256(b"x").hexdigest(), hashlib.new("md5", b"x").hexdigest(), sorted(hashlib.algorithms_guaranteed))
    tell(hmac.new(b"k", b"m", "sha1").hexdigest(), hashlib.blake2b is _blake2.blake2b, len(secrets.token_bytes(8)))
    tell(repr(signal.SIGTERM), isinstance(signal.SIGTERM, enum.IntEnum), signal.getsignal(signal.SIGINT),
        signal.SIG_DFL)
    tell(raises(os.kill, 0, 999), signal.getsignal(signal.SIGTERM), signal.Signals(15) is signal.SIGTERM)
    tell(subprocess.run(["cat"], input="x", text=True, capture_output=True), raises(subprocess.check_call, "false"))
    tell(raises(urllib.request.urlopen, "http://127.0.0.1:9/")[:2], raises(urllib.request.urlopen, "x:"))
    tell(uuid.uuid5(uuid.NAMESPACE_DNS, "x"), uuid.uuid4().version, uuid.getnode() == uuid.getnode())
    with tempfile.TemporaryDirectory() as folder:
        tell(folder.startswith("/tmp/tmp"), tempfile.gettempdir())
        with zipfile.ZipFile(folder + "/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", "b" * 99)
        tell(zipfile.ZipFile(folder + "/a.zip").read("a")[:3], raises(zipfile.ZipFile, __file__))
        gzip.open(folder + "/a.gz", "w").close()
        tell(gzip.open(folder + "/a.gz").read(), raises(gzip.decompress, b"xx"))
    letter = email.message.EmailMessage(policy=email.policy.default)
    letter["To"], letter["Subject"] = "a@example.org", "ä"
    letter.set_content("text")
    tell(letter, raises(http.client.HTTPConnection("127.0.0.1", 9).request, "GET", "/"))
    tell(ipaddress.ip_address("::1"), raises(ipaddress.ip_address, "x"), unicodedata.name("ä"), math.isclose(1, 1.1))
    tell(collections.namedtuple("Pair", "a b")(1, 2), collections.Counter("aab").most_common(1),
        string.Template("$a").substitute(a=1))
    tell(list(itertools.batched("abc", 2)), operator.attrgetter("a"), heapq.nlargest(1, [1, 3]), bisect.bisect([1,
        2], 1))


def of_json_mixed():
    """A module that the program imports at its top level, with classes of modules that are imported in a function."""
    import collections
    import dataclasses
    import datetime
    import json
    import typing
    from decimal import Decimal

    class Encoder(json.JSONEncoder):
        def default(self, value):
            return str(value) if isinstance(value, (Decimal, datetime.date)) else super().default(value)

    tell(json.dumps({"a": Decimal("1.5"), "b": datetime.date(2020, 1, 2)}, cls=Encoder), raises(json.dumps, Decimal(1)))
    tell(json.loads("[1.5]", parse_float=Decimal), json.dumps(collections.OrderedDict(a=1)))

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int
        y: "typing.Optional[Decimal]" = None

    hints = typing.get_type_hints(Point, localns={"typing": typing, "Decimal": Decimal})
    tell(Point(1), dataclasses.asdict(Point(1)), raises(lambda: setattr(Point(1), "x", 2)), hints)


name = os.environ["MODULE"]
if name.startswith("of_"):
    globals()[name]()
else:
    __import__(name)
    look(name)
tell([name for name in sys.modules if name not in BEFORE])
tell(sys.modules["warnings"].filters if "warnings" in sys.modules else "")
