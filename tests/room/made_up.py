"""Made-up rows for the tests of everything that shows a roster."""
import random
from dataclasses import replace
from typing import Any

from room.page import Around
from room.machine import COMPLETE_STATES, STATES
from room.row import Row

GIB = 1 << 30
ROOM = Around(job="0123456789ab", title="lab.img", images=(("lab.img", 10 * GIB),),
              server="http://10.77.0.1")


def row(number: int = 1, state: str = "missing", **others: Any) -> Row:
    """Machine `pc-NN` in this state, and otherwise as ordinary as possible."""
    plain = Row(
        mac=f"52-54-00-77-{number // 256:02x}-{number % 256:02x}", name=f"pc-{number:02}",
        address="" if state == "missing" else f"10.77.{1 + number // 200}.{number % 200 + 1}",
        state=state, listed=True, percent=100.0 if state in COMPLETE_STATES else 0.0, down=0,
        up=0, fetched=0, uploaded=0, pieces=1024, verified=0, eta=None, waiting="",
        disk="QEMU HARDDISK, serial DISK1, 64 MiB", disks=[], link_mbps=1000, nic="eth0",
        driver="e1000e", version="0.1.0", began_at=None, complete_at=None, heard_at=None,
        silent=None, state_since=None, complete=state in COMPLETE_STATES, back=False,
        again=False, error="", words="", bytes=10 * GIB, left=10 * GIB)
    made = replace(plain, **others)
    # During the read-back, and after it, nothing is left to fetch.
    share = 100.0 if made.state in (COMPLETE_STATES | {"verifying"}) else made.percent
    return made if "left" in others else replace(
        made, left=int(made.bytes * (1 - min(max(share, 0.0), 100.0) / 100)))


def hostile_text(random_: random.Random) -> str:
    """What somebody may put into a report to spoil what others see."""
    parts = ["<script>alert(1)</script>", "\033[2J\033[31m", "\u202egnp.exe", "\r\n", "\x00\x07\b",
             "幅の広い文字", "e\u0301\u0302\u0303", "🖥️👩‍👩‍👧", "a" * 300, "'\"&lt;",
             "\u200b\ufeff", "\ud800", "\u2028", "%s%n", "👍🏽"]
    return "".join(random_.choice(parts) for _ in range(random_.randrange(6)))


def hostile_row(random_: random.Random, number: int) -> Row:
    return row(number, random_.choice(STATES), name=hostile_text(random_),
               error=hostile_text(random_), waiting=hostile_text(random_),
               flags=[hostile_text(random_) for _ in range(random_.randrange(3))],
               percent=random_.choice([-1e9, 0.0, 12.3, 99.99, 100.0, 1e18]),
               down=random_.choice([0, 123_456_789, 10**18]), up=random_.choice([0, 5, 10**18]),
               eta=random_.choice([None, 0, 59, 3599, 10**18]), back=random_.random() < 0.5,
               again=random_.random() < 0.1)
