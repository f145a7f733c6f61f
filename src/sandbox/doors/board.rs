//! What the thread at the doors and the tasks of the service tell each other. No call blocks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tracing::{Instrument, Span};

use super::{DoorsError, Plan};
use crate::egress::Traffic;

/// The state of an instance's doors.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) plan: Arc<Plan>,
    runtime: Handle,
    /// Can be read when the thread has to look at the state.
    wake: OwnedFd,
    /// The number of connections that are served. Only the thread adds a connection.
    pub(super) connections: AtomicU32,
    /// The number of connections that the thread has accepted since the doors were last settled.
    accepted: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The invocation under way. None between invocations.
    visit: Option<Visit>,
    /// The number of the last invocation.
    number: u64,
    /// Whether the thread may hold a connection that is not in a visit yet.
    is_busy: bool,
    /// The thread has ended, as when a socket listens no more.
    is_closed: bool,
    /// The instance has ended.
    has_ended: bool,
    /// Is told when no connection waits at the doors.
    emptied: Option<oneshot::Sender<()>>,
}

/// The connections of an invocation. A drop resets the connections.
#[derive(Debug)]
pub(super) struct Visit {
    number: u64,
    traffic: Traffic,
    span: Span,
    tasks: JoinSet<()>,
}

/// The thread's next wait.
pub(super) struct Rest {
    /// Whether the thread waits for connections, too.
    pub(super) takes: bool,
    /// Whether an invocation is under way.
    pub(super) is_visited: bool,
    /// Whether someone waits until no connection waits at the doors.
    pub(super) is_emptying: bool,
}

/// The right to serve one connection.
#[derive(Debug)]
pub(super) struct Place(Arc<Board>);

impl Visit {
    /// Resets all connections. No connection is left when this function returns.
    pub(super) async fn end(mut self) {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            note_failure(ended);
        }
    }
}

/// Logs a connection's panic.
fn note_failure(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection of a function failed");
    }
}

impl Board {
    pub(super) fn new(plan: Arc<Plan>) -> Result<Arc<Self>, DoorsError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|error| DoorsError::Room(error.into()))?;
        let (connections, accepted, state) = (AtomicU32::new(0), AtomicU32::new(0), Mutex::default());
        Ok(Arc::new(Self { plan, runtime: Handle::current(), wake, connections, accepted, state }))
    }

    /// Begins an invocation, whose connections are served from now on.
    pub(super) fn open(&self, traffic: Traffic) {
        let mut state = self.lock();
        state.number += 1;
        let visit = Visit { number: state.number, traffic, span: Span::current(), tasks: JoinSet::new() };
        state.visit = Some(visit);
    }

    /// Ends the invocation: no further connection is served.
    pub(super) fn close(&self) -> Option<Visit> {
        self.lock().visit.take()
    }

    /// Whether the thread may hold a connection that is in no visit.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy
    }

    /// Notes that the thread has accepted a connection, whatever comes of the connection.
    pub(super) fn count(&self) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of connections that the thread has accepted since the last such call.
    pub(super) fn take_count(&self) -> u32 {
        self.accepted.swap(0, Ordering::SeqCst)
    }

    /// Whether the doors are closed for ever.
    pub(super) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.is_closed || state.has_ended
    }

    /// Has the thread reset all connections that wait. The result fails when the thread has ended.
    pub(super) fn empty(&self) -> oneshot::Receiver<()> {
        let (told, emptied) = oneshot::channel();
        let mut state = self.lock();
        if !state.is_closed {
            state.emptied = Some(told);
        }
        drop(state);
        self.wake();
        emptied
    }

    /// Has the thread end.
    pub(super) fn end(&self) -> Option<Visit> {
        let mut state = self.lock();
        state.has_ended = true;
        state.emptied = None;
        let visit = state.visit.take();
        drop(state);
        self.wake();
        visit
    }

    /// What the thread does next: the thread holds no connection now. None when the thread has to end.
    pub(super) fn rest(&self) -> Option<Rest> {
        let mut state = self.lock();
        state.is_busy = false;
        let has_room = self.connections.load(Ordering::SeqCst) < self.plan.connections;
        let is_visited = state.visit.is_some();
        let rest = Rest { takes: !is_visited || has_room, is_visited, is_emptying: state.emptied.is_some() };
        (!state.has_ended).then_some(rest)
    }

    /// The invocation under way, as the thread is about to accept: all connections that wait at the doors now are of
    /// this invocation, or of none.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        state.is_busy = true;
        state.visit.as_ref().map(|visit| visit.number)
    }

    /// A place for one more connection. Without a place the connection waits at the door.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        if self.connections.load(Ordering::SeqCst) >= self.plan.connections {
            return None;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        Some(Place(Arc::clone(self)))
    }

    /// Serves a connection of the invocation with this number. Resets the connection when that invocation is over.
    pub(super) fn admit(&self, number: u64, door: usize, socket: OwnedFd, place: Place) {
        let mut state = self.lock();
        let Some(visit) = state.visit.as_mut().filter(|visit| visit.number == number) else { return };
        while let Some(ended) = visit.tasks.try_join_next() {
            note_failure(ended);
        }
        let (plan, traffic) = (Arc::clone(&self.plan), visit.traffic.clone());
        let span = tracing::info_span!(parent: &visit.span, "connection", function.id = %plan.function);
        let served = async move {
            let _place = place;
            let door = plan.doors.iter().nth(door).expect("a socket was checked for each door");
            match TcpStream::from_std(socket.into()) {
                Ok(inner) => plan.egress.serve(&door.gate, &plan.network, inner, &traffic).await,
                Err(error) => tracing::warn!(%error, "a connection of a function was reset for want of room"),
            }
        };
        visit.tasks.spawn_on(served.instrument(span), &self.runtime);
    }

    /// No connection waits at the doors, nor does the thread hold a connection.
    pub(super) fn emptied(&self) {
        if let Some(emptied) = self.lock().emptied.take() {
            // Nobody waits any more when the instance has just ended.
            let _ = emptied.send(());
        }
    }

    /// Notes that the thread has ended.
    pub(super) fn note_closed(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.emptied = None;
    }

    /// Can be read from when the thread has to look at the state.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes the bell silent again.
    pub(super) fn hush(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn wake(&self) {
        // The bell rings already when its counter is full.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The thread waits for no connection while there is no place.
        if self.0.connections.fetch_sub(1, Ordering::SeqCst) >= self.0.plan.connections {
            self.0.wake();
        }
    }
}
