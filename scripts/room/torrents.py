"""What torrent describes each image? `swarmdd make` says."""
from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable

from .boot import Served, torrent_name
from . import state as states
from .checks import first_line, run
from .job import Image, Job, Mistake
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
        say(f"hashing {image.path}")
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
        served.append(Served(image, file, found[0], bytes_of(image.path)))
    return tuple(served)


def describe(job: Job, image: Image, state: State, file: str, say: Callable[[str], None],
             progress: Callable[[str], None], wanted: Callable[[], bool]) -> None:
    """`swarmdd make`, with its progress and its warnings."""
    command = [job.agent, "make", image.path, "-o", str(state.www / file),
               "--tracker", f"http://{job.address}:{job.tracker_port}/announce"]
    command += [] if job.used_ranges else ["--single"]
    command += ["--live"] * job.live + ["--raw"] * job.raw
    command += ["--piece-size", job.piece_size] if job.piece_size else []
    # In a session of its own, so that Ctrl-C is ours alone.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, start_new_session=True) as make:
        assert make.stderr
        states.remember(state, MAKE, make.pid, command)
        os.set_blocking(make.stderr.fileno(), False)
        words, ended = b"", False
        while not ended:
            ended = make.poll() is not None
            words += make.stderr.read() or b""
            if not wanted():
                make.terminate()
                return
            steps = PROGRESS.findall(words.decode(errors="replace"))
            if steps:
                progress(f"{image.name}: {steps[-1]}")
            time.sleep(0 if ended else 0.1)
    lines = [line.removeprefix("swarmdd: ") for line in words.decode(errors="replace").splitlines()
             if line.startswith("swarmdd: ")]
    if make.returncode == 2:
        raise Mistake(first_line("\n".join(lines)))
    if make.returncode:
        raise Refused(f"no torrent of {image.path}: {first_line(chr(10).join(lines))}")
    for line in lines:
        say(line)


def bytes_of(path: str) -> int:
    """Of a file or of a block device."""
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END)
