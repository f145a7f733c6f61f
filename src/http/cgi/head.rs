//! The beginning of a function's stdout: the header of a CGI response (RFC 3875, section 6), or no header. Pure.

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The largest header, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// The fields by which a program shows that its output has a header.
const CGI: [&str; 3] = ["content-type", "location", "status"];
/// What a function may not say: fields of the connection, and fields that would bind a browser for all functions of
/// the host.
const DROPPED: [&str; 13] = [
    "alt-svc",
    "clear-site-data",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "service-worker-allowed",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-invocation-id",
];

/// What the bytes so far are.
#[derive(Debug, PartialEq)]
pub(super) enum Begun {
    /// The beginning of a header, perhaps.
    Maybe,
    /// A header of this size in bytes, with the empty line.
    Head(Head, usize),
    /// No header: all bytes are the body.
    Text,
    /// A header that is not valid, for this reason.
    Invalid(&'static str),
}

/// The header of a response.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
}

impl Head {
    /// The header of an output that has none. A browser must not take the text for a page.
    pub(super) fn text() -> Self {
        let fields = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ]);
        Self { status: StatusCode::OK, fields }
    }
}

/// Looks at the beginning of a function's output. `is_whole` when no more output comes.
pub(super) fn begun(output: &[u8], is_whole: bool) -> Begun {
    let mut lines = Vec::new();
    let mut rest = output;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            let size = output.len() - rest.len();
            return if size > MAX_HEAD { Begun::Text } else { head(&lines, size) };
        }
        lines.push(line);
        if name(lines[0]).is_none() {
            return Begun::Text;
        }
    }
    let may_be_field = lines.is_empty() && rest.len() < MAX_HEAD && rest.iter().all(|&byte| is_of_line(byte));
    let may_be_head = !lines.is_empty() && output.len() < MAX_HEAD;
    if !is_whole && (may_be_field || may_be_head) { Begun::Maybe } else { Begun::Text }
}

/// Whether a byte can stand in the first line of a header. Output of another kind need not wait for its first line.
fn is_of_line(byte: u8) -> bool {
    byte >= b' ' || matches!(byte, b'\t' | b'\r')
}

fn name(line: &[u8]) -> Option<(HeaderName, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, line[colon + 1..].trim_ascii()))
}

fn head(lines: &[&[u8]], size: usize) -> Begun {
    let fields: Vec<_> = lines.iter().map(|line| name(line)).collect();
    let is_cgi = fields.iter().flatten().any(|(name, _)| CGI.contains(&name.as_str()));
    if !is_cgi {
        return Begun::Text;
    }
    let Some(fields): Option<Vec<_>> = fields.into_iter().collect() else {
        return Begun::Invalid("a line of the header is not a name, a colon and a value");
    };
    let (mut status, mut map) = (None, HeaderMap::new());
    for (name, value) in fields {
        if name == "status" {
            match (status, parse_status(value)) {
                (None, Some(code)) => status = Some(code),
                (None, None) => return Begun::Invalid("`Status` does not begin with a status from 200 to 599"),
                (Some(_), _) => return Begun::Invalid("`Status` stands twice"),
            }
            continue;
        }
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return Begun::Invalid("a value of the header has a control character");
        };
        if !DROPPED.contains(&name.as_str()) {
            map.append(name, value);
        }
    }
    if map.get_all(CONTENT_TYPE).iter().count() > 1 || map.get_all(LOCATION).iter().count() > 1 {
        return Begun::Invalid("`Content-Type` or `Location` stands twice");
    }
    let lengths: Vec<_> = map.get_all(CONTENT_LENGTH).iter().collect();
    let is_length = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
    if lengths.len() > 1 || lengths.iter().any(|value| !is_length(value)) {
        return Begun::Invalid("`Content-Length` stands twice, or is no number");
    }
    let redirect = map.contains_key(LOCATION).then_some(StatusCode::FOUND);
    Begun::Head(Head { status: status.or(redirect).unwrap_or(StatusCode::OK), fields: map }, size)
}

