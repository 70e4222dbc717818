"""How long until the last of n machines has the image, and who waited for whom? The swarm mode of scripts/bench.

Every run has a network of its own: a seeder and n leechers, each behind a shaped link, and a tracker. All leechers start
at one moment, and from there time counts. Afterwards each target is hashed. R, what one TCP stream gets through such a
link, is measured in every round; the limit that all are compared with is T* = (1 + floor(log2 n) / k) · S / R.
"""

import concurrent.futures
import hashlib
import json
import math
import os
import random
import shutil
import statistics
import time

from .common import (
    CONGESTION_CONTROL, CONTENDERS, CORES, DISTURBED, GIB, MIB, SATURATED, TICKS_PER_SECOND, Failure, Gate, HostTime,
    Job, Node, describe_host, last_words, make_image, make_torrent, read_or_empty, say, start_tracker, versions, wait_until,
)
from .links import TRACKER_ADDRESS, Network
from .trace import draw

# Completion is seen this late at most: 0.1 % of the shortest run that says anything.
POLL_SECONDS = 0.02
SAMPLE_SECONDS = 0.1
MEMORY_POLL_SECONDS = 1.0
# One TCP stream, from its first byte: long enough that its slow start is below 1 %. Noise of the
# host can only make it slower, and a small R would flatter everybody: with less than this share of
# the line it is measured again.
STREAM_SECONDS, STREAM_SHARE, STREAM_TRIES = 6, 0.945, 3
# A run ends after so many times S / R, and whoever is known to need longer is not started.
PATIENCE = 5.0
# What a run costs beside the copying: network, seeder, hashing of the targets.
OVERHEAD_SECONDS, OVERHEAD_SECONDS_EACH = 4, 0.4


