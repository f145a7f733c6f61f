//! Gives each container a user of its own, because the kernel counts some resources by user.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use uuid::Uuid;

use super::Key;

/// Hands out the users of a range, each user to one permit at a time. The user that was handed out longest ago comes
/// first.
#[derive(Debug)]
pub(super) struct Uids {
    range: RangeInclusive<u32>,
    next: u32,
    held: HashMap<Key, u32>,
}

impl Uids {
    /// Begins at a random user of the range: the users of containers that a crashed run has left, or of another
    /// platform's containers, are most likely elsewhere.
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        let length = u128::from(range.end() - range.start()) + 1;
        let next = range.start() + u32::try_from(Uuid::new_v4().as_u128() % length).expect("the range is of u32");
        Self { range, next, held: HashMap::new() }
    }

    /// Takes a user that no other permit has.
    pub(super) fn take(&mut self, key: Key) -> u32 {
        debug_assert!(
            self.held.len() <= (self.range.end() - self.range.start()) as usize,
            "the range has room for all permits"
        );
        loop {
            let uid = self.next;
            self.next = if uid == *self.range.end() { *self.range.start() } else { uid + 1 };
            if !self.held.values().any(|&held| held == uid) {
                self.held.insert(key, uid);
                return uid;
            }
        }
    }

    /// Gives the user of a permit back. The permit's container must be gone.
    pub(super) fn give_back(&mut self, key: Key) {
        self.held.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_permits_have_one_user_and_the_longest_unused_comes_first() {
        let mut uids = Uids::new(70_000..=70_003);
        let first: Vec<u32> = (0..3).map(|key| uids.take(key)).collect();
        uids.give_back(1);
        // The user that no permit has had yet comes first, then the user that is free again.
        let fourth = uids.take(3);
        assert!(!first.contains(&fourth));
        assert_eq!(uids.take(4), first[1]);
        uids.give_back(0);
        assert_eq!(uids.take(5), first[0]);
        let mut all: Vec<u32> = uids.held.values().copied().collect();
        all.sort_unstable();
        assert_eq!(all, [70_000, 70_001, 70_002, 70_003]);
    }
}
