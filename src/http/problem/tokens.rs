//! The problems of tokens.

use axum::http::StatusCode;

use super::Problem;
use crate::domain::UnknownToken;
use crate::telemetry::metrics;
use crate::tokens::{Refusal, TokenError};

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        metrics::token_refusal(refusal.reason());
        match refusal {
            Refusal::Unknown => Self::unauthorized(),
            Refusal::Expired(_) => Self::new(StatusCode::UNAUTHORIZED, "token_expired", refusal),
            Refusal::CutOff(error) => error.into(),
            Refusal::Scope { .. } | Refusal::Limited(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", refusal),
            Refusal::Function(error) => error.into(),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Off => Self::new(StatusCode::CONFLICT, "tokens_off", error),
            TokenError::Taken(_) => Self::new(StatusCode::CONFLICT, "name_taken", error),
            TokenError::TooMany(_) => Self::new(StatusCode::CONFLICT, "too_many_tokens", error),
            TokenError::Unknown(error) => error.into(),
            TokenError::Store(error) => error.into(),
            TokenError::Unacknowledged(error) => error.into(),
            TokenError::Died(error) => error.into(),
        }
    }
}

impl From<UnknownToken> for Problem {
    fn from(error: UnknownToken) -> Self {
        Self::new(StatusCode::NOT_FOUND, "token_not_found", error)
    }
}
