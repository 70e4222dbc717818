"""What is on the terminal: a table that is redrawn in place, or a line for each change of state.

`draw` and `changes` are pure. `Terminal` is the only part that knows escape sequences, and that a
terminal may be resized, stopped (Ctrl-S) or gone.
"""
import os
import select
import signal
import termios
import unicodedata
from collections import Counter
from collections.abc import Sequence
from types import FrameType

from .page import Totals
from .machine import STATES
from .row import Row

NAME_COLUMNS_MAX = 20
# Some terminals (serial lines) do not know their size and report 0.
COLUMNS_DEFAULT, LINES_DEFAULT = 80, 24
# Lines above the table for the newest messages.
MESSAGE_LINES = 3
MESSAGES_KEPT = 100


def draw(rows: Sequence[Row], totals: Totals, columns: int, lines: int) -> list[str]:
    """The table: never wider than `columns`, never longer than `lines`. The machines that need
    somebody come first; those for which no line is left are counted in the last line."""
    names = max((width(name_of(row)) for row in rows), default=0)
    names = min(max(names, len("machine")), NAME_COLUMNS_MAX)
    head = [*total_lines(totals), cells("machine", names, "state", "%", "MB/s", "left", "")]
    room = max(0, lines - len(head))
    ordered = sorted(rows, key=need)
    shown = ordered if len(ordered) <= room else ordered[:max(0, room - 1)]
    body = [row_line(row, names) for row in shown]
    if len(shown) < len(ordered):
        # Rather the sum of all than the names of columns without a machine below.
        head = head if shown else head[:2]
        body.append(rest_line(ordered[len(shown):], more=bool(shown)))
    return [clip(line, columns) for line in [*head, *body]][:max(0, lines)]


def need(row: Row) -> tuple[int, float, str, str]:
    """Sorts machines by how much they need an administrator."""
    if row.state == "failed" and not row.again:
        rank = 0
    elif row.complete:
        rank = 4 if row.flags else 5
    elif row.flags:
        rank = 1
    elif row.state == "missing" or row.again:
        rank = 2
    else:
        rank = 3
    # The least advanced one first.
    progress = STATES.index(row.state) + row.percent / 1000 if rank >= 3 else 0.0
    return rank, progress, name_of(row), row.mac


def total_lines(totals: Totals) -> list[str]:
    counts = [f"{totals.complete} of {totals.machines} complete", f"{totals.failed} failed",
              f"{totals.working} working", f"{totals.missing} missing"]
    figures = [f"{totals.percent:.0f} %", f"{mega(totals.down)} MB/s",
               f"{human_bytes(totals.bytes_left)} to go"]
    if totals.eta is not None:
        figures.append(f"{duration(totals.eta)} left")
    if 0 < totals.fetched_wire < totals.fetched:
        figures.append(f"{100 * totals.fetched_wire // totals.fetched} % on the wire")
    figures.append(f"the server sends {mega(totals.seed_up)} MB/s")
    return [", ".join(counts), ", ".join(figures)]


def row_line(row: Row, names: int) -> str:
    name, state = name_of(row), row.state
    if state == "failed" and not row.again:
        reason = row.error or "no reason given"
        return f"{pad(name, names)}  {state:11}  {plain('; '.join([reason, *row.flags]))}"
    percent = rate = left = ""
    if state in ("scanning", "downloading", "verifying"):
        percent = f"{min(max(row.percent, 0), 100):.0f}"
    if state == "downloading":
        rate = mega(row.down)
        left = duration(row.eta) if row.eta is not None else ""
    return cells(name, names, state, percent, rate, left, note(row))


