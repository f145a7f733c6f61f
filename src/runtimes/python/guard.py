"""Keeps the zip's own modules from being imported before the fork."""
import os
import sys

PathFinder = sys.modules["_frozen_importlib_external"].PathFinder
STANDARD = os.path.join(os.path.dirname(os.__file__), "")
INSTALLED = ("/site-packages/", "/dist-packages/")


class Refused(BaseException):
    """A module may not be imported ahead. A package's handler of ordinary exceptions does not catch this."""


class Guard(PathFinder):
    """A finder of modules in place of the interpreter's, which refuses what may not be imported before the fork."""

    def __init__(self, program, is_standard_only):
        self.program, self.is_standard_only = program, is_standard_only
        # A folder of the zip may come before the standard library and packages when the program runs.
        self.hidden = program.names() if program.changes_path else ()
        self.reason = None

    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if self.program.owns(spec):
            self.refuse("imports %s, a module of the zip" % name)
        if path is None and name in self.hidden:
            self.refuse("imports %s, and the zip has a module of that name" % name)
        if self.is_standard_only and spec is not None and not is_standard(spec):
            self.refuse("imports %s, an installed package" % name)
        return spec

    def refuse(self, reason):
        self.reason = self.reason or reason
        raise Refused(reason)

    def __enter__(self):
        sys.meta_path[sys.meta_path.index(PathFinder)] = self
        return self

    def __exit__(self, *_):
        sys.meta_path[sys.meta_path.index(self)] = PathFinder


def is_standard(spec):
    """Whether a module belongs to the standard library."""
    path = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ("",)))
    return path.startswith(STANDARD) and not any(folder in path for folder in INSTALLED)
