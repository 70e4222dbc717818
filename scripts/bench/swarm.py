"""How long until the last of n machines has the image? One run of one contender.

Every run has a network of its own: a seeder and n leechers, each behind a shaped link, and a
tracker. All leechers start at one moment, and the time counts from there. Afterwards each target is
hashed.
"""

import argparse
import concurrent.futures
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from .common import CORES, Failure, Result, last_line
from .contenders import BY_NAME, Contender, Job, Room, start_tracker
from .image import choose_image, hash_of, make_torrent, pack_image, read_into_page_cache
from .leecher import Leecher
from .links import TRACKER_ADDRESS, Network
from .process import Gate, Node, Process, wait_until
from .watch import POLL_SECONDS, Watch

# One TCP stream, measured from its first byte on, long enough that its slow start is below 1 %.
# Noise of the host can only make it slower, and a small R would flatter all contenders: below this
# share of the line the stream is measured again.
STREAM_SECONDS, STREAM_SHARE, STREAM_TRIES = 6, 0.945, 3


@dataclass(frozen=True)
class Torrent:
    """The same image can have several, with pieces of different sizes."""

    path: Path
    info_hash: bytes
    piece_bytes: int
    pieces: int


class Swarm:
    """What all runs of one call share: the image, the links, the directory."""

    def __init__(self, options: argparse.Namespace) -> None:
        output = options.output.resolve()
        self.directory = output / "swarm"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.binary = options.binary
        self.line_bits_per_second = options.rate * 1_000_000
        self.uplink_queue, self.queue = options.uplink_queue, options.queue
        self.rooms, self.cable = options.rooms, options.cable
        self.multicast_share = options.multicast / 100
        self.tracker = Node("tracker", TRACKER_ADDRESS)
        self.image = choose_image(output / "source", options.image, options.size)
        self.size_bytes = self.image.stat().st_size
        self.image_hash = hash_of(self.image)
        self.packed = self.directory / "packed.lz4"
        self.packed.unlink(missing_ok=True)
        if "swarmdd-packed" in options.only:
            pack_image(self.image, self.packed)
        self.torrents = [self.make_torrent(piece_kib) for piece_kib in options.piece_size]

    def make_torrent(self, piece_kib: int) -> Torrent:
        path = self.directory / f"swarm-{piece_kib}.torrent"
        info_hash = make_torrent(self.binary, self.image, path, TRACKER_ADDRESS, piece_kib)
        piece_bytes = piece_kib * 1024
        return Torrent(path, info_hash, piece_bytes, -(-self.size_bytes // piece_bytes))

    def network(self, count: int) -> Network:
        """For a seeder and `count` leechers."""
        log = self.directory / "network.log"
        queues = self.uplink_queue, self.queue
        rooms = self.rooms, round(self.cable * self.line_bits_per_second)
        return Network(count + 1, self.line_bits_per_second, queues, log, rooms)

    def job(self, network: Network, index: int, torrent: Torrent) -> Job:
        """The part of machine `index`; machine 0 is the seeder."""
        directory = self.directory / f"machine-{index}"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "target").mkdir(parents=True)
        room = Room(len(network.machines) - 1, self.line_bits_per_second, self.multicast_share)
        job = Job(self.binary, None, torrent.path, torrent.info_hash, self.image, directory,
                  self.tracker, network.machines[0], network.machines[index], room,
                  self.packed)
        job.write_hook()
        return job

    def remove_targets(self) -> None:
        for directory in self.directory.glob("machine-*"):
            shutil.rmtree(directory, ignore_errors=True)

    def limit_seconds(self, count: int, pieces: int, bytes_per_second: float) -> float:
        """T*: every piece passes each link once, and before that the first one passes a tree of
        doubling width."""
        tree = math.floor(math.log2(count)) / pieces
        return (1 + tree) * self.size_bytes / bytes_per_second


def run_once(
    swarm: Swarm, contender: Contender, torrent: Torrent, count: int, timeout_seconds: float,
    kill_share: float = 0, seed: int = 0,
) -> tuple[Result, Watch]:
    """Copies the image to `count` machines at once. Ends everything that it started, whatever
    happens."""
    swarm.remove_targets()
    for file in swarm.image, swarm.packed:
        if file.exists():
            read_into_page_cache(file)
    os.sync()
    network = swarm.network(count)
    servers: list[Process] = []
    leechers: list[Leecher] = []
    gate = Gate()
    try:
        jobs = [swarm.job(network, index + 1, torrent) for index in range(count)]
        log = swarm.directory / f"{contender.name}-seeder.log"
        servers.append(start_tracker(jobs[0]))
        seeder = network.machines[0].start(contender.seeder(jobs[0]), log)
        servers.append(seeder)
        wait_until(lambda: contender.is_ready(jobs[0]), seeder, log)
        for job in jobs:
            leechers.append(Leecher(contender, job, gate))
        gate.wait_for([leecher.process for leecher in leechers])
        watch = Watch(network, seeder, leechers)
        gate.open()
        before = network.cable_bytes_up_down()
        result = watch.until_complete(
            swarm.size_bytes, torrent.piece_bytes, timeout_seconds, kill_share, seed)
        after = network.cable_bytes_up_down()
        result["cable_bytes"] = [
            [one - other for one, other in zip(*cable)] for cable in zip(after, before)]
    finally:
        gate.open()
        # All leechers at once, since some take a while to end. The tracker last, since the others
        # tell it that they leave.
        for leecher in leechers:
            leecher.process.terminate()
        for leecher in leechers:
            leecher.stop()
        for server in reversed(servers):
            server.stop()
        network.close()
        keep_logs(swarm, contender)
    check_targets(swarm, [leecher.job for leecher in leechers if leecher.completed_at is not None])
    swarm.remove_targets()
    return result, watch


def keep_logs(swarm: Swarm, contender: Contender) -> None:
    """Of the last run of each contender."""
    for log in swarm.directory.glob(f"{contender.name}-machine-*.log"):
        log.unlink()
    for log in swarm.directory.glob("machine-*/leecher.log"):
        shutil.copy(log, swarm.directory / f"{contender.name}-{log.parent.name}.log")


def check_targets(swarm: Swarm, jobs: list[Job]) -> None:
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        hashes = pool.map(lambda job: hash_of(job.target), jobs)
        for job, found in zip(jobs, hashes):
            if found != swarm.image_hash:
                raise Failure(f"the target of {job.leecher.name} differs from the image")


# ---- R: one TCP stream


def best_stream_bytes_per_second(swarm: Swarm) -> float:
    best = 0.0
    for _ in range(STREAM_TRIES):
        best = max(best, stream_bytes_per_second(swarm))
        if best * 8 >= STREAM_SHARE * swarm.line_bits_per_second:
            break
    return best


def stream_bytes_per_second(swarm: Swarm) -> float:
    """Goodput of one bulk TCP stream between two machines like all the others: nginx to curl,
    nothing written."""
    http = BY_NAME["http"]
    swarm.remove_targets()
    network = swarm.network(1)
    running: list[Process] = []
    log = swarm.directory / "stream.log"
    try:
        job = swarm.job(network, 1, swarm.torrents[0])
        server = job.seeder.start(http.seeder(job), swarm.directory / "stream-seeder.log")
        running.append(server)
        wait_until(lambda: http.is_ready(job), server, log)
        client = job.leecher.start(
            ["curl", "--silent", "--output", "/dev/null", "--max-time", STREAM_SECONDS,
             "--write-out", "%{size_download} %{time_total} %{time_starttransfer}",
             f"http://{job.seeder.address}/{job.image.name}"], log)
        running.append(client)
        deadline = time.monotonic() + 2 * STREAM_SECONDS
        while client.exit_status() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        size, total, start = map(float, log.read_text().split())
        return size / (total - start)
    except ValueError as error:
        raise Failure(f"no TCP stream: {last_line(log)}") from error
    finally:
        for process in reversed(running):
            process.stop()
        network.close()
        swarm.remove_targets()
