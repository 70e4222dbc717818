"""What does the daemon do with jobs that come, end and fail while it runs, and who may ask it?"""

import json
import os
import signal
import socket
import stat
import subprocess
import time

from fixtures import FILE_IMAGE, NO_SPACE, full_file_system, same_bytes
from harness import AGENT, KIB, MIB, Failed, check, wait_until
from torrent import Torrent


class Daemon:
    """A daemon, and a connection to it."""

    def __init__(self, stage, name, *options, **more):
        self.path, self.port = stage.path(f"{name}.socket"), stage.port()
        self.process = stage.agent("daemon", "--control", self.path,
                                   "--listen", f"127.0.0.1:{self.port}", *options, **more)
        self.lines = wait_until(f"{name} listens", 10, self.try_to_connect)

    def try_to_connect(self):
        self.process.expect_running()
        try:
            return self.connect()
        except OSError:
            return None

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection.makefile("rwb")

    def say(self, line, lines=None):
        """The answer to a line of bytes."""
        lines = lines or self.lines
        lines.write(line + b"\n")
        lines.flush()
        return json.loads(lines.readline())

    def ask(self, do, **members):
        """The answer to a request that is not refused."""
        answer = self.say(json.dumps({"do": do, **members}).encode())
        check(answer["ok"] is True, f"{do} {members}: {answer}")
        return answer

    def refusal(self, do, **members):
        answer = self.say(json.dumps({"do": do, **members}).encode())
        check(answer["ok"] is False and set(answer) == {"ok", "error"}, f"{do}: {answer}")
        return answer["error"]

    def add(self, torrent, path, seed=False):
        answer = self.ask("add", torrent=str(torrent.path), path=str(path), seed=seed)
        check(answer["info_hash"] == torrent.info_hash, f"another torrent: {answer}")

    def list(self):
        """All jobs by their target."""
        return {job["target"]: job for job in self.ask("list")["jobs"]}

    def wait_state(self, target, state, seconds):
        def reached():
            self.process.expect_running()
            return self.list()[str(target)]["state"] == state
        wait_until(f"{target} is {state}", seconds, reached)

    def end(self, status, seconds=2):
        self.ask("shutdown")
        self.process.expect(status, seconds)
        check(not self.path.exists(), "its socket is still there")


def jobs_are_added_while_others_run(stage):
    """A daemon seeds two torrents, each with its tracker; another one fetches both, the second one
    added while the first is under way, and leaves one of them alone."""
    images = [stage.image(name, FILE_IMAGE) for name in ("one", "two")]
    trackers = [stage.tracker(), stage.tracker()]
    torrents = [Torrent(stage.directory, image, 256 * KIB, tracker)
                for image, tracker in zip(images, trackers)]
    for torrent, tracker in zip(torrents, trackers):
        tracker.start(torrent)
    server = Daemon(stage, "server", "--max-up", "12M")
    client = Daemon(stage, "client")
    for torrent, image in zip(torrents, images):
        server.add(torrent, image, seed=True)
    check(client.list() == {}, "it has a job")
    targets = [stage.path("target-one"), stage.path("target-two")]
    client.add(torrents[0], targets[0])
    wait_until("the first is under way", 10, lambda: client.list()[str(targets[0])]["have"] > 2)
    client.add(torrents[1], targets[1])
    jobs = client.list()
    check([job["state"] for job in jobs.values()] == ["downloading", "scanning"]
          or jobs[str(targets[1])]["state"] == "downloading", f"the jobs are {jobs}")
    first = jobs[str(targets[0])]
    check(0 < first["have"] < torrents[0].pieces and first["finished_secs"] is None
          and first["idle_secs"] is None and first["paused"] is False
          and first["info_hash"] == torrents[0].info_hash, f"the first is {first}")
    for image, target in zip(images, targets):
        client.wait_state(target, "seeding", 20)
        # The file is cut to its length in the end.
        check(same_bytes(image, target, FILE_IMAGE), f"{target} differs")
    for torrent, tracker in zip(torrents, trackers):
        wait_until("the tracker knows both", 10, lambda t=tracker, o=torrent: t.counts(o)[0] == 2)

    sent = server.list()[str(images[0])]
    check(sent["uploaded"] >= FILE_IMAGE and sent["idle_secs"] is not None, f"it sent {sent}")
    client.ask("pause", info_hash=torrents[0].info_hash)
    wait_until("the first has left", 5, lambda: trackers[0].counts(torrents[0])[0] == 1)
    jobs = client.list()
    paused, other = (jobs[str(target)] for target in targets)
    check(paused["state"] == "done" and paused["paused"] is True
          and paused["finished_secs"] is not None and paused["verified"] is True,
          f"the first is {paused}")
    check(other["state"] == "seeding" and other["paused"] is False, f"the second is {other}")
    # Its lock is gone: the file may be a target again, and holds everything.
    client.add(torrents[0], targets[0])
    client.wait_state(targets[0], "seeding", 10)
    client.end(0)
    server.end(0)
    check(client.process.result(targets[1])["state"] == "done", "it was not reported as done")


