"""Which bytes of a disk do its file systems use? The command scripts/used-map.

partclone knows which blocks of a file system are used. Everything else counts as used: partitions
that it does not read, and what lies between partitions (`swarmdd make` leaves out the zeros there).
So a mistake here describes too much, and never too little.

partclone takes some file systems that are not clean: it reads the free space of ext4 and XFS
without their journals, and so calls blocks unused that the next mount needs. Those are refused
here.
"""
from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .checks import first_line, run
from .row import size_words
from .state import Refused

HELP = """\
Writes a map of the used blocks of a disk, a partition or an image of either,
for `swarmdd make --used-map`: every partition is read by the partclone that
fits its file system. Nothing is written to SOURCE.

Usage: scripts/used-map [-o FILE] SOURCE

Used are, of ext2, ext3, ext4, NTFS, FAT, exFAT, XFS, btrfs and F2FS, the blocks
that partclone names; of swap the first 64 KiB, with its UUID and label; LVM,
LUKS, RAID, and what else is in a partition, whole; and everything outside of
partitions, where `swarmdd make` leaves out zeros by itself.

A file system that is mounted or was not unmounted cleanly is refused. Run as
root: an image is attached to a read-only loop device. Needs partclone, and
for XFS xfsprogs.

  -o, --output FILE  The map, in the format of GNU ddrescue. Default: stdout
  -h, --help         This text

Exit status: 0 done, 1 failed (one line on stderr says why), 2 usage.

Example:
  scripts/used-map /dev/sdb -o sdb.map
  swarmdd make /dev/sdb --used-map sdb.map -o lab.torrent"""

# What blkid calls a file system -> the program that reads it.
PARTCLONES = {"ext2": "partclone.ext2", "ext3": "partclone.ext3", "ext4": "partclone.ext4",
              "ntfs": "partclone.ntfs", "vfat": "partclone.vfat", "exfat": "partclone.exfat",
              "xfs": "partclone.xfs", "btrfs": "partclone.btrfs", "f2fs": "partclone.f2fs"}
# The header of swap is its first page, and the largest pages have 64 KiB.
SWAP_BYTES = 64 << 10
# Types of extended partitions, as sfdisk writes them: only what is in them counts.
EXTENDED = ("5", "f", "85")
PROTECTIVE = "ee"
# The last one comes when a connection to this host is lost.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A run of bytes: start and end.
Run = tuple[int, int]
# Takes an offset and a length, and returns these bytes of a file system.
Reader = Callable[[int, int], bytes]


class Wrong(Exception):
    """A mistake in how the command was called."""


@dataclass(frozen=True)
class Part:
    """A partition, or the whole source; in bytes of the source."""

    # As sfdisk names it. That is a device only if the source is one.
    node: str
    start: int
    size: int


