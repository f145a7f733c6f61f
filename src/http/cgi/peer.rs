//! The client of a request, also behind a proxy of TRUSTED_PROXIES.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::config;
use crate::http::rate::Client;

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The client's address.
    pub(super) address: IpAddr,
    /// The client's port. None behind a proxy, which does not tell the port.
    pub(super) port: Option<u16>,
    /// Whether the client speaks TLS with the proxy.
    pub(super) is_tls: bool,
}

/// Finds the client of a request. All that follows knows this client only.
pub(super) async fn with_peer(
    Extract(config): Extract<Arc<config::HttpFunctions>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Client(connected) = *request.extensions().get().expect("each connection has its client");
    let peer = Peer::of(connected, request.headers(), &config.trusted_proxies);
    request.extensions_mut().insert(Client(SocketAddr::new(peer.address, peer.port.unwrap_or_default())));
    request.extensions_mut().insert(peer);
    next.run(request).await
}

impl Peer {
    /// The client of a connection. The word of a trusted proxy counts, and so does that proxy's word of the next.
    fn of(connected: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(&address));
        let (mut address, mut port) = (connected.ip().to_canonical(), Some(connected.port()));
        if !is_trusted(address) {
            return Self { address, port, is_tls: false };
        }
        let last = |name: &str| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).map(str::trim).collect::<Vec<_>>()
        };
        for forwarded in last("x-forwarded-for").into_iter().rev() {
            let Ok(before) = forwarded.trim_matches(['[', ']']).parse::<IpAddr>() else { break };
            (address, port) = (before.to_canonical(), None);
            if !is_trusted(address) {
                break;
            }
        }
        let is_tls = last("x-forwarded-proto").last().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        Self { address, port, is_tls }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[track_caller]
    fn check(connected: &str, fields: &[(&'static str, &'static str)], expected: (&str, Option<u16>, bool)) {
        let fields =
            fields.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let peer = Peer::of(connected.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!((peer.address.to_string().as_str(), peer.port, peer.is_tls), expected);
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let tls = ("x-forwarded-proto", "https");
        check("192.0.2.1:5", &[("x-forwarded-for", "198.51.100.1"), tls], ("192.0.2.1", Some(5), false));
        check("10.0.0.1:5", &[], ("10.0.0.1", Some(5), false));
        check("10.0.0.1:5", &[("x-forwarded-for", "198.51.100.1"), tls], ("198.51.100.1", None, true));
        let forged = ("x-forwarded-for", "203.0.113.9, 198.51.100.1");
        check("10.0.0.1:5", &[forged], ("198.51.100.1", None, false));
        let further = ("x-forwarded-for", "10.2.3.4");
        check("[::ffff:10.0.0.1]:5", &[forged, further], ("198.51.100.1", None, false));
        check("10.0.0.1:5", &[("x-forwarded-for", "unknown, 10.9.9.9")], ("10.9.9.9", None, false));
        check("10.0.0.1:5", &[("x-forwarded-for", "2001:db8::1")], ("2001:db8::1", None, false));
    }
}
