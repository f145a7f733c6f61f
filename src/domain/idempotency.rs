//! Requests that a client may send twice, and that are carried out once.

use serde::{Deserialize, Serialize};

use super::InvocationId;

/// What a client calls a request, to send it again without having it carried out again.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The client's word.
    pub key: String,
    /// Of what was asked for, hexadecimal.
    pub request_sha256: String,
}

/// The answer to a submit or an update, whatever the function is by now.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The function's id.
    pub function_id: String,
    /// Docker's id of the image that was built.
    pub image_id: String,
    /// The number of the version that was made.
    pub version: u32,
    /// The function's name at that time.
    pub name: String,
    /// What the zip has and its author probably does not mean, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// Nothing.
    New,
    /// The same request came before, and came to this.
    Same(T),
    /// Another request bore it.
    Other,
}

/// What became of an invocation that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is.
    Now,
    /// Its key says that it was before, as this one.
    Before(InvocationId),
    /// Its key is another request's.
    OtherRequest,
    /// Its function is not there.
    NoFunction,
    /// It is a new one, for which there was no room.
    NoRoom,
}