/// The status in front of a reason.
fn parse_status(value: &[u8]) -> Option<StatusCode> {
    let digits = value.get(..3).filter(|_| value.get(3).is_none_or(|&byte| byte == b' '))?;
    StatusCode::from_bytes(digits).ok().filter(|status| (200..600).contains(&status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, status: u16, fields: &[(&str, &str)], body: &str) {
        for end in ["\n", "\r\n"] {
            let (head, body) = (output.replace('\n', end), body.to_owned());
            let Begun::Head(found, size) = begun((head.clone() + &body).as_bytes(), false) else {
                panic!("{output:?} has a header");
            };
            assert_eq!((found.status.as_u16(), size), (status, head.len()), "{output:?}");
            let found: Vec<_> =
                found.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(found, fields, "{output:?}");
        }
    }

    #[test]
    fn a_header_says_status_and_fields() {
        check("Content-Type: text/html\n\n", 200, &[("content-type", "text/html")], "<p>\n\n");
        check("Status: 404 Not Found\nContent-Type:text/plain \n\n", 404, &[("content-type", "text/plain")], "");
        check("Location: /login\n\n", 302, &[("location", "/login")], "");
        check("Status: 301\nLocation: https://example.com/\n\n", 301, &[("location", "https://example.com/")], "x");
        let cookies = [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-type", "a/b")];
        check("Set-Cookie: a=1\nContent-Type: a/b\nSet-Cookie: b=2\n\n", 200, &cookies, "");
    }

    #[test]
    fn what_would_bind_a_browser_or_the_connection_is_dropped() {
        let dropped: String = DROPPED.iter().map(|name| format!("{name}: x\n")).collect();
        check(&format!("{dropped}Content-Type: a/b\n\n"), 200, &[("content-type", "a/b")], "");
    }

    #[test]
    fn output_without_a_header_is_text() {
        for output in ["hello\n", "hello", "", "{\"a\": 1}\n\n", "\n\nbody", "Name: Jo\nAge: 7\n\nrest", "a b: c\n\nx"]
        {
            assert_eq!(begun(output.as_bytes(), true), Begun::Text, "{output:?}");
        }
        assert_eq!(begun(b"hello\n", false), Begun::Text, "a first line decides at once");
        assert_eq!(begun(b"\x7fELF\0\0", false), Begun::Text, "and so do bytes of no line");
        let long = format!("Content-Type: a/b\nX: {}\n\n", "x".repeat(MAX_HEAD));
        assert_eq!(begun(long.as_bytes(), false), Begun::Text);
    }

    #[test]
    fn a_header_that_is_not_whole_is_waited_for() {
        for output in ["", "Content-Ty", "Content-Type: text/html", "Content-Type: text/html\r\n", "X: y\nContent"] {
            assert_eq!(begun(output.as_bytes(), false), Begun::Maybe, "{output:?}");
        }
        assert_eq!(begun(b"Error: no such file\n", true), Begun::Text);
    }

    #[test]
    fn a_header_that_is_not_valid_is_refused() {
        for output in [
            "Content-Type: a/b\nno field\n\n",
            "Content-Type: a/b\n folded: x\n\n",
            "Content-Type: a/b\nX: a\rSet-Cookie: evil=1\n\n",
            "Content-Type: a/b\nX: a\0b\n\n",
            "Content-Type: a/b\nBad Name: x\n\n",
            "Status: 99\n\n",
            "Status: 101 Switching Protocols\n\n",
            "Status: 2000\n\n",
            "Status: 200\nStatus: 404\n\n",
            "Content-Type: a/b\nContent-Type: c/d\n\n",
            "Content-Type: a/b\nContent-Length: 5\nContent-Length: 6\n\n",
            "Content-Type: a/b\nContent-Length: 5, 5\n\n",
        ] {
            assert!(matches!(begun(output.as_bytes(), false), Begun::Invalid(_)), "{output:?}");
        }
    }
}
