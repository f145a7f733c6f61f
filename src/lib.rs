//! YouTube Serverless Platform.

pub mod app;
pub mod builder;
pub mod config;
pub mod deploy;
pub mod docker;
pub mod health;
pub mod http;
pub mod instance;
pub mod invoke;
pub mod package;
pub mod platform;
pub mod pool;
pub mod protocol;
pub mod registry;
pub mod runtime;
pub mod sweep;
pub mod telemetry;
pub mod types;
