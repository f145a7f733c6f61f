//! Known ways out of a container: each way is shut.

use crate::alone;
use crate::support::{TestApp, python};

/// System calls by their number on this processor. Each call must be refused for a missing right, not for its
/// arguments.
const CALLS: &str = r#"
import ctypes, errno, os, platform, struct
libc = ctypes.CDLL(None, use_errno=True)
path = ctypes.create_string_buffer(b"/tmp\0")
area = ctypes.create_string_buffer(4096)
one = ctypes.c_int(1)
# The header has version 3 of the interface and this process, and the data has all capabilities.
header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
all_of_them = ctypes.create_string_buffer(struct.pack("6I", *[0xffffffff] * 6))
# name, number on x86-64, number on arm64, arguments
calls = [
    ("mount", 165, 40, (b"none", b"/tmp", b"tmpfs", 0, None)),
    ("umount2", 166, 39, (b"/tmp", 2)),
    ("pivot_root", 155, 41, (b"/tmp", b"/tmp")),
    ("chroot", 161, 51, (b"/tmp",)),
    ("move_mount", 429, 429, (-100, b"/tmp", -100, b"/tmp", 0)),
    ("fsopen", 430, 430, (b"tmpfs", 0)),
    ("open_tree", 428, 428, (-100, b"/", 1)),
    ("unshare user", 272, 97, (0x10000000,)),
    ("unshare mount", 272, 97, (0x20000,)),
    ("unshare net", 272, 97, (0x40000000,)),
    ("unshare pid", 272, 97, (0x20000000,)),
    ("setns", 308, 268, (os.open("/proc/self/ns/mnt", os.O_RDONLY), 0)),
    ("add_key", 248, 217, (b"user", b"name", b"x", 1, -3)),
    ("keyctl", 250, 219, (0, -3, 1)),
    ("request_key", 249, 218, (b"user", b"name", None, 0)),
    ("bpf", 321, 280, (5, area, 128)),
    ("perf_event_open", 298, 241, (area, 0, -1, -1, 0)),
    ("userfaultfd", 323, 282, (0,)),
    ("name_to_handle_at", 303, 264, (-100, b"/", area, area, 0)),
    ("open_by_handle_at", 304, 265, (-100, area, 0)),
    ("init_module", 175, 105, (area, 16, b"")),
    ("finit_module", 313, 273, (0, b"", 0)),
    ("delete_module", 176, 106, (b"x", 0)),
    ("kexec_load", 246, 104, (0, 0, None, 0)),
    ("kexec_file_load", 320, 294, (0, 0, 0, b"", 0)),
    ("reboot", 169, 142, (0xfee1dead, 672274793, 0, None)),
    ("swapon", 167, 224, (b"/tmp", 0)),
    ("swapoff", 168, 225, (b"/tmp",)),
    ("clock_settime", 227, 112, (0, area)),
    ("settimeofday", 164, 170, (area, None)),
    ("sethostname", 170, 161, (b"x", 1)),
    ("setdomainname", 171, 162, (b"x", 1)),
    ("acct", 163, 89, (b"/tmp/x",)),
    ("quotactl", 179, 60, (0x80000200, b"/dev/sda", 0, area)),
    ("syslog", 103, 116, (3, area, 4096)),
    ("process_vm_readv", 310, 270, (1, area, 1, area, 1, 0)),
    ("process_vm_writev", 311, 271, (1, area, 1, area, 1, 0)),
    ("ptrace attach", 101, 117, (16, 1, 0, 0)),
    ("ptrace seize", 101, 117, (0x4206, 1, 0, 0)),
    ("kcmp", 312, 272, (1, os.getpid(), 0, 0, 0)),
    ("setuid", 105, 146, (0,)),
    ("setgid", 106, 144, (0,)),
    ("setgroups", 116, 159, (1, ctypes.byref(one))),
    ("capset", 126, 91, (header, all_of_them)),
    ("fanotify_init", 300, 262, (0, 0)),
    ("vhangup", 153, 58, ()),
    ("iopl", 172, -1, (3,)),
    ("ioperm", 173, -1, (0, 1, 1)),
    ("personality", 135, 92, (0x0400000,)),
    ("pidfd_getfd", 438, 438, (0, 0, 0)),
]
worked = []
refusals = {errno.EPERM, errno.EACCES, errno.ENOSYS}
for name, x86, arm, arguments in calls:
    number = arm if platform.machine() == "aarch64" else x86
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(number), *converted) != -1 or ctypes.get_errno() not in refusals:
        worked.append((name, errno.errorcode.get(ctypes.get_errno())))
