"""Do directories of slices, as Clonezilla keeps images for BitTorrent, work as they are: made by
the real partclone, seeded by us and by other clients, described with the info-hash that partclone's
script gives?"""

import hashlib
import os
import re
import subprocess

import libtorrent as lt
from file_systems import FILE_SYSTEMS, empty_loop, filled, restore, run, run_all, tree
from fixtures import same_bytes, spoil
from harness import (
    AGENT, CLIENTS, MIB, Failed, check, random_file, wait_until, wait_until_listens,
)

PIECE = 16 * MIB
# Of the file system, a fragmented one: its blocks of 1 KiB are no sectors of a 4Kn disk.
PARTITION = 56 * MIB


class Made:
    """A torrent that `swarmdd make` has written."""

    def __init__(self, stage, source, name, *arguments):
        self.name = name
        self.path = stage.path(f"{name.replace('/', '-')}-{len(arguments)}.torrent")
        command = [AGENT, "make", source, "-o", self.path, "--name", name, *arguments]
        made = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=stage.directory)
        check(made.returncode == 0, f"make {source}: {made.stderr}")
        self.said = made.stderr
        self.info_hash = re.search("^info-hash: (.+)$", made.stdout, re.M)[1]
        self.bytes = int(re.search("^size: ([0-9]+) bytes", made.stdout, re.M)[1])


def partition(stage):
    """A file system with files, some of which are gone again."""
    image, files = stage.path("partition"), stage.directory_for("files")
    for number in range(40):
        random_file(files / f"file-{number}", 300_001 + 17_000 * number)
    image.touch()
    os.truncate(image, PARTITION)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-d", files, image], check=True)
    lines = "".join(f"rm file-{number}\n" for number in range(0, 40, 2))
    subprocess.run(["debugfs", "-w", image], input=lines.encode(), check=True,
                   capture_output=True)
    return image


def partclone(stage, *arguments):
    command = ["partclone.ext4", "-L", stage.path("partclone.log"), *arguments]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def slices_of(stage, image, name="sda1"):
    """As Clonezilla makes them: IMAGE/PART/OFFSET, and PART.torrent.info beside."""
    directory = stage.path("btzone") / name
    directory.mkdir(parents=True)
    partclone(stage, "-c", "-T", "-z", PIECE, "-s", image, "-O", directory)
    info = directory.with_name(f"{name}.torrent.info")
    (directory / "torrent.info").rename(info)
    return directory, info


def info_hash_of_script(info, name):
    """What partclone_create_torrent.py does, with the library that it uses."""
    found = {"offset": [], "length": [], "sha1": []}
    for line in info.read_text().splitlines():
        key, value = line.split(": ")
        found.setdefault(key, []).append(value)
    files = lt.file_storage()
    for offset, length in zip(found["offset"], found["length"]):
        files.add_file(os.path.join(name, offset), int(length, 16))
    torrent = lt.create_torrent(files, PIECE, lt.create_torrent.v1_only)
    for number, digest in enumerate(found["sha1"]):
        torrent.set_hash(number, bytes.fromhex(digest))
    return hashlib.sha1(lt.bencode(torrent.generate()[b"info"])).hexdigest()


def check_restored(device, directory, image):
    """Each slice is where its name says, and the file system is whole."""
    for path in directory.iterdir():
        length = path.stat().st_size
        check(same_bytes(path, device, length, int(path.name, 16)), f"{path.name} differs")
    fsck = subprocess.run(["e2fsck", "-fn", device], capture_output=True, text=True)
    check(fsck.returncode == 0, f"the file system is not clean:\n{fsck.stdout}")
    for number in range(1, 40, 6):
        contents = [
            subprocess.run(["debugfs", "-R", f"cat file-{number}", disk], capture_output=True)
            for disk in (image, device)
        ]
        check(contents[0].stdout and contents[0].stdout == contents[1].stdout,
              f"file-{number} differs")


