"""How did it end? The closing table, results.json and results.csv, and the exit status."""
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .job import Job
from .machine import COMPLETE_STATES
from .roster import Totals
from .row import Row
from .table import clip, pad, width

COLUMNS = ("name", "mac", "address", "disk", "serial", "pieces", "verified", "fetched", "seconds",
           "mb_per_second", "complete", "result", "fetched_wire")
# The table fits a terminal of this width, and a mail.
TABLE_CHARS_MAX = 100
REASON_LINES_MAX = 4


def all_good(rows: Sequence[Row], totals: Totals, job: Job) -> bool:
    """All that are expected are complete, nobody has failed, and no hook is left out. If nobody
    said who is expected, all that began must be complete."""
    if totals.failed or totals.again or any(row.hooks_due for row in rows):
        return False
    if job.machines:
        return all(row.complete for row in rows if row.listed)
    if job.expect:
        return sum(row.complete and not row.hearsay for row in rows) >= job.expect
    return all(row.complete for row in rows if row.state not in ("missing", "booting"))


def words(row: Row) -> str:
    """The result of one machine."""
    if row.state == "failed":
        return f"failed: {row.error}"
    if row.state == "missing":
        return "missing: never asked to boot"
    if row.again and row.state in COMPLETE_STATES:
        return "to be imaged again, and has not begun"
    if row.state not in COMPLETE_STATES:
        return f"unfinished: {row.state}" + (f" {row.percent:.0f} %" if row.percent else "")
    result = ("complete, hooks not finished" if row.hooks_due else
              "done" if row.state == "done" else "complete, has not left")
    return result if row.read_back else f"{result}, not read back"


def seconds(row: Row) -> float:
    """Until it was complete; 0 if it is not."""
    if row.began_at is None or row.complete_at is None:
        return 0.0
    return max(0.0, row.complete_at - row.began_at)


def speed(row: Row) -> float:
    """Bytes of images a second, whether they came over the network or were there."""
    took = seconds(row)
    return row.bytes / took if took else 0.0


def result(row: Row) -> dict[str, Any]:
    """One machine, as results.json has it."""
    return {
        "name": row.name, "mac": row.mac, "address": row.address, "listed": row.listed,
        "state": row.state, "complete": row.complete, "read_back": row.complete and row.read_back,
        "result": words(row), "error": row.error, "disk": row.disk, "disks": row.disks,
        "pieces": row.pieces, "verified": row.verified, "fetched": row.fetched,
        "uploaded": row.uploaded, "fetched_wire": row.fetched_wire,
        "uploaded_wire": row.uploaded_wire, "seconds": round(seconds(row), 3),
        "mb_per_second": round(speed(row) / 1e6, 1), "began_at": row.began_at,
        "complete_at": row.complete_at, "link_mbps": row.link_mbps, "flags": row.flags,
        "words": row.words}


def results(rows: Sequence[Row], totals: Totals, job: Job, id: str, why: str,
            now: float) -> dict[str, Any]:
    """`why` says in words why the job has ended. Machines of which nobody knows a name or an
    address are only a number, in `missing`."""
    return {
        "job": id, "ended_at": now, "why": why, "good": all_good(rows, totals, job),
        "expected": totals.expected, "complete": totals.complete, "failed": totals.failed,
        "missing": totals.missing,
        "missing_names": [row.name for row in rows if row.state == "missing"],
        "images": [{"name": image.name, "path": image.path, "target": image.target}
                   for image in job.images],
        "machines": [result(row) for row in rows]}


def csv_text(found: Mapping[str, Any]) -> str:
    """For a spreadsheet, which takes a cell that begins with = + - @ for a formula. All of these
    texts come from the network, so they get an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for machine in found["machines"]:
        serials = "; ".join(str(disk["serial"]) for disk in machine["disks"] if disk["serial"])
        values = machine | {"serial": serials}
        writer.writerow([cell(values[column]) for column in COLUMNS])
    return text.getvalue()


def cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return "'" + value
    return value


def table(rows: Sequence[Row], totals: Totals) -> str:
    """What is printed at the end. Names may be long, so they share what the numbers leave."""
    lines = [line("machine", "disk", "pieces", "fetched", "seconds", "MB/s", "result")]
    for row in rows:
        serials = ",".join(str(disk["serial"]) for disk in row.disks if disk["serial"])
        is_known = row.pieces > 0
        lines.append(line(
            row.name, serials or row.disk or "-",
            f"{row.verified}/{row.pieces}" if is_known else "-",
            f"{row.fetched / 1e6:.0f} MB" if is_known else "-",
            f"{seconds(row):.1f}" if row.complete else "-",
            f"{speed(row) / 1e6:.1f}" if row.complete else "-", words(row)))
    return "\n".join([*lines, "", summary(rows, totals)]) + "\n"


def line(name: str, disk: str, pieces: str, fetched: str, took: str, rate: str,
         ending: str) -> str:
    fixed = (f"{pad(clip(name, 17), 17)} {pad(clip(disk, 14), 14)} {pieces:>11} {fetched:>9} "
             f"{took:>7} {rate:>6}  ")
    # A reason is too long for one line now and then: it goes on below.
    first, *more = wrap(ending, TABLE_CHARS_MAX - width(fixed))
    return "\n".join([fixed + first, *(" " * width(fixed) + part for part in more)]).rstrip()


def wrap(text: str, columns: int) -> list[str]:
    """At most REASON_LINES_MAX lines; results.json has the rest."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if width(longer) <= columns:
            lines[-1] = longer
        elif len(lines) == REASON_LINES_MAX:
            lines[-1] = clip(longer, columns)
            break
        else:
            lines.append(clip(word, columns))
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def summary(rows: Sequence[Row], totals: Totals) -> str:
    """30 complete, 1 failed, 2 unfinished, 1 missing (lab-07), 34 expected"""
    counts = f"{totals.complete} complete, {totals.failed} failed, {totals.working} unfinished"
    if totals.again:
        counts += f", {totals.again} to be imaged again"
    if totals.missing:
        names = [row.name for row in rows if row.state == "missing"]
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        counts += f", {totals.missing} missing" + (f" ({shown})" if names else "")
    if totals.expected:
        counts += f", {totals.expected} expected"
    fetched, wire = (sum(row.fetched for row in rows), sum(row.fetched_wire for row in rows))
    if 0 < wire < fetched:
        counts += f"; {fetched / 1e9:.1f} GB fetched, {wire / 1e9:.1f} GB on the wire"
    return counts


def write(state: str, found: Mapping[str, Any]) -> None:
    """results.json and results.csv in the state directory."""
    write_whole(os.path.join(state, "results.json"),
                json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_whole(os.path.join(state, "results.csv"), csv_text(found))


def write_whole(path: str, text: str) -> None:
    """A reader sees the old file or the new one, also after a power cut."""
    new = path + ".new"
    with open(new, "w", encoding="utf-8", errors="replace", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
