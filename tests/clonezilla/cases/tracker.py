"""Does the tracker end by itself, as that of Clonezilla did?"""

import urllib.parse
import urllib.request

import bencode
from harness import Failed, can_connect, check, wait_until
from machines import installed
from torrent import Torrent


def tracker_for(stage, *options):
    """A running ocs-bttrack with one torrent, and its port."""
    torrents = stage.directory_for("torrents")
    torrent = Torrent(torrents, stage.image("image", 1 << 20), 1 << 18)
    check(bencode.info_hash(torrent.bytes).hex() == torrent.info_hash, "another info-hash")
    port = stage.port()
    process = stage.start("ocs-bttrack", [
        installed(stage) / "bin/ocs-bttrack", "--port", port, "--dfile", "d", "--nat_check", "0",
        "--scrape_allowed", "full", "--logfile", stage.path("log"), "--allowed_dir", torrents,
        *options,
    ])
    wait_until("the tracker listens", 10, lambda: can_connect(port) or process.expect_running())
    return process, port, bytes.fromhex(torrent.info_hash)


def announce(port, info_hash, peer, event):
    query = urllib.parse.urlencode({
        "info_hash": info_hash, "peer_id": b"-TEST00-%012d" % peer, "port": 7000 + peer,
        "left": 0 if event == "completed" else 9, "event": event, "compact": 1,
    }, quote_via=urllib.parse.quote)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/announce?{query}", timeout=5) as answer:
        text = answer.read()
    check(b"failure" not in text, f"the tracker says {text}")


def the_tracker_stops_when_enough_machines_are_complete(stage):
    process, port, info_hash = tracker_for(stage, "--tracker_max_completed", "2")
    for peer in (1, 2):
        announce(port, info_hash, peer, "started")
    announce(port, info_hash, 1, "completed")
    # Twin: one is not enough, and leaving is no completion.
    announce(port, info_hash, 1, "stopped")
    try:
        process.wait(4)
    except Failed:
        pass
    process.expect_running()
    announce(port, info_hash, 2, "completed")
    process.expect(0, 5)
    check("2 downloads are complete" in process.output(), process.output())
    check(not can_connect(port), "opentracker still runs")


def the_tracker_stops_after_its_time_and_on_a_signal(stage):
    process, port, _ = tracker_for(stage, "--tracker_timeout", "3")
    process.expect_running()
    process.expect(0, 6)
    check(not can_connect(port), "opentracker still runs after its time")
    command = process.popen.args[:-1] + ["100"]
    again = stage.start("ocs-bttrack", command)
    wait_until("the tracker listens", 10, lambda: can_connect(port))
    again.end()
    check(again.popen.returncode == 0, "a signal is no failure")
    wait_until("opentracker has ended", 5, lambda: not can_connect(port))


def the_tracker_ends_with_its_script_and_refuses_an_empty_folder(stage):
    process, port, _ = tracker_for(stage)
    process.popen.kill()
    wait_until("opentracker has ended", 5, lambda: not can_connect(port))
    empty = stage.start("ocs-bttrack", [
        installed(stage) / "bin/ocs-bttrack", "--port", port, "--allowed_dir",
        stage.directory_for("empty"),
    ])
    empty.expect(1, 5)


CASES = [
    the_tracker_stops_when_enough_machines_are_complete,
    the_tracker_stops_after_its_time_and_on_a_signal,
    the_tracker_ends_with_its_script_and_refuses_an_empty_folder,
]
