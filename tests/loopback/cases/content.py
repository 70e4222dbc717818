"""Is nothing fetched that the target already holds, or that is zeros or repeated?"""

import os
import random
import subprocess
import time
from pathlib import Path

from fixtures import DEVICE_IMAGE, same_bytes, spoil, traffic
from harness import KIB, MIB, check
from torrent import Torrent


def data_on_the_target_is_not_fetched(stage):
    """No peer has the image and nothing is written. The next machine fetches everything from this
    one at once."""
    image = stage.image("image", DEVICE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    device = stage.loop("disk", DEVICE_IMAGE + MIB, image=image)
    written = traffic(device)[1]
    port = stage.port()
    agent = stage.agent("get", "--listen", f"127.0.0.1:{port}", "--seed-secs", 4,
                        torrent.path, device)
    agent.wait_state("seeding", 20)
    second = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "second")
    second.expect(0, 20)
    check(same_bytes(image, stage.path("second")), "the second target differs")
    agent.expect(0, 10)
    result = agent.result(device)
    check(result["fetched"] == 0 and result["state"] == "done", f"the result is {result}")
    check(result["verified"] is True and result["good"] == torrent.pieces,
          f"the result is {result}")
    check("scanning" in agent.states(), f"it went through {agent.states()}")
    check(traffic(device)[1] == written, f"{traffic(device)[1] - written} bytes were written")
    # The twin that must not succeed: it does not scan, and no peer has the image.
    blind = stage.get("--fresh", torrent.path, device)
    blind.wait_state("downloading", 10)
    time.sleep(1)
    last = blind.reports()[-1]
    check(blind.state() == "downloading" and last["have"] == 0, f"its last report is {last}")
    blind.end()
    blind.expect(1, 5)


def only_damaged_pieces_are_fetched_and_written(stage):
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
    check(written == len(damaged) * torrent.piece,
          f"{written} bytes were written for {len(damaged)} pieces")
    check(result["verified"] is True and result["good"] == torrent.pieces,
          f"the result is {result}")


def a_foreign_target_costs_only_a_sample(stage):
    """A disk with other data: the scan reads a sample, and later the read-back reads what was
    written. `--fresh` skips the sample. `--no-verify` skips the read-back, and the result says
    so."""
    image = stage.image("image", 96 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    device = stage.loop("disk", 96 * MIB)
    _, port = stage.seed(torrent, image)
    # The sample is 64 pieces. Opening the target may read 1 MiB, the partition table and the like.
    sample = 64 * torrent.piece
    cases = [
        ([], 96 * MIB + sample, True, 96 * MIB),
        # It holds everything now.
        (["--fresh"], 96 * MIB, True, 96 * MIB),
        (["--fresh", "--no-verify"], 0, False, 96 * MIB),
        ([], 96 * MIB, True, 0),
    ]
    for options, most, verified, fetched in cases:
        before = traffic(device)[0]
        agent = stage.get(*options, "--peer", f"127.0.0.1:{port}", "--no-seed",
                          torrent.path, device)
        agent.expect(0, 30)
        read = traffic(device)[0] - before
        check(same_bytes(image, device), f"{options}: the disk differs")
        result = agent.result(device)
        check(read <= most + MIB, f"{options}: {read} bytes were read, not {most}")
        check(result["verified"] is verified, f"{options}: the result is {result}")
        check(fetched <= result["fetched"] <= 1.02 * fetched,
              f"{options}: {result['fetched']} bytes were fetched")
        check(("scanning" in agent.states()) == ("--fresh" not in options),
              f"{options}: it went through {agent.states()}")
        if "--fresh" in options:
            subprocess.run(["blockdev", "--flushbufs", device], check=True)


def zeros_and_repeated_pieces_are_not_fetched(stage):
    """512 MiB, four fifths of it zeros, half of the rest repeated, onto a disk full of garbage that
    can zero by itself. Then a smaller image: onto a disk that cannot (no fallocate below the loop
    device), and onto files, one of them on a file system without O_DIRECT."""
    rng = random.Random(4)
    # A piece with a single byte in it is no zeros.
    contents = [os.urandom(MIB) for _ in range(50)] + [bytes(MIB - 1) + b"x"]
    large = sparse_image(stage.path("large"), 512 * MIB - 300 * 512, contents, 102, rng)
    small = sparse_image(stage.path("small"), 96 * MIB - 77, contents[-9:], 19, rng)
    for kind in ("tmpfs", "ramfs"):
        stage.mount("none", kind, kind)
    zeroing = stage.loop("tmpfs/disk", 512 * MIB)
    plain = stage.loop("ramfs/disk", 96 * MIB)
    for device, can_zero in [(zeroing, True), (plain, False)]:
        limit = Path(f"/sys/class/block/{Path(device).name}/queue/write_zeroes_max_bytes")
        most = int(limit.read_text())
        check((most > 0) is can_zero, f"{device} zeroes {most} bytes at once")
    files = [stage.path("file"), stage.path("ramfs/file")]
    for file in files:
        file.write_bytes(b"\xA5" * (small.stat().st_size + 12345))
    for image, unique, targets in [
        (large, 51 * MIB, [zeroing]), (small, 9 * MIB, [plain, *files]),
    ]:
        torrent, length = Torrent(stage.directory, image, MIB), image.stat().st_size
        _, port = stage.seed(torrent, image)
        for target in targets:
            agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, target)
            agent.expect(0, 60)
            result = agent.result(target)
            check(same_bytes(image, target, length), f"{target} differs")
            check(unique <= result["fetched"] <= 1.1 * unique,
                  f"{target}: {result['fetched']} of {unique} were fetched")
            check(result["verified"] is True and result["good"] == torrent.pieces,
                  f"{target}: the result is {result}")
            if target not in files:
                with open(target, "rb") as disk:
                    disk.seek(length)
                    check(set(disk.read()) == {0xA5}, "bytes behind the image have changed")
    for file in files:
        bytes_found = file.stat().st_size
        check(bytes_found == small.stat().st_size, f"the file has {bytes_found} bytes")


def sparse_image(path, length, contents, places, rng):
    """Pieces of 1 MiB, zeros in all but `places` of them. These hold each of `contents` once, and
    after that any of them again. The last piece is zeros, too, and shorter."""
    with open(path, "wb") as file:
        for number, place in enumerate(rng.sample(range(length // MIB), places)):
            file.seek(place * MIB)
            file.write(contents[number] if number < len(contents) else rng.choice(contents))
        file.truncate(length)
    return path


def an_image_of_zeros_needs_no_peer(stage):
    """No block is fetched, so neither the network nor the queue of the disk ever wakes the
    agent."""
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


CASES = [
    data_on_the_target_is_not_fetched,
    only_damaged_pieces_are_fetched_and_written,
    a_foreign_target_costs_only_a_sample,
    zeros_and_repeated_pieces_are_not_fetched,
    an_image_of_zeros_needs_no_peer,
]
