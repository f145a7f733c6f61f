//! Functions that use up resources that the kernel counts by user. Containers have users of their own, so a neighbour
//! notices nothing.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::alone;
use crate::support::{TestApp, python};

const PRELUDE: &str = r#"
import ctypes, errno, fcntl, os, resource, select, signal, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
rt = libc if hasattr(libc, "mq_open") else ctypes.CDLL("librt.so.1", use_errno=True)
held = []
def until_refused(what, most, act):
    """The number of calls that worked, and the error of the last call."""
    for n in range(most):
        try:
            if act(n) == -1:
                raise OSError(ctypes.get_errno(), "")
        except OSError as error:
            return what, n, errno.errorcode[error.errno]
    return what, most, "never"
def in_flight(n):
    a, b = socket.socketpair()
    held.extend((a, b))
    socket.send_fds(a, [b"x"], [0] * 100)
def queue(n):
    return rt.mq_open(b"/%d" % n, os.O_CREAT | os.O_RDWR, 0o600, ctypes.create_string_buffer(struct.pack("8l", 0, 10, 8192, 0, 0, 0, 0, 0)))
def watch(n):
    fd = libc.inotify_init()
    return fd if fd == -1 else libc.inotify_add_watch(fd, b"/tmp", 2)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
def pending(n):
    return libc.sigqueue(os.getpid(), 40, None)
def lock(n):
    shared = libc.shmget(0, 1 << 20, 0o600)
    locked = libc.shmctl(shared, 11, None)
    refused = ctypes.get_errno()
    # The segment goes with the process.
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat(shared, None, 0)
    libc.shmctl(shared, 0, None)
    ctypes.set_errno(refused)
    return locked
def child(n):
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    held.append(pid)
"#;

/// Takes as much of each resource as there is, and holds the resource for a while.
const FLOOD: &str = r#"
took = [until_refused("in flight", 100, in_flight), until_refused("queues", 100, queue), until_refused("inotify", 1000, watch)]
took += [until_refused("pending", 200000, pending), until_refused("locked", 100, lock), until_refused("children", 40, child)]
def pipes(n):
    if os.fork() == 0:
        try:
            while True:
                held.extend(os.pipe())
        except OSError:
            time.sleep(600)
took.append(until_refused("pipes", 3, pipes))
print(took, flush=True)
time.sleep(8)
"#;

/// Takes a little of each resource, as any program may.
const NEIGHBOUR: &str = r#"
took = [until_refused("in flight", 2, in_flight), until_refused("queues", 2, queue), until_refused("inotify", 2, watch)]
took += [until_refused("pending", 50, pending), until_refused("locked", 2, lock)]
resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))
took.append(until_refused("children", 5, child))
if fcntl.fcntl(os.pipe()[0], 1032) != 65536:
    took.append(("a pipe is smaller", 0, ""))
print([what for what in took if what[2] != "never"])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn what_the_kernel_counts_by_user_is_counted_by_container() {
    let _alone = alone().await;
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "2")], async |app| {
        let flood = app.deploy(python(&format!("{PRELUDE}{FLOOD}"))).await;
        let neighbour = app.deploy(python(&format!("{PRELUDE}{NEIGHBOUR}"))).await;
        assert_eq!(app.execute(&neighbour).await.assert_outcome(200, "ok").output(), "[]\n");
        let meanwhile = async {
            app.begun(&flood).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            for _ in 0..5 {
                assert_eq!(app.execute(&neighbour).await.assert_outcome(200, "ok").output(), "[]\n");
            }
        };
        let (flooded, ()) = tokio::join!(app.execute(&flood), meanwhile);
        let flooded = flooded.assert_outcome(200, "ok");
        println!("{}", flooded.output());
        for refused in ["ETOOMANYREFS", "'queues', 9, 'EMFILE'", "'inotify'", "'pending'", "'children', 40, 'never'"] {
            assert!(flooded.output().contains(refused), "{refused}: {}", flooded.output());
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_two_containers_have_one_user() {
    let _alone = alone().await;
    // The users are just enough: two for functions, and one for the look at the isolation.
    let settings =
        [("DOCKER_CONTAINER_LIMIT", "2"), ("INSTANCE_UIDS", "71000-71002"), ("INSTANCE_MAX_INVOCATIONS", "1")];
    TestApp::run(&settings, async |app| {
        let program = "import os, time\ntime.sleep(0.5)\nprint(*os.getresuid(), *os.getresgid())\n";
        let function = app.deploy(python(program)).await;
        for _ in 0..3 {
            let (one, other) = tokio::join!(app.execute(&function), app.execute(&function));
            let users = [one, other].map(|answer| {
                let answer = answer.assert_outcome(200, "ok");
                let ids: HashSet<u32> = answer.output().split_whitespace().map(|id| id.parse().unwrap()).collect();
                assert_eq!(ids.len(), 1, "{ids:?}");
                ids.into_iter().next().unwrap()
            });
            assert!(users == [71_000, 71_001] || users == [71_001, 71_000], "{users:?}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn descriptors_that_a_function_leaves_on_their_way_fail_no_later_invocation() {
    let _alone = alone().await;
    // The descriptors are in flight in a circle: the kernel finds out some time after the end of the function.
    let program = "import os, socket, time\nif 'LEAVE' in os.environ:\n    for n in range(8):\n        a, b = socket.socketpair()\n        for m in range(4):\n            try:\n                socket.send_fds(a, [b'x'], [b.fileno(), 1, 2] + [b.fileno()] * 240)\n            except OSError as error:\n                print(error)\n        a.close()\n    time.sleep(0.2)\nprint('done')\n";
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let function = app.deploy(python(program)).await;
        for _ in 0..10 {
            let left = app.execute_with(&function, json!({"leave": "1"})).await.assert_outcome(200, "ok");
            assert!(left.output().ends_with("done\n"), "{}", left.output());
            let after = app.execute(&function).await.assert_outcome(200, "ok");
            assert_eq!(after.output(), "done\n");
        }
    })
    .await;
}
