"""What is on the page: the figures of status.json, and the files that a browser needs beside it.

`status` computes the content of status.json from the rows of the roster; `write` puts it below www,
where nginx serves it. The page (page/) reads it every second and does the rest.
"""
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .row import Row

FILES = Path(__file__).with_name("page")
# Points of the chart: more than its pixels on a phone would be invisible, and each of 400 viewers
# fetches all of them every second.
HISTORY_POINTS_MAX = 240
MESSAGES_MAX = 20
# What the page and scripts/status show of each machine. Other members of Row are for the results.
SHOWN = ("mac", "name", "address", "state", "percent", "down", "up", "fetched", "uploaded", "eta",
         "waiting", "disk", "link_mbps", "silent", "state_since", "complete", "back", "again",
         "error", "words", "flags", "listed", "fetched_wire", "uploaded_wire")


@dataclass(frozen=True)
class Around:
    """What there is to show beside the machines."""

    job: str
    title: str
    # Name and bytes of each image.
    images: tuple[tuple[str, int], ...]
    server: str = ""
    expect: int = 0
    began_at: float = 0.0
    # "running", "ending" (the tracker has stopped, and the machines leave), "ended".
    phase: str = "running"
    # A sentence, such as why the job has ended.
    words: str = ""
    # Of the server's own seed: bytes a second now, and bytes in all.
    seed_up: int = 0
    seed_uploaded: int = 0
    # Time and text, newest last: a component that died, a table of leases that is full.
    messages: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Totals:
    """The room in one line. `missing` counts expected machines that have no row, too."""

    machines: int
    complete: int
    failed: int
    working: int
    missing: int
    # Bytes a second, over all machines.
    down: int
    up: int
    # Payload that machines which have not failed still have to fetch.
    bytes_left: int
    percent: float
    # Seconds until the last of the working machines is complete, as far as anybody knows.
    eta: int | None
    seed_up: int
    # Bytes of payload that came over the network, and what they were there.
    fetched: int
    fetched_wire: int


def totals(rows: Sequence[Row], around: Around) -> Totals:
    """Adds up the room."""
    all_bytes = sum(size for _, size in around.images)
    unseen = max(0, around.expect - len(rows))
    complete = failed = missing = down = up = 0
    bytes_wanted = bytes_left = unseen * all_bytes
    etas = []
    for row in rows:
        complete += row.complete
        # One that is to be imaged again is not lost.
        is_failed = row.state == "failed" and not row.again
        failed += is_failed
        missing += row.state == "missing"
        down += row.down
        up += row.up
        if is_failed:
            continue
        bytes_wanted += row.bytes
        bytes_left += row.left
        if row.eta is not None:
            etas.append(row.eta)
    return Totals(
        machines=len(rows) + unseen, complete=complete, failed=failed,
        working=len(rows) - complete - failed - missing, missing=missing + unseen,
        down=down, up=up, bytes_left=bytes_left,
        percent=100 * (1 - bytes_left / bytes_wanted) if bytes_wanted else 0.0,
        eta=max(etas) if etas else None, seed_up=around.seed_up,
        fetched=sum(row.fetched for row in rows),
        fetched_wire=sum(row.fetched_wire for row in rows))


class History:
    """Rate of the room over the whole time of the job, in at most HISTORY_POINTS_MAX points.

    Point `i` is the mean rate, in bytes a second, of the `step` seconds from `began_at + i * step`
    on. When all places are taken, pairs are merged and `step` doubles: 4 minutes have 240 points of
    1 s, a day has 168 of 512 s."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.step = 1
        self.down: list[int] = []
        # What was added to the newest point, which is not finished: how many values, their sum.
        self.count = 0
        self.sum = 0

    @staticmethod
    def load(path: Path, job: str, began_at: float) -> "History":
        """Goes on with the points that an earlier `serve` of this job has left."""
        history = History(began_at)
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            points = old["history"]
            if old["job"] == job and points["step"] >= 1:
                history.began_at = float(points["began_at"])
                history.step = int(points["step"])
                history.down = [int(value) for value in points["down"]][:HISTORY_POINTS_MAX]
        except (OSError, ValueError, KeyError, TypeError):
            # There is none, or it is damaged: the chart begins now.
            return History(began_at)
        return history

    def add(self, now: float, down: int) -> None:
        """The room receives `down` bytes a second now. A clock that goes back adds to the newest
        point."""
        index = int(max(0.0, now - self.began_at) // self.step)
        while index >= HISTORY_POINTS_MAX:
            self.halve()
            index //= 2
        if index >= len(self.down):
            # Nobody measured while no `serve` was running.
            self.down += [0] * (index + 1 - len(self.down))
            self.count = self.sum = 0
        self.count += 1
        self.sum += down
        self.down[-1] = self.sum // self.count

    def halve(self) -> None:
        """Merges pairs of points. A half pair stays the newest point, and is added to."""
        pairs = zip(self.down[::2], self.down[1::2])
        odd = self.down[-1:] if len(self.down) % 2 else []
        self.down = [(first + second) // 2 for first, second in pairs] + odd
        self.step *= 2

    def points(self) -> dict[str, Any]:
        """As in status.json."""
        return {"began_at": self.began_at, "step": self.step, "down": self.down}


def status(rows: Sequence[Row], around: Around, history: History, now: float) -> dict[str, Any]:
    """The content of status.json. All times are by the server's clock, as `now` is."""
    return {
        "version": 1,
        "now": now,
        "job": around.job,
        "title": around.title,
        "images": [{"name": name, "bytes": size} for name, size in around.images],
        "server": around.server,
        "began_at": around.began_at,
        "phase": around.phase,
        "words": around.words,
        "totals": asdict(totals(rows, around)),
        "seed": {"up": around.seed_up, "uploaded": around.seed_uploaded},
        "history": history.points(),
        "messages": [{"time": time, "text": text}
                     for time, text in around.messages[-MESSAGES_MAX:]],
        "machines": [{name: getattr(row, name) for name in SHOWN} for row in rows],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file in one step: a browser that reads it now gets the old one, whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, separators=(",", ":")), encoding="ascii")
    new.chmod(0o644)
    os.replace(new, path)


def install(www: Path) -> None:
    """Puts the files of the page where nginx finds them."""
    for source in FILES.iterdir():
        target = www / source.name
        shutil.copyfile(source, target)
        target.chmod(0o644)
