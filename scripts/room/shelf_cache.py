"""Where do unpacked images lie, and which of them have to go?

    CACHE/lock                who unpacks or evicts holds it
    CACHE/KEY/sda1.partclone  an image; or sda1.raw. Whoever uses it holds a lock on its folder
    CACHE/KEY.new/            being unpacked; what a killed process has left is removed

The key is made of the names, sizes and times of the files in the image directory, so an image that
was saved again is unpacked again. The image that was used least recently is evicted first. The time
of its last use is that of its folder. Nothing with another name is ever removed.
"""
from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import shelf_unpack
from .shelf import Packed
from .state import Refused

HOME = Path("/var/cache/swarmdd")
KEY = re.compile("[0-9a-f]{32}")
# What a file system needs for itself, and others on it.
SPARE_BYTES = 64 << 20

LOCK_WAIT_SECS = 0.2


@dataclass
class Cache:
    """Open from the first image that is needed until none is needed any more."""

    folder: Path
    # 0: as much as the disk holds.
    limit_bytes: int = 0
    # Descriptors of the folders that are in use: their locks.
    held: list[int] = field(default_factory=list)

    def close(self) -> None:
        while self.held:
            os.close(self.held.pop())


@dataclass(frozen=True)
class Image:
    """An unpacked image, and what it was."""

    packed: Packed
    path: Path
    is_partclone: bool


def unpack_all(cache: Cache, wanted: Sequence[Packed], say: Callable[[str], None],
               progress: Callable[[str, float], None]) -> list[Image]:
    """`progress(part, percent)` is called all the time, also while nothing happens. It may raise,
    and then nothing unfinished is left. All images stay until the cache is closed, at least."""
    with locked(cache, say, lambda: progress(wanted[0].part, 0)):
        keys = [key_of(packed) for packed in wanted]
        missing = [packed for packed, key in zip(wanted, keys) if find(cache, key) is None]
        for key in keys:
            if find(cache, key):
                hold(cache, key)
        refuse_too_large(cache, missing, progress)
        images = []
        for packed, key in zip(wanted, keys):
            if find(cache, key) is None:
                say(f"unpacking {packed.files[0].parent.resolve().name}/{packed.part}")
                unpack_one(cache, packed, key, progress)
                hold(cache, key)
            path = find(cache, key)
            assert path, "it was found, or was made just now, and is held"
            os.utime(path.parent)
            images.append(Image(packed, path, path.suffix == ".partclone"))
        return images


