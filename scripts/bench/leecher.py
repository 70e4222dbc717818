"""When is one machine of a swarm complete?"""

import re
import time

from .common import Failure, last_line, read_or_empty
from .contenders import PEER_PORT, Contender, Job
from .process import Gate

ESTABLISHED = "01"


class Leecher:
    """One machine that fetches the image."""

    def __init__(self, contender: Contender, job: Job, gate: Gate) -> None:
        self.job, self.complete_mark = job, contender.complete_mark
        self.log = job.directory / "leecher.log"
        self.connected_at: float | None = None
        self.completed_at: float | None = None
        self.killed_at: float | None = None
        self.process = job.leecher.start(contender.leecher(job), self.log, gate)
        # Each poll reads on from where the last one stopped: the log of a long run is long.
        self.reader, self.tail = open(self.log, "rb", buffering=0), b""

    def poll(self, now: float) -> None:
        if self.connected_at is None and self.is_connected():
            # Not `now`: on a busy host it may be long ago.
            self.connected_at = time.monotonic()
        if self.is_complete():
            self.completed_at = now
        elif self.process.exit_status() is not None and not self.is_complete():
            raise Failure(f"{self.job.leecher.name} failed: {last_line(self.log)}")

    def is_connected(self) -> bool:
        """Whether its machine has a TCP connection of BitTorrent (proc_net_tcp of the kernel)."""
        port = f":{PEER_PORT:04X}"
        for line in read_or_empty(f"/proc/{self.process.pid}/net/tcp").splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if state == ESTABLISHED and (local.endswith(port) or remote.endswith(port)):
                return True
        return False

    def fetched_bytes(self) -> int | None:
        """Bytes of the image that came over the network, if the log tells."""
        found = re.findall(rb'"fetched":(\d+)', self.log.read_bytes())
        return int(found[-1]) if found else None

    def is_complete(self) -> bool:
        if self.complete_mark:
            self.tail = self.tail[-64:] + self.reader.read()
            return self.complete_mark in self.tail
        return self.job.marker.exists() or self.process.exit_status() == 0

    def is_pending(self) -> bool:
        return self.completed_at is None and self.killed_at is None

    def kill(self, now: float) -> None:
        self.killed_at = now
        self.process.kill()

    def stop(self) -> None:
        self.reader.close()
        self.process.stop()
