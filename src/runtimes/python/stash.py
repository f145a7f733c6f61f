"""The common part of the standard library, imported before there is a function.

The zygote of a slot imports the modules, notes what the code of each module does beyond its own module, and takes all
of them out of `sys.modules`. When the function has come, the zygote gets a stashed module for an import, and then what
the module's code has done, in the order of a real import. No module of the list reads variables of the environment when
the module is imported, but for those that `fitness.rs` lists, and no module leaves a trace in the process.

A program may import a module of the list where no stash is any more: in a function. Then the program gets another copy
of the module, beside the stashed copy that nothing refers to. Both have the state of their own that such modules have
from Python 3.13 on. Before, `_decimal`, `_datetime`, `_asyncio`, `_pickle` and others in C have one state or one set of
types for a process, which knows the classes of the first copy: an `await` would raise another `CancelledError` than
that of the second `asyncio`. `tests/it/slots/lazy_imports.rs` compares such imports with those of other instances.
"""
import gc
import os
import sys

from immortal import immortalize
from imports import absolute
from inheritance import Inheritance
from leftovers import open_tables
from preload import quietly
from seeds import seeds
from traces import Traces

# The first version of Python whose modules in C have a state for each copy of the module.
FIRST = (3, 13)

# What programs import most, where an import takes longer than a millisecond for each 100 kB that the stash holds. So
# these are left out: html (a table of all entities), argparse (no program has arguments), statistics and fractions.
COMMON = (
    "json", "re", "collections", "datetime", "functools", "itertools", "math", "random", "time", "os.path",
    "pathlib", "string", "struct", "typing", "dataclasses", "enum", "copy", "contextlib", "operator", "io",
    "textwrap", "traceback", "base64", "hashlib", "hmac", "secrets", "uuid", "decimal", "csv", "heapq", "bisect",
    "logging", "threading", "queue", "subprocess", "shutil", "tempfile", "glob", "inspect", "urllib.parse",
    "urllib.request", "http.client", "ssl", "socket", "email.message", "zlib", "gzip", "zipfile", "asyncio",
    "concurrent.futures", "concurrent.futures.thread", "sqlite3", "pickle", "encodings.idna",
    "xml.etree.ElementTree", "calendar", "unicodedata", "ipaddress", "pprint", "signal",
)

# The functions by which the code of a module tells something to another module, which would keep it. The calls wait
# until the module is wanted.
KEEPERS = {"os": "register_at_fork", "atexit": "register", "copyreg": "pickle", "threading": "_register_atexit"}

builtins = sys.modules["builtins"]
PathFinder = sys.modules["_frozen_importlib_external"].PathFinder
ModuleSpec = sys.modules["_frozen_importlib"].ModuleSpec


class Stash:
    """Imported modules by name, and the calls that the code of each module has made. A finder and loader of these
    modules."""

    def __init__(self):
        # Each call has a function, arguments and arguments by name.
        self.modules, self.calls, self.specs = {}, {}, {}
        # The names that may belong to other modules: the zip's.
        self.hidden = ()
        # Whether another finder was asked for a module.
        self.is_missed = False

    def fill(self):
        """Imports the modules. Returns what the imports have left in this process; None when all is well."""
        inheritance, tables = Inheritance(), open_tables()
        try:
            return quietly(lambda said: self.import_all(Traces(inheritance, tables, said)))
        finally:
            inheritance.close()
            for table in tables:
                os.close(table)

    def import_all(self, traces):
        before = set(sys.modules)
        with Recorder(self):
            for name in COMMON:
                try:
                    __import__(name)
                except ImportError:
                    pass
        self.seeds = seeds()
        # These loggers belong to modules that a program may never import.
        sys.modules["logging"].root.manager.loggerDict.clear()
        self.modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name not in before}
        for name, module in self.modules.items():
            self.specs[name] = getattr(module, "__spec__", None)
            holder, _, child = name.rpartition(".")
            holder = self.modules.get(holder) or sys.modules.get(holder)
            # The import of a submodule sets this name.
            if holder and name in self.calls and vars(holder).get(child) is module:
                delattr(holder, child)
        return traces.difference()

    def find_spec(self, name, path=None, target=None):
        if name not in self.calls or path is None and name in self.hidden:
            self.is_missed = True
            return None
        look_like_a_search(sys.path if path is None else path, self.specs[name])
        return ModuleSpec(name, self)

    def create_module(self, spec):
        return self.modules[spec.name]

    def exec_module(self, module):
        name = module.__spec__.name
        module.__spec__ = self.specs[name]
        for call, values, named in self.calls[name]:
            call(*values, **named)

    def put_alias(self, name):
        sys.modules[name] = self.modules[name]

    def take_missed(self):
        """Whether another finder was asked for a module since the last call."""
        is_missed, self.is_missed = self.is_missed, False
        return is_missed


