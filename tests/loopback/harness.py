"""What the loopback cases are made of: images, torrents, loop devices, trackers, agents and other clients.

Everything that is started or attached here is ended or detached by `Stage.close`, by its own pid or name, and every wait
has a bound. Torrents are made here and not by `swarmdd make`, so that a mistake in ours cannot hide in both.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
AGENT = Path(os.environ.get("SWARMDD", TOP / "target/swarmdd"))
MIB = 1 << 20


class Failed(Exception):
    """A case did not hold; the text says what was seen."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def wait_until(what, seconds, condition):
    """The first true value of `condition`, asked ten times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise Failed(f"{what}: not within {seconds} s")


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, str):
        return bencode(value.encode())
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def random_file(path, length):
    with open("/dev/urandom", "rb") as source, open(path, "wb") as target:
        left = length
        while left:
            left -= target.write(source.read(min(left, 8 * MIB)))
    return path


def same_bytes(path, other, length=None, offset=0):
    """Do `length` bytes (or all) at `offset` of `other` equal those at the start of `path`?"""
    with open(path, "rb") as a, open(other, "rb") as b:
        b.seek(offset)
        while length is None or length > 0:
            count = 4 * MIB if length is None else min(length, 4 * MIB)
            x, y = a.read(count), b.read(count)
            if x != y:
                return False
            if not x:
                return length is None
            if length is not None:
                length -= len(x)
    return True


def write_at(path, offset, data):
    """Behind everybody's back, and at once visible to whoever reads."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)


