//! Removes secret values from logs and answers. Pure.

use crate::config::Secret;

/// The text that replaces a secret.
const MASK: &str = "***";
/// The shortest part that is masked, in bytes. To mask a shorter part would garble each line.
const MIN_PART: usize = 4;

/// The texts that must not be seen.
#[derive(Clone, Default)]
pub struct Mask {
    /// The longest text comes first, because a text may be a part of another.
    hidden: Vec<String>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(mask of {})", self.hidden.len())
    }
}

impl Mask {
    /// A mask that hides these values, each line of a value, and the credentials in URLs.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut hidden = Vec::new();
        for Secret(value) in values {
            // Values such as `off` and `1` are no secrets, and their mask would garble each line.
            let lines = value.lines().map(str::trim).chain([value.as_str()]);
            hidden.extend(lines.filter(|part| part.len() >= MIN_PART).map(str::to_owned));
            for word in value.split(|c: char| c.is_whitespace() || c == ',' || c == '|') {
                let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let Some((user, _)) = authority.rsplit_once('@') else { continue };
                let password = user.split_once(':').map_or(user, |(_, password)| password);
                let parts = [user, password].map(str::to_owned).into_iter().chain([decoded(password)]);
                hidden.extend(parts.filter(|part| part.len() >= MIN_PART));
                // A URL with credentials is hidden whatever the length of the credentials.
                hidden.push(word.to_owned());
            }
        }
        hidden.retain(|value| !value.is_empty());
        hidden.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        hidden.dedup();
        Self { hidden }
    }

    /// Replaces each secret in a text.
    pub fn cover(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, value| {
            if text.contains(value.as_str()) { text.replace(value.as_str(), MASK) } else { text }
        })
    }
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_what_is_secret_in_their_urls_are_hidden() {
        let values = ["https://me:p%40ssword@index.example.org/simple https://abcdefgh@other.example.org/", "off"];
        let values = values.map(|value| Secret(value.to_owned()));
        let mask = Mask::new(&values);
        for said in [
            "p%40ssword",
            "p@ssword",
            "https://me:p%40ssword@index.example.org/simple",
            "https://me:p%40ssword@index.example.org/simple/six/",
            "https://abcdefgh@other.example.org/six",
        ] {
            let covered = mask.cover(&format!("error: {said}!"));
            assert!(covered.starts_with("error: ") && covered.contains("***"), "{covered}");
            assert!(!covered.contains("ssword") && !covered.contains("abcdefgh"), "{covered}");
        }
        let values = ["first-secret\n second-secret\nx", "me:pass-word@proxy.example.org:8080", "off", "a:b@c"];
        let other = Mask::new(&values.map(|value| Secret(value.to_owned())));
        assert_eq!(other.cover("second-secret, then first-secret off x"), "***, then *** off x");
        assert_eq!(
            other.cover("proxy http://me:pass-word@proxy.example.org, pass-word, a:b@c"),
            "proxy http://***@proxy.example.org, ***, ***"
        );
        assert_eq!(mask.cover("from https://index.example.org/simple"), "from https://index.example.org/simple");
        assert!(!format!("{mask:?}").contains("ssword"));
        assert_eq!(Mask::default().cover("as it is"), "as it is");
    }
}
