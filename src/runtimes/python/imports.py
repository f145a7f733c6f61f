"""Finds the modules that a program imports at its top level. Only source is read: no code of the program runs here."""
import os
import sys

from program import PACKAGES

ONLY_AST = 0x400

PathFinder = sys.modules["_frozen_importlib_external"].PathFinder


class Program:
    """The files of a zip, in the folder `root`."""

    def __init__(self, root):
        self.places = (os.path.join(root, ""), os.path.join(PACKAGES, ""))
        self.root = root
        self.read_files = set()
        # The source names `sys.path`, so that any folder of the zip may come before installed packages.
        self.changes_path = False

    def imports(self, entry, package):
        """The imports of the main file, and of each module of the zip that is imported there.

        Returns the names that each module from elsewhere is imported for, by the module's name and in the order of the
        imports.
        """
        found = {}
        self.read(entry, package if os.path.basename(entry) == "__main__.py" else None, found)
        return found

    def read(self, path, package, found):
        """Adds the imports of one file, whose relative imports start from `package`."""
        if path in self.read_files or not path.endswith(".py"):
            return
        self.read_files.add(path)
        try:
            with open(path, "rb") as file:
                source = file.read()
            tree = compile(source, path, "exec", ONLY_AST, dont_inherit=True)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return
        self.changes_path |= b"sys.path" in source
        for name, names in statements(tree.body, package):
            files = self.own_files(name, names)
            if files is None:
                found.setdefault(name, []).extend(names)
                continue
            for file, its_package in files:
                self.read(file, its_package, found)

    def own_files(self, name, names):
        """The zip's files that an import runs, each with its package. None for a module from elsewhere."""
        files, prefix, places = [], "", None
        for part in name.split("."):
            spec = find(prefix + part, places)
            if not self.owns(spec):
                return files if prefix else None
            prefix, places = prefix + part + ".", spec.submodule_search_locations
            files.append((spec.origin or "", prefix[:-1] if places is not None else prefix[:-1].rpartition(".")[0]))
            if places is None:
                return files
        for part in names:
            spec = find(prefix + part, places)
            if self.owns(spec):
                is_package = spec.submodule_search_locations is not None
                files.append((spec.origin or "", prefix + part if is_package else prefix[:-1]))
        return files

    def owns(self, spec):
        """Whether a module is one of the zip's own. No module is not."""
        if spec is None:
            return False
        if spec.has_location:
            return spec.origin.startswith(self.places)
        return any(os.path.join(place, "").startswith(self.places) for place in spec.submodule_search_locations or ())

    def names(self):
        """The names of all modules in the zip, in whatever folder."""
        found = set()
        for _, folders, files in os.walk(self.root):
            found.update(folders)
            found.update(name.partition(".")[0] for name in files if name.endswith((".py", ".so")))
        return found


def find(name, places):
    """The module of this name, of which no code runs. None when there is none, and for modules of the interpreter."""
    if name in sys.modules or name in sys.builtin_module_names:
        return None
    try:
        return PathFinder.find_spec(name, places)
    except (ImportError, KeyError, ValueError):
        # The folder of a namespace package in a namespace package is found only by an import.
        return None


def statements(body, package):
    """The imports that the start of a module carries out for certain. A branch or a handler may be passed over."""
    for node in body:
        kind = type(node).__name__
        if kind == "Import":
            for alias in node.names:
                yield alias.name, ()
        elif kind == "ImportFrom":
            name = absolute(node.module or "", node.level, package)
            if name and name != "__future__":
                yield name, tuple(alias.name for alias in node.names)
        elif kind in ("Try", "With"):
            yield from statements(node.body, package)


def absolute(name, level, package):
    """The name of the module that a statement imports from. None when a relative import leaves its package."""
    if not level:
        return name
    base = package.split(".") if package else []
    base = base[: len(base) - level + 1]
    return ".".join(base + [name] if name else base) or None