class Swarm:
    """What all runs of one call share."""

    def __init__(self, options):
        self.directory = options.output.resolve() / "swarm"
        self.binary, self.size_bytes = options.binary, options.size * MIB
        self.piece_bytes = options.piece_size * 1024
        self.line_bits_per_second, self.queue_ms = options.rate * 1_000_000, options.queue
        self.multicast_share = options.multicast / 100
        self.count = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        self.tracker = Node("tracker", TRACKER_ADDRESS)
        source = options.output.resolve() / "source"
        source.mkdir(exist_ok=True)
        self.image = source / f"image-{options.size}.img"
        self.torrent = self.directory / "swarm.torrent"
        make_image(self.image, self.size_bytes, seed=options.size)
        self.info_hash = make_torrent(self.binary, self.image, self.torrent, self.tracker, options.piece_size)
        self.image_hash = hash_of(self.image)

    def network(self, count):
        self.count = count
        return Network(count + 1, self.line_bits_per_second, self.queue_ms, self.directory / "network.log")

    def job(self, network, index):
        directory = self.directory / f"machine-{index}"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "target").mkdir(parents=True)
        job = Job(self.binary, self.torrent, self.info_hash, self.image, directory, self.tracker, network.machines[0],
                  network.machines[index], self)
        job.hook.write_text(f"#!/bin/sh\n: > {job.marker}\n")
        job.hook.chmod(0o755)
        return job

    def clean(self):
        for directory in self.directory.glob("machine-*"):
            shutil.rmtree(directory, ignore_errors=True)

    def pieces(self):
        return -(-self.size_bytes // self.piece_bytes)

    def limit_seconds(self, count, bytes_per_second):
        """T*: each piece once through every link, and the first one through a tree of doubling width before."""
        return (1 + math.floor(math.log2(count)) / self.pieces()) * self.size_bytes / bytes_per_second


class Leecher:
    """One machine that fetches; knows when it was complete."""

    def __init__(self, contender, job, gate):
        self.job, self.says = job, contender.says
        self.log = job.directory / "leecher.log"
        self.completed_at = self.killed_at = None
        self.process = job.leecher.start(contender.leecher(job), self.log, gate)
        # Read on from where the last look ended: the log of a long run is long.
        self.reader, self.tail = open(self.log, "rb", buffering=0), b""

    def look(self, now):
        if self.is_complete():
            self.completed_at = now
        elif self.process.exit_status() is not None and not self.is_complete():
            raise Failure(f"{self.job.leecher.name} failed: {last_words(self.log)}")

    def is_complete(self):
        if self.says:
            self.tail = self.tail[-64:] + self.reader.read()
            return self.says in self.tail
        return self.job.marker.exists() or self.process.exit_status() == 0

    def waits(self):
        return self.completed_at is None and self.killed_at is None

    def kill(self, now):
        self.killed_at = now
        self.process.child.kill()

    def stop(self):
        self.reader.close()
        self.process.stop()


# ---- One run


def run_once(swarm, contender, count, timeout_seconds, kill_share=0, seed=0):
    """Copies the image to `count` machines at once; returns what it took. Ends all it started, whatever happens."""
    swarm.clean()
    with open(swarm.image, "rb", buffering=0) as image:
        while image.read(MIB):
            pass
    os.sync()
    network = swarm.network(count)
    running, gate = [], Gate()
    try:
        jobs = [swarm.job(network, index + 1) for index in range(count)]
        log = swarm.directory / f"{contender.name}-seeder.log"
        running.append(start_tracker(jobs[0]))
        seeder = network.machines[0].start(contender.seeder(jobs[0]), log)
        running.append(seeder)
        wait_until(lambda: contender.ready(jobs[0]), seeder, log)
        leechers = []
        for job in jobs:
            leechers.append(Leecher(contender, job, gate))
            running.append(leechers[-1])
        gate.wait_for([leecher.process for leecher in leechers])
        watch = Watch(network, seeder, leechers)
        gate.open()
        result = watch.until_complete(swarm, timeout_seconds, kill_share, seed)
    finally:
        gate.close()
        # All at once: some take a while for it. The tracker last, since they say good-bye to it.
        for leecher in running[2:]:
            leecher.process.ask_to_end()
        for process in reversed(running):
            process.stop()
        network.close()
        keep_logs(swarm, contender)
    check_targets(swarm, [leecher.job for leecher in leechers if leecher.completed_at is not None])
    swarm.clean()
    return result, watch


def keep_logs(swarm, contender):
    """Of the last run of each contender."""
    for log in swarm.directory.glob(f"{contender.name}-machine-*.log"):
        log.unlink()
    for log in swarm.directory.glob("machine-*/leecher.log"):
        shutil.copy(log, swarm.directory / f"{contender.name}-{log.parent.name}.log")


def check_targets(swarm, jobs):
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        for job, found in zip(jobs, pool.map(lambda job: hash_of(job.target), jobs)):
            if found != swarm.image_hash:
                raise Failure(f"what {job.leecher.name} has differs from the image")


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


class Watch:
    """Looks at a run from the moment the gate opens."""

    def __init__(self, network, seeder, leechers):
        self.network, self.seeder, self.leechers = network, seeder, leechers
        self.processes = [seeder] + [leecher.process for leecher in leechers]
        self.samples = []
        self.cpu_before = [process.cpu_seconds() for process in self.processes]
        self.own_before, self.foreign_before = time.process_time(), foreign_cpu_seconds()
        self.host_before = HostTime.now()
        self.started = time.monotonic()
        self.sample(self.started)

    def sample(self, now):
        self.samples.append((now - self.started, self.network.bytes_up_down(), HostTime.now()))

    def until_complete(self, swarm, timeout_seconds, kill_share, seed):
        next_sample = next_memory = self.started
        half = len(self.leechers) * swarm.size_bytes / 2 if kill_share else math.inf
        while any(leecher.waits() for leecher in self.leechers):
            now = time.monotonic()
            for leecher in self.leechers:
                if leecher.waits():
                    leecher.look(now)
            if self.seeder.exit_status():
                raise Failure("the seeder ended early")
            if now > self.started + timeout_seconds:
                waiting = [leecher for leecher in self.leechers if leecher.waits()]
                raise Failure(f"{len(waiting)} of {len(self.leechers)} not complete after {timeout_seconds:.0f} s, "
                              f"{waiting[0].job.leecher.name}: {last_words(waiting[0].log)}")
            if now >= next_sample:
                self.sample(now)
                next_sample = now + SAMPLE_SECONDS
                if self.received() >= half:
                    half = math.inf
                    self.kill_some(kill_share, seed, now)
            if now >= next_memory:
                self.look_at_memory()
                next_memory = now + MEMORY_POLL_SECONDS
            time.sleep(POLL_SECONDS)
        return self.result()

    def received(self):
        _, links, _ = self.samples[-1]
        return sum(down for _, down in links[1:])

    def kill_some(self, share, seed, now):
        count = max(1, round(len(self.leechers) * share))
        for leecher in random.Random(seed).sample(self.leechers, count):
            if leecher.waits():
                leecher.kill(now)

    def look_at_memory(self):
        for process in self.processes:
            process.look_at_memory()

    def result(self):
        last = max(leecher.completed_at for leecher in self.leechers if leecher.completed_at)
        elapsed = time.monotonic() - self.started
        host = HostTime.now().since(self.host_before)
        foreign = foreign_cpu_seconds() - self.foreign_before
        cpu = [process.cpu_seconds() - before for process, before in zip(self.processes, self.cpu_before)]
        self.look_at_memory()
        self.sample(time.monotonic())
        (_, links_before, _), (_, links_after, _) = self.samples[0], self.samples[-1]
        completed = [leecher.completed_at and leecher.completed_at - self.started for leecher in self.leechers]
        return {
            "count": len(self.leechers), "last_seconds": last - self.started, "completed_seconds": completed,
            "killed": [index for index, leecher in enumerate(self.leechers) if leecher.killed_at],
            "killed_seconds": next((l.killed_at - self.started for l in self.leechers if l.killed_at), None),
            "seeder_sent_bytes": links_after[0][0] - links_before[0][0],
            "cpu_seconds": {"seeder": cpu[0], "leechers": sum(cpu[1:])},
            "peak_rss_bytes": {"seeder": self.seeder.peak_bytes,
                               "leechers": max(process.peak_bytes for process in self.processes[1:])},
            "threads": max(process.threads for process in self.processes),
            # Shares of all cores. What is left of busy is the kernel's: shapers, bridge,
            # write-back.
            "host": {
                "busy": host.busy_share(), "stolen": host.stolen_share(),
                "waits_for_disk": host.disk_wait_share(elapsed), "contender": sum(cpu) / (elapsed * CORES),
                "foreign": max(0.0, foreign) / (elapsed * CORES),
                "bench": (time.process_time() - self.own_before) / (elapsed * CORES),
            },
        }


def foreign_cpu_seconds():
    """CPU time of all processes that are neither ours nor the kernel's, and of the children they have waited for."""
    ticks, ours = 0, {os.getpid()}
    stats = [read_or_empty(f"/proc/{name}/stat") for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int)]
    for stat in filter(None, stats):
        pid, (_, parent, *fields) = int(stat.split()[0]), stat.rpartition(")")[2].split()
        if int(parent) in ours:
            ours.add(pid)
        elif pid not in ours and pid != 2 and int(parent) != 2:
            ticks += sum(map(int, fields[9:13]))
    return ticks / TICKS_PER_SECOND


