"""How do the scripts in EZIO's place talk with the agent, and when does a machine stop seeding?

The agent is `swarmdd daemon`, started by the script ezio. It answers one JSON object a line on a
Unix socket, which has the name of the address that EZIO would listen on.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

RUN = Path("/run/swarmdd")
ADDRESS = "127.0.0.1:50051"
# Clonezilla starts ezio in the background and goes on at once.
START_SECS = 60
# To accept a torrent, the agent reads the file, and looks at the target.
REPLY_SECS = 300
REPLY_BYTES = 16 << 20
POLL_SECS = 2
# EZIO's policy: a torrent that was passed on three times, or for which nobody asks, is left.
RATIO = 3
IDLE_SECS = 15
# Closing a target reads the partition table again, and writes what is still to be written.
END_SECS = 600


class Refused(Exception):
    """The agent said no; the text is its sentence."""


class Away(Exception):
    """No agent answers."""


class Ended(Exception):
    """A signal ended this script."""


# --- the agent


class Agent:
    """The agent that ezio has started."""

    def __init__(self, address: str) -> None:
        self.socket = RUN / f"ezio-{address.replace(':', '-')}.sock"
        # What ezio_add_torrent.py was refused. Clonezilla does not look at its status, so the
        # scripts that wait must know it.
        self.refusals = self.socket.with_name(f"{self.socket.name}.refused")

    def ask(self, patience_secs: float = 0, **request: Any) -> dict[str, Any]:
        """Sends a request and returns the reply. An agent that does not listen yet has
        `patience_secs` to begin."""
        end = time.monotonic() + patience_secs
        while True:
            try:
                return self.asked_once(request)
            except (ConnectionRefusedError, FileNotFoundError) as error:
                if time.monotonic() > end:
                    raise Away(f"no ezio answers on {self.socket}") from error
                time.sleep(0.2)
            except OSError as error:
                raise Away(f"ezio on {self.socket} does not answer: {error}") from error

    def asked_once(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(REPLY_SECS)
            stream.connect(str(self.socket))
            stream.sendall(json.dumps(request).encode() + b"\n")
            with stream.makefile("rb") as replies:
                line = replies.readline(REPLY_BYTES)
        if not line.endswith(b"\n"):
            raise Away(f"ezio on {self.socket} ended in the middle of a reply")
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise Away(f"ezio on {self.socket} gave no reply but {line[:80]!r}")
        if reply.get("ok") is not True:
            raise Refused(str(reply.get("error", "refused without a reason")))
        return reply

    def jobs(self, patience_secs: float = 0) -> "list[Job]":
        return [Job.of(members) for members in self.ask(patience_secs, do="list")["jobs"]]

    def shut_down(self) -> None:
        """Returns when the agent has ended."""
        self.ask(do="shutdown")
        end = time.monotonic() + END_SECS
        while time.monotonic() < end:
            try:
                self.ask(do="list")
            except (Away, Refused):
                return
            time.sleep(0.5)

    def note_refusal(self, text: str) -> None:
        RUN.mkdir(parents=True, exist_ok=True)
        with open(self.refusals, "a", encoding="utf-8") as notes:
            notes.write(text.replace("\n", " ") + "\n")

    def refused(self) -> list[str]:
        try:
            return self.refusals.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class Job:
    """One torrent and its target, as `list` describes it."""

    info_hash: str
    torrent: str
    target: str
    state: str
    percent: float = 0.0
    # Bytes per second.
    down: int = 0
    up: int = 0
    # Bytes. The agent says `bytes`, the length of the image, when a job has ended.
    bytes: int = 0
    fetched: int = 0
    uploaded: int = 0
    paused: bool = False
    # Since it was complete and, the last time that something was sent, or None.
    finished_secs: int | None = None
    idle_secs: int | None = None
    error: str | None = None

    @staticmethod
    def of(members: dict[str, Any]) -> "Job":
        known = Job.__dataclass_fields__
        return Job(**{name: value for name, value in members.items() if name in known})

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    @property
    def finished(self) -> bool:
        return self.finished_secs is not None and not self.failed

    @property
    def left(self) -> bool:
        """It was complete, and serves nobody any more."""
        return self.finished and (self.paused or self.state == "done")

    def may_leave(self, wait_secs: int, idle_secs: int) -> bool:
        """EZIO's policy. What a target held before counts for nothing."""
        if not self.finished or self.left or self.finished_secs is None:
            return False
        if self.uploaded > RATIO * (self.bytes or self.fetched) > 0:
            return True
        is_idle = self.idle_secs is None or self.idle_secs > idle_secs
        return self.finished_secs > wait_secs and is_idle

    def failure(self) -> str:
        return f"{self.torrent} -> {self.target}: {self.error or 'failed'}"


