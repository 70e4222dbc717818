"""Which machines take part, and which are called?"""

from fixtures import FILE_IMAGE, same_bytes
from harness import KIB, MIB, aria2, check, wait_until
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


def an_image_passes_a_router_about_once(stage):
    """Four machines beside the seed and five behind the router know each other's addresses."""
    to_outside, to_inside = images_carried(stage, Routed(stage))
    check(0.9 < to_outside < 1.3, f"{to_outside:.2f} images have passed")
    check(to_inside < 1.0, f"{to_inside:.2f} images have come back")


def machines_that_see_no_router_fetch_through_it_again_and_again(stage):
    """Their prefix spans both rooms. So in the case before, it is the rooms that matter."""
    to_outside, _ = images_carried(stage, Routed(stage, length=8))
    check(to_outside > 1.5, f"{to_outside:.2f} images have passed")


def images_carried(stage, routed):
    image = stage.image("image", 16 * MIB)
    tracker = stage.tracker(INSIDE)
    torrent = Torrent(stage.directory, image, 64 * KIB, tracker)
    tracker.start(torrent)
    stage.seed(torrent, image, "--max-up", "4M", host=INSIDE)
    agents = []
    for number in range(9):
        place, prefix = (INSIDE, ()) if number < 4 else (OUTSIDE, routed.outside.split())
        agents.append(stage.agent("get", "--listen", f"{place}:{stage.port()}", torrent.path,
                                  f"target-{number}", prefix=prefix))
    for agent in agents:
        agent.wait_state("seeding", 60)
    for number in range(9):
        check(same_bytes(image, stage.path(f"target-{number}")), f"target {number} differs")
    return [carried / (16 * MIB) for carried in routed.carried_bytes()]


def thirty_machines_that_know_one_address_find_each_other(stage):
    """There is no tracker, and the seed could send an image a second. When it ends, they end."""
    image = stage.image("image", 4 * MIB)
    torrent = Torrent(stage.directory, image, 64 * KIB)
    seed, port = stage.seed(torrent, image, "--max-up", "4M")
    agents = [stage.get("--peer", f"127.0.0.1:{port}", "--tracker-grace", 2, torrent.path,
                        f"target-{number}") for number in range(30)]
    for agent in agents:
        agent.wait_state("seeding", 60)
    sent = seed.last()[str(image)]["uploaded"]
    check(sent < 10 * 4 * MIB, f"the seed has sent {sent} bytes: nobody else has sent much")
    check(all(agent.is_running() for agent in agents), "somebody left, and the seed is there")
    seed.end()
    for number, agent in enumerate(agents):
        agent.expect(0, 30)
        check(same_bytes(image, stage.path(f"target-{number}")), f"target {number} differs")
    check("the server has ended the job" in agents[0].output(), agents[0].tail())


def machines_with_a_private_torrent_do_not_learn_of_each_other(stage):
    image = stage.image("image", 4 * MIB)
    for private in (True, False):
        torrent = Torrent(stage.directory, image, 64 * KIB, private=private)
        _, port = stage.seed(torrent, image, "--max-up", "1M")
        agents = [stage.get("--peer", f"127.0.0.1:{port}", "--seed-secs", 2, torrent.path,
                            f"target-{private}-{number}") for number in range(3)]
        for agent in agents:
            agent.expect(0, 60)
        passed_on = sum(agent.reports()[-1]["uploaded"] for agent in agents)
        check((passed_on == 0) == private, f"private {private}: {passed_on} bytes passed on")


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
        # That is how `get` knows it. A --peer outside of --allow would be refused.
        wait_until("the tracker knows aria2", 20, lambda: self.tracker.counts(fetched)[0] == 1)
        self.seed, self.seed_port = stage.seed(served, image, *options, host=INSIDE)
        aria2(stage, served, place, stage.port(), seeds=False, **outside)
        self.get = stage.agent(
            "get", "--listen", f"{INSIDE}:{stage.port()}", "--stall-secs", 8, "--no-seed", *options,
            fetched.path, self.target)
        self.ports = range(self.tracker.port + 1, stage.next_port + 1)

    def passed(self):
        """What passed the router, except from and to the tracker."""
        return {entry for entry in self.routed.passed() if entry[0] in self.ports}


CASES = [
    a_peer_outside_the_subnet_gets_no_byte,
    an_image_passes_a_router_about_once,
    machines_that_see_no_router_fetch_through_it_again_and_again,
    thirty_machines_that_know_one_address_find_each_other,
    machines_with_a_private_torrent_do_not_learn_of_each_other,
]
