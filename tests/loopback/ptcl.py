"""What does a partclone image hold, read and written without the agent and without partclone?"""

import hashlib
import struct
import zlib
from pathlib import Path

HEADER = struct.Struct("<16s14s4sH16sQQQQIIHHHHIBB")


class Image:
    """An image of version 0002 with a bitmap, as Debian's partclone writes it."""

    def __init__(self, path):
        self.bytes = Path(path).read_bytes()
        fields = HEADER.unpack_from(self.bytes)
        (self.file_system, self.device, self.total, _, self.stated, self.block) = fields[4:10]
        (self.mode, self.checksum, self.strip) = fields[13:16]
        self.file_system = self.file_system.rstrip(b"\0")
        start = HEADER.size + 4
        self.map = self.bytes[start:start + (self.total + 7) // 8]
        self.data = start + len(self.map) + 4
        self.used = [n for n in range(self.total) if self.map[n // 8] >> n % 8 & 1]

    def used_bytes(self):
        return len(self.used) * self.block

    def place(self, index):
        """Where the index-th used block lies in the image."""
        sums = index // self.strip * self.checksum if self.strip else 0
        return self.data + index * self.block + sums

    def blocks(self):
        for index in range(len(self.used)):
            place = self.place(index)
            yield self.bytes[place:place + self.block]

    def runs(self):
        """Offset in the partition and length of each run of used blocks."""
        runs = []
        for number in self.used:
            if runs and sum(runs[-1]) == number * self.block:
                runs[-1][1] += self.block
            else:
                runs.append([number * self.block, self.block])
        return [tuple(run) for run in runs]

    def hashes(self, piece):
        """The SHA-1 of each piece of the used blocks."""
        data = b"".join(self.blocks())
        return [hashlib.sha1(data[at:at + piece]).digest() for at in range(0, len(data), piece)]

    def as_old(self, path, checksum=4):
        """The same as an image of version 0001. Its checksums go on from block to block, and are
        of as many copies of the block's first byte as the block has bytes."""
        head = struct.pack("<15s15s4s2xiQQQ", b"partclone-image", self.file_system, b"0001",
                           self.block, self.device, self.total, len(self.used))
        used, state = set(self.used), 0
        with open(path, "wb") as file:
            file.write(head + bytes(4096))
            file.write(bytes(number in used for number in range(self.total)) + b"BiTmAgIc")
            for block in self.blocks():
                state = zlib.crc32(block[:1] * self.block, state)
                file.write(block + (state ^ 0xFFFFFFFF).to_bytes(checksum, "little"))
        return Path(path)


def write_sparse(path, *, blocks, block, map_bytes, data):
    """An image without checksums whose bitmap repeats `map_bytes`; all but the blocks of `data`
    (index among those used: bytes) is a hole. Returns the number of used blocks."""
    bitmap = (map_bytes * (blocks // 8 // len(map_bytes) + 1))[:blocks // 8]
    used = sum(byte.bit_count() for byte in bitmap)
    head = HEADER.pack(b"partclone-image", b"0.3.23", b"0002", 0xC0DE, b"EXTFS", blocks * block,
                       blocks, used, used, block, 18, 2, 64, 0, 0, 0, 0, 1)
    with open(path, "wb") as file:
        file.write(head + invert(head) + bitmap + invert(bitmap))
        start = file.tell()
        file.truncate(start + used * block)
        for index, content in data.items():
            file.seek(start + index * block)
            file.write(content)
    return used


def invert(data):
    """The CRC-32 of partclone: that of zlib, inverted."""
    return (zlib.crc32(data) ^ 0xFFFFFFFF).to_bytes(4, "little")
