//! Functions that are called in turn, on the pool's books and decisions with a clock that the test moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, State};
use crate::config;
use crate::domain::Language;
use crate::functions::{Function, Revision, example};
use crate::sandbox::pool::evictions::Evictions;
use crate::sandbox::pool::policy::{IN_USE, PATIENCE, Step};
use crate::sandbox::pool::refill::Refill;
use crate::sandbox::pool::slots::{SlotImage, Slots};
use crate::sandbox::pool::upkeep::REFILL_LOOK;
use crate::sandbox::pool::{Key, Start, Wait};

const LIMIT: usize = 10;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Event {
    /// An instance is ready.
    Ready(Revision, Start),
    SlotReady,
    Removed,
}

fn waiting_since(since: Instant) -> Wait {
    Wait { since, is_admitted: false, patience: None, is_background: false, is_warm_up: false }
}

/// A pool whose containers are only keys. Each function takes slots.
struct Pool {
    state: State<Key, Key, ()>,
    image: SlotImage,
    events: BTreeMap<(Instant, Key), Event>,
    last_start: Option<Start>,
    /// How all instances have started.
    starts: Vec<Start>,
    /// A start takes longer while other containers start, as on two processors.
    is_small: bool,
}

impl Pool {
    fn new() -> Self {
        let image = SlotImage { name: "slot".to_owned(), runtime: "runtime".to_owned() };
        let mut state =
            State::new(LIMIT, 70_000..=70_100, Slots::new(config::Slots { python: 2, go: 2 }), Evictions::new(SECOND));
        Language::ALL.into_iter().for_each(|language| drop(state.slots.set_image(language, image.clone())));
        Self { state, image, events: BTreeMap::new(), last_start: None, starts: Vec::new(), is_small: false }
    }

    fn after(&mut self, duration: Duration, key: Key, event: Event) {
        self.events.insert((self.state.now() + duration, key), event);
    }

    fn start_time(&self) -> Duration {
        let [(_, starting), ..] = self.state.phases();
        // For 1 to 4 containers that start at one time; a fifth longer than measured.
        let times = [420, 500, 640, 830];
        if self.is_small { MS * times[starting.clamp(1, times.len()) - 1] } else { 300 * MS }
    }

    fn remove(&mut self, key: Option<Key>) {
        self.after(100 * MS, key.expect("there is a container to end"), Event::Removed);
    }

    fn rebalance(&mut self) {
        while let Some(step) = self.state.next_step(&|_| true) {
            match step {
                Step::Take(revision) => {
                    let (key, ..) = self.state.begin_take(revision).expect("a slot is ready");
                    self.after(30 * MS, key, Event::Ready(revision, Start::Slot));
                }
                Step::Start(revision) => {
                    let (key, ..) = self.state.begin_start(revision, true).expect("the function has a queue");
                    self.after(self.start_time(), key, Event::Ready(revision, Start::Cold));
                }
                Step::StartSlot(language) => {
                    let (key, _) = self.state.begin_slot(language);
                    self.after(self.start_time(), key, Event::SlotReady);
                }
                Step::EndSlot => {
                    let key = self.state.slots.end_least(self.state.now());
                    self.remove(key);
                }
                Step::Evict(revision) => {
                    let key = self.state.evict(revision);
                    self.remove(key);
                }
            }
        }
        while let Some(step) = self.state.next_refill() {
            match step {
                Refill::Start(language) => {
                    let (key, _) = self.state.begin_slot(language);
                    self.after(self.start_time(), key, Event::SlotReady);
                }
                Refill::Evict => {
                    let (since, _) = self.state.longest_idle().expect("an instance is idle");
                    assert!(self.state.now() - since >= IN_USE, "an instance in use ended for a slot");
                    let key = self.state.evict_longest_idle();
                    self.remove(key);
                }
                Refill::End(language) => {
                    let key = self.state.slots.end_one(language);
                    self.remove(key);
                }
            }
        }
        assert!(self.state.phases().iter().map(|&(_, count)| count).sum::<usize>() <= LIMIT);
    }

    /// Lets time pass.
    fn pass(&mut self, duration: Duration) {
        let end = self.state.now() + duration;
        self.rebalance();
        while self.state.now() < end {
            // As the upkeep of the pool looks from time to time.
            let look = if self.state.is_refill_pending() { self.state.now() + REFILL_LOOK } else { end };
            let next = self.events.keys().map(|&(time, _)| time).chain([look, end]).min().unwrap_or(end);
            self.state.skipped += next.saturating_duration_since(self.state.now());
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.state.now()) {
                let ((_, key), event) = entry.remove_entry();
                match event {
                    Event::Ready(revision, start) => {
                        self.state.pop_waiter(revision).expect("the caller waits");
                        self.last_start = Some(start);
                        self.starts.push(start);
                        self.run(key);
                    }
                    Event::SlotReady => assert_eq!(self.state.slots.put(key, key, &self.image), None),
                    Event::Removed => self.state.free(key),
                }
            }
            self.rebalance();
        }
    }

    /// Has an instance run an invocation that takes no time.
    fn run(&mut self, key: Key) {
        self.state.set_phase(key, Phase::Busy(self.state.now()));
        self.state.park(key, key);
    }

    /// Begins a call of a function.
    fn begin(&mut self, function: &Arc<Function>) {
        self.state.ensure_queue(function);
        self.last_start = None;
        match self.state.take_idle(function.revision) {
            Some((key, _)) => {
                self.run(key);
                self.last_start = Some(Start::Warm);
            }
            None => drop(self.state.push_waiter(function, waiting_since(self.state.now()), ())),
        }
        self.rebalance();
    }

    /// Calls a function, and waits for the rest of the interval.
    fn call(&mut self, function: &Arc<Function>, interval: Duration) -> Start {
        let begin = self.state.now();
        self.begin(function);
        while self.last_start.is_none() {
            self.pass(PATIENCE / 4);
        }
        self.pass(interval.saturating_sub(self.state.now() - begin));
        self.last_start.expect("the function was called")
    }

    /// Calls functions in turn. Returns the number of warm starts and of starts from slots.
    fn rounds(&mut self, functions: &[Arc<Function>], count: usize, interval: Duration) -> (usize, usize) {
        let (mut warm, mut slot) = (0, 0);
        for function in std::iter::repeat_n(functions, count).flatten() {
            match self.call(function, interval) {
                Start::Warm => warm += 1,
                Start::Slot => slot += 1,
                Start::Cold => {}
            }
        }
        (warm, slot)
    }
}

