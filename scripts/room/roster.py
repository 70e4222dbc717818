"""Where does each machine stand? A pure function of the entries of the log and of the job.

A roster is fed entry by entry (`Roster.handle`), so a running `serve` reads each line once; a
restarted one feeds all of them again and knows the same. Then `rows(now)` and `totals` say what is
shown, and `decision(mac)` what a machine boots.

Who may speak for a MAC address? Anybody in the room can send a report. The kernel of the server
knows which MAC is behind an address of its own network; `serve` logs that as `neighbour` lines
(`neighbour_entries` says which are missing; feed them before asking for decisions).
- An address that the kernel knows to have this MAC speaks for it, and from then on only such
  addresses do. What others have said in its name before is forgotten.
- Otherwise the first address that spoke for it does: one behind a router, of which the kernel knows
  nothing, or a stranger, of which the kernel knows another MAC. A stranger may fill a row that
  would be empty (behind NAT, all machines are strangers), but makes way for any other address, and
  decides nothing about what the machine with this MAC boots.
What is refused may turn out to be right when the neighbour line comes a moment later, so the latest
of it is kept until then.
"""
import functools
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from .job import Image, Job, Machine, Torrent, images_of, job_id, parse_mac
from .log import Entry, parse_object

# In the order in which a machine goes through them. The agent reports those from `fetching` on, the
# initramfs reports `booted`, and a request for a boot script means `booting`. A machine that is
# expected and was never seen is `missing`.
STATES = ("missing", "booting", "booted", "fetching", "scanning", "downloading", "verifying",
          "seeding", "done", "failed")
ORDER = {state: number for number, state in enumerate(STATES)}
# In these the agent knows the disk, and each target has reports of its own.
PART_STATES = frozenset(("scanning", "downloading", "verifying", "seeding", "done"))
COMPLETE_STATES = frozenset(("seeding", "done"))

# What a machine boots (Roster.decision).
DEPLOY = "deploy"
OWN_DISK = "own disk"
FAILED = "failed"
UNLISTED = "unlisted"

# Anybody can fill the roster, so it has an end. Listed machines always have a place in it.
MACHINES_MAX = 4096
# Addresses of which the neighbour table says something, and that were refused.
ADDRESSES_MAX = 8192
# Reports of a refused address that are kept until the kernel says whose it is: init's and the
# agent's first states.
REFUSED_PER_ADDRESS_MAX = 4
REFUSED_ADDRESSES_MAX = 256
# Others that claimed the MAC of one machine. One is enough for a flag.
CLAIMS_MAX = 4
# Machines that are not on the list, for a message each.
TURNED_AWAY_MAX = 64
# An agent's last report has less than 4 KiB.
BODY_CHARS_MAX = 16 << 10
TEXT_CHARS_MAX = 1000
SHORT_CHARS_MAX = 100
# Larger numbers are in no machine.
NUMBER_MAX = 10**18

# In a routed room, a machine that has been silent for so long may come back at another address.
MOVED_SECS = 60
# A working agent reports every 5 s, a seeding one every 30 s. Between the request for the boot
# script and `booted` lie the kernel, the initramfs, and DHCP.
SILENT_SECS = {"booting": 120, "booted": 30, "fetching": 30, "scanning": 30, "downloading": 30,
               "verifying": 30, "seeding": 75}
# For fewer others there is no median worth a flag; and what takes a moment takes ten moments
# sometimes.
OTHERS_MIN = 3
STUCK_FACTOR = 10
STUCK_SECS_MIN = 30
SLOW_DISK_FACTOR = 3
# Reading for less than this says nothing about a disk.
SPEED_SECS_MIN = 2.0
LINK_MBPS = 1000
STRANGE_MACHINES_MAX = 3


