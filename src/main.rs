//! `swarmdd`: dd from a swarm.

fn main() {}
