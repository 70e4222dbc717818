//! Does a whole room of agents finish?

use alloc::string::String;
use std::{env, eprintln, println, thread};

use super::claims::check_end;
use super::event::SimEvent;
use super::ids::MachineId;
use super::machine::MachineState;
use super::options::Options;
use super::report::{Report, report};
use super::world::World;
use crate::units::Instant;
use crate::wire::announce::Answer;

/// Runs the room of this seed to its end.
fn simulate(seed: u64) -> Report {
    run(Options::from_seed(seed))
}

/// Runs a room to its end. Panics if something is wrong, and then prints how to repeat the run.
pub fn run(options: Options) -> Report {
    let _print_seed = PrintSeedOnPanic(options.seed);
    let mut world = World::new(options);
    world.run();
    check_end(&world);
    report(&world)
}

struct PrintSeedOnPanic(u64);

impl Drop for PrintSeedOnPanic {
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
    /// Handles event after event until the run ends.
    pub fn run(&mut self) {
        while !self.ended {
            let (at, event) = self
                .queue
                .next()
                .expect("a running room always has a scheduled event");
            assert!(at >= self.now);
            self.now = at;
            self.events += 1;
            assert!(
                self.now.since(Instant(0)) < self.options.time_max,
                "the run takes too long:\n{}",
                self.describe()
            );
            self.log_event(&event);
            self.handle(event);
        }
    }

    fn handle(&mut self, event: SimEvent) {
        let now = self.now;
        if let Some(until) = self.still_until(&event) {
            return self.queue.schedule(until, event);
        }
        match event {
            SimEvent::UplinkFree { machine } => {
                self.network.uplink_free(now, machine, &mut self.queue);
                if self.network.takes_more(machine) {
                    self.wake_process(machine);
                }
            }
            SimEvent::SegmentReachesRack(it) => self.network.reach_rack(now, it, &mut self.queue),
            SimEvent::SegmentReaches(segment) => {
                if let Some(segment) = self.network.reach(now, segment, &mut self.queue) {
                    self.begin_segment(segment);
                }
            }
            SimEvent::SegmentBegins(segment) => self.begin_segment(segment),
            SimEvent::BlockEnds(segment) => self.end_block(segment),
            SimEvent::Connects { end } => self.connected(end),
            SimEvent::ConnectFails { end } => self.end_is_lost(end),
            SimEvent::ConnectionLost { end } => self.end_is_lost(end),
            SimEvent::DiskDone {
                machine,
                process,
                ticket,
            } => {
                self.trace(|| format!("{machine} disk {ticket:?}"));
                self.with_agent(machine, process, |agent| agent.disk_done(now, ticket));
            }
            SimEvent::Hashed {
                machine,
                process,
                of,
                good,
            } => {
                self.with_agent(machine, process, |agent| agent.hashed(now, of, good));
            }
            SimEvent::Announced {
                machine,
                process,
                answer,
            } => {
                let answer = (*answer).map_err(String::from);
                self.with_agent(machine, process, |agent| {
                    // A seed that was only refused waits until the tracker takes it.
                    agent.met_tracker |= matches!(answer, Ok(Answer::Peers { .. }));
                    agent.swarm.handle_announced(now, answer);
                });
            }
            SimEvent::TimerFires { machine, process } => self.timer_fires(machine, process),
            SimEvent::LoopRuns { machine, process } => {
                if self.agent(machine, process).is_some() {
                    self.machines[machine].loop_scheduled = false;
                    self.read_inbox(machine);
                    self.run_loop(machine);
                    self.schedule_inbox(machine);
                }
            }
            SimEvent::Starts { machine } => self.start(machine),
            SimEvent::Killed { machine, power_cut } => self.kill(machine, power_cut),
            SimEvent::Terminated { machine } => self.terminate(machine),
            SimEvent::ConnectionCut => self.cut_connection(),
            SimEvent::Unplugged {
                machine,
                until,
                stands_still,
            } => self.unplug(machine, until, stands_still),
            SimEvent::TrackerStops => self.stop_tracker(),
            SimEvent::RunEnds => self.ended = true,
        }
    }

    fn terminate(&mut self, machine: MachineId) {
        let (now, process) = (self.now, self.machines[machine].process);
        self.with_agent(machine, process, |agent| {
            agent.told_to_leave = true;
            agent.swarm.leave(now);
        });
    }

    fn unplug(&mut self, machine: MachineId, until: Instant, stands_still: bool) {
        self.network.unplug(machine, until);
        if stands_still {
            self.machines[machine].still_until = until;
        }
    }

    /// Until when an event waits, if its machine stands still.
    fn still_until(&mut self, event: &SimEvent) -> Option<Instant> {
        let (SimEvent::DiskDone { machine, .. }
        | SimEvent::Hashed { machine, .. }
        | SimEvent::Announced { machine, .. }
        | SimEvent::TimerFires { machine, .. }
        | SimEvent::LoopRuns { machine, .. }) = event
        else {
            return None;
        };
        let machine = &mut self.machines[*machine];
        let until = Some(machine.still_until).filter(|until| *until > self.now)?;
        // A timer that fires at another time than this one has been replaced.
        if let (SimEvent::TimerFires { .. }, MachineState::Agent(agent)) =
            (event, &mut machine.state)
            && agent.wakes_at == Some(self.now)
        {
            agent.wakes_at = Some(until);
        }
        Some(until)
    }

    fn log_event(&mut self, event: &SimEvent) {
        self.log_word(self.now.0);
        self.log_word(event.fingerprint());
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
        // Set to run other seeds; `scripts/check` runs 20.
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
        println!("pieces read back early {}", sum(|r| r.read_early));
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
