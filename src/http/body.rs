//! The bodies of requests: JSON, forms with a zip, and settings in either.

pub(super) mod json;
pub(super) mod settings;
pub(super) mod upload;
