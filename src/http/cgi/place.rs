//! Which function a URL means, and which path the function sees. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::http::problem::Problem;

/// The part of a URL's path before a function's name.
const PREFIX: &str = "/f/";

/// A function's place in a URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The function's name or id.
    pub(super) name: String,
    /// Whether the name stood in the host, where the case of letters does not matter.
    pub(super) is_host: bool,
    /// The path of the function itself: SCRIPT_NAME.
    pub(super) script: String,
    /// The path behind that: PATH_INFO.
    pub(super) path: Vec<u8>,
}

impl Place {
    /// The place that `path` means, on the host that the client asks for.
    pub(super) fn of(path: &str, host: Option<&str>, domain: Option<&str>) -> Result<Self, Problem> {
        if let Some(name) = host.zip(domain).and_then(|(host, domain)| below(host, domain)) {
            return Ok(Self { name, is_host: true, script: String::new(), path: decoded(path)? });
        }
        let unknown = || Problem::unknown_path(path);
        let rest = path.strip_prefix(PREFIX).ok_or_else(unknown)?;
        let (segment, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let name = String::from_utf8(decoded(segment)?).ok().filter(|name| !name.is_empty()).ok_or_else(unknown)?;
        Ok(Self { script: format!("{PREFIX}{name}"), name, is_host: false, path: decoded(path)? })
    }
}

/// The name before the domain, in a host with or without a port.
fn below(host: &str, domain: &str) -> Option<String> {
    let host = host.rsplit_once(':').map_or(host, |(name, port)| if is_port(port) { name } else { host });
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let name = host.strip_suffix(domain)?.strip_suffix('.')?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A path as bytes. A NUL can't stand in an environment.
fn decoded(path: &str) -> Result<Vec<u8>, Problem> {
    let bytes = Cow::from(percent_decode_str(path)).into_owned();
    if bytes.contains(&0) {
        return Err(Problem::invalid_request("the path has a NUL character (%00), which no function can be given"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, host: Option<&str>, expected: Option<(&str, &str, &[u8])>) {
        let found = Place::of(path, host, Some("fn.example.com")).ok();
        let found = found.as_ref().map(|place| (place.name.as_str(), place.script.as_str(), place.path.as_slice()));
        assert_eq!(found, expected, "{path} on {host:?}");
    }

    #[test]
    fn a_path_or_a_host_names_a_function() {
        check("/f/hello", None, Some(("hello", "/f/hello", b"")));
        check("/f/hello/", None, Some(("hello", "/f/hello", b"/")));
        check("/f/my%20site/a%2Fb/%E9//c", Some("x"), Some(("my site", "/f/my site", b"/a/b/\xe9//c")));
        check("/f/a%2Fb/c", None, Some(("a/b", "/f/a/b", b"/c")));
        for path in ["/", "/f", "/f/", "/f//a", "/g/hello", "/F/hello", "/f/%ff", "/f/hello/%00"] {
            check(path, Some("127.0.0.1:8081"), None);
        }
        let site = Some(("hello", "", &b"/f/other"[..]));
        for host in ["hello.fn.example.com", "HELLO.fn.example.com:8081", "hello.FN.example.com."] {
            check("/f/other", Some(host), site);
        }
        check("/", Some("a.b.fn.example.com"), Some(("a.b", "", b"/")));
        for host in ["fn.example.com", ".fn.example.com", "hellofn.example.com", "hello.fn.example.com.evil.org"] {
            check("/", Some(host), None);
        }
    }
}
