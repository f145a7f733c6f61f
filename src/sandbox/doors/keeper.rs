//! The instance's hold on its doors.

use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::listener::Listener;
use super::thread::{self, Listeners};
use super::{DoorsClosed, DoorsError, Plan};
use crate::egress::Traffic;
use crate::sandbox::descriptors;

/// The longest time in which the thread resets what waits at the doors. Only a bootstrap that is taken over needs more.
/// A busy machine may keep the thread from its processor for some of that time.
const EMPTY_LIMIT: Duration = Duration::from_secs(3);
/// The first and the longest pause between two looks whether the thread has ended.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);
/// The longest time that the thread may take to end. The container is gone long before.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The memory for the thread's stack, in bytes.
const STACK: usize = 256 << 10;

/// The doors of an instance and their thread. A drop resets all connections, closes the doors and ends the thread.
#[derive(Debug)]
pub struct Doorkeeper {
    board: Arc<Board>,
    /// The sockets of the doors; none before the bootstrap has passed the sockets.
    listeners: Listeners,
    /// None after the drop.
    thread: Option<JoinHandle<()>>,
    tasks: TaskTracker,
}

impl Doorkeeper {
    /// Starts the thread, and waits until the thread has received the doors from this socket of a bootstrap.
    pub(super) async fn start(socket: OwnedFd, plan: Arc<Plan>, tasks: TaskTracker) -> Result<Self, DoorsError> {
        let board = Board::new(plan)?;
        let (report, received) = oneshot::channel();
        let of_thread = Arc::clone(&board);
        let thread = std::thread::Builder::new().name("doors".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || thread::run(&of_thread, socket, report)).map_err(DoorsError::Room)?;
        let mut keeper = Self { board, listeners: Listeners::default(), thread: Some(thread), tasks };
        keeper.listeners = received.await.unwrap_or(Err(DoorsError::Gone))?;
        Ok(keeper)
    }

    /// The variables by which programs find the doors.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.board.plan.doors.variables()
    }

    /// Whether the doors can serve a further invocation.
    pub fn is_open(&self) -> bool {
        !self.board.is_closed()
    }

    /// The number of connections that are served.
    #[cfg(test)]
    pub(super) fn connections(&self) -> u32 {
        self.board.connections.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Begins an invocation. Connections that were made before are reset; later connections are served, and count in
    /// `traffic`.
    pub(in crate::sandbox) async fn open(&mut self, traffic: &Traffic) -> Result<(), DoorsClosed> {
        self.settle().await?;
        self.board.open(traffic.clone());
        Ok(())
    }

    /// Ends an invocation, all of whose processes have ended. No connection of the invocation is left when this
    /// function returns.
    ///
    /// # Errors
    /// The doors are of no more use, and the instance must end.
    pub(in crate::sandbox) async fn close(&mut self) -> Result<(), DoorsClosed> {
        if let Some(visit) = self.board.close() {
            visit.end().await;
        }
        self.settle().await
    }

    /// Returns when no connection waits at the doors. That is the case already after most invocations, and costs a call
    /// of poll(2) then.
    async fn settle(&self) -> Result<(), DoorsClosed> {
        let is_settled = if self.is_quiet() {
            self.is_open()
        } else {
            matches!(time::timeout(EMPTY_LIMIT, self.board.empty()).await, Ok(Ok(())))
        };
        // Where a queue was full, the kernel may hold back a connection that nothing shows, and that comes later.
        if is_settled && self.board.take_count() < *thread::LEAST_BACKLOG { Ok(()) } else { Err(DoorsClosed) }
    }

    /// Whether no connection waits at the doors, nor is held by the thread. The look at the doors comes first: what the
    /// thread takes before the look, the thread holds after the look.
    fn is_quiet(&self) -> bool {
        let mut watched: Vec<_> = self.listeners.iter().map(|door| PollFd::new(door, PollFlags::IN)).collect();
        poll(&mut watched, Some(&Timespec::default())) == Ok(0) && !self.board.is_busy()
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        drop(self.board.end());
        if let Some(thread) = self.thread.take() {
            self.tasks.spawn(end(mem::take(&mut self.listeners), thread));
        }
    }
}

/// Closes the doors, and waits for the end of the thread.
async fn end(listeners: Listeners, thread: JoinHandle<()>) {
    let (began, mut pause) = (Instant::now(), FIRST_LOOK);
    loop {
        // A thread that waits in accept(2) goes on. The other side may make the socket listen again.
        listeners.iter().for_each(Listener::shut);
        if thread.is_finished() {
            break;
        }
        if began.elapsed() >= END_LIMIT {
            tracing::error!("a thread at the doors of an instance does not end");
            descriptors::close(listeners);
            return;
        }
        time::sleep(pause).await;
        pause = (2 * pause).min(LAST_LOOK);
    }
    // The other side may have made something else of a socket.
    descriptors::close(listeners);
    if thread.join().is_err() {
        tracing::error!("a thread at the doors of an instance has failed");
    }
}
