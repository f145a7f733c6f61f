//! The output of an invocation. An output is kept up to a cap, and clients may read the output while the function
//! writes; or stdout flows through to one reader, as fast as the reader takes the bytes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The largest piece that a reader gets at once, in bytes. A late reader gets the earlier output in such pieces.
const MAX_PIECE: usize = 64 << 10;
/// From this size on, the stdout that waits for the reader of a flow holds back the function, in bytes.
const FLOW: usize = 256 << 10;

/// One of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Both streams of one invocation, each kept up to a cap, but for a stdout that flows.
#[derive(Debug)]
pub struct Output {
    cap: usize,
    /// Whether stdout is whole, and leaves as the reader takes the bytes.
    flows: bool,
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
    /// Bytes above the cap were discarded.
    is_truncated: bool,
}

impl Output {
    /// An empty output that keeps up to `cap` bytes of each stream.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, flows: false, kept: Mutex::default(), changed: Notify::new() })
    }

    /// An empty output whose stdout goes to the caller of [`Output::take`], and that keeps up to `cap` bytes of stderr.
    pub fn flow(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, flows: true, kept: Mutex::default(), changed: Notify::new() })
    }

    /// Whether stdout flows through.
    pub fn flows(&self) -> bool {
        self.flows
    }

    /// Appends bytes to a stream, and discards the bytes above the cap.
    pub fn keep(&self, stream: Stream, bytes: &[u8]) {
        let mut kept = self.kept();
        let of_stream = match stream {
            Stream::Stdout => &mut kept.stdout,
            Stream::Stderr => &mut kept.stderr,
        };
        let cap = if self.flows && stream == Stream::Stdout { usize::MAX } else { self.cap };
        let room = cap.saturating_sub(of_stream.len());
        of_stream.extend_from_slice(&bytes[..bytes.len().min(room)]);
        kept.is_truncated |= bytes.len() > room;
        drop(kept);
        self.changed.notify_waiters();
    }

    /// Waits until the reader of a flow has taken so much that the function may go on.
    pub async fn room(&self) {
        if !self.flows {
            return;
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.kept().stdout.len() < FLOW {
                return;
            }
            changed.await;
        }
    }

    /// Takes the next bytes of a stdout that flows. None when the output is closed and all bytes are taken.
    pub async fn take(&self) -> Option<Bytes> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut kept = self.kept();
                if !kept.stdout.is_empty() {
                    let taken = kept.stdout.split().freeze();
                    drop(kept);
                    self.changed.notify_waiters();
                    return Some(taken);
                }
                if kept.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Whether bytes above the cap were discarded.
    pub fn is_truncated(&self) -> bool {
        self.kept().is_truncated
    }

    /// Returns all kept bytes of stdout and stderr; of a stdout that flows, none. No later byte reaches the result.
    pub fn end(&self) -> (Bytes, Bytes) {
        let mut kept = self.kept();
        if self.flows {
            return (Bytes::new(), kept.stderr.split().freeze());
        }
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
    async fn a_flow_holds_back_the_function_and_loses_nothing() {
        let output = Output::flow(3);
        output.keep(Stream::Stderr, b"error");
        let mut whole = Vec::new();
        let writer = async {
            for n in 0..20_u8 {
                output.room().await;
                assert!(output.kept().stdout.len() < FLOW);
                output.keep(Stream::Stdout, &[n; MAX_PIECE]);
            }
            assert_eq!(output.end(), (Bytes::new(), Bytes::from("err")));
            output.close();
        };
        let reader = async {
            while let Some(bytes) = output.take().await {
                whole.extend(bytes);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writer, reader);
        let sent: Vec<u8> = (0..20).flat_map(|n| [n; MAX_PIECE]).collect();
        assert!(whole == sent && output.is_truncated());
    }

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
