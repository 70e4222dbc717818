"""How is a torrent file made for a case?

Not by `swarmdd make`, so that one mistake cannot hide in both the maker and the reader.
"""

import hashlib
from pathlib import Path


class Torrent:
    """A torrent file over an image: one file at offset 0, or FSBT slices of (offset, length)."""

    def __init__(self, directory, image, piece, tracker=None, slices=None, name=None,
                 private=False):
        self.image, self.piece, self.slices = Path(image), piece, slices
        self.name = name or self.image.name
        info = {"name": self.name, "piece length": piece, "pieces": b"".join(self._hashes())}
        if private:
            info["private"] = 1
        if slices is None:
            info["length"] = self.image.stat().st_size
        else:
            info["files"] = [
                {"length": length, "path": [f"{offset:032x}"]} for offset, length in slices
            ]
        torrent = {"info": info}
        if tracker:
            torrent["announce"] = tracker.url
        self.info_hash = hashlib.sha1(bencode(info)).hexdigest()
        self.pieces = len(info["pieces"]) // 20
        self.bytes = bencode(torrent)
        suffix = f"-{tracker.port}" if tracker else ""
        self.path = Path(directory) / f"{self.name}-{self.info_hash[:6]}{suffix}.torrent"
        self.path.write_bytes(self.bytes)

    def _hashes(self):
        slices = self.slices or [(0, self.image.stat().st_size)]
        held = b""
        with open(self.image, "rb") as file:
            for offset, length in slices:
                file.seek(offset)
                while length:
                    part = file.read(min(length, self.piece - len(held)))
                    length -= len(part)
                    held += part
                    if len(held) == self.piece:
                        yield hashlib.sha1(held).digest()
                        held = b""
        if held:
            yield hashlib.sha1(held).digest()


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, str):
        return bencode(value.encode())
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
