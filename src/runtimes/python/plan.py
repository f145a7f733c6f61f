"""The platform's request for preloading, and the reply. `src/sandbox/preload.rs` has their forms."""

MEMORY = "needs more memory than the limit"
# The reason of a zygote whose imports are fit, and whose rehearsal is not.
SPOILED = "is spoiled by a rehearsal"


class Plan:
    """What to import, and what must be left out."""

    def __init__(self, text):
        mode, names, limit, processors, excluded = text.split("\0")
        self.mode, self.names, self.processors = mode, names.split(","), processors
        self.is_standard_only = "stdlib" in (mode, limit)
        self.excluded = set(excluded.split(","))
        # The only modules that may still be imported. None when all may be.
        self.fit = None
        self.rehearses = True

    def allows(self, name):
        return name not in self.excluded and (self.fit is None or name in self.fit)


class Preloaded:
    """The modules that were imported, and the modules that were left out, each with a reason and seconds."""

    def __init__(self):
        self.modules, self.excluded, self.microseconds = [], [], 0

    def had_oom(self):
        return any(reason == MEMORY for _, reason, _ in self.excluded)

    def encoded(self):
        """A name, a reason and microseconds for each module. The reason is empty for a module that was imported."""
        rows = [(name, "", 0) for name in self.modules]
        rows += [(name, reason, int(seconds * 1e6)) for name, reason, seconds in self.excluded]
        rows.append(("", "", self.microseconds))
        text = "\0".join("%s\0%s\0%d" % row for row in rows)
        return bytes([self.had_oom()]) + text.encode(errors="replace")
