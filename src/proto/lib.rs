//! The swarm engine of `swarmdd`: the whole BitTorrent protocol and every decision, and no I/O.
//!
//! This page is the architecture. The crate is a function of its inputs: what happened goes into
//! [`swarm::Swarm`] through `handle_*`, what is to be done comes out of `poll_*`, and time and
//! randomness are arguments. Payload never passes through: the core moves tickets, the shell
//! (`src/main.rs` and its neighbours) moves bytes. So a thousand agents fit into one process and
//! repeat exactly from one seed (`sim/`).
//!
//! Folders are layers. Each uses only those above it in this list.
//!
//! ```text
//! units limits rng bitfield vec_map text size   what the layers below are made of
//! format/    bytes at rest: torrent files, partition tables, signatures
//! wire/      bytes in flight: messages of peers, HTTP, announces
//! policy/    single decisions: which block, which peer, how fast, when to announce
//! swarm/     one torrent on one target: the core's front door
//! sim/       thousands of swarms in one process, from one seed (tests)
//! ```
//!
//! **How a job ends.** An incomplete agent never leaves. Once everything is written, flushed and
//! read back, it announces `completed` and seeds. It leaves when the tracker has been unreachable
//! for the grace time, or earlier at a limit that it was given: how long to seed, how slow or how
//! much its upload may be, how long it may send nothing. If the torrent names no tracker, the seeds
//! of the command line are in its place: peers that had everything when we lacked something, and
//! did not fetch it. One of them is there if it accepts a connection. Without any, an agent leaves
//! when it has met no incomplete peer for the grace time.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bitfield;
pub mod limits;
pub mod rng;
pub mod size;
pub mod text;
pub mod units;
pub mod vec_map;

pub mod format;

pub mod wire;

pub mod policy;

pub mod swarm;

#[cfg(test)]
mod sim;
