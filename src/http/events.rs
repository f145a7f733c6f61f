//! Answers that come bit by bit, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use tokio::time;

use super::State;
use super::functions::submitted;
use super::problem::Problem;
use super::request::RequestId;
use super::versions::updated;
use crate::deployments::Upload;
use crate::docker::LiveLog;
use crate::domain::FunctionId;

/// With nothing to say for as long, a comment is sent: proxies cut what is silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Whether a client asks for events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let kinds =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Deploys a new function, or updates that of the id, and tells of the build as it goes. When the client leaves, a deployment
/// without a key ends.
pub(super) fn of_deployment(state: &State, id: Option<FunctionId>, upload: Upload, request_id: RequestId) -> Response {
    let (live, mut lines) = LiveLog::channel();
    let deployer = std::sync::Arc::clone(&state.deployer);
    let mut deployment = Box::pin(async move {
        let upload = Upload { live: Some(live), ..upload };
        match id {
            Some(id) => deployer.update(id, upload).await,
            None => deployer.deploy(upload).await,
        }
    });
    let mut ended = None;
    let events = stream::poll_fn(move |cx| {
        use std::task::Poll;
        if ended.is_none()
            && let Poll::Ready(done) = deployment.as_mut().poll(cx)
        {
            ended = Some(Some(done));
        }
        match lines.poll_recv(cx) {
            Poll::Ready(Some(line)) => return Poll::Ready(Some(Event::default().event("log").data(line))),
            // All that the build has printed comes before its end, which drops the sender.
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {}
        }
        match ended.as_mut() {
            None => Poll::Pending,
            Some(done) => Poll::Ready(done.take().map(|done| match done {
                Ok(deployed) => {
                    let body = match id {
                        Some(_) => serde_json::to_string(&updated(deployed)),
                        None => serde_json::to_string(&submitted(deployed)),
                    };
                    let body = body.expect("texts and numbers can be written as JSON");
                    Event::default().event("deployed").data(body)
                }
                Err(error) => Event::default().event("problem").data(Problem::from(error).to_json(&request_id.0)),
            })),
        }
    });
    Sse::new(with_comments(events)).into_response()
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