@dataclass
class Row:
    """One machine, as everybody sees it: terminal, page, status.json, results. All text is one
    printable line of bounded length; nothing is escaped yet."""

    # "" if it reported without one; then `name` is its address.
    mac: str
    name: str
    address: str
    state: str
    # Is it on the list, or counted by --expect?
    listed: bool
    # 0 to 100, over all its images.
    percent: float
    # Bytes a second, over all its images; 0 if it is not downloading or seeding.
    down: int
    up: int
    # Bytes of payload that came over the network, and that it sent.
    fetched: int
    uploaded: int
    pieces: int
    # Pieces that were read back and found good.
    verified: int
    # Seconds until it is complete, as the agent estimates it.
    eta: int | None
    # What it waits for, if it waits.
    waiting: str
    # "QEMU HARDDISK, serial DISK1, 64 MiB"; the parts are in `disks`.
    disk: str
    # Members: target, path, model, serial, size (bytes).
    disks: list[dict[str, str | int | None]]
    link_mbps: int | None
    nic: str
    driver: str
    version: str
    # By the server's clock; None if it did not happen. From the first report of the agent until
    # everything was read back: the time that a stop watch in the room would show.
    began_at: float | None
    complete_at: float | None
    heard_at: float | None
    # Seconds since it was last heard of, when this row was made.
    silent: float | None
    # Since when it is in this state.
    state_since: float | None
    # Complete: every image of it was read back and found good (or --no-verify was asked for).
    complete: bool
    # Has it asked for its own disk after it was done?
    back: bool
    # An administrator asked to image it again, and it has not begun yet.
    again: bool
    error: str
    # Names of the file with its last words below STATE/words, or "".
    words: str
    # In words: "link has 100 Mb/s", "silent for 42 s", "claimed by 10.0.0.7, too".
    flags: list[str] = field(default_factory=list)
    # Bytes of its images, and those that it does not have yet.
    bytes: int = 0
    left: int = 0
    # False with --no-verify.
    read_back: bool = True


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


@dataclass
class Part:
    """What a machine said last about one of its targets."""

    state: str
    percent: float = 0.0
    have: int = 0
    pieces: int = 0
    # Pieces that were read back and found good.
    good: int = 0
    down: int = 0
    up: int = 0
    fetched: int = 0
    uploaded: int = 0
    eta: int | None = None
    waiting: str = ""
    read_back: bool = True
    # When the read-back was first reported, how far it was, and how far it is: for its speed.
    checking_since: float = 0.0
    checking_from: float = 0.0
    checking_till: float = 0.0
    checking_to: float = 0.0


@dataclass
class Seen:
    """What is known of one machine."""

    mac: str
    address: str = ""
    # The kernel said that this address has this MAC.
    confirmed: bool = False
    # As long as the parts say nothing.
    phase: str = "missing"
    state: str = "missing"
    state_since: float | None = None
    # Seconds in each state that it has left, in this run.
    spent: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    error: str | None = None
    # Which of several targets it was that failed.
    failed_target: str = ""
    began_at: float | None = None
    complete_at: float | None = None
    heard_at: float | None = None
    # It was complete in this job, and has neither failed since, nor did somebody ask for it again.
    done: bool = False
    back: bool = False
    again: bool = False
    # Its last request was whether to try again.
    asked_retry: bool = False
    disks: dict[str, dict[str, str | int | None]] = field(default_factory=dict)
    link_mbps: int | None = None
    nic: str = ""
    driver: str = ""
    version: str = ""
    words: str = ""
    # Other addresses that spoke for its MAC.
    claims: list[str] = field(default_factory=list)


