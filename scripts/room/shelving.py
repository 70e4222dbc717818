"""What becomes of a Clonezilla image directory in a job?

Each of its partitions is an image of the job: a torrent, and a target such as disk:auto#1. Machines
make the partition table first, from the files of `Table` below www/table.
"""
from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from . import shelf_unpack
from .job import Image, Job, Mistake
from .shelf import Shelf, is_shelf, plan_text, read_shelf
from .shelf_cache import HOME, Cache, unpack_all
from .shelf_cache import Image as Unpacked
from .state import Refused

FAT_KINDS = ("vfat", "fat", "fat12", "fat16", "fat32", "dd")


@dataclasses.dataclass(frozen=True)
class Table:
    """What machines fetch before the torrents, and what a started disk is found by."""

    # The name of the plan: its SHA-256. It is on the kernel command line, as info-hashes are.
    plan: str
    files: dict[str, bytes]
    # As scripts/disk-starter takes them.
    fat_uuids: tuple[str, ...]


def find(job: Job) -> Shelf | None:
    """The image directory of this job. Raises Refused if it cannot be deployed."""
    shelves = [image for image in job.images if is_shelf(image.path)]
    if shelves and len(job.images) > 1:
        raise Mistake(f"{shelves[0].path} is a Clonezilla image of a whole disk; serve it alone")
    if shelves and job.pack:
        raise Mistake("--pack is for images, not for a Clonezilla image directory")
    if not shelves and (job.resize_table or job.cache or job.cache_size):
        raise Mistake("--resize-table, --cache and --cache-size are for a Clonezilla image "
                      "directory")
    if not shelves:
        return None
    shelf = read_shelf(shelves[0].path)
    # What it refuses is refused before an hour of unpacking.
    plan_text(shelf, job.resize_table)
    return shelf


def expand(job: Job, shelf: Shelf | None, unpacked: Sequence[Unpacked] = ()) -> Job:
    """With an image for each partition. Its path is what is packed, as long as it is."""
    if shelf is None:
        return job
    [whole] = job.images
    paths = [image.path for image in unpacked] or [packed.files[0] for _, packed in shelf.parts]
    images = tuple(Image(f"{whole.name}/{packed.part}", str(path), f"{whole.target}#{number}")
                   for (number, packed), path in zip(shelf.parts, paths))
    machines = tuple(dataclasses.replace(machine, images=()) for machine in job.machines)
    return dataclasses.replace(job, images=images, machines=machines)


def cache_of(job: Job) -> Cache:
    size = job.cache_size.upper()
    limit = int(size.rstrip("KMGT")) << " KMGT".index(size[-1]) * 10 if size[-1:] in "KMGT" and \
        size else int(size or 0)
    return Cache(Path(job.cache) if job.cache else HOME, limit)


def unpack(shelf: Shelf, cache: Cache, say: Callable[[str], None],
           progress: Callable[[str, float], None]) -> list[Unpacked]:
    unpacked = unpack_all(cache, [packed for _, packed in shelf.parts], say, progress)
    for (number, _), image in zip(shelf.parts, unpacked):
        check_size(shelf, number, image)
    return unpacked


def check_size(shelf: Shelf, number: int, image: Unpacked) -> None:
    """Is it an image of that partition? `dd` copies all of one, so a raw image that is shorter has
    lost its end: no decompressor says so if it is not compressed. A file system may be smaller."""
    entry = shelf.table.entry(number)
    assert entry, "read_shelf looked for it"
    room = entry.size * shelf.table.sector_bytes
    if image.is_partclone:
        found = header_of(image).disk_bytes()
    else:
        found = image.path.stat().st_size
    if found > room or (found < room and not image.is_partclone):
        raise Refused(f"{image.packed.files[-1]}: the image of {image.packed.part} is one of "
                      f"{found} bytes, and the partition has {room} in {shelf.disk}-pt.sf")


def header_of(image: Unpacked) -> shelf_unpack.Header:
    with open(image.path, "rb") as file:
        return shelf_unpack.parse_header(file.read(shelf_unpack.HEADER_BYTES), image.packed)


def table_of(shelf: Shelf, resize: bool, unpacked: Sequence[Unpacked]) -> Table:
    plan = plan_text(shelf, resize).encode()
    name = hashlib.sha256(plan).hexdigest()
    files = {name: plan, "boot-code": shelf.boot_code, "hidden": shelf.hidden}
    uuids = [fat_uuid(image) for image in unpacked if image.packed.kind in FAT_KINDS]
    return Table(name, {name: content for name, content in files.items() if content},
                 tuple(f"UUID={uuid}" for uuid in uuids if uuid) or ("UUID=",))


def fat_uuid(image: Unpacked) -> str:
    """Of a FAT file system, as blkid and GRUB write it; "" if it is none."""
    with open(image.path, "rb") as file:
        if image.is_partclone:
            # Its first block is in use.
            file.seek(header_of(image).length(0))
        sector = file.read(512)
    if sector[510:] != b"\x55\xaa":
        return ""
    if sector[82:87] == b"FAT32":
        low, high = struct.unpack_from("<HH", sector, 67)
    elif sector[54:57] == b"FAT":
        low, high = struct.unpack_from("<HH", sector, 39)
    else:
        return ""
    return f"{high:04X}-{low:04X}"