def torrents_of_torrent_info_have_the_info_hash_of_the_script(stage):
    image = partition(stage)
    directory, info = slices_of(stage, image)
    cases = [(info, "sda1"), (info, "vg/lv"), (info, "a (b) \u00e9")]
    # From an image, partclone cuts in other places; with an odd size of what it reads at once, too.
    partclone(stage, "-c", "-s", image, "-o", stage.path("image"))
    for name, arguments in [
        ("restored", ["-r", "-T", "-z", PIECE, "-s", stage.path("image")]),
        ("small", ["-c", "-T", "-z", 3_000_000, "-s", image]),
        ("only-info", ["-c", "-t", "-z", PIECE, "-s", image]),
    ]:
        partclone(stage, *arguments, "-o", stage.path(name))
        cases.append((stage.path(name) / "torrent.info", "sda1"))
    hashes = []
    for info, name in cases:
        made, expected = Made(stage, info, name), info_hash_of_script(info, name)
        check(made.info_hash == expected, f"{info} is {made.info_hash}, not {expected}")
        hashes.append(expected)
    check(len(set(hashes)) == 5 and hashes[5] == hashes[0], f"info-hashes: {hashes}")
    # The twin: one byte in a hash.
    info = cases[0][0]
    text = info.read_text()
    info.write_text(text[:-2] + ("0" if text[-2] != "0" else "1") + "\n")
    check(Made(stage, info, "sda1").info_hash != hashes[0], "any hash gives the same torrent")


class Sliced:
    """A file system in a partition of its own, and what partclone makes of it."""

    def __init__(self, stage, system, files):
        self.stage, self.system, self.files = stage, system, files
        self.device = filled(stage, system, files)
        self.folder = stage.path("btzone") / system.name
        self.image, self.cut = stage.path(f"{system.name}.img"), stage.path(f"{system.name}-cut")
        self.restored = empty_loop(stage, f"{system.name}-restored", system.bytes)

    def clones(self):
        """Slices as Clonezilla makes them of a device, and an image."""
        clone = self.system.partclone("-c", "-s", self.device)
        return [[*clone, "-T", "-z", PIECE, "-O", self.folder], [*clone, "-O", self.image]]

    def restores(self):
        """Slices as Clonezilla makes them of an image, and what a target has to be."""
        restore_it = self.system.partclone("-r", "-s", self.image)
        return [[*restore_it, "-T", "-z", PIECE, "-O", self.cut],
                restore(self.image, self.restored)]

    def describe(self):
        """Keeps the torrent of the slices of the device."""
        for folder in (self.cut, self.folder):
            info = folder.with_name(f"{folder.name}.torrent.info")
            (folder / "torrent.info").rename(info)
            self.torrent = Made(self.stage, info, self.system.name)
            expected = info_hash_of_script(info, self.system.name)
            check(self.torrent.info_hash == expected,
                  f"{info} is {self.torrent.info_hash}, not {expected}")

    def fetch(self, name):
        """Another client seeds the slices. Returns an agent that writes them, and where."""
        port = self.stage.port()
        seeder = CLIENTS[name](self.stage, self.torrent, self.folder.parent, port, seeds=True)
        wait_until_listens(name, seeder, port, seconds=20)
        device = empty_loop(self.stage, f"{self.system.name}-from-{name}", self.system.bytes)
        peer = f"127.0.0.1:{port}"
        return self.stage.get("--peer", peer, "--no-seed", self.torrent.path, device), device

    def check(self, agent, device):
        agent.expect(0, 90)
        what = f"{self.system.name} on {device}"
        check(same_bytes(self.restored, device), f"{what} is not what partclone restores")
        fetched = agent.last()[device]["fetched"]
        check(fetched <= 1.02 * self.torrent.bytes,
              f"{what}: {fetched} bytes were fetched of {self.torrent.bytes}")

    def check_files(self, device):
        run(*self.system.fsck, device)
        self.system.check_files(self.stage, device, self.files)


def aria2_and_transmission_seed_slices_of_every_file_system(stage):
    """All at once: transmission takes half a minute for each."""
    files = tree(stage)
    stage.directory_for("btzone")
    parts = [Sliced(stage, system, files) for system in FILE_SYSTEMS]
    run_all(command for part in parts for command in part.clones())
    run_all(command for part in parts for command in part.restores())
    for part in parts:
        part.describe()
    slow = [(part, *part.fetch("transmission")) for part in parts]
    fast = [(part, *part.fetch("aria2")) for part in parts]
    for part, agent, device in fast:
        part.check(agent, device)
        part.check_files(device)
    for part, agent, device in slow:
        part.check(agent, device)
    # The twin: a comparison that sees one byte.
    spoil(device, MIB)
    check(not same_bytes(part.restored, device), "the comparison sees nothing")


