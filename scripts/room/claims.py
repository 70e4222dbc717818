"""Who may speak for a MAC address? Anybody in the room can send a report.

The kernel of the server knows which MAC is behind an address of its own network; `serve` logs that
as `neighbour` lines (`neighbour_entries` says which are missing; feed them before asking for
decisions).
- An address that the kernel knows to have this MAC speaks for it, and from then on only such
  addresses do. What others have said in its name before is forgotten.
- Otherwise the first address that spoke for it does: one behind a router, of which the kernel knows
  nothing (it is not on the link), or a stranger, of which the kernel knows another MAC.
- A stranger makes way for any other address, and decides nothing about what the machine with this
  MAC boots. What it says of a machine that nobody else speaks for is a flag: the machine is missing
  (`doubted`). Only a router with NAT or proxy ARP is believed: a stranger, by its MAC, that speaks
  for many machines and is none of them itself.
What is refused may turn out to be right when the neighbour line comes a moment later, so the latest
of it is kept until then.
"""
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .job import parse_mac
from .log import Entry
from .machine import Seen, forget

# Addresses of which the neighbour table says something, and that were refused.
ADDRESSES_MAX = 8192
# Reports of a refused address that are kept until the kernel says whose it is: init's and the
# agent's first states.
REFUSED_PER_ADDRESS_MAX = 4
REFUSED_ADDRESSES_MAX = 256
# Others that claimed the MAC of one machine. One is enough for a flag.
CLAIMS_MAX = 4

# Fewer machines than this behind a router look like the work of one liar.
ROUTED_MACHINES_MIN = 4

# In a routed room, a machine that has been silent for so long may come back at another address.
MOVED_SECS = 60


@dataclass
class Claims:
    # The MAC of each address, by the kernel.
    neighbours: dict[str, str] = field(default_factory=dict)
    # For each address, the machine for which it spoke last.
    speakers: dict[str, str] = field(default_factory=dict)
    # What each address said for a MAC that it may not speak for.
    refused: dict[str, list[tuple[str, Entry]]] = field(default_factory=dict)

    def speak(self, machine: Seen, address: str, entry: Entry) -> bool:
        """May this address speak for the machine? If so, it is the machine's address now."""
        is_known = self.neighbours.get(address) == machine.mac
        if not is_known and not self.may_speak(machine, address, entry):
            self.refuse(machine, address, entry)
            return False
        if machine.address != address:
            if machine.address and not machine.confirmed and (is_known or self.is_strange(machine)):
                # Somebody else spoke for it before it came.
                add_claim(machine, machine.address)
                forget(machine)
            machine.address = address
            if address in machine.claims:
                machine.claims.remove(address)
        machine.confirmed = is_known
        self.note_speaker(address, machine.mac)
        return True

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

    def doubted(self, seen: Mapping[str, Seen]) -> set[str]:
        """The machines that only a stranger has spoken for, except those behind NAT."""
        strange = [machine for machine in seen.values() if self.is_strange(machine)]
        said_by = {machine.mac: self.neighbours[machine.address] for machine in strange}
        counts = Counter(said_by.values())
        return {mac for mac, stranger in said_by.items()
                if counts[stranger] < ROUTED_MACHINES_MIN or stranger in seen}

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

    def handle_neighbour(self, entry: Entry, seen: Mapping[str, Seen]) -> list[Entry]:
        """The kernel says whose address this is. Returns what was refused and is right."""
        address, mac = str(entry.get("address", "")), parse_mac(str(entry.get("mac", "")))
        if not mac or (address not in self.neighbours and len(self.neighbours) >= ADDRESSES_MAX):
            return []
        self.neighbours[address] = mac
        own = seen.get(mac)
        if own and own.address == address:
            own.confirmed = True
        return [kept for claimed, kept in self.refused.pop(address, []) if claimed == mac]

    def mac_of(self, address: str) -> str:
        """Of a machine that does not say it; the address itself if nobody knows it."""
        return self.speakers.get(address) or self.neighbours.get(address) or address

    def addresses(self) -> set[str]:
        """Of all that spoke; `serve` asks the kernel for their MAC addresses."""
        return set(self.speakers) | set(self.refused)


def neighbour_entries(claims: Claims, table: Mapping[str, str], now: float) -> list[Entry]:
    """The lines that the log lacks. `table` is what the kernel says now: MAC by address."""
    entries: list[Entry] = []
    for address in sorted(claims.addresses()):
        mac = parse_mac(table.get(address, ""))
        if mac and claims.neighbours.get(address) != mac:
            entries.append({"time": now, "kind": "neighbour", "address": address, "mac": mac})
    return entries


def add_claim(machine: Seen, address: str) -> None:
    if address not in machine.claims and len(machine.claims) < CLAIMS_MAX:
        machine.claims.append(address)
