//! Ways by the proxy: other hosts, other forms of addresses, and requests that could be read in two ways.

use super::{Act, End, Function, Places, Way};

pub(super) const NO_RULE: &str = "no rule of the function's network allows this";

/// Hosts that are none of the narrow function's, the destinations that the receipt names, and the reasons.
const OTHERS: [(&str, &str, &str); 21] = [
    ("private.example:{port}", "private.example:{port}", NO_RULE),
    ("PRIVATE.EXAMPLE:{port}", "private.example:{port}", NO_RULE),
    ("private.example.:{port}", "private.example:{port}", NO_RULE),
    ("ｐrivate.example:{port}", "private.example:{port}", NO_RULE),
    ("private。example:{port}", "private.example:{port}", NO_RULE),
    // The first letter is Cyrillic.
    ("аllowed.example:{port}", "xn--llowed-2nf.example:{port}", NO_RULE),
    ("allowed.example.private.example:{port}", "allowed.example.private.example:{port}", NO_RULE),
    ("sub.allowed.example:{port}", "sub.allowed.example:{port}", NO_RULE),
    ("wild.example:{port}", "wild.example:{port}", NO_RULE),
    ("privatewild.example:{port}", "privatewild.example:{port}", NO_RULE),
    ("allowed.example:{other}", "allowed.example:{other}", NO_RULE),
    ("localhost:{port}", "localhost:{port}", NO_RULE),
    ("2130706435:{port}", "127.0.0.3:{port}", NO_RULE),
    ("0177.0.0.3:{port}", "127.0.0.3:{port}", NO_RULE),
    ("0x7f.3:{port}", "127.0.0.3:{port}", NO_RULE),
    ("0:{port}", "0.0.0.0:{port}", NO_RULE),
    ("[::ffff:127.0.0.1]:{port}", "[::ffff:127.0.0.1]:{port}", NO_RULE),
    (
        "a.wild.example:{port}",
        "a.wild.example:{port}",
        "the address is loopback, which only a rule with an exact name or a range reaches",
    ),
    (
        "lan.wild.example:{port}",
        "lan.wild.example:{port}",
        "the address is private, which only a rule with an exact name or a range reaches",
    ),
    (
        "metadata.wild.example:{port}",
        "metadata.wild.example:{port}",
        "the address is metadata of a cloud, which no function reaches",
    ),
    ("{bridge}:{api}", "{bridge}:{api}", NO_RULE),
];

const LOOPBACK: &str = "the address is loopback, and no range of EGRESS_PRIVATE holds the address";
const INEXACT: &str = "the address is loopback, which only a rule with an exact name or a range reaches";
const MAPPED: &str = "the address is IPv4 mapped to IPv6, and no range of EGRESS_PRIVATE holds the address";
const METADATA: &str = "the address is metadata of a cloud, which no function reaches";
const UNSPECIFIED: &str = "the address is unspecified, which no function reaches";
const SERVICE: &str = "this is the service itself, which no function reaches";
const DATABASE: &str = "this is the database of STORE_URL, which no function reaches";
const REGISTRY: &str = "this is the registry of DOCKER_IMAGE_PREFIX, which no function reaches";

