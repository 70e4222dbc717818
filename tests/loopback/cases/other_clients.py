"""Does the agent exchange an image with aria2, transmission and libtorrent?"""

import re
import time

from fixtures import DEVICE_IMAGE, same_bytes, spoiled_copy
from harness import (
    CLIENTS, KIB, MIB, Failed, check, libtorrent, wait_until, wait_until_listens,
)
from torrent import Torrent


def agent_fetches_from_aria2(stage):
    fetch_from_client(stage, "aria2")


def agent_fetches_from_transmission(stage):
    fetch_from_client(stage, "transmission")


def agent_fetches_from_libtorrent(stage):
    fetch_from_client(stage, "libtorrent")


def aria2_fetches_from_agent(stage):
    serve_to_client(stage, "aria2")


def transmission_fetches_from_agent(stage):
    serve_to_client(stage, "transmission")


def libtorrent_fetches_from_agent(stage):
    serve_to_client(stage, "libtorrent")


def fetch_from_client(stage, name):
    """The client seeds, the agent writes a loop device."""
    image = stage.image("image", DEVICE_IMAGE)
    torrent = Torrent(stage.directory, image, MIB)
    device = stage.loop("disk", DEVICE_IMAGE + 3 * MIB)
    port = stage.port()
    seeder = CLIENTS[name](stage, torrent, stage.directory, port, seeds=True)
    wait_until_listens(name, seeder, port, seconds=20)
    trace = stage.path("trace")
    calls = "trace=open,openat,io_submit,pwrite64,pwritev,write"
    agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device,
                      prefix=["strace", "-f", "-o", trace, "-e", calls])
    agent.expect(0, 60)
    check(same_bytes(image, device, DEVICE_IMAGE), "the disk differs from the image")
    behind = stage.path("disk").read_bytes()[DEVICE_IMAGE:]
    check(behind.count(0xA5) == 3 * MIB, "bytes behind the image have changed")
    check_direct(trace.read_text(), device)
    last = agent.last()[device]
    check(last["state"] == "done" and last["verified"] is True, f"the last report is {last}")
    check(last["good"] == torrent.pieces and last["info_hash"] == torrent.info_hash,
          f"the last report is {last}")
    check(last["fetched"] >= DEVICE_IMAGE, f"fetched only {last['fetched']}")


def check_direct(trace, device):
    """The last open of the device has O_DIRECT, and it is written by AIO and by nothing else."""
    opened = re.findall(rf'open(?:at)?\([^"]*"{device}", (\S+)\) = (\d+)', trace)
    check(opened, f"strace did not see {device} being opened")
    flags, descriptor = opened[-1]
    check("O_DIRECT" in flags and "O_EXCL" in flags, f"{device} was opened with {flags}")
    aio = rf"aio_lio_opcode=IOCB_CMD_PWRITEV?, aio_fildes={descriptor},"
    written = re.findall(aio, trace)
    check(len(written) >= DEVICE_IMAGE // MIB, f"only {len(written)} writes by AIO")
    others = re.findall(rf"(?:write|pwrite64|pwritev)\({descriptor},", trace)
    check(not others, f"blocking writes to the disk: {others[:3]}")


def serve_to_client(stage, name):
    """The agent seeds a loop device, the client leeches."""
    image = stage.image("image", DEVICE_IMAGE)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, MIB, tracker)
    tracker.start(torrent)
    device = stage.loop("disk", DEVICE_IMAGE + MIB, image=image)
    agent, _ = stage.seed(torrent, device)
    wait_until("the tracker knows the seeder", 20, lambda: tracker.counts(torrent)[0] == 1)
    place = stage.directory_for("leech")
    client = CLIENTS[name](stage, torrent, place, stage.port(), seeds=False)
    target = place / torrent.name

    def is_complete():
        agent.expect_running()
        if not target.exists() or target.stat().st_size != DEVICE_IMAGE:
            return False
        return same_bytes(image, target)

    try:
        wait_until(f"{name} is complete", 60, is_complete)
    except Failed as error:
        raise Failed(f"{error}\n{client.tail()}") from None
    agent.end()
    agent.expect(0, 5)
    check(agent.last()[device]["uploaded"] >= DEVICE_IMAGE, "it came from somewhere else")


def libtorrent_gets_a_withdrawn_piece_from_another_seeder(stage):
    """A piece that is withdrawn (BEP 54) or refused (BEP 6) costs a stock client nothing but the
    wait for another seeder."""
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    source = spoiled_copy(stage, "source", image, torrent, [9])
    _, port = stage.seed(torrent, source)
    place = stage.directory_for("leech")
    own = stage.port()
    client = libtorrent(stage, torrent, place, own, seeds=False, peer=f"127.0.0.1:{port}")

    def progress():
        found = re.findall(r"^downloading (\d\.\d+)$", client.output(), re.M)
        return float(found[-1]) if found else 0.0

    enough = 1 - 1.5 / torrent.pieces
    wait_until("all but one piece is there", 30, lambda: progress() > enough)
    time.sleep(1)
    check(progress() < 1, "it has everything")
    stage.seed(torrent, image, "--peer", f"127.0.0.1:{own}", host="127.0.0.2")
    target = place / torrent.name
    wait_until("libtorrent is complete", 30,
               lambda: target.stat().st_size == 8 * MIB and same_bytes(image, target))


CASES = [
    agent_fetches_from_aria2,
    agent_fetches_from_transmission,
    agent_fetches_from_libtorrent,
    aria2_fetches_from_agent,
    transmission_fetches_from_agent,
    libtorrent_fetches_from_agent,
    libtorrent_gets_a_withdrawn_piece_from_another_seeder,
]
