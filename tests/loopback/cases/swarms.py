"""Do several agents, and several jobs of one agent, reach each other?"""

import subprocess
from pathlib import Path

from fixtures import (
    DEVICE_IMAGE, FILE_IMAGE, NO_SPACE, Server, expect_failure, full_file_system, same_bytes,
)
from harness import MIB, check, wait_until, wait_until_listens
from torrent import Torrent


def six_agents_fetch_from_each_other(stage):
    """They find each other through the tracker, and most bytes come from other leechers."""
    image = stage.image("image", 64 * MIB + 777)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, MIB, tracker)
    tracker.start(torrent)
    seeder, _ = stage.seed(torrent, image)
    targets = [f"target-{number}" for number in range(6)]
    agents = [stage.get("--seed-secs", 2, torrent.path, target) for target in targets]
    for agent, target in zip(agents, targets):
        agent.expect(0, 90)
        check(same_bytes(image, stage.path(target)), f"{target} differs")
        check(agent.state() == "done", f"the agent of {target} ends as {agent.state()}")
    passed_on = sum(
        agent.last()[target]["uploaded"] for agent, target in zip(agents, targets))
    check(passed_on >= image.stat().st_size, f"only {passed_on} bytes were passed on among six")
    wait_until("the tracker knows that all six have left", 10,
               lambda: sum(tracker.counts(torrent)) == 1)
    seeder.end()
    seeder.expect(0, 5)
    wait_until("the tracker knows that the seeder has left", 5,
               lambda: sum(tracker.counts(torrent)) == 0)


def machines_pass_on_parts_of_long_pieces(stage):
    """Before any of them has a whole piece, whether the seeder hashes its source before it serves
    or while it does."""
    for options in ([], ["--check"]):
        image = stage.image(f"image{len(options)}", 12 * MIB)
        tracker = stage.tracker()
        torrent = Torrent(stage.directory, image, 2 * MIB, tracker)
        tracker.start(torrent)
        seeder, _ = stage.seed(torrent, image, "--max-up", "2M", *options)
        targets = [f"target{len(options)}-{number}" for number in range(3)]
        agents = [stage.get("--seed-secs", 2, torrent.path, target) for target in targets]
        early = 0
        for agent, target in zip(agents, targets):
            agent.expect(0, 60)
            check(same_bytes(image, stage.path(target)), f"{target} differs")
            early += max((report["uploaded"] for report in agent.reports() if not report["have"]),
                         default=0)
        check(early > 0, f"nothing was passed on before a piece was whole ({options})")
        seeder.end()


def two_jobs_in_one_process(stage):
    one, two = two_seeded_torrents(stage)
    device = stage.loop("disk", DEVICE_IMAGE)
    hashes = [word for torrent in (one, two) for word in ("--info-hash", torrent.info_hash)]
    agent = stage.get(*hashes, "--seed-secs", 0, one.path, "file", two.path, device)
    agent.expect(0, 60)
    check(same_bytes(one.image, stage.path("file")), "the file differs")
    check(same_bytes(two.image, device), "the disk differs")
    states = [agent.last()[target]["state"] for target in ("file", device)]
    check(states == ["done", "done"], "not both are done")


def two_seeded_torrents(stage):
    """Of a file and of a device, both served by one agent that peers find by a tracker."""
    images = [stage.image("one", FILE_IMAGE), stage.image("two", DEVICE_IMAGE)]
    tracker = stage.tracker()
    one, two = (Torrent(stage.directory, image, MIB, tracker) for image in images)
    tracker.start(one, two)
    stage.agent("seed", "--listen", f"127.0.0.1:{stage.port()}",
                one.path, images[0], two.path, images[1])
    return one, two


