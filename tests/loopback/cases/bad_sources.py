"""What does a seeder do with a source that is not what its torrent says?"""

import os
import re
import time

from fixtures import same_bytes, spoiled_copy
from harness import KIB, MIB, can_connect, check, random_file, wait_until
from torrent import Torrent


def a_seeder_does_not_serve_wrong_pieces(stage):
    """Three pieces are not what the torrent says, and two cannot be read any more. The seeder
    serves the others and says so, and no peer is banned for it. A complete seeder comes later."""
    image = stage.image("image", 16 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    wrong, lost = [3, 17, 40], [torrent.pieces - 2, torrent.pieces - 1]
    source = spoiled_copy(stage, "source", image, torrent, wrong)
    seeder, port = stage.seed(torrent, source)
    os.truncate(source, lost[0] * torrent.piece)
    ports = [stage.port(), stage.port()]
    agents = [
        stage.agent("get", "--listen", f"127.0.0.1:{own}", "--peer", f"127.0.0.1:{port}",
                    "--seed-secs", 1, torrent.path, f"target-{own}")
        for own in ports
    ]
    most = torrent.pieces - len(wrong) - len(lost)

    def has_the_rest(agent):
        return agent.reports() and agent.reports()[-1]["have"] == most

    for agent in agents:
        wait_until("the rest is there", 20, lambda agent=agent: has_the_rest(agent))
    time.sleep(1)
    for agent in agents:
        check(has_the_rest(agent) and agent.state() == "downloading",
              f"got more: {agent.reports()[-1]}")
    peers = [word for own in ports for word in ("--peer", f"127.0.0.1:{own}")]
    stage.seed(torrent, image, *peers, host="127.0.0.2")
    for agent, own in zip(agents, ports):
        agent.expect(0, 20)
        check(same_bytes(image, stage.path(f"target-{own}")), "the target differs")
        check(not re.search("bad|banned", agent.output()), f"a peer is blamed:\n{agent.tail()}")
    seeder.end()
    messages = [
        f"piece {piece} at byte {piece * torrent.piece} of the source is not what the torrent "
        "says, it is not served" for piece in wrong
    ] + [
        f"piece {piece} is not served: cannot read {source} at byte {piece * torrent.piece}"
        for piece in lost
    ]
    for message in messages:
        check(seeder.output().count(message) == 1,
              f"it does not say '{message}' once:\n{seeder.tail()}")


def a_seeder_without_a_good_piece_fails(stage):
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    seeder, port = stage.seed(torrent, random_file(stage.path("source"), 8 * MIB))
    agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, "target")
    seeder.expect(1, 20)
    check("no piece of the source is what the torrent says" in seeder.output(),
          f"it says:\n{seeder.tail()}")
    last = agent.reports()[-1]
    check(agent.state() == "downloading" and last["have"] == 0, f"it got {last}")
    check("bad" not in agent.output(), f"bad pieces were served:\n{agent.tail()}")


def seed_check_refuses_a_wrong_source(stage):
    image = stage.image("image", 16 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    for pieces in ([5, 60], [torrent.pieces - 1]):
        source = spoiled_copy(stage, "source", image, torrent, pieces)
        port = stage.port()
        seeder = stage.agent("seed", "--check", "--listen", f"127.0.0.1:{port}",
                             torrent.path, source)
        seeder.expect(1, 20)
        message = (f"{len(pieces)} of {torrent.pieces} pieces bad, "
                   f"the first at byte {pieces[0] * torrent.piece}")
        check(message in seeder.output(), f"it does not say '{message}':\n{seeder.tail()}")
        check(not can_connect(port), "it listens")
    # The twin that must not be refused.
    _, port = stage.seed(torrent, image, "--check")
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target").expect(0, 20)
    check(same_bytes(image, stage.path("target")), "the target differs")


CASES = [
    a_seeder_does_not_serve_wrong_pieces,
    a_seeder_without_a_good_piece_fails,
    seed_check_refuses_a_wrong_source,
]
