//! The head of a request to the proxy. Pure.
//!
//! What goes to the destination is written anew from what was understood, so the destination can't understand another
//! request than the one that was checked.

use httparse::{EMPTY_HEADER, Header, Status};

use crate::config::Destination;

/// The longest head, in bytes.
pub(super) const MAX_HEAD: usize = 16 << 10;
/// The most fields of a head.
const MAX_FIELDS: usize = 100;
const HTTP_PORT: u16 = 80;

/// A request to the proxy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The host of the request's target.
    pub(super) host: Destination,
    /// The port of the request's target.
    pub(super) port: u16,
    /// What the client asks for.
    pub(super) ask: Ask,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// CONNECT: the bytes after the head go both ways.
    Tunnel,
    /// One request of plain HTTP.
    Forward {
        /// The head for the destination.
        head: Vec<u8>,
        /// How long the request's body is.
        body: Framing,
    },
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes. A request without a body has none.
    Length(u64),
    /// Chunks that tell their lengths.
    Chunked,
}

/// The reason to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadError {
    /// The status of the answer.
    pub(super) status: u16,
    /// The reason, for people.
    pub(super) reason: &'static str,
}

const fn bad(reason: &'static str) -> HeadError {
    HeadError { status: 400, reason }
}

/// The length of the head with which the bytes begin. None while the end is not there. `known` is the number of bytes
/// of the last call with the same bytes.
pub(super) fn end(bytes: &[u8], known: usize) -> Result<Option<usize>, HeadError> {
    for place in known.saturating_sub(1)..bytes.len() {
        let before = place.checked_sub(1).map(|before| bytes[before]);
        match bytes[place] {
            0 => return Err(bad("the head has a NUL")),
            b'\n' if before != Some(b'\r') => return Err(bad("a line of the head ends with LF alone")),
            b'\n' if bytes[..=place].ends_with(b"\r\n\r\n") => return Ok(Some(place + 1)),
            other if before == Some(b'\r') && other != b'\n' => return Err(bad("the head has a CR without an LF")),
            _ => {}
        }
    }
    if bytes.len() >= MAX_HEAD {
        return Err(HeadError { status: 431, reason: "the head is longer than 16 KiB" });
    }
    Ok(None)
}

/// Reads a whole head.
pub(super) fn parse(head: &[u8]) -> Result<Request, HeadError> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(bad("the head is no single request")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError { status: 431, reason: "the head has more than 100 fields" });
        }
        Err(httparse::Error::Version) => return Err(bad("the proxy speaks HTTP/1.1 only")),
        Err(_) => return Err(bad("the head is no HTTP")),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(bad("the head is no HTTP"));
    };
    let fields = Fields::read(request.headers, minor)?;
    if method == "CONNECT" {
        if fields.framing != Framing::Length(0) {
            return Err(bad("a CONNECT has no body"));
        }
        let (host, port) = authority(target, None)?;
        return Ok(Request { host, port, ask: Ask::Tunnel });
    }
    if method == "TRACE" {
        return Err(HeadError { status: 405, reason: "the proxy forwards no TRACE" });
    }
    let rest = match target.split_at_checked("http://".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
        _ if target.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) => {
            return Err(bad("the proxy reaches https:// by CONNECT only"));
        }
        _ => return Err(bad("this is a proxy: the target is neither HOST:PORT with CONNECT nor an http:// URL")),
    };
    let (place, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = authority(place, Some(HTTP_PORT))?;
    if path.contains('#') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("the URL's path has characters that no URL has"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let port_of_host = if port == HTTP_PORT { String::new() } else { format!(":{port}") };
    let mut head =
        format!("{method} {slash}{path} HTTP/1.{minor}\r\nHost: {host}{port_of_host}\r\nConnection: close\r\n")
            .into_bytes();
    fields.write(&mut head);
    Ok(Request { host, port, ask: Ask::Forward { head, body: fields.framing } })
}

/// The host and port of `HOST:PORT`. Without a `default` the port must be there.
fn authority(text: &str, default: Option<u16>) -> Result<(Destination, u16), HeadError> {
    if text.contains('@') {
        return Err(bad("the target has a user's name or password"));
    }
    if text.contains(['%', '\\', '#', '?', '/']) {
        return Err(bad("the target's host is no host"));
    }
    let end = if text.starts_with('[') { text.find(']').map(|end| end + 1) } else { text.find(':') };
    let (host, port) = text.split_at(end.unwrap_or(text.len()));
    let port = match (port.strip_prefix(':'), default) {
        (Some(port), _) => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
            port.parse().ok().filter(|_| is_number).ok_or(bad("the target's port is no number from 1 to 65535"))?
        }
        (None, Some(default)) if port.is_empty() => default,
        (None, _) => return Err(bad("the target is not HOST:PORT")),
    };
    Ok((host.parse().map_err(bad)?, port))
}

/// The fields of a head that go to the destination, and what they say of the body.
struct Fields<'a> {
    kept: Vec<Header<'a>>,
    framing: Framing,
    /// Whether the head has a length: a length of zero may be asked for.
    has_length: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[Header<'a>], minor: u8) -> Result<Self, HeadError> {
        let all = |name: &'static str| {
            headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
        };
        let only = |name, reason| match (all(name).next(), all(name).nth(1)) {
            (_, Some(_)) => Err(bad(reason)),
            (value, None) => Ok(value),
        };
        only("host", "the head has two Host fields")?;
        let length = only("content-length", "the head has two Content-Length fields")?;
        let coding = only("transfer-encoding", "the head has two Transfer-Encoding fields")?;
        let framing = match (length, coding) {
            (None, None) => Framing::Length(0),
            (Some(length), None) => Framing::Length(number(length).ok_or(bad("the Content-Length is no number"))?),
            (None, Some(_)) if minor == 0 => return Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (None, Some(_)) => return Err(bad("the Transfer-Encoding is not `chunked`")),
            (Some(_), Some(_)) => return Err(bad("the head has both Content-Length and Transfer-Encoding")),
        };
        let named: Vec<&[u8]> = all("connection").flat_map(|value| value.split(|byte| *byte == b',')).collect();
        let is_for_proxy = |name: &str| {
            let name = name.to_ascii_lowercase();
            let is_hop = matches!(
                name.as_str(),
                "host"
                    | "content-length"
                    | "transfer-encoding"
                    | "connection"
                    | "keep-alive"
                    | "te"
                    | "trailer"
                    | "upgrade"
                    | "http2-settings"
            );
            is_hop
                || name.starts_with("proxy-")
                || named.iter().any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        };
        let kept = headers.iter().filter(|field| !is_for_proxy(field.name)).copied().collect();
        Ok(Self { kept, framing, has_length: length.is_some() })
    }

    fn write(&self, head: &mut Vec<u8>) {
        match self.framing {
            Framing::Length(length) if self.has_length => {
                head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            Framing::Length(_) => {}
            Framing::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        for field in &self.kept {
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests;
