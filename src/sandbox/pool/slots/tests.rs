//! Tests of the books of the slots.

use super::*;

fn image(name: &str) -> SlotImage {
    SlotImage { name: name.to_owned(), runtime: "runtime".to_owned() }
}

/// Slots of Python that can start.
fn slots() -> Slots<Key> {
    let mut slots = Slots::new(config::Slots { python: 2, go: 1 });
    assert_eq!(slots.set_image(Language::Python, image("slot")), (Vec::new(), Vec::new()));
    slots
}

fn can_start(slots: &Slots<Key>, now: Instant) -> bool {
    let supply = slots.supplies(now)[0];
    supply.has_image && !supply.is_paused
}

#[test]
fn a_slot_starts_is_taken_and_gives_its_permit_away() {
    let mut slots = Slots::new(config::Slots { python: 2, go: 1 });
    let now = Instant::now();
    assert!(!can_start(&slots, now) && slots.lacks_image(Language::Python));
    let early = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    slots.note_early(Language::Python, early.clone());
    assert_eq!(slots.set_image(Language::Python, image("slot")), (vec![early], Vec::new()));
    assert_eq!(slots.image(Language::Python), Some(&image("slot")));
    assert!(!slots.lacks_image(Language::Python) && slots.lacks_image(Language::Go));
    for key in [1, 2] {
        slots.begin(Language::Python, key);
        assert_eq!(slots.supplies(now)[0].starting, 1);
        assert_eq!(slots.put(key, key, &image("slot")), None);
    }
    assert_eq!((slots.len(), slots.phases()), (2, [0, 2, 0]));
    assert_eq!(slots.take(Language::Python), Some((1, 1)));
    assert_eq!((slots.len(), slots.take(Language::Go)), (1, None));
    assert_eq!(slots.take_dead(|_| true), [0; 0]);
    assert_eq!(slots.take_dead(|_| false), [2]);
    assert_eq!((slots.len(), slots.phases()), (1, [0, 0, 1]));
    slots.free(2, now);
    assert_eq!(slots.len(), 0);
    assert!(can_start(&slots, now), "a slot that was ready has not failed to start");
}

#[test]
fn each_way_out_of_a_start_but_success_pauses() {
    let mut slots = slots();
    let now = Instant::now();
    slots.begin(Language::Python, 1);
    slots.free(1, now);
    assert!(!can_start(&slots, now));
    assert!(can_start(&slots, now + PAUSE));
    slots.set_image(Language::Python, image("slot"));
    assert!(can_start(&slots, now), "the image is new");
}

#[test]
fn an_image_that_is_gone_stops_starts_until_the_image_is_back() {
    let mut slots = slots();
    let now = Instant::now();
    slots.begin(Language::Python, 1);
    assert_eq!(slots.put(1, 1, &image("slot")), None);
    assert!(!slots.note_lost(Language::Python, &image("other")), "the image of an earlier start");
    assert!(slots.note_lost(Language::Python, &image("slot")));
    assert!(!slots.note_lost(Language::Python, &image("slot")));
    assert!(!can_start(&slots, now) && slots.lacks_image(Language::Python));
    assert_eq!(slots.ready(Language::Python), 1, "a slot that is ready can be taken");
    slots.begin(Language::Python, 2);
    assert_eq!(slots.set_image(Language::Python, image("new")).1, [1]);
    assert_eq!(slots.put(2, 2, &image("slot")), Some(2), "the slot has the image before");
    assert!(can_start(&slots, now) && !slots.lacks_image(Language::Python));
}

#[test]
fn a_language_that_is_refused_has_no_slots() {
    let mut slots = slots();
    for key in [1, 2] {
        slots.begin(Language::Python, key);
    }
    assert_eq!(slots.put(1, 1, &image("slot")), None);
    assert_eq!(slots.refuse(Language::Python), [1]);
    assert_eq!(slots.put(2, 2, &image("slot")), Some(2));
    assert!(!can_start(&slots, Instant::now()) && slots.lacks_image(Language::Python));
}

#[test]
fn uses_are_forgotten_and_the_least_missed_slot_is_spare() {
    let mut slots = slots();
    let now = Instant::now();
    assert!(!slots.supplies(now)[0].is_missed());
    slots.note_use(Language::Python, false, now);
    assert!(!slots.supplies(now)[0].is_missed(), "there was room");
    slots.note_use(Language::Python, true, now);
    assert!(slots.supplies(now)[0].is_missed() && !slots.supplies(now + MEMORY / 4)[0].is_missed());
    slots.note_use(Language::Python, true, now);
    let supply = slots.supplies(now)[0];
    assert!(supply.is_missed() && (supply.uses - 3.0).abs() < 0.01 && (supply.misses - 2.0).abs() < 0.01);
    slots.set_image(Language::Go, image("go"));
    for (language, key, name) in [(Language::Python, 1, "slot"), (Language::Go, 2, "go")] {
        slots.begin(language, key);
        assert_eq!(slots.put(key, key, &image(name)), None);
    }
    assert_eq!(slots.spare(now), 1);
    assert_eq!(slots.end_least(now), Some(2));
    assert_eq!(slots.spare(now), 0);
    assert!(!slots.supplies(now + 2 * MEMORY)[0].is_missed());
    assert_eq!(slots.spare(now + 2 * MEMORY), 1);
}
