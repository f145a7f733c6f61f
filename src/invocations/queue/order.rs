//! The order of invocations in the background: functions take turns, and of each function the oldest comes first. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::Instant;

use crate::docker::retry;
use crate::domain::{FunctionId, InvocationId, Open};

/// An invocation that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: InvocationId,
    pub(super) function: FunctionId,
    /// The number of this node's claim on the invocation.
    pub(super) attempt: u32,
    /// The invocation's place among those of its function.
    pub(super) number: u64,
    /// How often the invocation could not begin for what may be its function's own fault.
    pub(super) tries: u32,
}

/// Invocations that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<FunctionId, Lane>,
    /// Functions with invocations that wait, the next function first.
    turns: VecDeque<FunctionId>,
    /// Invocations that wait until some time.
    later: BTreeMap<(Instant, u64), Entry>,
    /// Functions whose invocations can't begin for now, for a fault of the platform.
    held: HashMap<FunctionId, Hold>,
    ids: HashSet<InvocationId>,
    next_number: u64,
}

/// Invocations of one function, by their number.
type Lane = BTreeMap<u64, Entry>;

#[derive(Debug)]
struct Hold {
    until: Instant,
    pauses: ExponentialBackoff,
    /// The number of the invocation that is being tried; the others wait for the result.
    tried: Option<u64>,
}

impl Queue {
    /// Makes an entry behind all others of its function.
    pub(super) fn entry(&mut self, open: &Open) -> Entry {
        self.next_number += 1;
        let Open { id, attempt, function_id: function, tries, .. } = *open;
        Entry { id, function, attempt, number: self.next_number, tries }
    }

    /// How many invocations wait.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether an invocation waits.
    pub(super) fn contains(&self, id: InvocationId) -> bool {
        self.ids.contains(&id)
    }

    /// Queues an invocation at its place.
    pub(super) fn push(&mut self, entry: Entry) {
        self.ids.insert(entry.id);
        let lane = self.lanes.entry(entry.function).or_default();
        if lane.is_empty() {
            self.turns.push_back(entry.function);
        }
        lane.insert(entry.number, entry);
    }

    /// Queues an invocation from some time on.
    pub(super) fn push_later(&mut self, entry: Entry, due: Instant) {
        self.ids.insert(entry.id);
        self.later.insert((due, entry.number), entry);
    }