def note(row: Row) -> str:
    """The last column: what is remarkable, or else how far it is."""
    if row.flags:
        return "; ".join(row.flags)
    if row.again:
        return "to be imaged again"
    if row.state == "missing":
        return "not seen yet"
    if row.state == "seeding":
        return f"sends {mega(row.up)} MB/s"
    if row.state in ("hooks", "done"):
        return "started its own disk" if row.back else ""
    if row.waiting:
        return f"waits: {row.waiting}"
    if row.state in ("scanning", "downloading", "verifying"):
        filled = int(min(max(row.percent, 0), 100) / 5)
        return "#" * filled + "." * (20 - filled)
    return row.address


def cells(name: str, names: int, state: str, percent: str, rate: str, left: str, text: str) -> str:
    return (f"{pad(name, names)}  {state:11}  {percent:>3}  {rate:>6}  {left:>6}  {plain(text)}"
            ).rstrip()


def rest_line(rows: Sequence[Row], more: bool) -> str:
    counts = Counter(row.state for row in rows)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    start = f"… and {len(rows)} more" if more else f"{len(rows)} machines"
    return f"{start}: {', '.join(parts)}"


def changes(before: dict[str, str], rows: Sequence[Row]) -> tuple[list[str], dict[str, str]]:
    """For an output that is no terminal: a line for each machine whose state is another one than
    `before`, and the new `before`. Nobody needs a line for each machine that is still switched
    off."""
    lines, after = [], {}
    for row in rows:
        line = plain(" ".join(part for part in (name_of(row), row.address, row.state) if part))
        if row.state == "failed":
            line += f": {plain(row.error or 'no reason given')}"
        after[row.mac] = line
        if before.get(row.mac) != line and not (row.state == "missing" and row.mac not in before):
            lines.append(line)
    return lines, after


def name_of(row: Row) -> str:
    return plain(row.name) or row.mac


# --- text -----------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text without characters that do something else than fill cells: control characters,
    changes of direction, and marks that are stacked on other characters."""
    kept = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category in ("Mn", "Me", "Cf"):
            continue
        kept.append(character if character.isprintable() else " ")
    return "".join(kept)


def width(text: str) -> int:
    """How many cells plain text fills."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, columns: int) -> str:
    """The text, or as much of it as leaves a place for `…`."""
    if width(text) <= columns:
        return text
    kept, cells_used = [], 1
    for character in text:
        cells_used += width(character)
        if cells_used > columns:
            break
        kept.append(character)
    return "".join(kept) + "…" if columns > 0 else ""


def pad(text: str, columns: int) -> str:
    clipped = clip(text, columns)
    return clipped + " " * (columns - width(clipped))


def mega(rate: int) -> str:
    return f"{rate / 1e6:.1f}"


