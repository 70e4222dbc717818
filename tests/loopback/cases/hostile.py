"""Does a download survive hostile trackers and peers, in bounded memory?"""

import os
import random
import socket
import struct
import threading
import time

from fixtures import Server, same_bytes
from harness import KIB, MIB, aria2, can_connect, check, libtorrent, random_file, wait_until
from torrent import Torrent

MEMORY_MIB = 24


def hostile_trackers_cannot_stop_a_download(stage):
    """Whatever the tracker answers, a known peer suffices, and the memory stays below its limit."""
    image = stage.image("image", 8 * MIB + 777)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /announce\r\nContent-Length: 0\r\n\r\n"
    answers = {
        "nothing": b"",
        "noise": os.urandom(5000),
        "no bencode": head % 4 + b"oops",
        "endless": [b"HTTP/1.1 200 OK\r\n\r\n", *[b"i1e" * 100_000] * 200],
        "a huge promise": head % (1 << 62) + b"d",
        "deep": head % 200_000 + b"l" * 200_000,
        "endless head": [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n" * 10_000] * 100],
        "an endless redirect": redirect,
        "peers that cannot be": head % 20 + b"d5:peers7:\0\0\0\0\0\0\0ee",
        "huge strings": head % 40 + b"d5:peers99999999999999999999:aaaaaaaaaaae",
        "failure": head % 40 + b"d14:failure reason17:we do not like it" + b"ee",
    }
    _, peer = stage.seed(Torrent(stage.directory, image, 256 * KIB), image)
    for what, answer in answers.items():
        port = stage.port()
        with Server(port, [answer]) as server:
            torrent = Torrent(stage.directory, image, 256 * KIB, server)
            options = ["--memory", MEMORY_MIB, "--peer", f"127.0.0.1:{peer}", "--seed-secs", 1]
            agent = stage.get(*options, torrent.path, f"target-{port}")
            peak = watch_memory(agent)
            agent.expect(0, 40)
            check(server.asked, f"{what}: the tracker was never asked")
        check(same_bytes(image, stage.path(f"target-{port}")), f"{what}: the target differs")
        check(peak <= MEMORY_MIB * KIB, f"{what}: {peak} KiB")


def watch_memory(agent):
    """Until the agent ends; returns its peak in KiB."""
    peak = 0
    while agent.is_running():
        try:
            peak = max(peak, agent.status_field("VmHWM"))
        except (OSError, AttributeError):
            break  # it has just ended
        time.sleep(0.02)
    return peak


def hostile_peers_cannot_stop_a_download(stage):
    """They connect all the time, while the agent fetches from an honest, slow seeder and while it
    serves."""
    image = stage.image("image", 16 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    port = stage.port()
    libtorrent(stage, torrent, stage.directory, port, seeds=True, rate=4 * MIB)
    own = stage.port()
    agent = stage.agent("get", "--memory", MEMORY_MIB, "--listen", f"127.0.0.1:{own}",
                        "--peer", f"127.0.0.1:{port}", "--seed-secs", 3, torrent.path, "target")
    wait_until("it listens", 10, lambda: can_connect(own))
    rng = random.Random(7)
    attacks = list_of_attacks(torrent)
    connections, sent, peak = [], 0, 0
    while agent.is_running():
        # Each one three times in turn, then at random.
        in_turn = sent < 3 * len(attacks)
        attack = attacks[sent % len(attacks)] if in_turn else rng.choice(attacks)
        try:
            attacker = socket.create_connection(("127.0.0.1", own), timeout=1)
            attacker.settimeout(0.2)
            attacker.sendall(attack)
            connections.append(attacker)
            sent += 1
        except OSError:
            pass
        if len(connections) > 150:
            connections.pop(rng.randrange(len(connections))).close()
        try:
            peak = max(peak, agent.status_field("VmHWM"))
        except (OSError, AttributeError):
            break
        time.sleep(0.005)
    for attacker in connections:
        attacker.close()
    agent.expect(0, 60)
    check(sent >= 2 * len(attacks), f"only {sent} attacks")
    check(same_bytes(image, stage.path("target")), "the target differs")
    check(peak <= MEMORY_MIB * KIB, f"{peak} KiB")


def list_of_attacks(torrent):
    hello = handshake(torrent)
    return [
        b"", b"GET / HTTP/1.0\r\n\r\n", os.urandom(3000), hello[:40], hello,
        handshake(torrent, info_hash=os.urandom(20)),
        hello + struct.pack(">I", 0xFFFFFFFF) + os.urandom(1000),
        hello + message(5, b"\xff" * 100),
        hello + message(5, b"\xff" * 8) + message(5, b"\xff" * 8),
        hello + message(4, struct.pack(">I", 1 << 31)),
        hello + message(6, struct.pack(">III", 0, 0, 1 << 31)),
        hello + message(6, struct.pack(">III", 0, 0xFFFFFFF0, 16384)),
        hello + message(7, struct.pack(">II", 0, 0) + bytes(16384)),
        hello + message(7, struct.pack(">II", 1 << 31, 1 << 31) + bytes(100)) * 50,
        hello + message(7, struct.pack(">II", 0, 0)),
        hello + message(20, b"\0" + b"l" * 60_000),
        hello + message(20, b"\0d4:reqqi-5ee"),
        hello + message(14) + message(15) + message(2) + message(3) * 10_000,
        hello + message(99, os.urandom(60_000)),
        hello + message(2) + message(6, struct.pack(">III", 0, 0, 16384)) * 5000,
    ]


def handshake(torrent, *, info_hash=None):
    wanted = info_hash or bytes.fromhex(torrent.info_hash)
    return b"\x13BitTorrent protocol" + bytes(8) + wanted + b"-XX0000-" + os.urandom(12)


def message(number, body=b""):
    return struct.pack(">IB", 1 + len(body), number) + body


def a_peer_with_wrong_data_is_banned(stage):
    """One seeder has another image under the same torrent: its pieces are bad, and the job succeeds
    all the same. (Our own seeder would not serve an image with bad bytes.)"""
    image = stage.image("image", 12 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    place = stage.directory_for("liar")
    random_file(place / image.name, 12 * MIB)
    liar = stage.port()
    aria2(stage, torrent, place, liar, seeds=True, verified=False)
    wait_until("the liar listens", 20, lambda: can_connect(liar))
    honest = f"127.0.0.2:{stage.port()}"
    agent = stage.get("--peer", f"127.0.0.1:{liar}", "--peer", honest, "--no-seed",
                      torrent.path, "target")
    banned = f"127.0.0.1:{liar} alone, which is banned"
    wait_until("the liar is named", 20, lambda: banned in agent.output())
    stage.agent("seed", "--listen", honest, torrent.path, image)
    agent.expect(0, 60)
    check(same_bytes(image, stage.path("target")), "the target differs")


class Peer:
    """A raw peer with the fast extension and the extension protocol."""

    def __init__(self, torrent, connection):
        self.connection = connection
        connection.settimeout(30)
        hello = bytearray(handshake(torrent))
        hello[25] |= 0x10
        hello[27] |= 4
        connection.sendall(hello)
        self.exactly(68)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def say(self, number, *numbers, body=b""):
        fields = struct.pack(f">{len(numbers)}I", *numbers)
        self.connection.sendall(message(number, fields + body))

    def hear(self):
        length = struct.unpack(">I", self.exactly(4))[0]
        data = self.exactly(length)
        return (data[0], data[1:]) if data else (None, b"")


def peers_that_swallow_requests_and_talk_cost_little(stage):
    """Twelve peers have everything, never answer a request and repeat `unchoke`. The honest seeder
    is limited, so that they have time to be asked; and there is memory for fewer pieces than they
    can hold up."""
    image = stage.image("image", 96 * MIB)
    torrent = Torrent(stage.directory, image, 4 * MIB)
    _, seeder = stage.seed(torrent, image, "--max-up", "16M")
    own = stage.port()
    agent = stage.agent("get", "--memory", 24, "--listen", f"127.0.0.1:{own}",
                        "--peer", f"127.0.0.1:{seeder}", "--no-seed", torrent.path, "target")
    wait_until("it listens", 10, lambda: can_connect(own))
    talkers = []
    for _ in range(12):
        talkers.append(Peer(torrent, socket.create_connection(("127.0.0.1", own), timeout=5)))
        talkers[-1].say(14)
        # One request each: so they are asked for blocks of different pieces.
        talkers[-1].say(20, body=b"\0d4:reqqi1ee")
        talkers[-1].say(1)
        time.sleep(0.2)
    begun = time.monotonic()
    while agent.is_running() and time.monotonic() < begun + 25:
        for talker in talkers:
            try:
                talker.say(1)
            except OSError:
                pass
        time.sleep(0.5)
    for talker in talkers:
        talker.connection.close()
    agent.expect(0, 1)
    check(same_bytes(image, stage.path("target")), "the target differs")


def one_flipped_bit_of_the_only_source_does_not_end_a_job(stage):
    """The source sends one bad block in its life. It is asked again a moment later."""
    image = stage.image("image", 4 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    data = image.read_bytes()
    flips = [5]

    def serve(connection):
        peer = Peer(torrent, connection)
        peer.say(14)
        peer.say(1)
        while True:
            number, body = peer.hear()
            if number == 6:
                piece, begin, length = struct.unpack(">III", body)
                start = piece * 256 * KIB + begin
                block = bytearray(data[start : start + length])
                if piece in flips:
                    flips.remove(piece)
                    block[77] ^= 1
                peer.say(7, piece, begin, body=bytes(block))

    def listen(listener):
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            try:
                serve(connection)
            except (EOFError, ConnectionError):
                pass  # the agent has hung up, perhaps over unread blocks, and may call again

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target")
        agent.expect(0, 20)
    check(not flips, "no bad block was sent")
    check("which is banned for a while" in agent.output(), agent.tail())
    check(same_bytes(image, stage.path("target")), "the target differs")


def idle_connections_do_not_shut_out_others(stage):
    """One address sits on every seat of a seed, and another on every place before the handshake."""
    image = stage.image("image", 2 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, port = stage.seed(torrent, image)

    def sit(host, hello):
        idle = socket.create_connection(("127.0.0.1", port), 5, source_address=(host, 0))
        idle.sendall(hello)
        idle.settimeout(5)
        return idle

    seated = []
    for _ in range(80):
        seated.append(sit("127.0.0.3", handshake(torrent)))
        # One after the other: there are only 64 places for those that have not been heard yet.
        check(len(seated[-1].recv(68)) == 68, "the seed does not answer")
    silent = [sit("127.0.0.4", b"\x13") for _ in range(64)]
    # A quarter of a minute: it is sent away while the seats have just been taken.
    stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target").expect(0, 15)
    check(same_bytes(image, stage.path("target")), "the target differs")
    for idle in seated + silent:
        idle.close()


CASES = [
    idle_connections_do_not_shut_out_others,
    hostile_trackers_cannot_stop_a_download,
    hostile_peers_cannot_stop_a_download,
    a_peer_with_wrong_data_is_banned,
    peers_that_swallow_requests_and_talk_cost_little,
    one_flipped_bit_of_the_only_source_does_not_end_a_job,
]