    /// Takes out the invocation whose turn has come. Functions that may not begin another invocation have no turn.
    pub(super) fn pop(&mut self, now: Instant, may_begin: impl Fn(FunctionId) -> bool) -> Option<Entry> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let entry = first.remove();
            self.push(entry);
        }
        for _ in 0..self.turns.len() {
            let function = self.turns.pop_front()?;
            let mut hold = self.held.get_mut(&function);
            let is_held = hold.as_ref().is_some_and(|hold| hold.tried.is_some() || now < hold.until);
            if is_held || !may_begin(function) {
                self.turns.push_back(function);
                continue;
            }
            let lane = self.lanes.get_mut(&function)?;
            let (number, entry) = lane.pop_first()?;
            if let Some(hold) = &mut hold {
                hold.tried = Some(number);
            }
            if lane.is_empty() {
                self.lanes.remove(&function);
            } else {
                self.turns.push_back(function);
            }
            self.ids.remove(&entry.id);
            return Some(entry);
        }
        None
    }

    /// When, without anything new, an invocation may have its turn. A function whose pause is over and that has no turn
    /// is at its own limit, so the end of an invocation comes first.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let held =
            self.held.iter().filter(|(function, hold)| hold.tried.is_none() && self.lanes.contains_key(function));
        let held = held.map(|(_, hold)| hold.until).filter(|&until| now < until);
        self.later.keys().map(|&(due, _)| due).next().into_iter().chain(held).min()
    }

    /// Takes an invocation out, wherever the invocation waits.
    pub(super) fn remove(&mut self, id: InvocationId) -> Option<Entry> {
        if !self.ids.remove(&id) {
            return None;
        }
        if let Some(key) = self.later.iter().find(|(_, entry)| entry.id == id).map(|(&key, _)| key) {
            return self.later.remove(&key);
        }
        let mut places = self.lanes.values().flat_map(BTreeMap::values);
        let entry = *places.find(|entry| entry.id == id)?;
        let lane = self.lanes.get_mut(&entry.function)?;
        lane.remove(&entry.number);
        if lane.is_empty() {
            self.lanes.remove(&entry.function);
            self.turns.retain(|&function| function != entry.function);
        }
        Some(entry)
    }

    /// Takes out all invocations of a function.
    pub(super) fn remove_all(&mut self, function: FunctionId) -> Vec<InvocationId> {
        let lane = self.lanes.remove(&function).unwrap_or_default();
        self.turns.retain(|&other| other != function);
        let mut removed: Vec<InvocationId> = lane.into_values().map(|entry| entry.id).collect();
        removed.extend(self.later.extract_if(.., |_, entry| entry.function == function).map(|(_, entry)| entry.id));
        for id in &removed {
            self.ids.remove(id);
        }
        removed
    }

    /// Has the invocations of an invocation's function wait, longer each time; then one of them is tried. True when
    /// they were not held.
    pub(super) fn hold(&mut self, entry: Entry, now: Instant) -> bool {
        let was_held = self.held.contains_key(&entry.function);
        let new = || Hold { until: now, pauses: retry::pauses(), tried: Some(entry.number) };
        let hold = self.held.entry(entry.function).or_insert_with(new);
        // A failure of an invocation that began before the hold tells nothing new.
        if hold.tried.take_if(|&mut tried| tried == entry.number).is_some() {
            hold.until = now + hold.pauses.next().unwrap_or(Duration::ZERO);
        }
        !was_held
    }

    /// Ends the try of an invocation, whatever the try came to, so that another invocation of the function may be
    /// tried. True when the function was held and none of its invocations is left, so that the function is held no
    /// more.
    pub(super) fn end_try(&mut self, entry: Entry) -> bool {
        let Some(hold) = self.held.get_mut(&entry.function) else { return false };
        hold.tried.take_if(|&mut tried| tried == entry.number);
        let is_left = hold.tried.is_some()
            || self.lanes.contains_key(&entry.function)
            || self.later.values().any(|later| later.function == entry.function);
        !is_left && self.free(entry.function)
    }

    /// Lets a function's invocations go on. True when they were held.
    pub(super) fn free(&mut self, function: FunctionId) -> bool {
        self.held.remove(&function).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(functions: &[FunctionId]) -> Queue {
        let mut queue = Queue::default();
        for &function in functions {
            let open = Open { id: InvocationId::random(), attempt: 1, function_id: function, tries: 0, retry_at: None };
            let entry = queue.entry(&open);
            queue.push(entry);
        }
        queue
    }

    fn pop(queue: &mut Queue, now: Instant) -> Option<Entry> {
        queue.pop(now, |_| true)
    }

    fn order(queue: &mut Queue, now: Instant) -> Vec<(FunctionId, u64)> {
        std::iter::from_fn(|| pop(queue, now)).map(|entry| (entry.function, entry.number)).collect()
    }

    #[test]
    fn functions_take_turns_and_the_oldest_is_first() {
        let (a, b, c) = (FunctionId::random(), FunctionId::random(), FunctionId::random());
        let mut queue = queue_of(&[a, a, a, b, b, c]);
        let now = Instant::now();
        assert_eq!(order(&mut queue, now), [(a, 1), (b, 4), (c, 6), (a, 2), (b, 5), (a, 3)]);
        assert_eq!((queue.len(), queue.next_due(now)), (0, None));
    }

    #[test]
    fn a_function_at_its_limit_has_no_turn_and_loses_no_place() {
        let (a, b) = (FunctionId::random(), FunctionId::random());
        let mut queue = queue_of(&[a, a, b]);
        let now = Instant::now();
        assert_eq!(queue.pop(now, |function| function != a).map(|entry| entry.number), Some(3));
        assert_eq!(queue.pop(now, |function| function != a), None);
        assert_eq!(order(&mut queue, now), [(a, 1), (a, 2)]);
    }

    #[test]
    fn one_that_comes_back_has_its_place() {
        let a = FunctionId::random();
        let mut queue = queue_of(&[a, a, a]);
        let now = Instant::now();
        let first = pop(&mut queue, now).unwrap();
        let second = pop(&mut queue, now).unwrap();
        queue.push_later(first, now + Duration::from_secs(5));
        queue.push(second);
        assert_eq!(queue.next_due(now), Some(now + Duration::from_secs(5)));
        assert_eq!(order(&mut queue, now), [(a, 2), (a, 3)]);
        assert_eq!((queue.len(), pop(&mut queue, now)), (1, None));
        assert_eq!(order(&mut queue, now + Duration::from_secs(5)), [(a, 1)]);
    }

    #[test]
    fn of_a_function_that_is_held_one_tries_and_others_go_on() {
        let (a, b) = (FunctionId::random(), FunctionId::random());
        let mut queue = queue_of(&[a, a, a, b]);
        let now = Instant::now();
        let (first, second) = (pop(&mut queue, now).unwrap(), pop(&mut queue, now).unwrap());
        assert_eq!((first.function, second.function), (a, b));
        queue.push(first);
        assert!(queue.hold(first, now));
        let due = queue.next_due(now).unwrap();
        assert!(!queue.hold(first, now));
        assert_eq!(queue.next_due(now), Some(due), "two that fail at one time are one failure");
        assert!(now < due && order(&mut queue, now).is_empty());
        assert_eq!(
            (queue.pop(due, |_| false), queue.next_due(due)),
            (None, None),
            "no look again at the function's limit"
        );
        assert_eq!(order(&mut queue, due), [(a, 1)], "one at a time");
        assert_eq!(queue.next_due(due), None);
        queue.hold(first, due);
        assert!(due + (due - now) / 2 < queue.next_due(due).unwrap(), "pauses grow");
        assert!(queue.free(a) && !queue.free(a));
        assert_eq!(order(&mut queue, due), [(a, 2), (a, 3)]);
    }

    #[test]
    fn a_try_that_ends_without_news_has_the_next_one_tried() {
        let a = FunctionId::random();
        let mut queue = queue_of(&[a, a, a]);
        let now = Instant::now();
        let (first, second) = (pop(&mut queue, now).unwrap(), pop(&mut queue, now).unwrap());
        queue.push(first);
        queue.hold(first, now);
        let due = queue.next_due(now).unwrap();
        assert_eq!(pop(&mut queue, due), Some(first));
        assert!(!queue.end_try(second), "the end of an invocation that is not the one that is tried");
        assert_eq!((pop(&mut queue, due), queue.next_due(due)), (None, None));
        // All containers are in use: the invocation waits again for a while.
        queue.push_later(first, due + Duration::from_secs(5));
        assert!(!queue.end_try(first));
        assert_eq!(queue.next_due(now), Some(due));
        let third = pop(&mut queue, due).unwrap();
        assert_eq!(third.number, 3);
        // A client takes the invocation back, or the service stops.
        assert!(!queue.end_try(third), "the first still waits");
        assert_eq!(pop(&mut queue, due + Duration::from_secs(5)), Some(first));
        assert!(queue.end_try(first), "nothing waits any more, so there is no trouble");
        assert!(!queue.end_try(first) && !queue.free(a));
    }

    #[test]
    fn one_is_taken_out_wherever_it_waits() {
        let (a, b) = (FunctionId::random(), FunctionId::random());
        let mut queue = queue_of(&[a, b, b]);
        let now = Instant::now();
        let first = pop(&mut queue, now).unwrap();
        queue.push_later(first, now);
        assert_eq!(queue.remove(first.id), Some(first));
        assert_eq!(queue.remove(first.id), None);
        let entry = pop(&mut queue, now).unwrap();
        queue.push(entry);
        assert_eq!(queue.remove(entry.id), Some(entry));
        assert_eq!(order(&mut queue, now), [(b, 3)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn all_of_a_function_are_taken_out() {
        let (a, b) = (FunctionId::random(), FunctionId::random());
        let mut queue = queue_of(&[a, b, a, b, a]);
        let now = Instant::now();
        let first = pop(&mut queue, now).unwrap();
        queue.push_later(first, now + Duration::from_secs(1));
        assert_eq!(queue.remove_all(a).len(), 3);
        assert_eq!(queue.len(), 2);
        assert!(!queue.contains(first.id));
        assert_eq!(order(&mut queue, now + Duration::from_secs(1)), [(b, 2), (b, 4)]);
        assert_eq!(queue.remove_all(a), []);
    }
}
