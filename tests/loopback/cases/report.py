"""What does the server of --report hear, and what does an agent do while there is none?"""

import contextlib
import http.server
import json
import signal
import socket
import threading
import time

from cases.waiting import http as answer_of
from fixtures import Background, Server
from harness import KIB, MIB, can_connect, check, wait_until
from torrent import Torrent

SECONDS_AT_THE_END = 10


class Listener(Background):
    """A web server as Python brings it: takes each object, and keeps it with the time."""

    def __init__(self, port, status=200):
        super().__init__()
        heard = self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append((time.monotonic(), json.loads(body), self.headers["Content-Type"]))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.url = f"http://127.0.0.1:{port}/report?job=5"
        self.server = http.server.HTTPServer(("127.0.0.1", port), Handler)
        self.server.timeout = 0.2

    def step(self):
        self.server.handle_request()

    def close(self):
        self.server.server_close()

    def states(self, target):
        objects = [report for _, report, _ in self.heard if report["target"] == str(target)]
        return list(dict.fromkeys(report["state"] for report in objects))

    def last(self, target):
        return [report for _, report, _ in self.heard if report["target"] == str(target)][-1]


class Trickle(Background):
    """Answers each connection with a byte a second of what could be an answer."""

    def __init__(self, port):
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(0.2)
        self.connections = []

    def step(self):
        with contextlib.suppress(TimeoutError):
            self.connections.append(self.listener.accept()[0])
        time.sleep(0.8)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.send(b"H")

    def close(self):
        for connection in [self.listener, *self.connections]:
            connection.close()


def every_state_of_every_pair_is_told(stage):
    image, other = stage.image("image", MIB), stage.image("other", 2 * MIB)
    torrents = [Torrent(stage.directory, file, 256 * KIB) for file in (image, other)]
    ports = [stage.seed(torrent, file)[1] for torrent, file in zip(torrents, (image, other))]
    peers = [word for port in ports for word in ("--peer", f"127.0.0.1:{port}")]
    targets = [stage.loop("first", 4 * MIB), stage.path("second")]
    with Listener(stage.port()) as server:
        agent = stage.get("--report", server.url, *peers, "--seed-secs", 3,
                          torrents[0].path, targets[0], torrents[1].path, targets[1])
        wait_until("both are done", 30, lambda: all(
            report["state"] == "done" for report in agent.last().values()))
        # Who has been heard need not wait.
        agent.expect(0, SECONDS_AT_THE_END - 2)
    for target in targets:
        told, printed = server.states(target), agent.states(str(target))
        check(told[-2:] == ["seeding", "done"] and "fetching" in printed, f"{told} {printed}")
        # A state that is over before it could be told is not told.
        check([state for state in printed if state in told] == told, f"{told} {printed}")
        last = server.last(target)
        printed = agent.result(target)
        check({**last, **printed} == last, f"{last}\n{printed}")
        check(last["nic"] == "lo" and last["mac"] is None and last["version"], str(last))
        check(last["driver"] is None and last["link_mbps"] is None, str(last))
    disk = server.last(targets[0])["disk"]
    check(disk["path"] == str(targets[0]) and disk["size"] == 4 * MIB, str(disk))
    check(server.heard[0][2] == "application/json", server.heard[0][2])


def nginx_takes_reports_and_hears_them_every_five_seconds(stage):
    """It logs the body of a POST if something reads it: here a server of its own that says 204."""
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    port, inner, log = stage.port(), stage.port(), stage.path("reports.log")
    stage.path("nginx.conf").write_text(
        "daemon off; master_process off;\n"
        f"error_log {stage.path('error.log')}; pid {stage.path('nginx.pid')};\n"
        "events {}\nhttp { log_format report escape=json '\"$request_body\"';\n"
        f"client_body_temp_path {stage.path('body')}; proxy_temp_path {stage.path('proxy')};\n"
        f"server {{ listen 127.0.0.1:{port}; location /report {{\n"
        f"access_log {log} report; proxy_pass http://127.0.0.1:{inner}; }} }}\n"
        f"server {{ listen 127.0.0.1:{inner}; access_log off; return 204; }} }}\n")
    stage.start("nginx", ["nginx", "-c", stage.path("nginx.conf"), "-p", stage.directory])
    wait_until("nginx listens", 10, lambda: can_connect(port))
    agent = stage.get("--report", f"http://127.0.0.1:{port}/report", torrent.path,
                      stage.path("target"))

    def heard():
        return [json.loads(json.loads(line)) for line in log.read_text().splitlines()]
    wait_until("three objects", 20, lambda: len(heard()) >= 4)
    check(len(heard()) <= 5, f"{heard()}")
    check("no other peer is known" in heard()[-1]["waiting"], f"{heard()[-1]}")
    agent.end()
    agent.expect(1, 10)
    # nginx answers first, and then writes its log.
    wait_until("the last word", 5, lambda: heard()[-1]["state"] == "failed")
    check("interrupted" in heard()[-1]["error"], f"{heard()[-1]}")


