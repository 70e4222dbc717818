"""How does somebody who is not `serve` look at a room? The command scripts/status.

Everything is computed from the log, so it works beside a running `serve`, after one that was
killed, and for a job of last week.
"""
from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import page, past, results, words
from .past import Past
from .row import Row
from .state import HOME, Refused, Several, State, only_state, running_serve
from .table import Terminal, draw, plain

HELP = """Show where each machine of a room stands, from what the machines have reported.

Usage: scripts/status [--json | --follow | --results | --log NAME] [STATE]

STATE is the directory of a running or ended scripts/serve. Without it: the one
whose serve runs, or the only one in /var/lib/swarmdd. Everything is computed
from its log, also if serve was killed.

  (nothing)    all machines as a table; those that need somebody come first
  --follow     draw the table every second until the job has ended; elsewhere
               than on a terminal, print each change of state
  --json       what the web page shows: its status.json, computed now
  --results    the closing table as it would be now
  --log NAME   the log that a failed machine has sent; NAME is its name, its MAC
               address or its address

Exit status: 0 done, 1 failed (one line on stderr says why), 2 usage.

Example: scripts/status --log pc-07"""
WHAT = ("--json", "--follow", "--results", "--log")
POLL_SECS = 1.0
# Wider than any line: a file or a pipe has no width.
COLUMNS_OF_A_FILE = 2000


class Wrong(Exception):
    """A mistake in how the command was called."""


def main(arguments: Sequence[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(HELP)
        return 0
    # A terminal that knows only ASCII is no reason to end.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        what, name, folder = parse(arguments)
        return look(what, name, State(Path(folder).resolve()) if folder else only_state(HOME))
    except (Wrong, Several) as mistake:
        say(f"{mistake}\n`status --help` lists the options")
        return 2
    except (Refused, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def parse(arguments: Sequence[str]) -> tuple[str, str, str]:
    """What to show, the name of a machine, and the folder ("": find it)."""
    rest = list(arguments)
    what = name = ""
    if rest and rest[0].startswith("-"):
        what, equals, name = rest.pop(0).partition("=")
        if what not in WHAT or (equals and what != "--log"):
            raise Wrong(f"unknown option {arguments[0]}")
        if what == "--log" and not equals:
            name = rest.pop(0) if rest else ""
        if what == "--log" and not name:
            raise Wrong("--log wants the name of a machine")
    if len(rest) > 1 or (rest and rest[0].startswith("-")):
        raise Wrong("expected one option and one STATE")
    return what, name, rest[0] if rest else ""


def look(what: str, name: str, state: State) -> int:
    job = past.load(state)
    if what == "--follow":
        follow(job, state)
        return 0
    rows = job.roster.rows(time.time())
    if what == "--log":
        return print_words(name, rows, job, state)
    if what == "--json":
        print(json.dumps(status(job, state, rows), indent=1))
    elif what == "--results":
        print(results.table(rows, job.roster.totals(rows)), end="")
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else COLUMNS_OF_A_FILE
        totals = page.totals(rows, around(job, state))
        print("\n".join(draw(rows, totals, columns, len(rows) + 3)))
        say_if_nobody_serves(job, state)
    return 0


def follow(job: Past, state: State) -> None:
    terminal = Terminal(sys.stdout.fileno())
    # The terminal shows keys again, whatever ends this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while not terminal.is_gone:
            past.catch_up(job)
            rows = job.roster.rows(time.time())
            terminal.show(rows, page.totals(rows, around(job, state)))
            if has_ended(job):
                break
            time.sleep(POLL_SECS)
    finally:
        terminal.close()
    say_if_nobody_serves(job, state)


def has_ended(job: Past) -> bool:
    return job.ended_at >= job.started_at > 0


def say_if_nobody_serves(job: Past, state: State) -> None:
    if has_ended(job):
        say("the job has ended")
    elif not running_serve(state):
        say("its serve does not run any more; the same command line goes on with the job")


def status(job: Past, state: State, rows: Sequence[Row]) -> dict[str, object]:
    path = state.www / "status.json"
    history = page.History.load(path, job.id, job.began_at)
    return page.status(rows, around(job, state), history, time.time())


def around(job: Past, state: State) -> page.Around:
    """The log does not say what the seed sends: serve tells it in status.json, as long as it
    runs."""
    try:
        told = json.loads((state.www / "status.json").read_text(encoding="utf-8"))
        seed = told["seed"] if told["job"] == job.id else {"up": 0, "uploaded": 0}
        server, phase, sentence = str(told["server"]), str(told["phase"]), str(told["words"])
        messages = tuple((float(one["time"]), str(one["text"])) for one in told["messages"])
    except (OSError, ValueError, KeyError, TypeError):
        seed, server, phase, sentence, messages = {"up": 0, "uploaded": 0}, "", "running", "", ()
    return page.Around(
        job=job.id, title=", ".join(torrent.name for torrent in job.torrents),
        images=tuple((torrent.name, torrent.bytes) for torrent in job.torrents), server=server,
        expect=len(job.job.machines) or job.job.expect, began_at=job.began_at,
        phase="ended" if has_ended(job) else phase, words=sentence,
        seed_up=seed["up"] if running_serve(state) else 0, seed_uploaded=seed["uploaded"],
        messages=messages)


def print_words(name: str, rows: Sequence[Row], job: Past, state: State) -> int:
    key = job.roster.find(name)
    found = [row for row in rows if key and key in (row.mac, row.address) or row.address == name]
    if not found:
        raise Refused(f"there is no machine {plain(name)} in {state.root}")
    row = found[0]
    # Only a name: a path must not lead out of the folder.
    text = words.read_words(state.words / Path(row.words).name) if row.words else None
    if text is None:
        why = f"; it failed: {row.error}" if row.state == "failed" else f"; it is {row.state}"
        raise Refused(f"{plain(row.name)} has sent no log{why}")
    print(text, end="" if text.endswith("\n") else "\n")
    return 0


def say(text: str) -> None:
    for line in text.splitlines():
        print(f"status: {line}", file=sys.stderr)
