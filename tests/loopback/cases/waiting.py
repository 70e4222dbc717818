"""What does a machine do while nobody can tell it where the others are, or give it data?"""

import contextlib

from fixtures import Server
from harness import KIB, MIB, check, wait_until
from torrent import Torrent


def http(status, body=b"", *headers):
    lines = [b"HTTP/1.1 %d x" % status, *headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def a_tracker_that_answers_is_there(stage):
    """Whatever the answer is, a complete agent stays longer than the grace time; for ever only if
    a tracker wrote the answer, and not a proxy that has lost its tracker."""
    refusal = b"d14:failure reason15:come back latere"
    by_tracker = [http(403, refusal), http(200, refusal), http(429, refusal)]
    doubtful = [
        http(404, b"<html>"), http(429), http(500), http(502, b"<html>"), http(503, b"busy"),
        http(503, b"", b"Retry-After: 1"), http(200, b"<html>"),
        http(200, b"", b"Content-Encoding: gzip"), http(302, b"", b"Location: https://x/"),
    ]
    answers = by_tracker + doubtful
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, port = stage.seed(torrent, image)
    with contextlib.ExitStack() as stack:
        machines = []
        for number, answer in enumerate(answers):
            server = stack.enter_context(Server(stage.port(), [answer]))
            torrent = Torrent(stage.directory, image, 256 * KIB, server)
            agent = stage.get("--peer", f"127.0.0.1:{port}", "--tracker-grace", 2,
                              torrent.path, f"target-{number}")
            machines.append((agent, server))
        for agent, _ in machines:
            agent.wait_state("seeding", 10)
        # Five seconds lie between two announces that were refused.
        asked = [len(server.asked) for _, server in machines]
        for (agent, server), before in zip(machines, asked):
            wait_until("it is asked", 12, lambda: len(server.asked) > before + 1)
            agent.expect_running()
            refusals = agent.output().count("the tracker refuses: ")
            check(refusals == 1, f"it says:\n{agent.tail()}")
        for agent, _ in machines[len(by_tracker):]:
            agent.expect(0, 40)
        for agent, _ in machines[:len(by_tracker)]:
            agent.expect_running()


def waits(agent, *texts):
    """Until its report and its screen say what it waits for."""
    def said():
        reports = agent.reports()
        found = reports[-1].get("waiting", "") if reports else ""
        return all(text in found for text in texts) and found in agent.output()
    wait_until(f"it says {texts} ({agent.tail()})", 15, said)


def a_machine_that_waits_says_for_what(stage):
    """And writes nothing, although the image has pieces of zeros; then it goes on."""
    image = stage.image("image", MIB)
    with open(image, "r+b") as file:
        file.write(bytes(512 * KIB))
    torrent = Torrent(stage.directory, image, 256 * KIB)
    silent, hangs_up, closed = stage.port(), stage.port(), stage.port()
    with Server(silent, [http(200, b"d8:intervali9e5:peers0:e")]) as empty, \
            Server(hangs_up, [b""]):
        asked = {
            "nobody": ([], torrent, ["no other peer is known; the torrent names no tracker"]),
            "empty": ([], Torrent(stage.directory, image, 256 * KIB, empty),
                      ["no other peer is known; the tracker answers"]),
            "refused": (["--peer", f"127.0.0.1:{closed}"], torrent,
                        ["leads to no peer", f"127.0.0.1:{closed}: ", "refused"]),
            "no route": (["--peer", "255.255.255.255:6881"], torrent,
                         ["leads to no peer", "the last try, 255.255.255.255:6881: "]),
            "hangs up": (["--peer", f"127.0.0.1:{hangs_up}"], torrent,
                         ["leads to no peer", f"127.0.0.1:{hangs_up}: ", "closed"]),
        }
        agents = {}
        for name, (options, described, texts) in asked.items():
            target = stage.path(f"target-{name}")
            target.write_bytes(b"old!" * (MIB // 4))
            agent = stage.get(*options, "--no-seed", described.path, target)
            agents[name] = (agent, target, texts)
        for agent, target, texts in agents.values():
            waits(agent, *texts)
            check(target.read_bytes() == b"old!" * (MIB // 4), "the target was written")
        stage.agent("seed", "--listen", f"127.0.0.1:{closed}", torrent.path, image)
        agent, target, _ = agents["refused"]
        agent.expect(0, 40)
        check("goes on" in agent.output(), f"it says:\n{agent.tail()}")
        check(target.read_bytes() == image.read_bytes(), "the target differs")


CASES = [
    a_tracker_that_answers_is_there,
    a_machine_that_waits_says_for_what,
]
