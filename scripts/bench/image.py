"""What is copied? The image and its torrent."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

from .common import MIB, Command, say

TRACKER_PORT = 6969


def make_image(directory: Path, size_mib: int) -> Path:
    """Random bytes, always the same for one size: nothing can compress, skip or deduplicate them.
    The image is kept for the next time."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"image-{size_mib}.img"
    if path.exists() and path.stat().st_size == size_mib * MIB:
        return path
    say(f"making {path}")
    source = random.Random(size_mib)
    unfinished = path.with_suffix(".new")
    with open(unfinished, "wb") as image:
        for _ in range(size_mib):
            image.write(source.randbytes(MIB))
        image.flush()
        os.fsync(image.fileno())
    return unfinished.rename(path)


def read_into_page_cache(image: Path) -> None:
    with open(image, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def hash_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def same_bytes(image: Path, target: Path | str) -> bool:
    compared = subprocess.run(["cmp", "--", image, target], capture_output=True, check=False)
    return compared.returncode == 0


def make_torrent(
    binary: Path, image: Path, path: Path, tracker_address: str | None = None,
    piece_kib: int | None = None,
) -> bytes:
    """Returns the info-hash."""
    options: Command = []
    if tracker_address:
        options += ["--tracker", f"http://{tracker_address}:{TRACKER_PORT}/announce"]
    if piece_kib:
        options += ["--piece-size", f"{piece_kib}K"]
    command: Command = [binary, "make", "--single", *options, image, "-o", path]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    raw = path.read_bytes()
    start = raw.index(b"4:info") + len("4:info")
    return hashlib.sha1(raw[start:bencode_end(raw, start)]).digest()


def bencode_end(raw: bytes, at: int) -> int:
    """Where the bencoded value that begins at `at` ends (BEP 3)."""
    if raw[at:at + 1] in (b"d", b"l"):
        at += 1
        while raw[at:at + 1] != b"e":
            at = bencode_end(raw, at)
        return at + 1
    if raw[at:at + 1] == b"i":
        return raw.index(b"e", at) + 1
    colon = raw.index(b":", at)
    return colon + 1 + int(raw[at:colon])
