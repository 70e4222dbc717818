"""How are nginx, opentracker and the seed started, watched, ended? (dnsmasq: see dhcp.py.)

Each component runs in a session of its own: Ctrl-C must reach only `serve`, which ends them in
order. One that dies is started again, RESTARTS_MAX times.
"""
from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import boot
from . import state as states
from .boot import Served
from .job import Job
from .log import parse_object
from .ports import Need
from .hostile import whole
from .state import State

# How long a component may take until it answers.
START_SECS = 10.0
# More often is no accident.
RESTARTS_MAX = 3
# Lines of its log that are shown when a component has ended.
LAST_LINES = 3
# The most that is read of an answer of a component, or of the end of its log.
READ_MAX = 64 * 1024
# Days of what dnsmasq and the seed print.
LOG_BYTES_MAX = 16 << 20


class Broken(Exception):
    """A component does not start, or dies too often. The text says which, and its last lines."""


@dataclass
class Component:
    """A program that runs as long as the job does."""

    name: str
    command: list[str]
    # Is it as it should be? Called until it is, after each start. Returns what is missing.
    trouble: Callable[[], str | None] = lambda: None
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    # In its log: where it began, and how far it was read (new_lines).
    began_at: int = 0
    read_to: int = 0
    stopped: bool = field(default=False)


# --- start, watch, end -------------------------------------------------------------


def start(component: Component, state: State) -> None:
    """Returns when the component works."""
    launch(component, state)
    limit = time.monotonic() + START_SECS
    while (trouble := component.trouble()) is not None:
        if has_ended(component):
            raise Broken(f"{component.name} ended: {last_words(component, state)}")
        if time.monotonic() >= limit:
            raise Broken(f"{component.name} does not work: {trouble}")
        time.sleep(0.05)


def launch(component: Component, state: State) -> None:
    path = log_of(component, state)
    with open(path, "ab") as log:
        component.began_at = component.read_to = log.tell()
        # In the child, before it becomes the component: `serve` may be killed at any time, and must
        # leave nothing that the next one does not find.
        def remember() -> None:
            states.remember(state, component.name, os.getpid(), component.command)
        try:
            component.process = subprocess.Popen(component.command, stdin=subprocess.DEVNULL,
                                                 stdout=log, stderr=log, start_new_session=True,
                                                 preexec_fn=remember)
        except (OSError, subprocess.SubprocessError) as error:
            states.forget(state, component.name)
            raise Broken(f"cannot start {component.command[0]}: {error}") from None


def has_ended(component: Component) -> bool:
    return component.process is not None and component.process.poll() is not None


def revive(component: Component, state: State) -> str | None:
    """If the component has died: starts it again, and returns a sentence about it."""
    if component.stopped or not has_ended(component):
        return None
    words = last_words(component, state)
    end(component, state)
    if component.restarts >= RESTARTS_MAX:
        raise Broken(f"{component.name} has died {RESTARTS_MAX + 1} times: {words}")
    component.stopped = False
    component.restarts += 1
    launch(component, state)
    return f"{component.name} died and was started again ({component.restarts} of " \
           f"{RESTARTS_MAX}): {words}"


def end(component: Component, state: State, seconds: float = states.END_SECS) -> None:
    """With all its children: nginx may have been killed and its worker still hold the port."""
    component.stopped = True
    owned = states.read_pid_file(state.root / f"{component.name}.pid")
    if component.process is None or owned is None:
        return
    others = [pid for pid in states.session_of(owned) if pid != component.process.pid]
    if component.process.poll() is None:
        component.process.terminate()
        try:
            component.process.wait(seconds)
        except subprocess.TimeoutExpired:
            component.process.kill()
            component.process.wait()
    states.end_processes(others, seconds)
    states.forget(state, component.name)


def log_of(component: Component, state: State) -> Path:
    return state.logs / f"{component.name}.log"


def last_words(component: Component, state: State) -> str:
    lines = words_of(component, state)[-LAST_LINES:]
    status = component.process.returncode if component.process else None
    how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
    return " / ".join([how, *lines])


def words_of(component: Component, state: State) -> list[str]:
    """What it has written since it was started: the end of that."""
    return end_of_log(log_of(component, state), component.began_at)


