"""What happens when the target fails, or returns other bytes than were written?"""

import fcntl
import mmap
import os
import struct
import time

from fixtures import (
    IO_ERROR, NO_SPACE, Background, expect_failure, full_file_system, same_bytes, spoil,
)
from harness import KIB, MIB, check, libtorrent, wait_until, wait_until_listens
from torrent import Torrent


def a_piece_lost_once_is_fetched_again(stage):
    """A byte of the disk changes while the rest arrives: only the read-back can see that."""
    image = stage.image("image", 12 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    device = stage.loop("disk", 12 * MIB)
    port = stage.port()
    seeder = libtorrent(stage, torrent, stage.directory, port, seeds=True, rate=4 * MIB)
    wait_until_listens("the seeder", seeder, port, seconds=20)
    source, backing = image.read_bytes(), stage.path("disk")

    def written_offsets():
        found, piece = backing.read_bytes(), torrent.piece
        starts = range(0, len(source), piece)
        return [at for at in starts if found[at:at + piece] == source[at:at + piece]]

    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    at = wait_until("a piece is on the target", 20, written_offsets)[0]
    spoil(backing, at + 1000)
    check(agent.state() == "downloading", "the seeder is too fast for this case")
    agent.expect(0, 40)
    result = agent.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["verified"] is True and result["good"] == torrent.pieces,
          f"the result is {result}")
    check(result["bad_offset"] is None, f"the result is {result}")
    check(12 * MIB + torrent.piece <= result["fetched"] <= 13 * MIB,
          f"{result['fetched']} bytes were fetched")
    message = (f"piece {at // torrent.piece} at byte {at} of the disk is not what was written, "
               "fetching it once more")
    check(message in agent.output(), f"it does not say '{message}':\n{agent.tail()}")


def a_piece_lost_early_is_fetched_again_during_the_download(stage):
    """After another 256 MiB a piece is read back while the download goes on."""
    length = 512 * MIB
    image = stage.image("image", length)
    torrent = Torrent(stage.directory, image, MIB)
    device = stage.loop("disk", length)
    _, port = stage.seed(torrent, image, "--max-up", "64M")
    agent = stage.get("--fresh", "--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device)
    backing = stage.path("disk")

    def written_offset():
        with open(image, "rb") as source, open(backing, "rb") as disk:
            for at in range(0, length, 8 * MIB):
                source.seek(at)
                disk.seek(at)
                if source.read(MIB) == disk.read(MIB):
                    return [at]
        return []

    at = wait_until("a piece is on the target", 20, written_offset)[0]
    spoil(backing, at + 1000)
    message = (f"piece {at // MIB} at byte {at} of the disk is not what was written, "
               "fetching it once more")
    wait_until("the loss is noticed", 40, lambda: message in agent.output())
    check(agent.state() == "downloading", f"it was noticed {agent.state()}")
    agent.expect(0, 60)
    early = [report["good"] for report in agent.reports() if report["state"] == "downloading"]
    check(0 < early[-1] < torrent.pieces, f"{early[-1]} pieces were read back early")
    result = agent.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["verified"] is True and result["good"] == torrent.pieces,
          f"the result is {result}")
    check(result["fetched"] == length + torrent.piece, f"{result['fetched']} bytes were fetched")


