"""The command `pack`: what it takes, and what it prints."""
from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import packing
from .state import Refused
from .unshelve import Progress, Wrong

HELP = """\
Packs an image for `swarmdd make` and `swarmdd seed`, which read it in place: in
a frame of LZ4 with blocks of 16 KiB.

Usage:
  scripts/pack IMAGE [-o IMAGE.lz4]

IMAGE is a raw image or a partclone image. `lz4 -dc IMAGE.lz4` restores it.
All processors pack. A file that this command has packed is replaced, any other
is not. It appears when it is complete.

Options:
  -o, --output FILE   Default: IMAGE.lz4
  -h, --help          This text

Exit status: 0 done, 1 failed, 2 for a mistake in the options.

Example:
  scripts/pack debian.img
"""


def main(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    # Both end by an exception, which leaves nothing unfinished behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        source, target = parse(arguments)
        if not shutil.which("lz4"):
            raise Refused("missing Debian package: lz4")
        packing.refuse_target(source, target)
        show = Progress("pack")
        packing.pack(source, target, lambda percent: show(source.name, percent))
        before, after = source.stat().st_size, target.stat().st_size
        say(f"{target}: {after} bytes, {after / before:.3f} of {before}")
        return 0
    except Wrong as wrong:
        say(f"{wrong}\npack: `pack --help` lists the options")
        return 2
    except Refused as refusal:
        say(str(refusal))
        return 1
    except OSError as error:
        say(f"{error.filename2 or error.filename}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def parse(arguments: Sequence[str]) -> tuple[Path, Path]:
    operands, output, rest = [], "", list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            operands.append(word)
        elif name not in ("-o", "--output"):
            raise Wrong(f"unknown option {name}")
        elif not equals and not rest:
            raise Wrong(f"{name} wants a value")
        else:
            output = value if equals else rest.pop(0)
    if len(operands) != 1:
        raise Wrong("expected one image")
    return Path(operands[0]), Path(output or f"{operands[0]}.lz4")


def say(text: str) -> None:
    print(f"\r\033[Kpack: {text}" if os.isatty(2) else f"pack: {text}", file=sys.stderr)
