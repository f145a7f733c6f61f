//! The invocations that run now, and their output. A reader that waits for a beginning or an end is notified.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{broadcast, watch};

use crate::domain::{FunctionId, InvocationId};
use crate::sandbox::output::{Output, OutputReader};

/// The largest number of beginnings that a slow reader has not heard of yet.
const MAX_BEGINNINGS: usize = 256;

/// The outputs of the invocations that run.
#[derive(Debug)]
pub struct RunningInvocations {
    running: Mutex<HashMap<InvocationId, (FunctionId, Arc<Output>)>>,
    /// Tells of each invocation that begins.
    beginnings: broadcast::Sender<(FunctionId, InvocationId)>,
    /// The invocations that a reader waits for.
    awaited: Mutex<HashMap<InvocationId, watch::Sender<()>>>,
}

/// A reader's wait for news of an invocation.
#[must_use]
#[derive(Debug)]
pub struct Waiting {
    live: Arc<RunningInvocations>,
    id: InvocationId,
    changes: watch::Receiver<()>,
}

impl Waiting {
    /// Returns once the invocation has begun or ended since the last call.
    pub async fn changed(&mut self) {
        // The sender goes with the last wait.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut awaited = self.live.awaited();
        // This wait still counts.
        if awaited.get(&self.id).is_some_and(|changes| changes.receiver_count() <= 1) {
            awaited.remove(&self.id);
        }
    }
}

/// A running invocation that readers can find. The owner drops this when the outcome is written down.
#[must_use]
#[derive(Debug)]
pub struct Running<'a> {
    live: &'a RunningInvocations,
    id: InvocationId,
    output: Arc<Output>,
}

impl Running<'_> {
    /// The invocation's output.
    pub fn output(&self) -> &Output {
        &self.output
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.live.lock().remove(&self.id);
        self.output.close();
        self.live.tell(self.id);
    }
}

impl Default for RunningInvocations {
    fn default() -> Self {
        let beginnings = broadcast::Sender::new(MAX_BEGINNINGS);
        Self { running: Mutex::default(), beginnings, awaited: Mutex::default() }
    }
}

impl RunningInvocations {
    /// The invocations that begin from now on. A reader that is too slow misses the oldest.
    pub fn beginnings(&self) -> broadcast::Receiver<(FunctionId, InvocationId)> {
        self.beginnings.subscribe()
    }

    /// Begins to show an invocation of a function, with the limit on each stream in bytes.
    pub fn begin(&self, id: InvocationId, function: FunctionId, output_cap: u32) -> Running<'_> {
        let output = Output::new(output_cap as usize);
        self.lock().insert(id, (function, Arc::clone(&output)));
        self.tell(id);
        // Without a reader there is nobody to hear.
        let _ = self.beginnings.send((function, id));
        Running { live: self, id, output }
    }

    /// The stdout and stderr of a running invocation so far; None when the invocation does not run.
    pub fn snapshot(&self, id: InvocationId) -> Option<(Vec<u8>, Vec<u8>)> {
        self.lock().get(&id).map(|(_, output)| output.snapshot())
    }

    /// The function of a running invocation; None when the invocation does not run.
    pub fn function(&self, id: InvocationId) -> Option<FunctionId> {
        self.lock().get(&id).map(|(function, _)| *function)
    }

    /// A reader of a running invocation's output; None when the invocation does not run.
    pub fn subscribe(&self, id: InvocationId) -> Option<OutputReader> {
        self.lock().get(&id).map(|(_, output)| OutputReader::new(Arc::clone(output)))
    }

    /// A wait for the beginning or the end of an invocation. No news after this call is missed.
    pub fn wait_for(self: &Arc<Self>, id: InvocationId) -> Waiting {
        let changes = self.awaited().entry(id).or_default().subscribe();
        Waiting { live: Arc::clone(self), id, changes }
    }

    /// The invocations that readers wait for.
    pub fn awaited_ids(&self) -> Vec<InvocationId> {
        self.awaited().keys().copied().collect()
    }

    /// Notifies the readers that wait for an invocation.
    pub fn tell(&self, id: InvocationId) {
        if let Some(changes) = self.awaited().get(&id) {
            changes.send_replace(());
        }
    }

    /// Notifies all waiting readers, as when a function's deletion removes its invocations.
    pub fn tell_all(&self) {
        self.awaited().values().for_each(|changes| changes.send_replace(()));
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<InvocationId, watch::Sender<()>>> {
        self.awaited.lock()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, (FunctionId, Arc<Output>)>> {
        self.running.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_forgotten_when_gone() {
        let live = Arc::new(RunningInvocations::default());
        let (one, other) = (InvocationId::random(), InvocationId::random());
        let (mut first, mut second) = (live.wait_for(one), live.wait_for(one));
        let function = FunctionId::random();
        let running = live.begin(one, function, 10);
        assert_eq!((live.function(one), live.function(other)), (Some(function), None));
        first.changed().await;
        second.changed().await;
        drop(running);
        first.changed().await;
        let mut third = live.wait_for(other);
        live.tell(one);
        let later = tokio::time::timeout(std::time::Duration::from_millis(20), third.changed());
        later.await.expect_err("that was another invocation");
        live.tell_all();
        third.changed().await;
        drop(first);
        assert_eq!(live.awaited().len(), 2);
        drop((second, third));
        assert_eq!(live.awaited().len(), 0);
    }
}
