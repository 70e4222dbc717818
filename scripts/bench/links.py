"""Machines for scripts/bench: network namespaces on one bridge, with a shaped link each, and how much went over it.

A machine is a namespace with one veth, `eth0`, whose other end is a port of a bridge. tbf(8) shapes both ways: on eth0
what the machine sends, on the port what it receives. Namespaces have no name: a process holds each of them, and when that
ends, which the kernel sees to however the bench ends, the namespace, its veth and its queues are gone.
"""

import os
import subprocess
import time
from pathlib import Path

from .common import CONGESTION_CONTROL, Failure, Node, Process

TRACKER_ADDRESS = "10.77.255.1"
# As many bytes as TCP hands down in one piece, and as many as the shaper lets through at once. Were
# a piece larger than the burst, tbf would cut it up: the same rate, at ten times the packets and
# the CPU. Were both 64 KiB, a link of 50 Mbit/s would stutter in steps of 10 ms.
CHUNK_BYTES = 16000
# TCP makes its pieces smaller the slower a connection is, down to two segments, and then the timers
# of the shapers are all that two cores do at n = 32. The same for everybody: ten segments fill a
# chunk.
CHUNK_SEGMENTS = 10


class Network:
    """`count` machines, the first of them the seeder; and the tracker's address, on the bridge itself, not shaped."""

    def __init__(self, count, rate_bits, queue_ms, log):
        self.holders, self.machines = [], []
        # A queue like that of a small switch: so many milliseconds of the line.
        limit_bytes = max(round(rate_bits / 8 * queue_ms / 1000), 2 * CHUNK_BYTES)
        self.shaper = f"tbf rate {round(rate_bits)}bit burst {CHUNK_BYTES} limit {limit_bytes}"
        try:
            # A bridge is no firewall here.
            for setting in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
                setting.write_text("0\n")
            batch("ip", [
                "link set lo up", "link add br0 type bridge mcast_snooping 0", "link set br0 addrgenmode none",
                "link set br0 up", f"address add {TRACKER_ADDRESS}/16 dev br0",
            ])
            self.holders = [Process(["unshare", "--net", "--", "sleep", "infinity"], log) for _ in range(count)]
            for index, holder in enumerate(self.holders):
                self.machines.append(self.make_machine(index, holder, count))
            batch("tc", [f"qdisc add dev m{index} root {self.shaper}" for index in range(count)])
        except BaseException:
            self.close()
            raise

    def make_machine(self, index, holder, count):
        pid = holder.child.pid
        wait_for_namespace(pid)
        address = ip_address(index)
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        batch("ip", [
            f"link add m{index} type veth peer name eth0 address {mac_address(index)} netns {pid}",
            f"link set m{index} master br0 gso_max_size {CHUNK_BYTES} addrgenmode none", f"link set m{index} up",
        ])
        batch("ip", [
            f"link set eth0 gso_max_size {CHUNK_BYTES} addrgenmode none", "link set lo up", "link set eth0 up",
            f"address add {address}/16 broadcast + noprefixroute dev eth0", "route add 224.0.0.0/4 dev eth0",
            f"route add 10.77.0.0/16 dev eth0 scope link src {address} congctl {CONGESTION_CONTROL}",
        ] + neighbours(index, count), enter)
        batch("tc", [f"qdisc add dev eth0 root {self.shaper}"], enter)
        order = f"echo {CHUNK_SEGMENTS} > /proc/sys/net/ipv4/tcp_min_tso_segs"
        subprocess.run([*enter, "sh", "-c", order], check=True)
        return Node("seeder" if index == 0 else f"machine-{index}", address, enter)

    def bytes_up_down(self):
        """What each machine has sent and received so far. A piece cut up later counts with one header."""
        counted = [None] * len(self.machines)
        for line in Path("/proc/net/dev").read_text().splitlines():
            name, _, words = line.strip().partition(":")
            if name[0] == "m" and name[1:].isdigit():
                words = words.split()
                # What the port receives is what the machine sends.
                counted[int(name[1:])] = int(words[0]), int(words[8])
        return counted

    def close(self):
        # Now, and not a while after the last process of each namespace: the next network has the
        # same names.
        orders = "".join(f"link delete {link}\n" for link in ["br0"] + [f"m{n}" for n in range(len(self.holders))])
        subprocess.run(["ip", "-force", "-batch", "-"], input=orders, text=True, check=False, capture_output=True)
        for holder in self.holders:
            holder.stop()


def ip_address(index):
    return f"10.77.{index // 200}.{index % 200 + 2}"


def mac_address(index):
    return f"02:00:00:00:{index // 256:02x}:{index % 256:02x}"


def neighbours(index, count):
    """Everybody's address, for good. The kernel has one table for all namespaces (arp(7), gc_thresh3: 1024 entries), and 33
    machines that know each other overflow it: some pairs could not talk, and the machine that was hit most starved."""
    return [f"neighbour replace {ip_address(other)} lladdr {mac_address(other)} nud permanent dev eth0"
            for other in range(count) if other != index]


def wait_for_namespace(pid):
    own, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/net") == own:
        if time.monotonic() > deadline:
            raise Failure("a namespace was not made in time")
        time.sleep(0.005)


def batch(tool, lines, prefix=()):
    told = subprocess.run([*prefix, tool, "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True,
                          check=False)
    if told.returncode != 0:
        raise Failure(f"{tool}: {told.stderr.strip()}")
