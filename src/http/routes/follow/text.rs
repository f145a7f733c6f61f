//! Output as text.

/// Bytes that become text piece by piece. An incomplete character waits for its rest.
#[derive(Debug, Default)]
pub(super) struct Text {
    rest: Vec<u8>,
}

impl Text {
    /// The text that is whole with these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        // A last character that is only incomplete, and not wrong, may become right.
        let unfinished = self.rest.utf8_chunks().last().map_or(0, |last| match std::str::from_utf8(last.invalid()) {
            Err(error) if error.error_len().is_none() => last.invalid().len(),
            Ok(_) | Err(_) => 0,
        });
        let rest = self.rest.split_off(self.rest.len() - unfinished);
        String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)).into_owned()
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut text = Text::default();
        let mut found: Vec<String> = pieces.iter().map(|piece| text.push(piece)).collect();
        found.push(text.rest());
        assert_eq!(found, expected);
    }

    #[test]
    fn characters_are_told_whole() {
        check(&[b"a", "é".as_bytes()], &["a", "é", ""]);
        check(&[b"a\xc3", b"\xa9b"], &["a", "éb", ""]);
        check(&[b"\xf0\x9f", b"\x98", b"\x80"], &["", "", "😀", ""]);
        check(&[b"a\xffb"], &["a\u{fffd}b", ""]);
        check(&[b"a\xff\xc3", b"\xa9"], &["a\u{fffd}", "é", ""]);
        check(&[b"a\xc3"], &["a", "\u{fffd}"]);
    }
}
