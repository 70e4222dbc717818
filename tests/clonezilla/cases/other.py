"""Do we exchange data with EZIO's library, set as EZIO sets it?

EZIO itself is in no Debian.
"""

from pathlib import Path

from cases.debian import SIZES_MIB, clone, restored
from cases.today import make_torrent, start_tracker
from fixtures import spoil
from harness import check
from machines import Machine, check_ext4, disk, file_systems, same_partition

PEER = Path(__file__).resolve().parents[1] / "ezio_peer.py"


def a_peer_like_ezio_serves_slices_to_our_ezio(stage):
    source, target = (disk(stage, name, SIZES_MIB[:1])[0] for name in ("source", "target"))
    file_systems(stage, [source])
    server = Machine(stage, "server", 1, {"sda1": source})
    machine = Machine(stage, "machine", 2, {"sda1": target})
    torrent = make_torrent(server, "sda1", "ext4", "img")
    start_tracker(server, [torrent])
    peer = server.start("peer", "/usr/bin/python3", "-B", PEER, torrent, server.images)
    machine.run("ezio", "-t", "0", "-T", torrent, "-L", "/dev/sda1")
    peer.expect_running()
    expected = restored(stage, clone(stage, [source]))[0]
    check(same_partition(expected, target), "it differs from what partclone restores")
    # Twin: the comparison sees one byte.
    spoil(target, 1 << 20)
    check(not same_partition(expected, target), "the comparison sees nothing")
    spoil(target, 1 << 20)
    check_ext4(stage, target)


CASES = [a_peer_like_ezio_serves_slices_to_our_ezio]