class Roster:
    """All machines that are expected or were seen.

    A report costs 30 us with the parsing of its line (CPython 3.11, one core of a busy host), so
    1,000 a second are 3 % of a core; `rows` of 400 machines costs 6 ms."""

    def __init__(self, job: Job, torrents: Sequence[Torrent] = ()) -> None:
        self.job = job
        self.id = job_id(torrents)
        self.bytes = {torrent.name: torrent.bytes for torrent in torrents}
        self.listed = {machine.mac: machine for machine in job.machines}
        # By MAC address, or by IP address if no MAC is known. In the order of being seen, after
        # those that are listed.
        self.seen: dict[str, Seen] = {mac: Seen(mac) for mac in self.listed}
        # The MAC of each address, by the kernel.
        self.neighbours: dict[str, str] = {}
        # For each address, the machine for which it spoke last.
        self.speakers: dict[str, str] = {}
        self.refused: dict[str, list[tuple[str, Entry]]] = {}
        # Requests for a boot script from machines that are not listed, with --only-listed.
        self.turned_away: dict[str, float] = {}
        # Entries that do not say which job they mean are about the one that runs.
        self.is_running = True

    def handle(self, entry: Entry) -> None:
        kind = entry.get("kind")
        if kind in ("report", "boot", "disk", "retry", "words"):
            self.handle_words_of_machine(entry)
        elif kind == "neighbour":
            self.handle_neighbour(entry)
        elif kind == "job":
            self.is_running = entry.get("job") == self.id
        elif kind == "again":
            self.handle_again(entry)

    # --- from whom

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
                mac = (mac_of_member(report) or self.speakers.get(address)
                       or self.neighbours.get(address) or address)
        elif kind != "words":
            mac = mac_of_path(entry.get("path"))
        if not mac:
            return
        machine = self.speak(mac, address, entry)
        if machine:
            self.handle_request(machine, kind, entry, report)

    def handle_request(self, machine: Seen, kind: str, entry: Entry,
                       report: dict[str, Any] | None) -> None:
        time = float(entry["time"])
        machine.heard_at = max(time, machine.heard_at or 0.0)
        if report is not None:
            self.handle_report(machine, time, report)
        elif kind == "boot":
            self.handle_boot(machine, time, str(entry.get("query", "")))
        elif kind == "disk":
            self.handle_own_disk(machine, time)
        elif kind == "retry":
            machine.asked_retry = True
        elif kind == "words":
            machine.words = clean(str(entry.get("file", "")).rpartition("/")[2], SHORT_CHARS_MAX)

    def speak(self, mac: str, address: str, entry: Entry) -> Seen | None:
        """The machine, if this address may speak for it."""
        machine = self.seen.get(mac) or self.see(mac, address, entry)
        if machine is None:
            return None
        is_known = self.neighbours.get(address) == mac
        if not is_known and not self.may_speak(machine, address, entry):
            self.refuse(machine, address, entry)
            return None
        if machine.address != address:
            if machine.address and not machine.confirmed and (is_known or self.is_strange(machine)):
                # Somebody else spoke for it before it came.
                add_claim(machine, machine.address)
                forget(machine)
            machine.address = address
            if address in machine.claims:
                machine.claims.remove(address)
        machine.confirmed = is_known
        self.note_speaker(address, mac)
        return machine

    def may_speak(self, machine: Seen, address: str, entry: Entry) -> bool:
        """An address of which the kernel knows nothing, or another MAC."""
        if machine.confirmed:
            return False
        if machine.address in ("", address):
            return True
        if self.is_stranger(address, machine.mac):
            return False
        silent = float(entry["time"]) - (machine.heard_at or 0.0)
        return self.is_strange(machine) or (entry["kind"] == "boot" and silent >= MOVED_SECS)

    def is_stranger(self, address: str, mac: str) -> bool:
        """Does the kernel know another MAC of this address?"""
        return mac != address and self.neighbours.get(address, mac) != mac

    def is_strange(self, machine: Seen) -> bool:
        """Does a stranger speak for this machine?"""
        return not machine.confirmed and self.is_stranger(machine.address, machine.mac)

    def see(self, mac: str, address: str, entry: Entry) -> Seen | None:
        """Makes room for a machine that is not listed and that speaks for the first time."""
        if self.job.only_listed:
            if entry["kind"] == "boot" and len(self.turned_away) < TURNED_AWAY_MAX:
                self.turned_away[mac] = float(entry["time"])
            return None
        # The listed ones are in it from the beginning.
        if len(self.seen) >= MACHINES_MAX and not self.make_room(mac, address):
            return None
        machine = self.seen[mac] = Seen(mac)
        return machine

    def make_room(self, mac: str, address: str) -> bool:
        """A stranger that fills the roster makes way for machines that the kernel knows."""
        # So that `serve` asks the kernel.
        self.note_speaker(address, mac)
        if self.neighbours.get(address) != mac:
            return False
        for machine in self.seen.values():
            if machine.mac not in self.listed and self.is_strange(machine):
                del self.seen[machine.mac]
                return True
        return False

    def note_speaker(self, address: str, mac: str) -> None:
        if self.speakers.get(address) == mac:
            return
        if address not in self.speakers and len(self.speakers) >= ADDRESSES_MAX:
            return
        self.speakers[address] = mac

    def refuse(self, machine: Seen, address: str, entry: Entry) -> None:
        """Keeps the latest, until the kernel says whose address this is."""
        add_claim(machine, address)
        if address not in self.refused and len(self.refused) >= REFUSED_ADDRESSES_MAX:
            del self.refused[next(iter(self.refused))]
        kept = self.refused.setdefault(address, [])
        kept.append((machine.mac, entry))
        del kept[:-REFUSED_PER_ADDRESS_MAX]

    def handle_neighbour(self, entry: Entry) -> None:
        address, mac = str(entry.get("address", "")), parse_mac(str(entry.get("mac", "")))
        if not mac or (address not in self.neighbours and len(self.neighbours) >= ADDRESSES_MAX):
            return
        self.neighbours[address] = mac
        own = self.seen.get(mac)
        if own and own.address == address:
            own.confirmed = True
        for claimed, kept in self.refused.pop(address, []):
            if claimed == mac:
                self.handle(kept)

    # --- what was said

    def handle_report(self, machine: Seen, time: float, report: dict[str, Any]) -> None:
        state = report.get("state")
        if state == "failed":
            if not self.handle_failed(machine, report):
                return
        elif state == "booted":
            begin(machine)
            machine.phase = "booted"
        elif state == "fetching":
            # The first word of an agent, one for each target.
            if (machine.error is not None or machine.again or target_of(report) in machine.parts
                    or len(machine.parts) == self.image_count(machine)):
                begin(machine)
            machine.phase = "fetching"
        elif isinstance(state, str) and state in PART_STATES:
            if not self.handle_part(machine, time, state, report):
                return
        else:
            return
        machine.asked_retry = False
        if state not in ("booted", "failed") and machine.began_at is None:
            machine.began_at = time
        read_identity(machine, report)
        self.settle(machine, time)

    def handle_failed(self, machine: Seen, report: dict[str, Any]) -> bool:
        # Somebody asked for it again: this is about the run before, unless it has tried since.
        if machine.again and not machine.asked_retry:
            return False
        machine.again = False
        machine.done = False
        machine.error = text(report.get("error")) or "no reason given"
        # The agent goes on with its other targets.
        machine.failed_target = target_of(report) if self.image_count(machine) > 1 else ""
        part = machine.parts.get(target_of(report))
        if part:
            update_part(part, report)
        return True

    def handle_part(self, machine: Seen, time: float, state: str, report: dict[str, Any]) -> bool:
        if machine.again and state in COMPLETE_STATES:
            # The agent of the run before has not left yet.
            return False
        target = target_of(report)
        recovers = machine.error is not None and machine.failed_target in ("", target)
        if machine.again or recovers:
            begin(machine)
        machine.phase = "fetching"
        part = machine.parts.get(target)
        if part is None:
            if len(machine.parts) >= self.image_count(machine):
                # It was given another name for its disk.
                del machine.parts[next(iter(machine.parts))]
            part = machine.parts[target] = Part(state)
        part.state = state
        update_part(part, report)
        note_checking(part, time)
        return True

    def settle(self, machine: Seen, time: float) -> None:
        """Computes the state, and when it began."""
        state = self.state_of(machine)
        if state != machine.state or machine.state_since is None:
            if machine.state_since is not None:
                spent = max(0.0, time - machine.state_since)
                machine.spent[machine.state] = machine.spent.get(machine.state, 0.0) + spent
            machine.state = state
            machine.state_since = time
        if state in COMPLETE_STATES:
            machine.done = True
            if machine.complete_at is None:
                machine.complete_at = time

    def state_of(self, machine: Seen) -> str:
        if machine.error is not None:
            return "failed"
        if len(machine.parts) < self.image_count(machine):
            return machine.phase
        return min((part.state for part in machine.parts.values()), key=ORDER.__getitem__)

    def handle_boot(self, machine: Seen, time: float, query: str) -> None:
        """It asks what to boot."""
        decision = self.decision(machine.mac)
        if decision == OWN_DISK:
            # A UEFI machine has all of the answer only when it has fetched /disk/MAC.
            if "platform=efi" not in query:
                self.handle_own_disk(machine, time)
        elif decision == DEPLOY:
            begin(machine)
            machine.phase = "booting"
            self.settle(machine, time)

    def handle_own_disk(self, machine: Seen, time: float) -> None:
        if self.decision(machine.mac) != OWN_DISK:
            return
        # If it was being imaged once more, it is as far as it was.
        if machine.state in COMPLETE_STATES:
            machine.back = True
            for part in machine.parts.values():
                part.state = "done"
            self.settle(machine, time)

    def handle_again(self, entry: Entry) -> None:
        if entry.get("job") != self.id:
            return
        wanted = entry.get("machine")
        key = None if wanted == "all" else self.find(str(wanted))
        for machine in self.seen.values():
            # The others have not been imaged yet, or are being imaged.
            if wanted == "all" or machine.mac == key:
                if machine.done or machine.error is not None:
                    machine.again = True
                    machine.done = False
                    machine.back = False
                    machine.asked_retry = False

    # --- what is known

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
        if machine is None or machine.again or self.is_strange(machine):
            return DEPLOY
        if machine.error is not None:
            return FAILED
        return OWN_DISK if machine.done else DEPLOY

    def images(self, mac: str) -> tuple[Image, ...]:
        return images_of(self.listed.get(mac), self.job)

    def image_count(self, machine: Seen) -> int:
        # `serve --again` may know no images.
        return max(1, len(self.images(machine.mac)))

    def addresses(self) -> set[str]:
        """Of all that spoke; `serve` asks the kernel for their MAC addresses."""
        return set(self.speakers) | set(self.refused)

    def rows(self, now: float) -> list[Row]:
        """Listed machines first, in the order of the list; then the others as they came."""
        expected = set(self.listed) if self.listed else set(
            list(self.seen)[:self.job.expect])
        rows = [self.row(machine, machine.mac in expected, now) for machine in self.seen.values()]
        flag(list(self.seen.values()), rows, now)
        self.flag_strangers(rows)
        return rows

    def flag_strangers(self, rows: Sequence[Row]) -> None:
        """One that speaks for many is a router with NAT: nobody needs to look at each of them."""
        strange = [(row, machine) for row, machine in zip(rows, self.seen.values())
                   if self.is_strange(machine)]
        counts = Counter(row.address for row, _ in strange)
        for row, machine in strange:
            if counts[row.address] <= STRANGE_MACHINES_MAX:
                row.flags.append(f"said by {row.address}, which is "
                                 f"{self.neighbours[machine.address]}")

    def row(self, machine: Seen, listed: bool, now: float) -> Row:
        named: Machine | None = self.listed.get(machine.mac)
        sums = sum_parts(machine, self.images(machine.mac), self.bytes)
        active = machine.state in ("scanning", "downloading", "verifying", "seeding")
        complete = machine.state in COMPLETE_STATES and not machine.again
        disks = list(machine.disks.values())
        return Row(
            mac="" if machine.mac == machine.address and not named else machine.mac,
            name=named.name if named else machine.mac,
            address=machine.address,
            state=machine.state,
            listed=listed,
            percent=100.0 if machine.state in COMPLETE_STATES else sums.percent,
            down=sums.down if active and machine.state != "seeding" else 0,
            up=sums.up if active else 0,
            fetched=sums.fetched,
            uploaded=sums.uploaded,
            pieces=sums.pieces,
            verified=sums.verified,
            bytes=sums.bytes,
            left=0 if complete else sums.left,
            eta=sums.eta if machine.state == "downloading" else None,
            waiting=sums.waiting if active else "",
            disk="; ".join(disk_words(disk) for disk in disks)[:TEXT_CHARS_MAX],
            disks=disks,
            link_mbps=machine.link_mbps,
            nic=machine.nic,
            driver=machine.driver,
            version=machine.version,
            began_at=machine.began_at,
            complete_at=machine.complete_at,
            heard_at=machine.heard_at,
            silent=None if machine.heard_at is None else max(0.0, now - machine.heard_at),
            state_since=machine.state_since,
            complete=complete,
            read_back=sums.read_back,
            back=machine.back,
            again=machine.again,
            error=machine.error or "",
            words=machine.words,
        )

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


