//! What happens in one round of the event loop of an agent?

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

use super::agent::Agent;
use super::event::SimEvent;
use super::ids::{EndId, MachineId, ProcessId};
use super::machine::{Machine, MachineState};
use super::packet::Packet;
use super::random::random_up_to;
use super::tracker;
use super::world::World;
use crate::limits::HTTP_TIMEOUT;
use crate::swarm::{Role, State};
use crate::units::{Instant, PeerSlot};

impl World {
    /// Something happened to this agent: its event loop runs, now or after `loop_time`.
    pub fn wake_loop(&mut self, machine: MachineId) {
        if self.options.loop_time.is_zero() {
            return self.run_loop(machine);
        }
        let process = self.machines[machine].process;
        if self.agent(machine, process).is_some() {
            let at = if self.options.coarse {
                self.now
            } else {
                self.now + self.options.loop_time
            };
            self.schedule_loop(machine, at);
        }
    }

    /// The process on this machine, of whatever kind, can send more.
    pub fn wake_process(&mut self, machine: MachineId) {
        match self.machines[machine].state {
            MachineState::Fake(_) => self.run_fake(machine),
            _ => self.wake_loop(machine),
        }
    }

    /// Tells an agent something, if its process still runs, and carries out what the agent decides.
    pub fn with_agent(
        &mut self,
        machine: MachineId,
        process: ProcessId,
        tell: impl FnOnce(&mut Agent),
    ) {
        if let Some(agent) = self.agent(machine, process) {
            tell(agent);
            self.wake_loop(machine);
        }
    }

    /// Polls an agent until no poll has an answer.
    pub fn run_loop(&mut self, machine: MachineId) {
        let process = self.machines[machine].process;
        let now = self.now;
        if let Some(agent) = self.agent(machine, process) {
            agent.note_turn(now);
        }
        for round in 0.. {
            assert!(
                round < 10_000,
                "machine {machine} has an answer to every poll, without end"
            );
            if self.agent(machine, process).is_none() || !self.poll_once(machine, process) {
                break;
            }
        }
        self.machines[machine].loop_ran_at = self.now;
        self.schedule_timer(machine);
        self.check_agent(machine);
    }

    /// Calls every poll, in the order that `Swarm` asks for. True if the agent was told something
    /// meanwhile, so that polls may have new answers.
    fn poll_once(&mut self, machine: MachineId, process: ProcessId) -> bool {
        // After `handle_sent` there is new work and nothing new to send, and work is polled next.
        // So a coarse run needs no second round; other runs do not rely on that.
        let mut told = self.send_all(machine, process) && !self.options.coarse;
        let now = self.now;
        if self.agent(machine, process).is_some()
            && let MachineState::Agent(agent) = &mut self.machines[machine].state
        {
            // A hash that is known at once may lead to requests, and on a seeder to blocks. A
            // coarse run leaves a leecher's requests to its next round.
            let answered = agent.work(now, &mut self.queue);
            told |= answered && (!self.options.coarse || agent.options.role == Role::Seeder);
        }
        while let Some((slot, why)) = self
            .agent(machine, process)
            .and_then(|agent| agent.swarm.poll_close())
        {
            let end = self
                .agent(machine, process)
                .expect("an agent that answered a poll still runs")
                .end(slot);
            self.log_word(why.len() as u64);
            self.trace(|| {
                format!(
                    "{machine} closes {slot:?} to {}: {why}",
                    self.network.end(end.other()).machine
                )
            });
            self.close(end);
            told = true;
        }
        while let Some((slot, address)) = self
            .agent(machine, process)
            .and_then(|agent| agent.swarm.poll_connect(now))
        {
            let end = self.connect(machine, address);
            self.network.end_mut(end).slot = Some(slot);
            self.agent(machine, process)
                .expect("an agent that answered a poll still runs")
                .add_end(slot, end);
        }
        while let Some(url) = self
            .agent(machine, process)
            .and_then(|agent| agent.swarm.poll_announce(now))
        {
            self.announce(machine, process, &url);
        }
        while let Some(event) = self
            .agent(machine, process)
            .and_then(|agent| agent.swarm.poll_event())
        {
            self.check_event(machine, &event);
        }
        told
    }

    fn send_all(&mut self, machine: MachineId, process: ProcessId) -> bool {
        let mut told = false;
        let mut index = 0;
        while let Some(&(slot, end)) = self
            .agent(machine, process)
            .and_then(|agent| agent.live.get(index))
        {
            told |= self.send_on(machine, process, slot, end);
            index += 1;
        }
        told
    }

    fn send_on(
        &mut self,
        machine: MachineId,
        process: ProcessId,
        slot: PeerSlot,
        end: EndId,
    ) -> bool {
        let (now, mut told) = (self.now, false);
        while self.network.has_room(end) {
            let Some(agent) = self.agent(machine, process) else {
                break;
            };
            let at = agent.busy_until();
            if at > now {
                self.schedule_loop(machine, at);
                break;
            }
            let Some(send) = agent.swarm.poll_send(now, slot, &mut agent.throttles) else {
                break;
            };
            let (packet, buffer) = agent.packet(now, slot, send);
            let bytes = if let Packet::Block { block, .. } = &packet {
                block.length
            } else {
                0
            };
            if self.options.coarse && buffer.is_none() && self.network.is_clear(end) {
                self.send_small(end, packet);
                continue;
            }
            let whole = self.network.push(now, end, packet, &mut self.queue);
            match buffer {
                Some(buffer) if whole => {
                    self.agent(machine, process)
                        .expect("an agent that answered a poll still runs")
                        .sent(now, slot, buffer, bytes);
                    told = true;
                }
                Some(_) => {
                    self.network.end_mut(end).flow.pinned = buffer.map(|buffer| (buffer, bytes))
                }
                None => {}
            }
        }
        told
    }

