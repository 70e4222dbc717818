//! The swarm engine of `swarmdd`: the whole BitTorrent protocol and every decision, and no I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod announce;
pub mod bencode;
pub mod bitfield;
pub mod compact;
pub mod extents;
pub mod http;
pub mod limits;
pub mod metainfo;
pub mod rng;
pub mod text;
pub mod units;
pub mod wire;
