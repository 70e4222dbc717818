"""Which benchmark was asked for? The command line behind scripts/bench/run, which has the manual.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .common import Failure, say
from .contenders import CONTENDERS, MIXED, OTHERS, PAIR, Contender
from .disk import disk
from .packed import packed
from .pair import pair
from .partclone import partclone
from .plan import swarm
from .room import room

TOP = Path(__file__).resolve().parents[2]
NICE = -10


def main() -> int:
    options = parse(sys.argv[1:])
    # So that an end from outside runs every `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    take_precedence()
    try:
        commands = {"pair": pair, "disk": disk, "packed": packed, "partclone": partclone,
                    "room": room, "swarm": swarm}
        return commands[options.command](options)
    except Failure as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", add_help=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    pair_options = commands.add_parser("pair", add_help=False, allow_abbrev=False)
    pair_options.add_argument("--only", type=some_of(PAIR),
                              default=[c.name for c in PAIR
                                       if c.name != "against" and c not in MIXED])
    pair_options.add_argument("--mixed", action="store_const", dest="only",
                              const=[c.name for c in OTHERS + MIXED])
    pair_options.add_argument("--against", type=Path)
    pair_options.add_argument("--cold", action="store_true")
    pair_options.add_argument("--timeout", type=positive)
    disk_options = commands.add_parser("disk", add_help=False, allow_abbrev=False)
    packed_options = commands.add_parser("packed", add_help=False, allow_abbrev=False)
    partclone_options = commands.add_parser("partclone", add_help=False, allow_abbrev=False)
    swarm_options = commands.add_parser("swarm", add_help=False, allow_abbrev=False)
    swarm_options.add_argument("--n", type=several, default=[1, 2, 4, 8, 16, 32])
    swarm_options.add_argument("--only", type=some_of([c for c in CONTENDERS if c not in MIXED]))
    swarm_options.add_argument("--piece-size", type=several, default=[64])
    swarm_options.add_argument("--image")
    swarm_options.add_argument("--rate", type=positive, default=25)
    swarm_options.add_argument("--uplink-queue", type=positive, default=125_000)
    swarm_options.add_argument("--queue", type=positive, default=125_000)
    swarm_options.add_argument("--multicast", type=percent, default=97)
    swarm_options.add_argument("--kill", type=percent)
    swarm_options.add_argument("--rooms", type=positive, default=0)
    swarm_options.add_argument("--cable", type=positive, default=1)
    swarm_options.add_argument("--minutes", type=positive)
    swarm_options.add_argument("--trace", action="store_true")
    room_options = commands.add_parser("room", add_help=False, allow_abbrev=False)
    room_options.add_argument("--machines", type=positive, default=400)
    room_options.add_argument("--seconds", type=positive, default=60)
    room_options.add_argument("--seed", type=positive, default=1)
    for command, size, runs in (
        (pair_options, 1024, 3), (disk_options, 1024, 3), (partclone_options, 1024, 5),
        (swarm_options, 128, 1), (packed_options, 512, 3),
    ):
        command.add_argument("--size", type=positive, default=size)
        command.add_argument("--runs", type=positive, default=runs)
    for command in (
        pair_options, disk_options, packed_options, partclone_options, swarm_options,
        room_options,
    ):
        command.add_argument("--binary", type=Path, default=TOP / "target" / "swarmdd")
        command.add_argument("--output", type=Path, default=TOP / "target" / "bench")
    options = parser.parse_args(argv)
    options.binary = options.binary.resolve()
    if options.command == "swarm" and options.image == "files" and not given(argv, "--size"):
        options.size = 256
    if options.command == "pair" and options.against:
        options.against = options.against.resolve()
    if options.command == "swarm" and options.only is None:
        # Killed leechers test the swarm; the other contenders would only take their time.
        other = ["read-back", "against", "never"]
        # Of random data lz4 makes nothing smaller.
        other += [] if options.image else ["udpcast-lz4", "swarmdd-packed"]
        undisturbed = [c.name for c in CONTENDERS if c.name not in other and c not in MIXED]
        options.only = ["swarmdd"] if options.kill else undisturbed
    return options


def given(argv: list[str], option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in argv)


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def percent(text: str) -> int:
    if not 1 <= int(text) <= 99:
        raise ValueError(text)
    return int(text)


def several(text: str) -> list[int]:
    return [positive(word) for word in text.split(",")]


def some_of(contenders: list[Contender]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if not set(chosen) <= {contender.name for contender in contenders}:
            raise ValueError(text)
        return chosen
    return names


def take_precedence() -> None:
    """Over what else this host does, for the bench and all that it starts alike: less noise, and no
    contender is favoured."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        # Where the kernel groups processes by session, the line above counts only within its own
        # session (sched(7), the autogroup feature).
        if os.getpid() != os.getpgid(0):
            os.setsid()
            Path("/proc/self/autogroup").write_text(f"{NICE}\n")
    except OSError as error:
        say(f"no precedence over other programs of this host: {error}")


if __name__ == "__main__":
    sys.exit(main())