print(len(calls), worked)
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn no_system_call_leads_out() {
    let _alone = alone().await;
    TestApp::run(&[], async |app| {
        assert_eq!(app.output_of(CALLS).await, "50 []\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_file_leads_out() {
    let _alone = alone().await;
    let program = r#"
import os
# The program tries to write to every mount.
written = set()
for line in open("/proc/self/mounts"):
    place = line.split()[1]
    target = os.path.join(place, "probe") if os.path.isdir(place) else place
    # Docker mounts /dev/null or an empty folder over each path that may not be read.
    if not os.path.isdir(place) and os.path.exists(place) and os.stat(place).st_rdev == os.makedev(1, 3):
        continue
    try:
        os.close(os.open(target, os.O_WRONLY | (os.O_CREAT if os.path.isdir(place) else 0)))
        written.add(place)
    except OSError:
        pass
print(sorted(written))
# Escapes of the past wrote to these files.
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom",
             "/sys/kernel/uevent_helper", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/release_agent",
             "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/cgroup.procs", "/proc/1/oom_score_adj", "/proc/1/mem",
             "/dev/mem", "/dev/kmem", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/kvm",
             "/var/run/docker.sock", "/run/containerd/containerd.sock"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        print(path, "was opened")
    except OSError:
        pass
try:
    os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000")
    print("safe from the OOM killer")
except OSError:
    pass
for mode, number in ((0o60000, os.makedev(8, 0)), (0o20000, os.makedev(1, 1))):
    try:
        os.mknod("/tmp/device", mode | 0o666, number)
        print("a device was made")
    except OSError:
        pass
allowed = {"console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
           "urandom", "zero"}
print(sorted(set(os.listdir("/dev")) - allowed))
print(len(set(os.getresuid() + os.getresgid())), 70000 <= os.getuid() < 70999)
"#;
    TestApp::run(&[], async |app| {
        let output = app.output_of(program).await;
        assert_eq!(output, "['/dev/mqueue', '/dev/shm', '/tmp']\n[]\n1 True\n");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_socket_leads_out() {
    let _alone = alone().await;
    let program = r#"
import socket
kinds = {"SOCK_STREAM": 1, "SOCK_DGRAM": 2, "SOCK_RAW": 3, "SOCK_SEQPACKET": 5}
reached = []
for family in range(1, 46):
    for kind, number in kinds.items():
        try:
            s = socket.socket(family, number)
        except OSError:
            continue
        if number == 3 and family != socket.AF_NETLINK and family != socket.AF_UNIX:
            reached.append("raw %d" % family)
        s.close()
# The machine below a virtual machine, and the neighbours in the network.
for cid in (0, 1, 2):
    try:
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        s.settimeout(1)
        s.connect((cid, 22))
        reached.append("vsock %d" % cid)
    except OSError:
        pass
for address in ("127.0.0.1", "172.17.0.1", "169.254.169.254", "10.0.0.1"):
    try:
        socket.create_connection((address, 80), timeout=1)
        reached.append(address)
    except OSError as error:
        pass
try:
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0/containerd-shim/x.sock")
    reached.append("an abstract socket of the host")
except OSError:
    pass
abstract = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if "@" in line]
print(reached, abstract)
"#;
    TestApp::run(&[], async |app| assert_eq!(app.output_of(program).await, "[] []\n")).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn functions_do_not_see_each_other() {
    let _alone = alone().await;
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "2")], async |app| {
        let victim = app.deploy(python("import time\nopen('/tmp/secret', 'w').write('x')\ntime.sleep(4)\nprint('done')\n")).await;
        let program = r#"
import os
pids = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
# The supervisor, the zygote, and this process have one command line.
print(len(pids), len({open("/proc/%d/cmdline" % p).read() for p in pids}), os.listdir("/tmp"))
for pid in pids:
    if pid == os.getpid():
        continue
    for name in ("environ", "mem", "maps", "fd", "cwd", "root", "exe", "io", "stack", "auxv"):
        path = "/proc/%d/%s" % (pid, name)
        try:
            os.listdir(path) if name == "fd" else os.readlink(path) if name in ("cwd", "root", "exe") else open(path, "rb").read(1)
            print(path, "was read")
        except OSError:
            pass
"#;
        let spy = app.deploy(python(program)).await;
        let (held, spied) = tokio::join!(app.execute(&victim), app.execute(&spy));
        assert_eq!(held.assert_outcome(200, "ok").output(), "done\n");
        assert_eq!(spied.assert_outcome(200, "ok").output(), "3 1 []\n");
    })
    .await;
}
