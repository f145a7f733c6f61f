//! The bodies of requests: JSON, forms with a zip and its function.toml, and settings in each.

pub(super) mod json;
pub(super) mod manifest;
pub(super) mod settings;
pub(super) mod upload;
