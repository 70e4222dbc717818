"""Where does one machine stand, after what it said? Nothing here asks whether it was this machine
that said it: claims.py does."""
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .hostile import SHORT_CHARS_MAX, number, text, whole

# In the order in which a machine goes through them. The agent reports those from `fetching` on, the
# initramfs reports `booted`, and a request for a boot script means `booting`. A machine that is
# expected and was never seen is `missing`. In a job with hooks, `hooks` lies between the `done` of
# the agent and that of the initramfs.
STATES = ("missing", "booting", "booted", "fetching", "scanning", "downloading", "verifying",
          "seeding", "hooks", "done", "failed")
ORDER = {state: number for number, state in enumerate(STATES)}
# In these the agent knows the disk, and each target has reports of its own.
PART_STATES = frozenset(("scanning", "downloading", "verifying", "seeding", "done"))
COMPLETE_STATES = frozenset(("seeding", "hooks", "done"))

# What a machine boots. UNLISTED: its own disk, since it is not on the list.
DEPLOY = "deploy"
OWN_DISK = "own disk"
FAILED = "failed"
UNLISTED = "unlisted"


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
    fetched_wire: int = 0
    uploaded_wire: int = 0
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
    # How many images it gets.
    image_count: int = 1
    has_hooks: bool = False
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
    # The initramfs said that its hooks have run.
    hooks_ran: bool = False
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


def handle_report(machine: Seen, time: float, report: dict[str, Any]) -> None:
    state = report.get("state")
    if state == "failed":
        if not handle_failed(machine, report):
            return
    elif state == "booted":
        begin(machine)
        machine.phase = "booted"
    elif state == "fetching":
        # The first word of an agent, one for each target.
        if (machine.error is not None or machine.again or target_of(report) in machine.parts
                or len(machine.parts) == machine.image_count):
            begin(machine)
        machine.phase = "fetching"
    elif state == "done" and "scripts" in report:
        if not handle_hooks(machine, report):
            return
    elif isinstance(state, str) and state in PART_STATES:
        if not handle_part(machine, time, state, report):
            return
    else:
        return
    machine.asked_retry = False
    if state not in ("booted", "failed") and machine.began_at is None:
        machine.began_at = time
    read_identity(machine, report)
    settle(machine, time)


def handle_failed(machine: Seen, report: dict[str, Any]) -> bool:
    # Somebody asked for it again: this is about the run before, unless it has tried since.
    if machine.again and not machine.asked_retry:
        return False
    machine.again = False
    machine.done = False
    machine.error = text(report.get("error")) or "no reason given"
    # The agent goes on with its other targets.
    machine.failed_target = target_of(report) if machine.image_count > 1 else ""
    part = machine.parts.get(target_of(report))
    if part:
        update_part(part, report)
    return True


def handle_hooks(machine: Seen, report: Mapping[str, Any]) -> bool:
    """What the initramfs says after the agent has ended. It is no proof that an image is there."""
    if machine.again or machine.state not in COMPLETE_STATES or report["scripts"] != "ok":
        return False
    machine.hooks_ran = True
    # The last words of the agent may be lost.
    end_parts(machine)
    return True


def handle_part(machine: Seen, time: float, state: str, report: dict[str, Any]) -> bool:
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
        if len(machine.parts) >= machine.image_count:
            # It was given another name for its disk.
            del machine.parts[next(iter(machine.parts))]
        part = machine.parts[target] = Part(state)
    part.state = state
    update_part(part, report)
    note_checking(part, time)
    return True


def settle(machine: Seen, time: float) -> None:
    """Computes the state, and when it began."""
    state = state_of(machine)
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


def state_of(machine: Seen) -> str:
    if machine.error is not None:
        return "failed"
    if len(machine.parts) < machine.image_count:
        return machine.phase
    state = min((part.state for part in machine.parts.values()), key=ORDER.__getitem__)
    return "hooks" if state == "done" and are_hooks_due(machine) else state


def are_hooks_due(machine: Seen) -> bool:
    return machine.has_hooks and not machine.hooks_ran


def handle_boot(machine: Seen, time: float, query: str, decision: str) -> None:
    """It asks what to boot."""
    if decision == OWN_DISK:
        # A UEFI machine has all of the answer only when it has fetched /disk/MAC.
        if "platform=efi" not in query:
            handle_own_disk(machine, time)
    elif decision == DEPLOY:
        begin(machine)
        machine.phase = "booting"
        settle(machine, time)


def handle_own_disk(machine: Seen, time: float) -> None:
    # If it was being imaged once more, it is as far as it was.
    if machine.state in COMPLETE_STATES:
        machine.back = True
        end_parts(machine)
        settle(machine, time)


def end_parts(machine: Seen) -> None:
    for part in machine.parts.values():
        part.state = "done"


def forget(machine: Seen) -> None:
    """Nothing that was said in its name counts."""
    vars(machine).update(vars(nothing_said(machine)))


def nothing_said(machine: Seen) -> Seen:
    """The machine, as if it had said nothing."""
    return Seen(machine.mac, machine.image_count, machine.has_hooks, claims=machine.claims)


def image_again(machine: Seen) -> None:
    """An administrator asked for it. One that has not been imaged yet, or is being imaged, goes
    on."""
    if machine.done or machine.error is not None:
        machine.again = True
        machine.done = False
        machine.back = False
        machine.asked_retry = False


def decision(machine: Seen) -> str:
    """What it boots."""
    if machine.again:
        return DEPLOY
    if machine.error is not None:
        return FAILED
    return OWN_DISK if machine.done else DEPLOY


def begin(machine: Seen) -> None:
    """It has started anew: what it said about its disk no longer counts."""
    machine.parts = {}
    machine.spent = {}
    machine.state_since = None
    machine.error = None
    machine.failed_target = ""
    machine.hooks_ran = False
    machine.began_at = None
    machine.complete_at = None
    machine.back = False
    machine.again = False
    machine.asked_retry = False
    machine.words = ""


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
    part.fetched_wire = whole(report.get("fetched_wire"))
    part.uploaded_wire = whole(report.get("uploaded_wire"))
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
