//! The single decisions: which block, of whom, to whom, how fast, and when to ask the tracker.

pub(crate) mod cache;
pub(crate) mod choker;
pub(crate) mod mesh;
mod open_piece;
pub(crate) mod picker;
pub(crate) mod ranking;
pub(crate) mod read_queue;
pub mod throttle;
pub(crate) mod tracker;
