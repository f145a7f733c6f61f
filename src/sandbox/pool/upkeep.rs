//! What the pool does without an event: as time passes, instances expire, callers lose patience and slots are missed.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Pool, policy};

/// The pause between two looks whether slots must start or end.
pub(super) const REFILL_LOOK: Duration = Duration::from_millis(500);

/// The pause between two looks whether the ready slots are alive.
const SLOT_LOOK: Duration = Duration::from_secs(10);

impl Pool {
    /// Ends instances that have been idle for INSTANCE_IDLE_TIMEOUT, and starts instances for callers that wait. Runs
    /// until the pool is stopped.
    pub async fn run(self) {
        let shared = &self.0;
        loop {
            let wake = {
                let mut state = shared.lock();
                state.drop_idle_since(Instant::now(), shared.limits.idle_timeout);
                shared.drop_dead_slots(&mut state);
                shared.rebalance(&mut state);
                let wake = state.waiting() > 0;
                let due = if wake {
                    Instant::now() + policy::PATIENCE / 4
                } else {
                    Instant::now() + shared.limits.idle_timeout
                };
                // The wish for slots becomes less with the time, and idle instances become older.
                let look = match state.slots.phases() {
                    _ if state.is_refill_pending() => Some(REFILL_LOOK),
                    [_, 0, _] => None,
                    [_, _, _] => Some(SLOT_LOOK),
                };
                let due = look.map_or(due, |look| due.min(Instant::now() + look));
                state.next_expiry(shared.limits.idle_timeout).map_or(due, |expiry| expiry.min(due))
            };
            tokio::select! {
                () = time::sleep_until(wake) => {}
                () = shared.wake.notified() => {}
                () = shared.stop.cancelled() => break,
            }
        }
        drop(shared.lock().close());
    }
}
