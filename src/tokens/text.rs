//! The text of a token, which its holder shows.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

use crate::domain::TokenHash;

/// How every token begins, so that a scanner for secrets finds a token that is in the wrong place.
const PREFIX: &str = "ysp_";
/// 256 random bits.
const BYTES: usize = 32;

/// A token's text: `ysp_` and 64 hexadecimal digits. The debug form does not show the text.
pub struct TokenText(String);

impl TokenText {
    /// A new text.
    pub(super) fn random() -> Self {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the kernel has random numbers");
        Self(format!("{PREFIX}{}", hex::encode(bytes)))
    }

    /// Whether a text has the form of a token, whether or not the token exists.
    pub fn is_one(text: &str) -> bool {
        let digits = text.strip_prefix(PREFIX).unwrap_or_default();
        digits.len() == 2 * BYTES && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_long_random_and_known_by_its_form() {
        let (one, other) = (TokenText::random(), TokenText::random());
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(one.as_str().len(), 68);
        assert!(TokenText::is_one(one.as_str()));
        let upper = one.as_str().to_uppercase();
        for text in ["", "ysp_", "s3cret", &one.as_str()[1..], &format!("{}0", one.as_str()), &upper] {
            assert!(!TokenText::is_one(text), "{text}");
        }
        assert_eq!(format!("{one:?}"), "TokenText");
    }
}