def jobs_go_on_while_a_large_directory_is_opened(stage):
    """Each file of it takes 5 ms, as on a slow disk. Meanwhile another job sends its image, and
    does not leave for want of an upload. A program that asks is answered afterwards."""
    image, many = stage.image("image", 8 * MIB), stage.directory_for("many")
    for number in range(1600):
        (many / f"{number * 512:x}").write_bytes(bytes(512))
    lines = "".join(f"offset: {n * 512:032x}\nlength: {512:032x}\n" for n in range(1600))
    stage.path("torrent.info").write_text(f"{lines}sha1: {'5' * 40}\n")
    torrent, slices = Torrent(stage.directory, image, MIB), stage.path("slices.torrent")
    subprocess.run([AGENT, "make", stage.path("torrent.info"), "--name", "many", "-o", slices],
                   check=True, capture_output=True)
    slow = ["strace", "-o", "/dev/null", "-e", "inject=statx,lstat,newfstatat:delay_exit=5000"]
    server = Daemon(stage, "server", "--max-up", "4M", prefix=slow)
    server.add(torrent, image, seed=True)
    server.lines.write(json.dumps({"do": "add", "torrent": str(slices), "path": str(many),
                                   "seed": True}).encode() + b"\n")
    server.lines.flush()
    begun = time.monotonic()
    agent = stage.get("--peer", f"127.0.0.1:{server.port}", "--no-seed", torrent.path, "target")
    agent.expect(0, 7)
    server.lines.peek()
    check(time.monotonic() - begun > 7, "it was opened before the other job had done anything")
    check(json.loads(server.lines.readline())["ok"], "the slices are refused")
    server.end(0)