def new_lines(component: Component, state: State) -> list[str]:
    """What the component has written since the last call, in whole lines. Its log does not grow
    for ever: it is emptied when it is long. (Opened with O_APPEND, so it begins anew then.)"""
    path = log_of(component, state)
    with open(path, "rb") as file:
        file.seek(component.read_to)
        text = file.read(READ_MAX).rpartition(b"\n")[0]
        component.read_to += len(text)
    if path.stat().st_size > LOG_BYTES_MAX:
        os.truncate(path, 0)
        component.read_to = 0
    return [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]


def end_of_log(path: Path, offset: int) -> list[str]:
    with open(path, "rb") as file:
        file.seek(max(offset, os.fstat(file.fileno()).st_size - READ_MAX))
        text = file.read(READ_MAX).decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


# --- the tracker ---------------------------------------------------------------------


def tracker(job: Job, state: State, images: tuple[Served, ...]) -> Component:
    """Debian's opentracker knows only the torrents of its whitelist. It changes its root to -d and
    becomes nobody. -p alone means TCP alone."""
    whitelist = state.root / "tracker/whitelist"
    states.write_file(whitelist, "".join(f"{served.info_hash}\n" for served in images))
    command = ["opentracker", "-i", job.address, "-p", str(job.tracker_port),
               "-d", str(whitelist.parent), "-w", whitelist.name]
    return Component("opentracker", command,
                     lambda: tracker_trouble(job, images[0].info_hash))


def tracker_trouble(job: Job, info_hash: str) -> str | None:
    """Asks the tracker for a torrent of ours. Another tracker at this port would refuse it."""
    query = (f"info_hash={urllib.parse.quote(bytes.fromhex(info_hash))}&peer_id=-SERVE-"
             "0000000000000&port=9&left=1&compact=1&numwant=0")
    url = f"http://{job.address}:{job.tracker_port}/announce?{query}"
    try:
        answer = fetch(url)
        # No machine should hear of this peer.
        fetch(f"{url}&event=stopped")
    except OSError as error:
        return f"no answer at {job.address}:{job.tracker_port} ({reason_of(error)})"
    if b"14:failure reason" in answer:
        return f"the tracker at port {job.tracker_port} refuses our torrent; is it another one?"
    return None


# --- the seed ---------------------------------------------------------------------------


def seed(job: Job, state: State, images: tuple[Served, ...]) -> Component:
    pairs = [str(word) for served in images
             for word in (state.www / served.file, served.image.source)]
    limit = ["--max-up", job.max_up] if job.max_up else []
    return Component("seeder", [job.agent, "seed", "--listen", f"{job.address}:{job.seed_port}",
                                "--progress", "json", *boot.allow_options(job), *limit,
                                *pairs])


def seed_figures(lines: list[str], figures: dict[str, tuple[int, int]]) -> None:
    """Takes bytes a second and bytes in all, of each torrent, out of what the seed printed."""
    for line in lines:
        report = parse_object(line) if line.startswith("{") else None
        if report:
            figures[str(report.get("torrent"))] = (whole(report.get("up")),
                                                   whole(report.get("uploaded")))


# --- the web server ----------------------------------------------------------------------


def web_server(job: Job, state: State, server: str) -> Component:
    states.write_file(state.root / "nginx.conf", web_server_config(job))
    command = ["nginx", "-p", f"{state.root}/", "-c", "nginx.conf", "-e", "log/nginx.log"]
    return Component("nginx", command, lambda: web_server_trouble(server, state))


def web_server_trouble(server: str, state: State) -> str | None:
    try:
        fetch(f"{server}/boot.ipxe")
    except urllib.error.HTTPError as error:
        if error.code == 403:
            raise Broken(f"nginx runs as nobody and may not read {state.www}: a folder above it "
                         "is closed to others; see --dir") from None
        return f"it answers {error.code} to {server}/boot.ipxe"
    except OSError as error:
        return f"no answer at {server} ({reason_of(error)})"
    return None


