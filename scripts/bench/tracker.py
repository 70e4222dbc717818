"""How is an opentracker started, and which peers does it know?

For the bench and for tests/loopback.

Debian's opentracker serves only the torrents of its whitelist.
"""

import re
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from .common import Command

WHITELIST = "whitelist"


def allow(directory: Path, info_hashes: Iterable[bytes]) -> None:
    """Makes the tracker's directory; opentracker reads the whitelist when it starts."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    whitelist = directory / WHITELIST
    whitelist.write_text("".join(f"{info_hash.hex()}\n" for info_hash in info_hashes))
    whitelist.chmod(0o644)


def command(directory: Path, address: str, port: int) -> Command:
    """opentracker need not be root. If it left root by itself, the kernel would forget to end it
    with its parent (prctl(2), PR_SET_PDEATHSIG). It starts inside a directory that `nobody` may
    read, so the permissions of the directories above do not matter."""
    return [
        "env", f"--chdir={directory}", "setpriv", "--reuid=nobody", "--regid=nogroup",
        "--clear-groups", "--pdeathsig=KILL",
        "opentracker", "-i", address, "-p", port, "-P", port, "-w", WHITELIST,
    ]


def counts(address: str, port: int, info_hash: bytes) -> tuple[int, int]:
    """How many complete and how many incomplete peers the tracker knows, by a scrape (BEP 48)."""
    url = f"http://{address}:{port}/scrape?info_hash={urllib.parse.quote(info_hash)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read()
    return number_of(text, b"complete"), number_of(text, b"incomplete")


def number_of(text: bytes, key: bytes) -> int:
    found = re.search(rb"%d:%bi(\d+)e" % (len(key), key), text)
    return int(found.group(1)) if found else 0
