"""How fast is one disk read and hashed: by `verify`, by `make`, by the scan, by the read-back?

Each is compared with dd (the disk alone, nothing hashed) just before, and with SHA-1 alone (no
disk).
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .common import (
    CORES, GIB, MIB, Command, Failure, Result, accepts, last_line, read_or_empty, say,
)
from .contenders import PEER_PORT
from .host import HostTime, describe_host
from .image import make_image, make_torrent, same_bytes
from .links import join_loopback
from .process import READY_SECONDS_MAX, Node, Process, wait_until
from .tables import disk_table, write_report

POLL_SECONDS = 0.004
MEMORY_POLL_SECONDS = 0.02
# If less than this is left to be read back at the end, its time says nothing about the disk.
SHARE_MIN = 0.2


@dataclass(frozen=True)
class DiskJob:
    """A loop device that holds the image, its torrent, and the addresses of seeder and leecher."""

    binary: Path
    torrent: Path
    image: Path
    device: str
    directory: Path
    seeder: Node
    leecher: Node

    @property
    def size_bytes(self) -> int:
        return self.image.stat().st_size

    def log(self, name: str) -> Path:
        return self.directory / f"disk-{name}.log"

    def seed(self) -> Command:
        return [self.binary, "seed", "--listen", f"{self.seeder.address}:{PEER_PORT}",
                self.torrent, self.image]

    def get(self, *options: str) -> Command:
        return [self.binary, "get", "--listen", f"{self.leecher.address}:{PEER_PORT}",
                "--progress", "json", "--peer", f"{self.seeder.address}:{PEER_PORT}", "--no-seed",
                *options, self.torrent, self.device]


@dataclass(frozen=True)
class Reader:
    """A way to read the disk. `read` reads all of it once and returns the cost."""

    name: str
    title: str
    note: str
    read: Callable[[DiskJob], Result]


def disk(options: argparse.Namespace) -> int:
    size_bytes = options.size * MIB
    directory = options.output.resolve()
    seeder, leecher = Node("seeder", "10.77.0.2"), Node("leecher", "10.77.0.3")
    join_loopback([seeder, leecher])
    image, torrent = make_image(directory / "source", options.size), directory / "disk.torrent"
    make_torrent(options.binary, image, torrent)
    file = directory / "disk.img"
    # dd, not cp: a file that shares its blocks with the image, or has holes, would be another disk.
    subprocess.run(["dd", f"if={image}", f"of={file}", "bs=4M", "conv=fsync"], check=True,
                   capture_output=True)
    device = attach_loop_device(file)
    try:
        job = DiskJob(options.binary, torrent, image, device, directory, seeder, leecher)
        runs, failures = all_rounds(job, options)
        if not same_bytes(image, device):
            raise Failure("the disk differs from the image")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        file.unlink()
    report = {
        "benchmark": "disk", "size_bytes": size_bytes, "rounds": options.runs,
        "host": describe_host(directory, size_bytes), "runs": runs, "failures": failures,
        "summary": summary(runs, size_bytes),
    }
    write_report(directory, "disk", report, disk_table(report, [DD, HASH, *READERS], READERS))
    say(f"the image stays in {directory}/source for the next time")
    return 1 if failures else 0


def attach_loop_device(file: Path) -> str:
    """With direct I/O: the speed of the page cache of this host must not count as the speed of the
    disk."""
    attached = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", str(file)],
                              check=True, capture_output=True, text=True)
    device = attached.stdout.strip()
    direct = read_or_empty(f"/sys/block/{Path(device).name}/loop/dio").strip()
    if direct != "1":
        subprocess.run(["losetup", "--detach", device], check=True)
        raise Failure(
            f"{device} on {file} has no direct I/O; choose another file system with --output")
    return device


def all_rounds(
    job: DiskJob, options: argparse.Namespace
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """Each reader of ours comes just after a run of dd and is compared with that run: the speed of
    a disk that is shared with others changes from second to second."""
    runs: dict[str, list[Result]] = {reader.name: [] for reader in (DD, HASH, *READERS)}
    failures: dict[str, str] = {}

    def read(number: int, reader: Reader) -> Result:
        os.sync()
        result = reader.read(job)
        runs[reader.name].append(result)
        say(f"round {number + 1}: {reader.name}: {result['seconds']:.2f} s, "
            f"{job.size_bytes / 1e9 / result['seconds']:.2f} GB/s")
        return result

    for number in range(options.runs):
        turn = number % len(READERS)
        hashing = read(number, HASH)
        for reader in READERS[turn:] + READERS[:turn]:
            if reader.name in failures:
                continue
            alone = read(number, DD)
            try:
                result = read(number, reader)
            except Failure as failure:
                failures[reader.name] = str(failure)
                say(f"round {number + 1}: {reader.name}: {failure}")
                continue
            slower_seconds = max(alone["seconds"], hashing["seconds"])
            result["of_limit"] = slower_seconds / result["seconds"]
    return runs, failures


def summary(runs: dict[str, list[Result]], size_bytes: int) -> Result:
    """The median of each figure over the rounds."""
    def median(results, pick):
        return statistics.median(pick(result) for result in results)

    return {
        name: {
            "mib_per_second": size_bytes / MIB / median(results, lambda r: r["seconds"]),
            "seconds_min": min(r["seconds"] for r in results),
            "seconds_max": max(r["seconds"] for r in results),
            "of_limit": median(results, lambda r: r.get("of_limit", 0)),
            "cpu_seconds_per_gib":
                median(results, lambda r: r["cpu_seconds"]) / (size_bytes / GIB),
            "peak_mib": max(r["peak_rss_bytes"] for r in results) / MIB,
        }
        for name, results in runs.items() if results
    }


# ---- The readers


def read_by_dd(job: DiskJob) -> Result:
    command: Command = ["dd", f"if={job.device}", "of=/dev/null", "bs=4M", "iflag=direct"]
    return cost_of_process(job, "dd", command)


def hash_alone(job: DiskJob) -> Result:
    """OpenSSL's SHA-1 of pieces in memory, on one core, one piece at a time."""
    command = ["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", str(MIB), "-evp", "sha1"]
    host, started = HostTime.now(), time.monotonic()
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    # This takes one core and nothing else of the host, so the rest was taken by other programs.
    others = HostTime.now().since(host).busy_share() - 1 / CORES
    # "sha1  1896528.77k": thousands of bytes in each second.
    rate = float(answer.stdout.split()[-1].removesuffix("k")) * 1000
    if time.monotonic() - started < 1 or rate <= 0:
        raise Failure(f"openssl speed: {answer.stdout.strip()}")
    seconds = job.size_bytes / rate
    return {"seconds": seconds, "cpu_seconds": seconds, "peak_rss_bytes": 0,
            "host_others": max(0.0, others)}


