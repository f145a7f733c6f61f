//! The invocations of a function that begin, as events.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{self, Instant};

use crate::domain::{FunctionId, InvocationId, Page};
use crate::http::State;
use crate::tokens::Access;

/// The pause between two looks at the history, for what this node does not run, or has not heard of in time.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest number of invocations in a look, and in a look after this node's beginnings came too fast.
const LOOK: u32 = 50;
const LONG_LOOK: u32 = 500;
/// The number of invocations of which this stream knows that the client was told.
const MAX_TOLD: usize = 4 * LONG_LOOK as usize;

/// The beginnings of a function's invocations.
pub(super) struct Begins {
    state: State,
    access: Access,
    function: FunctionId,
    beginnings: Receiver<(FunctionId, InvocationId)>,
    told: HashSet<InvocationId>,
    /// The same, the oldest first.
    order: VecDeque<InvocationId>,
    events: VecDeque<Event>,
    next_look: Instant,
    is_first: bool,
    is_behind: bool,
}

impl Begins {
    /// From now on, and what runs or waits now.
    pub(super) fn new(state: State, access: Access, function: FunctionId) -> Self {
        Self {
            // Before the first look: what begins in between is told.
            beginnings: state.live.beginnings(),
            state,
            access,
            function,
            told: HashSet::new(),
            order: VecDeque::new(),
            events: VecDeque::from([Event::default().event("listening").data("{}")]),
            next_look: Instant::now(),
            is_first: true,
            is_behind: false,
        }
    }

    /// The events, until the service stops, or the function or the client's token is gone.
    pub(super) fn events(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(self, |mut begins| async { Some((begins.next().await?, begins)) })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return None,
                begun = self.beginnings.recv() => match begun {
                    Ok((function, id)) if function == self.function => self.tell(id),
                    // The next look finds what was missed.
                    Err(RecvError::Lagged(_)) => self.is_behind = true,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = time::sleep_until(self.next_look) => {
                    self.state.registry.get(self.function)?;
                    // A stream without an end must not outlive the client's token.
                    if !self.state.tokens.knows(&self.access) {
                        return None;
                    }
                    self.look().await;
                    self.next_look = Instant::now() + PAUSE;
                }
            }
        }
    }

    async fn look(&mut self) {
        let most = if std::mem::take(&mut self.is_behind) { LONG_LOOK } else { LOOK };
        let found = self.state.history.list(&Page::of(self.function, most)).await;
        // What has begun and ended before the first look is told, too.
        loop {
            match self.beginnings.try_recv() {
                Ok((function, id)) if function == self.function => self.tell(id),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => self.is_behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let found = match found {
            Ok(found) => found,
            // The next look comes soon.
            Err(error) => return tracing::debug!(%error, "the history can't be followed now"),
        };
        for (_, record) in found.into_iter().rev() {
            if self.is_first && !record.outcome.is_open() {
                self.remember(record.id);
            } else {
                self.tell(record.id);
            }
        }
        self.is_first = false;
    }

    fn tell(&mut self, id: InvocationId) {
        if self.remember(id) {
            self.events
                .push_back(Event::default().event("began").data(json!({ "invocationId": id.to_string() }).to_string()));
        }
    }

    /// False for an invocation that the client was told of.
    fn remember(&mut self, id: InvocationId) -> bool {
        if !self.told.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        true
    }
}
