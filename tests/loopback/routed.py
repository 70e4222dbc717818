"""A second network, behind a router, and what is said between the two."""

import os
import re
import subprocess
import sys
from pathlib import Path

from harness import wait_until

INSIDE, OUTSIDE = "10.77.1.1", "10.77.2.1"
SUBNET = "10.77.1.0/24"


class Routed:
    """The case itself is at INSIDE. `outside` is what a command begins with to run at OUTSIDE.
    `length`: of the prefix of both addresses."""

    def __init__(self, stage, length=24):
        # A namespace lasts as long as a process in it.
        router, outside = (
            stage.start(name, ["unshare", "--net", "--", "sleep", "600"])
            for name in ("router", "outside"))
        wait_until("the namespaces are there", 10,
                   lambda: all(own_namespace(holder.pid) for holder in (router, outside)))
        self.router_pid = router.pid
        at_router, self.outside = (enter(holder.pid) for holder in (router, outside))
        for command in (
            f"ip link add inside0 type veth peer name left netns {router.pid}",
            f"ip address add {INSIDE}/{length} dev inside0",
            "ip link set inside0 up",
            *(f"{at_router} {line}" for line in (
                f"ip link add right type veth peer name outside0 netns {outside.pid}",
                "ip address add 10.77.1.254/24 dev left",
                "ip address add 10.77.2.254/24 dev right",
                "ip link set left up",
                "ip link set right up",
                "sysctl --quiet --write net.ipv4.ip_forward=1")),
            *(f"{self.outside} {line}" for line in (
                f"ip address add {OUTSIDE}/{length} dev outside0",
                "ip link set lo up",
                "ip link set outside0 up",
                "ip route add 10.77.1.0/24 via 10.77.2.254")),
            "ip route add 10.77.2.0/24 via 10.77.1.254",
        ):
            subprocess.run(command.split(), check=True)
        self.listening = stage.start(
            "sniffer", [*at_router.split(), sys.executable, "-u", Path(__file__)])
        wait_until("the router is watched", 10, lambda: "watching" in self.listening.output())

    def carried_bytes(self):
        """What the router has sent on, headers included: (to OUTSIDE, to INSIDE)."""
        text = Path(f"/proc/{self.router_pid}/net/dev").read_text()
        counters = {name.strip(): values.split() for name, _, values in
                    (line.partition(":") for line in text.splitlines())}
        return int(counters["right"][8]), int(counters["left"][8])

    def passed(self):
        """(port, from INSIDE, bytes of payload) for each packet with payload, and for each that
        opens a connection: these have none. The port is the one that was called: clients listen
        below 32768, where the kernel takes no port for a call."""
        lines = re.findall(r"^(\d+) (in|out) (\d+)$", self.listening.output(), re.M)
        return {(int(port), way == "out", int(payload)) for port, way, payload in lines}


def own_namespace(pid):
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def enter(pid):
    return f"nsenter --net=/proc/{pid}/ns/net --"


def sniff():
    """At the router: a line for each TCP packet that has payload or opens a connection."""
    import socket
    # Of all protocols: else packets that leave by this interface are not seen (packet(7)).
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    wire.bind(("left", 3))
    print("watching")
    while True:
        packet = wire.recv(1 << 16)
        head = (packet[0] & 15) * 4
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            continue
        from_inside = packet[12:16] == socket.inet_aton(INSIDE)
        port = min(int.from_bytes(packet[at:at + 2], "big") for at in (head, head + 2))
        payload = int.from_bytes(packet[2:4], "big") - head - (packet[head + 12] >> 4) * 4
        opens = packet[head + 13] & 0x12 == 0x02
        if payload or opens:
            print(port, "out" if from_inside else "in", payload)


if __name__ == "__main__":
    sniff()
