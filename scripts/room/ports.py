"""Is this port free, and if not: who holds it?"""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The state LISTEN in /proc/net/tcp, and the only state of a bound UDP socket.
LISTEN, BOUND = "0A", "07"


@dataclass(frozen=True)
class Need:
    """A port that a component is going to open."""

    # "tcp" or "udp".
    kind: str
    address: str
    port: int
    # What else can be done than to have it: an option of `serve`.
    other: str
    # A DHCP server shares its port with those of other interfaces.
    interface: str = ""


def trouble(need: Need) -> str | None:
    """What prevents us from opening this port, in a sentence; None if nothing does.

    Tried by opening it. Without SO_REUSEPORT, with which two trackers share one port and each gets
    half of the connections."""
    kind = socket.SOCK_STREAM if need.kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            if need.kind == "tcp":
                # Connections of an earlier job may still be in TIME_WAIT.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if need.interface:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE,
                                 need.interface.encode())
            probe.bind((need.address, need.port))
        except PermissionError:
            return (f"{named(need)} needs root or the capability CAP_NET_BIND_SERVICE; "
                    f"or {need.other}")
        except OSError as error:
            if error.errno == 98:  # EADDRINUSE
                return (f"{named(need)} is taken by {words_about(holders(need))}: {need.other}, "
                        "or stop it")
            return f"cannot open {named(need)} of {need.address}: {error.strerror}"
    return None


def named(need: Need) -> str:
    return f"port {need.port}" if need.kind == "tcp" else f"UDP port {need.port}"


def words_about(found: list[tuple[str, int]]) -> str:
    if not found:
        return "a process that only root can see" if os.geteuid() else "an unknown process"
    return " and ".join(f"{name} (pid {pid})" for name, pid in found)


def holders(need: Need) -> list[tuple[str, int]]:
    """(name, pid) of each process with such a socket; of processes that share it, the first."""
    wanted = set(inodes(need))
    found: dict[str, tuple[str, int]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        for inode in wanted & sockets_of(pid):
            found.setdefault(inode, (name_of(pid), pid))
    return sorted(set(found.values()), key=lambda holder: holder[1])


def inodes(need: Need) -> Iterator[str]:
    """The inodes of all sockets on this port, by proc(5). IPv6 sockets may take IPv4, too."""
    state = LISTEN if need.kind == "tcp" else BOUND
    for family in ("", "6"):
        try:
            rows = Path(f"/proc/self/net/{need.kind}{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            address, _, port = fields[1].partition(":")
            if int(port, 16) == need.port and fields[3] == state and meets(address, need.address):
                yield fields[9]


def meets(listed: str, address: str) -> bool:
    """Is the address of that socket ours, or any? It is in hexadecimal, in the order of the
    machine's words."""
    if set(listed) == {"0"} or address == "0.0.0.0":
        return True
    return listed[-8:] == socket.inet_aton(address)[::-1].hex().upper()


def sockets_of(pid: int) -> set[str]:
    """The inodes of its sockets, as far as we may see them."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                link = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            if link.startswith("socket:["):
                found.add(link[8:-1])
    except OSError:
        pass  # ended meanwhile, or of another user
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
