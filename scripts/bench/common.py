"""What every mode of scripts/bench shares: processes, contenders, the tracker, the host, the image.

A *contender* is a way to copy; it only knows command lines. A *node* is an address to run processes on. What a process
costs is read from /proc. The tracker is a real opentracker that allows one torrent, and a new one each time.
"""

import hashlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()
TRACKER_PORT = 6969
PEER_PORT = 6881
# Above this share of all cores the figure measures the host and no longer the contender.
SATURATED = 0.90
# What other processes may take before the figures have to be taken with care.
DISTURBED = 0.10
# How TCP finds its rate, for all: what Debian has unless told otherwise. As a property of routes
# (ip-route(8)), since the default of a namespace is the host's, and this must not change the host.
CONGESTION_CONTROL = "cubic"
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10


class Failure(Exception):
    """A run that has no result; the text says why."""


# ---- Nodes and processes


class Node:
    """An address to run processes on, and what has to stand before a command to run it there."""

    def __init__(self, name, address, prefix=()):
        self.name, self.address, self.prefix = name, address, list(prefix)

    def start(self, argv, log, gate=None):
        """With a gate it starts in earnest once the gate opens."""
        argv = [str(word) for word in argv]
        return Process(self.prefix + (gate.guard(argv) if gate else argv), log, gate)


class Gate:
    """Holds processes back just before their program starts, so that all of them start at one moment."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    @staticmethod
    def guard(argv):
        # `read` ends when the last writer has closed the pipe.
        return ["sh", "-c", 'read -r _ || :; exec "$@" < /dev/null', "gate", *argv]

    def wait_for(self, processes):
        """Until every one of them stands before the gate: it has become the shell."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        for process in processes:
            while read_or_empty(f"/proc/{process.child.pid}/comm") != "sh\n":
                if time.monotonic() > deadline or process.exit_status() is not None:
                    raise Failure(f"{process.argv[-1]} did not get as far as its start")
                time.sleep(0.01)

    def open(self):
        os.close(self.writer)
        os.close(self.reader)
        self.writer = None

    def close(self):
        if self.writer is not None:
            self.open()


