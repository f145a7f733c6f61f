//! The thread at the doors of an instance.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::board::Board;
use super::listener::{Accepted, Listener};
use super::{DoorsError, receipt};

/// How long the thread waits when the service can take no connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The number of such waits in a row that one line of the log tells of.
const PAUSES_TOLD: u32 = 600;

/// The connections of an instance's programs that are served at once, and then each second. More wait. A program that
/// connects in circles would use up this machine's ports for a host, which all functions share, and would flood the
/// name servers.
pub(super) const BURST: u32 = 400;
const PER_SECOND: u32 = 100;

/// The sockets of all doors, in the order of the doors.
pub(super) type Listeners = Arc<[Listener]>;

/// The least number of connections that fill the queue of a door. The bootstraps ask for a queue of 4096. Before Linux
/// 5.4 a network of a container has no longer queues than 128.
pub(super) static LEAST_BACKLOG: LazyLock<u32> = LazyLock::new(|| {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 4) { 4096 } else { 128 }
});

/// Receives the sockets from the bootstrap, and serves the sockets until the end of the instance.
pub(super) fn run(board: &Arc<Board>, socket: OwnedFd, received: oneshot::Sender<Result<Listeners, DoorsError>>) {
    let listeners = receive(board, &socket);
    // The instance's own end of the socket stays.
    drop(socket);
    match listeners {
        Ok(listeners) => {
            if received.send(Ok(Arc::clone(&listeners))).is_ok() {
                serve(board, &listeners);
            }
        }
        Err(error) => drop(received.send(Err(error))),
    }
}

fn receive(board: &Board, socket: &OwnedFd) -> Result<Listeners, DoorsError> {
    while board.rest().is_some() {
        let ready = wait(board, std::slice::from_ref(socket), None);
        if !ready.map_err(|error| DoorsError::Room(error.into()))?.is_empty()
            && let Some(listeners) = receipt::take(socket, &board.plan.doors)?
        {
            return Ok(listeners.into());
        }
    }
    Err(DoorsError::Gone)
}

/// Tells the board of the thread's end, whatever the end.
struct End<'a>(&'a Board);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.note_closed();
    }
}

fn serve(board: &Arc<Board>, listeners: &[Listener]) {
    let _end = End(board);
    let (mut is_lacking, mut lacks, mut pace) = (false, 0_u32, Pace::new());
    while let Some(rest) = board.rest() {
        let pause = match is_lacking {
            true => Some(PAUSE),
            false => rest.is_visited.then(|| pace.pause()).flatten(),
        };
        let watched = if rest.takes && pause.is_none() { listeners } else { &[] };
        let limit = pause.or(rest.is_emptying.then_some(Duration::ZERO));
        let Ok(ready) = wait(board, watched, limit) else { continue };
        if ready.is_empty() && rest.is_emptying && watched.len() == listeners.len() {
            board.emptied();
        }
        let visit = board.begin();
        let mut take = |door| accept(board, &listeners[door], door, visit, &mut pace);
        let lack = ready.into_iter().map(&mut take).find(Option::is_some).flatten();
        match lack {
            Some(Trouble::Closed) => return,
            Some(Trouble::Lack(error)) => {
                if lacks.is_multiple_of(PAUSES_TOLD) {
                    tracing::warn!(function.id = %board.plan.function, %error, "a function's connections wait");
                }
                (is_lacking, lacks) = (true, lacks.wrapping_add(1));
            }
            None if is_lacking => is_lacking = false,
            None => lacks = 0,
        }
    }
}

/// How fast connections are served.
struct Pace {
    /// When all connections so far would have been served at the steady rate.
    due: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { due: Instant::now() }
    }

    /// The time until the next connection may be served. None where that is now.
    fn pause(&self) -> Option<Duration> {
        let ahead = self.due.saturating_duration_since(Instant::now());
        ahead.checked_sub(Duration::from_secs(1) * BURST / PER_SECOND).filter(|pause| !pause.is_zero())
    }

    /// Notes a connection of an invocation.
    fn note(&mut self) {
        self.due = self.due.max(Instant::now()) + Duration::from_secs(1) / PER_SECOND;
    }
}

enum Trouble {
    Lack(Errno),
    Closed,
}

/// Takes one connection at a door, for the invocation of this number. Without an invocation the connection is reset.
fn accept(
    board: &Arc<Board>,
    listener: &Listener,
    door: usize,
    visit: Option<u64>,
    pace: &mut Pace,
) -> Option<Trouble> {
    let place = match visit {
        Some(number) => Some((number, board.place()?)),
        None => None,
    };
    let socket = match listener.accept() {
        Accepted::Connection(socket) => socket,
        Accepted::Nothing => return None,
        Accepted::Lack(error) => return Some(Trouble::Lack(error)),
        Accepted::Closed => return Some(Trouble::Closed),
    };
    board.count();
    if let Some((number, place)) = place {
        pace.note();
        board.admit(number, door, socket, place);
    }
    None
}

/// Waits until one of the sockets is ready or the bell rings, for as long as `limit`. Returns the ready sockets.
fn wait(board: &Board, sockets: &[impl AsFd], limit: Option<Duration>) -> Result<Vec<usize>, Errno> {
    let bell = board.bell();
    let mut watched = vec![PollFd::new(&bell, PollFlags::IN)];
    watched.extend(sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
    let limit = limit.map(|limit| Timespec::try_from(limit).expect("the limits are short"));
    while let Err(error) = poll(&mut watched, limit.as_ref()) {
        if error != Errno::INTR {
            // Without memory for a wait, too, the thread must not run in circles.
            std::thread::sleep(PAUSE);
            return Err(error);
        }
    }
    if !watched[0].revents().is_empty() {
        board.hush();
    }
    let ready = watched[1..].iter().enumerate().filter(|(_, socket)| !socket.revents().is_empty());
    Ok(ready.map(|(place, _)| place).collect())
}
