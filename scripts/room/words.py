"""What did a failed machine say at last? Kept for scripts/status and for the page.

nginx keeps each body of POST /words as a file below STATE/words. The roster knows which of them
belongs to which machine. Here it becomes www/words/MAC.txt. All of it is hostile input."""
from __future__ import annotations

import base64
import binascii
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from .row import Row
from .state import State, write_file

# nginx takes no more, see components.web_server_config.
BODY_BYTES_MAX = 256 << 10
# Two hundred lines of the kernel and a log of init are less than 64 KiB. Of more, the end counts.
TEXT_BYTES_MAX = 512 << 10
# A zip bomb is not unpacked to its end.
UNPACKED_BYTES_MAX = 4 << 20
# Of all machines together, in each of the two folders.
FOLDER_BYTES_MAX = 64 << 20
# A new file may belong to a line of the log that was not read yet.
YOUNG_SECS = 60.0


def publish(state: State, rows: Iterable[Row], published: dict[str, str]) -> None:
    """Writes the words that are new. `published`: MAC -> file that was taken last."""
    for row in rows:
        if row.words and published.get(row.mac) != row.words:
            published[row.mac] = row.words
            # Only a name: a path must not lead out of the folder.
            text = read_words(state.words / Path(row.words).name)
            if text is not None:
                write_file(state.www / "words" / f"{row.mac}.txt", text)


def read_words(file: Path) -> str | None:
    try:
        with open(file, "rb") as body:
            return unpack(body.read(BODY_BYTES_MAX))
    except OSError:
        return None


def unpack(body: bytes) -> str | None:
    """Text out of gzip, or of base64 of gzip: busybox can send only text."""
    if body.startswith(b"H4sI"):
        try:
            body = base64.b64decode(body)
        except binascii.Error:
            return None
    try:
        text = zlib.decompressobj(wbits=31).decompress(body, UNPACKED_BYTES_MAX)
    except zlib.error:
        return None
    return printable(text[-TEXT_BYTES_MAX:].decode("utf-8", "replace"))


def printable(text: str) -> str:
    """On a terminal, a control character is a command."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def tidy(state: State, rows: Iterable[Row], now: float | None = None) -> None:
    """Removes what belongs to no machine, and the oldest words where all are too long."""
    wanted = {Path(row.words).name for row in rows if row.words}
    limit = (time.time() if now is None else now) - YOUNG_SECS
    for folder, keeps_all in ((state.words, False), (state.www / "words", True)):
        kept = 0
        for file, changed_at, size in newest_first(folder):
            kept += size
            stale = not keeps_all and file.name not in wanted
            if changed_at < limit and (stale or kept > FOLDER_BYTES_MAX):
                file.unlink(missing_ok=True)


def newest_first(folder: Path) -> list[tuple[Path, float, int]]:
    """Each file with the time of its last change and its size."""
    found = []
    for file in folder.glob("*"):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        found.append((file, status.st_mtime, status.st_size))
    return sorted(found, key=lambda entry: -entry[1])
