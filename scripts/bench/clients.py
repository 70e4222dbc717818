"""How is another BitTorrent client started as one peer?

Command lines, for the bench and for tests/loopback.

Each client finds peers through the tracker and by `--connect` alone: no DHT, no local discovery, no
peer exchange, no port mapping. The caller adds the options that only it needs, such as buffer
sizes, limits and hooks.
"""

import json
from pathlib import Path

from .common import Argument, Command

# Debian's Python, whichever runs this file: python3-libtorrent belongs to it.
LIBTORRENT_CLIENT: Command = [
    "/usr/bin/python3", "-B", Path(__file__).with_name("libtorrent_client.py"),
]
TRANSMISSION_SETTINGS = {
    "dht-enabled": False,
    "lpd-enabled": False,
    "pex-enabled": False,
    "utp-enabled": False,
    "port-forwarding-enabled": False,
}


def aria2(torrent: Path, directory: Path, port: int, *options: Argument) -> Command:
    return [
        "aria2c", "--no-conf=true", "--enable-dht=false", "--enable-dht6=false",
        "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--file-allocation=none",
        "--summary-interval=0", "--seed-ratio=0.0", f"--listen-port={port}", f"--dir={directory}",
        *options, torrent,
    ]


def transmission(
    torrent: Path, directory: Path, port: int, config: Path, settings: dict, *options: Argument
) -> Command:
    """`config` is an empty directory, in which transmission keeps its settings and its memory."""
    merged = {**TRANSMISSION_SETTINGS, "peer-port": port, **settings}
    (config / "settings.json").write_text(json.dumps(merged))
    return [
        "transmission-cli", "--config-dir", config, "--download-dir", directory, "--port", port,
        "--no-portmap", *options, torrent,
    ]


def libtorrent(
    torrent: Path, directory: Path, address: str, port: int, *options: Argument
) -> Command:
    """The options are those of libtorrent_client.py."""
    return [
        *LIBTORRENT_CLIENT, "--address", address, "--port", port, "--torrent", torrent,
        "--directory", directory, *options,
    ]
