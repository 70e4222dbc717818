"""What is refused before the first byte is written?"""

import os
import random
import subprocess

from fixtures import DEVICE_IMAGE, digest, same_bytes
from harness import AGENT, KIB, MIB, check
from torrent import Torrent


def refused_targets_are_unchanged(stage):
    image = stage.image("image", DEVICE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    slices = [(0, 4096), (8192, 4096)]
    overlapping = Torrent(stage.directory, image, MIB, slices=slices, name="sda1")
    broken = stage.path("broken.torrent")
    broken.write_bytes(overlapping.bytes.replace(b"%032x" % 8192, b"%032x" % 4000))
    _, port = stage.seed(torrent, image)
    big = stage.loop("big", DEVICE_IMAGE)
    small = stage.loop("small", DEVICE_IMAGE - 512)
    locked = stage.loop("locked", DEVICE_IMAGE, read_only=True)
    mounted = stage.loop("mounted", DEVICE_IMAGE)
    subprocess.run(["mkfs.ext4", "-q", mounted], check=True)
    stage.mount(mounted, "mountpoint")
    held_device = stage.loop("held", DEVICE_IMAGE)
    held = os.open(held_device, os.O_RDWR | os.O_EXCL)
    before = {device: digest(device) for device in stage.loops if device != mounted}
    cases = [
        (["--info-hash", "0" * 40, torrent.path, big],
         "wanted was 0000000000000000000000000000000000000000"),
        ([torrent.path, small], "holds"),
        ([torrent.path, locked], "read-only"),
        ([torrent.path, mounted], "in use"),
        ([torrent.path, held_device], "in use"),
        ([torrent.path, big, torrent.path, big], "given twice"),
        ([torrent.path, "new", torrent.path, "./new"], "given twice"),
        ([torrent.path, big, torrent.path, small], "holds"),
        ([torrent.path, stage.directory], "a directory"),
        ([torrent.path, "/dev/null"], "a character device"),
        ([torrent.path, "/dev/no-such-disk"], "no such device"),
        ([torrent.path, "disk:serial=nobody-has-this"], "fits no disk"),
        ([broken, big], "overlap"),
        ([image, big], ""),
        (["/no/such.torrent", big], "No such file"),
    ]
    for options, reason in cases:
        agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", *options)
        agent.expect(1, 20)
        check(reason in agent.output(),
              f"{options}: expected '{reason}', it says:\n{agent.tail()}")
        check(set(agent.states()) <= {"fetching", "failed"}, "it began")
        last = agent.last().values()
        check(last and all(report["state"] == "failed" for report in last),
              "it does not end with failed")
    os.close(held)
    for device, was in before.items():
        check(digest(device) == was, f"{device} has changed")
    check(not stage.path("new").exists(), "a refused file was created")
    # The twin that must not be refused.
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, big).expect(0, 30)
    check(digest(big) != before[big] and same_bytes(image, big), "the disk differs")


def a_dry_run_changes_nothing(stage):
    image = stage.image("image", DEVICE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    device = stage.loop("disk", DEVICE_IMAGE)
    before = digest(device)
    agent = stage.get("--dry-run", torrent.path, device, torrent.path, "new")
    agent.expect(0, 10)
    plan = agent.json.read_text()
    for word in (torrent.info_hash, device, str(DEVICE_IMAGE), "O_DIRECT", "nothing was written"):
        check(word in plan, f"'{word}' is not in the plan:\n{plan}")
    unchanged = digest(device) == before and not stage.path("new").exists()
    check(unchanged, "something has changed")


def hostile_torrents_are_refused(stage):
    """Cut short, deep, huge, or with a bit inverted: exit 1 or a good torrent, never a panic, and
    never a byte written."""
    image = stage.image("image", MIB)
    slices = [(0, 4096), (8192, 512 * KIB), (MIB - 4096, 4096)]
    torrent = Torrent(stage.directory, image, 256 * KIB, slices=slices, name="sda1")
    device = stage.loop("disk", MIB)
    before = digest(device)
    rng = random.Random(11)
    samples = [
        b"", b"d", b"de", b"l" * 100_000, b"d4:infod" * 50_000, b"d4:info", b"i" * 1000,
        b"99999999999:",
    ]
    samples += [torrent.bytes[:rng.randrange(len(torrent.bytes))] for _ in range(40)]
    for _ in range(60):
        changed = bytearray(torrent.bytes)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        samples.append(bytes(changed))
    path = stage.path("sample.torrent")
    for number, sample in enumerate(samples):
        path.write_bytes(sample)
        command = [AGENT, "get", "--dry-run", "--progress", "none", path, device]
        result = subprocess.run(command, capture_output=True, timeout=10)
        what = f"sample {number} ({sample[:60]!r}…)"
        check(result.returncode in (0, 1),
              f"{what} ends with {result.returncode}: {result.stderr[-300:]}")
        check(result.returncode == 0 or result.stderr.strip(), f"{what} fails silently")
        check(number >= 48 or result.returncode == 1, f"{what} was accepted")
    check(digest(device) == before, "the disk has changed")


CASES = [
    refused_targets_are_unchanged,
    a_dry_run_changes_nothing,
    hostile_torrents_are_refused,
]
