//! Functions that change the limits and priorities of the supervisor or, in Python, of the zygote, which every later
//! process of the container inherits, or that signal the zygote. The next invocation finds the same state as the first.

use serde_json::json;

use crate::alone;
use crate::support::{Deployed, TestApp, eventually, go, python};

/// One container. Whatever ends one costs a removal before the next starts.
const ONE: [(&str, &str); 2] = [("DOCKER_CONTAINER_LIMIT", "1"), ("QUEUE_TIMEOUT", "60s")];

/// The beginning of each attack.
const PRELUDE: &str = r#"
import ctypes, os, resource, struct
libc = ctypes.CDLL(None, use_errno=True)
IOPRIO_SET, IOPRIO_GET, SCHED_SETATTR, SCHED_GETATTR = (30, 31, 274, 275) if os.uname().machine == "aarch64" else (251, 252, 314, 315)
numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
target = numbers[int(os.environ.get("TARGET", "0"))]
def call(*arguments):
    return libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
"#;

/// Prints the state that an invocation finds, and whether the invocation can work.
const LOOK: &str = r#"
attributes = ctypes.create_string_buffer(128)
call(SCHED_GETATTR, 0, attributes, 128, 0)
found = [resource.getrlimit(n) for n in range(16)]
found += [os.nice(0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)), call(IOPRIO_GET, 1, 0), attributes.raw.hex()]
names = ("autogroup", "coredump_filter", "oom_score_adj", "timerslack_ns", "comm")
found += [open("/proc/self/" + name).read().split()[-1] for name in names]
open("/tmp/file", "w").write("x" * 100000)
if os.fork() == 0:
    os._exit(0)
print(os.wait()[1], os.popen("echo works").read(), found)
"#;

/// Attacks in Python, by name. Each attack but one must end with its own message.
const ATTACKS: &[(&str, &str)] = &[
    ("nice", "os.setpriority(os.PRIO_PROCESS, target, 19)"),
    ("nice of its group", "os.setpriority(os.PRIO_PGRP, os.getpgid(target), 19)"),
    ("nice of the user", "os.setpriority(os.PRIO_USER, 0, 19)"),
    ("nice of the user by number", "os.setpriority(os.PRIO_USER, os.getuid(), 1)"),
    ("one processor", "os.sched_setaffinity(target, {max(os.sched_getaffinity(target))})"),
    ("idle", "os.sched_setscheduler(target, os.SCHED_IDLE, os.sched_param(0))"),
    ("batch", "os.sched_setscheduler(target, os.SCHED_BATCH, os.sched_param(0))"),
    ("reset on fork", "os.sched_setscheduler(target, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))"),
    (
        "longer slices",
        "call(SCHED_SETATTR, target, ctypes.create_string_buffer(struct.pack('IIQiIQQQ', 48, 0, 0, 0, 0, 100_000_000, 0, 0)), 0)",
    ),
    ("I/O priority", "call(IOPRIO_SET, 1, target, 3 << 13)"),
    ("I/O priority of the group", "call(IOPRIO_SET, 2, os.getpgid(target), 2 << 13 | 7)"),
    ("I/O priority of the user", "call(IOPRIO_SET, 3, os.getuid(), 3 << 13)"),
    (
        "files",
        "import glob\nfor path in glob.glob('/proc/%d/*' % target) + glob.glob('/proc/%d/attr/*' % target) + glob.glob('/proc/%d/task/*/*' % target):\n    for data in (b'1000', b'19', b'0', b'999999'):\n        try:\n            os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), data)\n        except OSError:\n            pass",
    ),
    (
        "all at once, while much is printed",
        "os.setpriority(os.PRIO_PROCESS, target, 19)\nfor n in range(15, 0, -1):\n    resource.prlimit(target, n, (0, 0))\nfor n in range(30000):\n    print('a line of some length', n)",
    ),
];

