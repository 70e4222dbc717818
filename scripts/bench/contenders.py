"""What is compared: how does each contender serve the image, and how does it fetch it?

A *contender* is a way to copy; it only knows command lines.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import clients, tracker
from .common import Command, Failure, accepts
from .image import TRACKER_PORT
from .process import Node, Process, wait_until

PEER_PORT = 6881


@dataclass(frozen=True)
class Room:
    """What a contender may know of a whole swarm."""

    leechers: int
    line_bits_per_second: int
    # The share of the line that udpcast is told to use.
    multicast_share: float


@dataclass(frozen=True)
class Job:
    """One copy: the torrent, the image, where it goes, who serves it and who fetches it."""

    binary: Path
    # Another build of the agent, to compare with.
    against: Path | None
    torrent: Path
    info_hash: bytes
    image: Path
    directory: Path
    tracker: Node
    seeder: Node
    leecher: Node
    # None in a pair: there the leecher is told the seeder's address, and leaves when it is
    # complete.
    room: Room | None = None
    # The image as `scripts/pack` packs it, if a contender serves that.
    packed: Path | None = None

    @property
    def target(self) -> Path:
        return self.directory / "target" / self.image.name

    @property
    def marker(self) -> Path:
        """A leecher that does not end by itself makes this file when it is complete."""
        return self.directory / "complete"

    @property
    def hook(self) -> Path:
        """The program that makes the marker, for clients that can call one."""
        return self.directory / "hook"

    def write_hook(self) -> None:
        self.hook.write_text(f"#!/bin/sh\n: > {self.marker}\n")
        self.hook.chmod(0o755)

    def settings_directory(self, role: str) -> Path:
        # Empty: a client that was ended early would read there what it knew of the image then.
        path = self.directory / f"settings-{role}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


class Contender:
    """The command lines of one way to copy."""

    # What the leecher's log contains once it is complete, if the log tells.
    complete_mark: bytes | None = None
    # Whether the sizes of the pieces matter to it.
    has_pieces = True

    def __init__(self, name: str, title: str, note: str, ratio_max: float) -> None:
        self.name, self.title, self.note = name, title, note
        # The worst time measured, over S / R.
        self.ratio_max = ratio_max

    def seeder(self, job: Job) -> Command:
        raise NotImplementedError

    def leecher(self, job: Job) -> Command:
        raise NotImplementedError

    def is_ready(self, job: Job) -> bool:
        """True once the leechers may start: in a swarm, once the tracker counts the seeder."""
        try:
            complete, _ = tracker.counts(job.tracker.address, TRACKER_PORT, job.info_hash)
        except OSError:
            return False
        return complete > 0

    def expected_ratio(self, _count: int) -> float:
        """About how many times S / R a run takes, for the plan of a bench."""
        return self.ratio_max


class Swarmdd(Contender):
    complete_mark = b'"state":"seeding"'

    def __init__(
        self, name: str, title: str, note: str, ratio_max: float, options: list[str]
    ) -> None:
        super().__init__(name, title, note, ratio_max)
        self.options = options

    def binary(self, job: Job) -> Path:
        return job.binary

    def seeder(self, job: Job) -> Command:
        return [self.binary(job), "seed", "--listen", f"{job.seeder.address}:{PEER_PORT}",
                "--check", "--progress", "json", job.torrent, self.source(job)]

    def source(self, job: Job) -> Path:
        """What the seeder reads."""
        return job.image

    def leecher(self, job: Job) -> Command:
        alone = ["--peer", f"{job.seeder.address}:{PEER_PORT}", "--no-seed"]
        return [self.binary(job), "get", "--listen", f"{job.leecher.address}:{PEER_PORT}",
                "--progress", "json", *([] if job.room else alone), *self.options,
                job.torrent, job.target]


class OtherSwarmdd(Swarmdd):
    def binary(self, job: Job) -> Path:
        assert job.against is not None, "only chosen with --against"
        return job.against


class PackedSwarmdd(Swarmdd):
    def source(self, job: Job) -> Path:
        assert job.packed, "packed for a swarm"
        return job.packed


class Libtorrent(Contender):
    def seeder(self, job: Job) -> Command:
        return clients.libtorrent(job.torrent, job.image.parent, job.seeder.address, PEER_PORT,
                                  "--tuned", "--seed")

    def leecher(self, job: Job) -> Command:
        alone = ["--connect", f"{job.seeder.address}:{PEER_PORT}"]
        return clients.libtorrent(job.torrent, job.target.parent, job.leecher.address, PEER_PORT,
                                  "--tuned", *([] if job.room else alone), "--marker", job.marker)


class Aria2(Contender):
    OPTIONS = ["--allow-overwrite=true", "--bt-max-peers=0", "--disk-cache=64M"]

    def seeder(self, job: Job) -> Command:
        return clients.aria2(job.torrent, job.image.parent, PEER_PORT, *self.OPTIONS,
                             f"--interface={job.seeder.address}", "--bt-seed-unverified=true")

    def leecher(self, job: Job) -> Command:
        return clients.aria2(job.torrent, job.target.parent, PEER_PORT, *self.OPTIONS,
                             f"--interface={job.leecher.address}",
                             f"--on-bt-download-complete={job.hook}")


class Transmission(Contender):
    SETTINGS = {
        "bind-address-ipv6": "::1", "encryption": 0, "preallocation": 0, "cache-size-mb": 64,
        "upload-slots-per-torrent": 100, "speed-limit-up-enabled": False,
        "speed-limit-down-enabled": False, "ratio-limit-enabled": False,
        "rename-partial-files": False, "incomplete-dir-enabled": False,
    }

    def seeder(self, job: Job) -> Command:
        return self.peer(job, job.seeder, job.image.parent, "--verify")

    def leecher(self, job: Job) -> Command:
        return self.peer(job, job.leecher, job.target.parent, "--finish", job.hook)

    def peer(self, job: Job, node: Node, directory: Path, *options: str | Path) -> Command:
        settings = {**self.SETTINGS, "bind-address-ipv4": node.address}
        return clients.transmission(
            job.torrent, directory, PEER_PORT, job.settings_directory(node.name), settings,
            "--no-uplimit", "--no-downlimit", "--encryption-tolerated", *options)


class Http(Contender):
    has_pieces = False

    def is_ready(self, job: Job) -> bool:
        return accepts(job.seeder.address, 80)

    def expected_ratio(self, count: int) -> float:
        return self.ratio_max * count

    def seeder(self, job: Job) -> Command:
        settings = job.settings_directory("nginx")
        configuration = settings / "nginx.conf"
        configuration.write_text(
            "daemon off; master_process off; user root; error_log stderr;\n"
            f"pid {settings}/pid;\n"
            "events {}\n"
            "http {\n"
            f"  access_log off; sendfile on; tcp_nopush on; client_body_temp_path {settings};\n"
            f"  server {{ listen {job.seeder.address}:80; root {job.image.parent}; }}\n"
            "}\n")
        return ["nginx", "-e", "stderr", "-c", configuration]

    def leecher(self, job: Job) -> Command:
        return ["curl", "--silent", "--show-error", "--fail", "--output", job.target,
                f"http://{job.seeder.address}/{job.image.name}"]


class Udpcast(Contender):
    """Multicast: the seeder sends the image once, at a given rate, and again what a leecher reports
    as missing."""

    has_pieces = False

    def is_ready(self, _job: Job) -> bool:
        return True

    def seeder(self, job: Job) -> Command:
        assert job.room, "multicast needs a swarm"
        rate = round(job.room.line_bits_per_second * job.room.multicast_share)
        # The hello interval is also how long it waits after the last leecher has come: 2 s by
        # default.
        return ["udp-sender", "--file", job.image, "--interface", "eth0", "--full-duplex",
                "--nopointopoint", "--max-bitrate", rate, "--min-receivers", job.room.leechers,
                "--rexmit-hello-interval", 100, "--nokbd", "--no-progress"]

    def leecher(self, job: Job) -> Command:
        return ["udp-receiver", "--file", job.target, "--interface", "eth0", "--nosync", "--nokbd",
                "--no-progress", "--exit-wait", 50]


class PackedUdpcast(Udpcast):
    """The same with lz4 in its pipe, at both ends: the rate is that of the packed bytes."""

    def seeder(self, job: Job) -> Command:
        return [*super().seeder(job), "--pipe", "lz4 -1 -c"]

    def leecher(self, job: Job) -> Command:
        return [*super().leecher(job), "--pipe", "lz4 -d -c"]


class Mixed(Contender):
    """One client serves, another fetches."""

    def __init__(self, seeder: Contender, leecher: Contender) -> None:
        title = f"{seeder.title} → {leecher.title}"
        super().__init__(f"{seeder.name}-to-{leecher.name}", title, "mixed ends", 4.0)
        self.ends = seeder, leecher
        self.complete_mark = leecher.complete_mark

    def seeder(self, job: Job) -> Command:
        own = job.leecher if self.ends[1].name == "swarmdd" else job.seeder
        for other in (job.tracker, job.seeder, job.leecher):
            # Other clients bind to an address of their own. The agent calls from the one that the
            # route to the other end says, and by that the tracker and the other end know it.
            if other != own:
                subprocess.run(["ip", "route", "replace", "local", other.address, "dev", "lo",
                                "table", "local", "proto", "kernel", "scope", "host",
                                "src", own.address], check=True)
        return self.ends[0].seeder(job)

    def leecher(self, job: Job) -> Command:
        return self.ends[1].leecher(job)


CONTENDERS: list[Contender] = [
    Swarmdd("swarmdd", "swarmdd --no-verify", "no read-back, like the other contenders",
            1.3, ["--no-verify"]),
    Swarmdd("read-back", "swarmdd", "reads every piece back from the disk before it is complete",
            1.6, []),
    OtherSwarmdd("against", "the other swarmdd --no-verify", "the build of --against", 1.3,
                 ["--no-verify"]),
    Swarmdd("never", "swarmdd --no-verify --compress never", "no block goes compressed", 1.3,
            ["--no-verify", "--compress", "never"]),
    PackedSwarmdd("swarmdd-packed", "swarmdd --no-verify, of a packed image",
                  "the seeder serves the image that scripts/pack made of this one", 1.3,
                  ["--no-verify"]),
    Libtorrent("libtorrent", "libtorrent",
               "no uTP, no encryption, large queues and buffers, unlimited slots", 2.5),
    Aria2("aria2", "aria2", "64 MiB disk cache", 2.5),
    Transmission("transmission", "transmission", "no uTP, 64 MiB cache, 100 slots", 4.0),
    Udpcast("udpcast", "udpcast multicast",
            "no hash, no swarm; told the rate of the line, full duplex", 1.4),
    PackedUdpcast("udpcast-lz4", "udpcast multicast through lz4 -1",
                  "as udpcast, with lz4 at both ends of its pipe", 1.4),
    Http("http", "nginx → curl", "no hash, no swarm: the ceiling of plain TCP", 1.02),
]
OTHERS = [contender for contender in CONTENDERS
          if contender.name in ("libtorrent", "aria2", "transmission")]
# Each client to and from the agent, beside itself: of `pair --mixed`.
MIXED = [mixed for other in OTHERS
         for mixed in (Mixed(other, CONTENDERS[0]), Mixed(CONTENDERS[0], other))]
CONTENDERS += MIXED
# Multicast over loopback says nothing. Packed images have a bench of their own (packed.py).
PAIR = [contender for contender in CONTENDERS
        if not isinstance(contender, (Udpcast, PackedSwarmdd))]
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def start_tracker(job: Job) -> Process:
    """An opentracker for this torrent alone, new for each run."""
    directory, log = job.directory / "tracker", job.directory / "tracker.log"
    tracker.allow(directory, [job.info_hash])
    command = tracker.command(directory, job.tracker.address, TRACKER_PORT)
    process = job.tracker.start(command, log)
    try:
        wait_until(lambda: accepts(job.tracker.address, TRACKER_PORT), process, log)
    except Failure:
        process.stop()
        raise
    return process
