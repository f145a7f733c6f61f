//! The environment of a function that answers a request: the meta-variables of RFC 3875, section 4.1. Pure.

use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderName, Version};

use super::peer::Peer;
use super::place::Place;

/// Fields of one connection (RFC 9110, 7.6.1), and `Proxy`, which programs would take for their proxy.
const LEFT_OUT: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The variables of a request with a body of this size, in bytes.
pub(super) fn of(
    request: &Parts,
    peer: &Peer,
    place: &Place,
    size: usize,
    sees_authorization: bool,
) -> Vec<(String, Vec<u8>)> {
    let host = request.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let (server, port) = server(host.as_deref().unwrap_or_default(), peer.is_tls);
    let protocol = if request.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut variables: Vec<(String, Vec<u8>)> = [
        ("GATEWAY_INTERFACE", "CGI/1.1".to_owned()),
        ("REQUEST_METHOD", request.method.to_string()),
        ("SCRIPT_NAME", place.script.clone()),
        ("QUERY_STRING", request.uri.query().unwrap_or_default().to_owned()),
        ("CONTENT_LENGTH", size.to_string()),
        ("REMOTE_ADDR", peer.address.to_string()),
        ("SERVER_NAME", server),
        ("SERVER_PORT", port),
        ("SERVER_PROTOCOL", protocol.to_owned()),
        ("SERVER_SOFTWARE", concat!("youtube-serverless/", env!("CARGO_PKG_VERSION")).to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
    .into();
    variables.push(("PATH_INFO".to_owned(), place.path.clone()));
    let content_type = request.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
    variables.push(("CONTENT_TYPE".to_owned(), content_type.unwrap_or_default()));
    variables.extend(peer.port.map(|port| ("REMOTE_PORT".to_owned(), port.to_string().into_bytes())));
    variables.extend(peer.is_tls.then(|| ("HTTPS".to_owned(), b"on".to_vec())));
    for name in request.headers.keys().filter(|name| is_passed(name, sees_authorization)) {
        let values: Vec<&[u8]> = request.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        // Cookies are the one field whose values are not joined by commas (RFC 6265, 5.4).
        let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
        variables.push((variable(name), values.join(separator)));
    }
    variables
}

/// The name and port by which the client has reached this service.
fn server(host: &str, is_tls: bool) -> (String, String) {
    let default = || if is_tls { "443" } else { "80" }.to_owned();
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name.to_owned(), port.to_owned())
        }
        Some(_) | None => (host.trim_end_matches(':').to_owned(), default()),
    }
}

/// Whether a field becomes a variable. Fields with an underscore could pass for others.
fn is_passed(name: &HeaderName, sees_authorization: bool) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    name.as_str().bytes().all(is_plain)
        && !LEFT_OUT.contains(&name.as_str())
        && ![CONTENT_TYPE, CONTENT_LENGTH].contains(name)
        && (name != AUTHORIZATION || sees_authorization)
}

fn variable(name: &HeaderName) -> String {
    format!("HTTP_{}", name.as_str().replace('-', "_").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::http::Request;

    use super::*;

    fn variables(fields: &[(&str, &[u8])], sees_authorization: bool) -> HashMap<String, String> {
        let mut request = Request::builder().method("PATCH").uri("/f/site/a%20b?x=1&y=%20");
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let peer = Peer { address: "192.0.2.7".parse().unwrap(), port: Some(4000), is_tls: false };
        let place = Place::of(parts.uri.path(), None, None).unwrap();
        let all = of(&parts, &peer, &place, 5, sees_authorization);
        let count = all.len();
        let all: HashMap<_, _> =
            all.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
        assert_eq!(all.len(), count, "a variable stands twice");
        all
    }

    #[test]
    fn a_request_has_the_variables_of_the_standard() {
        let all =
            variables(&[("host", b"example.com:8081"), ("content-type", b"text/x"), ("content-length", b"9")], false);
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "PATCH"),
            ("SCRIPT_NAME", "/f/site"),
            ("PATH_INFO", "/a b"),
            ("QUERY_STRING", "x=1&y=%20"),
            ("CONTENT_TYPE", "text/x"),
            ("CONTENT_LENGTH", "5"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "4000"),
            ("SERVER_NAME", "example.com"),
            ("SERVER_PORT", "8081"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("HTTP_HOST", "example.com:8081"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!all.contains_key("HTTP_CONTENT_TYPE") && !all.contains_key("HTTP_CONTENT_LENGTH"));
        assert!(!all.contains_key("HTTPS"));
    }

    #[test]
    fn fields_become_variables_but_for_those_that_could_mislead() {
        let fields: [(&str, &[u8]); 9] = [
            ("x-hub-signature-256", b"sha256=abc"),
            ("accept", b"a"),
            ("accept", b"b"),
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
            ("proxy", b"http://evil"),
            ("te", b"trailers"),
            ("x_user", b"root"),
            ("authorization", b"Basic eA=="),
        ];
        let all = variables(&fields, false);
        assert_eq!(all["HTTP_X_HUB_SIGNATURE_256"], "sha256=abc");
        assert_eq!((all["HTTP_ACCEPT"].as_str(), all["HTTP_COOKIE"].as_str()), ("a, b", "a=1; b=2"));
        for name in ["HTTP_PROXY", "HTTP_TE", "HTTP_X_USER", "HTTP_AUTHORIZATION"] {
            assert!(!all.contains_key(name), "{name}");
        }
        assert_eq!(variables(&fields, true)["HTTP_AUTHORIZATION"], "Basic eA==");
    }

    #[test]
    fn a_host_has_a_name_and_a_port() {
        for (host, is_tls, expected) in [
            ("example.com", false, ("example.com", "80")),
            ("example.com", true, ("example.com", "443")),
            ("[::1]:8081", false, ("[::1]", "8081")),
            ("[::1]", false, ("[::1]", "80")),
            ("", false, ("", "80")),
        ] {
            let (name, port) = server(host, is_tls);
            assert_eq!((name.as_str(), port.as_str()), expected);
        }
    }
}