class Recorder:
    """Notes the calls that the code of each module makes. A finder that wraps the loaders of all other finders."""

    def __init__(self, stash):
        self.stash, self.running, self.known, self.kept = stash, [], set(sys.modules), []

    def __enter__(self):
        self.original, builtins.__import__ = builtins.__import__, self.record
        sys.meta_path.insert(0, self)
        self.hold_back(os, KEEPERS["os"])

    def __exit__(self, *_):
        sys.meta_path.remove(self)
        builtins.__import__ = self.original
        for module, name, original in self.kept:
            setattr(module, name, original)

    def record(self, name, globals=None, locals=None, fromlist=(), level=0):
        self.note_aliases()
        imported = self.original(name, globals, locals, fromlist, level)
        whole = absolute(name, level, package_of(globals)) if level else name
        self.note(self.original, (whole, None, None, tuple(fromlist or ())), {})
        return imported

    def note(self, *call):
        if self.running and call not in self.stash.calls[self.running[-1]]:
            self.stash.calls[self.running[-1]].append(call)

    def note_aliases(self):
        """Notes what the module's code has put into `sys.modules`: a part of itself, by another name."""
        for name in [name for name in sys.modules if name not in self.known] if self.running else ():
            self.known.add(name)
            self.note(self.stash.put_alias, (name,), {})

    def hold_back(self, module, name):
        """Has calls of a module's function wait until the module that calls is wanted."""
        original = getattr(module, name)
        self.kept.append((module, name, original))
        setattr(module, name, lambda *values, **named: self.note(original, values, named))

    def note_loggers(self, module):
        """Notes calls of `getLogger`, which are made at once: modules keep the logger."""
        original = module.getLogger

        def record(name=None):
            logger = original(name)
            if name:
                self.note(add_logger, (module, name, logger), {})
            return logger

        self.kept.append((module, "getLogger", original))
        module.getLogger = record

    def find_spec(self, name, path=None, target=None):
        self.note_aliases()
        self.known.add(name)
        for finder in sys.meta_path[1:]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(self, spec.loader)
                return spec
        return None


class Loader:
    """A loader that notes that a module's code runs."""

    def __init__(self, recorder, real):
        self.recorder, self.real = recorder, real

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        stash, name = self.recorder.stash, module.__spec__.name
        module.__spec__.loader = module.__loader__ = self.real
        stash.calls[name] = []
        self.recorder.running.append(name)
        try:
            self.real.exec_module(module)
            self.recorder.note_aliases()
        except BaseException:
            del stash.calls[name]
            raise
        finally:
            self.recorder.running.pop()
        if name in KEEPERS:
            self.recorder.hold_back(module, KEEPERS[name])
        elif name == "logging":
            self.recorder.note_loggers(module)


def add_logger(logging, name, logger):
    """Does what `getLogger` does beside making a logger. A module that was imported earlier may have made another."""
    manager = logging.root.manager
    known = manager.loggerDict.get(name)
    if known is None or isinstance(known, logging.PlaceHolder):
        manager.loggerDict[name] = logger
        if known:
            manager._fixupChildren(known, logger)
        manager._fixupParents(logger)


def look_like_a_search(places, spec):
    """Fills the interpreter's cache of finders as the search for a module in these places does."""
    home = os.path.dirname(spec.origin) if spec.has_location else None
    if home and spec.submodule_search_locations is not None:
        home = os.path.dirname(home)
    for place in places if home else ():
        PathFinder._path_importer_cache(place)
        if place == home:
            break


def package_of(globals):
    package = globals.get("__package__")
    if package is None:
        package = globals["__name__"] if "__path__" in globals else globals["__name__"].rpartition(".")[0]
    return package


def filled():
    """A stash with all modules, whose objects the collector leaves alone. Ends a process that is not fit."""
    stash = Stash()
    reason = stash.fill()
    if reason:
        sys.stderr.write("the common modules: one of them %s\n" % reason)
        os._exit(4)
    gc.collect()
    immortalize()
    gc.freeze()
    return stash
