"""How does an image become a packed one, which `make` and `seed` read in place?

Debian's `lz4` packs it, a process for each processor: each gets a part of the image, and what they
make is one frame, since its blocks are independent. `lz4 -dc` restores the image. Behind the frame
is a skippable one, which `lz4` passes over; it says what was packed.

Measured with 400 MiB of /usr on one processor: blocks of 16 KiB, what a request asks for, shrink to
0.615 (-1), 0.576 (-3), 0.572 (-9), in 1.7 s, 7.7 s and 12 s. Blocks of 64 KiB would be 0.03 better,
but a request asks for 16.
"""
from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .state import Refused

MAGIC = bytes.fromhex("04224d18")
# Version, independent blocks with checksums, of 64 KiB at most.
HEADER = MAGIC + bytes.fromhex("7040ad")
END = bytes(4)
NOTE_MAGIC = bytes.fromhex("5e2a4d18")
NOTE_BYTES = 256

BLOCK_BYTES = 16 << 10
# Of the image, for one process; a few of them lie in memory for each processor.
PART_BYTES = 16 << 20
COMMAND = ("lz4", "-q", "-3", f"-B{BLOCK_BYTES}", "-BX", "--no-frame-crc", "-c")

Progress = Callable[[float], None]


def pack(source: Path, target: Path, progress: Progress) -> None:
    """`progress(percent)` is called for each part. It may raise, and then nothing is left. A target
    that is there is replaced: ask `refuse_target` before."""
    new = target.with_name(f".{target.name}.{os.getpid()}")
    with open(source, "rb", buffering=0) as image:
        size = image.seek(0, os.SEEK_END)
        note = note_of(source)
        try:
            with open(new, "xb", buffering=0) as file:
                write_whole(file.fileno(), HEADER)
                with contextlib.closing(parts(image.fileno(), size)) as packed:
                    for end, part in packed:
                        append(file.fileno(), part)
                        progress(100 * end / size)
                write_whole(file.fileno(), END + frame_of(note))
                os.fsync(file.fileno())
            if note_of(source) != note:
                raise Refused(f"{source} has changed while it was packed")
            os.rename(new, target)
        finally:
            new.unlink(missing_ok=True)


def parts(image: int, size: int) -> Generator[tuple[int, int], None, None]:
    """The end of each part in the image, and its blocks in a file that the caller closes."""
    count = os.cpu_count() or 1
    stop, waiting = threading.Event(), deque[tuple[int, "Future[int]"]]()
    with ThreadPoolExecutor(count) as workers:
        try:
            for start in range(0, size, PART_BYTES):
                end = min(start + PART_BYTES, size)
                waiting.append((end, workers.submit(pack_part, image, start, end, stop)))
                if len(waiting) > count:
                    end, packed = waiting.popleft()
                    yield end, packed.result()
            while waiting:
                end, packed = waiting.popleft()
                yield end, packed.result()
        finally:
            stop.set()
            for _, packed in waiting:
                # Whoever stopped it has a better reason.
                if not packed.cancel() and not packed.exception():
                    os.close(packed.result())


def pack_part(image: int, start: int, end: int, stop: threading.Event) -> int:
    """A file in memory with a frame of these bytes."""
    if stop.is_set():
        raise Refused("not wanted any more")
    taken = os.memfd_create("part")
    packed = os.memfd_create("packed")
    try:
        copy(image, taken, start, end)
        os.lseek(taken, 0, os.SEEK_SET)
        # In a session of its own, so that Ctrl-C is ours alone.
        ended = subprocess.run(COMMAND, stdin=taken, stdout=packed, stderr=subprocess.PIPE,
                               start_new_session=True, check=False)
        if ended.returncode or os.pread(packed, len(HEADER), 0) != HEADER:
            words = ended.stderr.decode(errors="replace").strip() or "it made another frame"
            raise Refused(f"lz4 failed: {words.splitlines()[0]}")
    except BaseException:
        os.close(packed)
        raise
    finally:
        os.close(taken)
    return packed


def append(file: int, part: int) -> None:
    """The blocks of a frame, without what is around them."""
    try:
        copy(part, file, len(HEADER), os.fstat(part).st_size - len(END))
    finally:
        os.close(part)


def copy(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        count = os.sendfile(target, source, start, end - start)
        if not count:
            raise Refused("the image became shorter while it was packed")
        start += count


def write_whole(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content):]


# --- what was packed ---------------------------------------------------------------------


def note_of(source: Path) -> dict[str, int]:
    found = source.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def frame_of(note: dict[str, int]) -> bytes:
    text = json.dumps({"packed_by": "swarmdd", **note}).encode().ljust(NOTE_BYTES)
    return NOTE_MAGIC + NOTE_BYTES.to_bytes(4, "little") + text


def read_note(packed: Path) -> dict[str, int] | None:
    """What `pack` wrote there; None of any other file."""
    length = len(frame_of({}))
    with open(packed, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - length))
        frame = file.read(length)
    if not frame.startswith(frame_of({})[:8]):
        return None
    try:
        note = json.loads(frame[8:])
        return {name: int(note[name]) for name in ("bytes", "mtime_ns")}
    except (ValueError, KeyError, TypeError):
        return None


def is_packed(path: Path) -> bool:
    # A FIFO would have us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        return path.is_file() and file.read(len(MAGIC)) == MAGIC


def head_of(path: Path, count: int) -> bytes:
    """The first bytes of an image, packed or not."""
    if not is_packed(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            return file.read(count)
    with subprocess.Popen(["lz4", "-dcq", str(path)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        head = process.stdout.read(count)
        process.kill()
    return head


def refuse_target(source: Path, target: Path) -> None:
    """What is there is replaced if it is an image that `pack` has packed, and nothing else."""
    if not source.is_file():
        raise Refused(f"{source} is no regular file, and only one can be packed")
    if source.stat().st_size == 0:
        raise Refused(f"{source} is empty")
    if is_packed(source):
        raise Refused(f"{source} is packed already; to pack what it holds: "
                      f"lz4 -dc < {shlex.quote(str(source))} > IMAGE")
    if target.exists() and (not target.is_file() or read_note(target) is None):
        raise Refused(f"{target} is there already, and was not packed by swarmdd")


def packed_beside(source: Path, say: Callable[[str], None], progress: Progress) -> Path:
    """The packed image beside this one, packed now unless it is there and as new."""
    target = source.with_name(f"{source.name}.lz4")
    refuse_target(source, target)
    if target.exists() and read_note(target) == note_of(source):
        return target
    say(f"packing {source}")
    try:
        pack(source, target, progress)
    except OSError as error:
        raise Refused(f"cannot pack {source} into {target}: {error.strerror}") from None
    return target
