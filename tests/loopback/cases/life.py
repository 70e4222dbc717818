"""What does a job need, and when does it end?"""

import re
import signal
import time

from fixtures import FILE_IMAGE, same_bytes
from harness import KIB, MIB, check, libtorrent, wait_until
from torrent import Torrent


def one_thread_and_64_mib_suffice(stage):
    """A gigabyte in pieces of 16 MiB, on both sides; and again when all of it is only read."""
    image = stage.image("image", 1024 * MIB)
    torrent = Torrent(stage.directory, image, 16 * MIB)
    seeder, port = stage.seed(torrent, image)
    for run in ("fetching", "scanning"):
        agent = stage.get("--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target")
        threads, peak = set(), {}
        while agent.is_running():
            try:
                for process in (seeder, agent):
                    threads.add(process.status_field("Threads"))
                    peak[process.name] = process.status_field("VmHWM")
            except (OSError, AttributeError):
                break  # it has just ended
            time.sleep(0.05)
        agent.expect(0, 120)
        check(threads == {1}, f"threads seen: {threads}")
        for name, kib in peak.items():
            check(kib <= 64 * KIB, f"{name} needed {kib} KiB while {run}")
        check(same_bytes(image, stage.path("target")), "the target differs")
        print(f"      peak memory while {run}: {peak}")
        check(run != "fetching" or min(peak.values()) > 10 * KIB, "did they do anything?")
    check(agent.result("target")["fetched"] == 0, "it was fetched again")


def too_little_memory_is_refused(stage):
    """The message names a size, and that size suffices."""
    image = stage.image("image", 40 * MIB)
    torrent = Torrent(stage.directory, image, 16 * MIB)
    _, port = stage.seed(torrent, image)
    options = ["--peer", f"127.0.0.1:{port}", "--no-seed", torrent.path, "target"]
    agent = stage.get("--memory", 20, *options)
    agent.expect(1, 10)
    found = re.search(r"--memory 20 is too little .* use --memory (\d+)", agent.output())
    check(found, f"it says:\n{agent.tail()}")
    check(not stage.path("target").exists(), "the target was created")
    stage.get("--memory", found.group(1), *options).expect(0, 30)
    check(same_bytes(image, stage.path("target")), "the target differs")


def the_end_of_the_tracker_releases_complete_agents(stage):
    """A short restart releases no agent. The end of the tracker releases the complete ones within
    grace + 15 s, and never an incomplete one."""
    grace = 6
    image, orphan = stage.image("image", FILE_IMAGE), stage.image("orphan", FILE_IMAGE)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, MIB, tracker)
    seedless = Torrent(stage.directory, orphan, MIB, tracker)
    tracker.start(torrent, seedless)
    stage.seed(torrent, image, "--tracker-grace", 600)
    complete = [
        stage.get("--tracker-grace", grace, torrent.path, f"target-{number}")
        for number in range(2)
    ]
    incomplete = stage.get("--tracker-grace", grace, seedless.path, "target-incomplete")
    for agent in complete:
        agent.wait_state("seeding", 40)
    wait_until("the tracker knows both", 20, lambda: tracker.counts(torrent)[0] == 3)

    tracker.stop()
    time.sleep(grace - 3)
    tracker.start()
    # Long enough for every agent to notice and to leave, if the tracker had stayed away.
    time.sleep(grace + 12)
    for agent in (*complete, incomplete):
        agent.expect_running()

    tracker.stop()
    stopped = time.monotonic()
    for agent in complete:
        agent.expect(0, grace + 15)
    check(time.monotonic() - stopped >= grace, "they left before the grace time was over")
    check(same_bytes(image, stage.path("target-1")), "the target differs")
    time.sleep(5)
    incomplete.expect_running()
    check("does not answer" in incomplete.output(), "the lost tracker was not mentioned")
    incomplete.end()
    incomplete.expect(1, 5)


def no_seed_and_seed_secs_end_the_job_in_time(stage):
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, port = stage.seed(torrent, image)
    for options, least, most in [(["--no-seed"], 0, 3), (["--seed-secs", 3], 3, 7)]:
        start = time.monotonic()
        agent = stage.get("--peer", f"127.0.0.1:{port}", *options, torrent.path, f"target{least}")
        agent.expect(0, 20)
        seconds = time.monotonic() - start
        check(least <= seconds <= most, f"{options} took {seconds:.1f} s")


def limits_end_the_seeding(stage):
    """The seeder leaves after one copy; without an upload the others leave by `--idle` and by
    `--min-upload`, and one without a limit stays."""
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    start = time.monotonic()
    seeder, port = stage.seed(torrent, image, "--ratio", "1", "--min-upload", "1G")
    first = stage.get("--peer", f"127.0.0.1:{port}", "--idle", 4, torrent.path, "first")
    seeder.expect(0, 10)
    check(time.monotonic() - start < 10, "the ratio was not what ended the seeder")
    _, port = stage.seed(torrent, image)
    limits = {"slow": ["--min-upload", "1K"], "stays": ["--ratio", "0.001"]}
    agents = {
        name: stage.get("--peer", f"127.0.0.1:{port}", *options, torrent.path, name)
        for name, options in limits.items()
    }
    first.expect(0, 10)
    check(time.monotonic() - start >= 4, "it left before it was idle for long enough")
    agents["slow"].expect(0, 25)
    seconds = time.monotonic() - start
    check(15 <= seconds < 25, f"--min-upload took {seconds:.1f} s")
    agents["stays"].expect_running()
    check(agents["stays"].state() == "seeding", "it is not complete")
    check(same_bytes(image, stage.path("slow")), "the target differs")


def a_signal_ends_the_job_and_says_how_far_it_got(stage):
    image = stage.image("image", 40 * MIB)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, 256 * KIB, tracker)
    tracker.start(torrent)
    port = stage.port()
    libtorrent(stage, torrent, stage.directory, port, seeds=True, rate=4 * MIB)
    for with_signal in (signal.SIGTERM, signal.SIGINT):
        name = f"target-{with_signal.name}"
        agent = stage.get("--peer", f"127.0.0.1:{port}", torrent.path, name)
        wait_until("a quarter is there", 40,
                   lambda: agent.reports() and agent.reports()[-1]["have"] > torrent.pieces // 4)
        check(tracker.counts(torrent)[1] == 1, "the tracker does not know the agent")
        agent.popen.send_signal(with_signal)
        agent.expect(1, 10)
        message = rf"interrupted; (\d+) of {torrent.pieces} pieces are on the target"
        found = re.search(message, agent.output())
        check(found, f"it says:\n{agent.tail()}")
        whole = equal_pieces(image.read_bytes(), stage.path(name).read_bytes(), torrent.piece)
        check(whole == int(found.group(1)), f"{found.group(0)}, but {whole} are")
        check(agent.last()[name]["state"] == "failed", "the last report is not a failure")
        wait_until("it announced that it stopped", 5, lambda: tracker.counts(torrent)[1] == 0)


def equal_pieces(source, target, piece):
    starts = range(0, len(source), piece)
    return sum(source[at:at + piece] == target[at:at + piece] for at in starts)


CASES = [
    one_thread_and_64_mib_suffice,
    too_little_memory_is_refused,
    the_end_of_the_tracker_releases_complete_agents,
    no_seed_and_seed_secs_end_the_job_in_time,
    limits_end_the_seeding,
    a_signal_ends_the_job_and_says_how_far_it_got,
]
