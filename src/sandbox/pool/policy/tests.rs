use super::*;

fn demand(function: char) -> Demand<char> {
    Demand { function, ..Demand::default() }
}

fn room(free: usize, ending: usize) -> Room {
    Room { free, ending, ..Room::default() }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn first_requests_share_one_start() {
    let cold = Demand { waiting: 8, ..demand('a') };
    assert_eq!(cold.wanted(), 1);
    assert_eq!(Demand { starting: 1, ..cold }.wanted(), 0);
}

#[test]
fn a_burst_on_a_short_function_starts_nothing() {
    let burst = Demand { waiting: 32, busy: 1, service_time: MS, pressed_for: 30 * MS, ..demand('a') };
    assert_eq!(burst.wanted(), 0);
    assert_eq!(Demand { pressed_for: PATIENCE, ..burst.clone() }.wanted(), 1);
    assert_eq!(Demand { pressed_for: PATIENCE, starting: 1, ..burst }.wanted(), 0);
}

#[test]
fn a_long_function_gets_an_instance_for_each_who_waits() {
    let long = Demand { waiting: 5, busy: 1, service_time: Duration::from_secs(1), ..demand('a') };
    assert_eq!(long.wanted(), 5);
    assert_eq!(Demand { starting: 3, ..long }.wanted(), 2);
}

#[test]
fn room_is_made_of_the_longest_idle() {
    let wanting = Demand { waiting: 1, ..demand('a') };
    let recent = Demand { idle: 2, oldest_idle: MS, ..demand('b') };
    let old = Demand { idle: 1, oldest_idle: 9 * MS, ..demand('c') };
    let demands = [wanting, recent, old];
    assert_eq!(next(&demands, room(1, 0)), Some(Step::Start('a')));
    assert_eq!(next(&demands, room(0, 0)), Some(Step::Evict('c')));
    assert_eq!(next(&demands, room(0, 1)), None);
    assert_eq!(next(&demands[1..], room(1, 0)), None);
}

#[test]
fn an_instance_in_use_makes_room_only_for_who_has_none() {
    let loaded = Demand { waiting: 30, busy: 9, service_time: 20 * MS, pressed_for: PATIENCE, ..demand('a') };
    let in_use = Demand { idle: 1, oldest_idle: 5 * MS, ..demand('b') };
    assert_eq!(next(&[loaded.clone(), in_use.clone()], room(0, 0)), None);
    let unused = Demand { oldest_idle: IN_USE, ..in_use.clone() };
    assert_eq!(next(&[loaded, unused], room(0, 0)), Some(Step::Evict('b')));
    let new = Demand { waiting: 1, ..demand('c') };
    assert_eq!(next(&[new, in_use], room(0, 0)), Some(Step::Evict('b')));
}

#[test]
fn a_slot_is_taken_whether_or_not_there_is_room() {
    let unfit = Demand { waiting: 1, oldest_wait: 2 * MS, ..demand('a') };
    let fit = Demand { waiting: 1, oldest_wait: MS, is_urgent: true, slots: 1, ..demand('b') };
    let demands = [unfit, fit];
    let slots = Room { slots: 1, ..room(0, 0) };
    assert_eq!(next(&demands, slots), Some(Step::Take('b')));
    assert_eq!(next(&demands, Room { free: 1, ..slots }), Some(Step::Take('b')));
    assert_eq!(next(&demands[..1], Room { free: 1, ..slots }), Some(Step::Start('a')));
    let covered = Demand { starting: 1, ..demands[1].clone() };
    assert_eq!(next(&[covered], slots), None, "an instance starts already");
}

#[test]
fn who_waits_without_a_client_leaves_the_last_slot_while_there_is_room() {
    let background = Demand { waiting: 1, oldest_wait: 2 * MS, slots: 1, ..demand('a') };
    let urgent = Demand { is_urgent: true, oldest_wait: MS, ..Demand { function: 'b', ..background.clone() } };
    let slots = Room { slots: 1, ..room(1, 0) };
    assert_eq!(next(std::slice::from_ref(&background), slots), Some(Step::Start('a')));
    assert_eq!(next(std::slice::from_ref(&background), Room { free: 0, ..slots }), Some(Step::Take('a')));
    assert_eq!(next(&[Demand { slots: 2, ..background.clone() }], Room { slots: 2, ..slots }), Some(Step::Take('a')));
    assert_eq!(next(&[background.clone(), urgent.clone()], slots), Some(Step::Take('b')));
    assert_eq!(next(&[background, urgent], Room { free: 0, ..slots }), Some(Step::Take('b')));
}

#[test]
fn a_slot_that_nobody_misses_makes_room_before_any_instance() {
    let wanting = Demand { waiting: 1, ..demand('a') };
    let unused = Demand { idle: 1, oldest_idle: 9 * IN_USE, ..demand('b') };
    let demands = [wanting, unused];
    let slots = Room { slots: 2, spare_slots: 1, ..room(0, 0) };
    assert_eq!(next(&demands, slots), Some(Step::EndSlot));
    assert_eq!(next(&demands, Room { ending: 1, ..slots }), None);
    assert_eq!(next(&demands, Room { spare_slots: 0, ..slots }), Some(Step::Evict('b')));
    assert_eq!(next(&demands, Room { free: 1, ..slots }), Some(Step::Start('a')));
}

#[test]
fn nothing_starts_for_a_function_whose_start_has_just_failed() {
    let failing = Demand { waiting: 1, is_paused: true, slots: 1, ..demand('a') };
    assert_eq!(next(&[failing], room(1, 0)), None);
}

#[test]
fn a_missed_slot_makes_room_before_an_instance_in_use_and_after_an_instance_that_is_not() {
    let wanting = Demand { waiting: 1, ..demand('a') };
    let in_use = Demand { idle: 1, oldest_idle: MS, ..demand('b') };
    let unused = Demand { idle: 1, oldest_idle: IN_USE, ..demand('c') };
    let slots = Room { slots: 1, ..room(0, 0) };
    assert_eq!(next(&[wanting.clone(), in_use.clone()], slots), Some(Step::EndSlot));
    assert_eq!(next(&[wanting.clone(), in_use, unused], slots), Some(Step::Evict('c')));
    assert_eq!(next(std::slice::from_ref(&wanting), slots), Some(Step::EndSlot));
    assert_eq!(next(&[wanting], Room { ending: 1, ..slots }), None);
}

#[test]
fn a_function_at_its_own_limit_wants_nothing_and_starves_no_other() {
    let second = Duration::from_secs(1);
    let long = Demand { waiting: 5, busy: 1, running: 1, service_time: second, ..demand('a') };
    let limited = |limit| Demand { limit: Some(limit), ..long.clone() };
    assert_eq!((limited(1).wanted(), limited(3).wanted(), limited(9).wanted()), (0, 2, 5));
    assert_eq!(Demand { starting: 1, ..limited(3) }.wanted(), 1);
    assert_eq!(Demand { running: 2, ..limited(3) }.wanted(), 1, "an old revision's invocation counts");
    let first = Demand { busy: 0, running: 1, ..limited(1) };
    assert_eq!(first.wanted(), 1, "an instance of the new revision may be ready when the old invocation ends");
    assert_eq!(next(&[limited(1)], room(1, 0)), None);
    let loaded = Demand { waiting: 9, busy: 9, service_time: second, ..demand('b') };
    assert!(!should_yield(&[loaded, limited(1)], 'b', 10, 0, 0), "the function wants no instance");
}

#[test]
fn idle_instances_over_the_functions_own_limit_make_room() {
    let lowered = Demand { waiting: 3, busy: 1, running: 1, idle: 3, limit: Some(2), ..demand('a') };
    assert_eq!((lowered.evictable(), lowered.wanted()), (2, 0));
    assert_eq!(Demand { limit: None, ..lowered.clone() }.evictable(), 0, "the callers are about to use them");
    let ready = Demand { waiting: 1, running: 1, idle: 1, limit: Some(1), ..demand('a') };
    assert_eq!(ready.evictable(), 0, "the instance waits for the end of an old revision's invocation");
    let wanting = Demand { waiting: 1, ..demand('b') };
    let old = Demand { oldest_idle: IN_USE, ..lowered };
    assert_eq!(next(&[wanting, old], room(0, 0)), Some(Step::Evict('a')));
}

#[test]
fn kept_instances_make_no_room() {
    let wanting = Demand { waiting: 1, is_urgent: true, ..demand('a') };
    let kept = Demand { idle: 2, kept: 2, oldest_idle: IN_USE, ..demand('b') };
    let demands = [wanting.clone(), kept.clone()];
    assert_eq!(next(&demands, room(0, 0)), None);
    assert_eq!(next(&demands, Room { slots: 1, ..room(0, 0) }), Some(Step::EndSlot));
    let more = Demand { busy: 1, ..kept.clone() };
    assert_eq!((more.evictable(), Demand { starting: 1, ..more.clone() }.evictable()), (1, 2));
    assert_eq!(next(&[wanting.clone(), more], room(0, 0)), Some(Step::Evict('b')));
    let busy = Demand { waiting: 9, idle: 0, busy: 2, oldest_wait: MS, ..kept };
    assert!(!should_yield(&[wanting.clone(), busy.clone()], 'b', 2, 0, 0));
    assert!(should_yield(&[wanting, Demand { busy: 3, ..busy }], 'b', 2, 0, 0));
}

#[test]
fn who_has_least_is_first() {
    let second = Duration::from_secs(1);
    let rich = Demand { waiting: 5, busy: 3, service_time: second, oldest_wait: 9 * MS, ..demand('a') };
    let late = Demand { waiting: 1, oldest_wait: MS, ..demand('b') };
    let early = Demand { waiting: 1, oldest_wait: 2 * MS, ..demand('c') };
    assert_eq!(next(&[rich, late, early], room(1, 0)), Some(Step::Start('c')));
}

#[test]
fn who_has_more_than_a_share_gives_way() {
    let loaded = Demand { waiting: 50, busy: 10, service_time: MS, oldest_wait: 40 * MS, ..demand('a') };
    let starved = Demand { waiting: 1, oldest_wait: MS, ..demand('b') };
    let demands = [loaded.clone(), starved.clone()];
    assert!(should_yield(&demands, 'a', 10, 0, 0));
    assert!(!should_yield(&demands, 'a', 10, 0, 1), "a container ends already");
    assert!(!should_yield(&demands, 'a', 10, 1, 0), "there is room");
    assert!(!should_yield(&[loaded.clone(), demand('b')], 'a', 10, 0, 0), "no other function wants an instance");
    let served = Demand { busy: 5, service_time: Duration::from_secs(1), ..starved };
    assert!(!should_yield(&[Demand { busy: 5, ..loaded }, served], 'a', 10, 0, 0), "both functions have their share");
}

#[test]
fn with_more_functions_than_containers_they_take_turns() {
    let mine = Demand { waiting: 3, busy: 1, oldest_wait: 5 * MS, ..demand('a') };
    let earlier = Demand { waiting: 1, oldest_wait: 6 * MS, ..demand('b') };
    let later = Demand { waiting: 1, oldest_wait: 4 * MS, ..demand('b') };
    assert!(should_yield(&[mine.clone(), earlier], 'a', 1, 0, 0));
    assert!(!should_yield(&[mine, later], 'a', 1, 0, 0));
}

#[test]
fn what_clients_wait_for_comes_before_what_nobody_waits_for() {
    let second = Duration::from_secs(1);
    let background = Demand { waiting: 5, busy: 5, service_time: second, oldest_wait: second, ..demand('a') };
    let urgent = Demand { waiting: 2, is_urgent: true, busy: 5, service_time: second, oldest_wait: MS, ..demand('b') };
    let demands = [background.clone(), urgent.clone()];
    assert_eq!(next(&demands, room(1, 0)), Some(Step::Start('b')));
    assert!(should_yield(&demands, 'a', 10, 0, 0));
    assert!(!should_yield(&demands, 'b', 10, 0, 0));
    let last = Demand { busy: 1, ..background.clone() };
    assert!(!should_yield(&[last.clone(), urgent.clone()], 'a', 10, 0, 0), "the function keeps one instance");
    assert!(should_yield(&[last, urgent.clone()], 'a', 1, 0, 0), "functions take turns for the only container");
    let none = Demand { busy: 0, ..background };
    let loaded = Demand { busy: 10, ..urgent };
    assert!(should_yield(&[none.clone(), loaded.clone()], 'b', 10, 0, 0), "the function gets one instance");
    assert!(
        !should_yield(&[Demand { busy: 1, ..none }, Demand { busy: 9, ..loaded }], 'b', 10, 0, 0),
        "the function gets no second instance"
    );
}

#[test]
fn kept_instances_are_nobodys_share() {
    for kept in [5, 9] {
        let keeper = Demand { idle: kept, kept, oldest_idle: IN_USE, ..demand('g') };
        let loaded = Demand { waiting: 3, busy: 10 - kept, is_urgent: true, oldest_wait: 2 * MS, ..demand('h') };
        let starved = Demand { waiting: 1, is_urgent: true, oldest_wait: 3 * MS, ..demand('i') };
        let demands = [keeper.clone(), loaded.clone(), starved.clone()];
        assert_eq!(next(&demands, room(0, 0)), None);
        assert!(should_yield(&demands, 'h', 10, 0, 0), "{kept} are kept");
        let background = Demand { is_urgent: false, ..loaded };
        assert!(should_yield(&[keeper.clone(), background, starved], 'h', 10, 0, 0), "{kept} are kept");
        assert!(!should_yield(&demands, 'g', 10, 0, 0), "what is kept stays");
    }
}

#[test]
fn a_caller_that_misses_a_slot_has_a_slot_start() {
    let caller = |function, coming| Demand {
        waiting: 1,
        is_urgent: true,
        coming: Some((Language::Python, coming)),
        ..demand(function)
    };
    let start = Some(Step::StartSlot(Language::Python));
    assert_eq!(next(&[caller('a', 0)], room(1, 0)), start);
    assert_eq!(next(&[caller('a', 1)], room(1, 0)), None, "the slot that starts is for this caller");
    assert_eq!(next(&[caller('a', 1), caller('b', 1)], room(1, 0)), start, "that slot is promised once");
    assert_eq!(next(&[caller('a', 2), caller('b', 2)], room(1, 0)), None);
    let go = Demand { coming: Some((Language::Go, 0)), ..caller('b', 0) };
    assert_eq!(next(&[caller('a', 1), go], room(1, 0)), Some(Step::StartSlot(Language::Go)));
    // Room is made for a slot as for an instance, and none for a slot that starts already.
    let idle = Demand { idle: 1, oldest_idle: IN_USE, ..demand('c') };
    assert_eq!(next(&[caller('a', 0), idle.clone()], room(0, 0)), Some(Step::Evict('c')));
    assert_eq!(next(&[caller('a', 1), idle], room(0, 0)), None);
    // An asynchronous execution, and a function with an instance, need no slot.
    let background = Demand { is_urgent: false, ..caller('a', 1) };
    assert_eq!(next(&[background], room(1, 0)), Some(Step::Start('a')));
    let busy = Demand { busy: 1, service_time: Duration::from_secs(1), ..caller('a', 1) };
    assert_eq!(next(&[busy], room(1, 0)), Some(Step::Start('a')));
}
