//! The single decisions: which block, from which peer, to which peer, how fast, and when to
//! announce?
//!
//! `picker` chooses the blocks to request, with `open_piece` and `ranking` as its memory. `choker`
//! chooses the peers to serve, `mesh` those to connect to, `seats` those that make room, `blame`
//! those to keep away from, `subnet` says who may take part, `room` who of a room fetches through
//! its router, `throttle` keeps to the rate limits, `load` decides when blocks are compressed, and
//! `tracker` when to announce. `cache` decides what the buffers hold, `read_queue` which chunks are
//! read and hashed in a scan or a read-back, `spare_time` whether the disk has time for it. `marks`
//! says how a piece is checked before it is whole.

pub(crate) mod blame;
pub mod cache;
pub(crate) mod choker;
pub mod load;
pub(crate) mod marks;
pub(crate) mod mesh;
mod open_piece;
pub(crate) mod picker;
pub(crate) mod ranking;
pub mod read_queue;
pub(crate) mod room;
pub mod seats;
pub(crate) mod spare_time;
pub mod subnet;
pub mod throttle;
pub(crate) mod tracker;
