"""What does a seed of a packed image cost beside one of the raw image, which has to compress?

One agent fetches a file system with the host's packages from another one over loopback, compressed.
The seeds take turns, and each turn of the packed image is compared with the turn of the raw image
before it, by the CPU time of the seed until the other agent is complete. With `--check` a seed has
hashed its pieces before that, without it each piece before it is sent.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

from .common import GIB, MIB, Failure, Result, accepts, last_line, say
from .host import describe_host, need_space
from .image import (
    make_files_image, make_torrent, pack_image, read_into_page_cache, same_bytes,
)
from .process import Node, wait_until
from .tables import host_line, write_report

PORT = 6881
SECONDS_MAX = 120
# The target, of a seed that has hashed its pieces.
RATIO_MAX = 0.3

SEEDS = {"checked before": ["--check"], "hashed while it is served": []}


def packed(options: argparse.Namespace) -> int:
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    need_space(directory, 3 * options.size * MIB)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    image = make_files_image(directory / "source", options.size)
    torrent, target = directory / "packed.torrent", directory / "packed.target"
    packed_image = directory / "packed.lz4"
    make_torrent(options.binary, image, torrent)
    pack_image(image, packed_image)
    runs: dict[str, list[Result]] = {}
    try:
        for number in range(options.runs):
            for source in (image, packed_image):
                for title, words in SEEDS.items():
                    result = run_once(options.binary, [*words, torrent, source], image, target)
                    kind = "packed" if source == packed_image else "raw"
                    name = f"{kind}, {title}"
                    runs.setdefault(name, []).append(result)
                    say(f"round {number + 1}: {name}: {result['cpu_seconds']:.2f} s of CPU")
    finally:
        for file in (packed_image, torrent, target):
            file.unlink(missing_ok=True)
    report: Result = {
        "benchmark": "packed", "size_bytes": image.stat().st_size, "rounds": options.runs,
        "host": describe_host(directory, 64 * MIB), "runs": runs,
    }
    write_report(directory, "packed", report, table(report))
    return 0


def run_once(binary: Path, words: list, image: Path, target: Path) -> Result:
    """What the seed costs while one agent fetches all of the image."""
    log, other_log = target.with_suffix(".seed.log"), target.with_suffix(".get.log")
    target.unlink(missing_ok=True)
    read_into_page_cache(words[-1])
    here, both = Node("here", "127.0.0.1"), ["--compress", "always", "--progress", "json"]
    running = []
    try:
        seed = here.start([binary, "seed", "--listen", f"127.0.0.1:{PORT}", *both, *words], log)
        running.append(seed)
        wait_until(lambda: b'"state":"seeding"' in log.read_bytes() and accepts("127.0.0.1", PORT),
                   seed, log)
        before, started = seed.cpu_seconds(), time.monotonic()
        get = here.start([binary, "get", "--listen", f"127.0.0.1:{PORT + 1}", *both, "--no-verify",
                          "--no-seed", "--peer", f"127.0.0.1:{PORT}", words[-2], target], other_log)
        running.append(get)
        while get.exit_status() is None and time.monotonic() < started + SECONDS_MAX:
            time.sleep(0.01)
        seconds, cpu_seconds = time.monotonic() - started, seed.cpu_seconds() - before
        seed.sample_memory()
        if get.exit_status() != 0:
            raise Failure(f"not complete: {last_line(other_log)}")
    finally:
        for process in reversed(running):
            process.stop()
    if not same_bytes(image, target):
        raise Failure("the target differs from the image")
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": seed.peak_bytes,
            "wire_bytes": said[-1]["uploaded_wire"]}


def table(report: Result) -> str:
    size, runs = report["size_bytes"], report["runs"]
    lines = [
        f"## Seeding a packed image, {size / MIB:.0f} MiB",
        "",
        f"{host_line(report['host'])}. Medians of {report['rounds']} rounds.",
        "",
        "| the seed's image | its CPU, s/GiB | wire, × image | peak MiB |",
        "| :-- | --: | --: | --: |",
    ]
    for title, results in runs.items():
        cpu, wire, peak = (statistics.median(result[key] for result in results)
                           for key in ("cpu_seconds", "wire_bytes", "peak_rss_bytes"))
        lines.append(f"| {title} | {cpu / size * GIB:.2f} | {wire / size:.3f} | {peak / MIB:.0f} |")
    for title in SEEDS:
        ratio = statistics.median(
            one["cpu_seconds"] / other["cpu_seconds"]
            for one, other in zip(runs[f"packed, {title}"], runs[f"raw, {title}"]))
        lines += ["", f"packed / raw, {title}: {ratio:.2f} of the CPU time."]
    lines += ["", f"The target is {RATIO_MAX} of a seed that was checked before."]
    return "\n".join(lines) + "\n"