# --- waiting until all is done


class View(Protocol):
    """What shows the jobs."""

    def show(self, jobs: list[Job], failures: list[str]) -> None: ...
    def done(self) -> None: ...
    def stays(self, failures: list[str]) -> None: ...


def watch(agent: Agent, view: View, wait_secs: int, idle_secs: int, ocsmgrd: str | None) -> int:
    """Returns the exit status 0 when every torrent is complete and nobody needs it any more; then
    the agent has ended, and `ocsmgrd` was told. If anything failed, this does not return before a
    signal comes: Clonezilla would restart the machine, and report a success."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    started = time.monotonic()
    try:
        jobs, failures = watched(agent, view, wait_secs, idle_secs)
        if not failures and ocsmgrd:
            failures = told(ocsmgrd, jobs, (time.monotonic() - started) / 60)
        if not failures:
            view.done()
            return 0
        view.stays(failures)
        while True:
            signal.pause()
    except Ended:
        return 1


def watched(agent: Agent, view: View, wait_secs: int,
            idle_secs: int) -> tuple[list[Job], list[str]]:
    """The jobs and what failed, when nothing can happen any more; if nothing failed, the agent has
    ended."""
    jobs: list[Job] = []
    patience_secs = START_SECS
    try:
        while True:
            jobs = agent.jobs(patience_secs)
            patience_secs = 0
            failures = agent.refused() + [job.failure() for job in jobs if job.failed]
            view.show(jobs, failures)
            for job in jobs:
                if job.may_leave(wait_secs, idle_secs):
                    # A job that has ended meanwhile is refused, and listed so.
                    with contextlib.suppress(Refused):
                        agent.ask(do="pause", info_hash=job.info_hash)
            if is_over(jobs, failures):
                if not failures:
                    agent.shut_down()
                return jobs, failures
            time.sleep(POLL_SECS)
    except (Away, Refused) as error:
        return jobs, agent.refused() + [str(error)]


def told(ocsmgrd: str, jobs: list[Job], minutes: float) -> list[str]:
    """Sends Clonezilla's server the report of ocs-sr; returns what failed."""
    targets = " ".join(job.target for job in jobs)
    report = f" {targets}, success, {minutes:.3f} mins;"
    done = subprocess.run([Path(__file__).with_name("ocsmgrd-notify"), ocsmgrd, report],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return done.stderr.splitlines() if done.returncode else []


def is_over(jobs: list[Job], failures: list[str]) -> bool:
    """Before the first torrent was added, it is not."""
    return all(job.left or job.failed for job in jobs) and bool(jobs or failures)


def end(_number: int, _frame: object) -> NoReturn:
    raise Ended


# --- words for a view, and from Clonezilla


def seconds_of(text: str) -> int:
    """What is no number is IDLE_SECS: if the script ended because of it, Clonezilla would report a
    success."""
    try:
        return int(text)
    except ValueError:
        print(f"ezio: {text!r} is no number of seconds: {IDLE_SECS} instead", file=sys.stderr)
        return IDLE_SECS


# How argparse takes an option of seconds. One that lacks its value has "".
OF_SECONDS: dict[str, Any] = {"type": seconds_of, "nargs": "?", "const": "", "default": IDLE_SECS,
                              "metavar": "SECS"}


def gb_per_minute(bytes_per_second: int) -> str:
    """EZIO's unit: GiB, called GB."""
    return f"{bytes_per_second * 60 / (1 << 30):.2f}GB/min"


def percent_of_all(jobs: list[Job]) -> int:
    """Rounded down: 100 is complete."""
    if not jobs:
        return 0
    weights = [job.bytes or 1 for job in jobs]
    done = sum(job.percent * weight for job, weight in zip(jobs, weights))
    return int(done / sum(weights))


def summary(seconds: float, jobs: list[Job]) -> str:
    """The line of ezio_cli.py."""
    down, up = sum(job.down for job in jobs), sum(job.up for job in jobs)
    remaining = sum(not job.left for job in jobs)
    return (f"[T: {seconds:.0f}][P: {percent_of_all(jobs):3}%][D: {gb_per_minute(down)}]"
            f"[U: {gb_per_minute(up)}][R: {remaining}]")


def in_red(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return f"\033[1;31m{text}\033[0m" if sys.stdout.isatty() else text


def words_of_failure(failures: list[str]) -> list[str]:
    return ["NOT DEPLOYED:", *(f"  {failure}" for failure in failures)]


STAYS = "This stays here, because Clonezilla would report a success. Ctrl-C ends it."


def write(text: str) -> None:
    """A reader that has gone away does not end the deployment."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