# ---- One TCP stream


def best_stream_bytes_per_second(swarm):
    best = 0
    for _ in range(STREAM_TRIES):
        best = max(best, stream_bytes_per_second(swarm))
        if best * 8 >= STREAM_SHARE * swarm.line_bits_per_second:
            break
    return best


def stream_bytes_per_second(swarm):
    """R: goodput of one bulk TCP stream between two machines like all the others, nginx to curl, nothing written."""
    http = next(contender for contender in CONTENDERS if contender.name == "http")
    swarm.clean()
    network = swarm.network(1)
    running = []
    try:
        job, log = swarm.job(network, 1), swarm.directory / "stream.log"
        server = network.machines[0].start(http.seeder(job), swarm.directory / "stream-seeder.log")
        running.append(server)
        wait_until(lambda: http.ready(job), server, log)
        client = network.machines[1].start(
            ["curl", "--silent", "--output", "/dev/null", "--max-time", STREAM_SECONDS, "--write-out",
             "%{size_download} %{time_total} %{time_starttransfer}",
             f"http://{job.seeder.address}/{job.image.name}"], log)
        running.append(client)
        deadline = time.monotonic() + 2 * STREAM_SECONDS
        while client.exit_status() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        size, total, start = map(float, log.read_text().split())
        return size / (total - start)
    except ValueError as error:
        raise Failure(f"no TCP stream: {last_words(log)}") from error
    finally:
        for process in reversed(running):
            process.stop()
        network.close()
        swarm.clean()


# ---- The benchmark


