//! The books of the slots: which slots start, which are ready, and how many are wanted. Synchronous and without Docker.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::Key;
use super::refill::Supply;
use crate::config;
use crate::domain::{ImageId, Language};

/// The time after which a use counts for a third of a new use.
const MEMORY: Duration = Duration::from_secs(60);
/// How many more uses than the most slots count, so that many uses are forgotten soon, too.
const BEYOND: usize = 2;
/// The pause after a slot that did not start.
const PAUSE: Duration = Duration::from_secs(30);
/// The most images that are noted until slots can start.
const MAX_EARLY: usize = 1000;

/// The image of a language's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotImage {
    /// The image's name.
    pub(crate) name: String,
    /// The runtime image that the image was made from. A slot takes only functions whose images were made from this
    /// image, too.
    pub(crate) runtime: String,
}

/// The slots of all languages.
#[derive(Debug)]
pub(super) struct Slots<S> {
    shelves: [Shelf<S>; 2],
    held: HashMap<Key, (Language, Phase)>,
}

/// The phase of a slot that holds a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Ending,
}

/// The slots of one language.
#[derive(Debug)]
struct Shelf<S> {
    language: Language,
    limit: usize,
    /// None until the image is there.
    image: Option<SlotImage>,
    /// The image is gone. Slots that are ready can still be taken.
    is_lost: bool,
    /// The images of functions that have started before that, and whose files slots are to take.
    early: Vec<ImageId>,
    /// The longest ready slot comes first.
    ready: VecDeque<(Key, S)>,
    /// How often functions wanted a slot lately.
    uses: Recent,
    /// How often functions wanted a slot lately for want of room.
    misses: Recent,
    paused_until: Option<Instant>,
}

/// A count of events in which old events count less.
#[derive(Clone, Copy, Debug)]
struct Recent {
    sum: f64,
    at: Instant,
}

impl<S> Slots<S> {
    /// No slots yet, and none is missed yet.
    pub(super) fn new(limits: config::Slots) -> Self {
        let shelf = |(language, limit): (Language, u32)| Shelf {
            language,
            limit: limit as usize,
            image: None,
            is_lost: false,
            early: Vec::new(),
            ready: VecDeque::new(),
            uses: Recent::none(),
            misses: Recent::none(),
            paused_until: None,
        };
        let limits = [(Language::Python, limits.python), (Language::Go, limits.go)];
        Self { shelves: limits.map(shelf), held: HashMap::new() }
    }

    fn shelf(&mut self, language: Language) -> &mut Shelf<S> {
        self.shelves.iter_mut().find(|shelf| shelf.language == language).expect("each language has a shelf")
    }

    /// Sets the image of a language's slots. Slots can start from now on. Returns the images of functions that have
    /// started before, and the slots of another image. The caller must drop the slots, which removes the containers.
    pub(super) fn set_image(&mut self, language: Language, image: SlotImage) -> (Vec<ImageId>, Vec<S>) {
        let shelf = self.shelf(language);
        let is_other = shelf.image.replace(image.clone()).is_some_and(|before| before != image);
        (shelf.is_lost, shelf.paused_until) = (false, None);
        let early = std::mem::take(&mut shelf.early);
        (early, if is_other { self.end_all(language) } else { Vec::new() })
    }

    /// Notes that a slot's image is gone, until the image is set again. Returns whether that was not known.
    pub(super) fn note_lost(&mut self, language: Language, image: &SlotImage) -> bool {
        let shelf = self.shelf(language);
        shelf.image.as_ref() == Some(image) && !std::mem::replace(&mut shelf.is_lost, true)
    }

    /// Ends the slots of a language until the image is set again. The caller must drop the slots, which removes the
    /// containers.
    pub(super) fn refuse(&mut self, language: Language) -> Vec<S> {
        self.shelf(language).image = None;
        self.end_all(language)
    }

    /// Whether slots of the language are wanted and can't start for want of an image.
    pub(super) fn lacks_image(&self, language: Language) -> bool {
        let mut shelves = self.shelves.iter().filter(|shelf| shelf.language == language && shelf.limit > 0);
        shelves.any(|shelf| shelf.image.is_none() || shelf.is_lost)
    }

    /// Notes a function's image until slots of the language can start.
    pub(super) fn note_early(&mut self, language: Language, image: ImageId) {
        let shelf = self.shelf(language);
        if shelf.limit > 0 && shelf.early.len() < MAX_EARLY && !shelf.early.contains(&image) {
            shelf.early.push(image);
        }
    }

    /// The image of a language's slots. None where there are no slots.
    pub(super) fn image(&self, language: Language) -> Option<&SlotImage> {
        let shelf = self.shelves.iter().find(|shelf| shelf.language == language)?;
        shelf.image.as_ref().filter(|_| shelf.limit > 0)
    }

    /// The number of permits that slots hold.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The number of slots that start, are ready and are ending, in this order.
    pub(super) fn phases(&self) -> [usize; 3] {
        [Phase::Starting, Phase::Ready, Phase::Ending].map(|phase| self.count(|&(_, held)| held == phase))
    }

    fn count(&self, is_meant: impl Fn(&(Language, Phase)) -> bool) -> usize {
        self.held.values().filter(|held| is_meant(held)).count()
    }

    /// The number of slots of a language that are ready.
    pub(super) fn ready(&self, language: Language) -> usize {
        self.shelves.iter().filter(|shelf| shelf.language == language).map(|shelf| shelf.ready.len()).sum()
    }

