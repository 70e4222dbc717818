"""Which address does an agent find for a name, and what does it do while nobody can tell it?"""

import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

from cases.waiting import http as answer_of
from fixtures import Server
from harness import AGENT, KIB, MIB, check, wait_until
from torrent import Torrent

# The runner's network is its own, so that port 53 is free.
SERVER, SILENT, NOBODY, ELSEWHERE = "127.7.7.1", "127.7.7.2", "127.7.7.3", "127.7.7.4"


def system_file(stage, place, text):
    """Lies over a file of /etc until the case ends."""
    path = stage.path(place.replace("/", "-"))
    path.write_text(text)
    # Debian's minimal images have no /etc/resolv.conf to lie over.
    Path(place).touch()
    subprocess.run(["mount", "--bind", path, place], check=True)
    stage.undo.append(["umount", place])


def name_server(stage):
    records = ["deploy.lan,127.0.0.1", f"two.lan,{ELSEWHERE}", "two.lan,127.0.0.1",
               "six.lan,127.0.0.1,::1", "far.lan,127.0.0.1,2001:db8::1"]
    stage.start("dnsmasq", [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root",
        "--no-hosts", "--no-resolv", "--bind-interfaces", f"--listen-address={SERVER}",
        "--local=/lan/", "--cname=alias.lan,other.lan", "--cname=other.lan,deploy.lan",
        "--txt-record=text.lan,x", *(f"--host-record={record}" for record in records)])

    def answers():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            return client.connect_ex((SERVER, 53)) == 0
    wait_until("dnsmasq listens", 10, answers)


def announced_at(host, port):
    return SimpleNamespace(port=port, url=f"http://{host}:{port}/announce")


def info(url):
    return subprocess.run([AGENT, "info", url], capture_output=True, text=True, timeout=60)


def a_name_leads_where_the_c_library_finds_it(stage):
    system_file(stage, "/etc/hosts", "127.0.0.1 localhost\n127.0.0.1\tlisted.lan listed # deploy\n")
    system_file(stage, "/etc/resolv.conf",
                f"search nowhere lan\nnameserver {NOBODY}\nnameserver {SERVER}\n")
    name_server(stage)
    torrent = Torrent(stage.directory, stage.image("image", MIB), 256 * KIB)
    body = torrent.path.read_bytes()
    with Server(stage.port(), [answer_of(200, body)]) as web:
        for name in ("127.0.0.1", "localhost", "listed", "LISTED.lan", "deploy", "deploy.lan",
                     "deploy.lan.", "alias", "two", "six", "far"):
            found = info(f"http://{name}:{web.port}/x.torrent")
            check(found.returncode == 0, f"{name}: {found.stderr}")
            check(torrent.info_hash in found.stdout, found.stdout)
    asked = f" (asked: {NOBODY}, {SERVER})"
    for name, why in (("nobody.lan.", "there is no such name"),
                      ("text.lan.", "the name has no address"),
                      ("outside.org.", "the name server failed with code 5"),
                      ("a..b", "it is no name of a host")):
        found = info(f"http://{name}/x.torrent")
        text = f"cannot look up {name}: {why}{asked}"
        check(found.returncode == 1 and text in found.stderr, found.stderr)


def a_silent_name_server_holds_up_nothing(stage):
    system_file(stage, "/etc/resolv.conf", f"nameserver {SILENT}\n")
    image = stage.image("image", 64 * MIB)
    _, seeder = stage.seed(Torrent(stage.directory, image, 256 * KIB), image)
    torrent = Torrent(stage.directory, image, 256 * KIB, announced_at("tracker.lan", 6969))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SILENT, 53))
        start = time.monotonic()
        agent = stage.get("--peer", f"127.0.0.1:{seeder}", "--report", "http://report.lan/",
                          torrent.path, stage.path("target"))
        agent.wait_state("seeding", 20)
        took = time.monotonic() - start
        # A lookup takes four seconds, and that of the tracker begins at once.
        check(took < 3, f"{took:.1f} s")
        text = f"cannot look up report.lan: no answer (asked: {SILENT})"
        wait_until("it says so", 12, lambda: text in agent.output())


def a_name_server_that_comes_late_is_found(stage):
    system_file(stage, "/etc/resolv.conf", f"search lan\nnameserver {SERVER}\n")
    image = stage.image("image", MIB)
    tracker = stage.tracker()
    torrent = Torrent(stage.directory, image, 256 * KIB, announced_at("deploy", tracker.port))
    tracker.start(torrent)
    with Server(stage.port(), [answer_of(200, torrent.path.read_bytes())]) as web:
        agent = stage.get(f"http://deploy:{web.port}/x.torrent", stage.path("target"))
        text = f"cannot look up deploy: Connection refused (os error 111) (asked: {SERVER})"
        wait_until("it waits", 10, lambda: text in agent.output())
        name_server(stage)
        stage.seed(torrent, image)
        agent.wait_state("seeding", 30)


CASES = [
    a_name_leads_where_the_c_library_finds_it,
    a_silent_name_server_holds_up_nothing,
    a_name_server_that_comes_late_is_found,
]
