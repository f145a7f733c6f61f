//! Counts what the limit on containers costs: the instances that end for lack of room, and the starts that a higher
//! limit would have saved. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::FunctionId;

/// The time that is counted.
const HOUR: Duration = Duration::from_secs(3600);
/// Counts are forgotten by periods of this length.
const PERIOD: Duration = Duration::from_secs(300);
/// The most evicted instances that are known at one time.
const MAX_EVICTED: usize = 10_000;

/// The evictions of the last hour.
#[derive(Debug)]
pub(super) struct Evictions {
    /// INSTANCE_IDLE_TIMEOUT.
    idle_timeout: Duration,
    /// The instances that would still be idle with a higher limit, by function: until when each would be.
    evicted: HashMap<FunctionId, VecDeque<Instant>>,
    /// The counts of each period, the oldest first, with the period's beginning.
    periods: VecDeque<(Instant, HashMap<FunctionId, Cost>)>,
}

/// What the limit on containers has cost a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instances that ended for lack of room.
    pub evictions: u32,
    /// Starts for a caller that an instance would have spared, had the instance not been evicted.
    pub starts: u32,
}

impl Evictions {
    /// No evictions yet. An instance lives for `idle_timeout` where there is room.
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, evicted: HashMap::new(), periods: VecDeque::new() }
    }

    /// Notes that an instance of a function that was idle since this time ends for lack of room.
    pub(super) fn note(&mut self, function: FunctionId, idle_since: Instant, now: Instant) {
        self.cost(function, now).evictions += 1;
        if self.len() >= MAX_EVICTED {
            self.evicted.retain(|_, instances| instances.back().is_some_and(|&end| now < end));
            if self.len() >= MAX_EVICTED {
                return;
            }
        }
        self.evicted.entry(function).or_default().push_back(idle_since + self.idle_timeout);
    }

    fn len(&self) -> usize {
        self.evicted.values().map(VecDeque::len).sum()
    }

    /// Notes that an instance of a function starts for a caller.
    pub(super) fn note_start(&mut self, function: FunctionId, now: Instant) {
        let Some(instances) = self.evicted.get_mut(&function) else { return };
        while instances.pop_front_if(|end| *end <= now).is_some() {}
        let is_evicted = instances.pop_back().is_some();
        if instances.is_empty() {
            self.evicted.remove(&function);
        }
        if is_evicted {
            self.cost(function, now).starts += 1;
        }
    }

    /// The costs of the last hour, by function.
    pub(super) fn costs(&mut self, now: Instant) -> HashMap<FunctionId, Cost> {
        self.forget(now);
        let mut costs: HashMap<FunctionId, Cost> = HashMap::new();
        for (&function, cost) in self.periods.iter().flat_map(|(_, costs)| costs) {
            let sum = costs.entry(function).or_default();
            sum.evictions += cost.evictions;
            sum.starts += cost.starts;
        }
        costs
    }

    fn cost(&mut self, function: FunctionId, now: Instant) -> &mut Cost {
        self.forget(now);
        if self.periods.back().is_none_or(|&(began, _)| began + PERIOD <= now) {
            self.periods.push_back((now, HashMap::new()));
        }
        let (_, costs) = self.periods.back_mut().expect("there is a period now");
        costs.entry(function).or_default()
    }

    fn forget(&mut self, now: Instant) {
        while self.periods.pop_front_if(|(began, _)| *began + HOUR <= now).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_after_an_eviction_counts_while_the_instance_would_be_idle() {
        let minute = Duration::from_secs(60);
        let (a, b, began) = (FunctionId::random(), FunctionId::random(), Instant::now());
        let mut evictions = Evictions::new(10 * minute);
        evictions.note_start(a, began);
        assert_eq!(evictions.costs(began), HashMap::new(), "a first start costs nothing");
        evictions.note(a, began, began + minute);
        evictions.note(b, began, began + minute);
        evictions.note_start(a, began + 2 * minute);
        evictions.note_start(a, began + 2 * minute);
        evictions.note_start(b, began + 11 * minute);
        let one = Cost { evictions: 1, starts: 1 };
        let only_evicted = Cost { starts: 0, ..one };
        assert_eq!(evictions.costs(began + 11 * minute), HashMap::from([(a, one), (b, only_evicted)]));
        assert_eq!(evictions.costs(began + 62 * minute), HashMap::new());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let now = Instant::now();
        let mut evictions = Evictions::new(PERIOD);
        for _ in 0..MAX_EVICTED + 10 {
            evictions.note(FunctionId::random(), now, now);
        }
        assert_eq!(evictions.evicted.len(), MAX_EVICTED);
        evictions.note(FunctionId::random(), now + PERIOD, now + PERIOD);
        assert_eq!(evictions.evicted.len(), 1);
    }
}
