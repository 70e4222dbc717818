"""Where do the words of `serve` go? To the terminal, or what stands in its place, and to
log/serve.log, which is there when the terminal is gone."""
from __future__ import annotations

import os
import time
from collections.abc import Sequence

from . import table
from .page import Totals
from .row import Row
from .state import State
from .table import Terminal


class Output:
    """Nothing in here ends a job: a terminal may be gone, and a disk may be full."""

    def __init__(self, state: State) -> None:
        self.terminal = Terminal()
        self.states: dict[str, str] = {}
        try:
            self.log = os.open(state.logs / "serve.log",
                               os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self.log = -1

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self.terminal.say(f"serve: {line}")
            self.note(line)

    def print(self, text: str) -> None:
        """A table: without the name of the program in each line."""
        for line in text.splitlines():
            self.terminal.say(line)
            self.note(line)

    def show(self, rows: Sequence[Row], totals: Totals, prompt: str) -> None:
        self.terminal.prompt = prompt
        self.terminal.show(rows, totals)
        lines, self.states = table.changes(self.states, rows)
        for line in lines:
            self.note(line)

    def progress(self, text: str) -> None:
        """A line that the next one replaces. Only for eyes."""
        if self.terminal.is_terminal:
            self.terminal.put(f"\r{text}\033[K\r")

    def note(self, line: str) -> None:
        try:
            os.write(self.log, f"{time.strftime('%F %T')} {line}\n".encode())
        except OSError:
            pass

    def close(self) -> None:
        self.terminal.close()
