"""Fetches Python packages in a container of its own and as an ordinary user.

A tar archive comes by stdin: `request.json` holds the action and its environment, and `files/` holds the input files.
The fetched packages go out by stdout as a tar archive, and messages go to stderr. No fetched package is run or imported
here, unless source builds are allowed.
"""

import gc
import importlib.util
import json
import marshal
import os
import shutil
import signal
import site
import stat
import subprocess
import sys
import tarfile
import warnings

GIVEN = "/tmp/given"
TARGET = "/tmp/target"
UV = "/opt/youtube-serverless/uv/bin/uv"
# Variables of pip, and the names that uv has for the same settings.
SAME = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_TRUSTED_HOST": "UV_INSECURE_HOST"}
KILLED = 137
# The starts of the lines in which pip tells why a command failed.
TELLING = ("ERROR:", "WARNING:", "Could not fetch URL")
# The size of a block of a tar archive, in bytes.
BLOCK = 512


def main():
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    # The stdout of all commands below goes to the log, because the archive must hold nothing else.
    os.dup2(2, 1)
    request = receive(sys.stdin.buffer)
    {"tool": fetch_uv, "export": export, "install": install}[request["action"]](request, out)
    out.flush()


def receive(pipe):
    with tarfile.open(fileobj=pipe, mode="r|") as given:
        for member in given:
            path = os.path.join(GIVEN, member.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                shutil.copyfileobj(given.extractfile(member), file)
    os.makedirs(os.path.join(GIVEN, "files"), exist_ok=True)
    with open(os.path.join(GIVEN, "request.json"), encoding="utf-8") as file:
        return json.load(file)


def run(arguments, environment, **options):
    options = {"cwd": os.path.join(GIVEN, "files"), "check": False, **options}
    done = subprocess.run(arguments, env={**os.environ, **environment}, **options)
    if done.returncode < 0:
        sys.exit(KILLED)
    if done.returncode > 0:
        sys.exit(1)
    return done.stdout


def fetch_uv(request, out):
    """Fetches uv with the interpreter's own pip, which serves no other purpose."""
    given = request["environment"]
    indexes = {pip: url_of(given[uv]) for pip, uv in SAME.items() if uv in given and pip not in given}
    elsewhere = {name: value for name, value in given.items() if not name.startswith(("PIP_", "UV_"))}
    options = ["--no-input", "--no-cache-dir", "--progress-bar=off", "--disable-pip-version-check", "--no-compile"]
    packages = ["--no-deps", "--only-binary=:all:", "--target=" + TARGET, "uv==" + request["uv"]]
    command = [sys.executable, "-I", "-m", "pip", "install", *options, *packages]
    if set(given) == set(elsewhere):
        run(command, given)
    else:
        # Only the verbose output of pip tells the answer for each page.
        environment = {**os.environ, **given, **indexes}
        captured = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        told = subprocess.run([*command, "-vv"], env=environment, check=False, **captured)
        said = told.stdout.decode(errors="replace").splitlines()
        if told.returncode < 0:
            sys.exit(KILLED)
        if told.returncode > 0:
            sys.stderr.writelines(line.strip() + "\n" for line in said if line.strip().startswith(TELLING))
            if not is_missing(said):
                sys.exit(1)
            # A private index need not have uv.
            sys.stderr.write("uv is not in the given index, so it is fetched from the default one\n")
            run(command, elsewhere)
    add_file(out, os.path.join(TARGET, "bin", "uv"), "uv/bin/uv")
    # The path of this entry tells the folder in which the interpreter looks for packages.
    add_folder(out, "site" + site.getsitepackages()[0])
    out.write(bytes(2 * BLOCK))


def is_missing(said):
    """Whether each index has answered and has no such package, so that no password is wrong and no index is down."""
    failed = [line for line in said if "Could not fetch URL" in line]
    return any("No matching distribution found" in line for line in said) and all(": 404 " in line for line in failed)


def url_of(indexes):
    """The URLs of indexes, without the names that uv allows before a URL."""
    return " ".join(index.split("=", 1)[1] if "=" in index.split(":", 1)[0] else index for index in indexes.split())


def uv(command):
    options = ["--no-config", "--no-cache", "--no-progress", "--color=never", "--no-python-downloads"]
    return [UV, *command, *options, "--python=" + sys.executable]


def export(_, out):
    """Writes the requirements of a lock file as text."""
    wanted = ["--frozen", "--offline", "--no-emit-project", "--no-emit-workspace", "--no-emit-local", "--no-header"]
    out.write(run(uv(["export", *wanted]), {}, stdout=subprocess.PIPE))


def install(request, out):
    environment = dict(request["environment"])
    for pip, name in SAME.items():
        if pip in environment:
            environment.setdefault(name, environment[pip])
    command = uv(["pip", "install"]) + ["--link-mode=hardlink", "--target=" + TARGET]
    if not request["sourceBuilds"]:
        command.append("--no-build")
    if request["prereleases"]:
        command.append("--prerelease=allow")
    if request["requireHashes"]:
        command.append("--require-hashes")
    command += ["--requirements=" + os.path.join(".", name) for name in request["requirements"]]
    command += ["--constraints=" + os.path.join(".", name) for name in request["constraints"]]
    run(command, environment)
    os.makedirs(TARGET, exist_ok=True)
    compile_all(site.getsitepackages()[0])
    for folder, folders, files in os.walk(TARGET):
        folders.sort()
        inside = folder[len(TARGET) + 1:]
        if inside:
            add_folder(out, inside)
        for name in sorted(files):
            # uv makes this file for itself.
            if (inside, name) != ("", ".lock"):
                add_file(out, os.path.join(folder, name), os.path.join(inside, name))
    out.write(bytes(2 * BLOCK))


def compile_all(place):
    """Compiles all packages, because a function can write no bytecode beside them.

    No compiled file is imported, or can be: this program runs with `-I` and `-S`.
    """
    files = []
    for folder, _, names in os.walk(TARGET):
        found = [name for name in names if name.endswith(".py")]
        if found:
            os.makedirs(os.path.join(folder, "__pycache__"), exist_ok=True)
        files += [os.path.join(folder, name) for name in found]
    # The largest files come first and are dealt out in turn, so that all workers end at about the same time.
    files.sort(key=os.path.getsize, reverse=True)
    workers = len(os.sched_getaffinity(0))
    shares = {start(share, place): share for share in (files[at::workers] for at in range(workers))}
    while shares:
        pid, status = os.wait()
        share = shares.pop(pid, [])
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) == signal.SIGKILL:
                sys.exit(KILLED)
            # The interpreter crashed on a file, which is at the latest the first file that is not compiled.
            rest = [path for path in share if not os.path.exists(compiled(path))][1:]
            shares.update({start(rest, place): rest} if rest else {})


