"""Does each byte lie where it belongs, and is every other byte unchanged?"""

from pathlib import Path

from fixtures import FILE_IMAGE, same_bytes
from harness import KIB, MIB, check, random_file
from torrent import Torrent


def a_regular_file_gets_the_length_of_the_image(stage):
    """Whether it was longer or shorter before; a second run over the result of the first is right,
    too."""
    image = stage.image("image", FILE_IMAGE)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, port = stage.seed(torrent, image)
    for before in [0, 1000, FILE_IMAGE + 5000]:
        target = random_file(stage.path(f"target-{before}"), before)
        for _ in range(2):
            agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, target)
            agent.expect(0, 30)
            check(same_bytes(image, target), f"the target of {before} bytes differs")


def bytes_behind_the_image_in_the_last_sector_stay(stage):
    image = stage.image("image", FILE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    _, port = stage.seed(torrent, image)
    device = stage.loop("disk", FILE_IMAGE // 512 * 512 + 4 * 512)
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device).expect(0, 30)
    check(same_bytes(image, device, FILE_IMAGE), "the disk differs")
    tail = Path(device).read_bytes()[FILE_IMAGE:]
    check(len(tail) > 512 and set(tail) == {0xA5}, "bytes behind the image have changed")


def fsbt_slices_lie_at_their_offsets(stage):
    """Slices at odd sectors and out of order; the bytes between them stay. A second run finds the
    slices there and fetches nothing."""
    disk = stage.image("source", 40 * MIB)
    slices = [
        (3 * MIB + 512, 5 * MIB + 1536), (20 * MIB, 512), (0, 512), (30 * MIB, 7 * MIB + 512),
        (MIB, 4096),
    ]
    torrent = Torrent(stage.directory, disk, 256 * KIB, slices=slices, name="sda1")
    _, port = stage.seed(torrent, disk)
    device = stage.loop("disk", 40 * MIB)
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device).expect(0, 30)
    expected = bytearray(b"\xA5" * (40 * MIB))
    source = disk.read_bytes()
    for offset, length in slices:
        expected[offset:offset + length] = source[offset:offset + length]
    check(Path(device).read_bytes() == expected, "the disk is not its old bytes plus the slices")
    again = stage.get("--no-seed", torrent.path, device)
    again.expect(0, 10)
    check(again.result(device)["fetched"] == 0, f"the result is {again.result(device)}")


CASES = [
    a_regular_file_gets_the_length_of_the_image,
    bytes_behind_the_image_in_the_last_sector_stay,
    fsbt_slices_lie_at_their_offsets,
]
