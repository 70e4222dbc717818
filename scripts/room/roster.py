"""Where each machine stands: a pure function of the entries of the log and of the job.

A roster is fed entry by entry (`Roster.handle`), so a running `serve` reads each line once; a
restarted one feeds all of them again and knows the same.
"""
from dataclasses import dataclass, field

# In the order in which a machine goes through them. The agent reports those from `fetching` on, the
# initramfs reports `booted`, and a request for a boot script means `booting`. A machine that is
# expected and was never seen is `missing`.
STATES = ("missing", "booting", "booted", "fetching", "scanning", "downloading", "verifying",
          "seeding", "done", "failed")


@dataclass
class Row:
    """One machine, as everybody sees it: terminal, page, status.json, results. All text is one
    printable line of bounded length; nothing is escaped yet."""

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
    disks: list[dict[str, str | int | None]]
    link_mbps: int | None
    nic: str
    driver: str
    version: str
    # By the server's clock; None if it did not happen.
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