def a_target_of_a_running_job_is_no_source(stage):
    """Under each of its names, and the disk that it is on."""
    image = stage.image("image", 4 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    device, daemon = stage.loop("disk", 4 * MIB), Daemon(stage, "daemon")
    daemon.add(torrent, stage.path("target"))
    daemon.add(torrent, device)
    stage.path("link").hardlink_to(stage.path("target"))
    for source in (stage.path("target"), stage.path("link"), device):
        said = daemon.refusal("add", torrent=str(torrent.path), path=str(source), seed=True)
        check(said == f"source {source} is the target of a job", f"it says {said}")
    # The twin. No peer has what the targets miss.
    daemon.add(torrent, image, seed=True)
    daemon.end(1)


def a_failing_target_stays_in_the_list(stage):
    """It fails alone, and the exit status says so."""
    image = stage.image("image", 40 * MIB)
    other = stage.image("other", 4 * MIB)
    torrent, small = (Torrent(stage.directory, each, MIB) for each in (image, other))
    server = Daemon(stage, "server")
    peer = ["--peer", f"127.0.0.1:{server.port}"]
    server.add(torrent, image, seed=True)
    server.add(small, other, seed=True)
    client = Daemon(stage, "client", *peer)
    full = full_file_system(stage, "full") / "target"
    client.add(torrent, full)
    client.add(small, stage.path("good"))
    client.wait_state(full, "failed", 30)
    failed = client.list()[str(full)]
    check(NO_SPACE in failed["error"] and str(full) in failed["error"], f"it says {failed}")
    client.wait_state(stage.path("good"), "seeding", 20)
    check(same_bytes(other, stage.path("good")), "the other target differs")
    check(f"failed: {failed['error']}" in client.process.output(), "the log does not say it")
    client.end(1)
    server.end(0)


def a_signal_ends_the_daemon_in_time(stage):
    """Also while it fetches, which is a failure, and from a tracker that has died. A job that was
    paused before its end is incomplete."""
    image = stage.image("image", FILE_IMAGE)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, 256 * KIB, tracker)
    tracker.start(torrent)
    server = Daemon(stage, "server", "--max-up", "2M")
    server.add(torrent, image, seed=True)
    client, pausing = Daemon(stage, "client"), Daemon(stage, "pausing")
    for daemon in (client, pausing):
        daemon.add(torrent, stage.path(f"target-{daemon.port}"))
        target = stage.path(f"target-{daemon.port}")
        wait_until("something is there", 20, lambda d=daemon, t=target: d.list()[str(t)]["have"])
    pausing.ask("pause", info_hash=torrent.info_hash)
    pausing.wait_state(target, "failed", 5)
    job = pausing.list()[str(target)]
    check(job["paused"] is True and job["error"].startswith("interrupted; "), f"it is {job}")
    pausing.end(1)
    os.kill(tracker.process.pid, signal.SIGSTOP)
    for daemon, status in ((client, 1), (server, 0)):
        start = time.monotonic()
        daemon.process.popen.send_signal(signal.SIGTERM)
        daemon.process.expect(status, 10)
        seconds = time.monotonic() - start
        # Two seconds, if the machine has nothing else to do.
        check(seconds <= 3, f"it took {seconds:.1f} s to end")
        check(not daemon.path.exists(), "its socket is still there")


def the_socket_is_for_its_owner_and_for_one_daemon(stage):
    server = Daemon(stage, "server")
    mode = stat.S_IMODE(os.stat(server.path).st_mode)
    check(mode == 0o600, f"its mode is {mode:o}")
    second = stage.agent("daemon", "--control", server.path, "--listen", "127.0.0.1:0")
    second.expect(1, 5)
    check(f"{server.path}: another process answers there" in second.output(), second.tail())
    check(server.list() == {}, "the first daemon does not answer any more")
    # One that was killed leaves its socket behind.
    server.process.end(signal.SIGKILL)
    check(server.path.exists(), "the socket is gone")
    Daemon(stage, "server").end(0)


def nobody_at_the_socket_stops_the_jobs(stage):
    """Garbage, lines without end, programs that ask and do not read, and more programs than there
    are seats, while a job runs."""
    image = stage.image("image", FILE_IMAGE)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    server = Daemon(stage, "server", "--max-up", "8M")
    server.add(torrent, image, seed=True)
    client = Daemon(stage, "client", "--peer", f"127.0.0.1:{server.port}")
    client.add(torrent, stage.path("target"))
    for line, error in [
        (b"", "not an object at byte 0: expected '{'"),
        (b"\xff\x00", "not an object at byte 0: expected UTF-8"),
        (b'{"do":"list",}', "not an object at byte 13: expected a name in '\"'"),
        (b'{"do":["list"]}', "not an object at byte 6: expected a string, a whole number, true, "
                             "false or null"),
        (b'{"do":"resume"}', '"do" takes add, list, pause or shutdown'),
        (b'{"do":"list","now":1}', 'list has no member "now"'),
        (b'{"do":"pause","info_hash":"' + b"0" * 40 + b'"}',
         "no job has the info-hash " + "0" * 40),
    ]:
        answer = client.say(line)
        check(answer == {"ok": False, "error": error}, f"{line}: {answer}")
    long = client.connect()
    answer = client.say(b'{"do":"list","x":"' + b"x" * 70_000, long)
    check(answer == {"ok": False, "error": "a line is longer than 65536 bytes"}, f"{answer}")
    check(client.say(b'{"do":"list"}', long)["ok"] is True, "it answers no more")

    deaf = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for connection in deaf:
        connection.connect(str(client.path))
        connection.setblocking(False)
        try:
            while True:
                connection.send(b'{"do":"list"}\n' * 1000)
        except OSError:
            pass  # it takes no more, or it was closed for another one
    # The connections that ask and do not read have taken the seats of those that were silent.
    client.lines = client.connect()
    client.wait_state(stage.path("target"), "seeding", 20)
    check(same_bytes(image, stage.path("target"), FILE_IMAGE), "the target differs")
    kib = client.process.status_field("VmHWM")
    check(kib <= 64 * KIB, f"it needed {kib} KiB")
    client.end(0)


