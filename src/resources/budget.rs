//! The limit on the memory that all requests hold at one time, over all clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// The bytes that all requests hold together, and the limit on these bytes.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    most: u64,
}

/// The requests would hold more bytes than the limit.
#[derive(Debug, Error)]
#[error("the requests of all clients hold as much of the service's memory as they may; try again later")]
pub struct BudgetExceeded;

impl Budget {
    /// A budget of `most` bytes, of which none is taken yet.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), most })
    }

    /// A share for one request, which holds no bytes yet.
    pub fn share(self: &Arc<Self>) -> BudgetShare {
        BudgetShare { budget: Arc::clone(self), bytes: 0 }
    }
}

/// The bytes that one request holds. Dropping the share frees the bytes for other requests.
#[derive(Debug)]
pub struct BudgetShare {
    budget: Arc<Budget>,
    bytes: u64,
}

impl BudgetShare {
    /// Takes some more bytes. After an error the caller must drop the share, and the data that the share stands for.
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