def start(share, place):
    pid = os.fork()
    if pid:
        return pid
    # A process that ends soon needs no garbage collection, which would take a fifth of the time.
    gc.disable()
    warnings.simplefilter("ignore")
    for path in share:
        try:
            compile_one(path, place + path[len(TARGET):])
        except Exception:
            # The function may never import a file that does not compile.
            continue
    os._exit(0)


def compile_one(path, shown):
    with open(path, "rb") as file:
        source = file.read()
    code = compile(source, shown, "exec", dont_inherit=True)
    # An unchecked hash by PEP 552: the interpreter does not compare the source again.
    flags = (1).to_bytes(4, "little")
    with open(compiled(path), "wb") as file:
        file.write(importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code))


def compiled(path):
    folder, name = os.path.split(path)
    return os.path.join(folder, "__pycache__", f"{name[:-3]}.{sys.implementation.cache_tag}.pyc")


def add_folder(out, name):
    out.write(header(os.fsencode(name), b"5", 0, 0o755, 0))


def add_file(out, path, name):
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        sys.exit(f"{name} is neither a file nor a folder")
    mode = 0o755 if status.st_mode & 0o111 else 0o644
    out.write(header(os.fsencode(name), b"0", status.st_size, mode, int(status.st_mtime)))
    with open(path, "rb", buffering=0) as file:
        shutil.copyfileobj(file, out, 1 << 20)
    out.write(bytes(-status.st_size % BLOCK))


def header(name, kind, size, mode, mtime):
    """A header of GNU's tar format.

    The standard library takes ten times as long, which matters with some thousand files.
    """
    if len(name) > 100:
        long = name + b"\0"
        link = header(b"././@LongLink", b"L", len(long), 0o644, 0) + long + bytes(-len(long) % BLOCK)
        return link + header(name[:100], kind, size, mode, mtime)
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, mtime)
    start = name.ljust(100, b"\0") + numbers
    rest = (kind + bytes(100) + b"ustar  \0").ljust(BLOCK - len(start) - 8, b"\0")
    return b"%b%06o\0 %b" % (start, sum(start) + 8 * ord(" ") + sum(rest), rest)


main()
