"""Is a packed image described and served as what it was before?"""

import random
import re
import subprocess
import time

from file_systems import run
from fixtures import DEVICE_IMAGE, same_bytes, spoil
from harness import AGENT, CLIENTS, KIB, MIB, TOP, check, wait_until, wait_until_listens
from torrent import Torrent

# Of a packed image, and what a request asks for.
BLOCK = 16 * KIB


def packed_image(stage):
    """An image of which half can be packed, and the image that scripts/pack makes of it."""
    image = stage.image("image", DEVICE_IMAGE)
    with open(image, "r+b") as file:
        for start in range(64 * KIB, DEVICE_IMAGE - 64 * KIB, 128 * KIB):
            file.seek(start)
            file.write(b"words " * (64 * KIB // 6))
    packed = stage.path("image.lz4")
    run(TOP / "scripts/pack", image, "-o", packed)
    restored = stage.path("restored")
    with open(restored, "wb") as file:
        subprocess.run(["lz4", "-dcq", packed], stdout=file, check=True)
    check(same_bytes(image, restored), "lz4 restores something else")
    check(packed.stat().st_size < 0.6 * DEVICE_IMAGE, "it is not packed")
    return image, packed


def lengths_in(packed):
    """How many bytes each block of the image has in the file."""
    raw, at, lengths = packed.read_bytes(), 7, []
    while length := int.from_bytes(raw[at:at + 4], "little"):
        lengths.append(length & 0x7fffffff)
        # Its length is in front of each block, and a checksum behind it.
        at += 4 + lengths[-1] + 4
    check(len(lengths) == -(-DEVICE_IMAGE // BLOCK), f"{len(lengths)} blocks")
    return lengths


def deployed(stage, torrent, packed, target):
    """How many bytes an agent that serves the packed image has sent to another one."""
    port = stage.port()
    seeder = stage.agent("seed", "--listen", f"127.0.0.1:{port}", torrent, packed)
    wait_until_listens("the seeder", seeder, port)
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent, target)
    agent.expect(0, 60)
    seeder.end()
    seeder.wait(5)
    return seeder.last()[str(packed)]["uploaded_wire"]


def a_packed_image_is_served_to_agents_as_it_lies(stage):
    """Compressed by the agent, its blocks would have other lengths."""
    image, packed = packed_image(stage)
    torrent = stage.path("torrent")
    run(AGENT, "make", packed, "-o", torrent)
    run(AGENT, "verify", torrent, image)
    run(AGENT, "verify", torrent, packed)
    wire, lie = deployed(stage, torrent, packed, "target"), sum(lengths_in(packed))
    check(same_bytes(image, stage.path("target")), "the target differs")
    check(wire == lie, f"{wire} bytes instead of {lie}")


def used_blocks_of_a_packed_image_are_served(stage):
    """As they lie, where the torrent is made of the packed image: it describes whole blocks. One
    made of the raw image begins its ranges, and so its pieces, inside of them."""
    image, packed = packed_image(stage)
    lengths, chosen, start = lengths_in(packed), random.Random(3), 0
    used, lines = set(), [f"# {image.name}", "0x0 ?"]
    while start < DEVICE_IMAGE:
        end = min(start + 4 * KIB * chosen.randrange(1, 40), DEVICE_IMAGE)
        status = "+-"[len(lines) % 2].replace("-", "?")
        lines.append(f"{start:#x} {end - start:#x} {status}")
        if status == "+":
            used.update(range(start // BLOCK, -(-end // BLOCK)))
        start = end
    # The end of the image is always described.
    used.add(len(lengths) - 1)
    stage.path("map").write_text("\n".join(lines) + "\n")
    lie, wires = sum(lengths[index] for index in used), {}
    for source in (packed, image):
        torrent, target = stage.path(f"{source.name}.torrent"), f"{source.name}.target"
        run(AGENT, "make", source, "--used-map", stage.path("map"), "-o", torrent)
        run(AGENT, "verify", torrent, packed)
        wires[source] = deployed(stage, torrent, packed, target)
        run(AGENT, "verify", torrent, stage.path(target))
        run(AGENT, "verify", torrent, image)
    check(wires[packed] == lie, f"{wires[packed]} bytes instead of {lie}")
    check(wires[image] != lie, "ranges of the raw image are whole blocks, too")


def serve_to(stage, name):
    """The torrent is of the raw image, and lies raw at the client."""
    image, packed = packed_image(stage)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, MIB, tracker)
    tracker.start(torrent)
    agent, _ = stage.seed(torrent, packed)
    wait_until("the tracker knows the seeder", 20, lambda: tracker.counts(torrent)[0] == 1)
    place = stage.directory_for("leech")
    client = CLIENTS[name](stage, torrent, place, stage.port(), seeds=False)
    target = place / torrent.name
    wait_until(f"{name} is complete: {client.tail()}", 60, lambda: (
        target.exists() and target.stat().st_size == DEVICE_IMAGE and same_bytes(image, target)))
    agent.end()
    agent.expect(0, 5)
    check(agent.last()[str(packed)]["uploaded"] >= DEVICE_IMAGE, "it came from somewhere else")


def a_packed_image_is_served_to_aria2(stage):
    serve_to(stage, "aria2")


def a_packed_image_is_served_to_libtorrent(stage):
    serve_to(stage, "libtorrent")


def a_damaged_block_is_named_and_the_rest_is_served(stage):
    """`make` names the block; `seed`, with a torrent of before, the piece."""
    image, packed = packed_image(stage)
    torrent = Torrent(stage.directory, image, MIB)
    place = random.Random(5).randrange(packed.stat().st_size // 2, packed.stat().st_size * 3 // 4)
    spoil(packed, place)
    made = subprocess.run([AGENT, "make", packed, "-o", stage.path("x")], capture_output=True,
                          text=True)
    found = re.search(r"packed image \S+: its block at byte (\d+) is damaged", made.stderr)
    check(made.returncode == 1 and found, made.stderr)
    check(int(found[1]) <= place < int(found[1]) + 16 * KIB + 8, f"{place} was changed: {found[0]}")
    seeder, port = stage.seed(torrent, packed)
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, "target")
    wait_until("the rest is there", 30, lambda: (
        agent.reports() and agent.reports()[-1]["have"] == torrent.pieces - 1))
    time.sleep(0.5)
    check(agent.reports()[-1]["have"] == torrent.pieces - 1, "got more")
    check(re.search(r"piece \d+ is not served: .*damaged", seeder.output()),
          f"it says:\n{seeder.tail()}")


CASES = [
    a_packed_image_is_served_to_agents_as_it_lies,
    used_blocks_of_a_packed_image_are_served,
    a_packed_image_is_served_to_aria2,
    a_packed_image_is_served_to_libtorrent,
    a_damaged_block_is_named_and_the_rest_is_served,
]