def swarm(options):
    options.output.mkdir(parents=True, exist_ok=True)
    needed = (max(options.n) + 2) * options.size * MIB + GIB // 4
    free = shutil.disk_usage(options.output).free
    if free < needed:
        raise Failure(f"{options.output} has {free / GIB:.1f} GiB free, {needed / GIB:.1f} GiB are needed")
    shared = Swarm(options)
    plan = Plan(shared, options)
    report = {
        "benchmark": "swarm", "size_bytes": shared.size_bytes, "pieces": shared.pieces(), "rounds": options.runs,
        "line_bits_per_second": shared.line_bits_per_second, "queue_ms": shared.queue_ms, "kill_percent": options.kill,
        "host": describe_host(options.output.resolve(), shared.size_bytes), "versions": versions(options.binary),
        "stream_bytes_per_second": [], "runs": [], "failures": [], "left_out": [],
    }
    try:
        plan.carry_out(report)
    finally:
        shared.clean()
    stream = max(report["stream_bytes_per_second"])
    report["summary"] = summary(shared, report, stream)
    name = "kill" if options.kill else "swarm"
    (options.output / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(markdown(report, stream))
    print(markdown(report, stream), end="")
    say(f"made {options.output}/{name}.md and {name}.json")
    return 1 if any(failure["contender"] in ("swarmdd", "read-back") for failure in report["failures"]) else 0


class Plan:
    """Which runs, in which order, and for how long at most."""

    def __init__(self, shared, options):
        self.shared, self.options = shared, options
        self.contenders = [contender for contender in CONTENDERS if contender.name in options.only]
        # S / R before R is known: headers cost 4.5 % of a line of Ethernet.
        self.unit_seconds = shared.size_bytes * 8 / (0.955 * shared.line_bits_per_second)
        self.steps = [step for number in range(options.runs) for step in self.round(number)]
        expected = sum(self.expected_seconds(*step) for step in self.steps) + options.runs * (STREAM_SECONDS + 3)
        minutes = options.minutes or math.ceil(expected / 60 * 1.2 + 2)
        self.deadline = time.monotonic() + 60 * minutes
        say(f"{len(self.steps)} runs, about {math.ceil(expected / 60)} minutes, {minutes} at most; "
            f"S/R is {self.unit_seconds:.0f} s")

    def round(self, number):
        """Interleaved, each round beginning with another contender; with --kill an undisturbed run before each."""
        turn = number % len(self.contenders)
        for count in self.options.n:
            for contender in self.contenders[turn:] + self.contenders[:turn]:
                if contender.expected_ratio(count) > PATIENCE:
                    continue
                yield number, contender, count, 0
                if self.options.kill:
                    yield number, contender, count, self.options.kill / 100

    def expected_seconds(self, _number, contender, count, _kill_share):
        return contender.expected_ratio(count) * self.unit_seconds + OVERHEAD_SECONDS + OVERHEAD_SECONDS_EACH * count

    def carry_out(self, report):
        for contender in self.contenders:
            report["left_out"] += [
                f"{contender.title} at n = {count}: needs {contender.expected_ratio(count):.0f} × S/R by its nature"
                for count in self.options.n if contender.expected_ratio(count) > PATIENCE]
        measured, failed = None, set()
        for step in self.steps:
            number, contender, count, kill_share = step
            if (contender.name, count) in failed:
                continue
            if time.monotonic() + self.expected_seconds(*step) > self.deadline and measured is not None:
                report["left_out"].append(f"{contender.title} at n = {count}, round {number + 1}: no time left")
                continue
            if measured != number:
                report["stream_bytes_per_second"].append(best_stream_bytes_per_second(self.shared))
                measured = number
            try:
                report["runs"].append(self.take(report, *step))
            except Failure as failure:
                failed.add((contender.name, count))
                report["failures"].append({"contender": contender.name, "count": count, "reason": str(failure)})
                say(f"n = {count}: {contender.name}: {failure}")

    def take(self, report, number, contender, count, kill_share):
        result, watch = run_once(self.shared, contender, count, PATIENCE * self.unit_seconds + 30, kill_share, number)
        stream = report["stream_bytes_per_second"][-1]
        ratio = result["last_seconds"] / self.shared.limit_seconds(count, stream)
        killed = f", {len(result['killed'])} killed" if result["killed"] else ""
        say(f"n = {count}: {contender.name}: {result['last_seconds']:.2f} s, {ratio:.3f} × T*, seeder sent "
            f"{result['seeder_sent_bytes'] / self.shared.size_bytes:.2f} × the image{killed}, "
            f"host {result['host']['busy']:.0%} busy, {result['host']['foreign']:.0%} by others")
        if self.options.trace:
            name = f"trace-{contender.name}-{count}{'-kill' if kill_share else ''}-{number + 1}.svg"
            title = f"{contender.title}: n = {count}, last {result['last_seconds']:.1f} s = {ratio:.3f} × T*"
            (self.options.output / name).write_text(draw(title, watch.samples, result, stream, [
                ("T*", self.shared.limit_seconds(count, stream))]))
        return {"contender": contender.name, "round": number, "kill_share": kill_share, **result}


# ---- The tables


def summary(shared, report, stream):
    """The median of each figure over the rounds; a row for each contender, n, and share of killed machines."""
    rows = []
    for key in dict.fromkeys((run["count"], run["kill_share"], run["contender"]) for run in report["runs"]):
        runs = [run for run in report["runs"] if (run["count"], run["kill_share"], run["contender"]) == key]
        rows.append(dict(zip(("count", "kill_share", "contender"), key), **summary_row(shared, runs, stream)))
    order = [contender.name for contender in CONTENDERS]
    rows.sort(key=lambda row: (row["count"], row["kill_share"], order.index(row["contender"])))
    return rows


def summary_row(shared, runs, stream):
    def median(pick):
        return statistics.median(pick(run) for run in runs)

    def completed(run):
        return [seconds for seconds in run["completed_seconds"] if seconds is not None]

    def gib(run):
        return len(completed(run)) * shared.size_bytes / GIB

    limit = shared.limit_seconds(runs[0]["count"], stream)
    return {
        "runs": len(runs), "limit_seconds": limit,
        "last_seconds": median(lambda run: run["last_seconds"]),
        "ratio": median(lambda run: run["last_seconds"]) / limit,
        "ratio_worst": max(run["last_seconds"] for run in runs) / limit,
        "mean_seconds": median(lambda run: statistics.mean(completed(run))),
        "median_seconds": median(lambda run: statistics.median(completed(run))),
        "first_seconds": median(lambda run: min(completed(run))),
        "last_over_median": median(lambda run: run["last_seconds"] / statistics.median(completed(run))),
        "seeder_sent_ratio": median(lambda run: run["seeder_sent_bytes"]) / shared.size_bytes,
        "seeder_cpu_seconds_per_gib": median(lambda run: run["cpu_seconds"]["seeder"] / gib(run)),
        "leechers_cpu_seconds_per_gib": median(lambda run: run["cpu_seconds"]["leechers"] / gib(run)),
        "peak_rss_mib": {role: max(run["peak_rss_bytes"][role] for run in runs) / MIB
                         for role in ("seeder", "leechers")},
        "threads": max(run["threads"] for run in runs),
        "host_busy": max(run["host"]["busy"] for run in runs),
        "host_foreign": max(run["host"]["foreign"] for run in runs),
        "saturated": any(run["host"]["busy"] >= SATURATED for run in runs),
    }


def markdown(report, stream):
    host, rows = report["host"], report["summary"]
    lines = [
        f"## One image, {report['size_bytes'] // MIB} MiB, from one seeder to n machines, "
        f"{report['line_bits_per_second'] / 1e6:.0f} Mbit/s each way",
        "",
        f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}. k = {report['pieces']} pieces; one TCP stream "
        f"gets R = {stream * 8 / 1e6:.1f} Mbit/s, {stream * 8 / report['line_bits_per_second']:.1%} of the line, so "
        f"S/R = {report['size_bytes'] / stream:.1f} s. Queues of {report['queue_ms']} ms, TCP: {CONGESTION_CONTROL}. "
        f"{of_rounds(report)}; every target has the hash of the image.",
        "",
    ]
    lines += ratio_table(rows) + [""] + full_table(rows) + [""]
    lines += kill_table(rows) if report["kill_percent"] else []
    lines += [f"- {failure['contender']} at n = {failure['count']} failed: {failure['reason']}"
              for failure in report["failures"]]
    lines += [f"- Left out: {text}." for text in report["left_out"]]
    names = {row["contender"] for row in rows}
    lines += [f"- {contender.title}: {contender.note}." for contender in CONTENDERS if contender.name in names]
    lines += verdict(rows) + disturbance(rows)
    lines.append("- " + "; ".join(f"{name}: {version}" for name, version in report["versions"].items()) + ".")
    return "\n".join(lines) + "\n"


