"""Cases in which the disk has the word: what it holds already, what it loses, what it refuses, and what it tells wrongly."""

import contextlib
import fcntl
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

from harness import *  # noqa: F403

KIB = 1 << 10
# No multiple of the piece (1 MiB), nor of 4096, but of the sector.
DEVICE_IMAGE = 24 * MIB + 5 * 512


# ---- what is there counts

def what_the_disk_holds_is_not_fetched(stage):
    """There is nobody to fetch from, and nothing is written; the next machine takes it all from this one at once."""
    image = stage.image("image", DEVICE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    device = stage.loop("disk", DEVICE_IMAGE + MIB, image=image)
    written = traffic(device)[1]
    port = stage.port()
    agent = stage.agent("get", "--listen", f"127.0.0.1:{port}", "--seed-secs", 4, torrent.path, device)
    agent.wait_state("seeding", 20)
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "second").expect(0, 20)
    check(same_bytes(image, stage.path("second")), "what the second got differs")
    agent.expect(0, 10)
    result = agent.result(device)
    check(result["fetched"] == 0 and result["state"] == "done", f"the result is {result}")
    check(result["verified"] is True and result["good"] == torrent.pieces, f"the result is {result}")
    check("scanning" in agent.states(), f"it went through {agent.states()}")
    check(traffic(device)[1] == written, f"{traffic(device)[1] - written} bytes were written")
    # The twin that must not succeed: it does not look, and there is nobody to fetch from.
    blind = stage.get("--fresh", torrent.path, device)
    blind.wait_state("downloading", 10)
    time.sleep(1)
    check(blind.state() == "downloading" and blind.reports()[-1]["have"] == 0, f"its last report is {blind.reports()[-1]}")
    blind.end()
    blind.expect(1, 5)


