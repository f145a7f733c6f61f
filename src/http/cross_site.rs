//! Keeps web pages of other sites from reaching the service through a visitor's browser.
//!
//! A browser says where a request comes from (`Sec-Fetch-Site`, `Origin`). Other clients say nothing, and their
//! requests pass. A page can also have its own name resolve to this machine; then `Host` has a name that is not in
//! ALLOWED_HOSTS. A page knows no token, so with API_TOKEN set the name does not matter, nor for another node.

use std::net::IpAddr;

use axum::extract::{Request, State as Extract};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::State;
use super::problem::Problem;
use super::request::{is_of_node, is_probe};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests of other sites' pages.
pub(super) async fn with_own_site(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let is_open = state.config.api_token.is_none() && !is_of_node(&request);
    let names = is_open.then_some(state.config.allowed_hosts.as_slice());
    match foreign(request.headers(), names) {
        // A link on another site may lead to the console.
        Some(detail) if !is_probe(&request) && !is_link(&request) => Problem::cross_site(detail).into_response(),
        Some(_) | None => next.run(request).await,
    }
}

/// Whether the request follows a link to the console.
fn is_link(request: &Request) -> bool {
    let mode = request.headers().get("sec-fetch-mode");
    request.uri().path() == "/" && request.method() == Method::GET && mode.is_some_and(|mode| mode == "navigate")
}

/// The reason why a request is another site's. `names` are the service's own; None where names don't matter.
fn foreign(headers: &HeaderMap, names: Option<&[String]>) -> Option<String> {
    let text =
        |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(&HOST);
    if let Some(site) = text(&SEC_FETCH_SITE).filter(|site| site != "same-origin" && site != "none") {
        return Some(format!("a browser sent this for a page of another site (Sec-Fetch-Site: {site})"));
    }
    if let Some(origin) = text(&ORIGIN) {
        let from = origin.split_once("://").map_or("", |(_, authority)| authority);
        if host.as_deref().is_none_or(|host| !from.eq_ignore_ascii_case(host)) {
            return Some(format!("a browser sent this for a page of another site (Origin: {origin})"));
        }
    }
    let (names, host) = (names?, host?);
    let is_ours = host.parse::<Authority>().is_ok_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let is_local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
        is_local || names.iter().any(|own| own.eq_ignore_ascii_case(name))
    });
    (!is_ours)
        .then(|| format!("{host:?} is not a name of this service; set ALLOWED_HOSTS to its names, or an API_TOKEN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[(&'static str, &'static str)], names: Option<&[String]>, is_let_in: bool) {
        let headers = sent.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let why = foreign(&HeaderMap::from_iter(headers), names);
        assert_eq!(why.is_none(), is_let_in, "{sent:?}: {why:?}");
    }

    #[test]
    fn pages_of_others_are_turned_away() {
        let names = Some(&[][..]);
        check(&[("host", "127.0.0.1:8080")], names, true);
        check(&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "none")], names, true);
        check(&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], names, true);
        check(&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-site")], names, false);
        check(&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")], names, false);
        check(&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], names, true);
        check(&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:3000")], names, false);
        check(&[("host", "127.0.0.1:8080"), ("origin", "null")], names, false);
        check(&[("origin", "http://evil.example")], names, false);
        check(&[("host", "evil.example"), ("origin", "http://evil.example")], None, true);
    }

    #[test]
    fn names_that_are_not_ours_are_turned_away_where_there_is_no_token() {
        let names = ["functions.example.org".to_owned()];
        for host in ["localhost", "LOCALHOST:8080", "[::1]:8080", "192.168.1.7", "functions.example.org:80"] {
            check(&[("host", host)], Some(&names), true);
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "", "a b"] {
            check(&[("host", host)], Some(&names), false);
        }
        check(&[("host", "evil.example")], None, true);
        check(&[], Some(&names), true);
    }
}
