"""Are --max-up and --max-down held, and do the jobs of one process share its link?"""

import time
from pathlib import Path

from fixtures import same_bytes, slow_network
from harness import CLIENTS, KIB, MIB, can_connect, check, wait_until, wait_until_listens
from torrent import Torrent

RATE = 4 * MIB


def max_up_limits_all_jobs_together(stage):
    """Two clients and two torrents on one seeder: together they get the limit, and each gets a
    share."""
    images = [stage.image(f"image-{number}", 48 * MIB) for number in range(2)]
    tracker = stage.tracker()
    torrents = [Torrent(stage.directory, image, MIB, tracker) for image in images]
    tracker.start(*torrents)
    pairs = [word for torrent in torrents for word in (torrent.path, torrent.image)]
    port = stage.port()
    seeder = stage.agent("seed", "--max-up", "4M", "--listen", f"127.0.0.1:{port}", *pairs)
    wait_until_listens("the seeder", seeder, port)
    wait_until("the tracker knows", 20,
               lambda: all(tracker.counts(torrent)[0] for torrent in torrents))
    places = []
    for torrent, client in zip(torrents, ("aria2", "libtorrent")):
        places.append(stage.directory_for(f"place-{client}"))
        CLIENTS[client](stage, torrent, places[-1], stage.port(), seeds=False)
    wait_until("both clients get something", 30,
               lambda: all(bytes_in(place) for place in places))
    before = [bytes_in(place) for place in places]
    check_rate(seeder, "uploaded")
    grown = [bytes_in(place) - had for place, had in zip(places, before)]
    check(min(grown) > 6 * RATE / 4, f"the clients got {grown} bytes")


def max_down_limits_all_jobs_together(stage):
    """Two other clients seed as fast as they can. One process leeches both torrents and throws
    nothing away."""
    images = [stage.image(f"image-{number}", 24 * MIB) for number in range(2)]
    torrents = [Torrent(stage.directory, image, MIB) for image in images]
    ports = [stage.port(), stage.port()]
    for client, torrent, port in zip(("aria2", "libtorrent"), torrents, ports):
        CLIENTS[client](stage, torrent, stage.directory, port, seeds=True)
    for port in ports:
        wait_until("the seeders listen", 20, lambda port=port: can_connect(port))
    peers = [word for port in ports for word in ("--peer", f"127.0.0.1:{port}")]
    targets = ["target-0", "target-1"]
    pairs = [word for pair in zip(torrents, targets) for word in (pair[0].path, pair[1])]
    agent = stage.get("--max-down", "4M", "--no-seed", *peers, *pairs)
    check_rate(agent, "fetched")
    agent.expect(0, 30)
    for image, target in zip(images, targets):
        check(same_bytes(image, stage.path(target)), f"{target} differs")
        fetched = agent.result(target)["fetched"]
        check(fetched == 24 * MIB, f"{fetched} bytes came for {24 * MIB}")


def check_rate(agent, field, seconds=6):
    """Measures payload bytes per second over all targets, from one report to another. The first
    second does not count."""
    def next_total():
        """The total at the next report, to a hundredth of a second, so not by `wait_until`."""
        count, end = len(agent.reports()), time.monotonic() + 10
        while len(agent.reports()) == count:
            agent.expect_running()
            check(time.monotonic() < end, "no report for ten seconds")
            time.sleep(0.01)
        now = time.monotonic()
        time.sleep(0.05)  # the lines of all targets come together
        return sum(report[field] for report in agent.last().values()), now

    wait_until("the first bytes pass", 30, lambda: next_total()[0] > 0)
    time.sleep(1)
    first, begin = next_total()
    time.sleep(seconds - 1)
    last, end = next_total()
    rate = (last - first) / (end - begin)
    check(0.95 * RATE <= rate <= 1.05 * RATE,
          f"{field} grows by {rate / MIB:.2f} MiB/s, not {RATE / MIB}")
    print(f"      {field}: {rate / MIB:.3f} of {RATE / MIB} MiB/s over {end - begin:.1f} s")


def bytes_in(directory):
    """Allocated bytes, since other clients make sparse files."""
    files = (path for path in Path(directory).rglob("*") if path.is_file())
    return sum(path.stat().st_blocks * 512 for path in files)


def two_jobs_share_the_link(stage):
    images = [stage.image("one", 32 * MIB), stage.image("two", 32 * MIB)]
    torrents = [Torrent(stage.directory, image, 256 * KIB) for image in images]
    port = stage.port()
    pairs = [word for torrent in torrents for word in (torrent.path, torrent.image)]
    seeder = stage.agent("seed", "--listen", f"127.0.0.1:{port}", *pairs)
    wait_until_listens("the seeder", seeder, port)
    devices = [stage.loop(f"disk-{image.name}", 32 * MIB) for image in images]
    pairs = [word for pair in zip(torrents, devices) for word in (pair[0].path, pair[1])]
    with slow_network(120):
        agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", *pairs)

        def fetched():
            last = agent.last()
            return [last[device]["fetched"] for device in devices if device in last]

        wait_until("half is there", 30, lambda: sum(fetched()) >= 32 * MIB)
        share = min(fetched()) / sum(fetched())
        check(share > 0.25, f"of the first half one job got {share:.2f}")
        agent.expect(0, 30)
    for image, device in zip(images, devices):
        check(same_bytes(image, device), f"{device} differs")


CASES = [
    max_up_limits_all_jobs_together,
    max_down_limits_all_jobs_together,
    two_jobs_share_the_link,
]
