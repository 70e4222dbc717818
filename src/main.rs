//! `swarmdd`: dd from a swarm.

mod os;

fn main() {}
