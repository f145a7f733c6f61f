//! What requests may hold in memory at one time, over all clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// The bytes that all requests hold together, and how many these may be.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    most: u64,
}

/// Requests hold as much as they may.
#[derive(Debug, Error)]
#[error("the service holds as much of requests at one time as it may; try again later")]
pub struct BudgetExceeded;

impl Budget {
    /// Nothing is held yet, and at most `most` bytes may be.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), most })
    }

    /// A share for one request, yet without any bytes.
    pub fn share(self: &Arc<Self>) -> BudgetShare {
        BudgetShare { budget: Arc::clone(self), bytes: 0 }
    }
}

/// What one request holds. Dropped, its bytes are free for others.
#[derive(Debug)]
pub struct BudgetShare {
    budget: Arc<Budget>,
    bytes: u64,
}

impl BudgetShare {
    /// Takes some more bytes. After an error the share is to be dropped with what it stands for.
    pub fn take(&mut self, bytes: u64) -> Result<(), BudgetExceeded> {
        self.bytes += bytes;
        let held = self.budget.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.budget.most { Err(BudgetExceeded) } else { Ok(()) }
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_free_for_others() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.take(4).unwrap();
        first.take(4).unwrap();
        second.take(3).unwrap_err();
        drop(second);
        budget.share().take(2).unwrap();
        drop(first);
        budget.share().take(10).unwrap();
    }
}
