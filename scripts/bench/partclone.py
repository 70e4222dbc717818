"""What does it cost to read a partclone image: for `make`, and for partclone itself?

The image is of an ext4 full of random files. `make` checks its CRC-32 and hashes it for the
torrent; `partclone.restore` checks the CRC-32 and writes to /dev/null. Both read it from the page
cache. They take turns, and each turn of `make` is compared with the turn of partclone before it, by
CPU time: partclone waits for a thread that shows its progress and sleeps for whole seconds.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from .common import MIB, Argument, Failure, Result, say
from .host import describe_host, need_space
from .image import read_into_page_cache
from .tables import host_line, write_report

FILE_BYTES = 8 * MIB
# The target: not much more than what the owner of the image pays today.
RATIO_MAX = 1.1


def partclone(options: argparse.Namespace) -> int:
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    need_space(directory, 4 * options.size * MIB)
    image, torrent = directory / "partclone.img", directory / "partclone.torrent"
    used_bytes = make_image(directory, image, options.size)
    try:
        runs = all_rounds(options, image, torrent)
    finally:
        image.unlink()
        torrent.unlink(missing_ok=True)
    report: Result = {
        "benchmark": "partclone", "size_bytes": used_bytes, "rounds": options.runs,
        "host": describe_host(directory, 64 * MIB), "runs": runs,
    }
    write_report(directory, "partclone", report, table(report))
    return 0


def make_image(directory: Path, image: Path, size_mib: int) -> int:
    """An image of about this many MiB. Returns its size in bytes."""
    tree, disk = directory / "partclone-tree", directory / "partclone.disk"
    try:
        tree.mkdir()
        for number in range(max(1, size_mib * MIB // FILE_BYTES)):
            (tree / str(number)).write_bytes(os.urandom(FILE_BYTES))
        disk.touch()
        os.truncate(disk, (size_mib * 5 // 4 + 64) * MIB)
        call("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk)
        call("partclone.ext4", "-c", "-s", disk, "-O", image, "-L", os.devnull)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        disk.unlink(missing_ok=True)
    return image.stat().st_size


def all_rounds(
    options: argparse.Namespace, image: Path, torrent: Path
) -> dict[str, list[Result]]:
    runs: dict[str, list[Result]] = {"partclone": [], "make": []}
    read_into_page_cache(image)
    for number in range(options.runs):
        # -C: /dev/null is smaller than the partition was.
        theirs = call("partclone.restore", "-C", "-s", image, "-O", os.devnull, "-L", os.devnull)
        ours = call(options.binary, "make", image, "-o", torrent)
        torrent.unlink()
        for name, result in (("partclone", theirs), ("make", ours)):
            runs[name].append(result)
            say(f"round {number + 1}: {name}: {result['seconds']:.2f} s, "
                f"{result['cpu_seconds']:.2f} s of CPU")
    return runs


def call(*command: Argument) -> Result:
    """What a program that must succeed has cost."""
    words, begun = [str(word) for word in command], time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failure(f"{' '.join(words)} ended with {process.returncode}")
    return {"seconds": time.monotonic() - begun, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def table(report: Result) -> str:
    ours, theirs = report["runs"]["make"], report["runs"]["partclone"]
    lines = [
        f"## Reading a partclone image, {report['size_bytes'] / MIB:.0f} MiB",
        "",
        f"{host_line(report['host'])}. Medians of {report['rounds']} rounds.",
        "",
        "| | s | CPU s |",
        "| :-- | --: | --: |",
    ]
    for title, results in (("swarmdd make", ours), ("partclone.restore to /dev/null", theirs)):
        lines.append("| " + " | ".join([title, *(
            f"{statistics.median(result[key] for result in results):.2f}"
            for key in ("seconds", "cpu_seconds"))]) + " |")
    ratio = statistics.median(
        one["cpu_seconds"] / other["cpu_seconds"] for one, other in zip(ours, theirs))
    lines += ["", f"swarmdd / partclone: {ratio:.2f} of the CPU time (target: {RATIO_MAX})."]
    return "\n".join(lines) + "\n"