def main(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    # Another signal than Ctrl-C must detach the loop devices as well.
    for name in SIGNALS:
        # nohup ignores SIGHUP, and that is to stay.
        if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:
            signal.signal(name, interrupt)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    try:
        source, output = parse(arguments)
        check_tools(["sfdisk", "blkid", "losetup"])
        write(map_of(source), output)
        return 0
    except Wrong as mistake:
        say(f"{mistake}\n`used-map --help` lists the options")
        return 2
    except Refused as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"{error.filename or output}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def interrupt(_number: int, _frame: FrameType | None) -> None:
    # A second one must not end what puts things away.
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


def say(line: str) -> None:
    print(f"used-map: {line}", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> tuple[str, str]:
    """The source, and the file for its map ("": stdout)."""
    operands, output = [], ""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-o", "--output"):
            if not rest:
                raise Wrong(f"{word} wants a file")
            output = rest.pop(0)
        elif word.startswith("--output="):
            output = word.partition("=")[2]
        elif word.startswith("-"):
            raise Wrong(f"unknown option {word}")
        else:
            operands.append(word)
    if len(operands) != 1:
        raise Wrong("expected one SOURCE")
    return operands[0], output


def check_tools(tools: Iterable[str], package: str = "fdisk, util-linux and mount") -> None:
    for tool in tools:
        if not shutil.which(tool):
            raise Refused(f"{tool} is missing: install Debian's {package}")


def write(text: str, output: str) -> None:
    """The file appears when it is complete."""
    if not output:
        print(text, end="")
        return
    draft = Path(f"{output}.{os.getpid()}")
    try:
        draft.write_text(text)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


# ---- what is on the source


def map_of(source: str) -> str:
    """The map of a whole source."""
    with open(source, "rb") as file:
        size = file.seek(0, os.SEEK_END)
    # The boot sector of FAT or NTFS looks like an MBR without partitions.
    parts = parts_of_source(source, size) or [Part(source, 0, size)]
    unused: list[Run] = []
    if overlap(parts):
        say(f"{source}: its partitions overlap, so all of it counts as used")
        parts = []
    for part in parts:
        unused += unused_of(source, size, part)
    used = size - sum(end - start for start, end in unused)
    say(f"{source}: {size_words(used)} of {size_words(size)} used")
    return map_text(source, size, unused)


def parts_of_source(source: str, size: int) -> list[Part]:
    shown = run("sfdisk", "--json", source)
    parts = parts_of(shown.stdout) if shown.returncode == 0 else [Part(source, 0, size)]
    if parts is not None:
        return parts
    # sfdisk takes the sectors of a file for 512 bytes, and finds only the protective MBR.
    with attached(source, 0, size, "--sector-size", "4096") as device:
        shown = run("sfdisk", "--json", device)
    return (parts_of(shown.stdout) if shown.returncode == 0 else None) or []


def parts_of(shown: str) -> list[Part] | None:
    """The partitions that `sfdisk --json` has printed, without extended ones. None: there is only a
    protective MBR, so the GPT is in sectors of another size."""
    table = json.loads(shown)["partitiontable"]
    sector = table.get("sectorsize", 512)
    entries = table.get("partitions", [])
    if table["label"] == "dos" and any(entry["type"] == PROTECTIVE for entry in entries):
        return None
    return [Part(entry["node"], entry["start"] * sector, entry["size"] * sector)
            for entry in entries if table["label"] != "dos" or entry["type"] not in EXTENDED]


def overlap(parts: Iterable[Part]) -> bool:
    ordered = sorted(parts, key=lambda part: part.start)
    return any(one.start + one.size > other.start for one, other in zip(ordered, ordered[1:]))


def unused_of(source: str, size: int, part: Part) -> list[Run]:
    """In bytes of the source."""
    if part.start + part.size > size:
        raise Refused(f"{part.node} ends at byte {part.start + part.size}, "
                      f"but {source} has {size} bytes")
    probed = run("blkid", "-p", "-o", "export", "-O", str(part.start), "-S", str(part.size), source)
    kind = dict(line.partition("=")[::2] for line in probed.stdout.splitlines()).get("TYPE", "")
    if kind == "swap":
        unused = [(SWAP_BYTES, part.size)] if part.size > SWAP_BYTES else []
    elif kind in PARTCLONES:
        check_tools([PARTCLONES[kind]], "partclone")
        with device_of(source, part) as device:
            unused = unused_of_file_system(device, part, kind)
    else:
        unused = []
    used = part.size - sum(end - start for start, end in unused)
    say(f"{part.node}: {kind or 'unknown'}, {size_words(used)} of {size_words(part.size)} used")
    return [(part.start + start, part.start + end) for start, end in unused]


# ---- one file system


def unused_of_file_system(device: str, part: Part, kind: str) -> list[Run]:
    with open(device, "rb") as file:
        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)
        # It has more devices than this one.
        if kind == "btrfs" and number(read, 0x10088, 8) != 1:
            return []
        dirt = xfs_dirt(device) if kind == "xfs" else dirt_of(kind, read)
    with tempfile.TemporaryDirectory() as folder:
        log, shown = Path(folder, "log"), Path(folder, "map")
        say(f"{part.node}: {kind}, {size_words(part.size)}")
        # Without a limit of time: some terabytes may take minutes.
        ended = subprocess.run(
            [PARTCLONES[kind], "-D", "-q", "-L", log, "-s", device, "-o", shown], check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if ended.returncode:
            raise Refused(f"{part.node}: {sentence_of(log)}")
        if dirt:
            raise Refused(f"{part.node}: {kind} is in use or was not unmounted cleanly: {dirt}; "
                          "unmount it, or mount it once and unmount it")
        try:
            return unused_in(shown.read_text(errors="replace"), part.size)
        except ValueError:
            raise Refused(f"{part.node}: the map of {PARTCLONES[kind]} is not clear") from None


def dirt_of(kind: str, read: Reader) -> str:
    """Why the map of partclone may lack blocks; "" if the file system is clean. What partclone says
    itself is not repeated here.

    ext4: Documentation/filesystems/ext4/super.rst, s_feature_incompat. exFAT: VolumeFlags in
    Microsoft's specification. FAT: fs/fat/inode.c, fat_set_state. btrfs: btrfs_super_block. F2FS:
    f2fs_super_block and f2fs_checkpoint in include/linux/f2fs_fs.h."""
    if kind in ("ext2", "ext3", "ext4") and number(read, 1024 + 0x60, 4) & 4:
        return "its journal was not replayed"
    if kind == "exfat" and number(read, 0x6a, 2) & 2:
        return "it is marked as dirty"
    if kind == "vfat":
        # Without sectors for a FAT at 22 it is FAT32, whose fields lie further behind.
        state = 0x25 if number(read, 22, 2) else 0x41
        return "it is marked as dirty" if number(read, state, 1) & 1 else ""
    if kind == "btrfs" and number(read, 0x10060, 8):
        return "its log tree was not replayed"
    if kind == "f2fs":
        block, segment, first = (number(read, 1024 + at, 4) for at in (16, 20, 76))
        packs = [first << block, (first + (1 << segment)) << block]
        newest = max(packs, key=lambda pack: number(read, pack, 8))
        return "" if number(read, newest + 132, 4) & 1 else "its last checkpoint is of a mount"
    return ""


def number(read: Reader, offset: int, length: int) -> int:
    return int.from_bytes(read(offset, length), "little")


def xfs_dirt(device: str) -> str:
    check_tools(["xfs_logprint"], "xfsprogs")
    shown = run("xfs_logprint", "-t", device)
    return "" if "state: <CLEAN>" in shown.stdout else "its log was not replayed"


def sentence_of(log: Path) -> str:
    """What partclone gives as its reason, without the name of its own file and its banner."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines()
             if not line.startswith(("Partclone v", "Starting to map", "memory needed:", "bitmap "))
             and line.strip() not in ("", "error exit")]
    name, _, rest = " ".join(lines).partition(": ")
    said = rest if name.endswith(".c") else " ".join(lines)
    return said or "partclone gives no reason"


def unused_in(shown: str, size: int) -> list[Run]:
    """What partclone calls unused of a file system on `size` bytes. Raises ValueError if that is
    not clear."""
    lines = [line.split() for line in shown.splitlines()
             if line.strip() and not line.startswith("#")]
    unused, end = [], 0
    for start_word, length_word, status in lines[1:]:
        start, length = int(start_word, 16), int(length_word, 16)
        if start != end or status not in "+?":
            raise ValueError(start_word)
        end += length
        if status == "?" and length:
            unused.append((start, end))
    if not end or end > size:
        raise ValueError(shown)
    return unused


def map_text(source: str, size: int, unused: Iterable[Run]) -> str:
    """The format of GNU ddrescue. All that is not unused is used."""
    lines = ["# Used blocks, by scripts/used-map", f"# Source: {source!a}",
             "# current_pos  current_status", f"{size:#x} ?", "# pos  size  status"]
    end = 0
    for start, stop in [*sorted(unused), (size, size)]:
        lines += [f"{end:#x} {start - end:#x} +"] * (start > end)
        lines += [f"{start:#x} {stop - start:#x} ?"] * (stop > start)
        end = stop
    return "\n".join(lines) + "\n"


# ---- devices


@contextmanager
def device_of(source: str, part: Part) -> Iterator[str]:
    """A partition that the kernel knows is its own device, which partclone finds among the mounts.
    Anything else becomes a loop device."""
    if Path(source).is_block_device() and Path(part.node).is_block_device():
        with open(part.node, "rb") as file:
            if file.seek(0, os.SEEK_END) == part.size:
                yield part.node
                return
    with attached(source, part.start, part.size) as device:
        yield device


@contextmanager
def attached(source: str, start: int, size: int, *more: str) -> Iterator[str]:
    """A loop device that can only be read."""
    device = ""
    try:
        # A signal waits until the device has a name here.
        with held(SIGNALS):
            made = run("losetup", "--find", "--show", "--read-only", "--offset", str(start),
                       "--sizelimit", str(size), *more, source)
            device = made.stdout.strip()
        if made.returncode:
            raise Refused(f"no loop device for {source}: {first_line(made.stderr)}")
        yield device
    finally:
        with held(SIGNALS):
            if device:
                run("losetup", "--detach", device)


@contextmanager
def held(signals: Iterable[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
