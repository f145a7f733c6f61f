//! The server-sent events of another node, as they come.

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::connection::{Answer, PeerError};

/// The longest silence. Each node sends a comment after 10 s without an event.
const MAX_SILENCE: Duration = Duration::from_secs(15);
/// The longest line, in bytes. A piece of output has 64 KiB, of which each byte may take six in JSON.
const MAX_LINE: usize = 1 << 20;

/// Events on their way from another node.
#[derive(Debug)]
pub struct Events {
    answer: Answer,
    lines: Lines,
}

impl Events {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, lines: Lines::default() }
    }

    /// The name and the data of the next event. None at the end.
    pub async fn next(&mut self) -> Result<Option<(String, String)>, PeerError> {
        loop {
            if let Some(event) = self.lines.event()? {
                return Ok(Some(event));
            }
            match self.answer.next(MAX_SILENCE).await? {
                Some(piece) => self.lines.rest.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// The lines of events.
#[derive(Debug, Default)]
struct Lines {
    /// What came and is not read yet.
    rest: BytesMut,
    /// The part of the rest that has no end of a line.
    searched: usize,
    name: String,
    data: String,
}

impl Lines {
    /// The next event that is there whole.
    fn event(&mut self) -> Result<Option<(String, String)>, PeerError> {
        while let Some(length) = self.rest[self.searched..].iter().position(|&byte| byte == b'\n') {
            let line = self.rest.split_to(self.searched + length);
            self.rest.advance(1);
            self.searched = 0;
            let line = std::str::from_utf8(&line).map_err(|_| PeerError::Form("a line is not UTF-8"))?;
            if line.is_empty() {
                let event = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !event.0.is_empty() {
                    return Ok(Some(event));
                }
            } else if let Some((field, value)) = line.split_once(':') {
                let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                // A node writes all data of an event into one line. A line without a field's name is a comment.
                match field {
                    "event" => self.name = value,
                    "data" => self.data = value,
                    _ => {}
                }
            }
        }
        self.searched = self.rest.len();
        if self.searched > MAX_LINE { Err(PeerError::Form("a line is too long")) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(lines: &mut Lines, piece: &[u8]) -> Vec<(String, String)> {
        lines.rest.extend_from_slice(piece);
        std::iter::from_fn(|| lines.event().unwrap()).collect()
    }

    #[test]
    fn events_are_whole_wherever_the_pieces_end() {
        let text = b"event: stdout\ndata: \"a: b\"\n\n: still at it\n\nevent: stderr\ndata: \"\"\n\n";
        let expected = [("stdout".to_owned(), "\"a: b\"".to_owned()), ("stderr".to_owned(), "\"\"".to_owned())];
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let found: Vec<_> = text.chunks(size).flat_map(|piece| events(&mut lines, piece)).collect();
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        for _ in 0..16 {
            lines.rest.extend_from_slice(&[b'x'; 64 << 10]);
            assert!(matches!(lines.event(), Ok(None)));
        }
        lines.rest.extend_from_slice(b"x");
        assert!(matches!(lines.event(), Err(PeerError::Form(_))));
    }
}
