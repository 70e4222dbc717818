"""How does a case start programs, attach disks and wait; and how are all cases run?

`Stage.close` ends every process and detaches every device that a case started or attached, by its
own pid or name. Every wait has a bound.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
# The bench drives the same clients and the same tracker.
sys.path.insert(0, str(TOP / "scripts"))
from bench import clients, tracker  # noqa: E402
from bench.common import MIB, accepts  # noqa: E402

AGENT = Path(os.environ.get("SWARMDD", TOP / "target/swarmdd"))
KIB = 1 << 10
# Names the case to a process that runs one.
CASE = "SWARMDD_TEST_CASE"


class Failed(Exception):
    """What a case expected did not happen; the text says what happened instead."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def wait_until(what, seconds, condition):
    """Returns the first true value of `condition`, which is called ten times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise Failed(f"{what}: not within {seconds} s")


class Process:
    """A program that was started, with its output in a file."""

    def __init__(self, stage, name, command, **options):
        self.name = name
        self.log = stage.directory / f"{name}-{len(stage.processes)}.log"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL, stdout=options.pop("stdout", log), stderr=log,
                cwd=stage.directory, **options,
            )

    @property
    def pid(self):
        return self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def is_running(self):
        return self.popen.poll() is None

    def wait(self, seconds):
        """The exit status."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {seconds} s:\n{self.tail()}") from None

    def expect(self, status, seconds):
        found = self.wait(seconds)
        check(found == status, f"{self.name} exits with {found}, not {status}:\n{self.tail()}")

    def expect_running(self):
        check(self.is_running(), f"{self.name} has ended with {self.popen.poll()}:\n{self.tail()}")

    def tail(self):
        return "\n".join(self.output().splitlines()[-15:])

    def end(self, with_signal=signal.SIGTERM):
        if self.is_running():
            self.popen.send_signal(with_signal)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Agent(Process):
    """`swarmdd get` or `swarmdd seed` with `--progress json`."""

    def __init__(self, stage, *arguments, prefix=(), **options):
        command = [*prefix, AGENT, arguments[0], "--progress", "json", *arguments[1:]]
        self.json = stage.directory / f"agent-{len(stage.processes)}.json"
        with open(self.json, "wb") as out:
            super().__init__(stage, f"agent-{arguments[0]}", command, stdout=out, **options)

    def reports(self):
        # The last line may be half written.
        lines = self.json.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def last(self):
        """The newest report of each target."""
        return {report["target"]: report for report in self.reports()}

    def state(self):
        reports = self.reports()
        return reports[-1]["state"] if reports else None

    def states(self, target=None):
        """All states of one target or of all, in their order, each once."""
        return list(dict.fromkeys(
            report["state"] for report in self.reports() if target in (None, report["target"])
        ))

    def result(self, target):
        """The only report of a target that is `done` or `failed`."""
        results = [
            report for report in self.reports()
            if report["target"] == str(target) and report["state"] in ("done", "failed")
        ]
        check(len(results) == 1, f"{len(results)} results of {target}: {results}")
        return results[0]

    def wait_state(self, state, seconds):
        def is_reached():
            if self.state() != state:
                self.expect_running()
            return self.state() == state
        wait_until(f"{self.name} {state} (is {self.state()})", seconds, is_reached)

    def status_field(self, name):
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s*(\d+)", text, re.M).group(1))


class Tracker:
    """An opentracker, which can be stopped and started again."""

    def __init__(self, stage, port, host):
        self.stage, self.host, self.port, self.process = stage, host, port, None
        self.directory = stage.path(f"tracker-{port}")
        self.url = f"http://{host}:{port}/announce"

    def start(self, *torrents):
        """Without torrents: with those of the last start."""
        if torrents:
            allowed = [bytes.fromhex(torrent.info_hash) for torrent in torrents]
            tracker.allow(self.directory, allowed)
        command = tracker.command(self.directory, self.host, self.port)
        self.process = self.stage.start("opentracker", command)
        wait_until("opentracker listens", 10, lambda: can_connect(self.port, self.host))

    def stop(self):
        self.process.end(signal.SIGKILL)

    def counts(self, torrent):
        """(complete, incomplete) as the tracker sees it."""
        return tracker.counts(self.host, self.port, bytes.fromhex(torrent.info_hash))


def can_connect(port, host="127.0.0.1"):
    return accepts(host, port)


