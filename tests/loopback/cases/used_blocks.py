"""Does a target get all files of a disk, although nothing is sent that its file systems do not use?

With the real partclone and the real file systems. $SWARMDD_JUNK_MIB is how much is written and
deleted again in each of them (default: 96).
"""

import contextlib
import os
import random
import re
import subprocess
from pathlib import Path

from fixtures import digest
from harness import AGENT, KIB, MIB, TOP, check

JUNK_BYTES = int(os.environ.get("SWARMDD_JUNK_MIB", 96)) * MIB
# Room for files, journal and tables of each file system beside the junk.
ROOM_BYTES = 160 * MIB
SWAP_BYTES = 16 * MIB


def only_used_blocks_are_sent(stage):
    """A GPT disk with ext4, NTFS and swap, half empty and full of deleted junk, is deployed onto a
    dirty disk."""
    image, parts = half_empty_disk(stage)
    with mounted(stage, image, parts["ext4"], "ext4") as place:
        (place / "late").write_bytes(b"x")
        refused = used_map(image, stage.path("refused.map"), status=1, loops=1)
        check("its journal was not replayed" in refused, f"used-map says {refused}")
        (place / "late").unlink()
    check(not stage.path("refused.map").exists(), "a map was written of a mounted file system")
    map_file = stage.path("disk.map")
    used_map(image, map_file)

    used = described_by_twin(stage, image, parts)
    torrent = stage.path("used.torrent")
    size = make(image, torrent, "--used-map", map_file)
    check(used <= size <= 1.02 * used, f"{size} bytes are described, {used} are used")
    whole = make(image, stage.path("whole.torrent"))
    check(whole >= sum(length for _, length in parts.values()), f"only {whole} without a map")

    deploy(stage, torrent, image, "target")
    expected = contents(stage, image, parts)
    check_file_systems(stage, stage.path("target"), parts)
    found = contents(stage, stage.path("target"), parts)
    check(found == expected and len(found) > 100, "the files differ")

    # The twin that must fail: a map that leaves out one block of one file.
    place = place_of(image, expected_bytes("ext4", 7))
    blind = stage.path("blind.map")
    blind.write_text(without(map_file.read_text(), place, place + 4 * KIB))
    check(make(image, stage.path("blind.torrent"), "--used-map", blind) == size - 4 * KIB,
          "the block is described")
    deploy(stage, stage.path("blind.torrent"), image, "blind")
    found = contents(stage, stage.path("blind"), parts)
    wrong = [name for name in expected if found[name] != expected[name]]
    check(wrong == ["ext4/7"], f"these files differ: {wrong}")


def a_mounted_partition_is_refused(stage):
    """On a disk whose partitions the kernel knows."""
    disk = stage.path("disk")
    with open(disk, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "--quiet", disk], input="2048,", text=True, check=True)
    device = stage.attach(disk, partitions=True)
    subprocess.run(["partx", "--add", device], check=False, capture_output=True)
    part = f"{device}p1"
    subprocess.run(["mkfs.ext4", "-q", part], check=True)
    with at_place(stage, part, "ext4") as place:
        said = used_map(device, stage.path("map"), status=1)
    check(f"{part}: device ({part}) is mounted at {place}" in said, f"used-map says {said}")
    said = used_map(device, stage.path("map"))
    check(f"{part}: ext4, " in said and stage.path("map").exists(), f"used-map says {said}")


# ---- the disk


def half_empty_disk(stage):
    """The image, and where each partition lies: (start, length) in bytes."""
    image = stage.path("image")
    sizes = {"ext4": JUNK_BYTES + ROOM_BYTES, "ntfs": JUNK_BYTES + ROOM_BYTES, "swap": SWAP_BYTES}
    with open(image, "wb") as file:
        file.truncate(sum(sizes.values()) + 3 * MIB)
    lines = ["label: gpt", *(f"size={size // 512}" for size in sizes.values())]
    subprocess.run(["sfdisk", "--quiet", image], input="\n".join(lines), text=True, check=True)
    parts, start = {}, MIB
    for kind, size in sizes.items():
        parts[kind] = (start, size)
        start += size
    for kind, maker in [("ext4", ["mkfs.ext4", "-q"]), ("ntfs", ["mkfs.ntfs", "-q", "-F", "-f"]),
                        ("swap", ["mkswap", "-L", "lab"])]:
        with attached(image, parts[kind]) as device:
            subprocess.run([*maker, device], check=True, capture_output=True)
    for kind in ("ext4", "ntfs"):
        with mounted(stage, image, parts[kind], kind) as place:
            fill(place, kind)
    return image, parts


