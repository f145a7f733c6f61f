//! The handler that streams an invocation's output as server-sent events.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream;
use tokio::time;

use super::invocations::{InvocationResponses, summary};
use crate::domain::{InvocationId, InvocationRecord, UnknownInvocation};
use crate::http::openapi::AnyRoute;
use crate::http::problem::Problem;
use crate::http::{State, sse};
use crate::sandbox::output::{OutputReader, Stream};

/// The pause between two looks whether an invocation of another node has ended.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(500);

/// Streams an invocation's output, and the invocation at its end. `onlooker` reads the output of a running invocation.
fn following(state: State, id: InvocationId, onlooker: Option<OutputReader>) -> Response {
    let following = Following {
        state,
        id,
        onlooker,
        texts: Default::default(),
        events: VecDeque::new(),
        has_told: false,
        is_over: false,
    };
    let events = stream::unfold(following, |mut following| async { Some((following.next().await?, following)) });
    sse::answer(events)
}

/// Follow an invocation
///
/// A stream of events: `stdout` and `stderr` have the output as JSON strings, from the beginning on and without delay;
/// in the end `ended` has the invocation, without its input and output. The stream waits for a queued invocation. For
/// an invocation that has ended, the stream shows the output in the history.
#[utoipa::path(get, path = "/api/invocations/{id}/events", tag = "invocations", operation_id = "followInvocation",
    params(("id" = Uuid, Path, description = "The invocation's id")),
    responses((status = 200, description = "The invocation's output", content((String = "text/event-stream"))),
        AnyRoute, InvocationResponses))]
pub(in crate::http) async fn events(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: InvocationId = id?.parse()?;
    // One that runs synchronously is not written down before it ends.
    let onlooker = state.live.subscribe(id);
    if onlooker.is_none() {
        state.history.get(id).await?.ok_or(UnknownInvocation(id))?;
    }
    Ok(following(state, id, onlooker))
}

struct Following {
    state: State,
    id: InvocationId,
    onlooker: Option<OutputReader>,
    /// The unfinished texts of stdout and stderr.
    texts: (Text, Text),
    /// The events that are not sent yet.
    events: VecDeque<Event>,
    /// Whether an event with output was sent.
    has_told: bool,
    is_over: bool,
}

impl Following {
    /// The next event. None at the end, or when the service stops before the beginning.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            match &mut self.onlooker {
                Some(onlooker) => match onlooker.next().await {
                    Some((stream, bytes)) => self.write(stream, &bytes),
                    // What it came to is known, unless it could not begin after all.
                    None => self.begin().await?,
                },
                None => self.begin().await?,
            }
        }
    }

    /// Waits until the invocation runs, and reads its output; or until the invocation has ended without a reader.
    async fn begin(&mut self) -> Option<()> {
        // Before it is looked: what happens in between is told.
        let mut waiting = self.state.live.wait_for(self.id);
        loop {
            self.onlooker = self.state.live.subscribe(self.id);
            if self.onlooker.is_some() {
                return Some(());
            }
            let record = self.record().await?;
            if !record.outcome.is_open() {
                // Else that was told as it was written.
                if !self.has_told {
                    self.write(Stream::Stdout, &record.stdout);
                    self.write(Stream::Stderr, &record.stderr);
                }
                self.end(&record);
                return Some(());
            }
            tokio::select! {
                () = waiting.changed() => {}
                // Nothing here tells of what happens on another node.
                () = time::sleep(LOOK_ELSEWHERE), if self.state.nodes.is_shared() => {}
                () = self.state.stop.cancelled() => return None,
            }
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let text = match stream {
            Stream::Stdout => self.texts.0.push(bytes),
            Stream::Stderr => self.texts.1.push(bytes),
        };
        self.tell(stream, &text);
    }

    fn tell(&mut self, stream: Stream, text: &str) {
        if !text.is_empty() {
            let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
            // As JSON, which has no line ends: those of server-sent events are not a function's.
            let text = serde_json::to_string(text).expect("a text can be written as JSON");
            self.events.push_back(Event::default().event(name).data(text));
            self.has_told = true;
        }
    }

    fn end(&mut self, record: &InvocationRecord) {
        let (stdout, stderr) = (self.texts.0.rest(), self.texts.1.rest());
        self.tell(Stream::Stdout, &stdout);
        self.tell(Stream::Stderr, &stderr);
        let ended = serde_json::to_string(&summary(record)).expect("texts and numbers can be written as JSON");
        self.events.push_back(Event::default().event("ended").data(ended));
        self.is_over = true;
    }

    async fn record(&self) -> Option<InvocationRecord> {
        match self.state.history.get(self.id).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "an invocation could not be followed to its end");
                None
            }
        }
    }
}

/// Bytes that become text piece by piece. An incomplete character waits for its rest.
#[derive(Debug, Default)]
struct Text {
    rest: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        // A last character that is only incomplete, and not wrong, may become right.
        let unfinished = self.rest.utf8_chunks().last().map_or(0, |last| match std::str::from_utf8(last.invalid()) {
            Err(error) if error.error_len().is_none() => last.invalid().len(),
            Ok(_) | Err(_) => 0,
        });
        let rest = self.rest.split_off(self.rest.len() - unfinished);
        String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)).into_owned()
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut text = Text::default();
        let mut found: Vec<String> = pieces.iter().map(|piece| text.push(piece)).collect();
        found.push(text.rest());
        assert_eq!(found, expected);
    }

    #[test]
    fn characters_are_told_whole() {
        check(&[b"a", "é".as_bytes()], &["a", "é", ""]);
        check(&[b"a\xc3", b"\xa9b"], &["a", "éb", ""]);
        check(&[b"\xf0\x9f", b"\x98", b"\x80"], &["", "", "😀", ""]);
        check(&[b"a\xffb"], &["a\u{fffd}b", ""]);
        check(&[b"a\xff\xc3", b"\xa9"], &["a\u{fffd}", "é", ""]);
        check(&[b"a\xc3"], &["a", "\u{fffd}"]);
    }
}
