//! The handler that streams an invocation's output as server-sent events.
//!
//! The output of an invocation that another node runs comes from that node. The end comes from the store, whichever
//! node runs the invocation, and whatever becomes of that node.

mod text;

use std::collections::VecDeque;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream;
use tokio::time::{self, Instant};

use super::invocations::{InvocationResponses, summary};
use crate::domain::{InvocationId, InvocationRecord, UnknownInvocation};
use crate::http::openapi::AnyRoute;
use crate::http::problem::Problem;
use crate::http::request::FromNode;
use crate::http::{State, sse};
use crate::nodes::{Events, Peer};
use crate::sandbox::output::{OutputReader, Stream};
use crate::store::StoreError;
use crate::tokens::Access;
use text::Text;

/// The pauses before another node is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

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
    Extension(access): Extension<Access>,
    from: Option<Extension<FromNode>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: InvocationId = id?.parse()?;
    state.check_invocation(&access, id).await?;
    // One that runs synchronously is not written down before it ends.
    let source = state.live.subscribe(id).map_or(Source::Unknown, Source::Here);
    if matches!(source, Source::Unknown) {
        state.history.get(id).await?.ok_or(UnknownInvocation(id))?;
    }
    let following = Following {
        state,
        id,
        is_for_node: from.is_some(),
        source,
        texts: Default::default(),
        told: [0; 2],
        events: VecDeque::new(),
        is_over: false,
        pause: FIRST_PAUSE,
        ask_at: Instant::now(),
    };
    let events = stream::unfold(following, |mut following| async { Some((following.next().await?, following)) });
    Ok(sse::answer(events))
}

/// Where the output comes from.
enum Source {
    /// The invocation does not run, or is not found yet.
    Unknown,
    /// The invocation runs on this node.
    Here(OutputReader),
    /// The invocation runs on another node, which sends the output from the beginning on.
    Elsewhere {
        peer: Peer,
        events: Box<Events>,
        /// How much of stdout and stderr came from this node, in bytes of text.
        came: [usize; 2],
    },
}

struct Following {
    state: State,
    id: InvocationId,
    /// Whether another node asks. Such a stream has the output of this node, and nothing more: no end.
    is_for_node: bool,
    source: Source,
    /// The unfinished texts of stdout and stderr.
    texts: [Text; 2],
    /// How much of stdout and stderr is told, in bytes of text.
    told: [usize; 2],
    /// The events that are not sent yet.
    events: VecDeque<Event>,
    is_over: bool,
    /// The pause after the next fault of another node.
    pause: Duration,
    /// When another node may be asked.
    ask_at: Instant,
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
            match &mut self.source {
                Source::Here(onlooker) => match onlooker.next().await {
                    Some((stream, bytes)) => self.write(stream, &bytes),
                    // What it came to is known, unless it could not begin after all.
                    None => self.begin().await?,
                },
                Source::Elsewhere { .. } => self.read_elsewhere().await?,
                Source::Unknown => self.begin().await?,
            }
        }
    }

    /// Waits until the invocation runs, and finds its output; or until the invocation has ended without a reader.
    async fn begin(&mut self) -> Option<()> {
        // Before it is looked: what happens in between is told.
        let mut waiting = self.state.live.wait_for(self.id);
        loop {
            if let Some(onlooker) = self.state.live.subscribe(self.id) {
                self.source = Source::Here(onlooker);
                return Some(());
            }
            if self.is_for_node {
                self.tell_rests();
                self.is_over = true;
                return Some(());
            }
            let found = self.state.peers.find(self.id).await.map_err(|error| self.failed(&error)).ok()?;
            let may_ask = match found.filter(|found| found.outcome.is_open()) {
                Some(found) => match found.peer {
                    Some(peer) if self.ask_at <= Instant::now() => {
                        if self.ask(peer).await {
                            return Some(());
                        }
                        true
                    }
                    peer => peer.is_some(),
                },
                // The invocation has ended; or its row is the business of this node alone.
                None => {
                    let record = self.record().await?;
                    if !record.outcome.is_open() {
                        self.end(&record);
                        return Some(());
                    }
                    false
                }
            };
            tokio::select! {
                // The lookout tells of what happens on another node.
                () = waiting.changed() => {}
                () = time::sleep_until(self.ask_at), if may_ask => {}
                () = self.state.stop.cancelled() => return None,
            }
        }
    }

    /// Asks the node that runs the invocation. False when that node gives no output now.
    async fn ask(&mut self, peer: Peer) -> bool {
        let path = format!("/api/invocations/{}/events", self.id);
        match self.state.peers.events(&peer, &path).await {
            Ok(events) => {
                self.source = Source::Elsewhere { peer, events: Box::new(events), came: [0; 2] };
                true
            }
            Err(_) => {
                self.put_off();
                false
            }
        }
    }

    /// Reads an event of the node that runs the invocation. None when the service stops.
    async fn read_elsewhere(&mut self) -> Option<()> {
        let Source::Elsewhere { peer, events, came } = &mut self.source else { return Some(()) };
        let event = tokio::select! {
            event = events.next() => event,
            () = self.state.stop.cancelled() => return None,
        };
        let (name, data) = match event {
            Ok(Some(event)) => event,
            // The store knows whether that is the end.
            broken => {
                if let Err(error) = broken {
                    self.state.peers.failed(peer, &error);
                }
                self.source = Source::Unknown;
                self.put_off();
                return Some(());
            }
        };
        let stream = match name.as_str() {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return Some(()),
        };
        if let Ok(text) = serde_json::from_str::<String>(&data) {
            let at = came[stream as usize];
            came[stream as usize] += text.len();
            self.pause = FIRST_PAUSE;
            self.tell(stream, at, &text);
        }
        Some(())
    }

    /// Leaves other nodes alone for a while.
    fn put_off(&mut self) {
        self.ask_at = Instant::now() + self.pause;
        self.pause = LONGEST_PAUSE.min(2 * self.pause);
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let text = self.texts[stream as usize].push(bytes);
        self.tell(stream, self.told[stream as usize], &text);
    }

    /// Tells the part of a text that is not told yet. The text begins at the byte `at` of all that the stream has.
    fn tell(&mut self, stream: Stream, at: usize, text: &str) {
        let told = &mut self.told[stream as usize];
        // A text that was cut within a character has no such part, and is shorter than what is told.
        let Some(new) = text.get(told.saturating_sub(at)..).filter(|new| !new.is_empty()) else { return };
        *told = at + text.len();
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        // As JSON, which has no line ends: those of server-sent events are not a function's.
        let new = serde_json::to_string(new).expect("a text can be written as JSON");
        self.events.push_back(Event::default().event(name).data(new));
    }

    fn tell_rests(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.texts[stream as usize].rest();
            self.tell(stream, self.told[stream as usize], &rest);
        }
    }

    fn end(&mut self, record: &InvocationRecord) {
        self.tell_rests();
        for (stream, bytes) in [(Stream::Stdout, &record.stdout), (Stream::Stderr, &record.stderr)] {
            self.tell(stream, 0, &String::from_utf8_lossy(bytes));
        }
        let ended = serde_json::to_string(&summary(record)).expect("texts and numbers can be written as JSON");
        self.events.push_back(Event::default().event("ended").data(ended));
        self.is_over = true;
    }

    async fn record(&self) -> Option<InvocationRecord> {
        self.state.history.get(self.id).await.unwrap_or_else(|error| {
            self.failed(&error);
            None
        })
    }

    fn failed(&self, error: &StoreError) {
        tracing::error!(%error, "an invocation could not be followed to its end");
    }
}
