//! The header `Idempotency-Key`: a client can send a request with a key again, and the service carries out the request
//! once.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use super::problem::Problem;
use crate::tokens::Access;

const HEADER: &str = "idempotency-key";
const MAX_KEY: usize = 255;

/// The header, as the description of a route has the header.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct KeyHeader {
    /// 1 to 255 visible characters; kept for a day
    #[param(rename = "idempotency-key", pattern = "^[!-~]{1,255}$")]
    idempotency_key: Option<String>,
}

/// The request's key, which belongs to the request's token. An error for a key in a wrong form.
pub(super) fn key(headers: &HeaderMap, access: &Access) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let is_key = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = value.to_str().ok().filter(is_key);
    let key = key.ok_or_else(|| {
        Problem::invalid_request("the header `Idempotency-Key` is not 1 to 255 visible ASCII characters")
    })?;
    Ok(Some(access.own_key(key.to_owned())))
}

/// The SHA-256 of a request's parts, in hexadecimal digits. Other parts never give the same bytes.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}
