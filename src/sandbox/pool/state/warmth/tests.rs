use super::*;
use crate::config;
use crate::domain::settings::Settings;
use crate::domain::{Language, Record};
use crate::functions::example;
use crate::sandbox::pool::Wait;
use crate::sandbox::pool::evictions::Evictions;
use crate::sandbox::pool::slots::Slots;

const MINUTE: Duration = Duration::from_secs(60);

/// An instance is the number of its permit.
fn state(limit: usize) -> State<Key, (), ()> {
    State::new(limit, 70_000..=70_099, Slots::new(config::Slots { python: 0, go: 0 }), Evictions::new(MINUTE))
}

fn function(concurrency: Option<u32>, keep_warm: Option<u32>) -> Arc<Function> {
    let settings = Settings { concurrency, keep_warm, ..Settings::default() };
    Arc::new(Function::from(Record { settings, ..example::record(Language::Go) }))
}

/// Starts an instance, which is idle then.
fn start(state: &mut State<Key, (), ()>, function: &Arc<Function>) -> Key {
    state.ensure_queue(function);
    let (key, ..) = state.begin_start(function.revision, false).unwrap();
    state.park(key, key);
    key
}

fn wait(is_warm_up: bool) -> Wait {
    Wait { since: Instant::now(), is_admitted: false, patience: None, is_background: false, is_warm_up }
}

#[test]
fn an_invocation_that_was_cut_off_counts_until_its_container_is_gone() {
    let (mut state, limited) = (state(4), function(Some(1), None));
    let (first, second) = (start(&mut state, &limited), start(&mut state, &limited));
    let revision = limited.revision;
    assert!(state.may_run(revision));
    assert_eq!(state.take_idle(revision), Some((second, second)));
    state.set_phase(second, Phase::Busy(Instant::now()));
    state.push_waiter(&limited, wait(false), ());
    assert_eq!((state.may_run(revision), state.servable(), state.is_pressed()), (false, None, false));
    state.set_phase(second, Phase::Ending);
    assert_eq!((state.servable(), state.pop_servable(revision)), (None, None), "the function still runs");
    state.free(second);
    assert_eq!((state.servable(), state.is_pressed()), (Some(revision), true));
    assert_eq!(state.pop_servable(revision), Some(()));
    // An instance that ends clean counts no longer.
    state.set_phase(first, Phase::Busy(Instant::now()));
    state.set_phase(first, Phase::Idle);
    state.set_phase(first, Phase::Ending);
    assert!(state.may_run(revision));
}

#[test]
fn the_invocations_of_all_revisions_count_and_a_warm_up_runs_nothing() {
    let (mut state, old) = (state(4), function(Some(1), None));
    let busy = start(&mut state, &old);
    state.take_idle(old.revision);
    state.set_phase(busy, Phase::Busy(Instant::now()));
    let limits = Settings { memory: Some(1), ..old.settings.clone() };
    let new = Arc::new(old.successor(old.name.clone(), limits, None));
    assert_ne!(new.revision, old.revision);
    start(&mut state, &new);
    state.push_waiter(&new, wait(false), ());
    assert_eq!(state.pop_servable(new.revision), None);
    state.take_waiters(new.revision);
    state.push_waiter(&new, wait(true), ());
    assert_eq!(state.pop_servable(new.revision), Some(()));
    // Other settings of the same revision count at once.
    let more = Settings { concurrency: Some(2), ..new.settings.clone() };
    state.push_waiter(&new, wait(false), ());
    state.configure(&Arc::new(new.successor(new.name.clone(), more, None)));
    assert_eq!(state.servable(), Some(new.revision));
    state.configure(&new);
    assert_eq!(state.servable(), Some(new.revision), "settings from before do not come back");
}

#[test]
fn kept_instances_do_not_expire_and_one_permit_is_never_kept() {
    let mut state = state(4);
    let mut functions = [function(None, Some(2)), function(None, Some(2)), function(Some(1), Some(2))];
    functions.sort_by_key(|function| function.id);
    let [first, second, third] = &functions;
    let is_short = functions.each_ref().map(|function| state.configure(function));
    assert!(is_short.contains(&true));
    let kept = |state: &State<Key, (), ()>| [first, second, third].map(|one| state.queues[&one.revision].warmth.kept);
    let wanted = functions.each_ref().map(|function| function.settings.kept() as usize);
    assert_eq!(kept(&state), [wanted[0], wanted[1].min(3 - wanted[0]), 3_usize.saturating_sub(wanted[0] + wanted[1])]);
    drop(state.retire(first.revision));
    assert_eq!(state.queues[&second.revision].warmth.kept, wanted[1], "a function that is gone makes room");

    let now = Instant::now();
    let key = start(&mut state, second);
    let later = now + 2 * MINUTE;
    state.drop_idle_since(later, MINUTE);
    assert!(state.has_idle(second.revision), "the instance is kept");
    assert_eq!((state.next_expiry(MINUTE), state.longest_idle()), (None, None));
    let other = start(&mut state, &function(None, None));
    assert!(state.longest_idle().is_some());
    state.drop_idle_since(later, MINUTE);
    assert!(state.has_idle(second.revision) && state.longest_idle().is_none(), "instance {other} expires");
    // A function that asks for nothing more has instances like any other.
    let none = Settings::default();
    state.configure(&Arc::new(second.successor(second.name.clone(), none, None)));
    assert_eq!(state.longest_idle().map(|(_, revision)| revision), Some(second.revision));
    state.drop_idle_since(later, MINUTE);
    assert!(!state.has_idle(second.revision), "instance {key} expires");
}

#[test]
fn after_failures_the_next_start_waits_longer_each_time() {
    let (mut state, function) = (state(4), function(None, Some(1)));
    state.configure(&function);
    let mut now = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert!(state.lacks_one(function.revision, now) && state.next_to_keep(now).is_some());
        state.note_keep_failure(function.revision, now);
        let pause = (0..).find(|&seconds| state.lacks_one(function.revision, now + Duration::from_secs(seconds)));
        pauses.push(pause.unwrap());
        now += Duration::from_secs(pause.unwrap());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    // What was long ago is forgotten.
    now += 3 * LONGEST_PAUSE;
    state.note_keep_failure(function.revision, now);
    assert!(state.lacks_one(function.revision, now + FIRST_PAUSE));
    let key = start(&mut state, &function);
    assert!(!state.lacks_one(function.revision, now + LONGEST_PAUSE));
    assert_eq!(state.take_dead(|_| true), [0; 0]);
    assert_eq!(state.take_dead(|_| false), [key]);
    assert!(!state.lacks_one(function.revision, Instant::now()), "a death while idle is a failure, too");
}
