"""A room as a picture: one line says what happened, one line says how the room looks then.

A script is a list of steps, separated by `;`. A step is `WHO WHAT [...]`:

  m1 booted              machine 1 reports from its own address, 10.77.0.1
  m1 downloading 40      at 40 %
  m1 done b              about its target b (default: disk:auto)
  m1 failed no disk      with this reason
  m1@9 done              the same words, but from the address 10.77.0.9
  m1 hooks-ok            its initramfs reports that its hooks have run
  m1 boot, m1 boot-efi, m1 disk, m1 retry, m1 words FILE
  m1 again, all again    somebody asked for it at the server
  9 is m1                the kernel says that 10.77.0.9 has the MAC of machine 1
  +40                    40 seconds pass (1 second passes after each step)
  job OTHER, job ours    `serve` starts with another job, or with ours
  m1 done job=OTHER      the report of another job

Machine N has the MAC 52-54-00-77-00-0N and, if it is listed, the name lab-N.
"""
import json
from typing import Any

from room.job import Image, Job, Machine, Torrent
from room.log import Entry
from room.roster import Roster

BYTES = 100_000_000
TORRENT = Torrent("lab.img", BYTES, "a" * 40, "disk:auto")
TWO = (Torrent("a.img", BYTES, "a" * 40, "a"), Torrent("b.img", BYTES, "b" * 40, "b"))
PIECES = 100


def mac(who: str) -> str:
    return f"52-54-00-77-00-{int(who.removeprefix('m')):02}"


def who(name: str) -> str:
    """m1 from the MAC; other names stay."""
    return "m" + name[-2:].lstrip("0") if name.startswith("52-54-00-77-00-") else name


def job(listed: int = 0, torrents: tuple[Torrent, ...] = (TORRENT,), **more: Any) -> Job:
    machines = tuple(Machine(mac(f"m{n}"), f"lab-{n}") for n in range(1, listed + 1))
    images = tuple(Image(t.name, "/" + t.name, t.target) for t in torrents)
    return Job(images=images, machines=machines, interface="eth1", **more)


def room(listed: int = 0, torrents: tuple[Torrent, ...] = (TORRENT,), **more: Any) -> Roster:
    return Roster(job(listed, torrents, **more), torrents)


def entries(script: str, ours: Roster, start: float = 1000.0) -> list[Entry]:
    """The lines of the log that the script means."""
    found = []
    time = start
    for step in script.split(";"):
        words = step.split()
        if not words:
            continue
        if words[0].startswith("+"):
            time += float(words[0])
            continue
        found.append({"time": time} | entry(words, ours))
        time += 1
    return found


def entry(words: list[str], ours: Roster) -> Entry:
    subject, verb, rest = words[0], words[1], words[2:]
    if subject == "job":
        return {"kind": "job", "job": ours.id if verb == "ours" else verb}
    if verb == "is":
        return {"kind": "neighbour", "address": f"10.77.0.{subject}", "mac": mac(rest[0])}
    if verb == "again":
        named = mac(subject) if subject.startswith("m") else subject
        return {"kind": "again", "job": ours.id, "machine": named}
    name, _, place = subject.partition("@")
    request = {"address": f"10.77.0.{place or name.removeprefix('m')}"}
    if verb in ("boot", "boot-efi"):
        platform = "efi" if verb == "boot-efi" else "pcbios"
        return request | {"kind": "boot", "path": f"/boot/{mac(name)}",
                          "query": f"platform={platform}"}
    if verb in ("disk", "retry"):
        return request | {"kind": verb, "path": f"/{verb}/{mac(name)}"}
    id = ours.id
    if rest and rest[-1].startswith("job="):
        id = rest.pop().removeprefix("job=")
    query = f"job={id}&mac={mac(name)}"
    if verb == "words":
        return request | {"kind": "words", "query": query, "file": "/var/words/" + rest[0]}
    return request | {"kind": "report", "query": query, "body": json.dumps(report(verb, rest))}


def report(state: str, rest: list[str]) -> dict[str, Any]:
    if state == "booted":
        return {"state": state}
    if state.startswith("hooks-"):
        return {"state": "done", "scripts": state.removeprefix("hooks-")}
    if state == "failed":
        return {"state": state, "error": " ".join(rest)}
    percent = float(rest.pop(0)) if rest and rest[0].isdigit() else 0.0
    have = PIECES if state in ("verifying", "seeding", "done") else int(percent)
    said: dict[str, Any] = {
        "state": state, "torrent": "lab.img", "target": rest[0] if rest else "disk:auto",
        "percent": percent, "have": have, "pieces": PIECES, "fetched": have * 1000,
        "uploaded": 0, "down": 5, "up": 7, "peers": 3, "eta": 20}
    if state == "done":
        said |= {"verified": True, "good": PIECES, "seconds": 3.5, "error": None}
    return said


def play(script: str, ours: Roster) -> Roster:
    for line in entries(script, ours):
        ours.handle(line)
    return ours


def end_of(script: str, ours: Roster) -> float:
    lines = entries(script + "; job end", ours)
    return float(lines[-1]["time"])


def picture(script: str, ours: Roster) -> str:
    """`m1 downloading 40; m2 failed: no disk; m3 done, back`: what a row says beyond its state
    follows it."""
    play(script, ours)
    shown = []
    for row in ours.rows(end_of(script, ours)):
        words = f"{who(row.mac or row.name)} {row.state}"
        if row.state in ("scanning", "downloading", "verifying"):
            words += f" {row.percent:.0f}"
        words += f": {row.error}" if row.error else ""
        words += ", back" if row.back else ""
        words += ", again" if row.again else ""
        shown.append(words + "".join(f", {flag}" for flag in row.flags))
    return "; ".join(shown)