def neighbour_entries(roster: Roster, table: Mapping[str, str], now: float) -> list[Entry]:
    """The lines that the log lacks. `table` is what the kernel says now: MAC by address."""
    entries: list[Entry] = []
    for address in sorted(roster.addresses()):
        mac = parse_mac(table.get(address, ""))
        if mac and roster.neighbours.get(address) != mac:
            entries.append({"time": now, "kind": "neighbour", "address": address, "mac": mac})
    return entries


def add_claim(machine: Seen, address: str) -> None:
    if address not in machine.claims and len(machine.claims) < CLAIMS_MAX:
        machine.claims.append(address)


def forget(machine: Seen) -> None:
    """Nothing that was said in its name counts."""
    vars(machine).update(vars(Seen(machine.mac, claims=machine.claims)))


def begin(machine: Seen) -> None:
    """It has started anew: what it said about its disk no longer counts."""
    machine.parts = {}
    machine.spent = {}
    machine.state_since = None
    machine.error = None
    machine.failed_target = ""
    machine.began_at = None
    machine.complete_at = None
    machine.back = False
    machine.again = False
    machine.asked_retry = False
    machine.words = ""


# --- the sums of a row


@dataclass
class Sums:
    """Of all parts of a machine."""

    percent: float = 0.0
    down: int = 0
    up: int = 0
    fetched: int = 0
    uploaded: int = 0
    pieces: int = 0
    verified: int = 0
    bytes: int = 0
    left: int = 0
    eta: int | None = None
    waiting: str = ""
    read_back: bool = True


