//! Does a whole swarm of these cores finish, and is everything it says on the way true?
//!
//! A discrete-event simulator: real [`Swarm`](crate::swarm::Swarm) values, in virtual time, with
//! simulated links, disks, tracker and rude peers, all from one seed.
//!
//! Files are layers; each uses only those above it in this list, and none uses this one.
//!
//! ```text
//! ids random image meter                   names and amounts, and the image that all share
//! disk tracker pool packet fake_peer       what one machine has, and whom it talks to
//! options seed                             what is chosen about a run, and what a seed chooses
//! event queue network                      what happens next, and when a message arrives
//! hashes pieces checker                    the truth about one agent
//! agent machine                            one agent, and one machine
//! world connections claims rounds          the room, and what one process does in it
//! arrivals lives                           what comes to a process, and its start and end
//! report run                               a run from its start to its report
//! cases canaries rooms table               single agents; wrong agents; whole rooms; measurements
//! ```
//!
//! To repeat a run: `SWARMDD_SIM_SEED=… cargo test --lib sim_seed -- --nocapture`; with
//! `SWARMDD_SIM_TRACE=1` it tells what happens to connections. The table for tuning policies:
//! `scripts/sim`.

mod agent;
mod arrivals;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod cases;
mod checker;
mod claims;
mod connections;
mod disk;
mod event;
mod fake_peer;
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
#[cfg(test)]
mod rooms;
mod rounds;
mod run;
mod seed;
#[cfg(test)]
mod table;
mod tracker;
mod world;
