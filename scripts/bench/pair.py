"""How fast, and at what cost, does each contender copy one image from one seeder to one leecher?

A *run* is one copy by one contender, measured from the start of the leecher until it says that it
is complete. Its cost is read from /proc for the seeder and the leecher separately, and only between
these two moments: what a seeder does before (hashing its image) is not counted.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

from .common import CORES, GIB, MIB, Failure, Result, last_line, say
from .contenders import PAIR, Contender, Job, start_tracker
from .host import DISTURBED, SATURATED, HostTime, describe_host, need_space, versions
from .image import make_image, make_torrent, read_into_page_cache, same_bytes
from .links import join_loopback
from .process import Node, Process, wait_until
from .tables import pair_table, write_report

# Completion is seen this late at most (1 % of the fastest run). Memory is sampled less often: its
# peak only grows.
POLL_SECONDS = 0.004
MEMORY_POLL_SECONDS = 0.02
# A contender that takes longer has one run only: more runs would cost minutes and not change the
# order.
SLOW_SECONDS = 30


def pair(options: argparse.Namespace) -> int:
    names = options.only + (["against"] if options.against else [])
    chosen = [contender for contender in PAIR if contender.name in names]
    size_bytes = options.size * MIB
    timeout_seconds = options.timeout or 30 + options.size / 5
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    need_space(directory, 2 * size_bytes)

    tracker, seeder, leecher = (
        Node(name, f"10.77.0.{number}")
        for number, name in enumerate(("tracker", "seeder", "leecher"), start=1)
    )
    join_loopback([tracker, seeder, leecher])
    image, torrent = make_image(directory / "source", options.size), directory / "pair.torrent"
    info_hash = make_torrent(options.binary, image, torrent, tracker.address)
    job = Job(options.binary, options.against, torrent, info_hash, image, directory, tracker,
              seeder, leecher)
    host = describe_host(directory, size_bytes)

    runs, failures = all_rounds(chosen, job, options, timeout_seconds)
    report = {
        "benchmark": "pair", "size_bytes": size_bytes, "rounds": options.runs,
        "cold": options.cold, "host": host, "versions": versions(options.binary),
        "runs": runs, "failures": failures,
        "summary": {
            name: summary(results, size_bytes, host) for name, results in runs.items() if results
        },
    }
    write_report(directory, "pair", report, pair_table(report))
    say(f"the image stays in {directory}/source for the next time")
    return 1 if any(name in failures for name in ("swarmdd", "read-back")) else 0


def all_rounds(
    chosen: list[Contender], job: Job, options: argparse.Namespace, timeout_seconds: float
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """Interleaved, and each round begins with another contender, so that no contender always runs
    after the same one."""
    runs: dict[str, list[Result]] = {contender.name: [] for contender in chosen}
    failures: dict[str, str] = {}
    for number in range(options.runs):
        turn = number % len(chosen)
        for contender in chosen[turn:] + chosen[:turn]:
            slow = any(result["seconds"] > SLOW_SECONDS for result in runs[contender.name])
            if slow or contender.name in failures:
                continue
            try:
                result = run_once(contender, job, timeout_seconds, options.cold)
            except Failure as failure:
                failures[contender.name] = str(failure)
                say(f"round {number + 1}: {contender.name}: {failure}")
                continue
            runs[contender.name].append(result)
            say(f"round {number + 1}: {contender.name}: {result['seconds']:.2f} s, "
                f"{options.size / result['seconds']:.0f} MiB/s, "
                f"host {result['host_busy']:.0%} busy")
    return runs, failures


# ---- One run


def run_once(contender: Contender, job: Job, timeout_seconds: float, cold: bool) -> Result:
    """Copies the image once. Ends everything that it started, whatever happens."""
    prepare(job, cold)
    log = job.directory / f"{contender.name}-seeder.log"
    running: list[Process] = []
    try:
        running.append(start_tracker(job))
        seeder = job.seeder.start(contender.seeder(job), log)
        running.append(seeder)
        wait_until(lambda: contender.is_ready(job), seeder, log)
        result = measure(contender, job, seeder, timeout_seconds, running)
    finally:
        for process in reversed(running):
            process.stop()
    if not same_bytes(job.image, job.target):
        raise Failure("the target differs from the image")
    job.target.unlink()
    return result


def prepare(job: Job, cold: bool) -> None:
    """The same start for every contender: no target, nothing dirty, the image in the page cache (or
    not)."""
    job.target.parent.mkdir(exist_ok=True)
    for file in job.target.parent.iterdir():
        file.unlink()
    job.marker.unlink(missing_ok=True)
    job.write_hook()
    os.sync()
    if cold:
        with open(job.image, "rb", buffering=0) as image:
            os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        read_into_page_cache(job.image)


def measure(
    contender: Contender, job: Job, seeder: Process, timeout_seconds: float, running: list[Process]
) -> Result:
    log = job.directory / f"{contender.name}-leecher.log"
    host_before, seeder_before = HostTime.now(), seeder.cpu_seconds()
    started = time.monotonic()
    leecher = job.leecher.start(contender.leecher(job), log)
    running.append(leecher)
    seconds = wait_complete(job, seeder, leecher, log, started + timeout_seconds) - started
    cpu = {"seeder": seeder.cpu_seconds() - seeder_before, "leecher": leecher.cpu_seconds()}
    host = HostTime.now().since(host_before)
    for process in (seeder, leecher):
        process.sample_memory()
    # A contender that writes through the page cache is complete before the disk is: the time until
    # the disk has everything is kept beside.
    with open(job.target, "rb") as target:
        os.fsync(target.fileno())
    durable_seconds = time.monotonic() - started
    return {
        "seconds": seconds,
        "durable_seconds": durable_seconds,
        "cpu_seconds": cpu,
        "peak_rss_bytes": {"seeder": seeder.peak_bytes, "leecher": leecher.peak_bytes},
        "peak_anonymous_bytes": {
            "seeder": seeder.peak_anonymous_bytes, "leecher": leecher.peak_anonymous_bytes,
        },
        "host_busy": host.busy_share(),
        "host_others": max(0.0, host.busy_share() - sum(cpu.values()) / (seconds * CORES)),
        "host_stolen": host.stolen_share(),
    }


def wait_complete(
    job: Job, seeder: Process, leecher: Process, log: Path, deadline: float
) -> float:
    """Polls until the leecher ends well or its marker is there; returns when that was."""
    next_sample = 0.0
    while True:
        now = time.monotonic()
        if job.marker.exists():
            return now
        status = leecher.exit_status()
        if status == 0:
            return now
        if status is not None:
            raise Failure(f"the leecher failed: {last_line(log)}")
        if seeder.exit_status() is not None:
            raise Failure("the seeder ended early")
        if now > deadline:
            raise Failure(f"not complete in time: {last_line(log)}")
        if now > next_sample:
            seeder.sample_memory()
            leecher.sample_memory()
            next_sample = now + MEMORY_POLL_SECONDS
        time.sleep(POLL_SECONDS)


# ---- The figures of all rounds


def summary(results: list[Result], size_bytes: int, host: Result) -> Result:
    """The median of each figure over the rounds."""
    def median(pick):
        return statistics.median(pick(result) for result in results)

    gib = size_bytes / GIB
    row = {
        "mib_per_second": size_bytes / MIB / median(lambda r: r["seconds"]),
        "durable_mib_per_second": size_bytes / MIB / median(lambda r: r["durable_seconds"]),
        "seconds_min": min(r["seconds"] for r in results),
        "seconds_max": max(r["seconds"] for r in results),
        "cpu_seconds_per_gib": median(lambda r: sum(r["cpu_seconds"].values())) / gib,
        "host_busy": median(lambda r: r["host_busy"]),
        "host_others": median(lambda r: r["host_others"]),
    }
    for role in ("seeder", "leecher"):
        row[f"{role}_cpu_seconds_per_gib"] = median(lambda r: r["cpu_seconds"][role]) / gib
        row[f"{role}_core_share"] = median(lambda r: r["cpu_seconds"][role] / r["seconds"])
        row[f"{role}_peak_mib"] = max(r["peak_rss_bytes"][role] for r in results) / MIB
        row[f"{role}_peak_anonymous_mib"] = (
            max(r["peak_anonymous_bytes"][role] for r in results) / MIB
        )
    row["limit"] = limit_of(row, host)
    return row


def limit_of(row: Result, host: Result) -> str:
    """What limited the contender, as far as the figures tell."""
    if row["host_busy"] >= SATURATED and row["host_others"] >= DISTURBED:
        return f"not clear: other programs took {row['host_others']:.0%} of the host"
    if row["host_busy"] >= SATURATED:
        return "all cores of the host"
    role = max(("seeder", "leecher"), key=lambda role: row[f"{role}_core_share"])
    if row[f"{role}_core_share"] >= SATURATED:
        return f"{role}: {row[f'{role}_core_share']:.0%} of a core"
    if row["durable_mib_per_second"] >= 0.85 * host["disk_mib_per_second"]:
        return "the disk"
    return "waiting"
