use super::*;

/// The request of a text, in which each `\n` stands for CR and LF.
fn request(text: &str) -> Result<Request, HeadError> {
    let head = format!("{text}\n\n").replace('\n', "\r\n");
    assert_eq!(end(head.as_bytes(), 0)?, Some(head.len()), "{text:?}");
    parse(head.as_bytes())
}

#[track_caller]
fn refuses(text: &str, status: u16) {
    assert_eq!(request(text).map_err(|error| error.status), Err(status), "{text:?}");
}

/// The target of a request, as text.
#[track_caller]
fn target(text: &str) -> String {
    let Request { host, port, .. } = request(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    format!("{host}:{port}")
}

/// The head that goes to the destination, with `\n` for CR and LF, and the body's framing.
#[track_caller]
fn forwarded(text: &str) -> (String, Framing) {
    match request(text) {
        Ok(Request { ask: Ask::Forward { head, body }, .. }) => {
            let head = String::from_utf8(head).unwrap();
            (head.strip_suffix("\r\n\r\n").unwrap().replace("\r\n", "\n"), body)
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn a_connect_names_a_host_and_a_port() {
    assert_eq!(target("CONNECT a.example:443 HTTP/1.1\nHost: other.example"), "a.example:443");
    assert_eq!(target("CONNECT A.Example.:443 HTTP/1.0"), "a.example:443");
    assert_eq!(target("CONNECT xn--bcher-kva.example:443 HTTP/1.1"), "xn--bcher-kva.example:443");
    assert_eq!(target("CONNECT bücher.example:443 HTTP/1.1"), "xn--bcher-kva.example:443");
    assert_eq!(target("CONNECT 2130706433:443 HTTP/1.1"), "127.0.0.1:443");
    assert_eq!(target("CONNECT 0177.0.0.1:443 HTTP/1.1"), "127.0.0.1:443");
    assert_eq!(target("CONNECT 0x7f.1:443 HTTP/1.1"), "127.0.0.1:443");
    assert_eq!(target("CONNECT 127.0.0.1.:443 HTTP/1.1"), "127.0.0.1:443");
    assert_eq!(target("CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1"), "[::ffff:127.0.0.1]:443");
    assert_eq!(target("CONNECT [::1]:65535 HTTP/1.1\nContent-Length: 0"), "[::1]:65535");
    for target in [
        "a.example",
        "a.example:",
        "a.example:0",
        "a.example:080",
        "a.example:+80",
        "a.example:65536",
        "a.example:443:443",
        ":443",
        "::1:443",
        "[::1]",
        "[::1]443",
        "[::1%25lo]:443",
        "[fe80::1%lo]:443",
        "fe80::1%lo:443",
        "a%2eexample:443",
        "user@a.example:443",
        "user:secret@a.example:443",
        "http://a.example:443",
        "http://a.example/",
        "a.example:443/path",
        "a.example/:443",
        "a\\b:443",
        "/",
        "*",
        "256.256.256.256:443",
        "1.2.3.4.5:443",
        "a..example:443",
    ] {
        refuses(&format!("CONNECT {target} HTTP/1.1"), 400);
    }
    refuses("CONNECT a.example:443 HTTP/1.1\nContent-Length: 5", 400);
    refuses("CONNECT a.example:443 HTTP/1.1\nTransfer-Encoding: chunked", 400);
    refuses("connect a.example:443 HTTP/1.1", 400);
}

#[test]
fn a_request_is_written_anew_for_the_host_of_its_url() {
    let (head, body) = forwarded(
        "GET http://A.Example:8080/p/../q?x=1&y HTTP/1.1\nHost: inner.example\nAccept: */*\nX-Name:  v  \n\
         Proxy-Authorization: Basic x\nProxy-Connection: keep-alive\nConnection: keep-alive, X-Hop , host\nX-Hop: 1\n\
         Keep-Alive: 5\nTE: trailers\nTrailer: X\nUpgrade: h2c\nHTTP2-Settings: x\nCookie: a",
    );
    assert_eq!(
        head,
        "GET /p/../q?x=1&y HTTP/1.1\nHost: a.example:8080\nConnection: close\nAccept: */*\nX-Name: v\nCookie: a"
    );
    assert_eq!(body, Framing::Length(0));
    assert_eq!(forwarded("GET HTTP://a.example HTTP/1.0").0, "GET / HTTP/1.0\nHost: a.example\nConnection: close");
    assert!(forwarded("GET http://a.example:80?x HTTP/1.1").0.starts_with("GET /?x HTTP/1.1\nHost: a.example\n"));
    assert!(forwarded("GET http://[::1]:81/ HTTP/1.1").0.contains("\nHost: [::1]:81\n"));
    assert_eq!(target("GET http://a.example/ HTTP/1.1\nHost: b.example:81"), "a.example:80");
    assert_eq!(target("GET http://a.example?@b.example/ HTTP/1.1"), "a.example:80");
}

#[test]
fn a_body_has_one_length() {
    let post = |fields: &str| format!("POST http://a.example/ HTTP/1.1{fields}");
    let (head, body) = forwarded(&post("\nContent-Length: 5\nConnection: content-length"));
    assert_eq!(head, "POST / HTTP/1.1\nHost: a.example\nConnection: close\nContent-Length: 5");
    assert_eq!(body, Framing::Length(5));
    let (head, body) = forwarded(&post("\ntransfer-encoding: Chunked"));
    assert_eq!(head, "POST / HTTP/1.1\nHost: a.example\nConnection: close\nTransfer-Encoding: chunked");
    assert_eq!(body, Framing::Chunked);
    assert!(forwarded(&post("\nContent-Length: 0")).0.ends_with("Content-Length: 0"));
    for fields in [
        "\nContent-Length: 5\nContent-Length: 6",
        "\nContent-Length: 5\ncontent-length: 5",
        "\nContent-Length: 5, 5",
        "\nContent-Length: +5",
        "\nContent-Length: -1",
        "\nContent-Length: 0x5",
        "\nContent-Length:",
        "\nContent-Length: 9999999999999999999",
        "\nContent-Length: 5\nTransfer-Encoding: chunked",
        "\nTransfer-Encoding: chunked\nContent-Length: 5",
        "\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
        "\nTransfer-Encoding: chunked\nTransfer-Encoding: identity",
        "\nTransfer-Encoding: gzip, chunked",
        "\nTransfer-Encoding: identity",
        "\nTransfer-Encoding: xchunked",
        "\nTransfer-Encoding: chunked;q=1",
        "\nTransfer-Encoding : chunked",
        "\nTransfer-Encoding\t: chunked",
        "\n Transfer-Encoding: chunked",
        "\nX: a\n Transfer-Encoding: chunked",
        "\nX: a\n\tb",
        "\nHost: a\nHost: a",
        "\nno field",
        "\n: x",
        "\nX\u{b}: x",
        "\nX: \u{b}",
    ] {
        refuses(&post(fields), 400);
    }
    refuses("POST http://a.example/ HTTP/1.0\nTransfer-Encoding: chunked", 400);
}

#[test]
fn what_is_no_request_to_a_proxy_is_refused() {
    for line in [
        "GET / HTTP/1.1\nHost: a.example",
        "GET //a.example/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET https://a.example/ HTTP/1.1",
        "GET HTTPS://a.example/ HTTP/1.1",
        "GET ftp://a.example/ HTTP/1.1",
        "GET http:/a.example/ HTTP/1.1",
        "GET http:a.example HTTP/1.1",
        "GET http:\\\\a.example/ HTTP/1.1",
        "GET http:///path HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://user@a.example/ HTTP/1.1",
        "GET http://user:secret@a.example/ HTTP/1.1",
        "GET http://b.example\\@a.example/ HTTP/1.1",
        "GET http://a.example#@b.example/ HTTP/1.1",
        "GET http://a.example/#x HTTP/1.1",
        "GET http://a.example:/ HTTP/1.1",
        "GET http://a.example:x/ HTTP/1.1",
        "GET http://a.example/é HTTP/1.1",
        "GET http://[fe80::1%25lo]/ HTTP/1.1",
        "GET http://a.example/ HTTP/2.0",
        "PRI * HTTP/2.0",
        "GET http://a.example/",
        "GET  http://a.example/ HTTP/1.1",
        "GET http://a.example/ b HTTP/1.1",
        "",
    ] {
        refuses(line, 400);
    }
    refuses("TRACE http://a.example/ HTTP/1.1", 405);
    refuses(&format!("GET http://a.example/ HTTP/1.1{}", "\nX: x".repeat(101)), 431);
}

#[test]
fn a_head_ends_with_an_empty_line_of_cr_and_lf() {
    let whole = b"GET / HTTP/1.1\r\nX: y\r\n\r\nrest";
    for length in 0..=whole.len() {
        let expected = (length >= 24).then_some(24);
        assert_eq!(end(&whole[..length], 0), Ok(expected), "{length}");
        assert_eq!(end(&whole[..length], length.min(23).saturating_sub(1)), Ok(expected), "{length}");
    }
    let bad: [&[u8]; 6] = [b"GET /\n", b"GET / HTTP/1.1\r\nX: y\n\n", b"\n", b"a\rb", b"a\0", b"a\r\r\n"];
    for bytes in bad {
        assert_eq!(end(bytes, 0).map_err(|error| error.status), Err(400), "{bytes:?}");
    }
    assert_eq!(end(&vec![b'a'; MAX_HEAD - 1], 0), Ok(None));
    assert_eq!(end(&vec![b'a'; MAX_HEAD], 0).map_err(|error| error.status), Err(431));
    let long = [vec![b'a'; MAX_HEAD], b"\r\n\r\n".to_vec()].concat();
    assert_eq!(end(&long, 0), Ok(Some(long.len())), "the reader never has more bytes than the longest head");
}