def sum_parts(machine: Seen, images: Sequence[Image], lengths: Mapping[str, int]) -> Sums:
    sums = Sums(bytes=sum(lengths.get(image.name, 0) for image in images))
    fractions = 0.0
    for part in machine.parts.values():
        complete = part.state in COMPLETE_STATES
        sums.percent += 100.0 if complete else part.percent
        sums.down += part.down
        sums.up += part.up
        sums.fetched += part.fetched
        sums.uploaded += part.uploaded
        sums.pieces += part.pieces
        sums.verified += part.good
        sums.waiting = sums.waiting or part.waiting
        sums.read_back = sums.read_back and part.read_back
        if part.eta is not None and not complete:
            sums.eta = max(part.eta, sums.eta or 0)
        fractions += 1.0 if complete else part.have / part.pieces if part.pieces else 0.0
    count = max(len(images), 1)
    sums.percent /= count
    sums.left = int(sums.bytes * max(0.0, 1.0 - fractions / count))
    return sums


def update_part(part: Part, report: Mapping[str, Any]) -> None:
    """Keeps the few members that are shown: a hostile report may be full of others."""
    part.percent = min(number(report.get("percent")), 100.0)
    part.pieces = whole(report.get("pieces"))
    part.have = min(whole(report.get("have")), part.pieces)
    part.good = min(whole(report.get("good")), part.pieces)
    part.down = whole(report.get("down"))
    part.up = whole(report.get("up"))
    part.fetched = whole(report.get("fetched"))
    part.uploaded = whole(report.get("uploaded"))
    part.eta = None if report.get("eta") is None else whole(report["eta"])
    part.waiting = text(report.get("waiting"))
    part.read_back = report.get("verified") is not False


