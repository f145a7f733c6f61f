"""Makes objects immortal before a fork, so that a child writes no counts of references into the zygote's pages.

Each such write has the kernel copy a page: a third of the pages that a request through Flask copies. No object of a
zygote is freed before its end anyway, but for those that a program itself takes out of a preloaded module.
"""
import ctypes
import gc
import os
import sys

# The interpreter neither counts nor frees an object with this count: PEP 683, from Python 3.12 on.
IMMORTAL = b"\xff\xff\xff\xff"
# The least count of an immortal object in any version: that of `None` in 3.14.
LEAST = 3 << 30
# The most ranges of memory of one call: the kernel's IOV_MAX.
MOST = 1024
CHUNK = 4096

# Calls through this object keep the interpreter's lock.
preadv = ctypes.PyDLL(None, use_errno=True).preadv
preadv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long)
preadv.restype = ctypes.c_ssize_t


Function, Code = type(lambda: 0), type((lambda: 0).__code__)


def is_possible():
    """Whether this interpreter counts in an object's first four bytes, and knows immortal objects."""
    counts_there = sys.byteorder == "little" and sys.maxsize >> 32 and "t" not in sys.abiflags
    return bool(counts_there) and sys.getrefcount(None) >= LEAST


def immortalize():
    """Makes all objects immortal that the collector looks at, what these refer to, and the code of functions."""
    if not is_possible():
        return
    found, codes = gc.get_objects(), []
    file = os.memfd_create("counts")
    os.write(file, IMMORTAL * MOST)
    for start in range(0, len(found), CHUNK):
        part = found[start:start + CHUNK]
        set_counts(part, file)
        set_counts(gc.get_referents(*part), file)
        # The collector does not know what code refers to.
        codes += [function.__code__ for function in part if type(function) is Function]
    for code in codes:
        codes += [value for value in code.co_consts if type(value) is Code]
    for start in range(0, len(codes), CHUNK):
        part = codes[start:start + CHUNK]
        values = [code.co_consts for code in part]
        for objects in (part, values, [value for constants in values for value in constants]):
            set_counts(objects, file)
    os.close(file)


def set_counts(objects, file):
    """Reads the file into the count of each object: a call of the kernel's for many objects, in place of one for each.
    """
    objects, size = tuple(objects), len(objects)
    # A tuple holds the addresses of its objects behind its head.
    items = (ctypes.c_char * (8 * size)).from_address(id(objects) + tuple.__basicsize__)
    ranges = (ctypes.c_char * (16 * size))()
    view = memoryview(ranges).cast("B").cast("Q")
    view[0::2] = memoryview(items).cast("B").cast("Q")
    view[1::2] = memoryview(len(IMMORTAL).to_bytes(8, "little") * size).cast("Q")
    for start in range(0, size, MOST):
        count = min(MOST, size - start)
        if preadv(file, ctypes.addressof(ranges) + 16 * start, count, 0) != len(IMMORTAL) * count:
            raise OSError(ctypes.get_errno(), "the counts of objects can't be set")
