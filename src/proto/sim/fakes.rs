//! What does a fake peer do when its turn comes?

use core::time::Duration;

use super::event::SimEvent;
use super::fake_peer::FakeAction;
use super::ids::{MachineId, ProcessId};
use super::machine::MachineState;
use super::world::World;

impl World {
    /// About once a second a fake peer opens or closes connections, and sends.
    pub fn fake_acts(&mut self, machine: MachineId, process: ProcessId) {
        let MachineState::Fake(fake) = &mut self.machines[machine].state else {
            unreachable!("the caller has seen a fake peer")
        };
        let actions = fake.act(self.tracker.peers());
        actions
            .into_iter()
            .for_each(|action| self.act_for_fake(machine, action));
        self.run_fake(machine);
        let pause = Duration::from_millis(u64::from(300 + self.rng.below(1700)));
        self.queue
            .schedule(self.now + pause, SimEvent::TimerFires { machine, process });
    }

    fn act_for_fake(&mut self, machine: MachineId, action: FakeAction) {
        match action {
            FakeAction::Close(end) => self.close(end),
            FakeAction::Connect(address) => {
                self.connect(machine, address);
            }
        }
    }

    /// Sends what a fake peer has to say, as far as the send windows have room.
    pub fn run_fake(&mut self, machine: MachineId) {
        let now = self.now;
        let MachineState::Fake(fake) = &mut self.machines[machine].state else {
            return;
        };
        for end in fake.ends() {
            while self.network.has_room(end) {
                let Some(packet) = fake.next_packet(end) else {
                    break;
                };
                self.network.push(now, end, packet, &mut self.queue);
            }
        }
    }
}
