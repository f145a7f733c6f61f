//! A function can't tell the platform from `python3 -u main.py`: a battery of programs, run both ways in the same
//! image.
//!
//! A function's output is line-buffered, which no option of the interpreter gives. So the other run has `-u`. The two
//! runs differ in half a line only, and no program here leaves half a line behind.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::support::{Deployed, OF_NO_PLATFORM, TestApp, eventually_within, go, zip};

/// The files beside each Python program.
const SIBLING: &str = "import sys\nNAME = __name__\nLOADED = sys.modules.get('random') is None\n";

const PYTHON: &[(&str, &str)] = &[
    (
        "identity",
        "import os, sys\nprint(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), __builtins__.__name__, __doc__, __spec__, __package__, __cached__, type(__loader__).__name__)\n",
    ),
    ("docstring", "'''doc'''\nprint(__doc__, sorted(globals()))\n"),
    (
        "sibling",
        "import sibling\nprint(sibling.NAME, sibling.LOADED, open('data.txt').read(), open(__file__).readline())\n",
    ),
    (
        "fresh modules",
        "import sys\nprint([m for m in ('ctypes', 'select', 'struct', 'random', 'threading', 'json', 'gc') if m in sys.modules])\n",
    ),
    ("stdin", "import sys\nprint(repr(sys.stdin.read()), sys.stdin.isatty(), sys.stdin.encoding)\n"),
    ("stdin lines", "print(input())\nprint(input())\n"),
    ("exit none", "import sys\nprint('x')\nsys.exit()\n"),
    ("exit int", "import sys\nsys.exit(300)\n"),
    ("exit negative", "import sys\nsys.exit(-1)\n"),
    ("exit text", "import sys\nsys.exit('a reason')\n"),
    ("exit object", "raise SystemExit(['a', 1])\n"),
    ("exit bool", "raise SystemExit(True)\n"),
    ("os._exit", "import os\nprint('not lost')\nos._exit(7)\n"),
    (
        "exception",
        "def f(x):\n    raise ValueError(x)\n\ntry:\n    f(1)\nexcept ValueError as e:\n    raise KeyError('k') from e\n",
    ),
    ("exception in context", "try:\n    1 / 0\nexcept ZeroDivisionError:\n    undefined_name\n"),
    ("exception group note", "e = RuntimeError('x')\nif hasattr(e, 'add_note'):\n    e.add_note('a note')\nraise e\n"),
    ("own exception class", "class Oops(Exception):\n    pass\n\nraise Oops('é')\n"),
    ("excepthook", "import sys\nsys.excepthook = lambda t, v, tb: print('hook', t.__name__, v, tb.tb_lineno)\n1 / 0\n"),
    (
        "broken excepthook",
        "import sys\ndef hook(t, v, tb):\n    raise TypeError('hook')\nsys.excepthook = hook\nraise ValueError('v')\n",
    ),
    ("syntax error", "print('a')\nthis is no python\n"),
    ("indentation error", "if True:\nprint('a')\n"),
    (
        "syntax warning",
        "import warnings\nx = 1\nif x is 1:\n    print('same')\nwarnings.warn('careful', stacklevel=1)\n",
    ),
    (
        "recursion",
        "import sys\ndef f(n):\n    return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError:\n    print('deep')\n",
    ),
    (
        "atexit",
        "import atexit\natexit.register(print, 'first')\natexit.register(lambda: print('second'))\nclass Broken:\n    def __repr__(self):\n        return 'broken'\n    def __call__(self):\n        1 / 0\natexit.register(Broken())\nprint('main')\n",
    ),
    (
        "threads",
        "import threading, time\ndef work():\n    threading.main_thread().join()\n    print('worked', threading.current_thread().name)\nthreading.Thread(target=work, name='t').start()\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('main', threading.current_thread() is threading.main_thread())\n",
    ),
    (
        "thread exception",
        "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t')\nt.start()\nt.join()\nprint('on')\n",
    ),
    (
        "finalizers",
        "class F:\n    def __init__(self, n):\n        self.n = n\n    def __del__(self):\n        print('gone', self.n)\na = F('a')\n_b = F('b')\nimport weakref\nw = weakref.finalize(a, print, 'finalized')\nprint('main')\n",
    ),
    (
        "finalizer after a collection",
        "import gc\nclass A:\n    def __del__(self):\n        print('bye')\na = A()\ngc.collect()\nprint('main')\n",
    ),
    ("unflushed file", "import os\nf = os.fdopen(os.dup(1), 'w')\nf.write('late\\n')\nprint('main')\n"),
    (
        "multiprocessing fork",
        "import multiprocessing as m\ndef f(x):\n    return x * x\nif __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p:\n        print(p.map(f, range(5)))\n",
    ),
    (
        "multiprocessing spawn",
        "import multiprocessing as m\ndef f(x):\n    return x * x\nif __name__ == '__main__':\n    with m.get_context('spawn').Pool(2) as p:\n        print(p.map(f, range(5)))\n",
    ),
    (
        "user",
        "import getpass, grp, os, pathlib, pwd\nprint(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name, pathlib.Path.home(), os.popen('id -un').read())\n",
    ),
    (
        "fork in the middle of output",
        "import os\nprint('before')\nif os.fork() == 0:\n    print('child')\n    os._exit(0)\nos.wait()\nprint('after')\n",
    ),
    (
        "subprocess",
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import sys; print(sys.stdin.read())'], input='in', capture_output=True, text=True))\nsubprocess.run(['sh', '-c', 'echo from sh; exit 3'])\n",
    ),
    (
        "asyncio",
        "import asyncio\nasync def main():\n    p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=asyncio.subprocess.PIPE)\n    print(await p.communicate(), await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(3))))\nasyncio.run(main())\n",
    ),
    (
        "signals",
        "import signal\nprint([(s.name, str(signal.getsignal(s))) for s in sorted(signal.Signals) if signal.getsignal(s) != signal.SIG_DFL and 'function' not in str(signal.getsignal(s)) and 'built-in' not in str(signal.getsignal(s))])\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.pthread_sigmask(signal.SIG_BLOCK, []))\ndef ring(*_):\n    print('alarm')\n    raise SystemExit(5)\nsignal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True:\n    signal.pause()\n",
    ),
    (
        "pickle",
        "import pickle\nclass P:\n    def __init__(self):\n        self.x = 1\n    def __eq__(self, o):\n        return self.x == o.x\nd = pickle.dumps(P())\nprint(pickle.loads(d) == P(), P.__module__)\n",
    ),
    ("bytes", "import sys\nsys.stdout.buffer.write(b'\\xf0\\x9f\\x98\\x80 bytes\\n')\nsys.stdout.write('text\\n')\n"),
    ("closed stdout", "import sys\nprint('a', flush=True)\nsys.stdout.close()\nsys.stderr.write('b\\n')\n"),
    ("closed descriptors", "import os\nos.write(1, b'a')\nos.close(1)\nos.close(2)\n"),
    (
        "replaced descriptors",
        "import os\nr, w = os.pipe()\nos.dup2(w, 1)\nprint('into the pipe', flush=True)\nos.write(2, os.read(r, 100))\n",
    ),
    ("replaced stdout", "import sys, io\nsys.stdout = io.StringIO()\nprint('swallowed')\nsys.stderr.write('seen')\n"),
    (
        "ctypes",
        "import ctypes, select, struct\nprint(ctypes.CDLL(None).getpid() > 0, struct.pack('>I', 1), hasattr(select, 'poll'))\n",
    ),
    (
        "environment",
        "import os\nprint(sorted(k for k in os.environ if not k.startswith(('FUNCTION_', 'INVOCATION_', 'HOSTNAME', 'PWD', 'OLDPWD'))), os.environ['HOME'], os.environ['LANG'])\nos.environ['X'] = 'y'\nprint(os.popen('echo $X').read())\n",
    ),
    ("descriptors", "import os\nprint([fd for fd in range(200) if os.path.exists('/proc/self/fd/%d' % fd)])\n"),
    (
        "tmp",
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n    print(d.startswith('/tmp/'))\n    open(d + '/x', 'w').write('y')\n",
    ),
    (
        "dataclass, typing, enum",
        "import dataclasses, enum, typing\n@dataclasses.dataclass\nclass D:\n    x: int = 1\nx: int = 3\nprint(D(), __annotations__ if '__annotations__' in globals() else None, typing.get_type_hints(D))\n",
    ),
    ("large output", "import sys\nfor n in range(9000):\n    print('line', n)\nprint('end', file=sys.stderr)\n"),
    ("inspect", "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), inspect.getmodule(f).__name__)\n"),
    (
        "gc and weakrefs",
        "import gc\nclass N:\n    def __del__(self):\n        print('collected')\na, b = N(), N()\na.b, b.a = b, a\ndel a, b\nprint(gc.collect() > 0, gc.isenabled())\n",
    ),
];