fn functions(count: usize) -> Vec<Arc<Function>> {
    let function = |_| Arc::new(Function::from(example::record(Language::Python)));
    (0..count).map(function).collect()
}

#[test]
fn functions_that_all_have_room_stay_warm() {
    for count in [1, 8, 9, 10] {
        for interval in [50 * MS, 400 * MS, SECOND, 5 * SECOND] {
            let (mut pool, functions) = (Pool::new(), functions(count));
            pool.pass(SECOND);
            pool.rounds(&functions, 1, interval);
            assert_eq!(pool.rounds(&functions, 20, interval), (20 * count, 0), "{count} functions, {interval:?}");
        }
    }
}

#[test]
fn functions_that_have_no_room_take_slots() {
    for count in [11, 12, 30, 200] {
        for interval in [500 * MS, SECOND, 5 * SECOND] {
            let (mut pool, functions) = (Pool::new(), functions(count));
            pool.rounds(&functions, 2, interval);
            let (warm, slot) = pool.rounds(&functions, 600 / count, interval);
            let all = 600 / count * count;
            assert!((warm + slot) * 100 >= all * 99, "{count} functions, {interval:?}: {warm} + {slot} of {all}");
        }
    }
}

#[test]
fn calls_that_come_nearly_as_fast_as_containers_start_find_slots_again() {
    let mut pool = Pool { is_small: true, ..Pool::new() };
    let language = |number| if number % 2 == 0 { Language::Python } else { Language::Go };
    let functions: Vec<_> =
        (0..400).map(|number| Arc::new(Function::from(example::record(language(number))))).collect();
    pool.pass(SECOND);
    // More calls than slots, all at once.
    functions[..12].iter().for_each(|function| pool.begin(function));
    for function in &functions[12..] {
        pool.begin(function);
        pool.pass(SECOND / 4);
    }
    let last = &pool.starts[pool.starts.len() - 100..];
    let slots = last.iter().filter(|&&start| start == Start::Slot).count();
    assert!(slots >= 95, "{slots} of the last 100 calls");
}

#[test]
fn nothing_in_use_ends_for_a_slot_where_calls_come_fast() {
    let (mut pool, functions) = (Pool::new(), functions(11));
    pool.rounds(&functions, 100, 50 * MS);
}

#[test]
fn slots_give_way_once_all_functions_have_room_again() {
    let (mut pool, functions) = (Pool::new(), functions(11));
    pool.rounds(&functions, 20, SECOND);
    pool.rounds(&functions[..10], 15, SECOND);
    assert_eq!(pool.rounds(&functions[..10], 10, SECOND), (100, 0));
}

#[test]
fn a_function_that_could_not_take_a_slot_takes_none_for_a_while() {
    let (mut pool, functions) = (Pool::new(), functions(1));
    let revision = functions[0].revision;
    pool.pass(SECOND);
    pool.state.ensure_queue(&functions[0]);
    let (key, ..) = pool.state.begin_take(revision).unwrap();
    pool.state.note_failed_take(revision, key, 60 * SECOND);
    pool.state.free(key);
    pool.state.drop_idle_since(pool.state.now(), SECOND);
    assert!(pool.state.function(revision).is_none(), "nothing else is known of the function any more");
    assert_eq!(pool.call(&functions[0], SECOND), Start::Cold);
    assert!(pool.state.evict(revision).is_some());
    pool.pass(60 * SECOND);
    assert_eq!(pool.call(&functions[0], SECOND), Start::Slot);
}

#[test]
fn a_start_that_fails_pauses_where_other_instances_serve_the_callers() {
    let (mut pool, functions) = (Pool::new(), functions(1));
    let revision = functions[0].revision;
    pool.state.ensure_queue(&functions[0]);
    let (busy, ..) = pool.state.begin_start(revision, false).unwrap();
    pool.state.set_phase(busy, Phase::Busy(pool.state.now()));
    pool.pass(SECOND);
    pool.state.push_waiter(&functions[0], waiting_since(pool.state.now()), ());
    let wants = |pool: &mut Pool| pool.state.next_step(&|_| false);
    assert_eq!(wants(&mut pool), Some(Step::Start(revision)));
    let (failed, ..) = pool.state.begin_start(revision, false).unwrap();
    pool.state.set_phase(failed, Phase::Ending);
    assert_eq!(pool.state.waiters_without_hope(revision, SECOND), [(); 0]);
    pool.state.free(failed);
    assert_eq!(wants(&mut pool), None);
    pool.state.skipped += SECOND;
    assert_eq!(wants(&mut pool), Some(Step::Start(revision)));
    pool.state.set_phase(busy, Phase::Ending);
    assert_eq!(pool.state.waiters_without_hope(revision, SECOND), [()]);
}