def what_get_and_seed_refuse_is_refused(stage):
    image = stage.image("image", 4 * MIB)
    torrent = Torrent(stage.directory, image, MIB)
    large = Torrent(stage.directory, stage.image("large", 40 * MIB), 16 * MIB)
    daemon = Daemon(stage, "daemon", "--memory", 64)
    disk, mounted = stage.loop("disk", 4 * MIB), stage.loop("mounted", 8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", mounted], check=True)
    stage.mount(mounted, "place")
    daemon.add(torrent, image, seed=True)
    daemon.add(torrent, disk)

    def refused(named, path, part, seed=False):
        error = daemon.refusal("add", torrent=str(named), path=str(path), seed=seed)
        check(part in error, f"{path}: it says {error}, not {part}")

    refused(torrent.path, disk, f"target {disk} is given twice")
    refused(torrent.path, image, f"target {image} is given twice")
    refused(torrent.path, mounted, "mounted")
    refused(large.path, stage.path("nothing"), "No such file", seed=True)
    refused(large.path, image, "source", seed=True)
    refused(stage.path("none.torrent"), stage.path("new"), "No such file")
    refused("http://127.0.0.1/a.torrent", stage.path("new"), "is a URL")
    refused(image, stage.path("new"), "torrent")
    check(not stage.path("new").exists(), "a refused target was created")
    # Pieces of 16 MiB need 37 MiB each; the second one fits after the first has ended.
    daemon.add(large, stage.path("first"))
    refused(large.path, stage.path("second"), "large needs 37 MiB of memory, ")
    check(not stage.path("second").exists(), "a refused target was created")
    daemon.ask("pause", info_hash=large.info_hash)
    daemon.wait_state(stage.path("first"), "failed", 5)
    daemon.add(large, stage.path("second"))
    try:
        daemon.end(0)
    except Failed:
        daemon.process.expect(1, 1)
    else:
        raise Failed("incomplete jobs do not show in the exit status")


def through_a_link_it_is_called_by_its_name(stage):
    """Clonezilla looks for its client with `ps -C ezio` and ends it with `pkill -15 ^ezio`."""
    stage.directory_for("bin")
    os.symlink(AGENT, stage.path("bin") / "ezio")
    path = stage.path("socket")
    link = stage.start("ezio", ["env", f"PATH={stage.path('bin')}", "ezio", "daemon",
                                "--control", path, "--listen", "127.0.0.1:0"])
    wait_until("it listens", 10, path.exists)
    listed = subprocess.run(["ps", "-C", "ezio", "-o", "pid="], capture_output=True, text=True)
    check(str(link.pid) in listed.stdout.split(), f"ps lists {listed.stdout}")
    words = (b"/proc/%d/cmdline" % link.pid).decode()
    with open(words, "rb") as file:
        check(file.read().startswith(b"ezio\0"), "its command line begins otherwise")
    link.end()
    check(link.popen.returncode == 0 and not path.exists(), "SIGTERM did not end it well")


CASES = [
    jobs_are_added_while_others_run,
    jobs_go_on_while_a_large_directory_is_opened,
    a_target_of_a_running_job_is_no_source,
    a_failing_target_stays_in_the_list,
    a_signal_ends_the_daemon_in_time,
    the_socket_is_for_its_owner_and_for_one_daemon,
    nobody_at_the_socket_stops_the_jobs,
    what_get_and_seed_refuse_is_refused,
    through_a_link_it_is_called_by_its_name,
]
