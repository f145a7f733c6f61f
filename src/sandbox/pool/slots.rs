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
    /// The images of functions that have started before that, and whose files slots are to take.
    early: Vec<ImageId>,
    /// The longest ready slot comes first.
    ready: VecDeque<(Key, S)>,
    /// How often functions wanted a slot lately, as a sum in which old uses count less.
    rate: f64,
    rated_at: Instant,
    paused_until: Option<Instant>,
}

impl<S> Slots<S> {
    /// No slots yet. As many are wanted at first as there may be.
    pub(super) fn new(limits: config::Slots) -> Self {
        let shelf = |(language, limit): (Language, u32)| Shelf {
            language,
            limit: limit as usize,
            image: None,
            early: Vec::new(),
            ready: VecDeque::new(),
            rate: limit.into(),
            rated_at: Instant::now(),
            paused_until: None,
        };
        let limits = [(Language::Python, limits.python), (Language::Go, limits.go)];
        Self { shelves: limits.map(shelf), held: HashMap::new() }
    }

    fn shelf(&mut self, language: Language) -> &mut Shelf<S> {
        self.shelves.iter_mut().find(|shelf| shelf.language == language).expect("each language has a shelf")
    }

    /// Sets the image of a language's slots. Slots can start from now on. Returns the images of functions that have
    /// started before.
    pub(super) fn set_image(&mut self, language: Language, image: SlotImage) -> Vec<ImageId> {
        let shelf = self.shelf(language);
        shelf.image = Some(image);
        std::mem::take(&mut shelf.early)
    }

    /// Notes a function's image until slots of the language can start.
    pub(super) fn note_early(&mut self, language: Language, image: ImageId) {
        let shelf = self.shelf(language);
        if shelf.limit > 0 && shelf.early.len() < MAX_EARLY {
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

    pub(super) fn has_ready(&self, language: Language) -> bool {
        self.shelves.iter().any(|shelf| shelf.language == language && !shelf.ready.is_empty())
    }

    /// What the decision about a refill needs to know.
    pub(super) fn supplies(&mut self, now: Instant) -> [Supply; 2] {
        self.shelves.each_mut().map(|shelf| {
            shelf.decay(now);
            let starting = self.held.values().filter(|&&held| held == (shelf.language, Phase::Starting)).count();
            let is_paused = shelf.paused_until.is_some_and(|until| now < until);
            Supply {
                language: shelf.language,
                can_start: shelf.image.is_some() && !is_paused,
                ready: shelf.ready.len(),
                starting,
                limit: shelf.limit,
                rate: shelf.rate,
            }
        })
    }

    /// Notes that a function wanted a slot.
    pub(super) fn note_use(&mut self, language: Language, now: Instant) {
        let shelf = self.shelf(language);
        shelf.decay(now);
        shelf.rate += 1.0;
    }

    /// Notes that a slot starts with this key.
    pub(super) fn begin(&mut self, language: Language, key: Key) {
        self.held.insert(key, (language, Phase::Starting));
    }

    /// Puts a slot that has started on its shelf.
    pub(super) fn put(&mut self, key: Key, slot: S) {
        let Some((language, phase)) = self.held.get_mut(&key) else { return };
        *phase = Phase::Ready;
        let language = *language;
        self.shelf(language).ready.push_back((key, slot));
    }

    /// Notes that a slot did not start. No other slot of the language starts for a while.
    pub(super) fn note_failure(&mut self, key: Key, now: Instant) {
        let Some((language, phase)) = self.held.get_mut(&key) else { return };
        *phase = Phase::Ending;
        let language = *language;
        self.shelf(language).paused_until = Some(now + PAUSE);
    }

    /// Takes a ready slot for a function. The slot's permit is the function's from now on.
    pub(super) fn take(&mut self, language: Language) -> Option<(Key, S)> {
        let (key, slot) = self.shelf(language).ready.pop_front()?;
        self.held.remove(&key);
        Some((key, slot))
    }

    /// Takes a ready slot away, of this language or of the language with the most. The caller must drop the slot, which
    /// removes the container.
    pub(super) fn end_one(&mut self, language: Option<Language>) -> Option<S> {
        let shelves = self.shelves.iter_mut().filter(|shelf| language.is_none_or(|wanted| shelf.language == wanted));
        let (key, slot) = shelves.max_by_key(|shelf| shelf.ready.len())?.ready.pop_front()?;
        self.held.entry(key).and_modify(|(_, phase)| *phase = Phase::Ending);
        Some(slot)
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
        std::iter::from_fn(|| self.end_one(None)).collect()
    }

    /// Frees the permit of a slot whose container is gone.
    pub(super) fn free(&mut self, key: Key) {
        self.held.remove(&key);
    }
}

impl<S> Shelf<S> {
    fn decay(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.rated_at);
        self.rate *= (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.rated_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_starts_is_taken_and_gives_its_permit_away() {
        let mut slots = Slots::new(config::Slots { python: 2, go: 1 });
        assert!(!slots.supplies(Instant::now())[0].can_start);
        let image = SlotImage { name: "slot".to_owned(), runtime: "runtime".to_owned() };
        let early = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        slots.note_early(Language::Python, early.clone());
        assert_eq!(slots.set_image(Language::Python, image.clone()), [early]);
        assert_eq!(slots.image(Language::Python), Some(&image));
        for key in [1, 2] {
            slots.begin(Language::Python, key);
            assert_eq!(slots.supplies(Instant::now())[0].starting, 1);
            slots.put(key, key);
        }
        assert_eq!((slots.len(), slots.phases()), (2, [0, 2, 0]));
        assert_eq!(slots.take(Language::Python), Some((1, 1)));
        assert_eq!((slots.len(), slots.take(Language::Go)), (1, None));
        assert_eq!(slots.take_dead(|_| true), [0; 0]);
        assert_eq!(slots.take_dead(|_| false), [2]);
        assert_eq!((slots.len(), slots.phases()), (1, [0, 0, 1]));
        slots.free(2);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn uses_are_forgotten_and_failures_pause() {
        let mut slots: Slots<()> = Slots::new(config::Slots { python: 2, go: 0 });
        let image = SlotImage { name: String::new(), runtime: String::new() };
        assert_eq!(slots.set_image(Language::Python, image), []);
        let now = Instant::now();
        slots.note_use(Language::Python, now);
        assert!((slots.supplies(now)[0].rate - 3.0).abs() < 0.01);
        let later = now + 2 * MEMORY;
        assert!(slots.supplies(later)[0].rate < 0.5);
        slots.begin(Language::Python, 1);
        slots.note_failure(1, later);
        assert!(!slots.supplies(later)[0].can_start);
        assert!(slots.supplies(later + PAUSE)[0].can_start);
    }
}
