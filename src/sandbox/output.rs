//! What an invocation writes, as far as it is kept, while it writes it. Others may look on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Who comes late sees what there is bit by bit, in bytes.
const MAX_PIECE: usize = 64 << 10;

/// One of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Both streams of one invocation, each up to a cap.
#[derive(Debug)]
pub struct Output {
    cap: usize,
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    stdout: BytesMut,
    stderr: BytesMut,
    /// All of both, once that is so.
    whole: Option<(Bytes, Bytes)>,
    is_closed: bool,
}

impl Output {
    /// Keeps as many bytes of each stream.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, kept: Mutex::default(), changed: Notify::new() })
    }

    /// Keeps what is within the cap.
    pub fn keep(&self, stream: Stream, bytes: &[u8]) {
        let mut kept = self.kept();
        let of_stream = match stream {
            Stream::Stdout => &mut kept.stdout,
            Stream::Stderr => &mut kept.stderr,
        };
        let room = self.cap.saturating_sub(of_stream.len());
        of_stream.extend_from_slice(&bytes[..bytes.len().min(room)]);
        drop(kept);
        self.changed.notify_waiters();
    }

    /// All of stdout and stderr, after which nothing is kept any more.
    pub fn end(&self) -> (Bytes, Bytes) {
        let mut kept = self.kept();
        let whole = (kept.stdout.split().freeze(), kept.stderr.split().freeze());
        // Shared with who looks on, not copied.
        kept.whole.get_or_insert(whole).clone()
    }

    /// What was written so far.
    pub fn snapshot(&self) -> (Vec<u8>, Vec<u8>) {
        let kept = self.kept();
        (kept.of(Stream::Stdout).to_vec(), kept.of(Stream::Stderr).to_vec())
    }

    /// Tells who looks on that nothing comes any more, and that all that is to be known of the invocation is.
    pub fn close(&self) {
        self.kept().is_closed = true;
        self.changed.notify_waiters();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }
}

impl Kept {
    fn of(&self, stream: Stream) -> &[u8] {
        match (stream, &self.whole) {
            (Stream::Stdout, None) => &self.stdout,
            (Stream::Stderr, None) => &self.stderr,
            (Stream::Stdout, Some((stdout, _))) => stdout,
            (Stream::Stderr, Some((_, stderr))) => stderr,
        }
    }
}

/// Someone who looks on: sees all from the beginning, and what comes as it comes.
#[derive(Debug)]
pub struct OutputReader {
    output: Arc<Output>,
    /// How much of stdout and stderr was seen.
    seen: (usize, usize),
}

impl OutputReader {
    /// Has seen nothing yet.
    pub fn new(output: Arc<Output>) -> Self {
        Self { output, seen: (0, 0) }
    }

    /// What comes next, of one stream; in their order within a stream, not between them. None when it is over.
    pub async fn next(&mut self) -> Option<(Stream, Bytes)> {
        loop {
            let changed = self.output.changed.notified();
            tokio::pin!(changed);
            // Before it is looked: what comes in between wakes it.
            changed.as_mut().enable();
            {
                let kept = self.output.kept();
                for (stream, seen) in [(Stream::Stdout, &mut self.seen.0), (Stream::Stderr, &mut self.seen.1)] {
                    let new = &kept.of(stream)[*seen..];
                    let new = &new[..new.len().min(MAX_PIECE)];
                    if !new.is_empty() {
                        *seen += new.len();
                        return Some((stream, Bytes::copy_from_slice(new)));
                    }
                }
                if kept.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_onlooker_sees_all_and_the_end() {
        let output = Output::new(6);
        output.keep(Stream::Stdout, b"ab");
        let mut onlooker = OutputReader::new(Arc::clone(&output));
        assert_eq!(onlooker.next().await.unwrap(), (Stream::Stdout, Bytes::from("ab")));
        let writer = async {
            tokio::task::yield_now().await;
            output.keep(Stream::Stderr, b"e");
            tokio::task::yield_now().await;
            output.keep(Stream::Stdout, b"cdefgh");
            assert_eq!(output.end(), (Bytes::from("abcdef"), Bytes::from("e")));
            tokio::task::yield_now().await;
            output.close();
        };
        let onlooking = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some((stream, bytes)) = onlooker.next().await {
                if stream == Stream::Stdout { stdout.extend(bytes) } else { stderr.extend(bytes) }
            }
            (stdout, stderr)
        };
        let (seen, ()) = tokio::join!(onlooking, writer);
        assert_eq!(seen, (b"cdef".to_vec(), b"e".to_vec()));
        assert_eq!(output.end(), (Bytes::from("abcdef"), Bytes::from("e")), "it is there for who comes late");
    }
}
