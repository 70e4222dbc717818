//! The single decisions: which block, of whom, to whom, how fast, and when to ask the tracker.

pub mod cache;
pub mod choker;
pub mod mesh;
mod open_piece;
pub mod picker;
pub mod ranking;
pub mod read_queue;
pub mod throttle;
pub mod tracker;
