"""How is the image of one partition unpacked? Its parts go through the distribution's decompressor.

A partclone image stays one: only used blocks are in it. Its header and its bitmap say how long it
must be. A raw partition (dd) becomes a file with holes. (The two versions of partclone images:
IMAGE_FORMATS.md of partclone, and src/proto/format/partclone.rs.)
"""
from __future__ import annotations

import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .shelf import Packed, open_inside
from .state import Refused

# For each compression: commands, the first one that is there is taken, and the package to install.
DECOMPRESSORS: dict[str, tuple[tuple[str, ...], str]] = {
    "gz": (("pigz -dc", "gzip -dc"), "pigz"),
    "bz2": (("lbzip2 -dc", "bzip2 -dc"), "bzip2"),
    "lzo": (("lzop -dc",), "lzop"),
    "lzma": (("xz -dc --format=lzma",), "xz-utils"),
    "xz": (("xz -dc -T0",), "xz-utils"),
    "lzip": (("plzip -dc", "lzip -dc"), "lzip"),
    "lrz": (("lrzip -q -d -o -",), "lrzip"),
    "lz4": (("lz4 -dc",), "lz4"),
    # zstd refuses frames with a window of more than 128 MiB (--long=31 or --ultra) without this.
    "zst": (("zstd -dcq --long=31",), "zstd"),
    "uncomp": (("cat",), "coreutils"),
}
# The first bytes of each, for old names that do not say it.
MAGICS = ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\x89LZO", "lzo"), (b"\xfd7zXZ", "xz"),
          (b"LZIP", "lzip"), (b"LRZI", "lrz"), (b"\x04\x22\x4d\x18", "lz4"),
          (b"\x28\xb5\x2f\xfd", "zst"), (b"\x5d\x00\x00", "lzma"))

PARTCLONE = b"partclone-image"
HEADER_BYTES = 110
# The header of version 0001, up to its byte map.
HEADER_1_BYTES = 4160
# partclone's own limits.
BLOCK_BYTES_MAX = 64 << 20
BLOCKS_MAX = 1 << 43
# A pipe holds 64 KiB; more in one call than that saves nothing, but system calls.
COPY_BYTES = 1 << 20
# How often `progress` is told that nothing comes.
SILENT_SECS = 0.2
# What becomes a hole in a raw partition: blocks of a file system are at most 64 KiB.
HOLE_BYTES = 64 << 10
ZEROS = bytes(HOLE_BYTES)
# How often the room for a raw partition is looked at: nobody knows how much of it is zeros.
LOOK_BYTES = 64 << 20