const GO: &[(&str, &str)] = &[
    ("exit", "import \"os\"\n\nfunc main() {\n\tos.Stdout.WriteString(\"x\")\n\tos.Exit(300 % 256)\n}\n"),
    ("panic", "import \"errors\"\n\nfunc main() {\n\tdefer println(\"deferred\")\n\tpanic(errors.New(\"oh\"))\n}\n"),
    ("nil", "func main() {\n\tvar m map[string]int\n\tm[\"a\"] = 1\n}\n"),
    (
        "arguments",
        "import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\twd, err := os.Getwd()\n\tdata, _ := os.ReadFile(\"data.txt\")\n\tfmt.Println(os.Args, wd, err, string(data), os.Getenv(\"HOME\"), os.TempDir())\n}\n",
    ),
    (
        "goroutines",
        "import (\n\t\"fmt\"\n\t\"sync\"\n)\n\nfunc main() {\n\tvar wg sync.WaitGroup\n\tresults := make([]int, 100)\n\tfor i := range results {\n\t\twg.Add(1)\n\t\tgo func(i int) { defer wg.Done(); results[i] = i * i }(i)\n\t}\n\twg.Wait()\n\tfmt.Println(results)\n}\n",
    ),
    (
        "stdin",
        "import (\n\t\"fmt\"\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tdata, err := io.ReadAll(os.Stdin)\n\tfmt.Printf(\"%q %v\\n\", data, err)\n}\n",
    ),
    ("deadlock", "func main() {\n\tselect {}\n}\n"),
    (
        "signals",
        "import (\n\t\"fmt\"\n\t\"os\"\n\t\"os/signal\"\n\t\"syscall\"\n)\n\nfunc main() {\n\tc := make(chan os.Signal, 1)\n\tsignal.Notify(c, syscall.SIGTERM)\n\tsyscall.Kill(syscall.Getpid(), syscall.SIGTERM)\n\tfmt.Println(<-c, signal.Ignored(syscall.SIGHUP), signal.Ignored(syscall.SIGTERM))\n}\n",
    ),
];

