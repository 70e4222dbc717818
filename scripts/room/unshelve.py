"""The command `unshelve`: what it takes, and what it prints."""
from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .shelf import Packed, find_packed, list_names, parts_in, words_of
from .shelf_cache import HOME, Cache, Image, unpack_all
from .state import Refused

HELP = """\
Unpacks the partitions of a Clonezilla image directory into a cache, for
`swarmdd make` and `swarmdd seed`: compressed images (zst, gz, xz, lz4, lzo,
bz2, lzip, lzma, lrz), split or not.

Usage:
  scripts/unshelve [options] IMAGE_DIR [PART]...

PART is a partition as in sda1. Default: all that have an image.
For each one prints a line:  PART <tab> FILE SYSTEM <tab> PATH
A partclone image stays one, PATH is PART.partclone: only used blocks are in it.
An image of dd becomes PART.raw with holes. An image that is in the cache
already is not unpacked again.

Options:
  --cache DIR         Default: /var/cache/swarmdd
  --cache-size SIZE   The most that DIR may hold, such as 200G. Images that were
                      not used for the longest time are removed. Default: what
                      fits on its disk
  -h, --help          This text

Exit status: 0 done, 1 failed, 2 for a mistake in the options.

Example:
  scripts/unshelve --cache-size 200G /home/partimag/win10
"""

SIZE = re.compile("([0-9]{1,12})([KMGT]?)", re.IGNORECASE)
# Of the lines about progress: on a terminal, and elsewhere.
SHOW_SECS = 0.2, 10.0


class Wrong(Exception):
    """A mistake in the options."""


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    folder: Path
    parts: tuple[str, ...]
    cache: Path
    limit_bytes: int


def main(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    # Both end by an exception, which leaves nothing unfinished behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        wish = parse(arguments)
        for image in unshelve(wish):
            print(f"{image.packed.part}\t{image.packed.kind}\t{image.path}")
        return 0
    except Wrong as wrong:
        say(f"{wrong}\nunshelve: `unshelve --help` lists the options")
        return 2
    except Refused as refusal:
        say(str(refusal))
        return 1
    except OSError as error:
        say(f"{error.filename}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def parse(arguments: Sequence[str]) -> Wish:
    values: dict[str, str] = {}
    operands: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            operands.append(word)
        elif name not in ("--cache", "--cache-size"):
            raise Wrong(f"unknown option {name}")
        elif not equals and not rest:
            raise Wrong(f"{name} wants a value")
        else:
            values[name] = value if equals else rest.pop(0)
    if not operands:
        raise Wrong("expected the directory of an image")
    return Wish(Path(operands[0]), tuple(operands[1:]), Path(values.get("--cache", HOME)),
                size_of(values["--cache-size"]) if "--cache-size" in values else 0)


def size_of(text: str) -> int:
    found = SIZE.fullmatch(text)
    count = int(found[1]) << " KMGT".index(found[2].upper() or " ") * 10 if found else 0
    if not count:
        raise Wrong(f"--cache-size: '{text}' is no size such as 200G")
    return count


def unshelve(wish: Wish) -> list[Image]:
    cache = Cache(wish.cache, wish.limit_bytes)
    try:
        return unpack_all(cache, choose(wish), say, Progress())
    finally:
        cache.close()


def choose(wish: Wish) -> list[Packed]:
    names = list_names(wish.folder)
    listed = words_of(wish.folder / "parts") if "parts" in names else []
    there = parts_in(names)
    parts = wish.parts or tuple(sorted({*listed, *there}))
    if not parts:
        raise Refused(f"{wish.folder} has no image of a partition: no *-ptcl-img.* is there")
    return [find_packed(wish.folder, names, part) for part in parts]


class Progress:
    """A line on the terminal that is redrawn, or a line from time to time."""

    def __init__(self, program: str = "unshelve") -> None:
        self.program = program
        self.on_terminal = os.isatty(2)
        self.shown_at = time.monotonic()

    def __call__(self, part: str, percent: float) -> None:
        now = time.monotonic()
        if now - self.shown_at < SHOW_SECS[0 if self.on_terminal else 1]:
            return
        self.shown_at = now
        text = f"{self.program}: {part}: {percent:.0f} %"
        print(f"\r{text} " if self.on_terminal else text, end="" if self.on_terminal else "\n",
              file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(f"\r\033[Kunshelve: {text}" if os.isatty(2) else f"unshelve: {text}", file=sys.stderr)
