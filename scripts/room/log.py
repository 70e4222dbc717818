"""The log: an append-only file with one JSON object a line, written by nginx and by `serve`.

Each line is one of these. `time` is in seconds since 1970, by the server's clock.

{"time", "kind": "report", "address", "query", "body"}   a machine reported (POST /report?QUERY)
{"time", "kind": "boot", "address", "path", "query"}     iPXE asked what to boot (GET /boot/MAC)
{"time", "kind": "disk", "address", "path"}              and got its own disk's starter (/disk/MAC)
{"time", "kind": "retry", "address", "path"}             a failed machine asked whether to try again
{"time", "kind": "words", "address", "query", "file"}    a failed machine sent its log
{"time", "kind": "job", "job", "images": [{"name", "bytes", "info_hash", "target"}], "again"}
                                                         `serve` started with this job, and its
                                                         --again names these machines
{"time", "kind": "neighbour", "address", "mac"}          this address has this MAC, says the kernel
{"time", "kind": "again", "job", "machine"}              somebody asked to image a machine again
{"time", "kind": "component", "name", "event", "words"}  a daemon ended or was started again
{"time", "kind": "ending", "job"}                        its tracker stops; machines leave
{"time", "kind": "end", "job", "why"}                    the job has ended

nginx writes what comes from the network: everything in it but `time`, `kind` and `address` is
hostile. Both writers append one whole line with one write(2).
"""

import json
import os
from collections.abc import Iterator
from typing import Any, NoReturn

Entry = dict[str, Any]

# nginx takes bodies up to 16 KiB and a query up to 8 KiB, and writes a quotation mark as two bytes.
# Logs of yesterday have longer lines.
LINE_BYTES_MAX = 512 << 10
# Read at once. Memory stays small however long the log has become.
CHUNK_BYTES = 1 << 20


class Reader:
    """Reads each line once. Keeps no file open, so that the folder may be moved away."""

    def __init__(self, path: str, having: bytes = b"") -> None:
        self.path = path
        # Only lines with these bytes are parsed: 4 times as fast for a few of many.
        self.having = having
        # Where the next line begins.
        self.offset = 0
        # Of a line that is longer than LINE_BYTES_MAX, the rest is still to be passed over.
        self.in_long_line = False

    def entries(self) -> Iterator[Entry]:
        """All lines that are complete by now. The last line may still be torn: it is left for the
        next time."""
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return
        with file:
            end = os.fstat(file.fileno()).st_size
            # Another file: somebody has taken the log away.
            if end < self.offset:
                self.offset = 0
                self.in_long_line = False
            while self.offset < end:
                file.seek(self.offset)
                chunk = file.read(min(CHUNK_BYTES, end - self.offset))
                lines, newline, _torn = chunk.rpartition(b"\n")
                if not newline:
                    if len(chunk) <= LINE_BYTES_MAX:
                        return
                    self.in_long_line = True
                    self.offset += len(chunk)
                    continue
                # Before anything is yielded: the caller may stop in the middle of a chunk only
                # by ending.
                self.offset += len(lines) + 1
                yield from self.parse_lines(lines)

    def parse_lines(self, lines: bytes) -> Iterator[Entry]:
        for line in lines.split(b"\n"):
            if self.in_long_line:
                self.in_long_line = False
                continue
            # An empty one: a writer begins with a newline if the line before it is torn.
            entry = parse_line(line) if line and self.having in line else None
            if entry is not None:
                yield entry


def parse_line(line: bytes) -> Entry | None:
    """None for a line that none of the writers has written whole."""
    if len(line) > LINE_BYTES_MAX:
        return None
    entry = parse_object(line.decode(errors="replace"))
    return entry if entry and is_time(entry.get("time")) else None


def parse_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or None. ValueError: also a number of more than 4300 digits. RecursionError: a
    bomb of brackets."""
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_time(value: object) -> bool:
    """NaN and infinity are not in the range. The year 3000 is below it."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e11


def refuse_constant(name: str) -> NoReturn:
    """JSON has neither NaN nor Infinity; Python's parser takes them by default."""
    raise ValueError(name)


# Made once: with an argument, json.loads makes a new one for each call.
DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def append(path: str, entry: Entry) -> None:
    """One line by one write(2): a reader, or another writer, never sees half of it."""
    line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # The last line of a writer that was killed, or whose disk was full, may be torn. This
        # line must not become a part of it.
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):
            raise OSError(f"{path}: only {written} of {len(line)} bytes were written")
    finally:
        os.close(descriptor)
