//! Doors: what a function may reach.

mod door;

pub use door::{Door, Doors, Gate};