class Process:
    """A running program, what it has used so far, and its end."""

    def __init__(self, argv, log, gate=None):
        self.argv = argv
        self.peak_bytes = self.peak_anonymous_bytes = self.threads = 0
        self.ended_at = None
        with open(log, "wb") as output:
            # pdeathsig: whatever ends the benchmark, nothing it started outlives it.
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=gate.reader if gate else subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )

    def exit_status(self):
        """None while it runs. It stays a zombie until stop(), so that cpu_seconds() still knows everything."""
        end = os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return end and end.si_status

    def cpu_seconds(self):
        """User and system time of all its threads and of the children it waited for."""
        stat = Path(f"/proc/{self.child.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_SECOND

    def look_at_memory(self):
        """VmHWM is the kernel's own peak; mapped file pages count in it, so the anonymous part is kept beside it."""
        status = read_or_empty(f"/proc/{self.child.pid}/status")
        kib = {line.split()[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith(" kB")}
        self.peak_bytes = max(self.peak_bytes, kib.get("VmHWM:", 0) * 1024)
        self.peak_anonymous_bytes = max(self.peak_anonymous_bytes, kib.get("RssAnon:", 0) * 1024)
        _, _, threads = status.partition("\nThreads:")
        self.threads = max(self.threads, int(threads.split()[0]) if threads else 0)

    def ask_to_end(self):
        if self.exit_status() is None:
            self.child.send_signal(signal.SIGTERM)

    def stop(self):
        for order in (signal.SIGTERM, signal.SIGKILL):
            if self.exit_status() is None:
                self.child.send_signal(order)
            try:
                return self.child.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                pass
        raise Failure(f"{self.argv[0]} does not end")


def read_or_empty(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def last_words(log):
    lines = [line for line in Path(log).read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "nothing printed"


# ---- Contenders


class Job:
    """What every contender gets: the torrent, the image, where to put it, and who serves it, to how many."""

    def __init__(self, binary, torrent, info_hash, image, directory, tracker, seeder, leecher, swarm=None):
        # None in a pair: there the leecher is told who the seeder is, and leaves when it is
        # complete.
        self.swarm = swarm
        self.binary, self.torrent, self.info_hash, self.image = binary, torrent, info_hash, image
        self.directory, self.tracker, self.seeder, self.leecher = directory, tracker, seeder, leecher
        self.target = directory / "target" / image.name
        # A leecher that does not end by itself makes this file at the moment it is complete.
        self.marker = directory / "complete"
        self.hook = directory / "hook"

    def settings_directory(self, role):
        # Empty: a client that was ended early would find there what it believed of the image then.
        path = self.directory / f"settings-{role}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


class Contender:
    """Command lines of one way to copy. `says`: what stands in the leecher's log once it is complete, if that tells."""

    says = None

    def __init__(self, name, title, note):
        self.name, self.title, self.note = name, title, note

    def ready(self, job):
        """May the leechers start? In a swarm: once the tracker counts the seeder."""
        return complete_peers(job) > 0

    def expected_ratio(self, _count):
        """Roughly how many times S / R it takes, for the plan of a bench: the worst seen."""
        return {"swarmdd": 1.3, "read-back": 1.6, "aria2": 2.5, "libtorrent": 2.5, "transmission": 4.0}[self.name]


class Swarmdd(Contender):
    says = b'"state":"seeding"'

    def __init__(self, name, title, note, options):
        super().__init__(name, title, note)
        self.options = options

    def seeder(self, job):
        return [job.binary, "seed", "--listen", f"{job.seeder.address}:{PEER_PORT}", "--check",
                "--progress", "json", job.torrent, job.image]

    def leecher(self, job):
        alone = [] if job.swarm else ["--peer", f"{job.seeder.address}:{PEER_PORT}", "--no-seed"]
        return [job.binary, "get", "--listen", f"{job.leecher.address}:{PEER_PORT}", "--progress", "json",
                *alone, *self.options, job.torrent, job.target]


class Libtorrent(Contender):
    def seeder(self, job):
        return self.peer(job.seeder, job.torrent, job.image.parent) + ["--seed"]

    def leecher(self, job):
        alone = [] if job.swarm else ["--connect", job.seeder.address]
        return self.peer(job.leecher, job.torrent, job.target.parent) + [*alone, "--marker", job.marker]

    def peer(self, node, torrent, directory):
        program = Path(__file__).with_name("libtorrent_client.py")
        return [sys.executable, "-B", program, "--address", node.address, "--port", PEER_PORT, "--torrent", torrent,
                "--directory", directory]


class Aria2(Contender):
    OPTIONS = ["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
               "--enable-peer-exchange=false", "--file-allocation=none", "--allow-overwrite=true", "--bt-max-peers=0",
               "--disk-cache=64M", "--summary-interval=0", "--seed-ratio=0.0", f"--listen-port={PEER_PORT}"]

    def seeder(self, job):
        return ["aria2c", *self.OPTIONS, f"--interface={job.seeder.address}", "--bt-seed-unverified=true",
                f"--dir={job.image.parent}", job.torrent]

    def leecher(self, job):
        return ["aria2c", *self.OPTIONS, f"--interface={job.leecher.address}", f"--dir={job.target.parent}",
                f"--on-bt-download-complete={job.hook}", job.torrent]


class Transmission(Contender):
    def seeder(self, job):
        return self.peer(job, job.seeder, job.image.parent) + ["--verify"]

    def leecher(self, job):
        return self.peer(job, job.leecher, job.target.parent) + ["--finish", job.hook]

    def peer(self, job, node, directory):
        settings = job.settings_directory(node.name)
        (settings / "settings.json").write_text(json.dumps({
            "bind-address-ipv4": node.address, "bind-address-ipv6": "::1", "peer-port": PEER_PORT,
            "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
            "port-forwarding-enabled": False, "encryption": 0, "preallocation": 0, "cache-size-mb": 64,
            "upload-slots-per-torrent": 100, "speed-limit-up-enabled": False, "speed-limit-down-enabled": False,
            "ratio-limit-enabled": False, "rename-partial-files": False, "incomplete-dir-enabled": False,
        }))
        return ["transmission-cli", "--config-dir", settings, "--port", PEER_PORT, "--no-portmap", "--no-uplimit",
                "--no-downlimit", "--encryption-tolerated", "--download-dir", directory, job.torrent]


class Http(Contender):
    def ready(self, job):
        return accepts(job.seeder.address, 80)

    def expected_ratio(self, count):
        return 1.02 * count

    def seeder(self, job):
        settings = job.settings_directory("nginx")
        configuration = settings / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; user root; pid {settings}/pid; error_log stderr;\n"
            "events {}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {settings};\n"
            f"  server {{ listen {job.seeder.address}:80; root {job.image.parent}; }} }}\n")
        return ["nginx", "-e", "stderr", "-c", configuration]

    def leecher(self, job):
        return ["curl", "--silent", "--show-error", "--fail", "--output", job.target,
                f"http://{job.seeder.address}/{job.image.name}"]


class Udpcast(Contender):
    """Multicast: the seeder sends all of it once, at a rate that it is told, and again what a leecher says it lacks."""

    def ready(self, _job):
        return True

    def expected_ratio(self, _count):
        return 1.4

    def seeder(self, job):
        # The hello interval is also how long it waits after the last leecher has come: 2 s unless
        # told otherwise.
        rate = round(job.swarm.line_bits_per_second * job.swarm.multicast_share)
        return ["udp-sender", "--file", job.image, "--interface", "eth0", "--full-duplex", "--nopointopoint",
                "--max-bitrate", rate, "--min-receivers", job.swarm.count, "--rexmit-hello-interval", 100,
                "--nokbd", "--no-progress"]

    def leecher(self, job):
        return ["udp-receiver", "--file", job.target, "--interface", "eth0", "--nosync", "--nokbd", "--no-progress",
                "--exit-wait", 50]


CONTENDERS = [
    Swarmdd("swarmdd", "swarmdd --no-verify", "as the others do: no read-back", ["--no-verify"]),
    Swarmdd("read-back", "swarmdd", "reads every piece back from the disk before it is complete", []),
    Libtorrent("libtorrent", "libtorrent", "no uTP, no encryption, large queues and buffers, unlimited slots"),
    Aria2("aria2", "aria2", "64 MiB disk cache"),
    Transmission("transmission", "transmission", "no uTP, 64 MiB cache, 100 slots"),
    Udpcast("udpcast", "udpcast multicast", "no hash, no swarm; told the rate of the line, full duplex"),
    Http("http", "nginx → curl", "no hash, no swarm: the ceiling of plain TCP"),
]
# Multicast over loopback says nothing.
PAIR = [contender for contender in CONTENDERS if contender.name != "udpcast"]


# ---- The tracker


def start_tracker(job):
    # It need not be root, and had it to leave root by itself, the kernel would forget to end it
    # with us (prctl(2), PR_SET_PDEATHSIG). It starts in a directory where that user may read,
    # whatever lies above.
    jail = job.directory / "tracker"
    jail.mkdir(exist_ok=True)
    jail.chmod(0o755)
    allowed = jail / "whitelist"
    allowed.write_text(job.info_hash.hex() + "\n")
    allowed.chmod(0o644)
    address, log = job.tracker.address, job.directory / "tracker.log"
    tracker = job.tracker.start(
        ["env", f"--chdir={jail}", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL",
         "opentracker", "-i", address, "-p", TRACKER_PORT, "-P", TRACKER_PORT, "-w", allowed.name], log)
    wait_until(lambda: accepts(address, TRACKER_PORT), tracker, log)
    return tracker


def complete_peers(job):
    """How many seeders the tracker knows of this torrent."""
    url = f"http://{job.tracker.address}:{TRACKER_PORT}/scrape?info_hash={urllib.parse.quote(job.info_hash)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.read().partition(b"8:completei")[2].partition(b"e")[0] or 0)
    except OSError:
        return 0


def accepts(address, port):
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(ready, process, log):
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not ready():
        if process.exit_status() is not None:
            raise Failure(f"{process.argv[0]} ended before it was ready: {last_words(log)}")
        if time.monotonic() > deadline:
            raise Failure(f"{process.argv[0]} is not ready after {READY_SECONDS_MAX} s: {last_words(log)}")
        time.sleep(0.05)


class HostTime:
    """What all cores did, in ticks: the first line of /proc/stat (proc(5)); and for how long every program that wanted to
    run waited for a disk, in microseconds (Documentation/accounting/psi.rst), where the kernel tells."""

    def __init__(self, total, idle, stolen, disk_wait_us):
        self.total, self.idle, self.stolen, self.disk_wait_us = total, idle, stolen, disk_wait_us

    @staticmethod
    def now():
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [int(word) for word in stat.readline().split()[1:9]]
        _, _, full = read_or_empty("/proc/pressure/io").partition("full ")
        # user nice system idle iowait irq softirq steal; waiting for a disk is idle too.
        return HostTime(sum(ticks), ticks[3] + ticks[4], ticks[7], int(full.rpartition("total=")[2] or 0))

    def since(self, before):
        return HostTime(self.total - before.total, self.idle - before.idle, self.stolen - before.stolen,
                        self.disk_wait_us - before.disk_wait_us)

    def disk_wait_share(self, seconds):
        return self.disk_wait_us / 1e6 / seconds

    def busy_share(self):
        return 1 - self.idle / max(1, self.total)

    def stolen_share(self):
        return self.stolen / max(1, self.total)


# ---- What is copied


def make_image(path, size_bytes, seed):
    """Random bytes, always the same: nothing on the way can compress, skip or deduplicate them."""
    if path.exists() and path.stat().st_size == size_bytes:
        return
    say(f"making {path}")
    source = random.Random(seed)
    unfinished = path.with_suffix(".new")
    with open(unfinished, "wb") as image:
        for _ in range(size_bytes // MIB):
            image.write(source.randbytes(MIB))
        image.flush()
        os.fsync(image.fileno())
    unfinished.rename(path)


def make_torrent(binary, image, path, tracker=None, piece_kib=None):
    told = ["--tracker", f"http://{tracker.address}:{TRACKER_PORT}/announce"] if tracker else []
    told += ["--piece-size", f"{piece_kib}K"] if piece_kib else []
    subprocess.run([binary, "make", "--single", *told, image, "-o", path], check=True, capture_output=True)
    raw = path.read_bytes()
    start = raw.index(b"4:info") + len("4:info")
    return hashlib.sha1(raw[start:bencode_end(raw, start)]).digest()


def bencode_end(raw, at):
    """Where the bencoded value that begins here ends (BEP 3)."""
    if raw[at:at + 1] in (b"d", b"l"):
        at += 1
        while raw[at:at + 1] != b"e":
            at = bencode_end(raw, at)
        return at + 1
    if raw[at:at + 1] == b"i":
        return raw.index(b"e", at) + 1
    colon = raw.index(b":", at)
    return colon + 1 + int(raw[at:colon])


def disk_mib_per_second(directory, size_bytes):
    """What the disk takes when nobody is in the way: large direct writes."""
    path = directory / "disk-speed"
    count = min(size_bytes, GIB) // (4 * MIB)
    started = time.monotonic()
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={count}", "oflag=direct", "conv=fsync"],
                   check=True, capture_output=True)
    seconds = time.monotonic() - started
    path.unlink()
    return count * 4 / seconds


# ---- The host


def describe_host(directory, size_bytes):
    model = [line.split(":", 1)[1].strip() for line in read_or_empty("/proc/cpuinfo").splitlines()
             if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.machine(), "cores": CORES, "kernel": platform.release(),
        "load_before": os.getloadavg()[0], "disk_mib_per_second": disk_mib_per_second(directory, size_bytes),
    }


def versions(binary):
    import libtorrent

    def first_line(*argv):
        told = subprocess.run(argv, capture_output=True, text=True, check=False)
        return (told.stdout + told.stderr).strip().splitlines()[0]

    return {
        "swarmdd": first_line(binary, "--version"), "libtorrent": libtorrent.__version__,
        "aria2": first_line("aria2c", "--version"), "transmission": first_line("transmission-cli", "--version"),
        "udpcast": udpcast_version(),
        "http": f"{first_line('nginx', '-v')}, {' '.join(first_line('curl', '--version').split()[:2])}",
    }


def udpcast_version():
    """It does not tell; Debian does, where it is installed."""
    asked = subprocess.run(["dpkg-query", "--show", "--showformat", "${Version}", "udpcast"],
                           capture_output=True, text=True, check=False)
    return asked.stdout or "not installed"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)
