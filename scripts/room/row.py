"""What is shown of a machine? One row: on the terminal, on the page, in status.json and in the
results."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .hostile import TEXT_CHARS_MAX
from .job import Image, Machine
from .machine import COMPLETE_STATES, Seen, are_hooks_due


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
    # `fetched` and `uploaded` as they went over the network, where blocks may be compressed.
    fetched_wire: int = 0
    uploaded_wire: int = 0
    # Bytes of its images, and those that it does not have yet.
    bytes: int = 0
    left: int = 0
    # False with --no-verify.
    read_back: bool = True
    # It is complete, and nobody knows that its hooks have run.
    hooks_due: bool = False
    # Only an address that the kernel knows to be another machine's speaks for it: a router with
    # NAT, or somebody who makes machines up.
    hearsay: bool = False


def make_row(machine: Seen, named: Machine | None, is_expected: bool, images: Sequence[Image],
             lengths: Mapping[str, int], now: float) -> Row:
    """`named`: the machine as the list has it. `lengths`: bytes of each image, by its name."""
    sums = sum_parts(machine, images, lengths)
    active = machine.state in ("scanning", "downloading", "verifying", "seeding")
    complete = machine.state in COMPLETE_STATES and not machine.again
    disks = list(machine.disks.values())
    return Row(
        mac="" if machine.mac == machine.address and not named else machine.mac,
        name=named.name if named else machine.mac,
        address=machine.address,
        state=machine.state,
        listed=is_expected,
        percent=100.0 if machine.state in COMPLETE_STATES else sums.percent,
        down=sums.down if active and machine.state != "seeding" else 0,
        up=sums.up if active else 0,
        fetched=sums.fetched,
        uploaded=sums.uploaded,
        fetched_wire=sums.fetched_wire,
        uploaded_wire=sums.uploaded_wire,
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
        hooks_due=complete and are_hooks_due(machine),
        back=machine.back,
        again=machine.again,
        error=machine.error or "",
        words=machine.words,
    )


@dataclass
class Sums:
    """Of all parts of a machine."""

    percent: float = 0.0
    down: int = 0
    up: int = 0
    fetched: int = 0
    uploaded: int = 0
    fetched_wire: int = 0
    uploaded_wire: int = 0
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
        sums.fetched_wire += part.fetched_wire
        sums.uploaded_wire += part.uploaded_wire
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
