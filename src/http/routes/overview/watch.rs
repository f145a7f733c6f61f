//! The changes of the overview and of the functions, as events.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::time::{self, Instant};

use super::{Now, Rest, now, rest_of};
use crate::domain::FunctionId;
use crate::http::State;
use crate::http::routes::functions::{FunctionBody, shown};
use crate::tokens::Access;

/// The pause between two looks at what is in memory.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between two looks at the store and the disks.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// The time limit for a look at the store and the disks. The events of other changes wait meanwhile.
const LONG_LIMIT: Duration = Duration::from_secs(2);

/// What a client was told, and how to tell what has changed since.
pub(super) struct Watch {
    state: State,
    access: Access,
    /// The last overview.
    overview: String,
    has_told_functions: bool,
    /// The functions as they were last told.
    functions: HashMap<FunctionId, String>,
    /// What the last look at the store and the disks has found; None while the store does not answer.
    rest: Option<Rest>,
    next_long_look: Instant,
    events: VecDeque<Event>,
    next_look: Instant,
}

/// An overview in an event.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    now: Now,
    #[serde(flatten)]
    rest: Option<Rest>,
}

/// A function in an event.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    function: FunctionBody,
    /// The number of the function's instances on this node.
    warm: usize,
}

impl Watch {
    pub(super) fn new(state: State, access: Access) -> Self {
        Self {
            state,
            access,
            overview: String::new(),
            has_told_functions: false,
            functions: HashMap::new(),
            rest: None,
            next_long_look: Instant::now(),
            events: VecDeque::new(),
            next_look: Instant::now(),
        }
    }

    /// The events, until the service stops. The first two have all that is known.
    pub(super) fn events(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(self, |mut watch| async { Some((watch.next().await?, watch)) })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            tokio::select! {
                () = time::sleep_until(self.next_look) => {}
                () = self.state.stop.cancelled() => return None,
            }
            // A stream without an end must not outlive the client's token.
            if !self.state.tokens.knows(&self.access) {
                return None;
            }
            self.next_look = Instant::now() + PAUSE;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        // A node whose lease has run out does not know which functions there are.
        if self.state.nodes.check().is_ok() {
            self.look_at_functions();
        }
        if self.access.is_limited() {
            return;
        }
        if self.next_long_look <= Instant::now() {
            // The overview says how the service is while the store does not answer.
            let found = time::timeout(LONG_LIMIT, rest_of(&self.state)).await;
            self.rest = found.ok().and_then(Result::ok);
            self.next_long_look = Instant::now() + LONG_PAUSE;
        }
        let mut shown = Told { now: now(&self.state), rest: self.rest.clone() };
        let text = |shown: &Told| serde_json::to_string(shown).expect("texts and numbers can be written as JSON");
        // The time alone is no change.
        let time = std::mem::take(&mut shown.now.health.time);
        let without_time = text(&shown);
        if without_time != self.overview {
            shown.now.health.time = time;
            self.events.push_back(Event::default().event("overview").data(text(&shown)));
            self.overview = without_time;
        }
    }

    fn look_at_functions(&mut self) {
        let usage = self.state.pool.usage();
        let warm: HashMap<FunctionId, usize> =
            usage.iter().map(|usage| (usage.function, usage.counts.iter().sum())).collect();
        let is_first = !std::mem::replace(&mut self.has_told_functions, true);
        let mut told = std::mem::take(&mut self.functions);
        let mut changed = Vec::new();
        for function in self.state.registry.list().iter().filter(|function| self.access.sees(function.id)) {
            let row = Row { function: shown(function), warm: warm.get(&function.id).copied().unwrap_or_default() };
            let text = serde_json::to_string(&row).expect("texts and numbers can be written as JSON");
            if told.remove(&function.id).as_ref() != Some(&text) {
                changed.push(text.clone());
            }
            self.functions.insert(function.id, text);
        }
        if is_first || !changed.is_empty() || !told.is_empty() {
            let gone: Vec<String> = told.keys().map(|id| format!("\"{id}\"")).collect();
            let text = format!("{{\"functions\":[{}],\"gone\":[{}]}}", changed.join(","), gone.join(","));
            self.events.push_back(Event::default().event("functions").data(text));
        }
    }
}
