"""What network do the machines of a swarm have?

Namespaces on one bridge, with a shaped link each, and byte counters.

A machine is a namespace with one veth, `eth0`, whose other end is a port of a bridge. tbf(8) shapes
both ways: on eth0 what the machine sends, on the port what it receives. Namespaces have no name: a
process holds each of them. When that process ends, which the kernel sees to however the bench ends,
the namespace, its veth and its queues are gone.

With rooms, each room has a bridge and a subnet of its own, and so have the seeder and the tracker.
A router, which is a namespace, too, has one veth to each bridge: the cable of the room, shaped both
ways and counted.
"""

import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from .common import Failure
from .process import Node, Process

TRACKER_ADDRESS = "10.77.255.1"
# The same TCP rate control for all contenders: Debian's default. It is a property of routes
# (ip-route(8)), because the default of a namespace is the host's, and the bench must not change the
# host.
CONGESTION_CONTROL = "cubic"
# As many bytes as TCP hands down in one piece, and as many as the shaper lets through at once. Were
# a piece larger than the burst, tbf would cut it up: the same rate, at ten times the packets and
# the CPU. Were both 64 KiB, a link of 50 Mbit/s would stutter in steps of 10 ms.
CHUNK_BYTES = 16000
# TCP makes its pieces smaller the slower a connection is, down to two segments. At n = 32 the two
# cores then do nothing but run the timers of the shapers. Ten segments fill a chunk; the same for
# all contenders.
CHUNK_SEGMENTS = 10