/// Waits until three invocations one after another have the same container: on a busy machine an instance may not be
/// clean in time.
async fn is_kept(app: &TestApp, function: &Deployed) {
    eventually("the container is kept", async || {
        let mut is_warm = true;
        for _ in 0..3 {
            is_warm &= app.execute(function).await.assert_outcome(200, "ok").body["start"] == "warm";
        }
        is_warm.then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_python_function_does_to_its_supervisor_or_zygote_ends_with_its_container() {
    let _alone = alone().await;
    let program = format!(
        "{PRELUDE}\nattack = os.environ.get('ATTACK')\nif attack:\n    exec(attack)\n    print('attacked')\nelse:\n    exec({LOOK:?})\n"
    );
    TestApp::run(&ONE, async |app| {
        let function = app.deploy(python(&program)).await;
        let untouched = app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
        assert!(untouched.starts_with("0 works\n"), "{untouched}");
        let limits = (0..16).map(|n| (format!("limit {n}"), format!("resource.prlimit(target, {n}, (0, 0))")));
        let attacks = ATTACKS.iter().map(|&(name, attack)| (name.to_owned(), attack.to_owned()));
        let attacks: Vec<_> = limits.chain(attacks).collect();
        for (target, (name, attack)) in [0, 1].iter().flat_map(|target| attacks.iter().map(move |it| (target, it))) {
            let answer = app.execute_with(&function, json!({"attack": attack, "target": target})).await;
            println!("{name} of {target}: {}, {}", answer.body["outcome"], answer.body["start"]);
            // The kernel kills a supervisor that has no processor time left, whichever process has used the time.
            if (*target, name.as_str()) != (0, "limit 0") {
                let answer = answer.assert_outcome(200, "ok");
                assert!(answer.output().ends_with("attacked\n"), "{name} of {target}: {}", answer.output());
            }
            for _ in 0..2 {
                let after = app.execute(&function).await.assert_outcome(200, "ok");
                assert_eq!(after.output(), untouched, "{name} of {target}");
            }
        }
        // A function that leaves its supervisor alone goes on in the same container.
        is_kept(app, &function).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_signal_to_the_zygote_fails_no_invocation() {
    let _alone = alone().await;
    let program = format!(
        "{PRELUDE}\nimport time\ntry:\n    for n in range(int(os.environ.get('TIMES', 0))):\n        for number in os.environ['SIGNAL'].split(','):\n            os.kill(target, int(number))\n            time.sleep(',' in os.environ['SIGNAL'] and 0.05)\nexcept ProcessLookupError:\n    pass\nprint(len(numbers))\n"
    );
    TestApp::run(&ONE, async |app| {
        let function = app.deploy(python(&program)).await;
        // SIGKILL, SIGSTOP and the real-time signals are among them. The C library keeps two signals for itself.
        let single = (1..=64).filter(|signal| ![32, 33].contains(signal)).map(|signal| signal.to_string());
        // A stopped process keeps a signal until the process goes on.
        for signal in single.chain(["19,15", "19,34", "20,1"].map(str::to_owned)) {
            // The first time, the zygote may end before the function does. The second time, the zygote may still end.
            for times in [if signal.contains(',') { 2 } else { 1000 }, 1] {
                let input = json!({"signal": signal, "times": times, "target": 1});
                app.execute_with(&function, input).await.assert_outcome(200, "ok");
                let after = app.execute(&function).await.assert_outcome(200, "ok");
                assert_eq!(after.output(), "2\n", "{signal}");
            }
        }
    })
    .await;
}

/// Attacks all of the supervisor's threads, or all but the first, as the input says.
const GO: &str = r#"import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func call(number, a, b, c, d uintptr) {
	_, _, errno := syscall.Syscall6(number, a, b, c, d, 0, 0)
	if errno != 0 {
		fmt.Println("refused:", errno)
	}
}

func main() {
	attack := os.Getenv("ATTACK")
	if attack == "" {
		look()
		return
	}
	threads, _ := os.ReadDir("/proc/1/task")
	for _, thread := range threads {
		number, _ := strconv.Atoi(thread.Name())
		id := uintptr(number)
		if os.Getenv("OTHERS") != "" && id == 1 {
			continue
		}
		kind, of, _ := strings.Cut(attack, " ")
		switch kind {
		case "limit":
			n, _ := strconv.Atoi(of)
			none := syscall.Rlimit{}
			call(syscall.SYS_PRLIMIT64, id, uintptr(n), uintptr(unsafe.Pointer(&none)), 0)
		case "nice":
			call(syscall.SYS_SETPRIORITY, 0, id, 19, 0)
		case "affinity":
			mask := [128]byte{1}
			call(syscall.SYS_SCHED_SETAFFINITY, id, 128, uintptr(unsafe.Pointer(&mask)), 0)
		case "idle":
			zero := [8]byte{}
			call(syscall.SYS_SCHED_SETSCHEDULER, id, 5, uintptr(unsafe.Pointer(&zero)), 0)
		case "io":
			call(syscall.SYS_IOPRIO_SET, 1, id, 3<<13, 0)
		}
	}
	fmt.Println(strings.Repeat("attacked\n", 20000))
}

func look() {
	for n := 0; n < 16; n++ {
		var limit syscall.Rlimit
		fmt.Print(n, syscall.Getrlimit(n, &limit), limit)
	}
	nice, _ := syscall.Getpriority(0, 0)
	policy, _, _ := syscall.Syscall(syscall.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	io, _, _ := syscall.Syscall(syscall.SYS_IOPRIO_GET, 1, 0, 0)
	var mask [128]byte
	syscall.Syscall(syscall.SYS_SCHED_GETAFFINITY, 0, 128, uintptr(unsafe.Pointer(&mask)))
	fmt.Println(nice, policy, io, mask, os.WriteFile("/tmp/file", make([]byte, 100000), 0o600))
	if len(os.Args) == 1 {
		child := exec.Command("/proc/self/exe", "child")
		child.Env = os.Environ()
		output, err := child.CombinedOutput()
		fmt.Println(string(output), err)
	}
}
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_go_function_does_to_its_supervisor_ends_with_its_container() {
    let _alone = alone().await;
    TestApp::run(&ONE, async |app| {
        let function = app.deploy(go(GO)).await;
        let untouched = app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
        let limits = (0..16).map(|n| format!("limit {n}"));
        for attack in limits.chain(["nice", "affinity", "idle", "io"].map(str::to_owned)) {
            // The limits are those of all threads.
            let others = if attack.starts_with("limit") { &[""][..] } else { &["", "1"] };
            for others in others {
                let answer = app.execute_with(&function, json!({"attack": attack, "others": others})).await;
                println!("{attack} {others}: {}, {}", answer.body["outcome"], answer.body["start"]);
                if attack != "limit 0" {
                    let answer = answer.assert_outcome(200, "ok");
                    let told = answer.output();
                    assert!(told.len() > 180_000 && !told.contains("refused"), "{attack}: {told:.200}");
                }
                for _ in 0..2 {
                    let after = app.execute(&function).await.assert_outcome(200, "ok");
                    assert_eq!(after.output(), untouched, "{attack} {others}");
                }
            }
        }
        is_kept(app, &function).await;
    })
    .await;
}

/// Prints the input's text, or the places in the process's own memory where both halves of a text are side by side.
const REMEMBER: &str = r#"
import os
first, second = os.environ["FIRST"].encode(), os.environ["SECOND"].encode()
if "TIMES" in os.environ:
    os.write(1, (first + second) * int(os.environ["TIMES"]))
    os.write(2, b"and " + first + second)
    os._exit(0)
if "OWN" in os.environ:
    own = b"".join((first, second))
found = []
memory = os.open("/proc/self/mem", os.O_RDONLY)
for line in list(open("/proc/self/maps")):
    place, access = line.split()[:2]
    begin, end = (int(part, 16) for part in place.split("-"))
    if access[0] != "r":
        continue
    for at in range(begin, end, 1 << 20):
        try:
            part = os.pread(memory, min((1 << 20) + 64, end - at), at)
        except (OSError, OverflowError):
            break
        here = part.find(first)
        while here >= 0:
            if part.startswith(second, here + len(first)):
                found.append(line)
            here = part.find(first, here + 1)
print(found)
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn the_memory_of_a_python_function_holds_nothing_of_earlier_invocations() {
    let _alone = alone().await;
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1"), ("MAX_OUTPUT_SIZE", "100KB")], async |app| {
        let function = app.deploy(python(REMEMBER)).await;
        let (first, second) = ("q7Zk2vXw9LmB", "4tRn8cYp1HsD");
        let whole = format!("{first}{second}");
        // The test takes a short text, a large text, and a print that is longer than the kept output.
        for (times, copies) in [(1, 1), (2000, 2000), (20_000, 20_000)] {
            let input = json!({
                "first": first, "second": second, "times": times.to_string(), "copy": whole.repeat(copies.min(2000)),
                "more": whole.repeat(copies.min(2000)),
            });
            let said = app.execute_with(&function, input).await.assert_outcome(200, "ok");
            assert!(said.output().starts_with(&whole));
            for _ in 0..2 {
                let after = app.execute_with(&function, json!({"first": first, "second": second})).await;
                let after = after.assert_outcome(200, "ok");
                assert_eq!((after.output(), &after.body["start"]), ("[]\n", &json!("warm")), "{times}");
            }
        }
        let own = app.execute_with(&function, json!({"first": first, "second": second, "own": "1"})).await;
        assert_ne!(own.assert_outcome(200, "ok").output(), "[]\n", "the search finds a text that is there");
    })
    .await;
}