def web_server_config(job: Job) -> str:
    """nginx writes the log of what machines say (log.py).

    It reads the body of a request only when it passes the request on, so it passes it on to itself.
    client_body_buffer_size: a body in a temporary file would not be logged. Words are kept as files
    instead, and the log names the file. A name in a location keeps its value when another file is
    tried; a number does not.

    Bounds, so that nobody fills the disk with his log. Reports: 16 KiB, since an agent sends less
    than 4 KiB; without control characters, of which JSON has none and which the log writes as six
    bytes. An agent sends some reports a second for each image at most, and repeats the last one if
    it was refused. Words: an address sends them once for each failure."""
    mac = "[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
    # The colons of a MAC address are dashes here: ${mac:hexhyp}.
    return f"""daemon off;
pid temporary/nginx.pid;
worker_processes 1;
# A machine needs one or two at a time. The rest is for those who only hold them.
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    default_type application/octet-stream;
    types {{
        text/html html;
        text/css css;
        text/javascript js;
        application/json json;
        text/plain txt;
        application/efi efi;
    }}
    charset utf-8;
    charset_types text/css text/javascript text/plain;
    sendfile on;
    server_tokens off;
    client_body_temp_path temporary/body;
    proxy_temp_path temporary/proxy;
    fastcgi_temp_path temporary/fastcgi;
    uwsgi_temp_path temporary/uwsgi;
    scgi_temp_path temporary/scgi;
    client_header_timeout 20s;
    client_body_timeout 20s;
    send_timeout 20s;
    limit_req_zone $binary_remote_addr zone=words:1m rate=30r/m;
    limit_req_zone $binary_remote_addr zone=machine:1m rate=20r/s;
    limit_req_log_level info;
    map $request_body $may_be_json {{
        default 0;
        "~^[{{][^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f]*$" 1;
    }}
    log_format report escape=json
        '{{"time":$msec,"kind":"report","address":"$remote_addr","query":"$args",'
        '"body":"$request_body"}}';
    log_format asked escape=json
        '{{"time":$msec,"kind":"$kind","address":"$remote_addr","path":"$path",'
        '"query":"$args","script":"$uri"}}';
    log_format words escape=json
        '{{"time":$msec,"kind":"words","address":"$remote_addr","query":"$args",'
        '"file":"$request_body_file"}}';
    access_log off;
    # Without a new connection for each report.
    upstream logged {{
        server {job.address}:{job.http_port};
        keepalive 8;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{
        listen {job.address}:{job.http_port};
        root www;
        index index.html;
        add_header Content-Security-Policy "default-src 'self'" always;
        add_header X-Content-Type-Options nosniff always;
        location = /report {{
            limit_req zone=machine burst=200 nodelay;
            client_max_body_size 16k;
            client_body_buffer_size 16k;
            access_log log/room.log report if=$may_be_json;
            proxy_pass http://logged/logged;
        }}
        location = /words {{
            limit_req zone=words burst=20 nodelay;
            client_max_body_size 256k;
            client_body_in_file_only on;
            client_body_temp_path words;
            access_log log/room.log words;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_pass http://logged/logged;
        }}
        location = /logged {{
            return 204;
        }}
        location ~ "^/boot/(?<mac>{mac})$" {{
            set $kind boot;
            limit_req zone=machine burst=200 nodelay;
            set $path /boot/$mac;
            access_log log/room.log asked;
            try_files /machines/$mac.ipxe /unlisted.ipxe =404;
        }}
        # The last thing that a UEFI machine fetches before it boots from its disk.
        location ~ "^/disk/(?<mac>{mac})$" {{
            set $kind disk;
            limit_req zone=machine burst=200 nodelay;
            set $path /disk/$mac;
            access_log log/room.log asked;
            try_files /disk.efi =404;
        }}
        location ~ "^/retry/(?<mac>{mac})$" {{
            set $kind retry;
            limit_req zone=machine burst=200 nodelay;
            set $path /retry/$mac;
            access_log log/room.log asked;
        }}
        location = /status.json {{
            add_header Content-Security-Policy "default-src 'self'" always;
            add_header X-Content-Type-Options nosniff always;
            add_header Cache-Control no-store;
        }}
        location /words/ {{
            default_type text/plain;
            add_header Content-Security-Policy "default-src 'none'; sandbox" always;
            add_header X-Content-Type-Options nosniff always;
            add_header Cache-Control no-store;
        }}
    }}
}}
"""


def fetch(url: str) -> bytes:
    """From a component of ours, which is near. Never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2) as answer:
        return bytes(answer.read(READ_MAX))


def reason_of(error: OSError) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)


# --- ports -----------------------------------------------------------------------------------


def needs(job: Job) -> list[Need]:
    """The ports of the tracker, the web server and the seed."""
    tracker = [] if job.no_tracker else [
        Need("tcp", job.address, job.tracker_port, "--tracker-port 6970")]
    return [Need("tcp", job.address, job.http_port, "--http-port 8080"), *tracker,
            Need("tcp", job.address, job.seed_port, "--seed-port 6882")]
