//! Does a whole swarm finish?

use alloc::string::String;
use std::{env, eprintln, println, thread};

use super::claims::check_end;
use super::event::Happening;
use super::options::Options;
use super::report::{Report, report};
use super::world::World;
use crate::units::Instant;

/// Runs the swarm of this seed to its end. Panics where something is wrong, and then says how to
/// repeat it.
fn simulate(seed: u64) -> Report {
    run(Options::from_seed(seed))
}

pub fn run(options: Options) -> Report {
    let _says_how = SaysHowToRepeat(options.seed);
    let mut world = World::new(options);
    world.run();
    check_end(&world);
    report(&world)
}

struct SaysHowToRepeat(u64);

impl Drop for SaysHowToRepeat {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "repeat with: SWARMDD_SIM_SEED={} cargo test --lib sim_seed -- --nocapture",
                self.0
            );
        }
    }
}

impl World {
    /// Runs to the end: everybody who can has finished, has been released, and has gone.
    pub fn run(&mut self) {
        while !self.closed {
            let (at, happening) = self.queue.next().expect("somebody always has a timer");
            assert!(at >= self.now);
            self.now = at;
            self.events += 1;
            assert!(
                self.now.since(Instant(0)) < self.options.patience,
                "no end in sight:\n{}",
                self.picture()
            );
            self.note(&happening);
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::UplinkFree { node } => self.network.uplink_free(now, node, &mut self.queue),
            Happening::Reaches(segment) => {
                if let Some(segment) = self.network.reach(now, segment, &mut self.queue) {
                    self.begin_segment(segment);
                }
            }
            Happening::Begins(segment) => self.begin_segment(segment),
            Happening::Ends(segment) => self.end_block(segment),
            Happening::Connected { end } => self.connected(end),
            Happening::Unconnected { end } => self.end_is_lost(end),
            Happening::Lost { end } => self.end_is_lost(end),
            Happening::Disk { node, life, ticket } => {
                self.trace(|| format!("{node} disk {ticket:?}"));
                self.with_agent(node, life, |agent| agent.disk_done(now, ticket));
            }
            Happening::Hashed {
                node,
                life,
                of,
                good,
            } => {
                self.with_agent(node, life, |agent| agent.hashed(now, of, good));
            }
            Happening::Announced { node, life, answer } => {
                let answer = (*answer).map_err(String::from);
                self.with_agent(node, life, |agent| {
                    agent.met_tracker |= answer.is_ok();
                    agent.swarm.handle_announced(now, answer);
                });
            }
            Happening::Wakes { node, life } => self.wake(node, life),
            Happening::Turns { node, life } => {
                if self.agent(node, life).is_some() {
                    self.nodes[node].turn_planned = false;
                    self.read_inbox(node);
                    self.settle(node);
                    self.plan_to_read(node);
                }
            }
            Happening::Starts { node } => self.start(node),
            Happening::Dies { node, power } => self.die(node, power),
            Happening::Leaves { node } => {
                let life = self.nodes[node].life;
                self.with_agent(node, life, |agent| {
                    agent.told_to_leave = true;
                    agent.swarm.leave(now);
                });
            }
            Happening::Cut => self.cut(),
            Happening::Unplugged { node, until } => self.network.unplug(node, until),
            Happening::TrackerStops => self.stop_tracker(),
            Happening::Closes => self.closed = true,
        }
    }

    fn note(&mut self, happening: &Happening) {
        self.mix(self.now.0);
        self.mix(happening.fingerprint());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, otherwise: u64) -> u64 {
        env::var(name).map_or(otherwise, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is a number"))
        })
    }

    #[test]
    fn sim_200_seeds() {
        // For other seeds, and for the quick look of `scripts/check`.
        let (first, count) = (
            number("SWARMDD_SIM_FIRST", 1),
            number("SWARMDD_SIM_COUNT", 200),
        );
        println!("seeds {first} to {}", first + count - 1);
        let reports: Vec<Report> = (first..first + count).map(simulate).collect();
        let sum = |f: fn(&Report) -> usize| reports.iter().map(f).sum::<usize>();
        println!(
            "machines complete {}, failed {}",
            sum(|r| r.complete),
            sum(|r| r.failed)
        );
        let sum = |f: fn(&Report) -> u32| reports.iter().map(f).sum::<u32>();
        let (found, bad, sources) = (
            sum(|r| r.found),
            sum(|r| r.read_back_bad),
            sum(|r| r.sources_bad),
        );
        println!("pieces found {found}, bad when read back {bad}, missing in sources {sources}");
        println!("events {}", reports.iter().map(|r| r.events).sum::<u64>());
    }

    #[test]
    fn sim_seed() {
        let Ok(text) = env::var("SWARMDD_SIM_SEED") else {
            return;
        };
        let seed = text.parse().expect("SWARMDD_SIM_SEED is a number");
        let options = Options {
            trace: env::var_os("SWARMDD_SIM_TRACE").is_some(),
            ..Options::from_seed(seed)
        };
        println!("{options:#?}");
        println!("{:#?}", run(options));
    }

    #[test]
    fn sim_same_seed_same_run() {
        for seed in [3, 4, 5] {
            let (once, again) = (simulate(seed), simulate(seed));
            assert_eq!(once, again);
            assert_ne!(once.log, simulate(seed + 100).log);
        }
    }
}
