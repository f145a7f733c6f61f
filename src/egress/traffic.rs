//! What the connections of one invocation did, by destination.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::Destined;
use crate::telemetry::metrics;

/// The most destinations that have an entry. All others have one together.
const MAX_DESTINATIONS: usize = 32;
/// The name of the others' entry.
const OTHER: &str = "other";
/// The longest reason that is kept, in bytes.
const MAX_REASON: usize = 300;
/// The number of refusals of an invocation that stand in the log. The log is no function's to fill.
const MAX_LOGGED: u64 = 100;
/// The number of connections of an invocation that have a span.
const MAX_SPANS: u64 = 100;

/// What the connections of one invocation did. All clones are the same.
#[derive(Clone, Default)]
pub struct Traffic(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    /// No more than [`MAX_DESTINATIONS`].
    known: Vec<Entry>,
    other: Entry,
    refusals: u64,
    spans: u64,
}

#[derive(Default)]
struct Entry {
    to: String,
    connections: u64,
    bytes: Arc<Bytes>,
    refused: u64,
    reason: Option<String>,
}

/// The bytes of all connections with a destination.
#[derive(Default)]
struct Bytes {
    sent: AtomicU64,
    received: AtomicU64,
}

/// Counts the bytes of one connection as they are passed on.
pub(super) struct Meter {
    entry: Arc<Bytes>,
    own: Bytes,
}

/// A place in the log for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// The refusal has a line of its own.
    Each,
    /// The refusal is the last one that has a line.
    Last,
    /// There are too many.
    No,
}

impl Traffic {
    /// What was done, sorted by destination. Empty where there was nothing.
    pub fn report(&self) -> Vec<Destined> {
        let entries = self.0.lock();
        let mut report: Vec<Destined> = entries.known.iter().map(Entry::report).collect();
        report.sort_by(|one, next| one.to.cmp(&next.to));
        if entries.other.connections + entries.other.refused > 0 {
            report.push(Destined { to: OTHER.to_owned(), ..entries.other.report() });
        }
        report
    }

    /// Whether one more connection has a span. A collector is no function's to fill.
    pub(super) fn has_span(&self) -> bool {
        let mut entries = self.0.lock();
        entries.spans += 1;
        entries.spans <= MAX_SPANS
    }

    /// Notes a connection that has come about, whose bytes the meter counts.
    pub(super) fn connected(&self, to: &str) -> Meter {
        let mut entries = self.0.lock();
        let entry = entries.connected(to);
        entry.connections += 1;
        Meter { entry: Arc::clone(&entry.bytes), own: Bytes::default() }
    }

    /// Notes a connection that was refused or has failed, and says whether the log may tell.
    pub(super) fn refused(&self, to: &str, reason: &str) -> Logged {
        let mut entries = self.0.lock();
        let entry = entries.entry(to);
        entry.refused += 1;
        entry.reason = Some(reason[..reason.floor_char_boundary(MAX_REASON)].to_owned());
        entries.refusals += 1;
        match entries.refusals {
            MAX_LOGGED => Logged::Last,
            number if number < MAX_LOGGED => Logged::Each,
            _ => Logged::No,
        }
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traffic").field(&self.report()).finish()
    }
}

impl Entries {
    /// The entry of a destination with a connection. An entry of refusals alone makes room: what went out must not be
    /// hidden behind a list of what did not.
    fn connected(&mut self, to: &str) -> &mut Entry {
        let is_known = self.known.iter().any(|entry| entry.to == to);
        if !is_known && self.known.len() == MAX_DESTINATIONS {
            let Some(place) = self.known.iter().position(|entry| entry.connections == 0) else {
                return &mut self.other;
            };
            let gone = self.known.swap_remove(place);
            self.other.refused += gone.refused;
            self.other.reason = gone.reason;
        }
        self.entry(to)
    }

    fn entry(&mut self, to: &str) -> &mut Entry {
        match self.known.iter().position(|entry| entry.to == to) {
            Some(place) => &mut self.known[place],
            None if self.known.len() == MAX_DESTINATIONS => &mut self.other,
            None => {
                self.known.push(Entry { to: to.to_owned(), ..Entry::default() });
                self.known.last_mut().expect("the entry was pushed")
            }
        }
    }
}

impl Entry {
    fn report(&self) -> Destined {
        Destined {
            to: self.to.clone(),
            connections: self.connections,
            sent_bytes: self.bytes.sent.load(Ordering::Relaxed),
            received_bytes: self.bytes.received.load(Ordering::Relaxed),
            refused: self.refused,
            reason: self.reason.clone(),
        }
    }
}

impl Meter {
    /// Counts bytes that have gone to the destination.
    pub(super) fn sent(&self, bytes: usize) {
        self.entry.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.own.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes of the destination that the program has got.
    pub(super) fn received(&self, bytes: usize) {
        self.entry.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.own.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The bytes of this connection so far: sent, and received.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.own.sent.load(Ordering::Relaxed), self.own.received.load(Ordering::Relaxed))
    }
}

impl Drop for Meter {
    /// The metrics count a connection at its end, in whatever way the connection ends.
    fn drop(&mut self) {
        let (sent, received) = self.totals();
        metrics::egress_bytes(sent, received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_summed_by_destination() {
        let traffic = Traffic::default();
        assert_eq!(traffic.report(), []);
        let (first, second) = (traffic.connected("b:1"), traffic.clone().connected("b:1"));
        first.sent(3);
        second.sent(4);
        second.received(5);
        drop(first);
        traffic.refused("a:1", "no rule");
        traffic.refused("a:1", "no address");
        second.sent(1);
        let expected = [
            Destined { to: "a:1".into(), refused: 2, reason: Some("no address".into()), ..Destined::default() },
            Destined { to: "b:1".into(), connections: 2, sent_bytes: 8, received_bytes: 5, ..Destined::default() },
        ];
        assert_eq!(traffic.report(), expected);
        assert_eq!(second.totals(), (5, 5));
    }

    #[test]
    fn destinations_are_bounded_and_refusals_hide_no_connection() {
        let traffic = Traffic::default();
        for number in 0..100 {
            traffic.refused(&format!("refused-{number}:1"), &"é".repeat(1000));
        }
        let report = traffic.report();
        assert_eq!((report.len(), report[32].to.as_str(), report[32].refused), (33, "other", 68));
        assert_eq!(report[0].reason.as_deref(), Some(&*"é".repeat(150)));
        let meters: Vec<Meter> = (10..50).map(|number| traffic.connected(&format!("host-{number}:1"))).collect();
        for meter in &meters {
            meter.sent(1);
        }
        let report = traffic.report();
        assert_eq!(report.len(), 33);
        for (destined, number) in report.iter().zip(10..42) {
            assert_eq!((destined.to.as_str(), destined.connections), (format!("host-{number}:1").as_str(), 1));
        }
        let other = &report[32];
        assert_eq!((other.to.as_str(), other.connections, other.sent_bytes, other.refused), ("other", 8, 8, 100));
    }

    #[test]
    fn the_log_has_some_refusals_of_an_invocation() {
        let traffic = Traffic::default();
        let logged: Vec<Logged> = (0..150).map(|_| traffic.refused("a:1", "")).collect();
        assert!(logged[..99].iter().all(|logged| *logged == Logged::Each));
        assert_eq!(logged[99], Logged::Last);
        assert!(logged[100..].iter().all(|logged| *logged == Logged::No));
    }
}