def note_checking(part: Part, time: float) -> None:
    """How far the read-back has come, for the speed of the disk."""
    if part.state == "verifying":
        # It may begin anew: a bad piece is fetched once more.
        if not part.checking_since or part.percent < part.checking_to:
            part.checking_since, part.checking_from = time, part.percent
        part.checking_till, part.checking_to = time, part.percent
    elif part.state in COMPLETE_STATES and part.checking_since and part.checking_to < 100.0:
        part.checking_till, part.checking_to = time, 100.0
    elif part.state not in COMPLETE_STATES:
        part.checking_since = 0.0


def disk_words(disk: Mapping[str, str | int | None]) -> str:
    parts = [str(disk["model"] or disk["path"] or disk["target"])]
    if disk["serial"]:
        parts.append(f"serial {disk['serial']}")
    if isinstance(disk["size"], int):
        parts.append(size_words(disk["size"]))
    return ", ".join(parts)


def size_words(size: int) -> str:
    """64 MiB, 931.5 GiB"""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"


# --- flags


def flag(machines: Sequence[Seen], rows: Sequence[Row], now: float) -> None:
    """Fills in the flags: what somebody should look at."""
    links = [row.link_mbps for row in rows if row.link_mbps]
    usual_link = statistics.median_low(links) if links else 0
    speeds = [checking_speed(machine) * row.bytes for machine, row in zip(machines, rows)]
    usual_speed = median_of(speed for speed in speeds if speed)
    spent = {state: sorted(machine.spent[state] for machine in machines if state in machine.spent)
             for state in SILENT_SECS if state != "seeding"}
    for machine, row, speed in zip(machines, rows, speeds):
        row.flags = [words for words in (
            link_flag(row, usual_link), disk_flag(speed, usual_speed), silent_flag(row),
            stuck_flag(row, spent, now), claim_flag(machine)) if words]