def a_disk_that_keeps_losing_pieces_fails_alone(stage):
    """A piece that is lost twice is the disk's fault: the job fails with the first offset, and no
    other machine is disturbed. strace makes each call to the disk so slow that the disk can lose
    what was written before it is read."""
    image = stage.image("image", 12 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    # In memory: a file system on a disk blocks a process that changes a page while the page is
    # being written.
    stage.mount("none", "memory", "tmpfs")
    device = stage.loop("memory/disk", 12 * MIB)
    seeder, port = stage.seed(torrent, image)
    bad, source = [7, 30], image.read_bytes()
    # In each bad piece one byte that differs from what the disk held before.
    offsets = [
        next(at for at in range(piece * torrent.piece, len(source)) if source[at] != 0xA5)
        for piece in bad
    ]
    with RestoredBytes(stage.path("memory/disk"), offsets):
        own = stage.port()
        agent = stage.agent("get", "--listen", f"127.0.0.1:{own}",
                            "--peer", f"127.0.0.1:{port}", torrent.path, device,
                            prefix=slow_calls(25))
        other = stage.get("--peer", f"127.0.0.1:{port}", "--peer", f"127.0.0.1:{own}",
                          "--no-seed", torrent.path, "other")
        agent.expect(1, 60)
    result = agent.result(device)
    first = bad[0] * torrent.piece
    check(result["state"] == "failed" and result["verified"] is False,
          f"the result is {result}")
    check(result["bad_offset"] == first and result["good"] == torrent.pieces - 2,
          f"the result is {result}")
    check(not {"seeding", "done"} & set(agent.states()), f"it went through {agent.states()}")
    message = ("2 pieces are not on the disk as they were written, "
               f"the first is piece {bad[0]} at byte {first}")
    check(message in agent.output() and message in result["error"],
          f"it does not say '{message}':\n{agent.tail()}")
    other.expect(0, 20)
    check(same_bytes(image, stage.path("other")), "the target of the other machine differs")
    check("bad" not in other.output() and "banned" not in seeder.output(),
          "another machine was disturbed")


def slow_calls(milliseconds):
    """Delays each call that submits work to the disk, before and after the kernel has it."""
    delay = f"delay_enter={milliseconds * 1000}:delay_exit={milliseconds * 1000}"
    return ["strace", "--output", "/dev/null", "--trace", "io_submit",
            "--inject", f"io_submit:{delay}"]


class RestoredBytes(Background):
    """Restores some bytes of a file whenever another process changes them, some thousand times a
    second."""

    def __init__(self, path, offsets):
        super().__init__()
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.kept = [(offset, self.memory[offset]) for offset in offsets]

    def step(self):
        for offset, byte in self.kept:
            if self.memory[offset] != byte:
                self.memory[offset] = byte
        time.sleep(0.0005)

    def close(self):
        self.memory.close()


def a_failing_target_names_the_place_and_harms_no_peer(stage):
    """A file and a thin disk for which there is no space (ENOSPC), and a disk that has died
    (EIO)."""
    image = stage.image("image", 40 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image)
    places = [full_file_system(stage, name) for name in ("full", "thin", "dead")]
    file = places[0] / "target"
    thin, dead = stage.attach(places[1] / "sparse"), stage.attach(places[2] / "sparse")
    shut_down(places[2])
    own = stage.port()
    options = ["--peer", f"127.0.0.1:{port}", "--peer", f"127.0.0.1:{own}", torrent.path]
    other = stage.agent("get", "--listen", f"127.0.0.1:{own}", "--peer", f"127.0.0.1:{port}",
                        "--seed-secs", 3, torrent.path, "other")
    cases = [
        ([], file, "write", NO_SPACE),
        ([], thin, "write", NO_SPACE),
        # A piece that the scan cannot read is missing, and it cannot be written either.
        ([], dead, "write", IO_ERROR),
        (["--fresh"], dead, "write", IO_ERROR),
    ]
    for more, target, operation, reason in cases:
        agent = stage.get(*more, *options, target)
        agent.expect(1, 30)
        expect_failure(agent, target, operation, reason)
    other.expect(0, 40)
    check(same_bytes(image, stage.path("other")), "the target of the other machine differs")


def a_disk_that_dies_during_the_read_back_fails(stage):
    """Everything was written, and that does not suffice."""
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image)
    place = full_file_system(stage, "dying")
    device = stage.attach(place / "sparse")
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, device,
                      prefix=slow_calls(50))
    end = time.monotonic() + 30
    while agent.state() != "verifying" and agent.is_running() and time.monotonic() < end:
        time.sleep(0.002)
    shut_down(place)
    agent.expect(1, 20)
    # The flush comes before the first read, and the disk may die before it.
    expect_failure(agent, device, "read|flush", IO_ERROR)
    check(agent.result(device)["have"] == torrent.pieces, "not everything was written")


def shut_down(place):
    """Makes every access to this ext4 an I/O error (EXT4_IOC_SHUTDOWN, fs/ext4/ioctl.c)."""
    no_log_flush = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
    directory = os.open(place, os.O_RDONLY)
    fcntl.ioctl(directory, 0x8004587D, struct.pack("I", no_log_flush))
    os.close(directory)


CASES = [
    a_piece_lost_once_is_fetched_again,
    a_piece_lost_early_is_fetched_again_during_the_download,
    a_disk_that_keeps_losing_pieces_fails_alone,
    a_failing_target_names_the_place_and_harms_no_peer,
    a_disk_that_dies_during_the_read_back_fails,
]
