"""Does a machine resume after a power cut and fetch hardly anything twice?

`SWARMDD_CUT_SEED=N` repeats the cuts of a run that printed this line.
"""

import os
import random
import signal
import subprocess
import time

from fixtures import same_bytes, slow_network
from harness import KIB, MIB, check
from torrent import Torrent


def twenty_power_cuts_of_one_machine(stage):
    """A cut costs the bytes in flight: less than the pool, which --memory keeps small here."""
    rng = random_cuts()
    image = stage.image("image", 288 * MIB)
    torrent = Torrent(stage.directory, image, 64 * KIB)
    stage.mount("none", "memory", "tmpfs")
    device = stage.loop("memory/disk", 288 * MIB)
    seeder, port = stage.seed(torrent, image)
    options = ["--memory", 16, "--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, device]
    with slow_network(200):
        fetched = [cut_after(stage.get(*options), rng.uniform(0, 1.1)) for _ in range(20)]
    check(fetched.count(None) <= 5, f"{fetched.count(None)} of 20 cuts came too late")
    last = stage.get(*options)
    last.expect(0, 60)
    result = last.result(device)
    check(same_bytes(image, device), "the disk differs")
    check(result["verified"] is True and result["good"] == torrent.pieces,
          f"the result is {result}")
    total = total_uploaded(seeder, image)
    print(f"      {20 - fetched.count(None)} cuts, {total / (288 * MIB):.3f} x the image",
          flush=True)
    known = sum(before_cut or 0 for before_cut in fetched) + result["fetched"]
    check(max(known, total) <= 1.15 * 288 * MIB,
          f"{total} bytes were sent, {known} are known to have arrived")


def one_power_cut_at_any_moment(stage):
    """At full speed, at any moment between start and end; disks and files in turn."""
    rng = random_cuts()
    image = stage.image("image", 96 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    stage.mount("none", "memory", "tmpfs")
    device, file = stage.loop("memory/disk", 96 * MIB), stage.path("file")

    def get(port, target):
        return stage.get("--memory", 20, "--peer", f"127.0.0.1:{port}", "--no-seed",
                         torrent.path, target)

    _, port = stage.seed(torrent, image)
    start = time.monotonic()
    get(port, device).expect(0, 30)
    seconds = time.monotonic() - start
    cuts, worst = 0, 0
    for number in range(8):
        seeder, port = stage.seed(torrent, image)
        subprocess.run(["blkdiscard", "--zeroout", device], check=True)
        file.unlink(missing_ok=True)
        target = [device, file][number % 2]
        in_time = cut_after(get(port, target), rng.uniform(0, seconds)) is not None
        cuts += in_time
        # The first run may have been slowed down by something that is over now.
        seconds *= 1 if in_time else 0.7
        again = get(port, target)
        again.expect(0, 30)
        check(same_bytes(image, target), f"{target} differs")
        check(again.result(target)["verified"] is True, f"the result is {again.result(target)}")
        total = total_uploaded(seeder, image)
        worst = max(worst, total)
        check(total <= 1.15 * 96 * MIB, f"{total} bytes were sent for {96 * MIB}")
    check(cuts >= 3, f"only {cuts} of 8 cuts came in time")
    print(f"      {cuts} cuts, at worst {worst / (96 * MIB):.3f} x the image", flush=True)


def random_cuts():
    seed = int(os.environ.get("SWARMDD_CUT_SEED") or random.randrange(1 << 32))
    print(f"      SWARMDD_CUT_SEED={seed}", flush=True)
    return random.Random(seed)


def cut_after(agent, seconds):
    """`kill -9` stands for a power cut. Returns the fetched bytes of the last report, or None if
    the agent was complete before."""
    time.sleep(seconds)
    alive = agent.is_running()
    agent.end(signal.SIGKILL)
    if not alive:
        agent.expect(0, 0)
        return None
    reports = agent.reports()
    return reports[-1]["fetched"] if reports else 0


def total_uploaded(seeder, source):
    """Exact; every byte that was ever downloaded is in it."""
    seeder.end()
    seeder.expect(0, 5)
    return seeder.result(source)["uploaded"]


CASES = [
    twenty_power_cuts_of_one_machine,
    one_power_cut_at_any_moment,
]
