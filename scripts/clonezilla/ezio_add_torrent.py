#!/usr/bin/env python3
"""Give ezio a torrent: in the place of EZIO's script of this name.

The exit status is 0 when ezio has accepted the torrent. Else it is 1, ezio's sentence is on stderr,
and ezio_ui.py or ezio_cli.py will not end as if all were done.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

sys.dont_write_bytecode = True

from control import ADDRESS, START_SECS, Agent, Away, Refused  # noqa: E402


class Parser(argparse.ArgumentParser):
    """A mistake in the words counts as a refusal, too."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        refuse(Agent(ADDRESS), message, 2)


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torrent", metavar="TORRENT", help="a file")
    parser.add_argument("path", metavar="PATH",
                        help="target; with -S: device, image, or folder of slices")
    parser.add_argument("-a", "--address", default=ADDRESS, metavar="ADDR:PORT",
                        help="what ezio listens on (default: %(default)s)")
    parser.add_argument("-S", "--seed", action="store_true", help="PATH holds the data: only seed")
    parser.add_argument("-s", "--sequential", action="store_true", help="ignored")
    parser.add_argument("-c", "--max-connections", metavar="N", help="ignored: no need to tune it")
    parser.add_argument("-u", "--max-uploads", metavar="N", help="ignored: no need to tune it")
    words = parser.parse_args()

    agent = Agent(words.address)
    try:
        agent.ask(START_SECS, do="add", torrent=absolute(words.torrent),
                  path=absolute(words.path), seed=words.seed)
    except (Away, Refused) as error:
        refuse(agent, str(error), 1)
    print(f"added {words.torrent}: {words.path}")
    return 0


def absolute(path: str) -> str:
    """ezio may have another working directory. A selector of disks is not a path."""
    if path.startswith(("http://", "disk:")):
        return path
    return str(Path.cwd() / path)


def refuse(agent: Agent, text: str, status: int) -> NoReturn:
    print(f"ezio_add_torrent.py: {text}", file=sys.stderr)
    agent.note_refusal(text)
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
