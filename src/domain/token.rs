//! Tokens of clients: what a token is called, what the token lets its holder do, and what the store keeps of the token.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{FunctionId, TokenId};

/// A part of the API that a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Sees functions with their code, inputs and outputs.
    Read,
    /// Executes functions.
    Invoke,
    /// Submits, changes and deletes functions.
    Deploy,
    /// Does all that API_TOKEN does.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Read, Self::Invoke, Self::Deploy, Self::Admin];

    /// The scope's name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoke => "invoke",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name. None when no scope has the name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Whether the scope opens all that `other` opens.
    pub fn has(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Admin => true,
                Self::Deploy => other == Self::Read,
                Self::Read | Self::Invoke => false,
            }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A token's name: 1 to 63 of letters, digits, `.`, `_` and `-`, with a letter or a digit first. No two tokens share a
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenName(String);

const MAX_NAME_LENGTH: usize = 63;

impl TokenName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = InvalidTokenName;

    fn from_str(name: &str) -> Result<Self, InvalidTokenName> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = name.len() <= MAX_NAME_LENGTH && name.chars().all(is_name);
        // A path that ends in `.` or `..` would be another path.
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if fits && begins_well { Ok(Self(name.to_owned())) } else { Err(InvalidTokenName) }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text can't be the name of a token.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`name` is not 1 to 63 of letters, digits, `.`, `_` and `-`, with a letter or a digit first")]
pub struct InvalidTokenName;

/// The SHA-256 of a token's text. A text is random, so the hash tells nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token's text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The hash that the store has. None when the text is no hash.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Self(bytes))
    }

    /// The hash as the store has the hash.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// What the store keeps of a token. Nothing but the last use ever changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token's id, which no other token gets, also none of the same name.
    pub id: TokenId,
    /// The token's name.
    pub name: TokenName,
    /// The hash of the token's text.
    pub hash: TokenHash,
    /// The scopes that the token has.
    pub scopes: BTreeSet<Scope>,
    /// The only functions that the token's holder sees; None for all functions.
    pub functions: Option<BTreeSet<FunctionId>>,
    /// In Unix milliseconds.
    pub created_at: u64,
    /// The time from which on the token is refused, in Unix seconds.
    pub expires_at: Option<u64>,
    /// The last use that is written down, in Unix seconds.
    pub last_used: Option<u64>,
}

/// What became of a new token in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The token is in the store, by the change with this number.
    Now(u64),
    /// Another token has the name.
    Taken,
    /// There are as many tokens as there may be.
    Full,
}

/// There is no token of this name.
#[derive(Debug, Error)]
#[error("no token has the name {0:?}; GET /api/tokens lists those there are")]
pub struct UnknownToken(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_itself_and_what_is_below() {
        let has = |scope: Scope| Scope::ALL.into_iter().filter(|&other| scope.has(other)).collect::<Vec<_>>();
        assert_eq!(has(Scope::Read), [Scope::Read]);
        assert_eq!(has(Scope::Invoke), [Scope::Invoke]);
        assert_eq!(has(Scope::Deploy), [Scope::Read, Scope::Deploy]);
        assert_eq!(has(Scope::Admin), Scope::ALL);
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
        }
        assert_eq!(Scope::from_name("write"), None);
    }

    #[test]
    fn names_can_stand_in_a_path() {
        for good in ["ci", "7", "a.b_c-D", &"x".repeat(63)] {
            assert_eq!(good.parse::<TokenName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "a b", "a/b", "é", "a\n", &"x".repeat(64)] {
            assert_eq!(bad.parse::<TokenName>(), Err(InvalidTokenName), "{bad}");
        }
    }

    #[test]
    fn a_hash_is_stored_as_digits() {
        let hash = TokenHash::of("abc");
        assert_eq!(hash.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(TokenHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(TokenHash::from_hex("ba78"), None);
    }
}