    fn announce(&mut self, machine: MachineId, process: ProcessId, url: &str) {
        tracker::check_url(url, self.machines[machine].address.port());
        self.agent(machine, process)
            .expect("an agent that answered a poll still runs")
            .checker
            .announced(url);
        let (now, address) = (self.now, self.machines[machine].address);
        let answer = self.tracker.announce(now, address, url, &mut self.rng);
        // A tracker that is gone refuses at once. A lost answer is noticed when the shell's timeout
        // is over.
        let after = match answer {
            Err("no answer") => HTTP_TIMEOUT,
            _ => random_up_to(Duration::from_millis(50), &mut self.rng),
        };
        self.queue.schedule(
            now + after,
            SimEvent::Announced {
                machine,
                process,
                answer: Box::new(answer),
            },
        );
    }

    /// After every round: checks the invariants, the counts, and what the state of the agent
    /// claims.
    fn check_agent(&mut self, machine: MachineId) {
        let (now, process, check_every) = (
            self.now,
            self.machines[machine].process,
            self.options.check_every,
        );
        let away_since = self.tracker.away_since(now);
        let MachineState::Agent(agent) = &mut self.machines[machine].state else {
            return;
        };
        if agent.process != process || agent.over_at.is_some() {
            return;
        }
        agent.rounds += 1;
        if agent.rounds.is_multiple_of(check_every) {
            agent.swarm.check_invariants();
            agent.checker.compare(&agent.swarm.progress());
        }
        let mut changed = false;
        let first_time = |when: &mut Option<Instant>| when.replace(now).is_none();
        match agent.swarm.state() {
            State::Scanning | State::Downloading => {}
            State::Verifying => {
                if agent.downloaded_at.is_none() {
                    changed = first_time(&mut agent.downloaded_at);
                }
            }
            State::Seeding => {
                if agent.complete_at.is_none() {
                    agent.downloaded_at.get_or_insert(now);
                    changed = first_time(&mut agent.complete_at);
                }
            }
            State::Leaving(_) => {
                if agent.leaving_at.is_none() {
                    changed = first_time(&mut agent.leaving_at);
                }
            }
            State::Over(outcome) => {
                agent.leaving_at.get_or_insert(now);
                agent.over_at = Some(now);
                agent.checker.compare(&agent.swarm.progress());
                agent.checker.ended(outcome, agent.cells());
                changed = true;
            }
        }
        if !changed {
            return;
        }
        agent.swarm.check_invariants();
        agent.checker.compare(&agent.swarm.progress());
        if agent.leaving_at == Some(now) {
            self.check_leaving(machine, away_since);
        }
        if let MachineState::Agent(agent) = &self.machines[machine].state
            && agent.over_at == Some(now)
        {
            self.close_all(machine);
        }
        self.stop_tracker_when_done();
    }

    /// Schedules the end of the tracker when every agent that can be complete is, as the server
    /// script does.
    pub fn stop_tracker_when_done(&mut self) {
        if self.released || self.starts_pending > 0 {
            return;
        }
        let waits = |machine: &Machine| match &machine.state {
            MachineState::Agent(agent) => {
                agent.over_at.is_none() && agent.complete_at.is_none() && agent.leaving_at.is_none()
            }
            _ => false,
        };
        if self.machines.iter().any(waits) {
            return;
        }
        if self
            .options
            .tracker
            .as_ref()
            .is_some_and(|tracker| tracker.stops_at.is_some())
        {
            return;
        }
        self.released = true;
        let at = self.now + random_up_to(Duration::from_secs(20), &mut self.rng);
        self.queue.schedule(at, SimEvent::TrackerStops);
    }

    /// A timeout of this process is due.
    pub fn timer_fires(&mut self, machine: MachineId, process: ProcessId) {
        if self.machines[machine].process != process {
            return;
        }
        if let MachineState::Fake(_) = self.machines[machine].state {
            return self.fake_acts(machine, process);
        }
        let now = self.now;
        let Some(agent) = self.agent(machine, process) else {
            return;
        };
        if agent.wakes_at != Some(now) {
            return;
        }
        agent.wakes_at = None;
        agent.idle_wakes = if agent.woken_at == now {
            agent.idle_wakes + 1
        } else {
            0
        };
        agent.woken_at = now;
        assert!(
            agent.idle_wakes < 100,
            "machine {machine} asks to be woken at once, again and again"
        );
        if agent.timeout().is_some_and(|at| at <= now) {
            agent.handle_timeout(now);
            self.wake_loop(machine);
        } else {
            self.schedule_timer(machine);
        }
    }
}