def serve_slices(stage, name):
    """The agent seeds the slices, another client downloads them."""
    image = partition(stage)
    directory, info = slices_of(stage, image)
    tracker = stage.tracker()
    torrent = Made(stage, info, "sda1", "--tracker", tracker.url)
    tracker.start(torrent)
    agent, _ = stage.seed(torrent, directory.parent)
    wait_until("the tracker knows the seeder", 20, lambda: tracker.counts(torrent)[0] == 1)
    place = stage.directory_for("leech")
    client = CLIENTS[name](stage, torrent, place, stage.port(), seeds=False)

    def is_complete():
        agent.expect_running()
        there = [(path, place / "sda1" / path.name) for path in directory.iterdir()]
        return all(copy.exists() and copy.stat().st_size == path.stat().st_size
                   and same_bytes(path, copy) for path, copy in there)

    try:
        wait_until(f"{name} is complete", 60, is_complete)
    except Failed as error:
        raise Failed(f"{error}\n{client.tail()}") from None
    agent.end()
    agent.expect(0, 5)


def aria2_fetches_slices(stage):
    serve_slices(stage, "aria2")


def libtorrent_fetches_slices(stage):
    serve_slices(stage, "libtorrent")


def slices_go_to_a_partition(stage):
    """From a directory that partclone has cut in other places than the torrent says."""
    image = partition(stage)
    directory, info = slices_of(stage, image)
    torrent = Made(stage, info, "sda1")
    partclone(stage, "-c", "-s", image, "-o", stage.path("image"))
    partclone(stage, "-r", "-T", "-z", 3 * MIB, "-s", stage.path("image"), "-o", stage.path("cut"))
    seeder, port = stage.seed(torrent, stage.path("cut"))
    device = stage.loop("disk", PARTITION)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    agent.expect(0, 60)
    check_restored(device, directory, image)
    said = "cut: torrent.info is no slice and left out"
    check(seeder.output().count(said) == 1, f"the seeder says:\n{seeder.tail()}")
    # As few descriptors as slices that are read at once.
    count = len(os.listdir(f"/proc/{seeder.pid}/fd"))
    check(count <= 64 + 30, f"the seeder has {count} descriptors")


def slices_that_vanish_or_shrink_cost_their_pieces(stage):
    """The others are served. A complete seeder comes later."""
    image, directory = stage.image("image", PARTITION), stage.path("slices")
    torrent = Made(stage, image, "slices", "--piece-size", "4M", "--slices", directory)
    slices = sorted(directory.iterdir())
    check(len(slices) == -(-PARTITION // PIECE), f"there are {len(slices)} slices")
    seeder, port = stage.seed(torrent, directory)
    gone, short = slices[1], slices[2]
    kept = {path: path.read_bytes() for path in (gone, short)}
    gone.unlink()
    os.truncate(short, PIECE - MIB + 100)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target")
    most = PARTITION // (4 * MIB) - 4 - 1

    def has_the_rest():
        seeder.expect_running()
        reports = agent.reports()
        return reports and reports[-1]["have"] == most

    wait_until("the rest is there", 30, has_the_rest)
    wait_until("all is tried", 10, lambda: seeder.output().count("is not served: ") == 5)
    for text in (f"cannot read {directory} at byte {PIECE}: No such file or directory",
                 "; the file has changed"):
        check(text in seeder.output(), f"the seeder does not say '{text}':\n{seeder.tail()}")
    check(has_the_rest() and agent.state() == "downloading", f"the target is {agent.state()}")
    seeder.end()
    for path, content in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    _, port = stage.seed(torrent, directory)
    again = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "other")
    again.expect(0, 30)
    check(same_bytes(image, stage.path("other")), "the target differs")


def aria2_seeds_slices_that_make_has_written(stage):
    image = partition(stage)
    parent = stage.directory_for("btzone")
    torrent = Made(stage, image, "sda1", "--slices", parent / "sda1")
    check(torrent.bytes == PARTITION, f"{torrent.bytes} bytes are described")
    port = stage.port()
    seeder = CLIENTS["aria2"](stage, torrent, parent, port, seeds=True)
    wait_until_listens("aria2", seeder, port, seconds=20)
    device = stage.loop("disk", PARTITION)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    agent.expect(0, 60)
    check(same_bytes(image, device), "the disk differs")


CASES = [
    torrents_of_torrent_info_have_the_info_hash_of_the_script,
    aria2_and_transmission_seed_slices_of_every_file_system,
    aria2_fetches_slices,
    libtorrent_fetches_slices,
    slices_go_to_a_partition,
    slices_that_vanish_or_shrink_cost_their_pieces,
    aria2_seeds_slices_that_make_has_written,
]