def of_rounds(report):
    return "One run of each" if report["rounds"] == 1 else f"Medians of {report['rounds']} interleaved rounds"


def table(head, rows):
    lines = [f"| {' | '.join(cells)} |" for cells in [head] + rows]
    return lines[:1] + [f"| :-- |{' --: |' * (len(head) - 1)}"] + lines[1:]


def title_of(name):
    return next(contender.title for contender in CONTENDERS if contender.name == name)


def ratio_table(rows):
    """The first look: last completion over T*, a line for each contender."""
    rows = [row for row in rows if not row["kill_share"]]
    counts = sorted({row["count"] for row in rows})
    ratios = {(row["contender"], row["count"]): f"{row['ratio']:.2f}{mark(row)}" for row in rows}
    names = [contender.name for contender in CONTENDERS if any(row["contender"] == contender.name for row in rows)]
    return table(["last completion over T*, n ="] + [str(count) for count in counts],
                 [[title_of(name)] + [ratios.get((name, count), "") for count in counts] for name in names])


def mark(row):
    return " ²" if row["saturated"] else ""


def full_table(rows):
    head = ["n", "contender", "last s", "× T*", "worst", "mean s", "median s", "first s", "last / median",
            "seeder sent ¹", "CPU s/GiB", "seeder + leechers", "peak RSS MiB, seeder / leecher", "threads",
            "host busy", "others", "runs"]
    body = []
    for row in rows:
        if row["kill_share"]:
            continue
        seeder, leechers = row["seeder_cpu_seconds_per_gib"], row["leechers_cpu_seconds_per_gib"]
        body.append([
            str(row["count"]), title_of(row["contender"]), f"{row['last_seconds']:.1f}", f"{row['ratio']:.3f}",
            f"{row['ratio_worst']:.3f}", f"{row['mean_seconds']:.1f}", f"{row['median_seconds']:.1f}",
            f"{row['first_seconds']:.1f}", f"{row['last_over_median']:.3f}", f"{row['seeder_sent_ratio']:.2f}",
            f"{seeder + leechers:.2f}", f"{seeder:.2f} + {leechers:.2f}",
            f"{row['peak_rss_mib']['seeder']:.0f} / {row['peak_rss_mib']['leechers']:.0f}", str(row["threads"]),
            f"{row['host_busy']:.0%}{mark(row)}", f"{row['host_foreign']:.0%}", str(row["runs"]),
        ])
    return table(head, body) + [
        "",
        "¹ Bytes that left the seeder's interface, over the image, with most of the headers not counted. "
        f"² All cores were more than {SATURATED:.0%} busy, by whomever: the figure may measure the host.",
    ]