def only_what_is_damaged_is_fetched_and_written(stage):
    image = stage.image("image", 64 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    device = stage.loop("disk", 64 * MIB, image=image)
    damaged = random.Random(5).sample(range(torrent.pieces), torrent.pieces * 5 // 100)
    for piece in damaged:
        spoil(stage.path("disk"), piece * torrent.piece + piece * 997 % torrent.piece)
    check(not same_bytes(image, stage.path("disk")), "nothing is damaged")
    written = traffic(device)[1]
    _, port = stage.seed(torrent, image)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    agent.expect(0, 30)
    written = traffic(device)[1] - written
    result = agent.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["fetched"] <= 0.08 * 64 * MIB, f"{result['fetched']} bytes were fetched")
    check(written == len(damaged) * torrent.piece, f"{written} bytes were written for {len(damaged)} pieces")
    check(result["verified"] is True and result["good"] == torrent.pieces, f"the result is {result}")


def what_is_not_there_is_seen_without_reading_all(stage):
    """A disk full of something else: a sample, and later the read-back of what was written. `--fresh` saves the sample, too,
    and `--no-verify` the read-back, which the result does not hide."""
    image = stage.image("image", 96 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    device = stage.loop("disk", 96 * MIB)
    _, port = stage.seed(torrent, image)
    # 64 pieces are the sample; 1 MiB is what opening it may read, the partition table and the like.
    sample = 64 * torrent.piece
    cases = [
        ([], 96 * MIB + sample, True, 96 * MIB),
        # It holds everything now.
        (["--fresh"], 96 * MIB, True, 96 * MIB),
        (["--fresh", "--no-verify"], 0, False, 96 * MIB),
        ([], 96 * MIB, True, 0),
    ]
    for words, most, verified, fetched in cases:
        before = traffic(device)[0]
        agent = stage.get(*words, "--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
        agent.expect(0, 30)
        read = traffic(device)[0] - before
        check(same_bytes(image, device), f"{words}: the disk differs")
        result = agent.result(device)
        check(read <= most + MIB, f"{words}: {read} bytes were read, not {most}")
        check(result["verified"] is verified, f"{words}: the result is {result}")
        check(fetched <= result["fetched"] <= 1.02 * fetched, f"{words}: {result['fetched']} bytes were fetched")
        check(("scanning" in agent.states()) == ("--fresh" not in words), f"{words}: it went through {agent.states()}")
        if "--fresh" in words:
            subprocess.run(["blockdev", "--flushbufs", device], check=True)


def image_of_zeros_and_repeats(path, length, contents, places, rng):
    """Pieces of 1 MiB: zeros, but for `places`, which hold all of `contents` once and then any of them. The last one is
    zeros, too, and shorter."""
    with open(path, "wb") as file:
        for number, place in enumerate(rng.sample(range(length // MIB), places)):
            file.seek(place * MIB)
            file.write(contents[number] if number < len(contents) else rng.choice(contents))
        file.truncate(length)
    return path


def zeros_and_repeats(stage):
    """512 MiB, four fifths of it zeros, half of the rest repeated, onto a disk full of garbage that makes zeros by itself.
    Then less of it: onto one that cannot (no fallocate below the loop device), and onto files, one of them where there is no
    O_DIRECT either."""
    rng = random.Random(4)
    # A piece with a single byte in it is no zeros.
    contents = [os.urandom(MIB) for _ in range(50)] + [bytes(MIB - 1) + b"x"]
    large = image_of_zeros_and_repeats(stage.path("large"), 512 * MIB - 300 * 512, contents, 102, rng)
    small = image_of_zeros_and_repeats(stage.path("small"), 96 * MIB - 77, contents[-9:], 19, rng)
    for kind in ("tmpfs", "ramfs"):
        stage.mount("none", kind, kind)
    helped, helpless = stage.loop("tmpfs/disk", 512 * MIB), stage.loop("ramfs/disk", 96 * MIB)
    for device, quick in [(helped, True), (helpless, False)]:
        most = int(Path(f"/sys/class/block/{Path(device).name}/queue/write_zeroes_max_bytes").read_text())
        check((most > 0) is quick, f"{device} zeroes {most} bytes at once")
    files = [stage.path("file"), stage.path("ramfs/file")]
    for file in files:
        file.write_bytes(b"\xA5" * (small.stat().st_size + 12345))
    for image, unique, targets in [(large, 51 * MIB, [helped]), (small, 9 * MIB, [helpless, *files])]:
        torrent, length = Torrent(stage.directory, image, MIB), image.stat().st_size
        _, port = stage.seed(torrent, image)
        for target in targets:
            agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, target)
            agent.expect(0, 60)
            result = agent.result(target)
            check(same_bytes(image, target, length), f"{target} differs")
            check(unique <= result["fetched"] <= 1.1 * unique, f"{target}: {result['fetched']} of {unique} were fetched")
            check(result["verified"] is True and result["good"] == torrent.pieces, f"{target}: the result is {result}")
            if target not in files:
                with open(target, "rb") as disk:
                    disk.seek(length)
                    check(set(disk.read()) == {0xA5}, "bytes behind the image have changed")
    for file in files:
        check(file.stat().st_size == small.stat().st_size, f"the file has {file.stat().st_size} bytes")


def nothing_but_zeros(stage):
    """Not one block has to come, so not one event of the network or of the disk's queue wakes the agent."""
    image, target = stage.path("image"), stage.loop("disk", 24 * MIB)
    with open(image, "wb") as file:
        file.truncate(24 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    with open(target, "wb") as disk:
        disk.write(b"\xA5" * (24 * MIB))
    agent = stage.get("--no-seed", torrent.path, target)
    agent.expect(0, 20)
    check(same_bytes(image, target, 24 * MIB), "the target is not zeros")
    check(agent.result(target)["fetched"] == 0, "something was fetched")


# ---- power cuts

def cut_rng():
    """`SWARMDD_CUT_SEED` repeats what the line says that this prints."""
    seed = int(os.environ.get("SWARMDD_CUT_SEED") or random.randrange(1 << 32))
    print(f"      SWARMDD_CUT_SEED={seed}", flush=True)
    return random.Random(seed)


def cut_after(agent, seconds):
    """`kill -9`, as a power cut would; how many bytes it had fetched when it last said so, or None if it was through."""
    time.sleep(seconds)
    alive = agent.is_running()
    agent.end(signal.SIGKILL)
    if not alive:
        agent.expect(0, 0)
        return None
    reports = agent.reports()
    return reports[-1]["fetched"] if reports else 0


@contextlib.contextmanager
def slow_network(megabits):
    """The loopback interface as a link of this rate, with as little on its way as there would be on a cable."""
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


def uploaded_in_all(seeder, source):
    """Exact, and nothing can have been downloaded that is not in it."""
    seeder.end()
    seeder.expect(0, 5)
    return seeder.result(source)["uploaded"]


def twenty_cuts_of_one_machine(stage):
    """What a cut costs is what was on its way: less than the pool, which --memory keeps small here."""
    rng = cut_rng()
    image = stage.image("image", 288 * MIB)
    torrent = Torrent(stage.directory, image, 64 * KIB)
    stage.mount("none", "memory", "tmpfs")
    device = stage.loop("memory/disk", 288 * MIB)
    seeder, port = stage.seed(torrent, image)
    words = ["--memory", 16, "--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device]
    with slow_network(200):
        lives = [cut_after(stage.get(*words), rng.uniform(0, 1.1)) for _ in range(20)]
    check(lives.count(None) <= 5, f"{lives.count(None)} of 20 cuts came too late")
    last = stage.get(*words)
    last.expect(0, 60)
    result = last.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["verified"] is True and result["good"] == torrent.pieces, f"the result is {result}")
    total = uploaded_in_all(seeder, image)
    print(f"      {20 - lives.count(None)} cuts, {total / (288 * MIB):.3f} x the image", flush=True)
    known = sum(life or 0 for life in lives) + result["fetched"]
    check(max(known, total) <= 1.15 * 288 * MIB, f"{total} bytes were sent, {known} are known to have arrived")


def one_cut_of_each_machine(stage):
    """At full speed, anywhere between the first instant and the last; disks and files in turn."""
    rng = cut_rng()
    image = stage.image("image", 96 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    stage.mount("none", "memory", "tmpfs")
    device, file = stage.loop("memory/disk", 96 * MIB), stage.path("file")

    def life(port, target):
        return stage.get("--memory", 20, "--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, target)

    _, port = stage.seed(torrent, image)
    start = time.monotonic()
    life(port, device).expect(0, 30)
    seconds = time.monotonic() - start
    cuts, worst = 0, 0
    for number in range(8):
        seeder, port = stage.seed(torrent, image)
        subprocess.run(["blkdiscard", "--zeroout", device], check=True)
        file.unlink(missing_ok=True)
        target = [device, file][number % 2]
        in_time = cut_after(life(port, target), rng.uniform(0, seconds)) is not None
        cuts += in_time
        # Whatever slowed the first life down may be over.
        seconds *= 1 if in_time else 0.7
        again = life(port, target)
        again.expect(0, 30)
        check(same_bytes(image, target), f"{target} differs")
        check(again.result(target)["verified"] is True, f"the result is {again.result(target)}")
        total = uploaded_in_all(seeder, image)
        worst = max(worst, total)
        check(total <= 1.15 * 96 * MIB, f"{total} bytes were sent for {96 * MIB}")
    check(cuts >= 3, f"only {cuts} of 8 cuts came in time")
    print(f"      {cuts} cuts, at worst {worst / (96 * MIB):.3f} x the image", flush=True)


# ---- a disk that does not return what was written

def libtorrent_seed(stage, torrent, rate):
    """A slow seeder, and its port."""
    port = stage.port()
    seeder = libtorrent(stage, torrent, stage.directory, port, seeds=True, rate=rate)
    wait_until("the seeder listens", 20, lambda: can_connect(port) or seeder.expect_running())
    return port


def a_piece_the_disk_loses_once_is_fetched_again(stage):
    """It is changed behind our back while the rest arrives: only reading back can see that."""
    image = stage.image("image", 12 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    device = stage.loop("disk", 12 * MIB)
    port = libtorrent_seed(stage, torrent, 4 * MIB)
    source, backing = image.read_bytes(), stage.path("disk")

    def a_written_piece():
        found = backing.read_bytes()
        for at in range(0, len(source), torrent.piece):
            if found[at:at + torrent.piece] == source[at:at + torrent.piece]:
                return at + 1
        return None

    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    at = wait_until("a piece is on the target", 20, a_written_piece) - 1
    spoil(backing, at + 1000)
    check(agent.state() == "downloading", "the seeder is too fast for this case")
    agent.expect(0, 40)
    result = agent.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["verified"] is True and result["good"] == torrent.pieces, f"the result is {result}")
    check(result["bad_offset"] is None, f"the result is {result}")
    check(12 * MIB + torrent.piece <= result["fetched"] <= 13 * MIB, f"{result['fetched']} bytes were fetched")
    said = f"piece {at // torrent.piece} at byte {at} of the disk is not what was written, fetching it once more"
    check(said in agent.output(), f"it does not say '{said}':\n{agent.tail()}")


def slow_calls(milliseconds):
    """Makes each call that hands work to the disk take this much longer, before and after the kernel has it."""
    delay = f"delay_enter={milliseconds * 1000}:delay_exit={milliseconds * 1000}"
    return ["strace", "--output", "/dev/null", "--trace", "io_submit", "--inject", f"io_submit:{delay}"]


class Forgetful:
    """Keeps these bytes of a file as they are, whatever others write there: many thousand times a second."""

    def __init__(self, path, offsets):
        self.over = False
        self.file = open(path, "r+b")
        self.offsets = offsets
        self.thread = threading.Thread(target=self._forget)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()
        self.file.close()

    def _forget(self):
        with mmap.mmap(self.file.fileno(), 0) as memory:
            kept = [(offset, memory[offset]) for offset in self.offsets]
            while not self.over:
                for offset, byte in kept:
                    if memory[offset] != byte:
                        memory[offset] = byte
                time.sleep(0.0005)


def a_disk_that_always_loses_two_pieces_fails_alone(stage):
    """Twice is the disk: failed, with the first offset, and nobody else notices. strace makes each call to the disk long
    enough for the disk to forget what was written before it is asked for it."""
    image = stage.image("image", 12 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    # In memory: a file system on a disk makes whoever changes a page wait while it is being
    # written.
    stage.mount("none", "memory", "tmpfs")
    device = stage.loop("memory/disk", 12 * MIB)
    seeder, port = stage.seed(torrent, image)
    bad, source = [7, 30], image.read_bytes()
    # A byte of each, but none that is the same as before.
    offsets = [next(at for at in range(piece * torrent.piece, len(source)) if source[at] != 0xA5) for piece in bad]
    with Forgetful(stage.path("memory/disk"), offsets):
        own = stage.port()
        agent = stage.agent("get", "--listen", f"127.0.0.1:{own}", "--peer", f"127.0.0.1:{port}", torrent.path, device,
                            prefix=slow_calls(25))
        other = stage.get("--peer", f"127.0.0.1:{port}", "--peer", f"127.0.0.1:{own}", "--no-seed", torrent.path, "other")
        agent.expect(1, 60)
    result = agent.result(device)
    first = bad[0] * torrent.piece
    check(result["state"] == "failed" and result["verified"] is False, f"the result is {result}")
    check(result["bad_offset"] == first and result["good"] == torrent.pieces - 2, f"the result is {result}")
    check(not {"seeding", "done"} & set(agent.states()), f"it went through {agent.states()}")
    said = f"2 pieces are not on the disk as they were written, the first is piece {bad[0]} at byte {first}"
    check(said in agent.output() and said in result["error"], f"it does not say '{said}':\n{agent.tail()}")
    other.expect(0, 20)
    check(same_bytes(image, stage.path("other")), "the other one's target differs")
    check("bad" not in other.output() and "banned" not in seeder.output(), "somebody else was harmed")


# ---- a source that is not what its torrent says

def spoiled_copy(stage, name, image, torrent, pieces):
    copy = stage.path(name)
    copy.write_bytes(image.read_bytes())
    for piece in pieces:
        spoil(copy, piece * torrent.piece + 100)
    return copy


def a_seeder_keeps_to_itself_what_is_wrong(stage):
    """Three pieces are not what the torrent says, and two cannot be read any more: it serves the others, says so, and
    nobody is banned for it. Who has everything comes later."""
    image = stage.image("image", 16 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    wrong, lost = [3, 17, 40], [torrent.pieces - 2, torrent.pieces - 1]
    source = spoiled_copy(stage, "source", image, torrent, wrong)
    seeder, port = stage.seed(torrent, source)
    os.truncate(source, lost[0] * torrent.piece)
    ports = [stage.port(), stage.port()]
    agents = [
        stage.agent("get", "--listen", f"127.0.0.1:{own}", "--peer", f"127.0.0.1:{port}", "--seed-secs", 1, torrent.path,
                    f"target-{own}")
        for own in ports
    ]
    most = torrent.pieces - len(wrong) - len(lost)
    for agent in agents:
        wait_until("the rest is there", 20, lambda: agent.reports() and agent.reports()[-1]["have"] == most)
    time.sleep(1)
    for agent in agents:
        check(agent.reports()[-1]["have"] == most and agent.state() == "downloading", f"got more: {agent.reports()[-1]}")
    peers = [word for own in ports for word in ("--peer", f"127.0.0.1:{own}")]
    stage.seed(torrent, image, *peers, host="127.0.0.2")
    for agent, own in zip(agents, ports):
        agent.expect(0, 20)
        check(same_bytes(image, stage.path(f"target-{own}")), "the target differs")
        check(not re.search("bad|banned", agent.output()), f"a peer is blamed:\n{agent.tail()}")
    seeder.end()
    for piece in wrong:
        said = f"piece {piece} at byte {piece * torrent.piece} of the source is not what the torrent says, it is not served"
        check(seeder.output().count(said) == 1, f"it does not say '{said}' once:\n{seeder.tail()}")
    for piece in lost:
        said = f"piece {piece} is not served: cannot read {source} at byte {piece * torrent.piece}"
        check(seeder.output().count(said) == 1, f"it does not say '{said}' once:\n{seeder.tail()}")


def a_seeder_without_one_good_piece_gives_up(stage):
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    seeder, port = stage.seed(torrent, random_file(stage.path("source"), 8 * MIB))
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, "target")
    seeder.expect(1, 20)
    check("no piece of the source is what the torrent says" in seeder.output(), f"it says:\n{seeder.tail()}")
    check(agent.state() == "downloading" and agent.reports()[-1]["have"] == 0, f"it got {agent.reports()[-1]}")
    check("bad" not in agent.output(), f"bad pieces were served:\n{agent.tail()}")


def seed_check_refuses_to_start(stage):
    image = stage.image("image", 16 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    for pieces in ([5, 60], [torrent.pieces - 1]):
        source = spoiled_copy(stage, "source", image, torrent, pieces)
        port = stage.port()
        seeder = stage.agent("seed", "--check", "--listen", f"127.0.0.1:{port}", torrent.path, source)
        seeder.expect(1, 20)
        said = f"{len(pieces)} of {torrent.pieces} pieces bad, the first at disk offset {pieces[0] * torrent.piece}"
        check(said in seeder.output(), f"it does not say '{said}':\n{seeder.tail()}")
        check(not can_connect(port), "it listens")
    # The twin that must not be refused.
    _, port = stage.seed(torrent, image, "--check")
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target").expect(0, 20)
    check(same_bytes(image, stage.path("target")), "the target differs")


def libtorrent_does_without_a_piece_of_one_seeder(stage):
    """A piece that is withdrawn (BEP 54) or refused (BEP 6) costs a stock client nothing but the wait for another seeder."""
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    source = spoiled_copy(stage, "source", image, torrent, [9])
    _, port = stage.seed(torrent, source)
    place = stage.path("leech")
    place.mkdir()
    own = stage.port()
    client = libtorrent(stage, torrent, place, own, seeds=False, peer=f"127.0.0.1:{port}")

    def progress():
        found = re.findall(r"^downloading (\d\.\d+)$", client.output(), re.M)
        return float(found[-1]) if found else 0.0

    wait_until("all but one piece is there", 30, lambda: progress() > 1 - 1.5 / torrent.pieces)
    time.sleep(1)
    check(progress() < 1, "it has everything")
    stage.seed(torrent, image, "--peer", f"127.0.0.1:{own}", host="127.0.0.2")
    got = place / torrent.name
    wait_until("libtorrent is complete", 30, lambda: got.stat().st_size == 8 * MIB and same_bytes(image, got))


# ---- a target that fails

def full_file_system(stage, name):
    """An ext4 of 24 MiB, and a sparse file of more than it can hold."""
    device = stage.loop(name, 24 * MIB, 0)
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    place = stage.mount(device, f"{name}-mounted")
    with open(place / "sparse", "wb") as file:
        file.truncate(64 * MIB)
    return place


def shut_down(place):
    """Every access to this ext4 is an I/O error from now on (EXT4_IOC_SHUTDOWN, fs/ext4/ioctl.c)."""
    nothing_more = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
    directory = os.open(place, os.O_RDONLY)
    fcntl.ioctl(directory, 0x8004587D, struct.pack("I", nothing_more))
    os.close(directory)


NO_SPACE = "No space left on device"
# In the words of musl, and of glibc.
IO_ERROR = "(?:I/O|Input/output) error"


def expect_failure(agent, target, operation, reason):
    result = agent.result(target)
    check(result["state"] == "failed" and result["verified"] is False, f"the result is {result}")
    check(not {"seeding", "done"} & set(agent.states(str(target))), f"it went through {agent.states()}")
    # A flush is of the whole disk; what is read or written has its place.
    said = re.search(rf"cannot (?:{operation}) {target}(?: at byte (\d+))?: {reason}", result["error"])
    check(said and said.group(0) in agent.output(), f"it says {result['error']}, and:\n{agent.tail()}")
    place = said.group(1)
    check(int(place) % 512 == 0 if place else "cannot flush" in said.group(0), f"the offset is {place}")
    check(result["bad_offset"] == (int(place) if place else None), f"the result is {result}")


def a_target_that_fails_says_where_and_harms_nobody(stage):
    """A file and a thin disk for which there is no space (ENOSPC), and a disk that has died (EIO)."""
    image = stage.image("image", 40 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image)
    places = [full_file_system(stage, name) for name in ("full", "thin", "dead")]
    file, thin, dead = places[0] / "target", stage.attach(places[1] / "sparse"), stage.attach(places[2] / "sparse")
    shut_down(places[2])
    own = stage.port()
    words = ["--peer", f"127.0.0.1:{port}", "--peer", f"127.0.0.1:{own}", torrent.path]
    other = stage.agent("get", "--listen", f"127.0.0.1:{own}", "--peer", f"127.0.0.1:{port}", "--seed-secs", 3,
                        torrent.path, "other")
    cases = [
        ([], file, "write", NO_SPACE),
        ([], thin, "write", NO_SPACE),
        # What the scan cannot read is missing, and then it cannot be written either.
        ([], dead, "write", IO_ERROR),
        (["--fresh"], dead, "write", IO_ERROR),
    ]
    for more, target, operation, reason in cases:
        agent = stage.get(*more, *words, target)
        agent.expect(1, 30)
        expect_failure(agent, target, operation, reason)
    other.expect(0, 40)
    check(same_bytes(image, stage.path("other")), "the other one's target differs")


def a_disk_that_dies_while_it_is_read_back(stage):
    """All was written, and that is not enough."""
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image)
    place = full_file_system(stage, "dying")
    device = stage.attach(place / "sparse")
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, device, prefix=slow_calls(50))
    end = time.monotonic() + 30
    while agent.state() != "verifying" and agent.is_running() and time.monotonic() < end:
        time.sleep(0.002)
    shut_down(place)
    agent.expect(1, 20)
    # The flush comes before the first read, and the disk may be that fast.
    expect_failure(agent, device, "read|flush", IO_ERROR)
    check(agent.result(device)["have"] == torrent.pieces, "not everything was written")


# ---- several targets at once

def several_targets_and_one_of_them_fails(stage):
    """Two partitions of one disk, another disk and a file, two torrents, one process; then the same with a disk that fails."""
    images = [stage.image("one", 20 * MIB + 777), stage.image("two", DEVICE_IMAGE)]
    tracker = stage.tracker()
    one, two = (Torrent(stage.directory, image, MIB, tracker) for image in images)
    tracker.start(one, two)
    stage.agent("seed", "--listen", f"127.0.0.1:{stage.port()}", one.path, images[0], two.path, images[1])
    disk = stage.path("partitioned")
    disk.write_bytes(bytes(80 * MIB))
    table = "label: gpt\nstart=2048, size=65536\nstart=67584, size=65536\n"
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True)
    partitioned = stage.attach(disk, partitions=True)
    first, second = f"{partitioned}p1", f"{partitioned}p2"
    if not Path(first).exists():  # a kernel that reads no partition tables has to be told
        for number, start in [(1, 2048), (2, 67584)]:
            subprocess.run(["addpart", partitioned, str(number), str(start), "65536"], check=True)
    wait_until("the partitions are there", 5, lambda: Path(first).exists() and Path(second).exists())
    whole = stage.loop("whole", DEVICE_IMAGE)
    pairs = [(one, first), (two, second), (two, whole), (one, "file")]
    thin = stage.attach(full_file_system(stage, "thin") / "sparse")
    for more in [[], [(two, thin)]]:
        words = [word for torrent, target in pairs + more for word in (torrent.path, target)]
        agent = stage.get("--fresh", "--seed-secs", 1, *words)
        agent.expect(1 if more else 0, 60)
        for torrent, target in pairs:
            result = agent.result(target)
            check(result["state"] == "done" and result["verified"] is True, f"{target}: the result is {result}")
            length = torrent.image.stat().st_size
            check(result["good"] == torrent.pieces and result["bytes"] == length, f"{target}: the result is {result}")
            check(same_bytes(torrent.image, stage.path(target), length), f"{target} differs")
        if more:
            expect_failure(agent, thin, "write", NO_SPACE)
    table = subprocess.run(["sfdisk", "--dump", disk], check=True, capture_output=True, text=True).stdout
    check(table.count("size=       65536") == 2, f"the partition table is\n{table}")


def two_downloads_share_the_link(stage):
    images = [stage.image("one", 32 * MIB), stage.image("two", 32 * MIB)]
    torrents = [Torrent(stage.directory, image, 256 * KIB) for image in images]
    port = stage.port()
    pairs = [word for torrent in torrents for word in (torrent.path, torrent.image)]
    stage.agent("seed", "--listen", f"127.0.0.1:{port}", *pairs)
    wait_until("the seeder listens", 10, lambda: can_connect(port))
    devices = [stage.loop(f"disk-{image.name}", 32 * MIB) for image in images]
    pairs = [word for torrent, device in zip(torrents, devices) for word in (torrent.path, device)]
    with slow_network(120):
        agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", *pairs)

        def fetched():
            last = agent.last()
            return [last[device]["fetched"] for device in devices if device in last]

        wait_until("half is there", 30, lambda: sum(fetched()) >= 32 * MIB)
        share = min(fetched()) / sum(fetched())
        check(share > 0.25, f"of the first half one got {share:.2f}")
        agent.expect(0, 30)
    for torrent, device in zip(torrents, devices):
        check(same_bytes(torrent.image, device), f"{device} differs")


CASES = [
    what_the_disk_holds_is_not_fetched,
    only_what_is_damaged_is_fetched_and_written,
    what_is_not_there_is_seen_without_reading_all,
    zeros_and_repeats,
    nothing_but_zeros,
    twenty_cuts_of_one_machine,
    one_cut_of_each_machine,
    a_piece_the_disk_loses_once_is_fetched_again,
    a_disk_that_always_loses_two_pieces_fails_alone,
    a_seeder_keeps_to_itself_what_is_wrong,
    a_seeder_without_one_good_piece_gives_up,
    seed_check_refuses_to_start,
    libtorrent_does_without_a_piece_of_one_seeder,
    a_target_that_fails_says_where_and_harms_nobody,
    a_disk_that_dies_while_it_is_read_back,
    several_targets_and_one_of_them_fails,
    two_downloads_share_the_link,
]
