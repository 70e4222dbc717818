"""Where do all machines stand? A pure function of the entries of the log and of the job.

A roster is fed entry by entry (`Roster.handle`), so a running `serve` reads each line once; a
restarted one feeds all of them again and knows the same. Then `rows(now)` and `totals` say what is
shown, and `decision(mac)` what a machine boots.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import machine as machines
from .claims import Claims
from .flags import flag, stranger_flag
from .hostile import SHORT_CHARS_MAX, clean, mac_of_member, mac_of_path, read_query, read_report
from .job import Image, Job, Torrent, images_of, job_id, parse_mac
from .log import Entry
from .machine import DEPLOY, OWN_DISK, UNLISTED, Seen, nothing_said
from .row import Row, make_row

# Anybody can fill the roster, so it has an end. Listed machines always have a place in it.
MACHINES_MAX = 4096
# Machines that are not on the list, for a message each.
TURNED_AWAY_MAX = 64


@dataclass
class Totals:
    """How many machines are how far. The rates and bytes of the room are in page.py."""

    # How many there should be; 0: nobody knows.
    expected: int
    complete: int
    failed: int
    missing: int
    # Seen, and neither complete nor failed.
    working: int
    # Those that an administrator asked to image again, and that have not begun.
    again: int


class Roster:
    """All machines that are expected or were seen.

    A report costs 30 us with the parsing of its line (CPython 3.11, one core of a busy host), so
    1,000 a second are 3 % of a core; `rows` of 400 machines costs 6 ms."""

    def __init__(self, job: Job, torrents: Sequence[Torrent] = (), table: str = "") -> None:
        self.job = job
        self.id = job_id(torrents, table)
        self.bytes = {torrent.name: torrent.bytes for torrent in torrents}
        self.listed = {machine.mac: machine for machine in job.machines}
        # By MAC address, or by IP address if no MAC is known. In the order of being seen, after
        # those that are listed.
        self.seen: dict[str, Seen] = {mac: self.new(mac) for mac in self.listed}
        self.claims = Claims()
        # Requests for a boot script from machines that are not listed, with --only-listed.
        self.turned_away: dict[str, float] = {}
        # Entries that do not say which job they mean are about the one that runs.
        self.is_running = True

    def handle(self, entry: Entry) -> None:
        kind = entry.get("kind")
        if kind in ("report", "boot", "disk", "retry", "words"):
            self.handle_words_of_machine(entry)
        elif kind == "neighbour":
            for kept in self.claims.handle_neighbour(entry, self.seen):
                self.handle(kept)
        elif kind == "job":
            self.is_running = entry.get("job") == self.id
        elif kind == "again":
            self.handle_again(entry)

    def handle_words_of_machine(self, entry: Entry) -> None:
        """Something that came from the network."""
        address = str(entry.get("address", ""))[:64]
        kind = entry["kind"]
        job, mac = read_query(entry.get("query")) if kind in ("report", "words") else ("", None)
        if (job != self.id) if job else not self.is_running:
            return
        report = None
        if kind == "report":
            report = read_report(entry.get("body"))
            if report is None:
                return
            if not mac:
                mac = mac_of_member(report) or self.claims.mac_of(address)
        elif kind != "words":
            mac = mac_of_path(entry.get("path"))
        if not mac:
            return
        machine = self.seen.get(mac) or self.see(mac, address, entry)
        if machine and self.claims.speak(machine, address, entry):
            self.handle_request(machine, entry, report)

    def handle_request(self, machine: Seen, entry: Entry, report: dict[str, Any] | None) -> None:
        time, kind = float(entry["time"]), entry["kind"]
        machine.heard_at = max(time, machine.heard_at or 0.0)
        if report is not None:
            machines.handle_report(machine, time, report)
        elif kind == "boot":
            machines.handle_boot(machine, time, str(entry.get("query", "")),
                                 self.decision(machine.mac))
        elif kind == "disk" and self.decision(machine.mac) == OWN_DISK:
            machines.handle_own_disk(machine, time)
        elif kind == "retry":
            machine.asked_retry = True
        elif kind == "words":
            machine.words = clean(str(entry.get("file", "")).rpartition("/")[2], SHORT_CHARS_MAX)

    def see(self, mac: str, address: str, entry: Entry) -> Seen | None:
        """Makes room for a machine that is not listed and that speaks for the first time."""
        if self.job.only_listed:
            if entry["kind"] == "boot" and len(self.turned_away) < TURNED_AWAY_MAX:
                self.turned_away[mac] = float(entry["time"])
            return None
        # The listed ones are in it from the beginning.
        if len(self.seen) >= MACHINES_MAX and not self.make_room(mac, address):
            return None
        machine = self.seen[mac] = self.new(mac)
        return machine

    def make_room(self, mac: str, address: str) -> bool:
        """A stranger that fills the roster makes way for machines that the kernel knows."""
        # So that `serve` asks the kernel.
        self.claims.note_speaker(address, mac)
        if self.claims.neighbours.get(address) != mac:
            return False
        for machine in self.seen.values():
            if machine.mac not in self.listed and self.claims.is_strange(machine):
                del self.seen[machine.mac]
                return True
        return False

    def handle_again(self, entry: Entry) -> None:
        if entry.get("job") != self.id:
            return
        wanted = entry.get("machine")
        key = None if wanted == "all" else self.find(str(wanted))
        for machine in self.seen.values():
            if wanted == "all" or machine.mac == key:
                machines.image_again(machine)

    def find(self, name: str) -> str | None:
        """The MAC address, or what else names the row, of a machine by its name or MAC address."""
        mac = parse_mac(name)
        if mac:
            return mac
        for machine in self.job.machines:
            if machine.name.lower() == name.lower():
                return machine.mac
        return name if name in self.seen else None

    def decision(self, mac: str) -> str:
        """What this machine boots: DEPLOY, OWN_DISK, FAILED (as --onfail says) or UNLISTED."""
        if self.job.only_listed and mac not in self.listed:
            return UNLISTED
        machine = self.seen.get(mac)
        if machine is None or self.claims.is_strange(machine):
            return DEPLOY
        return machines.decision(machine)

    def images(self, mac: str) -> tuple[Image, ...]:
        return images_of(self.listed.get(mac), self.job)

    def new(self, mac: str) -> Seen:
        # `serve --again` may know no images.
        return Seen(mac, max(1, len(self.images(mac))), bool(self.job.hooks))

    def rows(self, now: float) -> list[Row]:
        """Listed machines first, in the order of the list; then the others as they came."""
        expected = set(self.listed) if self.listed else set(
            list(self.seen)[:self.job.expect])
        doubted = self.claims.doubted(self.seen)
        believed = [nothing_said(machine) if machine.mac in doubted else machine
                    for machine in self.seen.values()]
        rows = [make_row(machine, self.listed.get(machine.mac), machine.mac in expected,
                         self.images(machine.mac), self.bytes, now)
                for machine in believed]
        flag(believed, rows, now)
        for row, machine in zip(rows, self.seen.values()):
            row.hearsay = self.claims.is_strange(machine)
            if row.mac in doubted:
                row.flags.append(stranger_flag(self.seen[row.mac], self.claims))
        return rows

    def totals(self, rows: Sequence[Row]) -> Totals:
        complete = sum(row.complete for row in rows)
        failed = sum(row.state == "failed" and not row.again for row in rows)
        again = sum(row.again for row in rows)
        missing = sum(row.state == "missing" for row in rows)
        return Totals(
            expected=len(self.listed) or self.job.expect,
            complete=complete,
            failed=failed,
            # With --expect, those that nobody has seen have no row.
            missing=missing + max(0, self.job.expect - len(rows)),
            working=len(rows) - complete - failed - again - missing,
            again=again,
        )
