"""What do signals and keys ask `serve` to do?

Handlers only count. Every wait of `serve` is a call of `Signals.wait`, which returns at once when
one arrives.
"""
from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from enum import IntEnum
from types import FrameType

# How long the question after the first Ctrl-C stands. Without an answer the job goes on: forty
# machines are worth more than a key that was pressed by mistake.
QUESTION_SECS = 20.0
QUESTION = "end the job now (e), or keep going (k)? No answer: it keeps going."


# Ctrl-C, kill, and the key that is left when Ctrl-C only asks.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class Wish(IntEnum):
    """How badly somebody wants the end of the job. Each further signal is one step."""

    NONE = 0
    # Ctrl-C on a terminal: first ask what is meant.
    ASKED = 1
    # Stop the tracker, wait until machines have left, print the table.
    END = 2
    # Wait for nobody.
    AT_ONCE = 3


class Signals:
    """Of this process. A lost terminal (SIGHUP, SIGPIPE) is no reason to end a job."""

    def __init__(self) -> None:
        self.wish = Wish.NONE
        self.asked_at = 0.0
        self.keyboard = Keyboard()
        self.reader, writer = os.pipe()
        for end in (self.reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in ENDINGS:
            signal.signal(number, self.handle)
        # Python gives it back to a child.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        # A handler, since a child would inherit SIG_IGN.
        signal.signal(signal.SIGHUP, lambda *_: self.keyboard.lose())

    def handle(self, number: int, _frame: FrameType | None) -> None:
        asks = number == signal.SIGINT and self.keyboard.is_there()
        if self.wish == Wish.NONE and asks:
            self.wish, self.asked_at = Wish.ASKED, time.monotonic()
        else:
            self.wish = Wish(min(max(self.wish, Wish.ASKED) + 1, Wish.AT_ONCE))

    def wait(self, seconds: float) -> None:
        """Until then, or until a signal or an answer."""
        asking = self.wish == Wish.ASKED
        self.keyboard.single_keys(asking)
        sources = [self.reader, *([self.keyboard.descriptor] if asking else [])]
        ready = select.select(sources, [], [], seconds)[0]
        if self.reader in ready:
            os.read(self.reader, 4096)
        if asking and self.wish == Wish.ASKED:
            answer = self.keyboard.read_key() if self.keyboard.descriptor in ready else ""
            late = time.monotonic() - self.asked_at >= QUESTION_SECS
            if answer == "e":
                self.wish = Wish.END
            elif answer == "k" or late or not self.keyboard.is_there():
                self.wish = Wish.NONE

    def ignore(self) -> None:
        """The end has begun, and is not to be interrupted."""
        for number in (*ENDINGS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def ends(self) -> bool:
        return self.wish >= Wish.END


class Keyboard:
    """The standard input, if it is a terminal."""

    def __init__(self) -> None:
        self.descriptor = 0
        self.single = False
        self.lost = not sys.stdin or not os.isatty(self.descriptor)

    def is_there(self) -> bool:
        return not self.lost

    def lose(self) -> None:
        self.lost = True
        self.single = False

    def read_key(self) -> str:
        """One key, without waiting. A terminal gives a line at a time, unless it is told not to."""
        try:
            key = os.read(self.descriptor, 1)
        except OSError:
            key = b""
        if not key:
            self.lose()
        return key.decode("ascii", "replace").lower()

    def single_keys(self, on: bool) -> None:
        """Without an Enter."""
        if self.lost or on == self.single:
            return
        self.single = on
        try:
            mode = termios.tcgetattr(self.descriptor)
            mode[3] = mode[3] & ~termios.ICANON if on else mode[3] | termios.ICANON
            termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)
        except (OSError, termios.error):
            self.lose()
