//! Functions that take all resources that they can get. Each attack ends with the right outcome, the next invocation
//! finds nothing of the attack, and a neighbour is served meanwhile.

use std::time::{Duration, Instant};

use crate::alone;
use crate::support::{Answer, Deployed, TestApp, answer, eventually_within, go, python};

/// A neighbour may become this much slower under an attack.
const NEIGHBOUR: f64 = 3.0;
/// The least number of the neighbour's calls during an attack.
const CALLS: usize = 30;
/// The number of tries, as the machine may be busy with something else for a moment.
const TRIES: usize = 3;

/// Python programs: the attack, the program, and the outcomes that the program may have.
const ATTACKS: &[(&str, &str, &[&str])] = &[
    (
        "fork bomb",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        &["timeout"],
    ),
    (
        "fork bomb in sessions of its own",
        "import os\nwhile True:\n    try:\n        if os.fork() == 0:\n            os.setsid()\n            os.close(1)\n            os.close(2)\n    except OSError:\n        pass\n",
        &["timeout"],
    ),
    ("memory", "hog = []\nwhile True:\n    hog.append(bytearray(1 << 20))\n", &["out_of_memory"]),
    (
        "memory of many processes",
        "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        break\nhog = []\nwhile True:\n    hog.append(bytearray(1 << 20))\n",
        &["out_of_memory"],
    ),
    (
        "memory by tmpfs",
        "import os\nfor place in ('/tmp/', '/dev/shm/'):\n    for n in range(100):\n        try:\n            open(place + str(n), 'wb').write(bytes(1 << 20))\n        except OSError:\n            break\nhog = [bytearray(1 << 20) for _ in range(100)]\n",
        &["out_of_memory"],
    ),
    (
        "memory by shared mappings",
        "import mmap\nhog = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 20)\n    m.write(b'x' * (1 << 20))\n    hog.append(m)\n",
        &["out_of_memory"],
    ),
    (
        "memory by pipes and sockets",
        "import os, socket\nheld = []\ntry:\n    while True:\n        a, b = socket.socketpair()\n        a.setblocking(False)\n        held += [a, b]\n        try:\n            while True:\n                a.send(b'x' * 65536)\n        except BlockingIOError:\n            pass\nexcept OSError:\n    print('no more')\n",
        &["ok", "out_of_memory"],
    ),
    (
        "page cache",
        "import os\nfor _ in range(2):\n    for folder, _, files in os.walk('/usr'):\n        for name in files:\n            try:\n                with open(os.path.join(folder, name), 'rb') as f:\n                    while f.read(1 << 20):\n                        pass\n            except OSError:\n                pass\nprint('read')\n",
        &["ok", "timeout"],
    ),
    (
        "threads",
        "import threading, time\nfor _ in range(10000):\n    threading.Thread(target=lambda: bytearray(1 << 20) and time.sleep(60)).start()\n",
        &["exit", "out_of_memory", "timeout"],
    ),
    ("a processor", "while True:\n    pass\n", &["timeout"]),
    ("all processors", "import os\nfor _ in range(6):\n    os.fork()\nwhile True:\n    pass\n", &["timeout"]),
    (
        "floods on both streams",
        "import os\nos.fork()\nwhile True:\n    os.write(1, b'o' * 65536)\n    os.write(2, b'e' * 65536)\n",
        &["timeout"],
    ),
    ("single bytes", "import os\nwhile True:\n    os.write(1, b'o')\n", &["timeout"]),
    (
        "deaf to every signal",
        "import signal, time\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True:\n    time.sleep(1)\n",
        &["timeout"],
    ),
    ("kill all others", "import os\ntry:\n    os.kill(-1, 9)\nexcept OSError:\n    pass\nprint('alive')\n", &["ok"]),
    (
        "stop all others",
        "import os, signal\ntry:\n    os.kill(-1, signal.SIGSTOP)\nexcept OSError:\n    pass\nprint('alive')\n",
        &["ok"],
    ),
    (
        "signals to PID 1",
        "import os\nfor s in range(1, 65):\n    for _ in range(100):\n        try:\n            os.kill(1, s)\n        except OSError:\n            pass\nprint('alive')\n",
        &["ok"],
    ),
    (
        "a daemon that spins and writes",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        for fd in range(3):\n            os.close(fd)\n        n = 0\n        while True:\n            n += 1\n            try:\n                os.close(os.open('/tmp/d%d' % (n % 1000), os.O_CREAT | os.O_WRONLY))\n            except OSError:\n                pass\n    os._exit(0)\nos.wait()\nprint('left')\n",
        &["ok"],
    ),
    (
        "daemons that fork faster than they are killed",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    for fd in range(3):\n        os.close(fd)\n    while True:\n        try:\n            if os.fork():\n                os._exit(0)\n        except OSError:\n            pass\nprint('left')\n",
        &["ok"],
    ),
    (
        "folders too deep for a path",
        "import os\nos.chdir('/tmp')\nfor _ in range(3000):\n    os.mkdir('d' * 100)\n    os.chdir('d' * 100)\nprint('dug')\n",
        &["ok", "out_of_memory"],
    ),
    (
        "as many files as there can be",
        "import os\nn = 0\ntry:\n    while True:\n        os.close(os.open('/tmp/%d' % n, os.O_CREAT | os.O_WRONLY))\n        n += 1\nexcept OSError:\n    print('full')\n",
        &["ok", "timeout", "out_of_memory"],
    ),
    (
        "links, pipes and what nobody may enter",
        "import os\nos.chdir('/tmp')\nos.symlink('loop', 'loop')\nos.symlink('/proc/1', 'one')\nos.symlink('..', 'up')\nos.mkfifo('fifo', 0)\nos.makedirs('a/b')\nopen('a/b/f', 'w').close()\nos.chmod('a/b', 0)\nos.chmod('a', 0)\nimport socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('/tmp/socket')\nopen('\\n', 'w').close()\nopen(b'\\xff\\xfe', 'w').close()\nopen('-rf', 'w').close()\nprint('made')\n",
        &["ok"],
    ),
    (
        "a clean-up's current folder",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    os.mkdir('/tmp/here')\n    os.chdir('/tmp/here')\n    for fd in range(3):\n        os.close(fd)\n    while True:\n        try:\n            os.rename('/tmp/here', '/tmp/there')\n            os.rename('/tmp/there', '/tmp/here')\n        except OSError:\n            pass\nprint('left')\n",
        &["ok"],
    ),
];

