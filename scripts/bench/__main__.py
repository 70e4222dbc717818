#!/usr/bin/python3
"""How fast, and at what cost, does each contender copy one image? Called by scripts/bench, whose --help is the manual.

Here are two of its modes: pair(), one seeder and one leecher, and disk(), how fast one disk is read. The third, swarm(),
has a file of its own, and what they share is common.py.

In a pair a *run* is one copy by one contender, measured from the start of the leecher until it says that it is complete.
What it costs is read from /proc for the seeder and the leecher separately, and only between these two moments: what a
seeder does before (hashing its image) is not counted.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .common import (
    CONGESTION_CONTROL, CONTENDERS, DISTURBED, GIB, MIB, PAIR, PEER_PORT, READY_SECONDS_MAX, SATURATED, CORES, Failure,
    HostTime, Job, Node, accepts, describe_host, last_words, make_image, make_torrent, read_or_empty, say,
    start_tracker, versions, wait_until,
)
from .swarm import swarm

# Completion is seen this late at most (1 % of the fastest run), memory is looked at more rarely: it
# only grows.
POLL_SECONDS = 0.004
MEMORY_POLL_SECONDS = 0.02
NICE = -10
# Whoever takes longer has one run only: more would cost minutes and change nothing in the order.
SLOW_SECONDS = 30


# ---- One run


def run_once(contender, job, timeout_seconds, cold):
    """Copies the image once; returns what it took. Ends all it started, whatever happens."""
    prepare(job, cold)
    logs = {role: job.directory / f"{contender.name}-{role}.log" for role in ("seeder", "leecher")}
    running = []
    try:
        running.append(start_tracker(job))
        seeder = job.seeder.start(contender.seeder(job), logs["seeder"])
        running.append(seeder)
        wait_until(lambda: contender.ready(job), seeder, logs["seeder"])
        result = measure(contender, job, seeder, logs["leecher"], timeout_seconds, running)
    finally:
        for process in reversed(running):
            process.stop()
    if subprocess.run(["cmp", "--", job.image, job.target], capture_output=True, check=False).returncode != 0:
        raise Failure("the target differs from the image")
    job.target.unlink()
    return result


def prepare(job, cold):
    """The same start for everyone: no target, nothing dirty, the image in the page cache (or not)."""
    job.target.parent.mkdir(exist_ok=True)
    for file in job.target.parent.iterdir():
        file.unlink()
    job.marker.unlink(missing_ok=True)
    job.hook.write_text(f"#!/bin/sh\n: > {job.marker}\n")
    job.hook.chmod(0o755)
    os.sync()
    with open(job.image, "rb", buffering=0) as image:
        if cold:
            os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while image.read(MIB):
                pass


def measure(contender, job, seeder, log, timeout_seconds, running):
    host_before, seeder_before = HostTime.now(), seeder.cpu_seconds()
    started = time.monotonic()
    leecher = job.leecher.start(contender.leecher(job), log)
    running.append(leecher)
    seconds = wait_complete(contender, job, seeder, leecher, log, started + timeout_seconds) - started
    cpu = {"seeder": seeder.cpu_seconds() - seeder_before, "leecher": leecher.cpu_seconds()}
    host = HostTime.now().since(host_before)
    for process in (seeder, leecher):
        process.look_at_memory()
    # Those who write through the page cache are complete before the disk is: what is missing, is
    # counted beside.
    with open(job.target, "rb") as target:
        os.fsync(target.fileno())
    durable_seconds = time.monotonic() - started
    return {
        "seconds": seconds,
        "durable_seconds": durable_seconds,
        "cpu_seconds": cpu,
        "peak_rss_bytes": {"seeder": seeder.peak_bytes, "leecher": leecher.peak_bytes},
        "peak_anonymous_bytes": {"seeder": seeder.peak_anonymous_bytes, "leecher": leecher.peak_anonymous_bytes},
        "host_busy": host.busy_share(),
        "host_others": max(0.0, host.busy_share() - sum(cpu.values()) / (seconds * CORES)),
        "host_stolen": host.stolen_share(),
    }


def wait_complete(contender, job, seeder, leecher, log, deadline):
    """Polls until the leecher ends well or leaves its mark; returns when that was."""
    next_look = 0
    while True:
        now = time.monotonic()
        if job.marker.exists():
            return now
        status = leecher.exit_status()
        if status == 0:
            return now
        if status is not None:
            raise Failure(f"the leecher failed: {last_words(log)}")
        if seeder.exit_status() is not None:
            raise Failure("the seeder ended early")
        if now > deadline:
            raise Failure(f"not complete in time: {last_words(log)}")
        if now > next_look:
            seeder.look_at_memory()
            leecher.look_at_memory()
            next_look = now + MEMORY_POLL_SECONDS
        time.sleep(POLL_SECONDS)


# ---- The benchmark


def pair(options):
    chosen = [contender for contender in PAIR if contender.name in options.only]
    size_bytes = options.size * MIB
    timeout_seconds = options.timeout or 30 + options.size / 5
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    needed, free = 2 * size_bytes + GIB // 4, shutil.disk_usage(directory).free
    if free < needed:
        raise Failure(f"{directory} has {free / GIB:.1f} GiB free, {needed / GIB:.1f} GiB are needed")

    nodes = [Node(name, f"10.77.0.{n}") for n, name in enumerate(("tracker", "seeder", "leecher"), start=1)]
    join_loopback(nodes)
    (directory / "source").mkdir(exist_ok=True)
    image, torrent = directory / "source" / f"image-{options.size}.img", directory / "pair.torrent"
    make_image(image, size_bytes, seed=options.size)
    info_hash = make_torrent(options.binary, image, torrent, nodes[0])
    job = Job(options.binary, torrent, info_hash, image, directory, *nodes)
    host = describe_host(directory, size_bytes)

    runs, failures = rounds(chosen, job, options, timeout_seconds)
    report = {
        "benchmark": "pair", "size_bytes": size_bytes, "rounds": options.runs, "cold": options.cold, "host": host,
        "versions": versions(options.binary), "runs": runs, "failures": failures,
        "summary": {name: summary(results, size_bytes, host) for name, results in runs.items() if results},
    }
    (directory / "pair.json").write_text(json.dumps(report, indent=1) + "\n")
    (directory / "pair.md").write_text(markdown(report))
    print(markdown(report), end="")
    say(f"made {directory}/pair.md and pair.json; the image stays in {directory}/source for the next time")
    return 1 if any(name in failures for name in ("swarmdd", "read-back")) else 0


def rounds(chosen, job, options, timeout_seconds):
    """Interleaved, each round beginning with another contender, so that nobody always has the same neighbour."""
    runs, failures = {contender.name: [] for contender in chosen}, {}
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
                f"{options.size / result['seconds']:.0f} MiB/s, host {result['host_busy']:.0%} busy")
    return runs, failures


def join_loopback(nodes):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for node in nodes:
        # Not 127.0.0.0/8: transmission takes no peer from there.
        subprocess.run(["ip", "address", "add", f"{node.address}/24", "dev", "lo"], check=True)
        subprocess.run(["ip", "route", "replace", "local", node.address, "dev", "lo", "table", "local", "proto", "kernel",
                        "scope", "host", "src", node.address, "congctl", CONGESTION_CONTROL], check=True)


def summary(results, size_bytes, host):
    """The median of each figure over the rounds."""
    def median(pick):
        return statistics.median(pick(result) for result in results)

    gib = size_bytes / GIB
    row = {
        "mib_per_second": size_bytes / MIB / median(lambda r: r["seconds"]),
        "durable_mib_per_second": size_bytes / MIB / median(lambda r: r["durable_seconds"]),
        "seconds_min": min(r["seconds"] for r in results), "seconds_max": max(r["seconds"] for r in results),
        "cpu_seconds_per_gib": median(lambda r: sum(r["cpu_seconds"].values())) / gib,
        "host_busy": median(lambda r: r["host_busy"]), "host_others": median(lambda r: r["host_others"]),
    }
    for role in ("seeder", "leecher"):
        row[f"{role}_cpu_seconds_per_gib"] = median(lambda r, role=role: r["cpu_seconds"][role]) / gib
        row[f"{role}_core_share"] = median(lambda r, role=role: r["cpu_seconds"][role] / r["seconds"])
        row[f"{role}_peak_mib"] = max(r["peak_rss_bytes"][role] for r in results) / MIB
        row[f"{role}_peak_anonymous_mib"] = max(r["peak_anonymous_bytes"][role] for r in results) / MIB
    row["limit"] = limit_of(row, host)
    return row


def limit_of(row, host):
    """What stood in the way, as far as the figures tell."""
    if row["host_busy"] >= SATURATED and row["host_others"] >= DISTURBED:
        return f"not clear: others took {row['host_others']:.0%} of the host"
    busiest = max(("seeder", "leecher"), key=lambda role: row[f"{role}_core_share"])
    if row["host_busy"] >= SATURATED:
        return "all cores of the host"
    if row[f"{busiest}_core_share"] >= SATURATED:
        return f"{busiest}: {row[f'{busiest}_core_share']:.0%} of a core"
    if row["durable_mib_per_second"] >= 0.85 * host["disk_mib_per_second"]:
        return "the disk"
    return "waiting"


# ---- The table


def markdown(report):
    host, rows = report["host"], report["summary"]
    lines = [
        f"## One seeder, one leecher, {report['size_bytes'] // MIB} MiB over loopback, unshaped",
        "",
        f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}; direct writes to the disk alone: "
        f"{host['disk_mib_per_second']:.0f} MiB/s. Image {'not ' if report['cold'] else ''}in the page cache. "
        f"Medians of {report['rounds']} interleaved rounds, every target equal to the image. TCP: {CONGESTION_CONTROL}.",
        "",
        "| contender | MiB/s | × swarmdd | MiB/s to fsync | CPU s/GiB | seeder + leecher "
        "| peak RSS MiB, seeder / leecher | host busy | limited by |",
        "| :-- | --: | --: | --: | --: | :-: | :-: | --: | :-- |",
    ]
    base = rows.get("swarmdd", rows.get("read-back", {})).get("mib_per_second")
    for contender in CONTENDERS:
        if contender.name in rows:
            lines.append(table_row(contender, rows[contender.name], base))
    lines.append("")
    lines += [f"- {name} failed: {reason}" for name, reason in report["failures"].items()]
    for contender in CONTENDERS:
        if contender.name in rows:
            count = len(report["runs"][contender.name])
            lines.append(f"- {contender.title}: {contender.note}; {count} {'run' if count == 1 else 'runs'}.")
    lines += mapped_files_note(rows) + verdict(rows) + disturbance(report)
    lines.append("- " + "; ".join(f"{name}: {version}" for name, version in report["versions"].items()) + ".")
    return "\n".join(lines) + "\n"


def table_row(contender, row, base):
    cells = [
        contender.title, f"{row['mib_per_second']:.0f}", f"{row['mib_per_second'] / base:.2f}" if base else "",
        f"{row['durable_mib_per_second']:.0f}", f"{row['cpu_seconds_per_gib']:.2f}",
        f"{row['seeder_cpu_seconds_per_gib']:.2f} + {row['leecher_cpu_seconds_per_gib']:.2f}",
        f"{row['seeder_peak_mib']:.0f} / {row['leecher_peak_mib']:.0f}", f"{row['host_busy']:.0%}", row["limit"],
    ]
    return f"| {' | '.join(cells)} |"


def mapped_files_note(rows):
    """A client that maps its files has them in its peak; say how much is its own."""
    if "libtorrent" not in rows:
        return []
    row = rows["libtorrent"]
    return [f"- libtorrent maps files; without them its peaks are {row['seeder_peak_anonymous_mib']:.0f} / "
            f"{row['leecher_peak_anonymous_mib']:.0f} MiB."]


def verdict(rows):
    """The targets: twice the best client or 0.7 of plain HTTP, at half the CPU of the best client."""
    clients = [rows[name] for name in ("libtorrent", "aria2", "transmission") if name in rows]
    if "swarmdd" not in rows or not clients:
        return []
    own = rows["swarmdd"]
    speed = own["mib_per_second"] / max(row["mib_per_second"] for row in clients)
    cpu = own["cpu_seconds_per_gib"] / min(row["cpu_seconds_per_gib"] for row in clients)
    http = own["mib_per_second"] / rows["http"]["mib_per_second"] if "http" in rows else 0
    beside_http = f", {http:.2f} × plain HTTP" if "http" in rows else ""
    reached = {True: "reached", False: "NOT reached"}
    return [
        f"- swarmdd --no-verify: {speed:.2f} × the fastest of the other clients{beside_http} "
        f"(target: 2 or 0.7): {reached[speed >= 2 or http >= 0.7]}.",
        f"- swarmdd --no-verify: {cpu:.2f} × the CPU of the most frugal of the other clients "
        f"(target: 0.5): {reached[cpu <= 0.5]}.",
    ]


def disturbance(report):
    """Whatever makes the figures say less than they seem to."""
    notes = []
    rows = report["summary"]
    full = [name for name, row in rows.items() if row["host_busy"] >= SATURATED]
    if full:
        notes.append(f"- With {', '.join(full)} all cores were more than {SATURATED:.0%} busy: there the figure "
                     "measures the host, and a faster one would give more.")
    disturbed = [f"{name} {row['host_others']:.0%}" for name, row in rows.items() if row["host_others"] > DISTURBED]
    if disturbed:
        notes.append("- CPU of the host that went to neither end (other programs, write-back, tracker, this script): "
                     f"{', '.join(disturbed)}. Repeat on a quiet host before comparing.")
    return notes


# ---- Reading one disk


class DiskJob:
    """A loop device that holds the image, the torrent of it, and two addresses: who serves and who fetches."""

    def __init__(self, binary, torrent, image, device, directory, seeder, leecher):
        self.binary, self.torrent, self.image, self.device = binary, torrent, image, device
        self.directory, self.seeder, self.leecher = directory, seeder, leecher
        self.size_bytes = image.stat().st_size

    def log(self, name):
        return self.directory / f"disk-{name}.log"

    def get(self, *options):
        return [self.binary, "get", "--listen", f"{self.leecher.address}:{PEER_PORT}", "--progress", "json",
                "--peer", f"{self.seeder.address}:{PEER_PORT}", "--no-seed", *options, self.torrent, self.device]


class Reader:
    """A way to read the disk. `run` returns what one reading of all of it took."""

    def __init__(self, name, title, note, run):
        self.name, self.title, self.note, self.run = name, title, note, run


def read_by_dd(job):
    return reading_of_process(job, "dd", ["dd", f"if={job.device}", "of=/dev/null", "bs=4M", "iflag=direct"])


def hash_alone(job):
    """OpenSSL's SHA-1 of pieces in memory, on one core: what no reader that hashes on one core can pass."""
    memory = random.Random(0).randbytes(64 * MIB)
    pieces = [memoryview(memory)[start:start + MIB] for start in range(0, len(memory), MIB)]
    host, started, cpu_started = HostTime.now(), time.monotonic(), time.process_time()
    for number in range(job.size_bytes // MIB):
        hashlib.sha1(pieces[number % len(pieces)]).digest()
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    # This takes one core and nothing else of the host: the moment to see what others take.
    others = HostTime.now().since(host).busy_share() - cpu_seconds / (seconds * CORES)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": 0, "host_others": max(0.0, others)}


def read_by_verify(job):
    return reading_of_process(job, "verify", [job.binary, "verify", job.torrent, job.device])


def read_by_scan(job):
    """Nobody serves: what is not on the disk would never come."""
    result, last = reading_of_state(job, "scan", job.get("--stall-secs", 5), "scanning")
    if last["fetched"] != 0:
        raise Failure(f"it fetched {last['fetched']} bytes of what the disk held")
    return result


def read_back(job):
    log = job.log("seeder")
    seeder = job.seeder.start([job.binary, "seed", "--listen", f"{job.seeder.address}:{PEER_PORT}", job.torrent,
                               job.image], log)
    try:
        wait_until(lambda: accepts(job.seeder.address, PEER_PORT), seeder, log)
        result, last = reading_of_state(job, "read-back", job.get("--fresh"), "verifying")
    finally:
        seeder.stop()
    if not last["verified"]:
        raise Failure("it did not read back")
    return result


DD = Reader("dd", "dd iflag=direct bs=4M", "the disk alone: one request at a time, nothing hashed", read_by_dd)
HASH = Reader("hash", "SHA-1 alone", "OpenSSL's, on pieces in memory, one core: no disk", hash_alone)
READERS = [
    Reader("verify", "swarmdd verify", "start to end of the process", read_by_verify),
    Reader("scan", "swarmdd get, scanning", "a disk that holds the image: the time in this state", read_by_scan),
    Reader("read-back", "swarmdd get --fresh, verifying", "after writing it: the time in this state", read_back),
]


def reading_of_process(job, name, argv):
    """The whole life of a process is the reading."""
    cpu_seconds = 0

    def look(process):
        nonlocal cpu_seconds
        cpu_seconds = process.cpu_seconds()

    started = time.monotonic()
    process = run_to_end(job, name, argv, look)
    return {"seconds": process.ended_at - started, "cpu_seconds": cpu_seconds, "peak_rss_bytes": process.peak_bytes}


def reading_of_state(job, name, argv, state):
    """One state of a process that prints JSON is the reading: returns what it took, and the last thing it said."""
    entered, left, last, heard = None, None, None, 0

    def listen(process):
        nonlocal entered, left, last, heard
        lines = read_or_empty(job.log(name)).split("\n")[:-1]
        for line in lines[heard:]:
            heard += 1
            if line.startswith("{"):
                last = json.loads(line)
                now = time.monotonic(), process.cpu_seconds()
                if last["state"] == state:
                    entered = entered or now
                elif entered:
                    left = left or now

    process = run_to_end(job, name, argv, listen)
    if left is None:
        raise Failure(f"it was never {state}")
    seconds, cpu_seconds = (end - begin for begin, end in zip(entered, left))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": process.peak_bytes}, last


def run_to_end(job, name, argv, look):
    """Runs one process until it ends well, and calls look(process) all the time, also once after its end."""
    process = job.leecher.start(argv, job.log(name))
    try:
        deadline, next_look = time.monotonic() + READY_SECONDS_MAX + job.size_bytes / (10 * MIB), 0
        while (status := process.exit_status()) is None:
            now = time.monotonic()
            if now > deadline:
                raise Failure(f"no end in time: {last_words(job.log(name))}")
            if now > next_look:
                process.look_at_memory()
                next_look = now + MEMORY_POLL_SECONDS
            look(process)
            time.sleep(POLL_SECONDS)
        process.ended_at = time.monotonic()
        look(process)
        if status != 0:
            raise Failure(last_words(job.log(name)))
        return process
    finally:
        process.stop()


def disk(options):
    size_bytes = options.size * MIB
    directory = options.output.resolve()
    (directory / "source").mkdir(parents=True, exist_ok=True)
    nodes = [Node(name, f"10.77.0.{n}") for n, name in enumerate(("seeder", "leecher"), start=2)]
    join_loopback(nodes)
    image, torrent = directory / "source" / f"image-{options.size}.img", directory / "disk.torrent"
    file = directory / "disk.img"
    make_image(image, size_bytes, seed=options.size)
    make_torrent(options.binary, image, torrent)
    # dd, not cp: a file that shares its blocks with the image, or has holes, would be another disk.
    subprocess.run(["dd", f"if={image}", f"of={file}", "bs=4M", "conv=fsync"], check=True, capture_output=True)
    device = attach_loop_device(file)
    try:
        job = DiskJob(options.binary, torrent, image, device, directory, *nodes)
        runs, failures = disk_rounds(job, options)
        check_same(image, device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        file.unlink()
    report = {
        "benchmark": "disk", "size_bytes": size_bytes, "rounds": options.runs,
        "host": describe_host(directory, size_bytes), "runs": runs, "failures": failures,
        "summary": disk_summary(runs, size_bytes),
    }
    (directory / "disk.json").write_text(json.dumps(report, indent=1) + "\n")
    (directory / "disk.md").write_text(disk_markdown(report))
    print(disk_markdown(report), end="")
    say(f"made {directory}/disk.md and disk.json; the image stays in {directory}/source for the next time")
    return 1 if failures else 0


def attach_loop_device(file):
    """Direct: what the page cache of this host holds of the file must not be taken for the speed of the disk."""
    device = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", str(file)], check=True,
                            capture_output=True, text=True).stdout.strip()
    direct = read_or_empty(f"/sys/block/{Path(device).name}/loop/dio").strip()
    if direct != "1":
        subprocess.run(["losetup", "--detach", device], check=True)
        raise Failure(f"{device} on {file} has no direct I/O; choose another file system with --output")
    return device


def disk_rounds(job, options):
    """Each reader of ours comes just after a run of dd and is compared with it: a shared disk is now fast, now slow."""
    runs, failures = {reader.name: [] for reader in (DD, HASH, *READERS)}, {}

    def take(number, reader):
        os.sync()
        result = reader.run(job)
        runs[reader.name].append(result)
        say(f"round {number + 1}: {reader.name}: {result['seconds']:.2f} s, "
            f"{options.size / result['seconds']:.0f} MiB/s")
        return result

    for number in range(options.runs):
        turn = number % len(READERS)
        hashing = take(number, HASH)
        for reader in READERS[turn:] + READERS[:turn]:
            if reader.name in failures:
                continue
            alone = take(number, DD)
            try:
                result = take(number, reader)
            except Failure as failure:
                failures[reader.name] = str(failure)
                say(f"round {number + 1}: {reader.name}: {failure}")
                continue
            result["of_limit"] = max(alone["seconds"], hashing["seconds"]) / result["seconds"]
    return runs, failures


def check_same(image, device):
    if subprocess.run(["cmp", "--", image, device], capture_output=True, check=False).returncode != 0:
        raise Failure("the disk differs from the image")


def disk_summary(runs, size_bytes):
    def median(results, pick):
        return statistics.median(pick(result) for result in results)

    return {
        name: {
            "mib_per_second": size_bytes / MIB / median(results, lambda r: r["seconds"]),
            "seconds_min": min(r["seconds"] for r in results), "seconds_max": max(r["seconds"] for r in results),
            "of_limit": median(results, lambda r: r.get("of_limit", 0)),
            "cpu_seconds_per_gib": median(results, lambda r: r["cpu_seconds"]) / (size_bytes / GIB),
            "peak_mib": max(r["peak_rss_bytes"] for r in results) / MIB,
        }
        for name, results in runs.items() if results
    }


def disk_markdown(report):
    host, rows = report["host"], report["summary"]
    lines = [
        f"## Reading one disk, {report['size_bytes'] // MIB} MiB, side by side",
        "",
        f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}. The disk is a loop device with direct I/O "
        f"over a file. Medians of {report['rounds']} rounds.",
        "",
        "| reader | MiB/s | slowest … fastest | × the slower of dd just before and SHA-1 | CPU s/GiB | peak MiB |",
        "| :-- | --: | :-: | --: | --: | --: |",
    ]
    size_mib = report["size_bytes"] / MIB

    def times(ratio):
        return f"{ratio:.2f}" if ratio else ""

    shown = [reader for reader in (DD, HASH, *READERS) if reader.name in rows]
    for reader in shown:
        row = rows[reader.name]
        cells = [
            reader.title, f"{row['mib_per_second']:.0f}",
            f"{size_mib / row['seconds_max']:.0f} … {size_mib / row['seconds_min']:.0f}", times(row["of_limit"]),
            f"{row['cpu_seconds_per_gib']:.2f}", f"{row['peak_mib']:.0f}" if row["peak_mib"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {name} failed: {reason}" for name, reason in report["failures"].items()]
    lines += [f"- {reader.title}: {reader.note}." for reader in shown]
    for reader in READERS:
        if reader.name in rows:
            of_limit = rows[reader.name]["of_limit"]
            reached = "reached" if of_limit >= 0.9 else "NOT reached"
            lines.append(f"- {reader.title}: {of_limit:.2f} (target: 0.9): {reached}.")
    others = max(result["host_others"] for result in report["runs"]["hash"])
    if others > DISTURBED:
        lines.append(f"- Others took up to {others:.0%} of this host's CPU. Repeat on a quiet host before comparing.")
    return "\n".join(lines) + "\n"


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench", add_help=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    top = Path(__file__).resolve().parents[2]

    def positive(text):
        if int(text) < 1:
            raise ValueError(text)
        return int(text)

    def percent(text):
        if not 1 <= int(text) <= 99:
            raise ValueError(text)
        return int(text)

    def several(text):
        return [positive(word) for word in text.split(",")]

    def some_of(contenders):
        def names(text):
            chosen = text.split(",")
            if not set(chosen) <= {contender.name for contender in contenders}:
                raise ValueError(text)
            return chosen
        return names

    one_pair = commands.add_parser("pair", add_help=False, allow_abbrev=False)
    one_pair.add_argument("--only", type=some_of(PAIR), default=[contender.name for contender in PAIR])
    one_pair.add_argument("--cold", action="store_true")
    one_pair.add_argument("--timeout", type=positive)
    one_disk = commands.add_parser("disk", add_help=False, allow_abbrev=False)
    one_swarm = commands.add_parser("swarm", add_help=False, allow_abbrev=False)
    one_swarm.add_argument("--n", type=several, default=[1, 2, 4, 8, 16, 32])
    one_swarm.add_argument("--only", type=some_of(CONTENDERS))
    one_swarm.add_argument("--piece-size", type=positive, default=64)
    one_swarm.add_argument("--rate", type=positive, default=25)
    one_swarm.add_argument("--queue", type=positive, default=40)
    one_swarm.add_argument("--multicast", type=percent, default=97)
    one_swarm.add_argument("--kill", type=percent)
    one_swarm.add_argument("--minutes", type=positive)
    one_swarm.add_argument("--trace", action="store_true")
    for command, size, runs in ((one_pair, 1024, 3), (one_disk, 1024, 3), (one_swarm, 128, 1)):
        command.add_argument("--size", type=positive, default=size)
        command.add_argument("--runs", type=positive, default=runs)
        command.add_argument("--binary", type=Path, default=top / "target" / "swarmdd")
        command.add_argument("--output", type=Path, default=top / "target" / "bench")
    options = parser.parse_args(argv)
    options.binary = options.binary.resolve()
    if options.command == "swarm" and options.only is None:
        # Who is killed matters to swarms; the others would only take their time.
        options.only = ["swarmdd"] if options.kill else [c.name for c in CONTENDERS if c.name != "read-back"]
    return options


def take_precedence():
    """Before whatever else this host does, and all that is started here alike: less noise, and nobody is favoured."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        # Where the kernel groups by session, the above only counts within one (sched(7), the
        # autogroup feature).
        if os.getpid() != os.getpgid(0):
            os.setsid()
            Path("/proc/self/autogroup").write_text(f"{NICE}\n")
    except OSError as error:
        say(f"no precedence over other programs of this host: {error}")


def main():
    options = parse(sys.argv[1:])
    # So that an end from outside runs every `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    take_precedence()
    try:
        return {"pair": pair, "disk": disk, "swarm": swarm}[options.command](options)
    except Failure as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