class Network:
    """`count` machines, the first of them the seeder. The tracker's address is on the bridge itself
    and not shaped. `rooms`: their number, and the rate of the cable of each; 0: all machines are on
    one bridge."""

    def __init__(self, count: int, rate_bits: int, queues: tuple[int, int],
                 log: Path, rooms: tuple[int, int] = (0, 0)) -> None:
        self.holders: list[Process] = []
        self.machines: list[Node] = []
        self.rooms, cable_bits = rooms
        # What waits before the uplink of each machine, and before its downlink.
        up, down = (max(queue, 2 * CHUNK_BYTES) for queue in queues)
        shaper = f"tbf rate {round(rate_bits)}bit burst {CHUNK_BYTES} limit"
        self.up_shaper = f"{shaper} {up}"
        try:
            make_bridge(24 if self.rooms else 16)
            holder = ["unshare", "--net", "--", "sleep", "infinity"]
            # The router is the last one.
            self.holders = [Process(holder, log) for _ in range(count + (self.rooms > 0))]
            if self.rooms:
                self.make_router(f"tbf rate {round(cable_bits)}bit burst {CHUNK_BYTES} limit {up}")
            for index in range(count):
                self.machines.append(self.make_machine(index, count))
            batch("tc", [f"qdisc add dev m{index} root {shaper} {down}" for index in range(count)])
        except BaseException:
            self.close()
            raise

    def make_machine(self, index: int, count: int) -> Node:
        pid = self.holders[index].pid
        wait_for_namespace(pid)
        address, mac = self.address(index), mac_address(index)
        bridge = f"br{self.room(index)}"
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        batch("ip", [
            f"link add m{index} type veth peer name eth0 address {mac} netns {pid}",
            f"link set m{index} master {bridge} gso_max_size {CHUNK_BYTES} addrgenmode none",
            f"link set m{index} up",
        ])
        batch("ip", [
            f"link set eth0 gso_max_size {CHUNK_BYTES} addrgenmode none",
            "link set lo up",
            "link set eth0 up",
            f"address add {address}/{24 if self.rooms else 16} broadcast + noprefixroute dev eth0",
            "route add 224.0.0.0/4 dev eth0",
            *self.routes(index),
            *self.neighbours(index, count),
        ], enter)
        batch("tc", [f"qdisc add dev eth0 root {self.up_shaper}"], enter)
        write = f"echo {CHUNK_SEGMENTS} > /proc/sys/net/ipv4/tcp_min_tso_segs"
        subprocess.run([*enter, "sh", "-c", write], check=True)
        return Node("seeder" if index == 0 else f"machine-{index}", address, enter)

    def room(self, index: int) -> int:
        """Room 0 is that of the seeder and the tracker, and of all machines if there is one."""
        return 1 + (index - 1) % self.rooms if self.rooms and index > 0 else 0

    def address(self, index: int) -> str:
        if not self.rooms:
            return f"10.77.{index // 200}.{index % 200 + 2}"
        return f"10.77.{self.room(index) or 255}.{2 + index // self.rooms}"

    def routes(self, index: int) -> list[str]:
        tail = f"src {self.address(index)} congctl {CONGESTION_CONTROL}"
        if not self.rooms:
            return [f"route add 10.77.0.0/16 dev eth0 scope link {tail}"]
        subnet = f"10.77.{self.room(index) or 255}"
        return [f"route add {subnet}.0/24 dev eth0 scope link {tail}",
                f"route add 10.77.0.0/16 via {subnet}.254 {tail}"]

    def neighbours(self, index: int, count: int) -> list[str]:
        """The addresses of all other machines of the room, permanent. The kernel has one table for
        all namespaces (arp(7), gc_thresh3: 1024 entries), and 33 machines that learn each other's
        addresses overflow it: some pairs could not talk, and the machine that was hit most
        starved."""
        return [
            f"neighbour replace {self.address(other)} lladdr {mac_address(other)} nud permanent "
            "dev eth0"
            for other in range(count) if other != index and self.room(other) == self.room(index)
        ]

    def make_router(self, shaper: str) -> None:
        pid = self.holders[-1].pid
        wait_for_namespace(pid)
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        # Room 0 has no cable that is shaped.
        for room in range(self.rooms + 1):
            if room > 0:
                batch("ip", [f"link add br{room} type bridge mcast_snooping 0",
                             f"link set br{room} addrgenmode none", f"link set br{room} up"])
            batch("ip", [
                f"link add r{room} type veth peer name c{room} netns {pid}",
                f"link set r{room} master br{room} gso_max_size {CHUNK_BYTES} addrgenmode none",
                f"link set r{room} up"])
            batch("ip", [
                f"link set c{room} gso_max_size {CHUNK_BYTES} addrgenmode none",
                f"link set c{room} up",
                f"address add 10.77.{room or 255}.254/24 dev c{room}"], enter)
            if room > 0:
                batch("tc", [f"qdisc add dev r{room} root {shaper}"])
                batch("tc", [f"qdisc add dev c{room} root {shaper}"], enter)
        subprocess.run([*enter, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
        batch("ip", ["route add 10.77.0.0/16 via 10.77.255.254"])

    def cable_bytes_up_down(self) -> list[tuple[int, int]]:
        """What has passed the cable of each room so far."""
        counted = counters("r")
        # What the port of the router sends has come up from the room.
        return [(counted[room][1], counted[room][0]) for room in range(1, self.rooms + 1)]

    def bytes_up_down(self) -> list[tuple[int, int]]:
        """What each machine has sent and received so far. A piece that is cut up later counts with
        one header."""
        counted = counters("m")
        # What the port receives is what the machine sends.
        return [counted.get(index, (0, 0)) for index in range(len(self.machines))]

    def close(self) -> None:
        # At once, and not some time after the last process of each namespace has ended: the next
        # network has the same names.
        links = [f"{kind}{room}" for kind in ("br", "r") for room in range(self.rooms + 1)]
        links += [f"m{index}" for index in range(len(self.holders))]
        commands = "".join(f"link delete {link}\n" for link in links)
        subprocess.run(["ip", "-force", "-batch", "-"], input=commands, text=True, check=False,
                       capture_output=True)
        for holder in self.holders:
            holder.stop()


def counters(kind: str) -> dict[int, tuple[int, int]]:
    """Bytes that each interface of this kind has received and sent, by its number."""
    counted = {}
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, values = line.strip().partition(":")
        if name[0] == kind and name[1:].isdigit():
            words = values.split()
            counted[int(name[1:])] = int(words[0]), int(words[8])
    return counted


def make_bridge(length: int) -> None:
    # Its frames do not pass the host's firewall.
    for setting in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        setting.write_text("0\n")
    batch("ip", [
        "link set lo up",
        "link add br0 type bridge mcast_snooping 0",
        "link set br0 addrgenmode none",
        "link set br0 up",
        f"address add {TRACKER_ADDRESS}/{length} dev br0",
    ])


def mac_address(index: int) -> str:
    return f"02:00:00:00:{index // 256:02x}:{index % 256:02x}"


def wait_for_namespace(pid: int) -> None:
    own, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        if time.monotonic() > deadline:
            raise Failure("a namespace was not made in time")
        time.sleep(0.005)


def batch(tool: str, lines: Iterable[str], prefix: Iterable[str] = ()) -> None:
    answer = subprocess.run([*prefix, tool, "-batch", "-"], input="\n".join(lines) + "\n",
                            text=True, capture_output=True, check=False)
    if answer.returncode != 0:
        raise Failure(f"{tool}: {answer.stderr.strip()}")


# ---- Without namespaces: all nodes on the loopback interface


def join_loopback(nodes: Iterable[Node]) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for node in nodes:
        # Not 127.0.0.0/8: transmission takes no peer from there.
        address = f"{node.address}/24"
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
        route = ["local", node.address, "dev", "lo", "table", "local", "proto", "kernel", "scope",
                 "host", "src", node.address, "congctl", CONGESTION_CONTROL]
        subprocess.run(["ip", "route", "replace", *route], check=True)
