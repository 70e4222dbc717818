#!/usr/bin/env python3
"""Wait until ezio is done, then end it: in the place of EZIO's script of this name.

One line, every 2 s: seconds, percent of all, rates, torrents that remain. It ends with status 0
when every torrent is complete and nobody needs it any more. If a target has failed or a torrent was
refused, it stays on the error, and its status is 1 when it is ended.
"""

import argparse
import sys
import time

sys.dont_write_bytecode = True

from control import (  # noqa: E402
    ADDRESS, IDLE_SECS, OF_SECONDS, STAYS, Agent, Job, in_red, summary, watch, words_of_failure,
    write,
)


class Line:
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.said = 0

    def show(self, jobs: list[Job], failures: list[str]) -> None:
        if failures[self.said:]:
            write("\n" + in_red(words_of_failure(failures[self.said:])) + "\n")
            self.said = len(failures)
        write("\r" + summary(time.monotonic() - self.started, jobs))

    def done(self) -> None:
        write("\n\nFinished. Exiting...\n")

    def stays(self, failures: list[str]) -> None:
        write("\n" + in_red(words_of_failure(failures)) + f"\n{STAYS}\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # A word that Clonezilla gives no value has the default.
    parser.add_argument("-a", "--address", nargs="?", default=ADDRESS, const=ADDRESS,
                        metavar="ADDR:PORT",
                        help="what ezio listens on (default: %(default)s)")
    parser.add_argument("-w", "--wait", **OF_SECONDS,
                        help="seed for this long at least, once complete (default: %(default)s)")
    parser.add_argument("--notify-ocsmgrd", nargs="?", metavar="HOST[:PORT]",
                        help="when all is done, report it there as ocs-sr does")
    # Others are ignored: if this ended because of one, Clonezilla would report a success.
    words, _ = parser.parse_known_args()
    write("ezio 2 (swarmdd)\n")
    return watch(Agent(words.address), Line(), words.wait, IDLE_SECS,
                 words.notify_ocsmgrd)


if __name__ == "__main__":
    sys.exit(main())
