//! Each wall of the sandbox, tried from inside by a function.

use std::net::TcpListener;

use crate::support::{TestApp, python};

/// Runs a program with settings, and returns the program's output.
async fn tried(settings: &[(&str, &str)], program: &str) -> String {
    let mut output = String::new();
    TestApp::run(settings, async |app| output = app.output_of(program).await).await;
    output
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_but_tmp_can_be_written() {
    let program = r#"
import errno, os
for folder in ("/", "/app", "/etc", "/opt/youtube-serverless", "/var/tmp", "/proc/sys/kernel", "/sys/fs/cgroup"):
    try:
        open(os.path.join(folder, "file"), "w")
        print(folder, "written")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOENT, errno.EPERM):
            print(folder, error)
open("/tmp/file", "w").write("x")
size = 0
try:
    with open("/tmp/large", "wb", 0) as file:
        while True:
            size += file.write(b"x" * 100_000)
except OSError as error:
    print(errno.errorcode[error.errno], 9_000_000 <= size <= 10_000_000)
options = [line.split()[3].split(",") for line in open("/proc/mounts") if line.split()[1] == "/tmp"][0]
print(sorted(set(options) & {"nosuid", "nodev", "noexec", "rw"}))
"#;
    let output = tried(&[("DOCKER_TMPFS_SIZE", "10MB")], program).await;
    assert_eq!(output, "ENOSPC True\n['nodev', 'noexec', 'nosuid', 'rw']\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn there_is_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = format!(
        r#"
import os, socket
print(os.listdir("/sys/class/net"))
print(len(open("/proc/net/route").read().splitlines()) <= 1)
try:
    socket.create_connection(("127.0.0.1", {}), timeout=2)
    print("connected to the host")
except OSError as error:
    print(type(error).__name__)
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    print("raw socket")
except PermissionError:
    print("no raw socket")
"#,
        listener.local_addr().unwrap().port()
    );
    assert_eq!(tried(&[], &program).await, "['lo']\nTrue\nConnectionRefusedError\nno raw socket\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_privilege_is_there_or_can_be_had() {
    let program = r#"
import ctypes, os
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print([int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")])
users = set(os.getresuid() + os.getresgid() + tuple(os.getgroups()))
print(status["NoNewPrivs"], status["Seccomp"], len(users), 70000 <= os.getuid() < 70999)
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, result):
    print(name, "worked" if result == 0 else os.strerror(ctypes.get_errno()))
attempt("setuid", libc.setuid(0))
attempt("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
attempt("unshare", libc.unshare(0x10000000))
attempt("chroot", libc.chroot(b"/tmp"))
for name in sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
    attempt("ptrace", libc.ptrace(16, name, 0, 0))
"#;
    let output = tried(&[], program).await;
    let expected = "[0, 0, 0, 0, 0]\n1 2 1 True\nsetuid Operation not permitted\n\
                    mount Operation not permitted\nunshare Operation not permitted\nchroot Operation not permitted\n\
                    ptrace Operation not permitted\nptrace Operation not permitted\n";
    assert_eq!(output, expected);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_user_has_a_name_and_a_home() {
    let program = r#"
import getpass, grp, os, pathlib, pwd, subprocess, tempfile
me, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
print(me.pw_name, me.pw_gid == os.getgid(), group.gr_name, getpass.getuser(), os.path.expanduser("~"), pathlib.Path.home())
print(subprocess.run("whoami; id -un; id -gn", shell=True, capture_output=True, text=True).stdout.split())
with tempfile.NamedTemporaryFile() as file:
    path = pathlib.Path(file.name)
    print(path.parent, path.owner(), path.group())
"#;
    let expected = "nobody True nogroup nobody /tmp /tmp\n['nobody', 'nobody', 'nogroup']\n/tmp nobody nogroup\n";
    assert_eq!(tried(&[], program).await, expected);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn memory_is_limited_and_the_limit_stays() {
    let program = r#"
import os
v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
path = v1 if os.path.exists(v1) else v2
print(int(open(path).read()) // 1_000_000)
try:
    open(path, "w").write("1000000000")
    print("raised")
except OSError as error:
    print("not raised")
print(int(open("/proc/self/oom_score_adj").read()) >= 500)
"#;
    assert_eq!(tried(&[("DOCKER_MEMORY_LIMIT", "64MB")], program).await, "64\nnot raised\nTrue\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn processes_are_limited() {
    let program = r#"
import os, time
children = 0
try:
    while children < 1000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        children += 1
except BlockingIOError:
    pass
print(10 < children < 30)
"#;
    assert_eq!(tried(&[("DOCKER_PIDS_LIMIT", "30")], program).await, "True\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn processor_time_is_limited() {
    let program = r#"
import os, time
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        spin(2)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
times = os.times()
print(times.children_user + times.children_system)
"#;
    let used: f64 = tried(&[("DOCKER_CPU_LIMIT", "0.25")], program).await.trim().parse().unwrap();
    // The limit gives a quarter of two seconds, and a little for the limit's period. Without the limit the program
    // takes up to four seconds.
    assert!((0.05..1.0).contains(&used), "the program used {used} s of processor time");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn files_and_cores_are_limited() {
    let program = r#"
import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    print("raised")
except (PermissionError, ValueError):
    print("not raised")
"#;
    assert_eq!(tried(&[], program).await, "(1024, 1024) (0, 0)\nnot raised\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_supervisor_and_the_zygote_are_out_of_reach() {
    let program = r#"
import ctypes, errno, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def refused(answer):
    return answer == -1 and ctypes.get_errno() == errno.EPERM
others = [name for name in os.listdir("/proc") if name.isdigit() and name != str(os.getpid())]
for other in others:
    for name in ("fd", "environ", "mem", "maps"):
        path = "/proc/%s/%s" % (other, name)
        try:
            os.listdir(path) if path.endswith("fd") else open(path, "rb").read(10)
            print(path, "was read")
        except PermissionError:
            pass
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    if not refused(libc.process_vm_readv(int(other), vector, 1, vector, 1, 0)):
        print("memory of", other, "was read")
    process = os.pidfd_open(int(other))
    pidfd_getfd = 438
    if not refused(libc.syscall(pidfd_getfd, process, 0, 0)):
        print("a descriptor of", other, "was taken")
    os.close(process)
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
targets = [os.readlink("/proc/self/fd/%s" % fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/%s" % fd)]
print(sorted(target.split(":")[0] for target in targets if not target.startswith("/proc")))
print(len(others), [name for name in os.listdir("/proc") if name.isdigit() and name not in (*others, str(os.getpid()))])
"#;
    assert_eq!(tried(&[], program).await, "['pipe', 'pipe', 'pipe']\n2 []\n");
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_runtime_is_used_when_it_is_set() {
    assert_eq!(tried(&[("DOCKER_RUNTIME", "runc")], "print('ran')").await, "ran\n");
    TestApp::run(&[("DOCKER_RUNTIME", "no-such-runtime")], async |app| {
        let function = app.deploy(python("")).await;
        app.execute(&function).await.assert_problem(500, "start_failed", "container does not start");
    })
    .await;
}
