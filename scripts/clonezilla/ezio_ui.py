#!/usr/bin/env python3
"""Wait until ezio is done, then end it: in the place of EZIO's script of this name.

A line for each target, for any terminal. It ends with status 0 when every torrent is complete and
nobody needs it any more. If a target has failed or a torrent was refused, it stays on the error,
and its status is 1 when it is ended.
"""

import argparse
import shutil
import sys
import time

sys.dont_write_bytecode = True

from control import (  # noqa: E402
    ADDRESS, OF_SECONDS, STAYS, Agent, Job, gb_per_minute, in_red, summary, watch,
    words_of_failure, write,
)

# Output that is not a terminal is somebody's log.
LOG_SECS = 10


class Screen:
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.logged: float | None = None

    def show(self, jobs: list[Job], failures: list[str]) -> None:
        now = time.monotonic()
        size = shutil.get_terminal_size()
        lines = page(now - self.started, jobs, failures, size.columns, size.lines)
        if sys.stdout.isatty():
            red = len(words_of_failure(failures)) if failures else 0
            # Home, the page, then erase what is left of an older one.
            text = in_red(lines[:red]) + "\n" * bool(red) + "\n".join(lines[red:])
            write("\033[H" + text.replace("\n", "\033[K\n") + "\033[J\n")
        elif self.logged is None or now - self.logged >= LOG_SECS:
            self.logged = now
            write("\n".join(lines) + "\n")

    def done(self) -> None:
        write("Finished. Exiting...\n")

    def stays(self, failures: list[str]) -> None:
        write("\n" + in_red(words_of_failure(failures)) + f"\n{STAYS}\n")


def page(seconds: float, jobs: list[Job], failures: list[str], columns: int,
         rows: int) -> list[str]:
    """At most `rows` - 1 lines of `columns` letters. What failed is first, then the sum, then what
    is not finished."""
    lines = words_of_failure(failures) if failures else []
    lines.append(summary(seconds, jobs) if jobs else "ezio waits for the first torrent")
    lines += [line_of(job) for job in sorted(jobs, key=lambda job: (job.finished, job.target))]
    return [line[:columns] for line in lines[:max(1, rows - 1)]]


def line_of(job: Job) -> str:
    state = "complete, left" if job.left else job.state
    return (f"{job.target} {job.percent:.1f}% D {gb_per_minute(job.down)}"
            f" U {gb_per_minute(job.up)} {state} ({job.torrent})")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # A word that Clonezilla gives no value has the default.
    parser.add_argument("-a", "--address", nargs="?", default=ADDRESS, const=ADDRESS,
                        metavar="ADDR:PORT",
                        help="what ezio listens on (default: %(default)s)")
    parser.add_argument("-w", "--wait", **OF_SECONDS,
                        help="seed for this long at least, once complete (default: %(default)s)")
    parser.add_argument("-l", "--last-upload", **OF_SECONDS,
                        help="... and until nothing was sent for this long (default: %(default)s)")
    parser.add_argument("--notify-ocsmgrd", nargs="?", metavar="HOST[:PORT]",
                        help="when all is done, report it there as ocs-sr does")
    # Others are ignored: if this ended because of one, Clonezilla would report a success.
    words, _ = parser.parse_known_args()
    return watch(Agent(words.address), Screen(), words.wait, words.last_upload,
                 words.notify_ocsmgrd)


if __name__ == "__main__":
    sys.exit(main())