def key_of(packed: Packed) -> str:
    digest = hashlib.sha256(os.fsencode(packed.files[0].parent.resolve()))
    for file in packed.files:
        found = file.stat()
        digest.update(f"/{file.name} {found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def find(cache: Cache, key: str) -> Path | None:
    try:
        files = list((cache.folder / key).iterdir())
    except FileNotFoundError:
        return None
    return files[0] if files else None


def unpack_one(cache: Cache, packed: Packed, key: str, progress: Callable[[str, float], None]
               ) -> None:
    new = cache.folder / f"{key}.new"
    new.mkdir()
    try:
        all_bytes = max(1, packed.bytes())
        target = new / "unpacked"
        is_partclone = shelf_unpack.unpack(
            packed, target, lambda count: make_room(cache, count, packed, target),
            lambda taken: progress(packed.part, 100 * taken / all_bytes))
        # A volume of LVM may be named so that its name would lead elsewhere: it has no slash.
        target.rename(new / f"{packed.part}.{'partclone' if is_partclone else 'raw'}")
        new.rename(cache.folder / key)
    except OSError as error:
        raise Refused(f"cannot unpack {packed.files[0]} into {cache.folder}: {error.strerror}"
                      ) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


# --- locks -----------------------------------------------------------------------------


@contextmanager
def locked(cache: Cache, say: Callable[[str], None], progress: Callable[[], None]
           ) -> Iterator[None]:
    """One unpacks at a time: two would each count on the same room."""
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        refuse_foreign(cache)
        descriptor = os.open(cache.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(f"cannot use the cache {cache.folder}: {error.strerror}") from None
    try:
        if not take_lock(descriptor):
            say(f"waiting until another unshelve or serve has unpacked into {cache.folder}")
            while not take_lock(descriptor):
                progress()
                time.sleep(LOCK_WAIT_SECS)
        for left in folders(cache, ".new"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> bool:
    """At once, or not at all."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_foreign(cache: Cache) -> None:
    """A folder in which something lies, and not our lock. A file system has its lost+found."""
    names = sorted(set(os.listdir(cache.folder)) - {"lost+found"})
    if names and "lock" not in names:
        raise Refused(f"{cache.folder} is no cache: {names[0]!a} lies in it; name an "
                      "empty folder, or one that is not there yet")


def folders(cache: Cache, suffix: str = "") -> list[Path]:
    """Those of images, or with the suffix .new those of images that are being unpacked."""
    return [entry for entry in cache.folder.iterdir()
            if entry.suffix == suffix and KEY.fullmatch(entry.stem)
            and entry.is_dir() and not entry.is_symlink()]


def hold(cache: Cache, key: str) -> None:
    descriptor = os.open(cache.folder / key, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    cache.held.append(descriptor)


# --- room --------------------------------------------------------------------------------


def refuse_too_large(cache: Cache, missing: Sequence[Packed],
                     progress: Callable[[str, float], None]) -> None:
    """Before an hour is spent on the first of them. A raw partition is counted as what is packed;
    that of a partclone image its header knows."""
    def begin(part: str) -> Callable[[int], None]:
        return lambda _: progress(part, 0)

    need = 0
    for packed in missing:
        header = shelf_unpack.peek(packed, begin(packed.part))
        need += header.length(header.used_blocks) if header else packed.bytes()
    if need:
        evict(cache, need, ", ".join(packed.part for packed in missing), 0)


def make_room(cache: Cache, count: int, packed: Packed, target: Path) -> None:
    evict(cache, count, packed.part, allocated(target))


def evict(cache: Cache, need: int, what: str, there: int) -> None:
    """Until `need` bytes fit, of which `there` are written already. Nothing goes if they cannot."""
    while True:
        used = sum(sizes(cache).values()) - there
        space = shutil.disk_usage(cache.folder)
        limit = cache.limit_bytes or space.total
        if used + need <= limit and need - there + SPARE_BYTES <= space.free:
            return
        idle = idle_bytes(cache)
        if used - idle + need > limit:
            raise Refused(f"{what}: {human(need)} unpacked; the cache {cache.folder} may hold "
                          f"{human(limit)}, and {human(used - idle)} of it are in use")
        if need - there + SPARE_BYTES > space.free + idle or not evict_one(cache):
            raise Refused(f"{what}: {human(need)} unpacked; the disk of {cache.folder} has "
                          f"{human(space.free)} left, and {human(idle)} could be evicted")


def idle_bytes(cache: Cache) -> int:
    """Of the images that nobody holds."""
    return sum(size for folder, size in sizes(cache).items()
               if folder.suffix != ".new" and not is_held(folder))


def sizes(cache: Cache) -> dict[Path, int]:
    """Folder -> bytes on the disk."""
    return {folder: sum(allocated(file) for file in folder.iterdir())
            for folder in folders(cache) + folders(cache, ".new")}


def allocated(file: Path) -> int:
    return file.stat().st_blocks * 512


def evict_one(cache: Cache) -> bool:
    """The image that was used least recently, of those that nobody holds. False: there is none."""
    for folder in sorted(folders(cache), key=lambda folder: folder.stat().st_mtime_ns):
        # Nobody begins to hold it meanwhile: that needs the lock of the cache, too.
        if not is_held(folder):
            shutil.rmtree(folder)
            return True
    return False


def is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not take_lock(descriptor)
    finally:
        os.close(descriptor)


def human(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
