"""How does a case start `serve`, speak for machines, and look at what is there?"""
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/loopback"))
sys.path.insert(0, str(TOP / "scripts"))
import harness  # noqa: E402
from harness import AGENT, check, wait_until  # noqa: E402
from room.state import MARKER, State, end_processes, remains, start_of  # noqa: E402

INTERFACE, ADDRESS = "room0", "10.77.0.1"
# Machines speak from these; the kernel knows no MAC address behind them, as in a routed room.
MACHINES = [f"10.77.0.{10 + number}" for number in range(10)]
COMPONENTS = ("opentracker", "nginx", "seeder")


def make_network():
    """Once for all cases, in the namespace of the test."""
    if subprocess.run(["ip", "link", "show", INTERFACE], capture_output=True).returncode == 0:
        return
    subprocess.run(["ip", "link", "add", INTERFACE, "type", "bridge"], check=True)
    for address in (ADDRESS, *MACHINES):
        subprocess.run(["ip", "address", "add", f"{address}/24", "dev", INTERFACE], check=True)
    subprocess.run(["ip", "link", "set", INTERFACE, "up"], check=True)


def plugged_in():
    """An Ethernet card in the network of the server, as qemu-tests/boot-client wants it."""
    subprocess.run(["ip", "link", "add", "client", "type", "veth", "peer", "name", "client0"],
                   check=True)
    subprocess.run(["ip", "link", "set", "client", "address", "52:54:00:77:00:59", "up"],
                   check=True)
    subprocess.run(["ip", "link", "set", "client0", "master", INTERFACE, "up"], check=True)
    return "client"


def running(pids):
    """Those that still run. A zombie does not."""
    return [pid for pid in pids if start_of(pid) is not None]


def mac(number):
    return f"52-54-00-77-00-{number:02x}"