/// Go programs: the attack, the program, and the outcomes that the program may have.
const GO_ATTACKS: &[(&str, &str, &[&str])] = &[
    (
        "threads",
        "import (\n\t\"runtime\"\n)\n\nfunc main() {\n\tfor {\n\t\tgo func() { runtime.LockOSThread(); select {} }()\n\t}\n}\n",
        &["exit", "signal", "out_of_memory"],
    ),
    (
        "processes",
        "import (\n\t\"os\"\n\t\"os/exec\"\n)\n\nfunc main() {\n\tfor {\n\t\tc := exec.Command(\"/proc/self/exe\")\n\t\tc.Env = os.Environ()\n\t\tc.Start()\n\t}\n}\n",
        // The runtime of Go may be the first to get no thread.
        &["timeout", "exit"],
    ),
    (
        "memory",
        "func main() {\n\tvar hog [][]byte\n\tfor {\n\t\tb := make([]byte, 1<<20)\n\t\tfor i := range b {\n\t\t\tb[i] = 1\n\t\t}\n\t\thog = append(hog, b)\n\t}\n}\n",
        &["out_of_memory"],
    ),
    (
        "kill all others",
        "import (\n\t\"fmt\"\n\t\"syscall\"\n)\n\nfunc main() {\n\tsyscall.Kill(-1, syscall.SIGKILL)\n\tfmt.Println(\"alive\")\n}\n",
        &["ok"],
    ),
    (
        "floods",
        "import \"os\"\n\nfunc main() {\n\tb := make([]byte, 65536)\n\tfor {\n\t\tos.Stdout.Write(b)\n\t\tos.Stderr.Write(b)\n\t}\n}\n",
        &["timeout"],
    ),
];