class Stage:
    """One case: its directory, its processes, its loop devices."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.processes, self.loops = [], []
        # Commands that unmount and detach. They run in reverse order, because a file system on one
        # loop device may hold the backing file of the next.
        self.undo = []
        self.next_port = 20000

    def port(self):
        self.next_port += 1
        return self.next_port

    def start(self, name, command, **options):
        process = Process(self, name, command, **options)
        self.processes.append(process)
        return process

    def agent(self, *arguments, **options):
        agent = Agent(self, *arguments, **options)
        self.processes.append(agent)
        return agent

    def seed(self, torrent, source, *arguments, host="127.0.0.1"):
        """An agent that serves, and its port."""
        port = self.port()
        agent = self.agent("seed", "--listen", f"{host}:{port}", *arguments, torrent.path, source)
        wait_until_listens("the seeder", agent, port, host)
        return agent, port

    def get(self, *arguments, **options):
        return self.agent("get", "--listen", f"127.0.0.1:{self.port()}", *arguments, **options)

    def tracker(self, host="127.0.0.1"):
        return Tracker(self, self.port(), host)

    def path(self, name):
        return self.directory / name

    def image(self, name, length):
        return random_file(self.path(name), length)

    def directory_for(self, name):
        """A new directory, for a client to download into."""
        path = self.path(name)
        path.mkdir()
        return path

    def loop(self, name, length, fill=0xA5, *, image=None, **options):
        """A loop device over a file of `fill` bytes, with an image at its beginning if given."""
        backing = self.path(name)
        with open(backing, "wb") as file:
            for start in range(0, length, MIB):
                file.write(bytes([fill]) * min(MIB, length - start))
        if image:
            with open(backing, "r+b") as file:
                file.write(Path(image).read_bytes())
        return self.attach(backing, **options)

    def attach(self, backing, *, read_only=False, partitions=False, part=None):
        """A loop device of 512-byte sectors. `part` is (offset, length) in the file."""
        flags = ["--read-only"] * read_only + ["--partscan"] * partitions
        if part:
            flags += ["--offset", str(part[0]), "--sizelimit", str(part[1])]
        command = ["losetup", "--show", "--find", "--sector-size", "512", *flags, str(backing)]
        attached = subprocess.run(command, check=True, capture_output=True, text=True)
        device = attached.stdout.strip()
        self.loops.append(device)
        self.undo.append(["losetup", "--detach", device])
        if partitions:
            self.undo.append(["partx", "--delete", device])
        return device

    def mount(self, device, name, kind="auto"):
        place = self.directory_for(name)
        subprocess.run(["mount", "--types", kind, device, place], check=True)
        self.undo.append(["umount", place])
        return place

    def close(self):
        for process in reversed(self.processes):
            # SIGKILL: transmission would take ten seconds to leave a tracker that ends as well.
            process.end(signal.SIGKILL)
        for command in reversed(self.undo):
            subprocess.run(command, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_until_listens(name, process, port, host="127.0.0.1", seconds=10):
    """Fails at once if the process ends."""
    def listens():
        return can_connect(port, host) or process.expect_running()
    wait_until(f"{name} listens", seconds, listens)


def random_file(path, length):
    with open("/dev/urandom", "rb") as source, open(path, "wb") as target:
        left = length
        while left:
            left -= target.write(source.read(min(left, 8 * MIB)))
    return path


# ---- other clients, each as a function that starts it as seeder or as leecher


def aria2(stage, torrent, directory, port, *, seeds, verified=True, prefix=()):
    """A seeder that is not `verified` claims to have everything and serves whatever is there."""
    if not seeds:
        options = ["--seed-time=0"]
    elif verified:
        options = ["--check-integrity=true", "--bt-seed-unverified=false"]
    else:
        options = ["--bt-seed-unverified=true"]
    return stage.start("aria2c", [*prefix, *clients.aria2(
        torrent.path, directory, port, "--disable-ipv6=true", "--bt-tracker-interval=2",
        *options)])


def transmission(stage, torrent, directory, port, *, seeds):
    config = stage.directory_for(f"transmission-{port}")
    settings = {"rename-partial-files": True, "rpc-enabled": False}
    options = ["--verify"] if seeds else []
    return stage.start("transmission", clients.transmission(
        torrent.path, directory, port, config, settings, *options))


def libtorrent(stage, torrent, directory, port, *, seeds, rate=0, peer=None):
    options = ["--print", "--upload-limit", rate]
    options += ["--seed"] if seeds else []
    options += ["--connect", peer] if peer else []
    return stage.start("libtorrent", clients.libtorrent(
        torrent.path, directory, "127.0.0.1", port, *options))


CLIENTS = {"aria2": aria2, "transmission": transmission, "libtorrent": libtorrent}


# ---- the runner


def run(cases, wanted):
    """Runs the cases whose name contains one of `wanted` (or all), as many at once as there are
    cores: most of them wait most of the time. Each runs in a process of its own (`run_one`).
    Returns the exit status."""
    named = {case.__name__.replace("_", " "): case for case in cases}
    assert len(named) == len(cases), "two cases have one name"
    if CASE in os.environ:
        return run_one(os.environ[CASE], named[os.environ[CASE]])
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]} needs root: for loop devices and namespaces")
    if not AGENT.exists():
        sys.exit(f"{AGENT} is missing: run scripts/build, or name a binary in $SWARMDD")
    # Not /tmp: a tmpfs there may know no O_DIRECT.
    (TOP / "target").mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    waiting = [name for name in named if not wanted or any(word in name for word in wanted)]
    running, passed, failed = [], 0, 0
    try:
        while waiting or running:
            while waiting and len(running) < os.cpu_count():
                running.append(start_one(waiting.pop(0)))
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for child in [child for child in running if child.poll() is not None]:
                running.remove(child)
                passed += child.returncode == 0
                failed += child.returncode != 0
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.wait()
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


def start_one(name):
    """In a network and a mount namespace of its own: all ports are free, and no client reaches the
    world."""
    return subprocess.Popen(
        ["unshare", "--net", "--mount", "--", sys.executable, sys.argv[0]],
        env={**os.environ, CASE: name})


def run_one(name, case):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    stage = Stage(tempfile.mkdtemp(prefix="loopback-", dir=TOP / "target"))
    start = time.monotonic()
    try:
        case(stage)
        print(f"ok    {name} ({time.monotonic() - start:.1f} s)", flush=True)
        return 0
    except Exception as error:  # whatever went wrong in it
        kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
        print(f"FAIL  {name}: {kind}{error}", flush=True)
        return 1
    finally:
        stage.close()
