//! Which invocations run now, and what they write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::output::{Onlooker, Output};
use crate::types::InvocationId;

/// The outputs of the invocations that run.
#[derive(Debug, Default)]
pub struct Live {
    running: Mutex<HashMap<InvocationId, Arc<Output>>>,
}

/// An invocation, for as long as it can be looked at here. To be dropped when what it came to is known elsewhere.
#[must_use]
#[derive(Debug)]
pub struct Running<'a> {
    live: &'a Live,
    id: InvocationId,
    output: Arc<Output>,
}

impl Running<'_> {
    /// What it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.live.lock().remove(&self.id);
        self.output.close();
    }
}

impl Live {
    /// Begins to show an invocation, of which so many bytes of each stream are kept.
    pub fn begin(&self, id: InvocationId, output_cap: u32) -> Running<'_> {
        let output = Output::new(output_cap as usize);
        self.lock().insert(id, Arc::clone(&output));
        Running { live: self, id, output }
    }

    /// What an invocation has written so far, if it runs: stdout and stderr.
    pub fn so_far(&self, id: InvocationId) -> Option<(Vec<u8>, Vec<u8>)> {
        self.lock().get(&id).map(|output| output.so_far())
    }

    /// Looks at an invocation, if it runs.
    pub fn look_at(&self, id: InvocationId) -> Option<Onlooker> {
        self.lock().get(&id).map(|output| Onlooker::new(Arc::clone(output)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, Arc<Output>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