def median_of(values: Iterable[float]) -> float:
    """0 if there are too few of them. The machine itself is one of them."""
    known = list(values)
    return statistics.median(known) if len(known) > OTHERS_MIN else 0.0


def link_flag(row: Row, usual: int) -> str:
    if not row.link_mbps:
        return ""
    if row.link_mbps < LINK_MBPS:
        return f"link has {row.link_mbps} Mb/s"
    if row.link_mbps < usual:
        return f"link has {row.link_mbps} Mb/s, others have {usual}"
    return ""


def disk_flag(speed: float, usual: float) -> str:
    """A disk shows its speed in the read-back. During the download it waits for the network."""
    if not speed or speed * SLOW_DISK_FACTOR > usual:
        return ""
    return f"disk reads {speed / 1e6:.0f} MB/s, others {usual / 1e6:.0f}"


def checking_speed(machine: Seen) -> float:
    """In images a second, or 0 if it is not known."""
    done = seconds = 0.0
    for part in machine.parts.values():
        if part.checking_since:
            done += (part.checking_to - part.checking_from) / 100
            seconds += part.checking_till - part.checking_since
    return done / len(machine.parts) / seconds if seconds >= SPEED_SECS_MIN else 0.0


def silent_flag(row: Row) -> str:
    limit = SILENT_SECS.get(row.state)
    if limit is None or row.silent is None or row.silent < limit:
        return ""
    return f"silent for {row.silent:.0f} s"