/// The program of every attack's next invocation. The one other process is the zygote.
const AFTER: &str = "import os\nothers = [p for p in os.listdir('/proc') if p.isdigit() and p not in ('1', str(os.getpid()))]\nprint(os.listdir('/tmp'), os.listdir('/dev/shm'), len(others))\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn each_attack_ends_as_what_it_is_and_its_neighbour_is_served() {
    let _alone = alone().await;
    let settings = [("DOCKER_CONTAINER_LIMIT", "2"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        let neighbour = app.deploy(python("print('served')")).await;
        for (name, attack, outcomes) in ATTACKS {
            let attacker = deploy(app, attacker(attack), outcomes).await;
            let (answer, slower) = attacked(app, &attacker, &neighbour).await;
            let outcome = answer.body["outcome"].as_str().unwrap_or_default();
            println!("{name}: {outcome}, the neighbour took {slower:.2} of its time");
            assert!(outcomes.contains(&outcome), "{name}: {:#}", answer.body);
            assert!(slower <= NEIGHBOUR, "{name}: the neighbour took {slower:.2} of its time");
            for _ in 0..2 {
                let after = app.execute(&attacker).await.assert_outcome(200, "ok");
                assert_eq!(after.output(), "[] [] 1\n", "{name}");
            }
            app.delete(&attacker.id).await.assert_status(200);
        }
    })
    .await;
}

