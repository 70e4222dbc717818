//! The swarm engine of `swarmdd`: the whole BitTorrent protocol and every decision, and no I/O.
//!
//! This page is the architecture. The crate is a function of its inputs: what happened goes into [`swarm::Swarm`] by
//! `handle_*`, what is to be done comes out by `poll_*`; time and randomness are arguments. Payload never passes through: the
//! core moves tickets, the shell (`src/main.rs` and its neighbours) moves bytes. So a thousand agents fit into one
//! process and one seed (`sim/`).
//!
//! The modules stand in the order of their dependencies; each uses only those above it.
//!
//! ```text
//! words     units, limits, rng, bitfield
//! bytes     text, compact, bencode, extents, metainfo, signatures, wire, http, announce, mbr, gpt
//! choices   ranking (order by a small count), cache (buffers), picker (what to ask for), choker (whom to serve),
//!           throttle (how fast),
//!           peer (one connection), mesh (whom to call), tracker (when to announce, when to go), readback (the proof)
//! the agent swarm
//! ```
//!
//! **The end of the job.** While incomplete, an agent never leaves. Once everything is written, flushed, and read back,
//! it tells the tracker `completed` and seeds, and leaves when the tracker has been unreachable for the grace time.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod units;
pub mod limits;
pub mod rng;
pub mod bitfield;
pub mod text;
pub mod compact;
pub mod bencode;
pub mod extents;
pub mod metainfo;
pub mod signatures;
pub mod contents;
pub mod wire;
pub mod http;
pub mod announce;
pub mod mbr;
pub mod gpt;
pub mod ranking;
pub mod cache;
pub mod picker;
pub mod choker;
pub mod throttle;
pub mod peer;
pub mod mesh;
pub mod tracker;
pub mod inspection;
pub mod swarm;

#[cfg(test)]
mod sim;
