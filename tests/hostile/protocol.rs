//! A supervisor that was taken over, and functions that speak the supervisor's protocol. The platform believes neither.

use std::time::Duration;

use crate::alone;
use crate::support::{Engine, Service, TestApp, go, python, zip};

#[tokio::test]
#[ignore = "needs docker"]
async fn frames_that_a_function_writes_are_its_output() {
    let _alone = alone().await;
    let forged = r#"
import os, struct
def frame(kind, body):
    return struct.pack(">I", len(body) + 1) + kind + body
nonce = bytes(16)
forgeries = frame(b"H", b"\x07") + frame(b"O", nonce + b"forged") + frame(b"R", nonce)
forgeries += frame(b"X", nonce + struct.pack(">IBBBQQQ", 0, 0, 0, 1, 0, 0, 0)) + b"\xff\xff\xff\xff"
os.write(1, forgeries)
os.write(2, forgeries)
# The forgeries go to all other open files, of this process and of others.
for pid in os.listdir("/proc"):
    if not pid.isdigit():
        continue
    try:
        names = os.listdir("/proc/%s/fd" % pid)
    except OSError:
        continue
    for name in names:
        if pid == str(os.getpid()) and int(name) < 3:
            continue
        for flags in (os.O_WRONLY, os.O_RDWR):
            try:
                fd = os.open("/proc/%s/fd/%s" % (pid, name), flags | os.O_NONBLOCK)
                os.write(fd, forgeries)
                os.write(2, b"written to %s of %s" % (name.encode(), pid.encode()))
            except OSError:
                pass
os._exit(3)
"#;
    TestApp::run(&[("DOCKER_CONTAINER_LIMIT", "1")], async |app| {
        let function = app.deploy(python(forged)).await;
        for n in 0..3 {
            let answer = app.execute(&function).await.assert_outcome(500, "exit");
            // The container is kept: the supervisor took none of these messages for its own.
            assert!(n == 0 || answer.body["start"] == "warm", "{:#}", answer.body);
            assert_eq!(answer.body["exitCode"], 3);
            assert!(answer.output().contains("forged") && answer.output() == answer.stderr(), "{:#}", answer.body);
        }
        let program = "import \"os\"\n\nfunc main() {\n\tos.Stdout.Write([]byte{0, 0, 0, 2, 'H', 2, 255, 255, 255, 255})\n\tfor fd := uintptr(3); fd < 64; fd++ {\n\t\tos.NewFile(fd, \"x\").Write([]byte{0, 0, 0, 2, 'H', 2})\n\t}\n\tos.Exit(3)\n}\n";
        let function = app.deploy(go(program)).await;
        for _ in 0..3 {
            let answer = app.execute(&function).await.assert_outcome(500, "exit");
            assert_eq!(answer.output(), "\0\0\0\u{2}H\u{2}\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        }
    })
    .await;
}

/// A supervisor that follows the function's file.
const TAKEN_OVER: &str = r#"
import array, os, socket, struct, sys, time
mode = open("/app/main.py").read()[1:].strip()
platform = None
if os.path.exists("/run/youtube-serverless/socket"):
    platform = socket.socket(socket.AF_UNIX)
    platform.connect("/run/youtube-serverless/socket")
    os.dup2(platform.fileno(), 0)
    os.dup2(platform.fileno(), 1)
def frame(kind, body):
    return struct.pack(">I", len(body) + 1) + kind + body
def send(data):
    while data:
        data = data[os.write(1, data):]
def request():
    size = struct.unpack(">I", sys.stdin.buffer.raw.read(4))[0]
    body = b""
    while len(body) < size:
        body += sys.stdin.buffer.raw.read(size - len(body))
    return body[1:17]
exit = struct.pack(">IBBBQQQ", 0, 0, 0, 1, 1, 1, 1)
send(frame(b"H", b"\x07"))
request()
send(frame(b"P", bytes(mode != "liar") + (b"no\0such" if mode == "liar" else b"\0\x000")))
nonce = request()
if mode == "descriptors":
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))]
    for byte in frame(b"X", nonce + exit):
        if platform:
            platform.sendmsg([bytes([byte])], rights)
        else:
            send(bytes([byte]))
