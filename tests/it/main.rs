//! Tests of the whole service: real HTTP, real zips, a real Docker engine. `make test` prepares both.

mod api;
mod builds;
mod input;
mod lifecycle;
mod outcomes;
mod sandbox;
mod support;
mod tidy;
mod uploads;
