//! Which notifications may be tried at one time. Pure.
//!
//! A receiver has few tries at a time, and a receiver that fails has one. Receivers that fail have at most half of all
//! places together, so that no number of dead receivers holds up a receiver that answers.

use std::collections::HashMap;

use url::Url;

use crate::domain::Due;

/// The tries at one time of this process.
const MAX_TRIES: usize = 32;
/// The tries at one time with receivers whose last try has failed.
const MAX_FAILING: usize = MAX_TRIES / 2;
/// The tries at one time with one receiver.
const MAX_OF_RECEIVER: usize = 4;
/// The number of receivers that are remembered as failing.
const MAX_REMEMBERED: usize = 1000;

/// The place of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The host and port of the receiver.
    receiver: String,
    /// Whether the receiver failed before.
    is_of_failing: bool,
}

/// The tries under way.
#[derive(Debug, Default)]
pub(super) struct Turns {
    receivers: HashMap<String, Receiver>,
    under_way: usize,
    /// How many of the tries under way began with a receiver that fails.
    of_failing: usize,
}

#[derive(Debug, Default)]
struct Receiver {
    under_way: usize,
    is_failing: bool,
}

impl Turns {
    /// The notifications that may be tried now, each with its place. Of receivers that answer come first, then those
    /// with fewer tries under way, then those that are due for longer.
    pub(super) fn choose(&mut self, due: Vec<Due>) -> Vec<(Due, Turn)> {
        let mut due: Vec<Due> = due.into_iter().filter(|due| due.wait.is_zero()).collect();
        due.sort_by_cached_key(|due| match self.receivers.get(&receiver(due)) {
            Some(known) => (known.is_failing, known.under_way),
            None => (false, 0),
        });
        due.into_iter().filter_map(|due| self.begin(receiver(&due)).map(|turn| (due, turn))).collect()
    }

    fn begin(&mut self, receiver: String) -> Option<Turn> {
        let known = self.receivers.get(&receiver);
        let (under_way, is_of_failing) = known.map_or((0, false), |known| (known.under_way, known.is_failing));
        let most = if is_of_failing { 1 } else { MAX_OF_RECEIVER };
        let is_full = self.under_way >= MAX_TRIES || (is_of_failing && self.of_failing >= MAX_FAILING);
        if is_full || under_way >= most {
            return None;
        }
        self.under_way += 1;
        self.of_failing += usize::from(is_of_failing);
        self.receivers.entry(receiver.clone()).or_default().under_way += 1;
        Some(Turn { receiver, is_of_failing })
    }

    /// Ends a try, and remembers whether the receiver answers.
    pub(super) fn end(&mut self, turn: &Turn, is_taken: bool) {
        let remembered = self.receivers.values().filter(|receiver| receiver.is_failing).count();
        if let Some(receiver) = self.receivers.get_mut(&turn.receiver) {
            receiver.is_failing = !is_taken && (receiver.is_failing || remembered < MAX_REMEMBERED);
        }
        self.give_back(turn);
    }

    /// Gives back the place of a try that did not begin.
    pub(super) fn give_back(&mut self, turn: &Turn) {
        self.under_way -= 1;
        self.of_failing -= usize::from(turn.is_of_failing);
        if let Some(receiver) = self.receivers.get_mut(&turn.receiver) {
            receiver.under_way -= 1;
            if receiver.under_way == 0 && !receiver.is_failing {
                self.receivers.remove(&turn.receiver);
            }
        }
    }
}

/// The host and port of the receiver; empty where there is no receiver any more.
fn receiver(due: &Due) -> String {
    let url = due.url.as_deref().and_then(|url| Url::parse(url).ok());
    let place = url.and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
    place.map_or_else(String::new, |(host, port)| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::InvocationId;

    fn due(receivers: &[&str]) -> Vec<Due> {
        let due = |receiver: &&str| Due {
            invocation_id: InvocationId::random(),
            tries: 0,
            wait: Duration::ZERO,
            url: Some(format!("https://{receiver}/path")),
        };
        receivers.iter().map(due).collect()
    }

    fn names(count: usize, kind: &str) -> Vec<String> {
        (0..count).map(|n| format!("{kind}{n}.example")).collect()
    }

    fn begin(turns: &mut Turns, receivers: &[String]) -> Vec<Turn> {
        let receivers: Vec<&str> = receivers.iter().map(String::as_str).collect();
        turns.choose(due(&receivers)).into_iter().map(|(_, turn)| turn).collect()
    }

    #[test]
    fn a_receiver_has_few_tries_at_a_time_and_one_that_fails_has_one() {
        let mut turns = Turns::default();
        let many = vec!["a.example".to_owned(); 6];
        let begun = begin(&mut turns, &many);
        assert_eq!(begun.len(), MAX_OF_RECEIVER);
        assert_eq!(begin(&mut turns, &names(1, "b")).len(), 1, "another receiver has places of its own");
        begun.iter().for_each(|turn| turns.end(turn, false));
        let begun = begin(&mut turns, &many);
        assert_eq!(begun.len(), 1);
        turns.end(&begun[0], true);
        assert_eq!(begin(&mut turns, &many).len(), MAX_OF_RECEIVER, "the receiver answers again");
    }

    #[test]
    fn any_number_of_dead_receivers_leaves_places_for_others() {
        let mut turns = Turns::default();
        let dead = names(100, "dead");
        let begun = begin(&mut turns, &dead);
        assert_eq!(begun.len(), MAX_TRIES);
        assert_eq!(begin(&mut turns, &names(1, "a")).len(), 0);
        begun.iter().for_each(|turn| turns.end(turn, false));
        for _ in 0..10 {
            // Those that are not known as dead yet have their first try.
            let begun = begin(&mut turns, &dead);
            begun.iter().for_each(|turn| turns.end(turn, false));
        }
        let begun = begin(&mut turns, &dead);
        assert_eq!(begun.len(), MAX_FAILING);
        assert_eq!(begin(&mut turns, &names(20, "a")).len(), MAX_TRIES - MAX_FAILING);
        begun.iter().for_each(|turn| turns.give_back(turn));
        assert_eq!(turns.of_failing, 0);
    }

    #[test]
    fn receivers_that_answer_come_first_and_what_waits_comes_later() {
        let mut turns = Turns::default();
        let failed = begin(&mut turns, &names(1, "dead"));
        turns.end(&failed[0], false);
        let busy = begin(&mut turns, &names(1, "busy"));
        let mut all = due(&["dead0.example", "busy0.example", "free0.example", "later.example"]);
        all[3].wait = Duration::from_secs(1);
        let order: Vec<String> = turns.choose(all).into_iter().map(|(_, turn)| turn.receiver).collect();
        assert_eq!(order, ["free0.example:443", "busy0.example:443", "dead0.example:443"]);
        assert_eq!(turns.under_way, 3 + busy.len());
    }

    #[test]
    fn nothing_is_remembered_of_receivers_that_answer() {
        let mut turns = Turns::default();
        for turn in begin(&mut turns, &names(20, "a")) {
            turns.end(&turn, true);
        }
        assert!(turns.receivers.is_empty() && turns.under_way == 0);
        for n in 0..2 * MAX_REMEMBERED {
            for turn in begin(&mut turns, &[format!("d{n}.example")]) {
                turns.end(&turn, false);
            }
        }
        assert_eq!(turns.receivers.len(), MAX_REMEMBERED);
    }
}
