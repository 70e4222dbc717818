"""What is strange about a machine, so that somebody should look at it?"""
import statistics
from collections.abc import Iterable, Mapping, Sequence

from .claims import Claims
from .machine import Seen
from .row import Row

# A working agent reports every 5 s, a seeding one every 30 s. Between the request for the boot
# script and `booted` lie the kernel, the initramfs, and DHCP.
SILENT_SECS = {"booting": 120, "booted": 30, "fetching": 30, "scanning": 30, "downloading": 30,
               "verifying": 30, "seeding": 75, "hooks": 300}
# For fewer others there is no median worth a flag; and what takes a moment takes ten moments
# sometimes.
OTHERS_MIN = 3
STUCK_FACTOR = 10
STUCK_SECS_MIN = 30
SLOW_DISK_FACTOR = 3
# Reading for less than this says nothing about a disk.
SPEED_SECS_MIN = 2.0
LINK_MBPS = 1000


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


def stranger_flag(machine: Seen, claims: Claims) -> str:
    neighbour = claims.neighbours[machine.address]
    return f"{machine.address} ({neighbour}) says that it is {machine.state}"
