"""Which runs does a swarm bench make, in which order, for how long at most, and what comes out?

R, the rate of one TCP stream through a link of this rate, is measured in every round. All
contenders are compared with the limit T* = (1 + floor(log2 n) / k) · S / R.
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterator

from .common import GIB, MIB, Failure, Result, say
from .contenders import CONTENDERS, Contender
from .host import SATURATED, describe_host, need_space, versions
from .image import lz4_share
from .swarm import STREAM_SECONDS, Swarm, Torrent, best_stream_bytes_per_second, run_once
from .tables import swarm_tables, write_report
from .trace import draw
from .watch import Watch

# A run ends after this many times S / R, and a contender that is known to need longer is not
# started.
RATIO_MAX = 5.0
# What a run costs beside the copying: network, seeder, hashing of the targets.
OVERHEAD_SECONDS, OVERHEAD_SECONDS_EACH = 4, 0.4

# Round, contender, leechers, the torrent, share of them that is killed.
Step = tuple[int, Contender, int, Torrent, float]


def swarm(options: argparse.Namespace) -> int:
    options.output.mkdir(parents=True, exist_ok=True)
    need_space(options.output, (max(options.n) + 2) * options.size * MIB)
    shared = Swarm(options)
    plan = Plan(shared, options)
    report = {
        "benchmark": "swarm", "size_bytes": shared.size_bytes,
        "pieces": [torrent.pieces for torrent in shared.torrents],
        "image": options.image, "lz4_share": lz4_share(shared.image) if options.image else None,
        "rounds": options.runs, "line_bits_per_second": shared.line_bits_per_second,
        "uplink_queue": shared.uplink_queue, "queue": shared.queue,
        "rooms": shared.rooms, "cable": shared.cable, "kill_percent": options.kill,
        "host": describe_host(options.output.resolve(), shared.size_bytes),
        "versions": versions(options.binary),
        "stream_bytes_per_second": [], "runs": [], "failures": [], "left_out": [],
    }
    try:
        plan.run_all(report)
    finally:
        shared.remove_targets()
    stream = max(report["stream_bytes_per_second"])
    report["summary"] = summary(shared, report, stream)
    name = "kill" if options.kill else "swarm"
    write_report(options.output, name, report, swarm_tables(report, stream))
    failed = {failure["contender"] for failure in report["failures"]}
    return 1 if failed & {"swarmdd", "read-back", "swarmdd-packed"} else 0


class Plan:
    """The steps in their order, and the moment after which none is started."""

    def __init__(self, shared: Swarm, options: argparse.Namespace) -> None:
        self.shared, self.options = shared, options
        self.contenders = [
            contender for contender in CONTENDERS if contender.name in options.only
        ]
        # S / R before R is known: headers cost 4.5 % of a line of Ethernet.
        goodput_bits = 0.955 * shared.line_bits_per_second
        self.unit_seconds = shared.size_bytes * 8 / goodput_bits
        self.steps = [step for number in range(options.runs) for step in self.round(number)]
        expected = sum(self.expected_seconds(step) for step in self.steps)
        expected += options.runs * (STREAM_SECONDS + 3)
        minutes = options.minutes or math.ceil(expected / 60 * 1.2 + 2)
        self.deadline = time.monotonic() + 60 * minutes
        say(f"{len(self.steps)} runs, about {math.ceil(expected / 60)} minutes, "
            f"{minutes} at most; S/R is {self.unit_seconds:.0f} s")

    def round(self, number: int) -> Iterator[Step]:
        """Interleaved, each round beginning with another contender. With --kill, an undisturbed run
        comes before each disturbed one."""
        turn = number % len(self.contenders)
        for count in self.options.n:
            for torrent in self.shared.torrents:
                for contender in self.contenders[turn:] + self.contenders[:turn]:
                    if contender.expected_ratio(count) > RATIO_MAX:
                        continue
                    if torrent != self.shared.torrents[0] and not contender.has_pieces:
                        continue
                    yield number, contender, count, torrent, 0
                    if self.options.kill:
                        yield number, contender, count, torrent, self.options.kill / 100

    def expected_seconds(self, step: Step) -> float:
        _, contender, count, _, _ = step
        copying = contender.expected_ratio(count) * self.unit_seconds
        return copying + OVERHEAD_SECONDS + OVERHEAD_SECONDS_EACH * count

    def run_all(self, report: Result) -> None:
        report["left_out"] += self.too_slow()
        measured, failed = None, set()
        for step in self.steps:
            number, contender, count, _, _ = step
            if (contender.name, count) in failed:
                continue
            late = time.monotonic() + self.expected_seconds(step) > self.deadline
            if late and measured is not None:
                report["left_out"].append(
                    f"{contender.title} at n = {count}, round {number + 1}: no time left")
                continue
            if measured != number:
                report["stream_bytes_per_second"].append(best_stream_bytes_per_second(self.shared))
                measured = number
            try:
                report["runs"].append(self.run(report, step))
            except Failure as failure:
                failed.add((contender.name, count))
                report["failures"].append(
                    {"contender": contender.name, "count": count, "reason": str(failure)})
                say(f"n = {count}: {contender.name}: {failure}")

    def too_slow(self) -> list[str]:
        return [
            f"{contender.title} at n = {count}: needs {contender.expected_ratio(count):.0f} "
            "× S/R by its nature"
            for contender in self.contenders for count in self.options.n
            if contender.expected_ratio(count) > RATIO_MAX
        ]

    def run(self, report: Result, step: Step) -> Result:
        number, contender, count, torrent, kill_share = step
        timeout_seconds = RATIO_MAX * self.unit_seconds + 30
        result, watch = run_once(
            self.shared, contender, torrent, count, timeout_seconds, kill_share, number)
        stream = report["stream_bytes_per_second"][-1]
        limit = self.shared.limit_seconds(count, torrent.pieces, stream)
        ratio = result["last_seconds"] / limit
        sent = result["seeder_sent_bytes"] / self.shared.size_bytes
        killed = f", {len(result['killed'])} killed" if result["killed"] else ""
        most = max((b for cable in result["cable_bytes"] for b in cable), default=0)
        cable = f", {most / self.shared.size_bytes:.2f} through a cable" if most else ""
        say(f"n = {count}, k = {torrent.pieces}: {contender.name}: "
            f"{result['last_seconds']:.2f} s, {ratio:.3f} × T*, "
            f"seeder sent {sent:.2f} × the image{cable}{killed}, "
            f"host {result['host']['busy']:.0%} busy, "
            f"{result['host']['foreign']:.0%} by others")
        if self.options.trace:
            self.draw_trace(step, result, watch, stream)
        return {"contender": contender.name, "round": number, "pieces": torrent.pieces,
                "kill_share": kill_share, **result}

    def draw_trace(self, step: Step, result: Result, watch: Watch, stream: float) -> None:
        number, contender, count, torrent, kill_share = step
        limit_seconds = self.shared.limit_seconds(count, torrent.pieces, stream)
        name = (f"trace-{contender.name}-{count}-{torrent.pieces}"
                f"{'-kill' if kill_share else ''}-{number + 1}.svg")
        title = (f"{contender.title}: n = {count}, last {result['last_seconds']:.1f} s = "
                 f"{result['last_seconds'] / limit_seconds:.3f} × T*")
        drawing = draw(title, watch.samples, result, stream, [("T*", limit_seconds)])
        (self.options.output / name).write_text(drawing)


# ---- The figures of all rounds


def summary(shared: Swarm, report: Result, stream: float) -> list[Result]:
    """A row for each n, contender, and share of killed machines."""
    def key(run: Result) -> tuple:
        return run["count"], run["pieces"], run["kill_share"], run["contender"]

    rows = []
    for wanted in dict.fromkeys(map(key, report["runs"])):
        runs = [run for run in report["runs"] if key(run) == wanted]
        names = zip(("count", "pieces", "kill_share", "contender"), wanted)
        rows.append(dict(names, **summary_row(shared, runs, stream)))
    order = [contender.name for contender in CONTENDERS]
    rows.sort(key=lambda row: (row["count"], row["pieces"], row["kill_share"],
                               order.index(row["contender"])))
    return rows


def summary_row(shared: Swarm, runs: list[Result], stream: float) -> Result:
    """The median of each figure over the rounds."""
    def median(pick):
        return statistics.median(pick(run) for run in runs)

    def completed(run):
        return [seconds for seconds in run["completed_seconds"] if seconds is not None]

    def gib(run):
        return len(completed(run)) * shared.size_bytes / GIB

    def median_of_known(pick):
        """None if a run has no such figure: udpcast has no connections."""
        values = [pick(run) for run in runs]
        return None if None in values else statistics.median(values)

    def mean_share(name):
        def pick(run):
            return (None if None in run[name]
                    else statistics.mean(run[name]) / shared.size_bytes)
        return median_of_known(pick)

    limit = shared.limit_seconds(runs[0]["count"], runs[0]["pieces"], stream)
    return {
        "runs": len(runs), "limit_seconds": limit,
        "last_seconds": median(lambda run: run["last_seconds"]),
        "ratio": median(lambda run: run["last_seconds"]) / limit,
        "ratio_worst": max(run["last_seconds"] for run in runs) / limit,
        "mean_seconds": median(lambda run: statistics.mean(completed(run))),
        "median_seconds": median(lambda run: statistics.median(completed(run))),
        "first_seconds": median(lambda run: min(completed(run))),
        "connected_seconds": median_of_known(lambda run: run["connected_seconds"]),
        "first_piece_seconds": median_of_known(lambda run: run["first_piece_seconds"]),
        "every_first_piece_seconds":
            median_of_known(lambda run: run["every_first_piece_seconds"]),
        "received_ratio": mean_share("received_bytes"),
        "fetched_ratio": mean_share("fetched_bytes"),
        "last_over_median":
            median(lambda run: run["last_seconds"] / statistics.median(completed(run))),
        "cable_ratio": median(lambda run: max(
            (b for cable in run["cable_bytes"] for b in cable), default=0)) / shared.size_bytes,
        "seeder_sent_ratio": median(lambda run: run["seeder_sent_bytes"]) / shared.size_bytes,
        "seeder_cpu_seconds_per_gib": median(lambda run: run["cpu_seconds"]["seeder"] / gib(run)),
        "leechers_cpu_seconds_per_gib":
            median(lambda run: run["cpu_seconds"]["leechers"] / gib(run)),
        "peak_rss_mib": {
            role: max(run["peak_rss_bytes"][role] for run in runs) / MIB
            for role in ("seeder", "leechers")
        },
        "threads": max(run["threads"] for run in runs),
        "host_busy": max(run["host"]["busy"] for run in runs),
        "host_foreign": max(run["host"]["foreign"] for run in runs),
        "saturated": any(run["host"]["busy"] >= SATURATED for run in runs),
    }