def a_server_that_comes_late_hears_the_last_word_of_each_state(stage):
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, seeder = stage.seed(torrent, image)
    port, target = stage.port(), stage.path("target")
    agent = stage.get("--report", f"http://127.0.0.1:{port}/report", "--seed-secs", 60,
                      "--peer", f"127.0.0.1:{seeder}", torrent.path, target)
    agent.wait_state("seeding", 20)
    complaint = f"cannot report to http://127.0.0.1:{port}/report: "
    wait_until("it says so", 5, lambda: complaint in agent.output())
    # It is away longer than the pause between two tries grows.
    time.sleep(SECONDS_AT_THE_END)
    with Listener(port) as server:
        wait_until("the server hears", 12, lambda: server.heard)
        check(server.states(target) == ["seeding"], f"{server.heard}")
        check(agent.output().count(complaint) == 1, agent.tail())
        agent.end()
        agent.expect(0, 10)
        check(server.last(target)["state"] == "done", f"{server.heard}")


def an_ill_server_stops_nothing(stage):
    """The disk gets its image, and the end waits its ten seconds and not longer."""
    image = stage.image("image", 8 * MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    _, seeder = stage.seed(torrent, image)
    redirect = answer_of(307, b"", b"Location: http://127.0.0.1:1/")
    with contextlib.ExitStack() as stack:
        servers = {"away": stage.port()}
        for name, answer in (("refuses", answer_of(500)), ("redirects", redirect),
                             ("no HTTP", b"hello\r\n"), ("hangs up", b"")):
            servers[name] = stack.enter_context(Server(stage.port(), [answer])).port
        servers["trickles"] = stage.port()
        stack.enter_context(Trickle(servers["trickles"]))
        servers["silent"] = stage.port()
        stack.enter_context(socket.create_server(("127.0.0.1", servers["silent"])))
        agents = {}
        for name, port in servers.items():
            agent = stage.get("--report", f"http://127.0.0.1:{port}/report", "--no-seed",
                              "--peer", f"127.0.0.1:{seeder}", torrent.path, stage.path(name))
            agents[name] = agent
        ends, lock = {}, threading.Lock()

        def watch(name):
            wait_until(f"{name}: done", 20, lambda: agents[name].state() == "done")
            begin = time.monotonic()
            agents[name].expect(0, SECONDS_AT_THE_END + 5)
            with lock:
                ends[name] = time.monotonic() - begin
        threads = [threading.Thread(target=watch, args=(name,)) for name in agents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check(set(ends) == set(agents), f"{ends}")
    for name, agent in agents.items():
        check(SECONDS_AT_THE_END - 2 < ends[name] < SECONDS_AT_THE_END + 3, f"{name}: {ends}")
        check(stage.path(name).read_bytes() == image.read_bytes(), f"{name}: the target differs")
        check("swarmdd: could not report to http://" in agent.output(), agent.tail())


def a_failure_before_the_disk_is_opened_is_told(stage):
    image = stage.image("image", MIB)
    torrent = Torrent(stage.directory, image, 256 * KIB)
    # A torrent that no server has: what is waited for is told before a signal ends it.
    with Listener(stage.port()) as server, Server(stage.port(), [answer_of(404)]) as web:
        refused = stage.get("--report", server.url, torrent.path, "/dev/null")
        refused.expect(1, SECONDS_AT_THE_END - 1)
        last = server.last("/dev/null")
        check(last["state"] == "failed" and last["error"] and last["disk"] is None, f"{last}")
        waits = stage.get("--report", server.url, web.url, stage.path("target"))
        wait_until("the reason is told", 10, lambda: any(
            report["state"] == "fetching" and "server answers 404" in report.get("waiting", "")
            for _, report, _ in server.heard))
        wait_until("and printed", 10, lambda: "server answers 404" in str(waits.reports()))
        waits.end()
        waits.expect(1, 10)
        check("interrupted" in server.last(stage.path("target"))["error"], f"{server.heard}")
    # Nobody listens any more: the exit status says that the failure is not known there.
    untold = stage.get("--report", server.url, torrent.path, "/dev/null")
    wait_until("failed", 10, lambda: untold.state() == "failed")
    untold.popen.send_signal(signal.SIGTERM)
    untold.expect(3, 5)


CASES = [
    every_state_of_every_pair_is_told,
    nginx_takes_reports_and_hears_them_every_five_seconds,
    a_server_that_comes_late_hears_the_last_word_of_each_state,
    an_ill_server_stops_nothing,
    a_failure_before_the_disk_is_opened_is_told,
]