def one_port_serves_ipv4_and_ipv6(stage):
    """The default listener takes IPv4 and IPv6, and the second agent takes the next port."""
    image = stage.image("image", FILE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    for port in (6881, 6882):
        agent = stage.agent("seed", torrent.path, image)
        wait_until_listens(f"the seeder of port {port}", agent, port)
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + torrent.bytes
    for host, port in [("[::1]", 6881), ("127.0.0.1", 6881), ("[::1]", 6882)]:
        with Server(stage.port(), [answer], host="::1") as server:
            url = f"http://[::1]:{server.port}/torrent"
            stage.get("--peer", f"{host}:{port}", "--no-seed", url, "target").expect(0, 30)
        check(same_bytes(image, stage.path("target")), f"the target from {host}:{port} differs")
        stage.path("target").unlink()


def a_late_torrent_url_is_waited_for(stage):
    """First no server listens, then there is no such file, then the file has moved. The agent
    waits and says for what."""
    image = stage.image("image", FILE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    _, peer = stage.seed(torrent, image)
    port = stage.port()
    url = f"http://127.0.0.1:{port}/boot/x.torrent"
    agent = stage.get("--peer", f"127.0.0.1:{peer}", "--no-seed",
                      "--info-hash", torrent.info_hash, url, "target")
    wait_until("it says that no server listens", 10,
               lambda: "Connection refused" in agent.output())
    check(agent.state() == "fetching", f"its state is {agent.state()}")
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    moved = b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"
    parts = [torrent.bytes[:100], torrent.bytes[100:]]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with Server(port, [missing, moved, chunked]) as server:
        agent.expect(0, 40)
    # People are told of a new reason after 10 s at the earliest, programs at once.
    reasons = {report.get("waiting") for report in agent.reports()}
    check("server answers 404" in str(reasons), f"nothing of the 404 in {reasons}")
    paths = [line.split()[1] for line in server.asked]
    check(paths == [b"/boot/x.torrent", b"/boot/x.torrent", b"/y"], str(server.asked))
    check(same_bytes(image, stage.path("target")), "the target differs")


def several_targets_and_one_of_them_fails(stage):
    """Two partitions of one disk, another disk and a file, two torrents, one process; then the same
    with a disk that fails."""
    one, two = two_seeded_torrents(stage)
    disk = stage.path("partitioned")
    first, second = two_partitions(stage, disk)
    whole = stage.loop("whole", DEVICE_IMAGE)
    pairs = [(one, first), (two, second), (two, whole), (one, "file")]
    thin = stage.attach(full_file_system(stage, "thin") / "sparse")
    for more in [[], [(two, thin)]]:
        options = [word for torrent, target in pairs + more for word in (torrent.path, target)]
        agent = stage.get("--fresh", "--seed-secs", 1, *options)
        agent.expect(1 if more else 0, 60)
        for torrent, target in pairs:
            result = agent.result(target)
            message = f"{target}: the result is {result}"
            check(result["state"] == "done" and result["verified"] is True, message)
            length = torrent.image.stat().st_size
            check(result["good"] == torrent.pieces and result["bytes"] == length, message)
            check(same_bytes(torrent.image, stage.path(target), length), f"{target} differs")
        if more:
            expect_failure(agent, thin, "write", NO_SPACE)
    table = subprocess.run(["sfdisk", "--dump", disk], check=True, capture_output=True,
                           text=True).stdout
    check(table.count("size=       65536") == 2, f"the partition table is\n{table}")


def two_partitions(stage, disk):
    """Makes the file `disk` of 80 MiB; returns the devices of its two partitions of 32 MiB."""
    disk.write_bytes(bytes(80 * MIB))
    table = "label: gpt\nstart=2048, size=65536\nstart=67584, size=65536\n"
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True)
    device = stage.attach(disk, partitions=True)
    partitions = [f"{device}p1", f"{device}p2"]
    if not Path(partitions[0]).exists():  # a kernel that reads no partition tables has to be told
        for number, start in [(1, 2048), (2, 67584)]:
            subprocess.run(["addpart", device, str(number), str(start), "65536"], check=True)
    wait_until("the partitions are there", 5, lambda: all(Path(p).exists() for p in partitions))
    return partitions


CASES = [
    six_agents_fetch_from_each_other,
    machines_pass_on_parts_of_long_pieces,
    two_jobs_in_one_process,
    one_port_serves_ipv4_and_ipv6,
    a_late_torrent_url_is_waited_for,
    several_targets_and_one_of_them_fails,
]
