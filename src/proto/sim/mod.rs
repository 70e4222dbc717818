//! Does a whole swarm of these cores finish, and is everything that an agent says on the way true?
//!
//! A discrete-event simulator: real [`Swarm`](crate::swarm::Swarm) values in virtual time, with
//! simulated links, disks, a tracker and peers that break the rules, all from one seed.
//!
//! Files are layers. Each uses only those above it in this list, and none uses this file.
//!
//! ```text
//! ids random image packet         numbers of machines, delays, the shared image, what travels
//! disk tracker pool fake_peer     what a machine has, and the other participants
//! options seed                    what can be chosen about a run, and what a seed chooses
//! event queue                     what can happen, and what happens next
//! congestion network              when a message arrives
//! meter hashes pieces rereads     the truth about one agent
//! checker                         does it do and say only what it may?
//! agent work machine              one agent, its disk and hash unit, what runs on a machine
//! world                           the state of a room
//! connections claims              opening and closing, and whether an event or an end is justified
//! fakes rounds arrivals lives     what processes do, what reaches them, their start and end
//! report run                      the result of a run, and the run itself
//! cases canaries rooms            single agents, known defects, rooms with one fault
//! table disks                     measurements of rooms, and of the read-back
//! ```
//!
//! To repeat a run: `SWARMDD_SIM_SEED=… cargo test --lib sim_seed -- --nocapture`. With
//! `SWARMDD_SIM_TRACE=1` it also prints what happens to connections. `scripts/sim` prints the table
//! for tuning policies.

mod agent;
mod arrivals;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod cases;
mod checker;
mod claims;
mod congestion;
mod connections;
mod disk;
#[cfg(test)]
mod disks;
mod event;
mod fake_peer;
mod fakes;
mod hashes;
mod ids;
mod image;
mod lives;
mod machine;
mod meter;
mod network;
mod options;
mod packet;
mod pieces;
mod pool;
mod queue;
mod random;
mod report;
mod rereads;
#[cfg(test)]
mod rooms;
mod rounds;
mod run;
mod seed;
#[cfg(test)]
mod table;
mod tails;
mod tracker;
mod work;
mod world;
