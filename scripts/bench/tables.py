"""How is a result shown? Reports as Markdown: tables, notes, and which targets are reached."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .common import MIB, Result, say
from .contenders import BY_NAME, CONTENDERS, MIXED, Contender
from .host import DISTURBED, SATURATED
from .links import CONGESTION_CONTROL

if TYPE_CHECKING:
    from .disk import Reader

REACHED = {True: "reached", False: "NOT reached"}


def write_report(directory: Path, name: str, report: Result, markdown: str) -> None:
    """Prints the tables, and keeps them and everything else that was measured."""
    (directory / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (directory / f"{name}.md").write_text(markdown)
    print(markdown, end="")
    say(f"made {directory}/{name}.md and {name}.json")


def host_line(host: Result) -> str:
    return f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}"


def versions_line(report: Result) -> str:
    versions = [f"{name}: {version}" for name, version in report["versions"].items()]
    return f"- {'; '.join(versions)}."


def row_of(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---- pair


def pair_table(report: Result) -> str:
    host, rows = report["host"], report["summary"]
    shown = [contender for contender in CONTENDERS if contender.name in rows]
    lines = [
        f"## One seeder, one leecher, {report['size_bytes'] // MIB} MiB over loopback, unshaped",
        "",
        f"{host_line(host)}; direct writes to the disk alone: "
        f"{host['disk_mib_per_second']:.0f} MiB/s. "
        f"Image {'not ' if report['cold'] else ''}in the page cache. "
        f"Medians of {report['rounds']} interleaved rounds, every target equal to the image. "
        f"TCP: {CONGESTION_CONTROL}.",
        "",
        "| contender | MiB/s | × swarmdd | MiB/s to fsync | CPU s/GiB | seeder + leecher "
        "| peak RSS MiB, seeder / leecher | host busy | limited by |",
        "| :-- | --: | --: | --: | --: | :-: | :-: | --: | :-- |",
    ]
    base = rows.get("swarmdd", rows.get("read-back", {})).get("mib_per_second")
    lines += [pair_row(contender, rows[contender.name], base) for contender in shown]
    lines.append("")
    lines += [f"- {name} failed: {reason}" for name, reason in report["failures"].items()]
    for contender in shown:
        count = len(report["runs"][contender.name])
        runs = "1 run" if count == 1 else f"{count} runs"
        lines.append(f"- {contender.title}: {contender.note}; {runs}.")
    lines += mapped_files_note(rows) + mixed_verdict(rows) + pair_verdict(rows)
    lines += pair_disturbance(rows)
    lines.append(versions_line(report))
    return "\n".join(lines) + "\n"


def pair_row(contender: Contender, row: Result, base: float | None) -> str:
    seeder, leecher = row["seeder_cpu_seconds_per_gib"], row["leecher_cpu_seconds_per_gib"]
    return row_of([
        contender.title, f"{row['mib_per_second']:.0f}",
        f"{row['mib_per_second'] / base:.2f}" if base else "",
        f"{row['durable_mib_per_second']:.0f}", f"{row['cpu_seconds_per_gib']:.2f}",
        f"{seeder:.2f} + {leecher:.2f}",
        f"{row['seeder_peak_mib']:.0f} / {row['leecher_peak_mib']:.0f}",
        f"{row['host_busy']:.0%}", row["limit"],
    ])


def mapped_files_note(rows: dict[str, Result]) -> list[str]:
    """libtorrent maps files, and mapped pages count in its peak."""
    if "libtorrent" not in rows:
        return []
    row = rows["libtorrent"]
    return [f"- libtorrent maps files; without them its peaks are "
            f"{row['seeder_peak_anonymous_mib']:.0f} / "
            f"{row['leecher_peak_anonymous_mib']:.0f} MiB."]


def pair_verdict(rows: dict[str, Result]) -> list[str]:
    """The targets: twice the speed of the fastest client or 0.7 of plain HTTP, at half the CPU of
    the most frugal client."""
    clients = [rows[name] for name in ("libtorrent", "aria2", "transmission") if name in rows]
    if "swarmdd" not in rows or not clients:
        return []
    own = rows["swarmdd"]
    speed = own["mib_per_second"] / max(row["mib_per_second"] for row in clients)
    cpu = own["cpu_seconds_per_gib"] / min(row["cpu_seconds_per_gib"] for row in clients)
    http = own["mib_per_second"] / rows["http"]["mib_per_second"] if "http" in rows else 0
    beside_http = f", {http:.2f} × plain HTTP" if "http" in rows else ""
    return [
        f"- swarmdd --no-verify: {speed:.2f} × the fastest of the other clients{beside_http} "
        f"(target: 2 or 0.7): {REACHED[speed >= 2 or http >= 0.7]}.",
        f"- swarmdd --no-verify: {cpu:.2f} × the CPU of the most frugal of the other clients "
        f"(target: 0.5): {REACHED[cpu <= 0.5]}.",
    ]


def mixed_verdict(rows: dict[str, Result]) -> list[str]:
    """How fast each client is with the agent at the other end, beside itself at both ends."""
    lines = []
    for mixed in MIXED:
        other = next(end for end in mixed.ends if end.name != "swarmdd")
        if mixed.name in rows and other.name in rows:
            speed = (rows[mixed.name]["mib_per_second"] / rows[other.name]["mib_per_second"])
            lines.append(f"- {mixed.title}: {speed:.2f} × {other.title} → {other.title} "
                         f"(target: 0.9): {REACHED[speed >= 0.9]}.")
    return lines


def pair_disturbance(rows: dict[str, Result]) -> list[str]:
    """What makes the figures say less than they seem to."""
    notes = []
    full = [name for name, row in rows.items() if row["host_busy"] >= SATURATED]
    if full:
        notes.append(f"- With {', '.join(full)} all cores were more than {SATURATED:.0%} busy: "
                     "this figure measures the host, and a faster host would give more.")
    disturbed = [
        f"{name} {row['host_others']:.0%}"
        for name, row in rows.items() if row["host_others"] > DISTURBED
    ]
    if disturbed:
        notes.append("- CPU of the host that went to neither end (other programs, write-back, "
                     f"tracker, this script): {', '.join(disturbed)}. "
                     "Repeat on a quiet host before comparing.")
    return notes


# ---- disk


def disk_table(report: Result, readers: list["Reader"], own: list["Reader"]) -> str:
    """`own` are the readers that are compared with the others."""
    rows, size_mib = report["summary"], report["size_bytes"] / MIB
    shown = [reader for reader in readers if reader.name in rows]
    lines = [
        f"## Reading one disk, {size_mib:.0f} MiB, side by side",
        "",
        f"{host_line(report['host'])}. The disk is a loop device with direct I/O over a file. "
        f"Medians of {report['rounds']} rounds.",
        "",
        "| reader | GB/s | slowest … fastest | × the slower of dd just before and SHA-1 "
        "| CPU s/GiB | peak MiB |",
        "| :-- | --: | :-: | --: | --: | --: |",
    ]
    gigabytes = report["size_bytes"] / 1e9
    lines += [disk_row(reader, rows[reader.name], gigabytes) for reader in shown]
    lines.append("")
    lines += [f"- {name} failed: {reason}" for name, reason in report["failures"].items()]
    lines += [f"- {reader.title}: {reader.note}." for reader in shown]
    for reader in own:
        if reader.name in rows:
            of_limit = rows[reader.name]["of_limit"]
            lines.append(f"- {reader.title}: {of_limit:.2f} (target: 0.9): "
                         f"{REACHED[of_limit >= 0.9]}.")
    others = max(result["host_others"] for result in report["runs"]["hash"])
    if others > DISTURBED:
        lines.append(f"- Other programs took up to {others:.0%} of this host's CPU. "
                     "Repeat on a quiet host before comparing.")
    return "\n".join(lines) + "\n"


def disk_row(reader: "Reader", row: Result, gigabytes: float) -> str:
    return row_of([
        reader.title, f"{row['mib_per_second'] * MIB / 1e9:.2f}",
        f"{gigabytes / row['seconds_max']:.2f} … {gigabytes / row['seconds_min']:.2f}",
        f"{row['of_limit']:.2f}" if row["of_limit"] else "",
        f"{row['cpu_seconds_per_gib']:.2f}",
        f"{row['peak_mib']:.0f}" if row["peak_mib"] else "",
    ])


# ---- swarm


def swarm_tables(report: Result, stream: float) -> str:
    rows, line_bits = report["summary"], report["line_bits_per_second"]
    rounds = ("One run of each" if report["rounds"] == 1
              else f"Medians of {report['rounds']} interleaved rounds")
    lines = [
        f"## One image, {report['size_bytes'] // MIB} MiB, from one seeder to n machines, "
        f"{line_bits / 1e6:.0f} Mbit/s each way",
        "",
        f"{host_line(report['host'])}. k = {', '.join(map(str, report['pieces']))} pieces"
        f"{image_words(report)}; one TCP stream gets "
        f"R = {stream * 8 / 1e6:.1f} Mbit/s, {stream * 8 / line_bits:.1%} of the line, so "
        f"S/R = {report['size_bytes'] / stream:.1f} s. Queues of "
        f"{report['uplink_queue']} bytes up, {report['queue']} down, {rooms_of(report)}"
        f"TCP: {CONGESTION_CONTROL}. {rounds}; every target has the hash of the image.",
        "",
    ]
    lines += ratio_table(rows) + [""] + start_table(rows) + [""] + full_table(rows) + [""]
    lines += kill_table(rows) if report["kill_percent"] else []
    lines += [f"- {failure['contender']} at n = {failure['count']} failed: {failure['reason']}"
              for failure in report["failures"]]
    lines += [f"- Left out: {text}." for text in report["left_out"]]
    names = {row["contender"] for row in rows}
    lines += [f"- {contender.title}: {contender.note}."
              for contender in CONTENDERS if contender.name in names]
    lines += swarm_verdict(rows) + swarm_disturbance(rows)
    lines.append(versions_line(report))
    return "\n".join(lines) + "\n"


def rooms_of(report: Result) -> str:
    if not report["rooms"]:
        return ""
    return f"{report['rooms']} rooms behind cables of {report['cable']} × the line each, "


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [row_of(head), f"| :-- |{' --: |' * (len(head) - 1)}", *map(row_of, rows)]


def image_words(report: Result) -> str:
    if report["image"] is None:
        return " of random data"
    what = "a file system of installed packages" if report["image"] == "files" else "a file"
    return f" of {what}, of which lz4 -1 makes {report['lz4_share']:.2f}"


def ratio_table(rows: list[Result]) -> list[str]:
    """The overview: last completion over T*, a line for each contender and number of pieces."""
    rows = [row for row in rows if not row["kill_share"]]
    counts = sorted({row["count"] for row in rows})
    ratios = {
        (row["contender"], row["pieces"], row["count"]):
            f"{row['ratio']:.2f}{saturation_mark(row)}"
        for row in rows
    }
    lines = dict.fromkeys((row["contender"], row["pieces"]) for row in rows)
    order = [contender.name for contender in CONTENDERS]
    return table(
        ["last completion over T*, n =", "k"] + [str(count) for count in counts],
        [
            [BY_NAME[name].title, pieces_of(name, pieces)]
            + [ratios.get((name, pieces, count), "") for count in counts]
            for name, pieces in sorted(lines, key=lambda line: (order.index(line[0]), line[1]))
        ])


def pieces_of(name: str, pieces: int) -> str:
    return str(pieces) if BY_NAME[name].has_pieces else ""


def start_table(rows: list[Result]) -> list[str]:
    """What passes before bytes spread, and what passes through the links afterwards."""
    head = ["n", "k", "contender", "last connected s", "a first piece s", "the last one's s",
            "spreading s ³", "each received, wire ¹", "of it image ⁴"]
    body = [start_row(row) for row in rows if not row["kill_share"]]
    return table(head, body) + [
        "",
        "Start-up: when the last machine had its first BitTorrent connection, when the first one "
        "had received as many bytes as a piece has, and when every one had. ³ From the first "
        "piece of the first machine to the last completion. ⁴ Bytes of the image that came over "
        "the network, over the image; pieces of zeros and repeated ones are not fetched.",
    ]


def start_row(row: Result) -> list[str]:
    def shown(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    first = row["first_piece_seconds"]
    return [
        str(row["count"]), pieces_of(row["contender"], row["pieces"]),
        BY_NAME[row["contender"]].title, shown(row["connected_seconds"]), shown(first),
        shown(row["every_first_piece_seconds"]),
        shown(None if first is None else row["last_seconds"] - first, 1),
        shown(row["received_ratio"]), shown(row["fetched_ratio"]),
    ]


def saturation_mark(row: Result) -> str:
    return " ²" if row["saturated"] else ""


def full_table(rows: list[Result]) -> list[str]:
    head = ["n", "k", "contender", "last s", "× T*", "worst", "mean s", "median s", "first s",
            "last / median", "seeder sent ¹", "cable ¹", "CPU s/GiB", "seeder + leechers",
            "peak RSS MiB, seeder / leecher", "threads", "host busy", "others", "runs"]
    body = [full_row(row) for row in rows if not row["kill_share"]]
    return table(head, body) + [
        "",
        "¹ Bytes that left the seeder's interface, and that passed the busiest cable of a room one "
        "way, over the image, with most of the headers not counted. ² All cores were more than "
        f"{SATURATED:.0%} busy, by whichever program: the figure may measure the host.",
    ]


def full_row(row: Result) -> list[str]:
    seeder, leechers = row["seeder_cpu_seconds_per_gib"], row["leechers_cpu_seconds_per_gib"]
    peak = row["peak_rss_mib"]
    return [
        str(row["count"]), pieces_of(row["contender"], row["pieces"]),
        BY_NAME[row["contender"]].title, f"{row['last_seconds']:.1f}",
        f"{row['ratio']:.3f}", f"{row['ratio_worst']:.3f}", f"{row['mean_seconds']:.1f}",
        f"{row['median_seconds']:.1f}", f"{row['first_seconds']:.1f}",
        f"{row['last_over_median']:.3f}", f"{row['seeder_sent_ratio']:.2f}",
        f"{row['cable_ratio']:.2f}" if row["cable_ratio"] else "",
        f"{seeder + leechers:.2f}", f"{seeder:.2f} + {leechers:.2f}",
        f"{peak['seeder']:.0f} / {peak['leechers']:.0f}", str(row["threads"]),
        f"{row['host_busy']:.0%}{saturation_mark(row)}", f"{row['host_foreign']:.0%}",
        str(row["runs"]),
    ]


def kill_table(rows: list[Result]) -> list[str]:
    undisturbed = {
        (row["contender"], row["count"], row["pieces"]): row["last_seconds"]
        for row in rows if not row["kill_share"]
    }
    body = []
    for row in rows:
        before = undisturbed.get((row["contender"], row["count"], row["pieces"]))
        if row["kill_share"] and before:
            body.append([
                str(row["count"]), pieces_of(row["contender"], row["pieces"]),
                BY_NAME[row["contender"]].title, f"{row['kill_share']:.0%}",
                f"{before:.1f}", f"{row['last_seconds']:.1f}",
                f"{row['last_seconds'] / before:.3f}",
            ])
    head = ["n", "k", "contender", "killed half-way", "undisturbed last s", "survivors' last s",
            "ratio"]
    return table(head, body) + [""]


def swarm_verdict(rows: list[Result]) -> list[str]:
    """The targets, each with the worst row of ours."""
    own = [row for row in rows if row["contender"] == "swarmdd" and not row["kill_share"]]
    killed = [row for row in rows if row["contender"] == "swarmdd" and row["kill_share"]]
    undisturbed = {(row["count"], row["pieces"]): row["last_seconds"] for row in own}
    lines: list[str] = []

    def add(
        what: str, rows: list[Result], value: Callable[[Result], float], target: float,
        shown: str = "{:.2f}",
    ) -> None:
        if rows:
            worst = max(rows, key=value)
            lines.append(f"- swarmdd: {what}: {shown.format(value(worst))} at n = "
                         f"{worst['count']}, k = {worst['pieces']} (target: {target}): "
                         f"{REACHED[value(worst) <= target]}.")

    add("last completion over T*, worst n", own, lambda row: row["ratio"], 1.10, "{:.3f}")
    add("last over median completion, worst n", own, lambda row: row["last_over_median"], 1.10,
        "{:.3f}")
    add("sent by the seeder over the image, n ≥ 8", [row for row in own if row["count"] >= 8],
        lambda row: row["seeder_sent_ratio"], 1.15)
    add("peak RSS in MiB", own, lambda row: max(row["peak_rss_mib"].values()), 64, "{:.0f}")
    add("threads", own, lambda row: row["threads"], 1, "{}")
    add("survivors' last completion over the undisturbed one", killed,
        lambda row: row["last_seconds"] / undisturbed.get((row["count"], row["pieces"]), 1), 1.20)
    return lines


def swarm_disturbance(rows: list[Result]) -> list[str]:
    disturbed = [
        f"{row['contender']} at n = {row['count']} {row['host_foreign']:.0%}"
        for row in rows if row["host_foreign"] > DISTURBED
    ]
    if not disturbed:
        return []
    return [f"- Other programs took of this host's CPU: {', '.join(disturbed)}. "
            "Repeat on a quiet host before comparing."]
