"""The common part of the standard library, imported before there is a function.

PID 1 of a slot imports the modules, notes what the code of each module imports, and takes all of them out of
`sys.modules`. A zygote gets a stashed module in place of an import, and then what the module's code has imported, in
the order of a real import. No module of the list reads variables of the environment when the module is imported, and
no module leaves a trace in the process.
"""
import gc
import os
import sys

from imports import absolute
from inheritance import Inheritance
from leftovers import open_tables
from preload import quietly
from seeds import seeds
from traces import Traces

COMMON = (
    "json", "re", "collections", "datetime", "functools", "itertools", "math", "random", "time", "os.path",
    "pathlib", "string", "struct", "typing", "dataclasses", "enum", "copy", "contextlib", "operator", "io",
    "textwrap", "traceback", "base64", "hashlib", "hmac", "secrets", "uuid", "decimal", "fractions", "statistics",
    "csv", "heapq", "bisect", "logging", "threading", "queue", "subprocess", "shutil", "tempfile", "glob",
    "argparse", "platform", "inspect", "urllib.parse", "urllib.request", "http.client", "ssl", "socket",
    "email.message", "html", "zlib", "gzip", "zipfile", "asyncio", "concurrent.futures",
    "concurrent.futures.thread", "sqlite3", "pickle", "encodings.idna", "xml.etree.ElementTree", "calendar",
    "unicodedata", "ipaddress", "pprint", "signal",
)

# Stands for the names of an import: the module's code has put a part of itself into `sys.modules`, by another name.
ALIAS = None

builtins = sys.modules["builtins"]
PathFinder = sys.modules["_frozen_importlib_external"].PathFinder
ModuleSpec = sys.modules["_frozen_importlib"].ModuleSpec


class Stash:
    """Imported modules by name, and what the code of each module has imported. A finder and loader of these modules."""

    def __init__(self):
        self.modules, self.imports, self.specs = {}, {}, {}
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
        self.modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name not in before}
        for name, module in self.modules.items():
            self.specs[name] = getattr(module, "__spec__", None)
            holder, _, child = name.rpartition(".")
            holder = self.modules.get(holder) or sys.modules.get(holder)
            # The import of a submodule sets this name.
            if holder and name in self.imports and vars(holder).get(child) is module:
                delattr(holder, child)
        return traces.difference()

    def find_spec(self, name, path=None, target=None):
        if name not in self.imports or path is None and name in self.hidden:
            self.is_missed = True
            return None
        look_like_a_search(sys.path if path is None else path, self.specs[name])
        return ModuleSpec(name, self)

    def create_module(self, spec):
        return self.modules[spec.name]

    def exec_module(self, module):
        name = module.__spec__.name
        module.__spec__ = self.specs[name]
        for other, names in self.imports[name]:
            if names is ALIAS:
                sys.modules[other] = self.modules[other]
            else:
                __import__(other, None, None, names)

    def take_missed(self):
        """Whether another finder was asked for a module since the last call."""
        is_missed, self.is_missed = self.is_missed, False
        return is_missed


class Recorder:
    """Notes what the code of each module imports. The recorder is a finder that wraps the loaders of all others."""

    def __init__(self, stash):
        self.stash, self.running, self.known = stash, [], set(sys.modules)

    def __enter__(self):
        self.original, builtins.__import__ = builtins.__import__, self.record
        sys.meta_path.insert(0, self)

    def __exit__(self, *_):
        sys.meta_path.remove(self)
        builtins.__import__ = self.original

    def record(self, name, globals=None, locals=None, fromlist=(), level=0):
        self.note_aliases()
        imported = self.original(name, globals, locals, fromlist, level)
        if self.running:
            whole = absolute(name, level, package_of(globals)) if level else name
            request = whole, tuple(fromlist or ())
            if request not in self.stash.imports[self.running[-1]]:
                self.stash.imports[self.running[-1]].append(request)
        return imported

    def note_aliases(self):
        for name in [name for name in sys.modules if name not in self.known] if self.running else ():
            self.known.add(name)
            self.stash.imports[self.running[-1]].append((name, ALIAS))

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
        stash.imports[name] = []
        self.recorder.running.append(name)
        try:
            self.real.exec_module(module)
            self.recorder.note_aliases()
        except BaseException:
            del stash.imports[name]
            raise
        finally:
            self.recorder.running.pop()


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
    gc.freeze()
    return stash
