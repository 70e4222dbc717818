"""What has happened in a job so far? Its log is read, from the beginning and then as it grows."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import log, options
from .job import Job, Mistake, Torrent, job_id
from .roster import Roster
from .state import Refused, State, write_file

JOB_FILE = "job.toml"


@dataclass
class Past:
    """A job with its roster, up to what was read last."""

    job: Job
    torrents: tuple[Torrent, ...]
    reader: log.Reader
    roster: Roster
    id: str
    # See shelving.Table.plan; "": there is none.
    table: str = ""
    # Its first and its last start; 0 if there was none.
    began_at: float = 0.0
    started_at: float = 0.0
    # Whom its last start was told to image again.
    started_again: tuple[str, ...] = ()
    # Its last end, and when it began to end.
    ended_at: float = 0.0
    ending_at: float = 0.0


def open_past(job: Job, torrents: Sequence[Torrent], state: State, table: str = "") -> Past:
    past = Past(job, tuple(torrents), log.Reader(str(state.room_log)),
                Roster(job, torrents, table), job_id(torrents, table), table)
    catch_up(past)
    return past


def catch_up(past: Past) -> None:
    """Reads what was written to the log since."""
    for entry in past.reader.entries():
        past.roster.handle(entry)
        if entry.get("job") == past.id and entry.get("kind") == "job":
            past.began_at = past.began_at or entry["time"]
            past.started_at = entry["time"]
            past.started_again = tuple(entry.get("again", ()))
        elif entry.get("job") == past.id and entry.get("kind") == "ending":
            past.ending_at = entry["time"]
        elif entry.get("job") == past.id and entry.get("kind") == "end":
            past.ended_at = entry["time"]


def begin(past: Past, state: State, wanted_again: Sequence[str] = ()) -> None:
    """`serve` starts with this job: says so in the log, and keeps what was asked for, so that
    others know names and numbers."""
    write_file(state.root / JOB_FILE, options.job_text(past.job))
    note(state, "job", job=past.id, images=[vars(torrent) for torrent in past.torrents],
         **({"table": past.table} if past.table else {}), again=list(wanted_again))


def note(state: State, kind: str, **members: Any) -> None:
    log.append(str(state.room_log), {"time": time.time(), "kind": kind, **members})


def load(state: State) -> Past:
    """The last job of a state directory."""
    try:
        command = options.parse([str(state.root / JOB_FILE)], str(state.root))
    except Mistake as mistake:
        raise Refused(f"no job was started in {state.root} ({mistake})") from None
    torrents, table = None, ""
    for entry in log.Reader(str(state.room_log), b'"kind":"job"').entries():
        if entry.get("kind") == "job":
            torrents = [Torrent(**image) for image in entry["images"]]
            table = entry.get("table", "")
    if command is None or torrents is None:
        raise Refused(f"no job was started in {state.root}")
    return open_past(command.job, torrents, state, table)