#[tokio::test]
#[ignore = "needs docker"]
async fn python_programs_do_the_same_as_by_hand() {
    compare_python("auto", "auto").await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn python_programs_do_the_same_without_preloading_and_by_pipes() {
    compare_python("off", "pipes").await;
}

async fn compare_python(preload: &str, transport: &str) {
    for transport in transports(transport) {
        let settings = [("PRELOAD", preload), ("INSTANCE_TRANSPORT", transport)];
        compare(&settings, PYTHON, &["--entrypoint=sh"], &["-c", "python3 -u main.py; exit $?"], |program| {
            zip(&[("main.py", program), ("sibling.py", SIBLING), ("data.txt", "data")])
        })
        .await;
    }
}

/// No instance waits for long, so that each program meets a slot.
const SLOTS: [(&str, &str); 4] =
    [("SLOTS_PYTHON", "2"), ("SLOTS_GO", "2"), ("DOCKER_CONTAINER_LIMIT", "8"), ("INSTANCE_IDLE_TIMEOUT", "300ms")];

#[tokio::test]
#[ignore = "needs docker"]
async fn python_programs_do_the_same_in_slots() {
    compare(&SLOTS, PYTHON, &["--entrypoint=sh"], &["-c", "python3 -u main.py; exit $?"], |program| {
        zip(&[("main.py", program), ("sibling.py", SIBLING), ("data.txt", "data")])
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_programs_do_the_same_in_slots() {
    compare(&SLOTS, GO, &["--entrypoint=/function"], &[], |program| {
        zip(&[("main.go", &format!("package main\n\n{program}")), ("data.txt", "data")])
    })
    .await;
}

/// The transport of a test. With CONFORMANCE_MATRIX, which `make nightly` sets, the tests have all transports.
fn transports(usual: &str) -> Vec<&str> {
    if std::env::var_os("CONFORMANCE_MATRIX").is_some() { vec!["auto", "pipes"] } else { vec![usual] }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn go_programs_do_the_same_as_by_hand() {
    for transport in transports("auto") {
        compare(&[("INSTANCE_TRANSPORT", transport)], GO, &["--entrypoint=/function"], &[], |program| {
            zip(&[("main.go", &format!("package main\n\n{program}")), ("data.txt", "data")])
        })
        .await;
    }
}

/// The result of a run: stdout, stderr, exit status.
type Run = (String, String, i64);

async fn compare(
    settings: &[(&str, &str)],
    programs: &[(&str, &str)],
    entrypoint: &[&str],
    command: &[&str],
    zipped: impl Fn(&str) -> Vec<u8>,
) {
    TestApp::run(settings, async |app| {
        let mut differences = Vec::new();
        for (name, program) in programs {
            let function = app.deploy(zipped(program)).await;
            let by_hand = by_hand(name, &function, entrypoint, command);
            // Each program runs twice, as the second process in a container must be as fresh as the first.
            for run in 0..2 {
                let body = match run {
                    0 if settings == SLOTS => in_a_slot(app, &function).await,
                    _ => app.execute(&function).await.body,
                };
                let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                let ours = (text("output"), text("stderr"), body["exitCode"].as_i64().unwrap_or(-1));
                if ours != by_hand {
                    differences.push(format!("{name}:\n  by hand {by_hand:?}\n  ours    {ours:?}"));
                }
            }
            app.delete(&function.id).await.assert_status(200);
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    })
    .await;
}

/// The answer of the first execution that takes a slot.
async fn in_a_slot(app: &TestApp, function: &Deployed) -> serde_json::Value {
    // A function for which a slot came late takes none for a minute.
    eventually_within(Duration::from_secs(180), "the function takes a slot", async || {
        let body = app.execute(function).await.body;
        let is_slot = body["start"] == "slot";
        if !is_slot {
            // The instance becomes idle, and ends.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        is_slot.then_some(body)
    })
    .await
}

/// The result of a program without the service. The tests share the results, as each run takes a container.
fn by_hand(name: &str, function: &Deployed, entrypoint: &[&str], command: &[&str]) -> Run {
    static KNOWN: Mutex<BTreeMap<String, Arc<OnceLock<Run>>>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {entrypoint:?}");
    let known = Arc::clone(KNOWN.lock().unwrap().entry(key).or_default());
    known.get_or_init(|| run_by_hand(function, entrypoint, command)).clone()
}

fn run_by_hand(function: &Deployed, entrypoint: &[&str], command: &[&str]) -> Run {
    let sandbox = ["run", "--rm", "-i", "--network=none", "--read-only", "--user=70000:70000", "--tmpfs=/tmp"];
    let mut docker = Command::new("docker");
    docker.args(sandbox).args(OF_NO_PLATFORM).args(entrypoint).arg(&function.image).args(command);
    let mut child = docker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"{}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap().into())
}

#[tokio::test]
#[ignore = "needs docker"]
async fn random_numbers_differ_in_every_invocation() {
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let program = "import os, random, tempfile, uuid\nprint(random.random(), uuid.uuid4(), uuid.uuid1(), os.urandom(8), tempfile.mktemp())\n";
        let python = app.deploy(zip(&[("main.py", program)])).await;
        let program = "import (\n\t\"crypto/rand\"\n\t\"fmt\"\n)\n\nfunc main() {\n\tb := make([]byte, 16)\n\trand.Read(b)\n\tfmt.Printf(\"%x\\n\", b)\n}\n";
        let go = app.deploy(go(program)).await;
        for function in [python, go] {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..20 {
                let output = app.execute(&function).await.assert_outcome(200, "ok").output().to_owned();
                // A shorter word is a piece of Python's random bytes, which may hold a space.
                let words: Vec<&str> = output.split_whitespace().filter(|word| word.len() > 10).collect();
                assert!(!words.is_empty(), "no random number in {output}");
                for word in words {
                    assert!(seen.insert(word.to_owned()), "{word} came twice");
                }
            }
        }
    })
    .await;
}
