"""What does every part of the bench need? Units, the failure of a run, messages, small files."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

MIB = 1 << 20
GIB = 1 << 30
CORES = os.cpu_count() or 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# One argument of a command line, and a whole command line.
Argument = str | int | Path
Command = list[Argument]
# Measured figures, written to JSON as they are.
Result = dict[str, Any]


class Failure(Exception):
    """A run without a result; the text says why."""


def say(text: object) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def read_or_empty(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def last_line(log: Path) -> str:
    """The last line that is not empty, as the reason of a failure."""
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    printed = [line.strip() for line in lines if line.strip()]
    return printed[-1][:200] if printed else "nothing printed"


def accepts(address: str, port: int) -> bool:
    """True if a TCP connection can be made."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
