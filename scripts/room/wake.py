"""How is a machine switched on from here? By Wake-on-LAN."""
import socket
from collections.abc import Iterable

# "discard": nobody listens there. Network cards look for the pattern in any packet.
PORT = 9


def magic_packet(mac: str) -> bytes:
    """Six bytes 0xFF, then the address of the card sixteen times (AMD's "Magic Packet")."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace("-", "")) * 16


def wake(macs: Iterable[str], address: str) -> None:
    """Sends by broadcast on the network in which `address` is ours: a socket that is bound to an
    address sends to 255.255.255.255 through the interface of that address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.bind((address, 0))
        for mac in macs:
            sender.sendto(magic_packet(mac), ("255.255.255.255", PORT))
