"""What happens in one run of a swarm, from the start of all leechers until the last is complete?"""

import math
import random
import time

from .common import CORES, Failure, Result, last_line
from .host import HostTime, foreign_cpu_seconds
from .leecher import Leecher
from .links import Network
from .process import Process

# Completion is seen this late at most: 0.1 % of the shortest run that says anything.
POLL_SECONDS = 0.02
SAMPLE_SECONDS = 0.1
MEMORY_POLL_SECONDS = 1.0

# When, bytes sent and received by each machine, the host.
Sample = tuple[float, list[tuple[int, int]], HostTime]


class Watch:
    """Make it just before the gate opens; then `until_complete`."""

    def __init__(self, network: Network, seeder: Process, leechers: list[Leecher]) -> None:
        self.network, self.seeder, self.leechers = network, seeder, leechers
        self.processes = [seeder] + [leecher.process for leecher in leechers]
        self.samples: list[Sample] = []
        self.cpu_before = [process.cpu_seconds() for process in self.processes]
        self.own_before, self.foreign_before = time.process_time(), foreign_cpu_seconds()
        self.host_before = HostTime.now()
        self.started = time.monotonic()
        self.sample()

    def until_complete(
        self, size_bytes: int, piece_bytes: int, timeout_seconds: float, kill_share: float,
        seed: int,
    ) -> Result:
        """Kills a share of the leechers (0: none) when half of all bytes have arrived."""
        next_sample = next_memory = self.started
        half = len(self.leechers) * size_bytes / 2 if kill_share else math.inf
        while any(leecher.is_pending() for leecher in self.leechers):
            now = time.monotonic()
            for leecher in self.leechers:
                if leecher.is_pending():
                    leecher.poll(now)
            if self.seeder.exit_status():
                raise Failure("the seeder ended early")
            if now > self.started + timeout_seconds:
                raise Failure(self.late_leechers(timeout_seconds))
            if now >= next_sample:
                self.sample()
                started = self.received_least() >= piece_bytes
                next_sample = now + (SAMPLE_SECONDS if started else POLL_SECONDS)
                if self.received_bytes() >= half:
                    half = math.inf
                    self.kill_some(kill_share, seed, now)
            if now >= next_memory:
                self.sample_memory()
                next_memory = now + MEMORY_POLL_SECONDS
            time.sleep(POLL_SECONDS)
        return {**self.result(), **self.start_up(piece_bytes)}

    def start_up(self, piece_bytes: int) -> Result:
        """Apart from the rest: when the last machine had its first connection, where the contender
        uses TCP, and when the first and the last had received as many bytes as a piece has."""
        connected = [leecher.connected_at for leecher in self.leechers]
        _, before, _ = self.samples[0]
        firsts = [
            next((at for at, links, _ in self.samples
                  if links[index][1] - before[index][1] >= piece_bytes), None)
            for index in range(1, len(before))
        ]
        pieces = [at for at in firsts if at is not None]
        return {
            "connected_seconds":
                max(connected) - self.started if all(connected) else None,
            "first_piece_seconds": min(pieces, default=None),
            "every_first_piece_seconds": max(pieces, default=None),
        }

    def late_leechers(self, timeout_seconds: float) -> str:
        late = [leecher for leecher in self.leechers if leecher.is_pending()]
        return (f"{len(late)} of {len(self.leechers)} not complete after {timeout_seconds:.0f} s, "
                f"{late[0].job.leecher.name}: {last_line(late[0].log)}")

    def sample(self) -> None:
        # The time afterwards: on a busy host what was read may be much later than the time before.
        links, host = self.network.bytes_up_down(), HostTime.now()
        self.samples.append((time.monotonic() - self.started, links, host))

    def sample_memory(self) -> None:
        for process in self.processes:
            process.sample_memory()

    def received_least(self) -> int:
        (_, before, _), (_, links, _) = self.samples[0], self.samples[-1]
        return min(after[1] - first[1] for first, after in zip(before[1:], links[1:]))

    def received_bytes(self) -> int:
        _, links, _ = self.samples[-1]
        return sum(down for _, down in links[1:])

    def kill_some(self, share: float, seed: int, now: float) -> None:
        count = max(1, round(len(self.leechers) * share))
        for leecher in random.Random(seed).sample(self.leechers, count):
            if leecher.is_pending():
                leecher.kill(now)

    def result(self) -> Result:
        last = max(leecher.completed_at for leecher in self.leechers if leecher.completed_at)
        killed_at = [leecher.killed_at for leecher in self.leechers if leecher.killed_at]
        elapsed = time.monotonic() - self.started
        host = HostTime.now().since(self.host_before)
        foreign = foreign_cpu_seconds() - self.foreign_before
        cpu = [
            process.cpu_seconds() - before
            for process, before in zip(self.processes, self.cpu_before)
        ]
        self.sample_memory()
        self.sample()
        (_, links_before, _), (_, links_after, _) = self.samples[0], self.samples[-1]
        return {
            "count": len(self.leechers),
            "last_seconds": last - self.started,
            "completed_seconds": [
                leecher.completed_at and leecher.completed_at - self.started
                for leecher in self.leechers
            ],
            "killed": [index for index, leecher in enumerate(self.leechers) if leecher.killed_at],
            "killed_seconds": killed_at[0] - self.started if killed_at else None,
            "seeder_sent_bytes": links_after[0][0] - links_before[0][0],
            "received_bytes": [
                after[1] - before[1] for before, after in zip(links_before[1:], links_after[1:])
            ],
            "fetched_bytes": [leecher.fetched_bytes() for leecher in self.leechers],
            "cpu_seconds": {"seeder": cpu[0], "leechers": sum(cpu[1:])},
            "peak_rss_bytes": {
                "seeder": self.seeder.peak_bytes,
                "leechers": max(process.peak_bytes for process in self.processes[1:]),
            },
            "threads": max(process.threads for process in self.processes),
            # Shares of all cores. What is left of busy is the kernel's: shapers, bridge,
            # write-back.
            "host": {
                "busy": host.busy_share(), "stolen": host.stolen_share(),
                "waits_for_disk": host.disk_wait_share(elapsed),
                "contender": sum(cpu) / (elapsed * CORES),
                "foreign": max(0.0, foreign) / (elapsed * CORES),
                "bench": (time.process_time() - self.own_before) / (elapsed * CORES),
            },
        }