def read_by_verify(job: DiskJob) -> Result:
    return cost_of_process(job, "verify", [job.binary, "verify", job.torrent, job.device])


def read_by_make(job: DiskJob) -> Result:
    made = job.directory / "disk-made.torrent"
    made.unlink(missing_ok=True)
    return cost_of_process(job, "make", [job.binary, "make", job.device, "-o", made])


def read_by_scan(job: DiskJob) -> Result:
    """No seeder runs: a piece that the scan did not find could never be fetched."""
    result, _, last = cost_of_state(job, "scan", job.get("--stall-secs", "5"), "scanning")
    if last["fetched"] != 0:
        raise Failure(f"it fetched {last['fetched']} bytes that the disk held")
    return result


def read_back(job: DiskJob) -> Result:
    log = job.log("seeder")
    seeder = job.seeder.start(job.seed(), log)
    try:
        wait_until(lambda: accepts(job.seeder.address, PEER_PORT), seeder, log)
        result, first, last = cost_of_state(job, "read-back", job.get("--fresh"), "verifying")
    finally:
        seeder.stop()
    if not last["verified"]:
        raise Failure("it did not read back")
    # A part was read back during the download: the whole image would have taken longer.
    share = 1 - first["good"] / first["pieces"]
    if share < SHARE_MIN:
        raise Failure(f"it had read back all but {share:.0%} when the download ended")
    result["seconds"] /= share
    result["cpu_seconds"] /= share
    return result


DD = Reader("dd", "dd iflag=direct bs=4M",
            "the disk alone: one request at a time, nothing hashed", read_by_dd)
HASH = Reader("hash", "openssl speed -evp sha1",
              "one piece after the other in memory, one core: no disk", hash_alone)
READERS = [
    Reader("verify", "swarmdd verify", "start to end of the process", read_by_verify),
    Reader("make", "swarmdd make", "start to end of the process", read_by_make),
    Reader("scan", "swarmdd get, scanning",
           "a disk that holds the image: the time in this state", read_by_scan),
    Reader("read-back", "swarmdd get --fresh, verifying",
           "after writing it: the time in this state, as if it had read all of it then", read_back),
]


def cost_of_process(job: DiskJob, name: str, command: Command) -> Result:
    """From the start to the end of a process."""
    cpu_seconds = 0.0

    def poll(process: Process) -> None:
        nonlocal cpu_seconds
        cpu_seconds = process.cpu_seconds()

    started = time.monotonic()
    process, ended = run_to_end(job, name, command, poll)
    return {"seconds": ended - started, "cpu_seconds": cpu_seconds,
            "peak_rss_bytes": process.peak_bytes}


def cost_of_state(
    job: DiskJob, name: str, command: Command, state: str
) -> tuple[Result, Result, Result]:
    """The time that a process which prints JSON spends in one state, its first report from there,
    and its last report."""
    entered: tuple[float, float] | None = None
    left: tuple[float, float] | None = None
    first: Result = {}
    last: Result = {}
    lines_read = 0

    def poll(process: Process) -> None:
        nonlocal entered, left, first, last, lines_read
        # The last line may be half written.
        lines = read_or_empty(job.log(name)).split("\n")[:-1]
        for line in lines[lines_read:]:
            lines_read += 1
            if line.startswith("{"):
                last = json.loads(line)
                now = time.monotonic(), process.cpu_seconds()
                if last["state"] == state:
                    entered = entered or now
                    first = first or last
                elif entered:
                    left = left or now

    process, _ = run_to_end(job, name, command, poll)
    if entered is None or left is None:
        raise Failure(f"it was never {state}")
    seconds, cpu_seconds = (end - begin for begin, end in zip(entered, left))
    cost = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": process.peak_bytes}
    return cost, first, last


def run_to_end(
    job: DiskJob, name: str, command: Command, poll: Callable[[Process], None]
) -> tuple[Process, float]:
    """Runs one process until it ends well. Calls `poll` all the time, and once after the end.
    Returns when it ended."""
    process = job.leecher.start(command, job.log(name))
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX + job.size_bytes / (10 * MIB)
        next_sample = 0.0
        while (status := process.exit_status()) is None:
            now = time.monotonic()
            if now > deadline:
                raise Failure(f"no end in time: {last_line(job.log(name))}")
            if now > next_sample:
                process.sample_memory()
                next_sample = now + MEMORY_POLL_SECONDS
            poll(process)
            time.sleep(POLL_SECONDS)
        ended = time.monotonic()
        poll(process)
        if status != 0:
            raise Failure(last_line(job.log(name)))
        return process, ended
    finally:
        process.stop()
