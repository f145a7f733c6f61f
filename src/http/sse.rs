//! Answers that come bit by bit, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::Event;
use futures_util::stream;
use tokio::time;

/// With nothing to say for as long, a comment is sent: proxies cut what is silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Whether a client asks for events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let kinds =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Breaks the silence between events.
pub(super) fn with_comments(
    events: impl stream::Stream<Item = Event> + Send + 'static,
) -> impl stream::Stream<Item = Result<Event, Infallible>> {
    use futures_util::StreamExt;
    stream::unfold(Box::pin(events), |mut events| async {
        let event = match time::timeout(SILENCE, events.next()).await {
            Ok(event) => event?,
            Err(_) => Event::default().comment("still at it"),
        };
        Some((Ok(event), events))
    })
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