def spoil(path, offset):
    """One byte is another one from here on."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def traffic(device):
    """Bytes read from a block device and bytes written to it (Documentation/admin-guide/iostats.rst)."""
    fields = Path(f"/sys/class/block/{Path(device).name}/stat").read_text().split()
    return int(fields[2]) * 512, int(fields[6]) * 512


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Torrent:
    """A torrent file over an image: one file at offset 0, or FSBT slices of (offset, length)."""

    def __init__(self, directory, image, piece, tracker=None, slices=None, name=None):
        self.image, self.piece, self.slices = Path(image), piece, slices
        self.name = name or self.image.name
        info = {"name": self.name, "piece length": piece, "pieces": b"".join(self._hashes())}
        if slices is None:
            info["length"] = self.image.stat().st_size
        else:
            info["files"] = [{"length": length, "path": [f"{offset:032x}"]} for offset, length in slices]
        torrent = {"info": info}
        if tracker:
            torrent["announce"] = tracker.url
        self.info_hash = hashlib.sha1(bencode(info)).hexdigest()
        self.pieces = len(info["pieces"]) // 20
        self.bytes = bencode(torrent)
        at = f"-{tracker.port}" if tracker else ""
        self.path = Path(directory) / f"{self.name}-{self.info_hash[:6]}{at}.torrent"
        self.path.write_bytes(self.bytes)

    def _hashes(self):
        slices = self.slices or [(0, self.image.stat().st_size)]
        held = b""
        with open(self.image, "rb") as file:
            for offset, length in slices:
                file.seek(offset)
                while length:
                    part = file.read(min(length, self.piece - len(held)))
                    length -= len(part)
                    held += part
                    if len(held) == self.piece:
                        yield hashlib.sha1(held).digest()
                        held = b""
        if held:
            yield hashlib.sha1(held).digest()


class Process:
    """A program that was started, with its output in a file."""

    def __init__(self, stage, name, command, **options):
        self.name = name
        self.log = stage.directory / f"{name}-{len(stage.processes)}.log"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL, stdout=options.pop("stdout", log), stderr=log, cwd=stage.directory, **options,
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

    def __init__(self, stage, *words, prefix=(), **options):
        command = [*prefix, AGENT, words[0], "--progress", "json", *words[1:]]
        self.json = stage.directory / f"agent-{len(stage.processes)}.json"
        with open(self.json, "wb") as out:
            super().__init__(stage, f"agent-{words[0]}", command, stdout=out, **options)

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
        """All states it went through, each once, of one target or of all."""
        seen = dict.fromkeys(report["state"] for report in self.reports() if target in (None, report["target"]))
        return list(seen)

    def result(self, target):
        """The only report of a target that is `done` or `failed`."""
        results = [r for r in self.reports() if r["target"] == str(target) and r["state"] in ("done", "failed")]
        check(len(results) == 1, f"{len(results)} results of {target}: {results}")
        return results[0]

    def wait_state(self, state, seconds):
        def arrived():
            self.expect_running() if self.state() != state else None
            return self.state() == state
        wait_until(f"{self.name} {state} (is {self.state()})", seconds, arrived)

    def status_field(self, name):
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s*(\d+)", text, re.M).group(1))


class Tracker:
    """opentracker as Debian builds it: only whitelisted torrents; it runs as nobody, chrooted into its directory."""

    def __init__(self, stage, port):
        self.stage, self.port, self.process = stage, port, None
        self.directory = Path(tempfile.mkdtemp(prefix="swarmdd-tracker-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.url = f"http://127.0.0.1:{port}/announce"

    def start(self, *torrents):
        if torrents:
            (self.directory / "white").write_text("".join(f"{torrent.info_hash}\n" for torrent in torrents))
        command = ["opentracker", "-i", "127.0.0.1", "-p", self.port, "-P", self.port, "-d", self.directory, "-w", "/white"]
        self.process = self.stage.start("opentracker", command)
        wait_until("opentracker listens", 10, lambda: can_connect(self.port))

    def stop(self):
        self.process.end(signal.SIGKILL)

    def counts(self, torrent):
        """(complete, incomplete) as the tracker sees it."""
        wanted = urllib.parse.quote(bytes.fromhex(torrent.info_hash))
        url = f"http://127.0.0.1:{self.port}/scrape?info_hash={wanted}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read()
        numbers = [re.search(rb"%d:%si(\d+)e" % (len(key), key), text) for key in (b"complete", b"incomplete")]
        return tuple(int(number.group(1)) if number else 0 for number in numbers)


def can_connect(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


class Stage:
    """One case: its directory, its processes, its loop devices."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.processes, self.loops, self.trackers = [], [], []
        # What takes away again what was attached and mounted, one command each: the last first,
        # since a file system on a loop device may hold the backing file of the next one.
        self.undo = []
        self.next_port = 20000

    def port(self):
        self.next_port += 1
        return self.next_port

    def start(self, name, command, **options):
        process = Process(self, name, command, **options)
        self.processes.append(process)
        return process

    def agent(self, *words, **options):
        agent = Agent(self, *words, **options)
        self.processes.append(agent)
        return agent

    def seed(self, torrent, source, *words, host="127.0.0.1"):
        """An agent that serves, and its port."""
        port = self.port()
        agent = self.agent("seed", "--listen", f"{host}:{port}", *words, torrent.path, source)
        wait_until("the seeder listens", 10, lambda: can_connect(port, host) or agent.expect_running())
        return agent, port

    def get(self, *words, **options):
        return self.agent("get", "--listen", f"127.0.0.1:{self.port()}", *words, **options)

    def tracker(self, *, start_with=()):
        tracker = Tracker(self, self.port())
        self.trackers.append(tracker)
        if start_with:
            tracker.start(*start_with)
        return tracker

    def path(self, name):
        return self.directory / name

    def image(self, name, length):
        return random_file(self.path(name), length)

    def loop(self, name, length, fill=0xA5, *, image=None, **options):
        """A loop device over a file that is full of `fill` bytes, or begins with an image."""
        backing = self.path(name)
        with open(backing, "wb") as file:
            for start in range(0, length, MIB):
                file.write(bytes([fill]) * min(MIB, length - start))
        if image:
            write_at(backing, 0, Path(image).read_bytes())
        return self.attach(backing, **options)

    def attach(self, backing, *, read_only=False, partitions=False):
        """A loop device of 512-byte sectors."""
        flags = ["--read-only"] * read_only + ["--partscan"] * partitions
        command = ["losetup", "--show", "--find", "--sector-size", "512", *flags, str(backing)]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        self.loops.append(device)
        self.undo.append(["losetup", "--detach", device])
        if partitions:
            self.undo.append(["partx", "--delete", device])
        return device

    def mount(self, device, name, kind="auto"):
        place = self.path(name)
        place.mkdir()
        subprocess.run(["mount", "--types", kind, device, place], check=True)
        self.undo.append(["umount", place])
        return place

    def close(self):
        for process in reversed(self.processes):
            # Nobody needs to say good-bye to a tracker that goes as well; transmission takes ten
            # seconds for it.
            process.end(signal.SIGKILL)
        for command in reversed(self.undo):
            subprocess.run(command, check=False)
        for tracker in self.trackers:
            shutil.rmtree(tracker.directory, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


# ---- other clients, each as a function that starts it as seeder or as leecher

def aria2(stage, torrent, directory, port, *, seeds, verified=True):
    """Not `verified`: it says that it has everything, and serves whatever is there."""
    looks = ["--check-integrity=true", "--bt-seed-unverified=false"] if verified else ["--bt-seed-unverified=true"]
    command = [
        "aria2c", "--dir", directory, "--listen-port", port, "--enable-dht=false", "--enable-dht6=false",
        "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6=true", "--no-conf=true",
        "--summary-interval=0", "--file-allocation=none", "--seed-ratio=0.0", "--bt-tracker-interval=2",
        *(looks if seeds else ["--seed-time=0"]),
        torrent.path,
    ]
    return stage.start("aria2c", command)


def transmission(stage, torrent, directory, port, *, seeds):
    settings = {
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
        "port-forwarding-enabled": False, "peer-port": port, "rename-partial-files": True, "rpc-enabled": False,
    }
    config = stage.path(f"transmission-{port}")
    config.mkdir()
    (config / "settings.json").write_text(json.dumps(settings))
    command = [
        "transmission-cli", "--config-dir", config, "--download-dir", directory, "--port", port, "--no-portmap",
        *(["--verify"] if seeds else []), torrent.path,
    ]
    return stage.start("transmission", command)


def libtorrent(stage, torrent, directory, port, *, seeds, rate=0, peer=None):
    # Debian's python, whichever runs this: python3-libtorrent belongs to it.
    script = Path(__file__).with_name("libtorrent_client.py")
    role = "seed" if seeds else "leech"
    return stage.start("libtorrent", ["/usr/bin/python3", script, role, torrent.path, directory, port, rate, peer or ""])


CLIENTS = {"aria2": aria2, "transmission": transmission, "libtorrent": libtorrent}


# ---- the runner

def isolate():
    """Goes on in a network and a mount namespace of its own: ports are free, and nobody talks to the world."""
    if os.environ.get("SWARMDD_LOOPBACK_ISOLATED"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if os.geteuid() != 0:
        sys.exit("tests/loopback/run needs root: for loop devices and namespaces")
    os.environ["SWARMDD_LOOPBACK_ISOLATED"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--", sys.executable, *sys.argv])


def run(cases, wanted):
    """Runs the cases whose name contains one of `wanted` (or all); prints as it goes; the exit status."""
    isolate()
    if not AGENT.exists():
        sys.exit(f"{AGENT} is missing: run scripts/build, or name a binary in $SWARMDD")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    passed = failed = 0
    for case in cases:
        name = case.__name__.replace("_", " ")
        if wanted and not any(word in name for word in wanted):
            continue
        # Not /tmp: a tmpfs there may know no O_DIRECT.
        (TOP / "target").mkdir(exist_ok=True)
        stage = Stage(tempfile.mkdtemp(prefix="loopback-", dir=TOP / "target"))
        start = time.monotonic()
        try:
            case(stage)
            passed += 1
            print(f"ok    {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception as error:  # whatever went wrong in it, the others still have their turn
            failed += 1
            kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
            print(f"FAIL  {name}: {kind}{error}", flush=True)
        finally:
            stage.close()
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1
