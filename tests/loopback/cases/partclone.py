"""Is a partclone image described and served as it is, and does a target get what partclone
restores?"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from file_systems import FILE_SYSTEMS, clone, empty_loop, filled, restored, run, tree
from fixtures import same_bytes, spoil
from harness import AGENT, KIB, check, wait_until, wait_until_listens
from ptcl import Image, write_sparse


def make(image, torrent, *options):
    return run(AGENT, "make", image, "-o", torrent, *options)


def seed(stage, torrent, source):
    """An agent that serves, and its port."""
    port = stage.port()
    agent = stage.agent("seed", "--listen", f"127.0.0.1:{port}", torrent, source)
    wait_until_listens("the seeder", agent, port)
    return agent, port


# One block or many in front of a checksum; running on, or each anew; none.
CHECKSUMS = [("-a0",), ("-a1", "-k", "1"), ("-a1", "-k", "7", "-K"), ("-a1", "-z", "10485760")]


def sent_bytes():
    """All that has gone through this network namespace."""
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


def deployed(stage, image, name, length, *options):
    """Makes a torrent of the image, serves it from there, and gets it onto a device of zeros."""
    torrent = stage.path(f"{name}.torrent")
    said = make(image, torrent, *options)
    device = empty_loop(stage, name, length)
    before = sent_bytes()
    seeder, port = seed(stage, torrent, image)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent, device)
    agent.expect(0, 30)
    seeder.end()
    return device, said, torrent, sent_bytes() - before


def check_described(image, said, torrent):
    """By a reader of its own: the runs, their pieces, and what is said."""
    read = Image(image)
    info = torrent.read_bytes()
    for offset, length in read.runs():
        name = b"%032x" % offset
        check(b"6:lengthi%de4:pathl32:%see" % (length, name) in info, f"no {length} at {offset}")
    check(info.count(b"4:pathl") == len(read.runs()), "other runs are described")
    piece = int(re.search(rb"12:piece lengthi(\d+)e", info)[1])
    check(b"".join(read.hashes(piece)) in info, "pieces have other hashes")
    check(f"{len(read.used)} of {read.total} blocks of {read.block} bytes are used" in said,
          f"it says:\n{said}")
    sums = {0: "checksums: none", 0x20: "all of them fit"}[read.mode]
    check(sums in said, f"it says:\n{said}")
    return read


def check_deployed(stage, system, files, image, reference):
    device, said, torrent, wire = deployed(stage, image, f"{image.name}-target", system.bytes)
    read = check_described(image, said, torrent)
    check(same_bytes(reference, device), "the target is not what partclone restores")
    check(wire <= 1.02 * read.used_bytes() + 64 * KIB,
          f"{wire} bytes were sent for {read.used_bytes()}")
    run(*system.fsck, device)
    system.check_files(stage, device, files)
    return read


def a_case(system):
    def case(stage):
        files = tree(stage)
        image = clone(stage, system, filled(stage, system, files), "image")
        reference = restored(stage, image, "restored", system.bytes)
        check_deployed(stage, system, files, image, reference)
    case.__name__ = f"a_partclone_image_of_{system.name}_is_deployed"
    return case


def every_checksum_of_partclone_is_read(stage):
    """All from one device, so one of them is restored: partclone.restore 0.3.23 aborts where a
    buffer is no multiple of the strip."""
    system, files = FILE_SYSTEMS[1], tree(stage)
    device = filled(stage, system, files)
    images = [clone(stage, system, device, f"image-{number}", *options)
              for number, options in enumerate(CHECKSUMS)]
    reference = restored(stage, images[0], "restored", system.bytes)
    strips = set()
    for image in images:
        strips.add(check_deployed(stage, system, files, image, reference).strip)
    check(len(strips) == len(CHECKSUMS), f"strips of {strips} blocks")


def an_image_of_version_0001_is_deployed(stage):
    """Of a writer of our own, and partclone restores it. With checksums of eight bytes, as very old
    images have them, it does not; the target is the same."""
    system, files = FILE_SYSTEMS[0], tree(stage)
    new = Image(clone(stage, system, filled(stage, system, files), "image"))
    old, wide = new.as_old(stage.path("old")), new.as_old(stage.path("wide"), 8)
    reference = restored(stage, old, "old-restored", system.bytes)
    for image in [old, wide]:
        device, said, _, _ = deployed(stage, image, f"{image.name}-target", system.bytes)
        check("version 0001" in said and "not checked" in said, f"it says:\n{said}")
        check(same_bytes(reference, device), f"{image.name}: not what partclone restores")
    system.check_files(stage, device, files)


def a_damaged_image_is_not_described_and_the_rest_of_it_is_served(stage):
    """`make` names the checksum; `seed`, with a torrent of before, the piece."""
    system, files = FILE_SYSTEMS[0], tree(stage)
    image = clone(stage, system, filled(stage, system, files), "image", "-k", "16")
    torrent = stage.path("good.torrent")
    make(image, torrent, "--piece-size", "64K")
    run(AGENT, "verify", torrent, image)
    read = Image(image)
    damaged = stage.path("damaged")
    # In the third strip.
    shutil.copyfile(image, damaged)
    spoil(damaged, read.place(40) + 5)
    place = read.data + 48 * read.block + 2 * read.checksum
    refused("make", damaged, "-o", stage.path("x"), said=(
        f"{damaged} is damaged: its checksum at byte {place} does not fit the used blocks 32 to "
        "47 in front of it"))
    check(not stage.path("x").exists(), "there is a torrent")
    piece = 40 * read.block // (64 * KIB)
    seeder, port = seed(stage, torrent, damaged)
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent, "target")
    pieces = -(-read.used_bytes() // (64 * KIB))

    def has_the_rest():
        return agent.reports() and agent.reports()[-1]["have"] == pieces - 1

    wait_until("the rest is there", 20, has_the_rest)
    time.sleep(0.5)
    check(has_the_rest(), f"got more: {agent.reports()[-1]}")
    check(re.search(f"piece {piece} at byte .* of the source is not what the torrent says",
                    seeder.output()), f"it says:\n{seeder.tail()}")
    refused("seed", "--check", "--listen", f"127.0.0.1:{stage.port()}", torrent, damaged,
            said=f"1 of {pieces} pieces bad")


def refused(*command, said):
    done = subprocess.run([AGENT, *map(str, command)], capture_output=True, text=True, timeout=30)
    check(done.returncode == 1 and said in done.stderr,
          f"{done.returncode} and not '{said}':\n{done.stderr}")


def an_image_that_is_not_that_of_the_torrent_is_refused(stage):
    system, files = FILE_SYSTEMS[0], tree(stage)
    device = filled(stage, system, files)
    image = clone(stage, system, device, "image")
    system.mounted(stage, device, lambda place: (place / "more").write_bytes(bytes(300 * KIB)))
    other, torrent = clone(stage, system, device, "other"), stage.path("torrent")
    make(image, torrent)
    serve = ("seed", "--listen", f"127.0.0.1:{stage.port()}", torrent)
    refused(*serve, other,
            said=f"source {other} is another partclone image than that of the torrent: it has ")
    with open(other, "r+b") as file:
        file.truncate(other.stat().st_size - 1)
    length = Image(image).place(len(Image(image).used) - 1) + Image(image).block + 4
    check(image.stat().st_size == length, "the reader of the test is wrong")
    refused("make", other, "-o", stage.path("x"),
            said=f"partclone image {other}: it is cut short: it ends at byte")
    spoil(image, 130)
    refused(*serve, image, said="the map of blocks is damaged: its CRC-32 is")
    spoil(image, 60)
    refused("make", image, "-o", stage.path("x"), said="the header is damaged: its CRC-32")
    # The file itself, byte for byte.
    make(image, torrent, "--raw")
    run(AGENT, "verify", torrent, image)
    seeder, port = seed(stage, torrent, image)
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent, "copy").expect(0, 20)
    check(same_bytes(image, stage.path("copy")), "the copy differs")


def an_image_of_100_gib_needs_little_memory(stage):
    """25,600 runs; a few blocks among many zeros have data. Each process takes 64 MiB at most."""
    image, torrent = stage.path("image"), stage.path("torrent")
    data = {index * 1_731_415: os.urandom(4096) for index in range(12)}
    used = write_sparse(image, blocks=25 << 20, block=4096,
                        map_bytes=b"\xff" * 120 + b"\x0f" + b"\0" * 7, data=data)
    # As address space, which bounds what is resident.
    said = run("sh", "-c", f"ulimit -v {64 * KIB}; exec {AGENT} make {image} -o {torrent}")
    check(f"{used} of {25 << 20} blocks" in said and "used ranges: 25600\n" in said,
          f"it says:\n{said}")
    seeder, port = seed(stage, torrent, image)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-verify", "--seed-secs", 60, torrent,
                      "target")
    wait_until("it is there", 60, lambda: agent.state() == "seeding")
    for process in [seeder, agent]:
        peak = process.status_field("VmHWM")
        check(peak <= 64 * KIB, f"{process.name} took {peak} KiB")
    with open(stage.path("target"), "rb") as target:
        for index, block in data.items():
            # 964 used blocks in front of 60 others.
            target.seek((index // 964 * 1024 + index % 964) * 4096)
            check(target.read(4096) == block, f"block {index} is elsewhere")


CASES = [
    *map(a_case, FILE_SYSTEMS),
    every_checksum_of_partclone_is_read,
    an_image_of_version_0001_is_deployed,
    a_damaged_image_is_not_described_and_the_rest_of_it_is_served,
    an_image_that_is_not_that_of_the_torrent_is_refused,
    an_image_of_100_gib_needs_little_memory,
]