def fill(place, kind):
    """Files of all sizes, before and behind junk that is deleted."""
    generator = random.Random(kind)
    for number in range(60):
        (place / str(number)).write_bytes(expected_bytes(kind, number))
    with open(place / "junk", "wb") as junk:
        for _ in range(JUNK_BYTES // MIB):
            junk.write(generator.randbytes(MIB))
        junk.flush()
        os.fsync(junk.fileno())
    for number in range(60, 120):
        (place / str(number)).write_bytes(expected_bytes(kind, number))
    (place / "junk").unlink()


def expected_bytes(kind, number):
    generator = random.Random(f"{kind} {number}")
    return generator.randbytes(generator.randrange(1 + 8 * KIB * number))


def place_of(image, wanted):
    """Where the image has the first block of a file."""
    block = wanted[:4 * KIB]
    with open(image, "rb") as file:
        for offset in iter(lambda: file.tell(), -1):
            part = file.read(MIB)
            at = part.find(block)
            if at >= 0:
                return offset + at
            check(part, "the block is not in the image")


@contextlib.contextmanager
def attached(image, part, *options):
    start, length = part
    made = subprocess.run(["losetup", "--find", "--show", "--offset", str(start), "--sizelimit",
                           str(length), *options, image], check=True, capture_output=True,
                          text=True)
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@contextlib.contextmanager
def mounted(stage, image, part, kind, *options):
    with attached(image, part) as device, at_place(stage, device, kind, *options) as place:
        yield place


@contextlib.contextmanager
def at_place(stage, device, kind, *options):
    place = Path(stage.directory, f"mounted-{kind}")
    place.mkdir(exist_ok=True)
    driver = {"ntfs": ["ntfs-3g"]}.get(kind, ["mount", "--types", kind])
    subprocess.run([*driver, *options, device, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


# ---- commands


def used_map(image, output, *, status=0, loops=0):
    """What it prints. Afterwards this many loop devices use the image."""
    ended = subprocess.run([TOP / "scripts/used-map", "-o", output, image], capture_output=True,
                           text=True, timeout=60, check=False)
    check(ended.returncode == status, f"used-map exits with {ended.returncode}: {ended.stderr}")
    left = subprocess.run(["losetup", "--associated", image], capture_output=True, text=True,
                          check=True)
    check(left.stdout.count("\n") == loops, f"loop devices: {left.stdout}")
    return ended.stderr


def make(image, torrent, *options):
    """How many bytes the torrent describes."""
    ended = subprocess.run([AGENT, "make", image, "-o", torrent, *options], capture_output=True,
                           text=True, timeout=120, check=False)
    check(ended.returncode == 0, f"make exits with {ended.returncode}: {ended.stderr}")
    return int(re.search(r"^size: (\d+)", ended.stdout, re.M).group(1))


def deploy(stage, torrent, image, name):
    """Onto a disk that is full of other bytes."""
    device = stage.loop(name, image.stat().st_size)
    port = stage.port()
    seed = stage.agent("seed", "--listen", f"127.0.0.1:{port}", torrent, image)
    seed.wait_state("seeding", 60)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent, device)
    agent.expect(0, 120)
    seed.end()
    subprocess.run(["blockdev", "--flushbufs", device], check=True)


# ---- what is right


def described_by_twin(stage, image, parts):
    """The bytes that partclone calls used, with the front of the disk and the header of swap."""
    used = MIB + 64 * KIB
    for kind in ("ext4", "ntfs"):
        log, shown = stage.path(f"{kind}.log"), stage.path(f"{kind}.map")
        with attached(image, parts[kind], "--read-only") as device:
            subprocess.run([f"partclone.{kind}", "-D", "-q", "-L", log, "-s", device, "-o", shown],
                           check=True, capture_output=True)
        blocks = re.search(r"^Space in use:.* = (\d+) Blocks", log.read_text(), re.M).group(1)
        size = re.search(r"^Block size: *(\d+) Byte", log.read_text(), re.M).group(1)
        used += int(blocks) * int(size)
    return used


def check_file_systems(stage, disk, parts):
    checkers = {"ext4": ["e2fsck", "-f", "-n"], "ntfs": ["ntfsfix", "--no-action"]}
    for kind, checker in checkers.items():
        with attached(disk, parts[kind], "--read-only") as device:
            ended = subprocess.run([*checker, device], capture_output=True, text=True, check=False)
            check(ended.returncode == 0, f"{checker[0]}: {ended.stdout}{ended.stderr}")
    with attached(disk, parts["swap"], "--read-only") as device:
        shown = subprocess.run(["blkid", "-p", device], capture_output=True, text=True, check=True)
        check('LABEL="lab"' in shown.stdout, f"swap is {shown.stdout}")
    verified = subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True,
                              check=False)
    check(verified.returncode == 0, f"sfdisk: {verified.stdout}{verified.stderr}")


def contents(stage, disk, parts):
    """The digest of each file."""
    found = {}
    for kind in ("ext4", "ntfs"):
        with mounted(stage, disk, parts[kind], kind, "-o", "ro") as place:
            found |= {f"{kind}/{path.name}": digest(path) for path in place.iterdir()
                      if path.is_file()}
    return found


def without(map_text, start, end):
    """This map, which calls the bytes from `start` to `end` unused; they lie in one used line."""
    lines = []
    for line in map_text.splitlines():
        words = line.split()
        if words[-1] == "+" and len(words) == 3:
            first = int(words[0], 16)
            last = first + int(words[1], 16)
            if first <= start and end <= last:
                lines += [f"{first} {start - first} +", f"{start} {end - start} ?",
                          f"{end} {last - end} +"]
                continue
        lines.append(line)
    return "\n".join(lines)


CASES = [only_used_blocks_are_sent, a_mounted_partition_is_refused]