def stuck_flag(row: Row, spent: Mapping[str, Sequence[float]], now: float) -> str:
    others = spent.get(row.state, ())
    if len(others) < OTHERS_MIN or row.state_since is None:
        return ""
    seconds, usual = now - row.state_since, statistics.median(others)
    if seconds < STUCK_SECS_MIN or seconds <= STUCK_FACTOR * usual:
        return ""
    return f"{row.state} for {seconds:.0f} s, others {usual:.0f} s"


def claim_flag(machine: Seen) -> str:
    return f"claimed by {', '.join(machine.claims)}, too" if machine.claims else ""


# --- hostile input


def read_report(body: object) -> dict[str, Any] | None:
    if not isinstance(body, str) or len(body) > BODY_CHARS_MAX:
        return None
    return parse_object(body)


# A machine repeats its query in each report.
@functools.lru_cache(maxsize=8192)
def read_query_text(query: str) -> tuple[str, str | None]:
    values = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        values[key] = unquote(value)
    return values.get("job", ""), parse_mac(values.get("mac", ""))


def read_query(query: object) -> tuple[str, str | None]:
    """The job and the MAC address that a request names, if it does."""
    if not isinstance(query, str) or not query:
        return "", None
    # None of our jobs has a name of this kind.
    return read_query_text(query) if len(query) <= TEXT_CHARS_MAX else ("too long", None)


def mac_of_path(path: object) -> str | None:
    """/boot/52-54-00-77-00-01"""
    if not isinstance(path, str) or len(path) > TEXT_CHARS_MAX:
        return None
    return parse_mac(path.partition("?")[0].rpartition("/")[2])


def mac_of_member(report: Mapping[str, Any]) -> str | None:
    mac = report.get("mac")
    return parse_mac(mac) if isinstance(mac, str) else None


def read_identity(machine: Seen, report: Mapping[str, Any]) -> None:
    """What the agent says about the machine. A report without it says nothing new."""
    machine.nic = text(report.get("nic"), SHORT_CHARS_MAX) or machine.nic
    machine.driver = text(report.get("driver"), SHORT_CHARS_MAX) or machine.driver
    machine.version = text(report.get("version"), SHORT_CHARS_MAX) or machine.version
    machine.link_mbps = whole(report.get("link_mbps")) or machine.link_mbps
    disk = report.get("disk")
    target = target_of(report)
    # One for each part.
    if isinstance(disk, dict) and target in machine.parts:
        known = machine.disks.get(target, {})
        machine.disks = {part: found for part, found in machine.disks.items()
                         if part in machine.parts}
        machine.disks[target] = {
            "target": target,
            "path": text(disk.get("path"), SHORT_CHARS_MAX) or known.get("path"),
            "model": text(disk.get("model"), SHORT_CHARS_MAX) or known.get("model"),
            "serial": text(disk.get("serial"), SHORT_CHARS_MAX) or known.get("serial"),
            "size": whole(disk.get("size")) or known.get("size"),
        }


def target_of(report: Mapping[str, Any]) -> str:
    return text(report.get("target"), SHORT_CHARS_MAX)


def number(value: object) -> float:
    """A JSON number; 0 if it is missing, has another type, or is none that a machine sends."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return 0
    # False for NaN, too.
    return value if 0 <= value <= NUMBER_MAX else 0


def whole(value: object) -> int:
    return int(number(value))


def text(value: object, most: int = TEXT_CHARS_MAX) -> str:
    """A JSON string as a part of one line."""
    return clean(value, most) if isinstance(value, str) and value else ""


# Letters that are drawn over the one before. A hundred of them on one letter cover other lines.
MARKS = ("Mn", "Me")


def clean(value: str, most: int) -> str:
    """On a terminal a control character is a command, and a sign for the direction of writing turns
    the rest of the line around. Python calls none of them printable."""
    value = value[:4 * most]
    if not (value.isascii() and value.isprintable()):
        letters = unicodedata.normalize("NFC", value)
        value = "".join(letter if letter.isprintable() else " " for letter in letters
                        if unicodedata.category(letter) not in MARKS)
        value = re.sub(" +", " ", value)
    return value.strip()[:most]