def kill_table(rows):
    undisturbed = {(row["contender"], row["count"]): row for row in rows if not row["kill_share"]}
    body = []
    for row in rows:
        if row["kill_share"] and (before := undisturbed.get((row["contender"], row["count"]))):
            body.append([
                str(row["count"]), title_of(row["contender"]), f"{row['kill_share']:.0%}",
                f"{before['last_seconds']:.1f}", f"{row['last_seconds']:.1f}",
                f"{row['last_seconds'] / before['last_seconds']:.3f}",
            ])
    return table(["n", "contender", "killed half-way", "undisturbed last s", "survivors' last s", "ratio"], body) + [""]


def verdict(rows):
    """The targets, each with the worst row of ours."""
    own = [row for row in rows if row["contender"] == "swarmdd" and not row["kill_share"]]
    lines = []

    def say_target(what, rows, value, target, shown="{:.2f}"):
        if rows:
            worst = max(rows, key=value)
            reached = "reached" if value(worst) <= target else "NOT reached"
            lines.append(f"- swarmdd: {what}: {shown.format(value(worst))} at n = {worst['count']} "
                         f"(target: {target}): {reached}.")

    say_target("last completion over T*, worst n", own, lambda row: row["ratio"], 1.10, "{:.3f}")
    say_target("last over median completion, worst n", own, lambda row: row["last_over_median"], 1.10, "{:.3f}")
    say_target("sent by the seeder over the image, n ≥ 8", [row for row in own if row["count"] >= 8],
               lambda row: row["seeder_sent_ratio"], 1.15)
    say_target("peak RSS in MiB", own, lambda row: max(row["peak_rss_mib"].values()), 64, "{:.0f}")
    say_target("threads", own, lambda row: row["threads"], 1, "{}")
    undisturbed = {row["count"]: row["last_seconds"] for row in own}
    say_target("survivors' last completion over the undisturbed one",
               [row for row in rows if row["contender"] == "swarmdd" and row["kill_share"]],
               lambda row: row["last_seconds"] / undisturbed.get(row["count"], 1), 1.20)
    return lines


def disturbance(rows):
    disturbed = [f"{row['contender']} at n = {row['count']} {row['host_foreign']:.0%}" for row in rows
                 if row["host_foreign"] > DISTURBED]
    if not disturbed:
        return []
    return [f"- Other programs took of this host's CPU: {', '.join(disturbed)}. "
            "Repeat on a quiet host before comparing."]
