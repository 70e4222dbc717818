"""What torrent describes each image? `swarmdd make` says."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .boot import Served, torrent_name
from . import state as states
from .checks import TOP, first_line, run
from .job import Image, Job, Mistake
from .packing import head_of, is_packed
from .shelf_unpack import PARTCLONE
from .state import Refused, State

# The name of what is remembered in MAKE.pid.
MAKE = "make"
PROGRESS = re.compile(r"scanning ([0-9.]+ %)")


def make_torrents(job: Job, state: State, say: Callable[[str], None],
                  progress: Callable[[str], None], wanted: Callable[[], bool]
                  ) -> tuple[Served, ...]:
    """Reads each image whole. Stops early, without a torrent, if it is no longer `wanted`."""
    # Of a `serve` that was killed meanwhile: it would write the same file.
    states.end_processes(states.remains(state).get(MAKE, []))
    served = []
    for number, image in enumerate(job.images, 1):
        say(f"hashing {image.source}")
        file = torrent_name(number, image)
        try:
            describe(job, image, state, file, say, progress, wanted)
        finally:
            states.forget(state, MAKE)
        if not wanted():
            break
        shown = run(job.agent, "info", str(state.www / file))
        found = re.search(r"\b[0-9a-f]{40}\b", shown.stdout)
        if not found:
            raise Refused(f"swarmdd info prints no info-hash of {file}")
        (state.www / file).chmod(0o644)
        served.append(Served(image, file, found[0], bytes_of(image, shown.stdout)))
    return tuple(served)


def describe(job: Job, image: Image, state: State, file: str, say: Callable[[str], None],
             progress: Callable[[str], None], wanted: Callable[[], bool]) -> None:
    """`swarmdd make`, with its progress and its warnings."""
    command = [job.agent, "make", image.source, "-o", str(state.www / file)]
    command += [] if job.no_tracker else [
        "--tracker", f"http://{job.address}:{job.tracker_port}/announce"]
    command += [] if job.used_ranges or is_partclone(image.path) else ["--single"]
    command += ["--live"] * job.live + ["--raw"] * job.raw
    command += ["--piece-size", job.piece_size] if job.piece_size else []
    map_file = state.root / f"{file}.map"
    try:
        if (job.used_ranges and not job.no_used_map and not job.raw
                and not is_partclone(image.path)):
            command += map_used(image, state, map_file, say, wanted)
        if not wanted():
            return
        status, words = watch(command, state, progress_of(image, progress), wanted)
    finally:
        map_file.unlink(missing_ok=True)
    if not wanted():
        return
    lines = told_by("swarmdd", words)
    if status == 2:
        raise Mistake(first_line("\n".join(lines)))
    if status:
        raise Refused(f"no torrent of {image.source}: {first_line(chr(10).join(lines))}")
    for line in lines:
        say(line)


def map_used(image: Image, state: State, map_file: Path, say: Callable[[str], None],
             wanted: Callable[[], bool]) -> list[str]:
    """The option for a map of the used blocks. Without a map the job goes on: the machines only get
    more than they need."""
    if not shutil.which("partclone.info"):
        say(f"{image.name}: partclone is not installed, so deleted files are sent as well")
        return []
    if is_packed(Path(image.path)):
        say(f"{image.name}: it is packed, so deleted files are sent as well")
        return []
    command = [sys.executable, str(TOP / "scripts/used-map"), image.path, "-o", str(map_file)]
    status, words = watch(command, state, lambda _: None, wanted)
    lines = told_by("used-map", words)
    if status:
        if wanted():
            # What it said before is about file systems that are clean.
            reason = (lines or ["no reason given"])[-1]
            say(f"{image.name}: deleted files are sent as well: {reason}")
        return []
    say(lines[-1])
    return ["--used-map", str(map_file)]


def watch(command: list[str], state: State, progress: Callable[[str], None],
          wanted: Callable[[], bool]) -> tuple[int, str]:
    """The exit status of a command, and what it wrote to stderr, of which `progress` sees all that
    there is so far. Ends it if it is no longer `wanted`."""
    # In a session of its own, so that Ctrl-C is ours alone.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr
        states.remember(state, MAKE, process.pid, command)
        os.set_blocking(process.stderr.fileno(), False)
        words, ended = b"", False
        while not ended:
            ended = process.poll() is not None
            words += process.stderr.read() or b""
            if not wanted():
                process.terminate()
                break
            progress(words.decode(errors="replace"))
            time.sleep(0 if ended else 0.1)
    return process.returncode, words.decode(errors="replace")


def progress_of(image: Image, progress: Callable[[str], None]) -> Callable[[str], None]:
    """Passes on how far `make` is."""
    def look(words: str) -> None:
        steps = PROGRESS.findall(words)
        if steps:
            progress(f"{image.name}: {steps[-1]}")
    return look


def told_by(name: str, words: str) -> list[str]:
    return [line.removeprefix(f"{name}: ") for line in words.splitlines()
            if line.startswith(f"{name}: ")]


def is_partclone(path: str) -> bool:
    """An image that holds used blocks only, and says where they belong."""
    return head_of(Path(path), len(PARTCLONE)) == PARTCLONE


def bytes_of(image: Image, info: str) -> int:
    """Of a file or of a block device. Of what somebody has packed, the size of the torrent."""
    if is_packed(Path(image.path)):
        found = re.search(r"^size: ([0-9]+) bytes", info, re.MULTILINE)
        return int(found[1]) if found else 0
    with open(image.path, "rb") as file:
        return file.seek(0, os.SEEK_END)
