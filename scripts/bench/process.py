"""How is a program run on a machine of the bench, and what does it cost?

What a process costs is read from /proc. A process that has ended stays a zombie until `stop`, so
that its counters can still be read.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .common import TICKS_PER_SECOND, Command, Failure, last_line, read_or_empty

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10


class Node:
    """An address to run processes on, and the prefix of a command that runs it there."""

    def __init__(self, name: str, address: str, prefix: Iterable[str] = ()) -> None:
        self.name, self.address, self.prefix = name, address, list(prefix)

    def start(self, command: Command, log: Path, gate: "Gate | None" = None) -> "Process":
        """With a gate, the program itself starts when the gate opens."""
        argv = [str(word) for word in command]
        return Process(self.prefix + (gate.guard(argv) if gate else argv), log, gate)


class Gate:
    """Holds processes back just before their program starts, so that all start at one moment."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.is_open = False

    @staticmethod
    def guard(argv: list[str]) -> list[str]:
        # `read` ends when the last writer has closed the pipe.
        return ["sh", "-c", 'read -r _ || :; exec "$@" < /dev/null', "gate", *argv]

    def wait_for(self, processes: Iterable["Process"]) -> None:
        """Until every process waits at the gate: it has become the shell of `guard`."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        for process in processes:
            while read_or_empty(f"/proc/{process.pid}/comm") != "sh\n":
                if time.monotonic() > deadline or process.exit_status() is not None:
                    raise Failure(f"{process.argv[-1]} did not get as far as its start")
                time.sleep(0.01)

    def open(self) -> None:
        """Opening it twice does nothing."""
        if not self.is_open:
            os.close(self.writer)
            os.close(self.reader)
            self.is_open = True


class Process:
    """A running program, what it has used so far, and its end."""

    def __init__(self, argv: list[str], log: Path, gate: Gate | None = None) -> None:
        self.argv = argv
        self.peak_bytes = self.peak_anonymous_bytes = self.threads = 0
        with open(log, "wb") as output:
            # pdeathsig: however the bench ends, nothing that it started outlives it.
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=gate.reader if gate else subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def exit_status(self) -> int | None:
        """None while it runs."""
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return end.si_status if end else None

    def cpu_seconds(self) -> float:
        """User and system time of all its threads and of the children it waited for."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND

    def sample_memory(self) -> None:
        """VmHWM is the kernel's own peak. It counts mapped file pages, so the peak of the anonymous
        part is kept beside it."""
        status = read_or_empty(f"/proc/{self.pid}/status")
        lines = (line.split() for line in status.splitlines() if line.endswith(" kB"))
        kib = {name: int(value) for name, value, _ in lines}
        self.peak_bytes = max(self.peak_bytes, kib.get("VmHWM:", 0) * 1024)
        anonymous_bytes = kib.get("RssAnon:", 0) * 1024
        self.peak_anonymous_bytes = max(self.peak_anonymous_bytes, anonymous_bytes)
        _, _, threads = status.partition("\nThreads:")
        self.threads = max(self.threads, int(threads.split()[0]) if threads else 0)

    def terminate(self) -> None:
        if self.exit_status() is None:
            self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.child.kill()

    def stop(self) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            if self.exit_status() is None:
                self.child.send_signal(sent)
            try:
                self.child.wait(STOP_SECONDS_MAX)
                return
            except subprocess.TimeoutExpired:
                pass
        raise Failure(f"{self.argv[0]} does not end")


def wait_until(ready: Callable[[], bool], process: Process, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not ready():
        if process.exit_status() is not None:
            raise Failure(f"{process.argv[0]} ended before it was ready: {last_line(log)}")
        if time.monotonic() > deadline:
            raise Failure(
                f"{process.argv[0]} is not ready after {READY_SECONDS_MAX} s: {last_line(log)}"
            )
        time.sleep(0.05)