/// Hosts that the wide function's rules allow, and that are not reached all the same.
const FORMS: [(&str, &str, &str); 47] = [
    ("127.0.0.3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("2130706435:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("0177.0.0.3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("0x7f000003:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("0X7F.0x3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("127.3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("127.0.0.3.:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("１２７.0.0.3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("127。0。0。3:{port}", "127.0.0.3:{port}", LOOPBACK),
    ("[::ffff:127.0.0.3]:{port}", "[::ffff:127.0.0.3]:{port}", LOOPBACK),
    ("[0:0:0:0:0:FFFF:7F00:0003]:{port}", "[::ffff:127.0.0.3]:{port}", LOOPBACK),
    ("[::ffff:127.0.0.1]:{port}", "[::ffff:127.0.0.1]:{port}", MAPPED),
    ("[::127.0.0.3]:{port}", "[::7f00:3]:{port}", LOOPBACK),
    ("[2002:7f00:3::]:{port}", "[2002:7f00:3::]:{port}", LOOPBACK),
    ("[64:ff9b::127.0.0.3]:{port}", "[64:ff9b::7f00:3]:{port}", LOOPBACK),
    ("[64:ff9b:1::7f00:3]:{port}", "[64:ff9b:1::7f00:3]:{port}", LOOPBACK),
    ("[2001:0:7f00:3::80ff:fffc]:{port}", "[2001:0:7f00:3::80ff:fffc]:{port}", LOOPBACK),
    ("[::1]:{port}", "[::1]:{port}", LOOPBACK),
    ("[::]:{port}", "[::]:{port}", UNSPECIFIED),
    ("0.0.0.0:{port}", "0.0.0.0:{port}", UNSPECIFIED),
    ("0:{port}", "0.0.0.0:{port}", UNSPECIFIED),
    ("169.254.169.254:{port}", "169.254.169.254:{port}", METADATA),
    ("2852039166:{port}", "169.254.169.254:{port}", METADATA),
    ("[::ffff:a9fe:a9fe]:{port}", "[::ffff:169.254.169.254]:{port}", METADATA),
    ("[64:ff9b::a9fe:a9fe]:{port}", "[64:ff9b::a9fe:a9fe]:{port}", METADATA),
    ("[fd00:ec2::254]:{port}", "[fd00:ec2::254]:{port}", METADATA),
    (
        "[fe80::1]:{port}",
        "[fe80::1]:{port}",
        "the address is link-local, and no range of EGRESS_PRIVATE holds the address",
    ),
    ("10.0.0.1:{port}", "10.0.0.1:{port}", "the address is private, and no range of EGRESS_PRIVATE holds the address"),
    ("224.0.0.1:{port}", "224.0.0.1:{port}", "the address is multicast, which no function reaches"),
    ("255.255.255.255:{port}", "255.255.255.255:{port}", "the address is for broadcasts, which no function reaches"),
    ("private.example:{port}", "private.example:{port}", LOOPBACK),
    ("metadata.example:{port}", "metadata.example:{port}", METADATA),
    ("six.example:{port}", "six.example:{port}", LOOPBACK),
    ("zero.example:{port}", "zero.example:{port}", UNSPECIFIED),
    ("mapped.example:{port}", "mapped.example:{port}", LOOPBACK),
    ("mixed.example:{port}", "mixed.example:{port}", LOOPBACK),
    // Here the rule is `*`, which reaches no loopback at all.
    ("localhost:{port}", "localhost:{port}", INEXACT),
    ("allowed.example:{port}", "allowed.example:{port}", INEXACT),
    ("127.0.0.1:{api}", "127.0.0.1:{api}", SERVICE),
    ("{bridge}:{api}", "{bridge}:{api}", SERVICE),
    ("service.example:{api}", "service.example:{api}", SERVICE),
    ("machine.example:{api}", "machine.example:{api}", SERVICE),
    ("127.0.0.78:5432", "127.0.0.78:5432", DATABASE),
    ("store.example:5432", "store.example:5432", DATABASE),
    ("2130706433:5432", "127.0.0.1:5432", DATABASE),
    ("127.0.0.1:{registry}", "127.0.0.1:{registry}", REGISTRY),
    ("{bridge}:{registry}", "{bridge}:{registry}", REGISTRY),
];

const USER: &str = "the target has a user's name or password";
const NO_HOST: &str = "the target's host is no host";
const NO_PORT: &str = "the target's port is no number from 1 to 65535";
const NO_TARGET: &str = "this is a proxy: the target is neither HOST:PORT with CONNECT nor an http:// URL";

/// The first lines of requests that name no destination, and the reasons.
const LINES: [(&str, &str); 24] = [
    ("CONNECT user@allowed.example:{port}", USER),
    ("CONNECT allowed.example:{port}@127.0.0.3:{port}", USER),
    ("GET http://allowed.example@127.0.0.3:{port}/", USER),
    ("GET http://allowed.example:80@127.0.0.3:{port}/", USER),
    ("GET http://127.0.0.3:{port}#@allowed.example:{port}/", USER),
    ("GET http://127.0.0.3\\.allowed.example:{port}/", NO_HOST),
    ("GET http://127.0.0.3%2f.allowed.example:{port}/", NO_HOST),
    ("CONNECT 127%2e0.0.3:{port}", NO_HOST),
    ("CONNECT [fe80::1%25lo]:{port}", NO_HOST),
    ("CONNECT http://127.0.0.3:{port}", NO_HOST),
    ("CONNECT allowed.example:{port}/../127.0.0.3", NO_HOST),
    ("CONNECT allowed.example", "the target is not HOST:PORT"),
    ("CONNECT allowed.example:", NO_PORT),
    ("CONNECT allowed.example:0", NO_PORT),
    ("CONNECT allowed.example:65536", NO_PORT),
    ("CONNECT allowed.example:0{port}", NO_PORT),
    ("CONNECT allowed.example:{port}:{other}", NO_PORT),
    ("CONNECT ::1:{port}", NO_PORT),
    ("connect allowed.example:{port}", NO_TARGET),
    ("GET /", NO_TARGET),
    ("GET //127.0.0.3:{port}/", NO_TARGET),
    ("GET ftp://127.0.0.3:{port}/", NO_TARGET),
    ("OPTIONS *", NO_TARGET),
    ("GET https://allowed.example:{port}/", "the proxy reaches https:// by CONNECT only"),
];

const NO_HTTP: &str = "the head is no HTTP";
const NUL: &str = "the head has a NUL";
const GET: &str = "GET http://allowed.example:{port}/ HTTP/1.1\r\n";

/// Whole requests to the allowed host that could be read in two ways, or that are none: the bytes behind the first line
/// of a GET, and the reason.
const FIELDS: [(&str, &str); 14] = [
    (
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "the head has both Content-Length and Transfer-Encoding",
    ),
    ("Content-Length: 4\r\nContent-Length: 5\r\n\r\n", "the head has two Content-Length fields"),
    ("Content-Length: +4\r\n\r\n", "the Content-Length is no number"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", "the head has two Transfer-Encoding fields"),
    ("Transfer-Encoding: xchunked\r\n\r\n", "the Transfer-Encoding is not `chunked`"),
    ("Transfer-Encoding: chunked, identity\r\n\r\n", "the Transfer-Encoding is not `chunked`"),
    ("Host: allowed.example\r\nHost: private.example\r\n\r\n", "the head has two Host fields"),
    ("Host: allowed.example\r\n private.example\r\n\r\n", NO_HTTP),
    ("Content-Length : 4\r\n\r\n", NO_HTTP),
    (
        "Host: allowed.example\n\nCONNECT private.example:{port} HTTP/1.1\r\n\r\n",
        "a line of the head ends with LF alone",
    ),
    ("X: a\rHost: private.example\r\n\r\n", "the head has a CR without an LF"),
    ("X: a\0\r\n\r\n", NUL),
    ("X: \x01\r\n\r\n", NO_HTTP),
    ("Host: allowed.example\r\n", "the head has no end"),
];

/// Other bytes, the status, and the reason.
const BYTES: [(&str, u16, &str); 9] = [
    ("CONNECT allowed.example:{port} HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", 400, "a CONNECT has no body"),
    (
        "CONNECT allowed.example:{port} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "a CONNECT has no body",
    ),
    (
        "GET http://allowed.example:{port}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "HTTP/1.0 has no Transfer-Encoding",
    ),
    ("TRACE http://allowed.example:{port}/ HTTP/1.1\r\n\r\n", 405, "the proxy forwards no TRACE"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "the proxy speaks HTTP/1.1 only"),
    ("GET http://allowed.example:{port}/ HTTP/1.1 HTTP/1.1\r\n\r\n", 400, NO_HTTP),
    ("\r\n\r\nCONNECT private.example:{port} HTTP/1.1\r\n\r\n", 400, "the head is no single request"),
    ("\u{5}\u{1}\0", 400, NUL),
    ("\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}\u{3}", 400, NUL),
];

const PLAIN: &str = "GET / HTTP/1.1\r\nHost: allowed.example:{port}\r\nConnection: close\r\n\r\n";
const SECOND: &str = "GET http://private.example:{port}/ HTTP/1.1\r\nHost: private.example\r\n\r\n";

/// Requests that lead elsewhere by something other than their target: the bytes, and what the allowed host gets.
fn astray() -> Vec<(&'static str, String, String)> {
    let get = |fields: &str| format!("{GET}{fields}\r\n");
    let post = "POST http://allowed.example:{port}/ HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    let posted = PLAIN.replace("GET", "POST").replace("close\r\n", "close\r\nContent-Length: 4\r\n") + "body";
    let connect = "CONNECT allowed.example:{port} HTTP/1.1\r\nHost: private.example:{port}\r\n\r\n";
    vec![
        ("a Host field beside the URL", get("Host: private.example:{port}\r\n"), PLAIN.to_owned()),
        ("a Host field named by Connection", get("Connection: host\r\nHost: private.example\r\n"), PLAIN.to_owned()),
        (
            "an upgrade",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
            PLAIN.to_owned(),
        ),
        ("a second request", get("") + SECOND, PLAIN.to_owned()),
        ("a second request behind a body", format!("{post}{SECOND}"), posted),
        (
            "a second head in a tunnel",
            format!("{connect}{}", SECOND.replace("GET", "CONNECT")),
            SECOND.replace("GET", "CONNECT"),
        ),
    ]
}

pub(super) fn ways(places: &Places) -> Vec<Way> {
    let way = |name: String, function, bytes: &str, end| {
        let act = Act::Ask(places.fill(bytes).into_bytes());
        Way { name: places.fill(&name), function, act, end }
    };
    let invalid = |bytes: String, status, reason: &str| {
        let end = End::Answered { status, to: None, reason: reason.to_owned() };
        way(bytes.escape_debug().to_string(), Function::Narrow, &bytes, end)
    };
    let hosts = OTHERS.iter().map(|row| (Function::Narrow, row)).chain(FORMS.iter().map(|row| (Function::Wide, row)));
    let mut ways = Vec::new();
    for (function, (host, to, reason)) in hosts {
        for line in [format!("CONNECT {host}"), format!("GET http://{host}/")] {
            let end = End::Answered { status: 403, to: Some(places.fill(to)), reason: (*reason).to_owned() };
            ways.push(way(line.clone(), function, &format!("{line} HTTP/1.1\r\nHost: allowed.example\r\n\r\n"), end));
        }
    }
    for (line, reason) in LINES {
        ways.push(invalid(format!("{line} HTTP/1.1\r\nHost: allowed.example\r\n\r\n"), 400, reason));
    }
    ways.extend(FIELDS.iter().map(|(fields, reason)| invalid(format!("{GET}{fields}"), 400, reason)));
    ways.extend(BYTES.iter().map(|(bytes, status, reason)| invalid((*bytes).to_owned(), *status, reason)));
    let long = format!("{GET}X: {}\r\n\r\n", "x".repeat(20 << 10));
    ways.push(invalid(long, 431, "the head is longer than 16 KiB"));
    ways.push(invalid(format!("{GET}{}\r\n", "X: x\r\n".repeat(101)), 431, "the head has more than 100 fields"));
    for (name, bytes, got) in astray() {
        ways.push(way(name.to_owned(), Function::Narrow, &bytes, End::Allowed(places.fill(&got))));
    }
    ways
}
