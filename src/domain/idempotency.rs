//! Requests that a client may send twice, and that are carried out once.

use serde::{Deserialize, Serialize};

use super::InvocationId;
use crate::config::Secret;

/// A client's name for a request. The service carries out a request with a known key only once.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The value of the `Idempotency-Key` header.
    pub key: String,
    /// The SHA-256 of the request, in hexadecimal digits.
    pub request_sha256: String,
}

/// The answer to a submit or an update. Later changes of the function do not change the answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The function's id.
    pub function_id: String,
    /// Docker's id of the new image.
    pub image_id: String,
    /// The number of the new version.
    pub version: u32,
    /// The function's name at that time.
    pub name: String,
    /// Warnings for the author: parts of the zip that probably do not do what the author means.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The key of the function's notifications, where the request has made the key. The store does not keep the key
    /// with the answer, so a repetition of the request does not show the key again.
    #[serde(skip)]
    pub notify_secret: Option<Secret>,
}

/// The store's knowledge of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// No request had the key. This node has the key now.
    New,
    /// The same request had the key, and this is its result.
    Same(T),
    /// Another request had the key.
    Other,
    /// A request with the key is being carried out.
    InProgress,
}

/// The result of queueing an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The invocation is queued.
    Now,
    /// The same request was queued before, as this invocation.
    Before(InvocationId),
    /// Another request had the key.
    OtherRequest,
    /// There is no such function.
    NoFunction,
    /// The queue is full (ASYNC_QUEUE_LIMIT).
    NoRoom,
}
