//! The ids of functions, versions, invocations, tokens and images, and what is said where there is none.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// Defines a type for one kind of id. An id is a UUID in its hyphenated form, which is the form that clients know.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $(#[$error_doc:meta])* $error:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new, random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == uuid::fmt::Hyphenated::LENGTH => Ok(Self(uuid)),
                    _ => Err($error(text.chars().take(64).collect())),
                }
            }
        }

        $(#[$error_doc])*
        #[derive(Debug, Error)]
        #[error("`{0}` is not {what}, which is a UUID such as 123e4567-e89b-42d3-a456-426614174000", what = $what)]
        pub struct $error(String);
    };
}

id!(
    /// Identifies a function for its whole life.
    FunctionId,
    /// The text is not the id of a function.
    NotAFunctionId,
    "a function id"
);
id!(
    /// Identifies an invocation.
    InvocationId,
    /// The text is not the id of an invocation.
    NotAnInvocationId,
    "an invocation id"
);
id!(
    /// Identifies a token of a client.
    TokenId,
    /// The text is not the id of a token.
    NotATokenId,
    "a token id"
);

/// Identifies a version of a function: what was built of one zip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    /// The function's id.
    pub function: FunctionId,
    /// The version's number: from 1 on, in the order of the requests. A failed build leaves a gap.
    pub number: u32,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.function, self.number)
    }
}

/// Docker's content id of an image, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageId(String);

impl ImageId {
    /// None when the text is not such an id.
    pub fn parse(text: &str) -> Option<Self> {
        is_sha256(text).then(|| Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The digest of an image's manifest in a registry, `sha256:` and 64 hexadecimal digits. Unlike a tag, a digest never
/// names another image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDigest(String);

impl ImageDigest {
    /// None when the text is not such a digest.
    pub fn parse(text: &str) -> Option<Self> {
        is_sha256(text).then(|| Self(text.to_owned()))
    }

    /// The digest's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_sha256(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// There is no function of this id.
#[derive(Clone, Debug, Error)]
#[error("no function with id {0}; GET /api/functions lists those there are")]
pub struct UnknownFunction(pub FunctionId);

/// There is no such version.
#[derive(Debug, Error)]
#[error("there is no version {} of function {}; GET /api/functions/{}/versions lists those there \
         are", .0.number, .0.function, .0.function)]
pub struct UnknownVersion(pub VersionId);

/// There is no invocation of this id.
#[derive(Debug, Error)]
#[error("no invocation with id {0}; it may have been forgotten after INVOCATION_RETENTION, or with its function")]
pub struct UnknownInvocation(pub InvocationId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyphenated_uuids_are_ids() {
        assert!("123e4567-e89b-42d3-a456-426614174000".parse::<FunctionId>().is_ok());
        assert!("123e4567e89b42d3a456426614174000".parse::<FunctionId>().is_err());
        assert!("{123e4567-e89b-42d3-a456-426614174000}".parse::<FunctionId>().is_err());
        assert!("".parse::<FunctionId>().is_err());
    }
}
