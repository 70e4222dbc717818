"""What is copied? The image and its torrent."""

import hashlib
import os
import random
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from .common import MIB, Command, Failure, say

TOP = Path(__file__).resolve().parents[2]
TRACKER_PORT = 6969


# Where a Debian system has its files, and how many of 100 bytes come from there.
SYSTEM = {"bin": 20, "lib": 50, "share": 30}
# Of the image. The rest is for what the file system itself needs, and is cut off if it is free.
FILLED_PERCENT = 75


def choose_image(directory: Path, wanted: str | None, size_mib: int) -> Path:
    """Random data; or `files`, a file system with the files of this host's system; or a file."""
    if wanted is None:
        return make_image(directory, size_mib)
    if wanted == "files":
        return make_files_image(directory, size_mib)
    image = Path(wanted).resolve()
    if not image.is_file():
        raise Failure(f"--image {wanted} is no file")
    return image


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


def make_files_image(directory: Path, size_mib: int) -> Path:
    """An ext4 file system with installed packages, of nearly this size and without free blocks:
    a block of zeros would cost neither the agent nor lz4 anything. It is kept for the next time,
    and is another one on a host with other packages."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"files-{size_mib}.img"
    if path.exists():
        return path
    say(f"making {path}")
    stage, unfinished = path.with_suffix(".tree"), path.with_suffix(".new")
    shutil.rmtree(stage, ignore_errors=True)
    unfinished.unlink(missing_ok=True)
    for name, percent in SYSTEM.items():
        limit_bytes = size_mib * MIB * FILLED_PERCENT // 100 * percent // 100
        copy_tree(Path("/usr") / name, stage / "usr" / name, limit_bytes)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", stage, unfinished,
                    f"{size_mib}M"],
                   check=True, stdout=subprocess.DEVNULL)
    shrunk = subprocess.run(["resize2fs", "-M", unfinished], check=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    # "The filesystem on IMAGE is now 51234 (4k) blocks long.", or "... is already ...".
    blocks = re.findall(rb" (\d+) \(4k\) blocks long", shrunk.stdout)[-1]
    os.truncate(unfinished, int(blocks) * 4096)
    shutil.rmtree(stage)
    return unfinished.rename(path)


def copy_tree(source: Path, target: Path, limit_bytes: int) -> None:
    """The files of a tree in the order of their names, as many as fit."""
    left = limit_bytes
    for directory, directories, names in os.walk(source):
        directories.sort()
        for name in sorted(names):
            file = Path(directory) / name
            # Each takes whole blocks.
            size = -(-file.lstat().st_size // 4096) * 4096
            if file.is_symlink() or not file.is_file() or size > left:
                continue
            copy = target / file.relative_to(source)
            left -= size if copy.parent.exists() else size + 4096
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def pack_image(image: Path, path: Path) -> None:
    """The same bytes as `scripts/pack` packs them."""
    path.unlink(missing_ok=True)
    subprocess.run([TOP / "scripts/pack", image, "-o", path], check=True)


def lz4_share(image: Path) -> float:
    """What `lz4 -1` makes of the image, over its size."""
    packed = subprocess.run(
        f"lz4 -1 -c {shlex.quote(str(image))} | wc -c", shell=True, check=True,
        capture_output=True, text=True)
    return int(packed.stdout) / image.stat().st_size


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
