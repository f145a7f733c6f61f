//! Why a request is not let in, and why tokens can't be changed.

use thiserror::Error;
use tokio::task::JoinError;

use crate::domain::{Scope, TokenName, UnknownFunction, UnknownToken};
use crate::nodes::{CutOff, Unacknowledged};
use crate::store::StoreError;

/// The reason why a request is not let in, or must not do what the request asks for.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The request shows no token, or a token that does not exist.
    #[error("the request shows no token of this service")]
    Unknown,
    /// The token's time is over.
    #[error("the token {0} has expired; an admin makes a new token (POST /api/tokens)")]
    Expired(TokenName),
    /// This node does not know whether the token still exists.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// The token lacks a scope.
    #[error(
        "the token {token} lacks the scope `{lacks}`, which this needs; an admin makes a token that has the scope \
             (POST /api/tokens)"
    )]
    Scope {
        /// The token's name.
        token: TokenName,
        /// The scope that is needed.
        lacks: Scope,
    },
    /// The token is for some functions, and the request is about all.
    #[error(
        "the token {0} is for some functions only, and this concerns all functions; an admin makes a token \
             without `functions` (POST /api/tokens)"
    )]
    Limited(TokenName),
    /// The request does not see the function.
    #[error(transparent)]
    Function(#[from] UnknownFunction),
}

impl Refusal {
    /// The reason in a word, as metrics have the reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired(_) => "expired",
            Self::CutOff(_) => "cut_off",
            Self::Scope { .. } => "scope",
            Self::Limited(_) | Self::Function(_) => "functions",
        }
    }
}

/// The reason why a token can't be made or deleted.
#[derive(Debug, Error)]
pub enum TokenError {
    /// API_TOKEN is not set.
    #[error(
        "without API_TOKEN this service asks nobody for a token, so tokens would protect nothing: set API_TOKEN, \
             and start the service again"
    )]
    Off,
    /// Another token has the name.
    #[error("there is a token {0} already; delete that token, or give the new one another name")]
    Taken(TokenName),
    /// There are as many tokens as there may be.
    #[error("there are {0} tokens, and there may be no more; delete those that nobody needs")]
    TooMany(u32),
    /// There is no such token.
    #[error(transparent)]
    Unknown(#[from] UnknownToken),
    /// The store does not read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change is made, and not all nodes know of it yet.
    #[error(transparent)]
    Unacknowledged(#[from] Unacknowledged),
    /// The change's task died.
    #[error("the change of a token did not come to its end")]
    Died(#[from] JoinError),
}