if mode == "lingering" and platform:
    # The close of such a connection waits for an hour.
    listener = socket.create_server(("127.0.0.1", 0))
    connection = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    connection.setblocking(False)
    try:
        while True:
            connection.send(bytes(65536))
    except BlockingIOError:
        pass
    socket.send_fds(platform, [frame(b"X", nonce + exit)], [connection.fileno(), other.fileno()])
    connection.close()
    other.close()
if mode == "garbage":
    while True:
        send(os.urandom(65536))
if mode == "gigantic":
    send(b"\xff\xff\xff\xff")
    while True:
        send(bytes(65536))
if mode == "endless":
    while True:
        send(frame(b"O", nonce + bytes(65536)) + frame(b"E", nonce + bytes(65536)))
if mode == "tiny":
    while True:
        send(frame(b"O", nonce) * 1000)
if mode == "stale":
    send(frame(b"X", bytes(16) + exit))
if mode == "twice":
    send(frame(b"X", nonce + exit) * 2)
    nonce = request()
if mode == "half":
    send(frame(b"X", nonce + exit)[:9])
if mode == "unready":
    send(frame(b"X", nonce + struct.pack(">IBBBQQQ", 0, 0, 0, 0, 1, 1, 1)))
time.sleep(600)
"#;

/// The growth of a service's memory while supervisors send nonsense, in bytes.
const FLAT: u64 = 48 << 20;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_supervisor_that_was_taken_over_costs_its_own_function_and_no_other() {
    take_over("auto").await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_supervisor_that_was_taken_over_gains_as_little_by_pipes() {
    take_over("pipes").await;
}

async fn take_over(transport: &str) {
    let _alone = alone().await;
    // The platform has a name of its own, so that no other test gets its runtime image. The daemon is the test's own,
    // so that no runtime image stays.
    let engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let host = engine.host();
    let settings = [
        ("DOCKER_HOST", host.as_str()),
        ("DOCKER_RUN_TIMEOUT", "3s"),
        ("DOCKER_CONTAINER_LIMIT", "2"),
        ("QUEUE_TIMEOUT", "60s"),
        ("INSTANCE_TRANSPORT", transport),
    ];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let honest = service.deploy(python("print('served')")).await;
    let runtimes = engine
        .docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "youtube-serverless-runtime/python"])
        .unwrap();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("taken.py"), TAKEN_OVER).unwrap();
    let path = context.path().to_str().unwrap();
    // The test replaces every runtime image, as other builds of the platform may have left theirs.
    for runtime in runtimes.lines() {
        let dockerfile = format!("FROM {runtime}\nCOPY taken.py /taken.py\nENTRYPOINT [\"python3\", \"/taken.py\"]\n");
        std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        engine.docker(&["build", "--quiet", "--tag", runtime, path]).expect("the taken over runtime is built");
    }

    let modes: [(&str, &[&str]); 11] = [
        ("garbage", &["lost"]),
        ("gigantic", &["lost"]),
        ("endless", &["timeout"]),
        ("tiny", &["timeout"]),
        ("stale", &["lost"]),
        ("twice", &["ok", "timeout", "lost"]),
        ("half", &["timeout"]),
        ("unready", &["ok"]),
        // Descriptors end the instance where there is a socket that can pass descriptors.
        ("descriptors", &["ok", "timeout", "lost"]),
        ("lingering", &["lost", "timeout"]),
        // The instance does not start.
        ("liar", &[""]),
    ];
    let (before, descriptors) = (service.memory(), service.descriptors());
    for (mode, outcomes) in modes {
        let function = service.deploy(zip(&[("main.py", &format!("#{mode}"))])).await;
        for _ in 0..2 {
            let answer =
                tokio::time::timeout(Duration::from_secs(60), service.execute(&function)).await.expect("an answer");
            let outcome = answer.body["outcome"].as_str().unwrap_or_default();
            assert!(outcomes.contains(&outcome), "{mode}: {:.1000}", answer.body.to_string());
            assert!(answer.body["output"].as_str().unwrap_or_default().len() <= 1_000_000, "{mode}");
        }
        assert_eq!(service.execute(&honest).await.assert_outcome(200, "ok").output(), "served\n", "{mode}");
        assert!(service.descriptors() < descriptors + 50, "{mode}: {}", service.descriptors());
        assert!(service.peak_memory() < before + FLAT, "{mode}: {before} -> {}", service.peak_memory());
    }
    service.signal("TERM");
    assert!(service.end().await.success());
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]).unwrap(), "");
    engine.remove().await;
}