    /// The number of slots of a language that start, where functions miss the slots and further slots can start.
    /// Callers wait for these slots.
    pub(super) fn coming(&self, language: Language, now: Instant) -> Option<usize> {
        let supply = self.supplies(now).into_iter().find(|supply| supply.language == language)?;
        let can_start = supply.has_image && !supply.is_paused && supply.limit > 0;
        (can_start && supply.is_missed()).then_some(supply.starting)
    }

    /// What the decision about a refill needs to know.
    pub(super) fn supplies(&self, now: Instant) -> [Supply; 2] {
        self.shelves.each_ref().map(|shelf| {
            let starting = self.held.values().filter(|&&held| held == (shelf.language, Phase::Starting)).count();
            let is_paused = shelf.paused_until.is_some_and(|until| now < until);
            Supply {
                language: shelf.language,
                has_image: shelf.image.is_some() && !shelf.is_lost,
                is_paused,
                ready: shelf.ready.len(),
                starting,
                limit: shelf.limit,
                uses: shelf.uses.sum(now),
                misses: shelf.misses.sum(now),
            }
        })
    }

    /// The number of ready slots that functions do not miss.
    pub(super) fn spare(&self, now: Instant) -> usize {
        self.supplies(now).iter().filter(|supply| !supply.is_missed()).map(|supply| supply.ready).sum()
    }

    /// Notes that a function wanted a slot, and whether there was no room for the function's instance.
    pub(super) fn note_use(&mut self, language: Language, is_short: bool, now: Instant) {
        let shelf = self.shelf(language);
        let most = (shelf.limit + BEYOND) as f64;
        shelf.uses.add(now, most);
        if is_short {
            shelf.misses.add(now, most);
        }
    }

    /// Notes that a slot starts with this key. The start must end with [`Slots::put`], or else with the permit.
    pub(super) fn begin(&mut self, language: Language, key: Key) {
        self.held.insert(key, (language, Phase::Starting));
    }

    /// Puts a slot that has started on its shelf. Gives the slot back where no slot of this image is to be held any
    /// more; the caller must drop that slot, which removes the container.
    pub(super) fn put(&mut self, key: Key, slot: S, image: &SlotImage) -> Option<S> {
        let Some((language, phase)) = self.held.get_mut(&key) else { return Some(slot) };
        let shelf = self.shelves.iter_mut().find(|shelf| shelf.language == *language);
        match shelf.filter(|shelf| shelf.image.as_ref() == Some(image)) {
            Some(shelf) => {
                *phase = Phase::Ready;
                shelf.ready.push_back((key, slot));
                None
            }
            None => {
                *phase = Phase::Ending;
                Some(slot)
            }
        }
    }

    /// Takes a ready slot for a function. The slot's permit is the function's from now on.
    pub(super) fn take(&mut self, language: Language) -> Option<(Key, S)> {
        let (key, slot) = self.shelf(language).ready.pop_front()?;
        self.held.remove(&key);
        Some((key, slot))
    }

    /// Takes a ready slot of a language away. The caller must drop the slot, which removes the container.
    pub(super) fn end_one(&mut self, language: Language) -> Option<S> {
        let (key, slot) = self.shelf(language).ready.pop_front()?;
        self.held.entry(key).and_modify(|(_, phase)| *phase = Phase::Ending);
        Some(slot)
    }

    /// Takes a ready slot away, of the language whose slots are missed least. The caller must drop the slot, which
    /// removes the container.
    pub(super) fn end_least(&mut self, now: Instant) -> Option<S> {
        let ready = self.supplies(now).into_iter().filter(|supply| supply.ready > 0);
        self.end_one(ready.min_by(|one, other| one.misses.total_cmp(&other.misses))?.language)
    }

    fn end_all(&mut self, language: Language) -> Vec<S> {
        std::iter::from_fn(|| self.end_one(language)).collect()
    }

    /// Takes the ready slots away that are not alive. The caller must drop the slots, which removes the containers.
    pub(super) fn take_dead(&mut self, is_alive: impl Fn(&S) -> bool) -> Vec<S> {
        let mut dead = Vec::new();
        for shelf in &mut self.shelves {
            for _ in 0..shelf.ready.len() {
                let Some((key, slot)) = shelf.ready.pop_front() else { break };
                if is_alive(&slot) {
                    shelf.ready.push_back((key, slot));
                } else {
                    self.held.entry(key).and_modify(|(_, phase)| *phase = Phase::Ending);
                    dead.push(slot);
                }
            }
        }
        dead
    }

    /// Takes all ready slots away, for the end.
    pub(super) fn close(&mut self) -> Vec<S> {
        Language::ALL.into_iter().flat_map(|language| self.end_all(language)).collect()
    }

    /// Frees the permit of a slot whose container is gone. A permit that ends while its slot starts is a start that has
    /// failed, however the start has failed: no other slot of the language starts for a while.
    pub(super) fn free(&mut self, key: Key, now: Instant) {
        if let Some((language, Phase::Starting)) = self.held.remove(&key) {
            self.shelf(language).paused_until = Some(now + PAUSE);
        }
    }
}

impl Recent {
    fn none() -> Self {
        Self { sum: 0.0, at: Instant::now() }
    }

    fn sum(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        self.sum * (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }

    fn add(&mut self, now: Instant, most: f64) {
        *self = Self { sum: (self.sum(now) + 1.0).min(most), at: now };
    }
}

#[cfg(test)]
mod tests;