def human_bytes(count: int) -> str:
    """1234567 -> "1.2 MB". Powers of ten, as in MB/s beside it."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5 or unit == "PB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def duration(seconds: int) -> str:
    """75 -> "1:15", 3700 -> "1:01 h", and days from 100 hours on."""
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02}"
    if seconds < 360_000:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
    return f"{min(seconds // 86400, 9999)} d"


# --- terminal -------------------------------------------------------------------------------------


class Terminal:
    """Shows messages and the table. Calling order: `say` and `show` in any order, then `close`.

    No method raises or waits because of the terminal: what it does not take now is dropped, and the
    next `show` draws everything anew. On anything else than a terminal the lines go out one by
    one."""

    def __init__(self, fd: int = 2) -> None:
        self.fd = fd
        self.is_terminal = os.isatty(fd)
        # A line below the table, as long as it is set.
        self.prompt = ""
        self.shown: dict[str, str] = {}
        self.messages: list[str] = []
        # Lines of the table on the screen, below which the cursor is. None: nobody knows where the
        # cursor is, so the next drawing clears the screen.
        self.height: int | None = 0
        self.size = (COLUMNS_DEFAULT, LINES_DEFAULT)
        # As it was before this, for the end.
        self.old_mode: list[object] | None = None
        self.keys_are_hidden = False
        self.output = fd
        # Nobody will ever read it again.
        self.is_gone = False
        if self.is_terminal:
            self.output = open_without_waiting(fd)
            self.size = size_of(fd)
            signal.signal(signal.SIGCONT, self.lose_place)

    def say(self, text: str) -> None:
        """A message for good."""
        line = plain(text)
        if not self.is_terminal:
            self.put(line + "\n")
            return
        self.messages = [*self.messages, line][-MESSAGES_KEPT:]
        # Overwrites the table, which the next `show` draws again below.
        if self.height is not None and not self.put(f"{self.to_top()}\033[J{line}\n"):
            self.height = None
        elif self.height is not None:
            self.height = 0

    def show(self, rows: Sequence[Row], totals: Totals) -> None:
        """Draws the table where it was."""
        if not self.is_terminal:
            lines, self.shown = changes(self.shown, rows)
            self.put("".join(f"{line}\n" for line in lines))
            return
        self.hide_keys()
        size = size_of(self.fd)
        if size != self.size:
            # The terminal may have wrapped our lines in its own way.
            self.size, self.height = size, None
        columns, lines_max = size
        table = draw(rows, totals, columns, max(1, lines_max - 1 - MESSAGE_LINES))
        if self.prompt:
            table = [*table[:max(0, lines_max - 2)], clip(plain(self.prompt), columns)]
        text = self.to_top()
        if self.height is None:
            text = "\033[H\033[2J" + "".join(f"{line}\n" for line in self.messages[-MESSAGE_LINES:])
        text += "".join(f"{line}\033[K\n" for line in table) + "\033[J"
        self.height = len(table) if self.put(text) else None

    def close(self) -> None:
        """The last table stays; the terminal is as it was before."""
        if self.old_mode is not None:
            set_mode(self.fd, self.old_mode)
            self.old_mode = None
        if self.output != self.fd:
            os.close(self.output)
            self.output = self.fd
        self.is_terminal = False

    def to_top(self) -> str:
        return f"\r\033[{self.height}A" if self.height else "\r"

    def lose_place(self, _signal: int, _frame: FrameType | None) -> None:
        """The shell has written something while this process was stopped."""
        self.height = None
        self.keys_are_hidden = False

    def hide_keys(self) -> None:
        """A key that is echoed, above all Enter, would move the cursor."""
        if self.keys_are_hidden:
            return
        try:
            # In the background the terminal belongs to another program.
            if os.tcgetpgrp(self.fd) != os.getpgrp():
                return
            mode = termios.tcgetattr(self.fd)
        except (OSError, termios.error):
            return
        self.old_mode = self.old_mode or list(mode)
        self.keys_are_hidden = True
        local = mode[3]
        assert isinstance(local, int)
        mode[3] = local & ~termios.ECHO
        set_mode(self.fd, mode)

    def put(self, text: str) -> bool:
        """Writes all of it, if the other side takes it now. Pieces of 512 bytes: whoever can be
        written to at all takes so many without a wait, also a pipe."""
        data = text.encode("utf-8", "replace")
        try:
            while data:
                if not select.select([], [self.output], [], 0.1)[1]:
                    return False
                data = data[os.write(self.output, data[:512]):]
        except BlockingIOError:
            return False
        except (OSError, ValueError):
            self.is_gone = True
            return False
        return True


def open_without_waiting(fd: int) -> int:
    """The same terminal once more, because O_NONBLOCK on `fd` itself would be the shell's, too."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return fd


def size_of(fd: int) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        columns = lines = 0
    return columns or COLUMNS_DEFAULT, lines or LINES_DEFAULT


def set_mode(fd: int, mode: list[object]) -> None:
    """SIGTTOU would stop this process if it is in the background now."""
    old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        termios.tcsetattr(fd, termios.TCSANOW, mode)  # type: ignore[arg-type]
    except (OSError, termios.error):
        # The terminal is gone, and its mode with it.
        pass
    finally:
        signal.signal(signal.SIGTTOU, old)
