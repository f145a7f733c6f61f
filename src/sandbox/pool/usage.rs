//! What functions have in the pool, and what the limit on containers costs.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Pool;
use super::evictions::Cost;
use crate::domain::FunctionId;
use crate::sandbox::instance::{Instance, Memory};

/// The most idle instances of a function whose memory is read.
const SAMPLE: usize = 10;

/// A function's part of the pool.
#[derive(Debug)]
pub struct Usage {
    /// The function's id.
    pub function: FunctionId,
    /// The number of instances that start, are idle and are busy, in this order.
    pub counts: [usize; 3],
    /// What the limit has cost the function in the last hour.
    pub cost: Cost,
    idle: Vec<Memory>,
}

impl Usage {
    /// The average memory of an idle instance, in bytes. None where there is none, and where the kernel's counters
    /// can't be read. Reads files.
    pub fn idle_memory(&self) -> Option<u64> {
        let read: Vec<u64> = self.idle.iter().filter_map(Memory::read).collect();
        (!read.is_empty()).then(|| read.iter().sum::<u64>() / read.len() as u64)
    }
}

impl Pool {
    /// The functions that have instances, or that had an instance evicted in the last hour.
    pub fn usage(&self) -> Vec<Usage> {
        let mut state = self.0.lock();
        let costs = state.evictions.costs(Instant::now());
        let counts = state.counts_by_function();
        let mut idle: HashMap<FunctionId, Vec<Memory>> = HashMap::new();
        for (function, memory) in state.idle().filter_map(|(function, one)| Some((function, Instance::memory(one)?))) {
            let sample = idle.entry(function).or_default();
            if sample.len() < SAMPLE {
                sample.push(memory);
            }
        }
        drop(state);
        let mut functions: Vec<FunctionId> = counts.keys().chain(costs.keys()).copied().collect();
        functions.sort_unstable();
        functions.dedup();
        let usage = |function| Usage {
            function,
            counts: counts.get(&function).copied().unwrap_or_default(),
            cost: costs.get(&function).copied().unwrap_or_default(),
            idle: idle.remove(&function).unwrap_or_default(),
        };
        functions.into_iter().map(usage).collect()
    }
}
