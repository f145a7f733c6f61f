//! Ways beside the proxy: sockets of all kinds, the doors themselves, and what else the container has.

use super::{Act, End, Function, Places, Way};

/// Ways that end in the container: a name, the code, and what the program sees.
const LOCAL: [(&str, &str, &str); 29] = [
    ("the Internet", "reach('1.1.1.1', 80)", "ENETUNREACH"),
    ("the Internet by UDP", "reach('1.1.1.1', 53, socket.SOCK_DGRAM)", "ENETUNREACH"),
    ("data in the first packet", "socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('1.1.1.1', 80))", "ENETUNREACH"),
    ("the machine", "reach('{bridge}', {api})", "ENETUNREACH"),
    ("the machine by UDP", "reach('{bridge}', {port}, socket.SOCK_DGRAM)", "ENETUNREACH"),
    ("metadata of a cloud", "reach('169.254.169.254', 80)", "ENETUNREACH"),
    ("the service on loopback", "reach('127.0.0.1', {api})", "ECONNREFUSED"),
    ("the allowed host on loopback", "reach('127.0.0.1', {port})", "ECONNREFUSED"),
    ("a canary on loopback", "reach('127.0.0.3', {port})", "ECONNREFUSED"),
    ("the database on loopback", "reach('127.0.0.78', 5432)", "ECONNREFUSED"),
    ("the registry on loopback", "reach('127.0.0.1', {registry})", "ECONNREFUSED"),
    ("another port of a door", "reach('allowed.example', {api})", "ECONNREFUSED"),
    ("a door of another function", "reach('127.1.0.7', {port})", "ECONNREFUSED"),
    ("UDP at a door", "reach('allowed.example', {port}, socket.SOCK_DGRAM)", "ECONNREFUSED"),
    ("the service by name", "reach('service.example', {api})", "unknown name"),
    ("the machine by name", "reach('host.docker.internal', {api})", "unknown name"),
    ("a name of the pattern, without the proxy", "reach('a.wild.example', {port})", "unknown name"),
    ("a name that carries bytes", "reach('secret.' + 'x' * 50 + '.example', 80)", "unknown name"),
    ("a listener at a door", "socket.create_server(('127.1.0.2', {port}))", "EADDRINUSE"),
    (
        "a listener that shares a door's port",
        "socket.create_server(('127.1.0.2', {port}), reuse_port=True)",
        "EADDRINUSE",
    ),
    ("a listener at all addresses", "socket.create_server(('', {port}))", "EADDRINUSE"),
    ("a raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)", "EPERM"),
    ("packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)", "EPERM"),
    (
        "another address of loopback",
        "import fcntl\nfcntl.ioctl(socket.socket(), 0x8916, b'lo'.ljust(64, b'\\0'))",
        "EPERM",
    ),
    ("a route", "import fcntl\nfcntl.ioctl(socket.socket(), 0x890b, bytes(128))", "EPERM"),
    ("addresses of others", "socket.socket().setsockopt(socket.SOL_IP, 19, 1)", "EPERM"),
    ("another network", "call('setns', os.open('/proc/self/ns/net', os.O_RDONLY), 0x40000000)", "EPERM"),
    ("a network of its own", "call('unshare', 0x40000000)", "EPERM"),
    ("the supervisor's doors", "os.listdir('/proc/1/fd')", "EACCES"),
];

/// Ways of which none may work, and code that prints those that do.
const SEVERAL: [(&str, &str); 5] = [
    (
        "IPv6, which an engine may turn off",
        r#"
for host in ("2606:4700:4700::1111", "::1", "::ffff:127.0.0.1", "fe80::1", "ff02::1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            reach(host, {port}, kind)
            print("by", host)
        except OSError:
            pass
"#,
    ),
    (
        "DNS by UDP and TCP",
        r#"
question = bytes.fromhex("1234010000010000000000000364657600000100 01".replace(" ", ""))
lines = [line.split() for line in open("/etc/resolv.conf")]
for server in [line[1] for line in lines if line[:1] == ["nameserver"]] + ["127.0.0.11", "127.0.0.53"]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        try:
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as connection:
                connection.settimeout(2)
                connection.connect((server, 53))
                connection.sendall(question)
                print("an answer of", server, connection.recv(512))
        except OSError:
            pass
"#,
    ),
    (
        "sockets of the machine",
        r#"
paths = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "\0/containerd-shim/x.sock",
         "/run/youtube-serverless/socket"]
for folder, _, names in os.walk("/run"):
    paths += [os.path.join(folder, name) for name in names]
for path in paths:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print(path, "answers")
    except OSError:
        pass
"#,
    ),
    (
        "files that lead names elsewhere",
        r#"
for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/run/youtube-serverless/socket"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        print(path, "was opened")
    except OSError:
        pass
    try:
        os.rename(path, path + "-")
        print(path, "was moved")
    except OSError:
        pass
"#,
    ),
    (
        "descriptors of other processes",
        r#"
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
    for number in range(64):
        try:
            # This is pidfd_getfd(2).
            print(pid, number, call("syscall", 438, os.pidfd_open(pid), number, 0))
        except OSError:
            pass
"#,
    ),
];

/// Doors of the wide function that lead to what no function reaches.
const DOORS: [(&str, &str); 6] = [
    ("private.example:{port}", "the address is loopback, and no range of EGRESS_PRIVATE holds the address"),
    ("metadata.example:{port}", "the address is metadata of a cloud, which no function reaches"),
    ("zero.example:{port}", "the address is unspecified, which no function reaches"),
    ("service.example:{api}", "this is the service itself, which no function reaches"),
    ("machine.example:{api}", "this is the service itself, which no function reaches"),
    ("store.example:5432", "this is the database of STORE_URL, which no function reaches"),
];

/// A client that follows where the allowed host sends the client.
const REDIRECT: &str = r#"
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://allowed.example:{port}/to/private.example:{port}").status)
except urllib.error.HTTPError as error:
    print(error.code, error.reason)
"#;

pub(super) fn ways(places: &Places) -> Vec<Way> {
    let way = |name: &str, function, code: &str, end| Way {
        name: places.fill(name),
        function,
        act: Act::Run(places.fill(code)),
        end,
    };
    let mut ways = Vec::new();
    ways.extend(LOCAL.iter().map(|(name, code, said)| way(name, Function::Narrow, code, End::Said(said))));
    ways.extend(SEVERAL.iter().map(|(name, code)| way(name, Function::Wide, code, End::Said(""))));
    for (to, reason) in DOORS {
        let (host, port) = to.split_once(':').unwrap();
        let end = End::Reset { to: places.fill(to), reason: reason.to_owned() };
        ways.push(way(to, Function::Wide, &format!("reach('{host}', {port})"), end));
    }
    let end = End::Redirected { to: places.fill("private.example:{port}") };
    ways.push(way("a redirect", Function::Narrow, REDIRECT, end));
    ways
}
