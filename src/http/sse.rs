//! Answers that are streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::{Stream, StreamExt};

/// After a silence this long the answer has a comment, as proxies cut silent connections.
const SILENCE: Duration = Duration::from_secs(10);

/// Whether a client asks for events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let kinds =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// An answer that streams events, with a comment in each long silence.
pub(super) fn answer(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(SILENCE).text("still at it");
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_for_who_asks() {
        let wanted = |accept: &str| are_wanted(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        assert!(wanted("text/event-stream") && wanted("application/json;q=0.5, Text/Event-Stream;q=1"));
        assert!(!wanted("*/*") && !wanted("application/json") && !are_wanted(&HeaderMap::new()));
    }
}