/// The zip of an attack. Without the variable of the attack, the program is [`AFTER`]: the same function is invoked, so
/// the next invocation gets the same container when the container is kept.
fn attacker(attack: &str) -> Vec<u8> {
    let program =
        format!("import os\nif os.environ.get('ATTACK'):\n    exec({attack:?})\nelse:\n    exec({AFTER:?})\n");
    python(&program)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn attackers_in_slots_fare_no_better() {
    let _alone = alone().await;
    let settings =
        [("DOCKER_CONTAINER_LIMIT", "4"), ("INSTANCE_IDLE_TIMEOUT", "1s"), ("SLOTS_PYTHON", "1"), ("SLOTS_GO", "1")];
    TestApp::run(&settings, async |app| {
        for (name, attack, outcomes) in ATTACKS {
            let attacker = deploy(app, attacker(attack), outcomes).await;
            let answer = attack_in_a_slot(app, &attacker).await;
            let outcome = answer.body["outcome"].as_str().unwrap_or_default();
            assert!(outcomes.contains(&outcome), "{name}: {:#}", answer.body);
            for _ in 0..2 {
                let after = app.execute(&attacker).await.assert_outcome(200, "ok");
                assert_eq!(after.output(), "[] [] 1\n", "{name}");
            }
            app.delete(&attacker.id).await.assert_status(200);
        }
        for (name, program, outcomes) in GO_ATTACKS {
            let attacker = deploy(app, go(program), outcomes).await;
            let answer = attack_in_a_slot(app, &attacker).await;
            let outcome = answer.body["outcome"].as_str().unwrap_or_default();
            assert!(outcomes.contains(&outcome), "go, {name}: {:#}", answer.body);
            app.delete(&attacker.id).await.assert_status(200);
        }
    })
    .await;
}

/// Deploys an attack. An attack that may go on for ever has little time.
async fn deploy(app: &TestApp, zip: Vec<u8>, outcomes: &[&str]) -> Deployed {
    let deployed = app.deploy(zip).await;
    if outcomes.contains(&"timeout") {
        let change = app.request(reqwest::Method::PATCH, &format!("/api/functions/{}", deployed.id));
        answer(change.json(&serde_json::json!({"timeout": "3s"}))).await.assert_status(200);
    }
    deployed
}

/// The end of an attack whose instance was a slot before.
async fn attack_in_a_slot(app: &TestApp, attacker: &Deployed) -> Answer {
    // A function for which a slot came late takes none for a minute.
    eventually_within(Duration::from_secs(180), "the attack takes a slot", async || {
        // An instance of before ends.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let answer = app.execute_with(attacker, serde_json::json!({"attack": "1"})).await;
        (answer.body["start"] == "slot").then_some(answer)
    })
    .await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_attackers_fare_no_better() {
    let _alone = alone().await;
    let settings = [("DOCKER_CONTAINER_LIMIT", "2"), ("QUEUE_TIMEOUT", "60s")];
    TestApp::run(&settings, async |app| {
        let neighbour = app.deploy(python("print('served')")).await;
        for (name, program, outcomes) in GO_ATTACKS {
            let attacker = deploy(app, go(program), outcomes).await;
            let (answer, slower) = attacked(app, &attacker, &neighbour).await;
            let outcome = answer.body["outcome"].as_str().unwrap_or_default();
            println!("go, {name}: {outcome}, the neighbour took {slower:.2} of its time");
            assert!(outcomes.contains(&outcome), "{name}: {:#}", answer.body);
            assert!(slower <= NEIGHBOUR, "{name}: the neighbour took {slower:.2} of its time");
            app.delete(&attacker.id).await.assert_status(200);
        }
    })
    .await;
}

/// The end of an attack, and the factor by which the neighbour takes longer meanwhile: the least of some tries.
async fn attacked(app: &TestApp, attacker: &Deployed, neighbour: &Deployed) -> (Answer, f64) {
    let mut least = f64::INFINITY;
    let mut ended = None;
    for _ in 0..TRIES {
        let before = median(app, neighbour, async || false).await;
        let attack = app.execute_with(attacker, serde_json::json!({"attack": "1"}));
        let over = std::cell::Cell::new(false);
        let attack = async {
            let answer = attack.await;
            over.set(true);
            answer
        };
        let (answer, meanwhile) = tokio::join!(attack, median(app, neighbour, async || !over.get()));
        least = least.min(meanwhile.as_secs_f64() / before.as_secs_f64());
        ended = Some(answer);
        if least <= NEIGHBOUR {
            break;
        }
    }
    (ended.expect("the attack was tried"), least)
}

/// The median time of the calls while `goes_on`, and of at least [`CALLS`]. Each call must be answered.
async fn median(app: &TestApp, function: &Deployed, goes_on: impl AsyncFn() -> bool) -> Duration {
    let mut times = Vec::new();
    while times.len() < CALLS || goes_on().await {
        let began = Instant::now();
        assert_eq!(app.execute(function).await.assert_outcome(200, "ok").output(), "served\n");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Leaves many more orphans than there may be processes. Each orphan ends at once.
const ORPHANS: &str = r#"import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

func main() {
	if os.Getenv("STEP") == "2" {
		return
	}
	for n := 0; n < 100; n++ {
		child := exec.Command("/proc/self/exe")
		if os.Getenv("STEP") == "1" {
			child.Env = append(os.Environ(), "STEP=2")
			if child.Start() == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		child.Env = append(os.Environ(), "STEP=1")
		// The supervisor may have to wait for its processor.
		err := child.Run()
		for tries := 0; err != nil && tries < 100; tries++ {
			time.Sleep(50 * time.Millisecond)
			child = exec.Command("/proc/self/exe")
			child.Env = append(os.Environ(), "STEP=1")
			err = child.Run()
		}
		if err != nil {
			fmt.Println(n, err)
			os.Exit(8)
		}
	}
	if os.Getenv("STEP") == "1" {
		os.Exit(9)
	}
	os.Exit(7)
}
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn orphans_of_a_go_function_do_not_fill_its_container() {
    let _alone = alone().await;
    TestApp::run(&[("DOCKER_PIDS_LIMIT", "40")], async |app| {
        let function = app.deploy(go(ORPHANS)).await;
        for _ in 0..2 {
            let answer = app.execute(&function).await;
            assert_eq!(answer.body["exitCode"], 7, "{:?}", answer.body);
        }
    })
    .await;
}
