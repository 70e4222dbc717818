"""Which machines take part, and which are called?"""

from fixtures import FILE_IMAGE, same_bytes
from harness import MIB, aria2, check, wait_until
from routed import INSIDE, OUTSIDE, SUBNET, Routed
from torrent import Torrent

# A handshake has 68; aria2 then tries an encrypted one, with up to 512 bytes of padding.
OPENING_BYTES_MAX = 96 + 512


def a_peer_outside_the_subnet_gets_no_byte(stage):
    """aria2 behind a router fetches from `seed` and serves `get`. With --allow it is neither called
    nor answered, although all know each other's addresses."""
    routed = Routed(stage)
    image = stage.image("image", FILE_IMAGE)
    meeting = Meeting(stage, routed, image, "open")
    meeting.get.expect(0, 60)
    check(same_bytes(image, stage.path(meeting.target)), "the target of get differs")
    wait_until("aria2 is complete", 60, lambda: (
        meeting.leeched.exists() and same_bytes(image, meeting.leeched)))
    both = {(port, way) for port, way, payload in meeting.passed() if payload}
    check({(meeting.seed_port, True), (meeting.seed_port, False)} <= both,
          f"nothing was seen at port {meeting.seed_port}: {both}")

    meeting = Meeting(stage, routed, image, "closed", "--allow", SUBNET)
    meeting.get.expect(1, 60)
    wait_until("aria2 has called the seed", 20,
               lambda: (meeting.seed_port, False, 0) in meeting.passed())
    passed = meeting.passed()
    check(not any(from_inside for _, from_inside, _ in passed), f"it was answered: {passed}")
    # A caller introduces itself before it can see that the connection is closed. Nobody reads that.
    check(max(payload for *_, payload in passed) <= OPENING_BYTES_MAX, f"it went on: {passed}")
    fetched = meeting.get.last()[meeting.target]["fetched"]
    uploaded = meeting.seed.last()[str(image)]["uploaded"]
    check((fetched, uploaded) == (0, 0), f"fetched {fetched}, uploaded {uploaded}")


class Meeting:
    """`seed` and `get` at INSIDE, an aria2 for each of them at OUTSIDE, and a tracker."""

    def __init__(self, stage, routed, image, name, *options):
        self.routed, self.target = routed, f"{name}-target"
        self.tracker = stage.tracker(INSIDE)
        served, fetched = (Torrent(stage.directory, image, MIB, self.tracker, name=f"{name}-{what}")
                           for what in ("served", "fetched"))
        self.tracker.start(served, fetched)
        sources, place = (stage.directory_for(f"{name}-{what}") for what in ("sources", "place"))
        (sources / fetched.name).write_bytes(image.read_bytes())
        self.leeched, source_port = place / served.name, stage.port()
        outside = {"prefix": routed.outside.split(), "verified": True}
        aria2(stage, fetched, sources, source_port, seeds=True, **outside)
        self.seed, self.seed_port = stage.seed(served, image, *options, host=INSIDE)
        aria2(stage, served, place, stage.port(), seeds=False, **outside)
        self.get = stage.agent(
            "get", "--listen", f"{INSIDE}:{stage.port()}", "--peer", f"{OUTSIDE}:{source_port}",
            "--stall-secs", 8, "--no-seed", *options, fetched.path, self.target)
        self.ports = range(self.tracker.port + 1, stage.next_port + 1)

    def passed(self):
        """What passed the router, except from and to the tracker."""
        return {entry for entry in self.routed.passed() if entry[0] in self.ports}


CASES = [a_peer_outside_the_subnet_gets_no_byte]
