"""Do blocks go compressed between agents that understand it, and as they are to all others?"""

from fixtures import same_bytes
from harness import MIB, aria2, check, libtorrent, wait_until
from torrent import Torrent

LENGTH = 24 * MIB + 777


def a_mixed_swarm_has_the_image(stage):
    """Agents that compress and one that never does, aria2 and libtorrent: each is both fetched from
    and sent to."""
    image = half_random_image(stage)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, MIB, tracker)
    tracker.start(torrent)
    stage.seed(torrent, image, "--compress", "always", "--max-up", "8M")
    modes = ("always", "always", "never")
    targets = [f"target-{number}" for number in range(len(modes))]
    agents = [stage.get("--compress", mode, "--seed-secs", 5, torrent.path, target)
              for mode, target in zip(modes, targets)]
    places = [stage.directory_for(name) for name in ("aria2", "libtorrent")]
    for client, place in zip((aria2, libtorrent), places):
        client(stage, torrent, place, stage.port(), seeds=False)
    for agent, target, mode in zip(agents, targets, modes):
        agent.expect(0, 120)
        check(same_bytes(image, stage.path(target)), f"{target} differs")
        check_wire(agent.last()[target], mode)
    for place in places:
        wait_until(f"{place.name} is complete", 60,
                   lambda place=place: same_bytes(image, place / image.name))


def check_wire(said, mode):
    came, wire = said["fetched"], said["fetched_wire"]
    check(came >= LENGTH, f"{came} bytes came for {LENGTH}")
    if mode == "never":
        check(wire == came, f"{wire} of {came} bytes came, although none are to be compressed")
        check(said["uploaded_wire"] == said["uploaded"], "blocks were sent compressed")
    else:
        check(wire < came, f"all {came} bytes came as they are")


def compressed_bytes_count_for_the_limits(stage):
    """A pair that compresses moves an image that shrinks to half within a limit that would take
    twice as long, and says so."""
    image = half_random_image(stage)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image, "--compress", "always", "--max-up", "2M")
    agent = stage.get("--compress", "always", "--no-seed", "--peer", f"127.0.0.1:{port}",
                      torrent.path, "target")
    agent.expect(0, 60)
    check(same_bytes(image, stage.path("target")), "the target differs")
    result = agent.result("target")
    wire = result["fetched_wire"]
    check(result["fetched"] == LENGTH, f"{result['fetched']} bytes came for {LENGTH}")
    check(LENGTH * 0.48 < wire < LENGTH * 0.56, f"{wire} bytes went over the wire")
    seconds = result["seconds"]
    check(wire / 2 / MIB * 0.9 < seconds < LENGTH / 2 / MIB * 0.85, f"it took {seconds} s")


def what_does_not_shrink_goes_as_it_is(stage):
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image, "--compress", "always")
    agent = stage.get("--compress", "always", "--no-seed", "--peer", f"127.0.0.1:{port}",
                      torrent.path, "target")
    agent.expect(0, 60)
    check(same_bytes(image, stage.path("target")), "the target differs")
    result = agent.result("target")
    check(result["fetched_wire"] == 8 * MIB, f"{result['fetched_wire']} bytes went over the wire")


def half_random_image(stage):
    """Of each 64 KiB, half is random and half is one byte, in runs of 2 KiB."""
    image = stage.image("image", LENGTH)
    with open(image, "r+b") as file:
        for start in range(0, LENGTH - 2048, 4096):
            file.seek(start)
            file.write(bytes([start >> 12 & 0xff or 1]) * 2048)
    return image


CASES = [
    a_mixed_swarm_has_the_image,
    compressed_bytes_count_for_the_limits,
    what_does_not_shrink_goes_as_it_is,
]
