//! The kept output of an invocation. Clients may read the output while the function writes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The largest piece that a reader gets at once, in bytes. A late reader gets the earlier output in such pieces.
const MAX_PIECE: usize = 64 << 10;

/// One of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Both streams of one invocation, each kept up to a cap.
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
    /// All kept bytes of stdout and stderr, once the invocation has ended.
    whole: Option<(Bytes, Bytes)>,
    is_closed: bool,
}

impl Output {
    /// An empty output that keeps up to `cap` bytes of each stream.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, kept: Mutex::default(), changed: Notify::new() })
    }

    /// Appends bytes to a stream, and discards the bytes above the cap.
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

    /// Returns all kept bytes of stdout and stderr. No later byte reaches the result.
    pub fn end(&self) -> (Bytes, Bytes) {
        let mut kept = self.kept();
        let whole = (kept.stdout.split().freeze(), kept.stderr.split().freeze());
        // Readers share these bytes.
        kept.whole.get_or_insert(whole).clone()
    }

    /// A copy of the bytes of stdout and stderr that were kept so far.
    pub fn snapshot(&self) -> (Vec<u8>, Vec<u8>) {
        let kept = self.kept();
        (kept.of(Stream::Stdout).to_vec(), kept.of(Stream::Stderr).to_vec())
    }

    /// Tells the readers that no more output comes. The result of the invocation must be known before this call.
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

/// A reader of an output. A reader gets the output from the beginning, and new output as the function writes.
#[derive(Debug)]
pub struct OutputReader {
    output: Arc<Output>,
    /// How many bytes of stdout and stderr the reader has got.
    seen: (usize, usize),
}

impl OutputReader {
    /// A reader that has got nothing yet.
    pub fn new(output: Arc<Output>) -> Self {
        Self { output, seen: (0, 0) }
    }

    /// Waits for the next piece of one stream. Pieces of a stream come in order; the order between streams is not kept.
    /// None when the output is closed and the reader has got all kept bytes.
    pub async fn next(&mut self) -> Option<(Stream, Bytes)> {
        loop {
            let changed = self.output.changed.notified();
            tokio::pin!(changed);
            // Enabled before the look, so that output that arrives between the look and the wait wakes the reader.
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
        assert_eq!(output.end(), (Bytes::from("abcdef"), Bytes::from("e")), "a late caller gets the output");
    }
}