class Desk:
    """One state directory, one image, and the `serve` that runs there."""

    def __init__(self, stage, name="state"):
        make_network()
        self.stage = stage
        # nginx is not root and must be able to enter.
        stage.directory.chmod(0o755)
        self.state = stage.path(name)
        stage.processes.append(self)
        self.image = stage.path("lab.img")
        if not self.image.exists():
            stage.image("lab.img", 2 << 20)
            stage.path("boot-file").write_bytes(b"kernel or initramfs")
        self.port = 80

    def command(self, *options, images=True):
        # A later option replaces an earlier one.
        return [TOP / "scripts/serve", "--interface", INTERFACE, "--no-dhcp", "--agent", AGENT,
                "--kernel", self.stage.path("boot-file"), "--dir", self.state,
                "--initramfs", self.stage.path("boot-file"), "--grace", "1", *options,
                *([self.image] if images else [])]

    def waiting_agent(self, task):
        """An agent that makes the file `asked` when it is given this task, and waits for `go`."""
        script = self.stage.path("agent")
        script.write_text("#!/bin/sh\n"
                          f"if [ $1 = {task} ]; then cd {self.stage.directory}\n: > asked\n"
                          "for _ in $(seq 300); do [ -e go ] || sleep 0.1; done; fi\n"
                          f'exec {AGENT} "$@"\n')
        script.chmod(0o755)
        return script

    def start(self, *options):
        """A `serve` that has come as far as waiting for machines."""
        (self.state / "cmdline").unlink(missing_ok=True)
        self.serve = self.stage.start("serve", self.command(*options))
        self.wait_ready(self.serve)
        return self.serve

    def wait_ready(self, serve):
        def is_ready():
            return (self.state / "cmdline").exists() or serve.expect_running()
        wait_until("serve is ready", 20, is_ready)

    def run(self, *options, status, images=True):
        """A `serve` that ends by itself. Returns what it said."""
        serve = self.stage.start("serve", self.command(*options, images=images))
        serve.expect(status, 30)
        return serve.output()

    def pid_of(self, component):
        """None while it does not run."""
        try:
            return json.loads((self.state / f"{component}.pid").read_text())["pid"]
        except FileNotFoundError:
            return None

    def pids(self):
        return [self.pid_of(component) for component in COMPONENTS]

    def command_of(self, component):
        words = Path(f"/proc/{self.pid_of(component)}/cmdline").read_bytes()
        return words.replace(b"\0", b" ").decode()

    def kill(self, component):
        """Returns when another one runs in its place, or `serve` has ended."""
        old = self.pid_of(component)
        os.kill(old, signal.SIGKILL)
        wait_until(f"{component} is missed", 10, lambda: (
            not self.serve.is_running() or self.pid_of(component) not in (None, old)))

    def check_nothing_left(self, pids):
        check(not running(pids), f"{running(pids)} still run")
        files = {path.name for path in self.state.glob("*.pid")} - {"serve.pid"}
        check(not files, f"{files} are left")
        for port in (80, 6969, 6881):
            check(not harness.can_connect(port, ADDRESS), f"port {port} is still open")

    def end(self, _signal):
        """What a `serve` that is killed by the case leaves."""
        for pids in remains(State(self.state)).values():
            end_processes(pids, 1)

    # --- what machines say

    def url(self, path):
        return f"http://{ADDRESS}:{self.port}/{path}"

    def job(self):
        return re.search(r"report\?job=([0-9a-f]{12})&", (self.state / "cmdline").read_text())[1]

    def say(self, number, state, address=None, **members):
        """Machine `number` reports from its own address, or from another one."""
        report = {"state": state, "target": "disk:auto", **members}
        return self.post(f"report?job={self.job()}&mac={mac(number)}",
                         json.dumps(report).encode(), address or MACHINES[number])

    def post(self, path, body, address):
        """With this source address. Returns the status."""
        return curl(self.url(path), address, body)[0]

    def get(self, path, number=0):
        return curl(self.url(path), MACHINES[number])

    def boot(self, number, address=None):
        """The script that machine `number` is given, which asks from its own address or another."""
        url = self.url(f"boot/{mac(number)}?platform=pcbios")
        status, text = curl(url, address or MACHINES[number])
        check(status == 200, f"/boot answers {status}")
        return text

    # --- what is shown

    def page(self):
        return json.loads((self.state / "www/status.json").read_text())

    def row(self, number):
        rows = [row for row in self.page()["machines"] if row["mac"] == mac(number)]
        return rows[0] if rows else None

    def wait_row(self, number, **wanted):
        def is_so():
            row = self.row(number)
            return row and all(row[name] == value for name, value in wanted.items())
        wait_until(f"machine {number} is {wanted} (is {self.row(number)})", 10, is_so)

    def results(self):
        found = json.loads((self.state / "results.json").read_text())
        return {machine["mac"]: machine for machine in found["machines"]}


def curl(url, address, body=None):
    """(status, text) of a request with this source address."""
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "10", "--interface", address,
               "--write-out", "\n%{http_code}", url]
    if body is not None:
        command += ["--data-binary", "@-", "--header", "Expect:"]
    answer = subprocess.run(command, input=body, capture_output=True, check=False)
    text, _, status = answer.stdout.decode(errors="replace").rpartition("\n")
    return int(status), text


class OnTerminal:
    """`serve` on a terminal of its own, as a shell would start it."""

    def __init__(self, stage, command):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(command[0], [str(word) for word in command])
        termios.tcsetwinsize(self.terminal, (24, 80))
        os.set_blocking(self.terminal, False)
        self.output = ""
        self.status = None
        stage.processes.append(self)

    def read(self):
        try:
            while text := os.read(self.terminal, 65536):
                self.output += text.decode(errors="replace")
        except OSError:
            pass
        return self.output

    def press(self, keys):
        os.write(self.terminal, keys)

    def hang_up(self):
        os.close(self.terminal)
        self.terminal = -1

    def wait_for(self, text, seconds=10):
        wait_until(f"the terminal shows {text!r}", seconds, lambda: text in self.read())

    def is_running(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def expect_running(self):
        check(self.is_running(), f"serve has ended with {self.status}: {self.read()[-2000:]}")

    def expect(self, status, seconds):
        wait_until(f"serve ends: {self.read()[-500:]}", seconds,
                   lambda: self.read() is None or not self.is_running())
        check(self.status == status, f"status {self.status}, not {status}: {self.output[-2000:]}")

    def end(self, _signal=signal.SIGTERM):
        if self.is_running():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.terminal >= 0:
            os.close(self.terminal)
