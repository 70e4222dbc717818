"""What does a room cost its server? Synthetic agents report by real HTTP to a real scripts/serve.

Each machine has an address of its own and goes through the states of a deployment at random times;
some fail and begin anew. A viewer polls status.json, as a browser does. At the end every change of
state that was sent must be in the log, in order, and the page must show the last one of everybody.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from room import log, state
from room.state import State

from .common import MIB, TICKS_PER_SECOND, Failure, accepts, last_line, say

TOP = Path(__file__).resolve().parents[2]
SERVER, PORT = "10.77.0.1", 80
# As the agent does it: at each change of state, every 5 s while it works, every 30 s as a seed.
WORKING_SECS, SEEDING_SECS = 5.0, 30.0
WORK = ("booted", "fetching", "scanning", "downloading", "verifying", "seeding")
# As page.js.
VIEWER_SECS = 0.7
PIECES = 1024
START_SECS_MAX = 60
SEEN_SECS_MAX = 10


@dataclass
class Machine:
    """A synthetic agent and what it has said."""

    number: int
    random: random.Random
    # Each change of state, and when the server had taken it.
    sent: list[tuple[str, float]] = field(default_factory=list)
    reports: int = 0

    @property
    def mac(self) -> str:
        return f"52-54-00-77-{self.number // 256:02x}-{self.number % 256:02x}"

    @property
    def address(self) -> str:
        return f"10.77.{1 + self.number // 250}.{1 + self.number % 250}"

    def report(self, name: str, percent: float) -> bytes:
        moves = name in ("downloading", "verifying")
        content = {
            "state": name, "torrent": "lab.img", "target": "disk:auto",
            "percent": round(percent, 1),
            "pieces": PIECES, "have": int(PIECES * percent / 100), "good": 0,
            "down": self.random.randrange(120_000_000) if moves else 0, "up": 1000, "eta": 60,
            "fetched": 1, "uploaded": 1, "peers": 8, "mac": self.mac, "nic": "eth0",
            "driver": "e1000e", "link_mbps": 1000, "version": "0.1.0",
            "disk": {"path": "/dev/sda", "model": "Synthetic disk", "size": 1 << 38,
                     "serial": f"S{self.number:06}"},
        }
        if name == "failed":
            content["error"] = f"disk on fire, number {len(self.sent)}"
        self.reports += 1
        return json.dumps(content).encode()


def room(options: argparse.Namespace) -> int:
    options.output.mkdir(parents=True, exist_ok=True)
    folder = options.output / "room-state"
    shutil.rmtree(folder, ignore_errors=True)
    prepare_network()
    machines = [Machine(number, random.Random(options.seed * 100_003 + number))
                for number in range(1, options.machines + 1)]
    say(f"seed {options.seed}: {len(machines)} machines for {options.seconds} s")
    with serve(options, folder, machines) as server:
        measured = asyncio.run(measure(options, State(folder), machines, server.pid))
    lost = lost_changes(State(folder), machines)
    print_table(machines, measured, lost)
    return 1 if lost or measured.late else 0


def prepare_network() -> None:
    """All of 10.77.0.0/16 is this host, in the bench's own network namespace."""
    for command in ("link set lo up", f"address add {SERVER}/32 dev lo",
                    "route add local 10.77.0.0/16 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)


@contextmanager
def serve(options: argparse.Namespace, folder: Path, machines: list[Machine]
          ) -> Iterator["subprocess.Popen[bytes]"]:
    image, listed = options.output / "room.img", options.output / "room.machines"
    # A sector of a boot loader, so that nobody takes it for an archive; the rest is a hole.
    image.write_bytes(bytes(510) + b"\x55\xaa")
    os.truncate(image, 64 * MIB)
    listed.write_text("".join(f"{m.mac} pc-{m.number:03}\n" for m in machines))
    toy = options.output / "room.toy"
    toy.write_bytes(b"never booted")
    output = options.output / "room-serve.log"
    with open(output, "wb") as to:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, TOP / "scripts/serve",
             "--address", SERVER, "--no-dhcp", "--dir", folder, "--agent", options.binary,
             "--kernel", toy, "--initramfs", toy, "--machines", listed, "--grace", "1",
             "--linger", "0", image],
            stdin=subprocess.DEVNULL, stdout=to, stderr=subprocess.STDOUT)
    try:
        limit = time.monotonic() + START_SECS_MAX
        # The last thing that serve writes before it watches.
        while not (folder / "cmdline").exists() or not accepts(SERVER, PORT):
            if child.poll() is not None or time.monotonic() > limit:
                raise Failure(f"serve does not start: {last_line(output)}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# --- the machines -------------------------------------------------------------------------------


@dataclass
class Measured:
    seconds: float
    # Part -> seconds of CPU.
    cpu: dict[str, float]
    # Seconds from the answer to a report until the page had its change of state.
    delays: list[float]
    # Machines whose last state the page did not show in the end.
    late: list[str]


async def measure(options: argparse.Namespace, where: State, machines: list[Machine],
                  serve_pid: int) -> Measured:
    job = json.loads((where.www / "status.json").read_text())["job"]
    # What is seen on the page: MAC -> (state, when it was seen first).
    seen: dict[str, list[tuple[str, float]]] = {}
    stop = asyncio.Event()
    viewer = asyncio.create_task(view(seen, stop))
    began_at, before = time.monotonic(), cpu_seconds(where, serve_pid)
    await asyncio.gather(*(live(m, job, began_at + options.seconds) for m in machines))
    seconds = time.monotonic() - began_at
    after = cpu_seconds(where, serve_pid)
    limit = time.monotonic() + SEEN_SECS_MAX
    late = [m.mac for m in machines]
    while late and time.monotonic() < limit:
        await asyncio.sleep(0.2)
        late = [m.mac for m in machines if seen.get(m.mac, [("", 0.0)])[-1][0] != m.sent[-1][0]]
    stop.set()
    await viewer
    return Measured(seconds, {part: after[part] - before.get(part, 0.0) for part in after},
                    delays(machines, seen), late)


async def live(machine: Machine, job: str, until: float) -> None:
    """One machine: each state for some seconds. One in fifty fails, and tries again."""
    chance = machine.random
    await asyncio.sleep(chance.uniform(0, 10))
    while time.monotonic() < until:
        for name in WORK:
            if name == "verifying" and chance.random() < 0.02:
                await tell(machine, job, "failed", 0, chance.uniform(3, 6), until)
                break
            stay = 1e9 if name == "seeding" else chance.uniform(1.5, 20)
            await tell(machine, job, name, 100.0 if name == "seeding" else 0.0, stay, until)


async def tell(machine: Machine, job: str, name: str, percent: float, stay: float, until: float
               ) -> None:
    """Reports a new state, and then again and again as long as it stays."""
    if time.monotonic() >= until:
        return
    await post(machine, job, machine.report(name, percent))
    machine.sent.append((name, time.monotonic()))
    end = min(until, time.monotonic() + stay)
    every = SEEDING_SECS if name == "seeding" else WORKING_SECS
    while (rest := end - time.monotonic()) > 0:
        await asyncio.sleep(min(rest, every))
        if rest > every:
            percent = min(100.0, percent + 10)
            await post(machine, job, machine.report(name, percent))


async def post(machine: Machine, job: str, body: bytes) -> None:
    """As the agent does it: a connection for each report, and again until the server took it."""
    head = (f"POST /report?job={job}&mac={machine.mac} HTTP/1.1\r\nHost: {SERVER}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n")
    for _ in range(10):
        try:
            answer = await exchange(head.encode() + body, machine.address)
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 2"):
            return
        await asyncio.sleep(1)
    raise Failure(f"the server takes no report: {answer[:80]!r}")


async def exchange(request: bytes, address: str) -> bytes:
    reader, writer = await asyncio.open_connection(SERVER, PORT, local_addr=(address, 0))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def view(seen: dict[str, list[tuple[str, float]]], stop: asyncio.Event) -> None:
    """A browser with the page, and what it sees when."""
    request = f"GET /status.json HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n".encode()
    while not stop.is_set():
        answer = await exchange(request, SERVER)
        now = time.monotonic()
        for row in json.loads(answer.partition(b"\r\n\r\n")[2])["machines"]:
            states = seen.setdefault(row["mac"], [])
            if not states or states[-1][0] != row["state"]:
                states.append((row["state"], now))
        await asyncio.sleep(VIEWER_SECS)


# --- what came of it ----------------------------------------------------------------------------


def cpu_seconds(where: State, serve_pid: int) -> dict[str, float]:
    """Of serve with the children that it waited for, and of each component."""
    pids = {"serve": [serve_pid], **state.remains(where)}
    return {part: sum(map(cpu_of, found)) for part, found in pids.items()}


def cpu_of(pid: int) -> float:
    fields = state.stat_of(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND if fields else 0.0


def delays(machines: list[Machine], seen: dict[str, list[tuple[str, float]]]) -> list[float]:
    found = []
    for machine in machines:
        states = [entry for entry in seen.get(machine.mac, []) if entry[0] != "missing"]
        for (name, sent_at), (shown, shown_at) in zip(machine.sent, states):
            if name != shown:
                # The page has skipped a state that lasted for less than its second.
                break
            found.append(shown_at - sent_at)
    return sorted(found)


def lost_changes(where: State, machines: list[Machine]) -> int:
    """Changes of state that were sent and are not in the log, in their order."""
    logged: dict[str, list[str]] = {}
    for entry in log.Reader(str(where.room_log)).entries():
        if entry["kind"] != "report":
            continue
        report = json.loads(entry["body"])
        states = logged.setdefault(report["mac"], [])
        if not states or states[-1] != report["state"]:
            states.append(report["state"])
    return sum(len(m.sent) - common(logged.get(m.mac, []), [s for s, _ in m.sent])
               for m in machines)


def common(logged: list[str], sent: list[str]) -> int:
    """How many of `sent` are in `logged` in the same order."""
    place = iter(logged)
    return sum(any(name == other for other in place) for name in sent)


def print_table(machines: list[Machine], measured: Measured, lost: int) -> None:
    reports = sum(m.reports for m in machines)
    parts = {part: 100 * spent / measured.seconds for part, spent in measured.cpu.items()}
    at = measured.delays
    print("| machines | reports | changes of state | lost | " + " | ".join(
        f"{part}, % of a core" for part in parts) + " | all | page after, median | at most |")
    print("| --: " * (7 + len(parts)) + "|")
    print(f"| {len(machines)} | {reports} | {sum(len(m.sent) for m in machines)} | {lost} | "
          + " | ".join(f"{share:.1f}" for share in parts.values())
          + f" | {sum(parts.values()):.1f} | {at[len(at) // 2]:.1f} s | {at[-1]:.1f} s |")
    if measured.late:
        say(f"the page does not show the last state of {len(measured.late)} machines, "
            f"such as {measured.late[0]}")