@dataclass(frozen=True)
class Header:
    """What the beginning of a partclone image says."""

    version: int
    # Of the partition that was saved, or of its file system.
    device_bytes: int
    block_bytes: int
    total_blocks: int
    # As the header says; the bitmap decides.
    used_blocks: int
    # Checksums: their size, and after how many blocks one comes; 0: none.
    sum_bytes: int
    blocks_per_sum: int
    # 0x01: a bit for each block; 0x08: a byte; 0: none, all blocks are there.
    map_mode: int

    def disk_bytes(self) -> int:
        """What the partition must have at least."""
        return max(self.device_bytes, self.total_blocks * self.block_bytes)

    def map_bytes(self) -> int:
        """With what ends it: a checksum, or the magic word of version 0001."""
        return {0x01: (self.total_blocks + 7) // 8 + 4, 0x08: self.total_blocks + 8}.get(
            self.map_mode, 0)

    def length(self, used_blocks: int) -> int:
        """Of the whole image."""
        sums = -(-used_blocks // self.blocks_per_sum) if self.blocks_per_sum else 0
        return ((HEADER_1_BYTES if self.version == 1 else HEADER_BYTES) + self.map_bytes()
                + used_blocks * self.block_bytes + sums * self.sum_bytes)


@dataclass
class Unpacking:
    """A decompressor at work."""

    packed: Packed
    command: list[str]
    process: subprocess.Popen[bytes]
    # What it says of its errors.
    words: IO[bytes]
    # Compressed bytes that it has taken, and the file that it reads.
    taken: int = 0
    file: Path = Path()
    trouble: str = ""
    feeder: threading.Thread = field(default_factory=threading.Thread)

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout
        return self.process.stdout


# --- the decompressor ----------------------------------------------------------------------


def decompressor(packed: Packed) -> list[str]:
    compression = packed.compression or guess(packed.files[0])
    commands, package = DECOMPRESSORS[compression]
    for command in commands:
        if shutil.which(command.split()[0]):
            return command.split()
    raise Refused(f"{packed.files[0]}: {commands[-1].split()[0]} is missing; install the package "
                  f"{package}")


def guess(file: Path) -> str:
    with open(open_inside(file), "rb") as opened:
        begin = opened.read(8)
    return next((name for magic, name in MAGICS if begin.startswith(magic)), "uncomp")


def start(packed: Packed) -> Unpacking:
    command = decompressor(packed)
    words = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
    # In a session of its own, so that Ctrl-C is ours alone.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=words, start_new_session=True, bufsize=0)
    unpacking = Unpacking(packed, command, process, words, file=packed.files[0])
    unpacking.feeder = threading.Thread(target=feed, args=(unpacking,), daemon=True)
    unpacking.feeder.start()
    return unpacking


def feed(unpacking: Unpacking) -> None:
    """In a thread: the parts, one behind the other. It ends when the decompressor does."""
    assert unpacking.process.stdin
    pipe = unpacking.process.stdin.fileno()
    try:
        for file in unpacking.packed.files:
            unpacking.file = file
            with open(open_inside(file), "rb") as opened:
                while count := os.sendfile(pipe, opened.fileno(), None, COPY_BYTES):
                    unpacking.taken += count
    except BrokenPipeError:
        pass  # the decompressor has ended, and says why
    except Refused as refusal:
        unpacking.trouble = str(refusal)
    except OSError as error:
        unpacking.trouble = f"cannot read {unpacking.file}: {error.strerror}"
    finally:
        unpacking.process.stdin.close()


def end(unpacking: Unpacking) -> None:
    """However far it is."""
    unpacking.output.close()
    if unpacking.process.poll() is None:
        # With its children, if it is a script: they would hold the pipes.
        os.killpg(unpacking.process.pid, signal.SIGKILL)
    unpacking.process.wait()
    unpacking.feeder.join()
    unpacking.words.close()


def check_end(unpacking: Unpacking) -> None:
    """After its last byte: was it the end of what it had to unpack?"""
    status = unpacking.process.wait()
    unpacking.feeder.join()
    if unpacking.trouble:
        raise Refused(unpacking.trouble)
    if status:
        unpacking.words.seek(0)
        lines = unpacking.words.read(4096).decode(errors="replace").split("\n")
        said = next((line.strip() for line in lines if line.strip()), f"status {status}")
        # A checksum comes after what it is about.
        before = "" if unpacking.file == unpacking.packed.files[0] else " or a part before it"
        raise Refused(f"{unpacking.file}{before} is damaged: {unpacking.command[0]}: {said}")


def receive(unpacking: Unpacking, count: int, progress: Callable[[int], None]) -> bytes:
    """So many bytes, or fewer at the end. `progress` is told also while none come: a slow disk may
    give none for minutes, and whoever waits may want to end."""
    pipe, chunk = unpacking.output.fileno(), bytearray()
    while len(chunk) < count:
        if not select.select([pipe], [], [], SILENT_SECS)[0]:
            progress(unpacking.taken)
        elif some := os.read(pipe, count - len(chunk)):
            chunk += some
        else:
            break
    return bytes(chunk)


def peek(packed: Packed, progress: Callable[[int], None]) -> Header | None:
    """What the beginning says; None if it is no partclone image. Costs a moment."""
    unpacking = start(packed)
    try:
        begin = receive(unpacking, HEADER_BYTES, progress)
        if not begin:
            check_end(unpacking)
        return parse_header(begin, packed) if begin.startswith(PARTCLONE) else None
    finally:
        end(unpacking)


# --- the whole image ---------------------------------------------------------------------------


def unpack(packed: Packed, target: Path, make_room: Callable[[int], None],
           progress: Callable[[int], None]) -> bool:
    """Writes the file `target`. Is it a partclone image, or raw?

    `make_room(bytes)` is asked before that much of `target` is written, and `progress(bytes)` told
    how much was read; both may raise."""
    unpacking = start(packed)
    try:
        with open(target, "wb") as file:
            begin = receive(unpacking, HEADER_BYTES, progress)
            is_partclone = begin.startswith(PARTCLONE)
            if is_partclone:
                copy_partclone(unpacking, begin, file, make_room, progress)
            else:
                copy_raw(unpacking, begin, file, make_room, progress)
            check_end(unpacking)
            if not file.tell():
                raise Refused(f"{packed.files[0]}: nothing is in it")
            file.flush()
            os.fsync(file.fileno())
        return is_partclone
    finally:
        end(unpacking)


def copy_partclone(unpacking: Unpacking, begin: bytes, file: IO[bytes],
                   make_room: Callable[[int], None], progress: Callable[[int], None]) -> None:
    name = unpacking.packed.files[0]
    header = parse_header(begin, unpacking.packed)
    file.write(begin)
    if header.version == 1:
        copy_exactly(unpacking, file, HEADER_1_BYTES - HEADER_BYTES, progress)
    used = copy_map(unpacking, header, file, progress)
    length = header.length(used)
    make_room(length)
    copy_exactly(unpacking, file, length - file.tell(), progress)
    if receive(unpacking, 1, progress):
        raise Refused(f"{name}: more than the {length} bytes that its header and bitmap say")


def copy_map(unpacking: Unpacking, header: Header, file: IO[bytes],
             progress: Callable[[int], None]) -> int:
    """Returns how many blocks are used. The CRC is that of zlib, not inverted."""
    name = unpacking.packed.files[0]
    if not header.map_mode:
        return header.total_blocks
    left, used, crc = header.map_bytes() - (4 if header.map_mode == 1 else 8), 0, 0
    is_bits, blocks = header.map_mode == 1, 0
    while left:
        chunk = read_some(unpacking, min(left, COPY_BYTES), progress)
        file.write(chunk)
        left -= len(chunk)
        crc = zlib.crc32(chunk, crc)
        if not is_bits:
            used += chunk.count(1)
            continue
        blocks += 8 * len(chunk)
        number = int.from_bytes(chunk, "little")
        if blocks > header.total_blocks:
            # dd sets the spare bits behind the last block.
            number &= (1 << (8 * len(chunk) - (blocks - header.total_blocks))) - 1
        used += number.bit_count()
    tail = bytearray()
    while len(tail) < (4 if is_bits else 8):
        tail += read_some(unpacking, (4 if is_bits else 8) - len(tail), progress)
    file.write(tail)
    if is_bits and struct.unpack("<I", tail)[0] != crc ^ 0xFFFFFFFF:
        raise Refused(f"{name} is damaged: the checksum of its bitmap is wrong")
    if not is_bits and tail != b"BiTmAgIc":
        raise Refused(f"{name} is damaged: there is no BiTmAgIc behind its byte map")
    return used


def copy_exactly(unpacking: Unpacking, file: IO[bytes], count: int,
                 progress: Callable[[int], None]) -> None:
    end_at = file.tell() + count
    while count:
        chunk = receive(unpacking, min(count, COPY_BYTES), progress)
        if not chunk:
            check_end(unpacking)
            raise Refused(f"{unpacking.packed.files[-1]}: the image ends at byte {end_at - count} "
                          f"of {end_at}")
        file.write(chunk)
        count -= len(chunk)
        progress(unpacking.taken)


def read_some(unpacking: Unpacking, count: int, progress: Callable[[int], None]) -> bytes:
    chunk = receive(unpacking, count, progress)
    if not chunk:
        check_end(unpacking)
        raise Refused(f"{unpacking.packed.files[-1]}: the image ends within its bitmap")
    progress(unpacking.taken)
    return chunk


def copy_raw(unpacking: Unpacking, begin: bytes, file: IO[bytes],
             make_room: Callable[[int], None], progress: Callable[[int], None]) -> None:
    """Zeros become holes."""
    chunk, written, room = begin, 0, 0
    # So that later chunks begin at multiples of HOLE_BYTES.
    chunk += receive(unpacking, COPY_BYTES - len(begin), progress)
    while chunk:
        for offset in range(0, len(chunk), HOLE_BYTES):
            block = chunk[offset:offset + HOLE_BYTES]
            if block == ZEROS[:len(block)]:
                file.seek(len(block), os.SEEK_CUR)
                continue
            written += len(block)
            if written > room:
                room += LOOK_BYTES
                make_room(room)
            file.write(block)
        progress(unpacking.taken)
        chunk = receive(unpacking, COPY_BYTES, progress)
    file.truncate()


# --- the header -------------------------------------------------------------------------------


def parse_header(begin: bytes, packed: Packed) -> Header:
    """The first HEADER_BYTES, or less of a damaged file."""
    name = packed.files[0]
    if len(begin) < HEADER_BYTES:
        raise Refused(f"{name}: the image ends within its header")
    version = begin[30:34]
    if version == b"0002":
        header = parse_header_2(begin, name)
    elif version == b"0001":
        block_bytes, device, total, used = struct.unpack_from("<iqqq", begin, 36)
        header = Header(1, device, block_bytes, total, used, 4, 1, 0x08)
    else:
        raise Refused(f"{name}: a partclone image of version {version!a}; 0001 and 0002 are known")
    if not 0 < header.block_bytes <= BLOCK_BYTES_MAX or not 0 < header.total_blocks <= BLOCKS_MAX:
        raise Refused(f"{name}: its header says {header.total_blocks} blocks of "
                      f"{header.block_bytes} bytes, which cannot be")
    return header


def parse_header_2(begin: bytes, name: Path) -> Header:
    if struct.unpack_from("<I", begin, 106)[0] != zlib.crc32(begin[:106]) ^ 0xFFFFFFFF:
        raise Refused(f"{name} is damaged: the checksum of its header is wrong")
    if begin[34:36] != b"\xde\xc0":
        raise Refused(f"{name} was made on a big-endian machine; partclone does not read it here")
    device, total, _, used, block_bytes = struct.unpack_from("<QQQQI", begin, 52)
    mode, size, per_sum, _, map_mode = struct.unpack_from("<HHIBB", begin, 96)
    if map_mode not in (0, 0x01, 0x08) or size > 64 or (mode and not per_sum):
        raise Refused(f"{name}: checksums of {size} bytes after {per_sum} blocks, and a bitmap of "
                      f"kind {map_mode}, are not known")
    return Header(2, device, block_bytes, total, used, size if mode else 0, per_sum if mode else 0,
                  map_mode)
