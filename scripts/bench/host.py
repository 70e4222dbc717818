"""What kind of computer is this, and how busy was it during a run?"""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from .common import CORES, GIB, MIB, TICKS_PER_SECOND, Failure, Result, read_or_empty

# Above this share of all cores the figure measures the host and no longer the contender.
SATURATED = 0.90
# Above this share that other programs took, the figures are doubtful.
DISTURBED = 0.10


class HostTime:
    """What all cores did, in ticks: the first line of /proc/stat (proc(5)). And how long every
    program that wanted to run waited for a disk, in microseconds
    (Documentation/accounting/psi.rst); 0 if the kernel does not say."""

    def __init__(self, total: int, idle: int, stolen: int, disk_wait_us: int) -> None:
        self.total, self.idle, self.stolen, self.disk_wait_us = total, idle, stolen, disk_wait_us

    @staticmethod
    def now() -> "HostTime":
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [int(word) for word in stat.readline().split()[1:9]]
        _, _, full = read_or_empty("/proc/pressure/io").partition("full ")
        disk_wait_us = int(full.rpartition("total=")[2] or 0)
        # user nice system idle iowait irq softirq steal; waiting for a disk is idle, too.
        return HostTime(sum(ticks), ticks[3] + ticks[4], ticks[7], disk_wait_us)

    def since(self, before: "HostTime") -> "HostTime":
        return HostTime(
            self.total - before.total, self.idle - before.idle, self.stolen - before.stolen,
            self.disk_wait_us - before.disk_wait_us,
        )

    def disk_wait_share(self, seconds: float) -> float:
        return self.disk_wait_us / 1e6 / seconds

    def busy_share(self) -> float:
        return 1 - self.idle / max(1, self.total)

    def stolen_share(self) -> float:
        return self.stolen / max(1, self.total)


def foreign_cpu_seconds() -> float:
    """CPU time of all processes that are neither ours nor the kernel's, and of the children that
    these processes waited for."""
    ticks, ours = 0, {os.getpid()}
    pids = sorted(filter(str.isdigit, os.listdir("/proc")), key=int)
    for stat in filter(None, (read_or_empty(f"/proc/{pid}/stat") for pid in pids)):
        pid, (_, parent, *fields) = int(stat.split()[0]), stat.rpartition(")")[2].split()
        if int(parent) in ours:
            ours.add(pid)
        elif pid not in ours and pid != 2 and int(parent) != 2:
            ticks += sum(map(int, fields[9:13]))
    return ticks / TICKS_PER_SECOND


def describe_host(directory: Path, size_bytes: int) -> Result:
    model = [
        line.split(":", 1)[1].strip()
        for line in read_or_empty("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.machine(), "cores": CORES,
        "kernel": platform.release(), "load_before": os.getloadavg()[0],
        "disk_mib_per_second": disk_mib_per_second(directory, size_bytes),
    }


def disk_mib_per_second(directory: Path, size_bytes: int) -> float:
    """The speed of the disk alone: large direct writes."""
    path = directory / "disk-speed"
    count = min(size_bytes, GIB) // (4 * MIB)
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={count}", "oflag=direct",
               "conv=fsync"]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - started
    path.unlink()
    return count * 4 / seconds


def need_space(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    # A quarter of a GiB for logs and for what else writes to this disk.
    needed_bytes += GIB // 4
    if free_bytes < needed_bytes:
        raise Failure(f"{directory} has {free_bytes / GIB:.1f} GiB free, "
                      f"{needed_bytes / GIB:.1f} GiB are needed")


def versions(binary: Path) -> dict[str, str]:
    """The version of each contender, by its name."""
    import libtorrent  # Debian's Python has it; `disk` does not need it

    curl = first_line("curl", "--version").split()[:2]
    return {
        "swarmdd": first_line(binary, "--version"),
        "libtorrent": libtorrent.__version__,
        "aria2": first_line("aria2c", "--version"),
        "transmission": first_line("transmission-cli", "--version"),
        "udpcast": udpcast_version(),
        "http": f"{first_line('nginx', '-v')}, {' '.join(curl)}",
    }


def first_line(*argv: Path | str) -> str:
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (answer.stdout + answer.stderr).strip().splitlines()[0]


def udpcast_version() -> str:
    """udpcast does not print its version; Debian knows it."""
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Version}", "udpcast"],
        capture_output=True, text=True, check=False,
    )
    return asked.stdout or "not installed"
