"""What do the cases put on disks and links, and how do they compare it?"""

import contextlib
import hashlib
import re
import socket
import subprocess
import threading
from pathlib import Path

from harness import MIB, check

# No multiple of the piece (1 MiB), nor of 4096, but of the sector.
DEVICE_IMAGE = 24 * MIB + 5 * 512
# Not even a multiple of the sector.
FILE_IMAGE = 20 * MIB + 777

NO_SPACE = "No space left on device"
# The texts of musl and of glibc.
IO_ERROR = "(?:I/O|Input/output) error"


# ---- bytes


def same_bytes(path, other, length=None, offset=0):
    """True if `length` bytes (or all) at `offset` of `other` equal those at the start of `path`."""
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


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spoil(path, offset):
    """Inverts one byte, at once visible to every reader."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def spoiled_copy(stage, name, image, torrent, pieces):
    copy = stage.path(name)
    copy.write_bytes(image.read_bytes())
    for piece in pieces:
        spoil(copy, piece * torrent.piece + 100)
    return copy


def traffic(device):
    """Bytes read from a block device and bytes written to it
    (Documentation/admin-guide/iostats.rst)."""
    fields = Path(f"/sys/class/block/{Path(device).name}/stat").read_text().split()
    return int(fields[2]) * 512, int(fields[6]) * 512


# ---- links and servers


@contextlib.contextmanager
def slow_network(megabits):
    """The loopback interface at this rate, with as few bytes in flight as on a cable."""
    shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "256kb", "latency", "10ms"]
    subprocess.run(["tc", "qdisc", "add", "dev", "lo", *shape], check=True)
    sizes = Path("/proc/sys/net/ipv4/tcp_wmem")
    before = sizes.read_text()
    sizes.write_text("4096 65536 262144")
    try:
        yield
    finally:
        sizes.write_text(before)
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


class Background:
    """Calls `step` again and again in a thread while a `with` block lasts."""

    def __init__(self):
        self.over = False
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()
        self.close()

    def _run(self):
        while not self.over:
            self.step()


class Server(Background):
    """Answers one connection after the other with the given bytes, the last answer for ever. Keeps
    the first line of each request."""

    def __init__(self, port, answers, host="127.0.0.1"):
        super().__init__()
        self.port, self.url = port, f"http://127.0.0.1:{port}/announce"
        self.answers, self.asked = list(answers), []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family)
        self.listener.settimeout(0.2)

    def step(self):
        try:
            connection, _ = self.listener.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(5)
            try:
                self.asked.append(connection.recv(4096).split(b"\r\n")[0])
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for part in answer if isinstance(answer, list) else [answer]:
                    connection.sendall(part)
            except OSError:
                pass

    def close(self):
        self.listener.close()


# ---- targets that fail


def full_file_system(stage, name):
    """An ext4 of 24 MiB, and in it a sparse file that is larger."""
    device = stage.loop(name, 24 * MIB, 0)
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    place = stage.mount(device, f"{name}-mounted")
    with open(place / "sparse", "wb") as file:
        file.truncate(64 * MIB)
    return place


def expect_failure(agent, target, operation, reason):
    """The result names the operation, the target, the place and the reason; the target was never
    called complete."""
    result = agent.result(target)
    check(result["state"] == "failed" and result["verified"] is False, f"the result is {result}")
    states = agent.states(str(target))
    check(not {"seeding", "done"} & set(states), f"it went through {states}")
    # A flush is of the whole disk; a read or a write has its place.
    message = rf"cannot (?:{operation}) {target}(?: at byte (\d+))?: {reason}"
    found = re.search(message, result["error"])
    check(found and found.group(0) in agent.output(),
          f"it says {result['error']}, and:\n{agent.tail()}")
    place = found.group(1)
    check(int(place) % 512 == 0 if place else "cannot flush" in found.group(0),
          f"the offset is {place}")
    check(result["bad_offset"] == (int(place) if place else None), f"the result is {result}")
