"""What network do the machines of a swarm have?

Namespaces on one bridge, with a shaped link each, and byte counters.

A machine is a namespace with one veth, `eth0`, whose other end is a port of a bridge. tbf(8) shapes
both ways: on eth0 what the machine sends, on the port what it receives. Namespaces have no name: a
process holds each of them. When that process ends, which the kernel sees to however the bench ends,
the namespace, its veth and its queues are gone.
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
    and not shaped."""

    def __init__(self, count: int, rate_bits: int, queues: tuple[int, int],
                 log: Path) -> None:
        self.holders: list[Process] = []
        self.machines: list[Node] = []
        # What waits before the uplink of each machine, and before its downlink.
        up, down = (max(queue, 2 * CHUNK_BYTES) for queue in queues)
        shaper = f"tbf rate {round(rate_bits)}bit burst {CHUNK_BYTES} limit"
        self.up_shaper = f"{shaper} {up}"
        try:
            make_bridge()
            holder = ["unshare", "--net", "--", "sleep", "infinity"]
            self.holders = [Process(holder, log) for _ in range(count)]
            for index in range(count):
                self.machines.append(self.make_machine(index, count))
            batch("tc", [f"qdisc add dev m{index} root {shaper} {down}" for index in range(count)])
        except BaseException:
            self.close()
            raise

    def make_machine(self, index: int, count: int) -> Node:
        pid = self.holders[index].pid
        wait_for_namespace(pid)
        address, mac = ip_address(index), mac_address(index)
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        batch("ip", [
            f"link add m{index} type veth peer name eth0 address {mac} netns {pid}",
            f"link set m{index} master br0 gso_max_size {CHUNK_BYTES} addrgenmode none",
            f"link set m{index} up",
        ])
        batch("ip", [
            f"link set eth0 gso_max_size {CHUNK_BYTES} addrgenmode none",
            "link set lo up",
            "link set eth0 up",
            f"address add {address}/16 broadcast + noprefixroute dev eth0",
            "route add 224.0.0.0/4 dev eth0",
            "route add 10.77.0.0/16 dev eth0 scope link "
            f"src {address} congctl {CONGESTION_CONTROL}",
            *neighbours(index, count),
        ], enter)
        batch("tc", [f"qdisc add dev eth0 root {self.up_shaper}"], enter)
        write = f"echo {CHUNK_SEGMENTS} > /proc/sys/net/ipv4/tcp_min_tso_segs"
        subprocess.run([*enter, "sh", "-c", write], check=True)
        return Node("seeder" if index == 0 else f"machine-{index}", address, enter)

    def bytes_up_down(self) -> list[tuple[int, int]]:
        """What each machine has sent and received so far. A piece that is cut up later counts with
        one header."""
        counted = [(0, 0)] * len(self.machines)
        for line in Path("/proc/net/dev").read_text().splitlines():
            name, _, counters = line.strip().partition(":")
            if name[0] == "m" and name[1:].isdigit():
                words = counters.split()
                # What the port receives is what the machine sends.
                counted[int(name[1:])] = int(words[0]), int(words[8])
        return counted

    def close(self) -> None:
        # At once, and not some time after the last process of each namespace has ended: the next
        # network has the same names.
        links = ["br0"] + [f"m{index}" for index in range(len(self.holders))]
        commands = "".join(f"link delete {link}\n" for link in links)
        subprocess.run(["ip", "-force", "-batch", "-"], input=commands, text=True, check=False,
                       capture_output=True)
        for holder in self.holders:
            holder.stop()


def make_bridge() -> None:
    # Its frames do not pass the host's firewall.
    for setting in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        setting.write_text("0\n")
    batch("ip", [
        "link set lo up",
        "link add br0 type bridge mcast_snooping 0",
        "link set br0 addrgenmode none",
        "link set br0 up",
        f"address add {TRACKER_ADDRESS}/16 dev br0",
    ])


def ip_address(index: int) -> str:
    return f"10.77.{index // 200}.{index % 200 + 2}"


def mac_address(index: int) -> str:
    return f"02:00:00:00:{index // 256:02x}:{index % 256:02x}"


def neighbours(index: int, count: int) -> list[str]:
    """The addresses of all other machines, permanent. The kernel has one table for all namespaces
    (arp(7), gc_thresh3: 1024 entries), and 33 machines that learn each other's addresses overflow
    it: some pairs could not talk, and the machine that was hit most starved."""
    return [
        f"neighbour replace {ip_address(other)} lladdr {mac_address(other)} nud permanent dev eth0"
        for other in range(count) if other != index
    ]


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
