"""Does the table tell what matters, fit the terminal, and survive any terminal?"""
import contextlib
import fcntl
import os
import pty
import random
import struct
import sys
import termios
import unittest
from collections.abc import Iterator

from made_up import ROOM, hostile_row, row
from room.page import totals
from room.table import Terminal, changes, draw, duration, human_bytes, plain, width


def picture(rows, columns=80, lines=24):
    return draw(rows, totals(rows, ROOM), columns, lines)


class Draw(unittest.TestCase):
    def test_the_machines_in_order_of_need(self):
        rows = [
            row(1, "done", back=True),
            row(2, "seeding", up=55_000_000),
            row(3, "downloading", percent=80.0, down=98_100_000, eta=41),
            row(4, "downloading", percent=43.2, down=112_300_000, eta=3700),
            row(5),
            row(6, "downloading", percent=5.0, down=11_000_000, eta=990,
                flags=["link has 100 Mb/s"]),
            row(7, "failed", error="/dev/sda: Input/output error (os error 5)"),
            row(8, "booted"),
            row(9, "verifying", percent=50.0),
            row(10, "downloading", percent=80.0, waiting="a free peer"),
            row(11, "failed", error="before", again=True),
        ]
        self.assertEqual(picture(rows), [
            "2 of 11 complete, 1 failed, 7 working, 1 missing",
            "51 %, 221.4 MB/s, 52.8 GB to go, 1:01 h left, the server sends 0.0 MB/s",
            "machine  state          %    MB/s    left",
            "pc-07    failed       /dev/sda: Input/output error (os error 5)",
            "pc-06    downloading    5    11.0   16:30  link has 100 Mb/s",
            "pc-05    missing                           not seen yet",
            "pc-11    failed                            to be imaged again",
            "pc-08    booted                            10.77.1.9",
            "pc-04    downloading   43   112.3  1:01 h  ########............",
            "pc-03    downloading   80    98.1    0:41  ################....",
            "pc-10    downloading   80     0.0          waits: a free peer",
            "pc-09    verifying     50                  ##########..........",
            "pc-02    seeding                           sends 55.0 MB/s",
            "pc-01    done                              started its own disk",
        ])

    def test_sixty_machines_fit_and_the_rest_is_counted(self):
        rows = [row(n, "failed", error="e" * 200) for n in range(2)]
        rows += [row(n) for n in range(2, 5)]
        rows += [row(n, "downloading", percent=float(n)) for n in range(5, 40)]
        rows += [row(n, "seeding") for n in range(40, 58)] + [row(58, "done"), row(59, "done")]
        table = picture(rows)
        self.assertEqual(len(table), 24)
        self.assertEqual(table[3], "pc-00    failed       " + "e" * 57 + "…")
        self.assertEqual(table[-1], "… and 40 more: 20 downloading, 18 seeding, 2 done")

    def test_a_small_terminal_keeps_the_totals(self):
        rows = [row(n, "downloading") for n in range(60)]
        self.assertEqual([line[:21] for line in picture(rows, lines=3)],
                         ["0 of 60 complete, 0 f", "0 %, 0.0 MB/s, 644 GB",
                          "60 machines: 60 downl"])
        self.assertEqual(picture(rows, columns=11, lines=1), ["0 of 60 co…"])
        self.assertEqual(picture(rows, lines=0), [])

    def test_nobody_is_there_yet(self):
        self.assertEqual(picture([])[0], "0 of 0 complete, 0 failed, 0 working, 0 missing")

    def test_never_more_than_the_screen_whatever_the_rows(self):
        for seed in range(300):
            random_ = random.Random(seed)
            rows = [hostile_row(random_, n) for n in range(random_.choice([0, 1, 19, 20, 21, 60]))]
            columns, lines = random_.choice([(80, 24), (1, 1), (20, 4), (200, 50), (33, 7)])
            table = picture(rows, columns, lines)
            with self.subTest(seed=seed):
                self.assertLessEqual(len(table), lines)
                for line in table:
                    self.assertLessEqual(width(line), columns)
                    self.assertTrue(line.isprintable(), ascii(line))

    def test_width_counts_cells(self):
        self.assertEqual([width(text) for text in ("abc", "…", "文字", "é")], [3, 1, 4, 1])
        self.assertEqual(plain("a\u202eb\u200bc\033[1m\r\nd"), "abc [1m  d")

    def test_figures(self):
        self.assertEqual([duration(s) for s in (0, 75, 3599, 3700, 360_000, 10**18)],
                         ["0:00", "1:15", "59:59", "1:01 h", "4 d", "9999 d"])
        self.assertEqual([human_bytes(n) for n in (0, 999, 1000, 99_950_000, 1_234_567_890)],
                         ["0 B", "999 B", "1.0 kB", "100 MB", "1.2 GB"])


class Changes(unittest.TestCase):
    def test_each_change_of_state_is_a_line_with_the_reason(self):
        lines, before = changes({}, [row(1), row(2, "downloading", percent=1.0)])
        self.assertEqual(lines, ["pc-02 10.77.1.3 downloading"])
        lines, before = changes(before, [row(1, "booting"), row(2, "downloading", percent=2.0)])
        self.assertEqual(lines, ["pc-01 10.77.1.2 booting"])
        lines, before = changes(before, [row(1, "failed", error="no disk\n"), row(2, "done")])
        self.assertEqual(lines, ["pc-01 10.77.1.2 failed: no disk ", "pc-02 10.77.1.3 done"])
        self.assertEqual(changes(before, [row(1, "failed", error="no disk\n"), row(2, "done")])[0],
                         [])


class Screen:
    """What a terminal of this size shows: as much of one as Terminal's output needs."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.cells = [""] * lines
        self.line = 0
        self.column = 0

    def feed(self, text: str) -> None:
        while text:
            if text.startswith("\033["):
                end = next(i for i in range(2, len(text)) if text[i].isalpha())
                self.command(text[end], text[2:end])
                text = text[end + 1:]
                continue
            character, text = text[0], text[1:]
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.line_feed()
            else:
                if self.column >= self.columns:
                    self.column = 0
                    self.line_feed()
                old = self.cells[self.line].ljust(self.column)
                self.cells[self.line] = (old[:self.column] + character
                                         + old[self.column + 1:])
                self.column += 1

    def line_feed(self) -> None:
        if self.line == self.lines - 1:
            self.cells = [*self.cells[1:], ""]
        else:
            self.line += 1

    def command(self, name: str, value: str) -> None:
        if name == "A":
            self.line = max(0, self.line - int(value))
        elif name == "H":
            self.line = self.column = 0
        elif name == "K":
            self.cells[self.line] = self.cells[self.line][:self.column]
        elif name == "J":
            first = 0 if value == "2" else self.line + 1
            if value != "2":
                self.command("K", "")
            self.cells[first:] = [""] * (self.lines - first)
        else:
            raise AssertionError(f"unknown escape sequence {value}{name}")


@contextlib.contextmanager
def terminal(columns: int, lines: int) -> Iterator[tuple[int, int]]:
    """Both ends of a new terminal: what a user sees, and what a program has."""
    user, program = pty.openpty()
    resize(program, columns, lines)
    try:
        yield user, program
    finally:
        for fd in (user, program):
            with contextlib.suppress(OSError):
                os.close(fd)


def resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def read_all(fd: int) -> str:
    os.set_blocking(fd, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            data += os.read(fd, 65536)
    return data.decode()


class OnATerminal(unittest.TestCase):
    def show(self, shown, rows):
        shown.show(rows, totals(rows, ROOM))

    def test_redraws_in_place_below_the_messages(self):
        with terminal(40, 10) as (user, program):
            screen, shown = Screen(40, 10), Terminal(program)
            os.write(program, b"$ serve\r\n")
            shown.say("hashing lab.img")
            for percent in range(0, 100, 20):
                self.show(shown, [row(1, "downloading", percent=float(percent))])
            shown.say("opentracker\033[2J ended")
            self.show(shown, [row(1, "done"), row(2, "failed", error="no disk")])
            shown.close()
            screen.feed(read_all(user))
        self.assertEqual([line.rstrip() for line in screen.cells], [
            "$ serve", "hashing lab.img", "opentracker [2J ended",
            "1 of 2 complete, 1 failed, 0 working, 0…",
            "100 %, 0.0 MB/s, 0 B to go, the server …",
            "machine  state          %    MB/s    le…", "pc-02    failed       no disk",
            "pc-01    done", "", ""])

    def test_a_full_screen_does_not_scroll(self):
        rows = [row(n, "downloading") for n in range(60)]
        with terminal(80, 24) as (user, program):
            screen, shown = Screen(80, 24), Terminal(program)
            for number in range(5):
                shown.say(f"message {number}")
            for _ in range(3):
                self.show(shown, rows)
            shown.say("message 5")
            self.show(shown, rows)
            screen.feed(read_all(user))
        self.assertEqual(screen.cells[:4], ["message 3", "message 4", "message 5",
                                            "0 of 60 complete, 0 failed, 60 working, 0 missing"])
        self.assertTrue(screen.cells[22].startswith("… and 44 more"), screen.cells)
        self.assertEqual(screen.cells[23], "")

    def test_a_resize_redraws_everything(self):
        rows = [row(n, "downloading") for n in range(60)]
        with terminal(80, 24) as (user, program):
            shown = Terminal(program)
            shown.say("hashing lab.img")
            self.show(shown, rows)
            read_all(user)
            resize(program, 30, 12)
            self.show(shown, rows)
            screen = Screen(30, 12)
            screen.feed(read_all(user))
        self.assertEqual(screen.cells[:2], ["hashing lab.img", "0 of 60 complete, 0 failed, 6…"])
        self.assertTrue(screen.cells[8].startswith("… and 56 more"), screen.cells)

    def test_a_question_is_the_last_line(self):
        with terminal(80, 24) as (user, program):
            screen, shown = Screen(80, 24), Terminal(program)
            shown.prompt = "end now? [y/n]"
            self.show(shown, [row(1)])
            shown.prompt = ""
            self.show(shown, [row(1)])
            self.assertNotIn("end now", "".join(screen.cells))
            shown.prompt = "end now? [y/n]"
            self.show(shown, [row(1)])
            screen.feed(read_all(user))
        self.assertEqual([line for line in screen.cells if line][-1], "end now? [y/n]")

    def test_a_terminal_that_has_vanished_is_no_error(self):
        with terminal(80, 24) as (user, program):
            shown = Terminal(program)
            self.show(shown, [row(1)])
            os.close(user)
            self.show(shown, [row(2)])
            shown.say("still here")
            shown.close()

    def test_a_stopped_terminal_is_not_waited_for(self):
        rows = [row(n, "downloading") for n in range(60)]
        with terminal(80, 24) as (user, program):
            shown = Terminal(program)
            termios.tcflow(program, termios.TCOOFF)
            for number in range(3):
                self.show(shown, rows)
                shown.say(f"message {number}")
            self.assertEqual(read_all(user), "")
            termios.tcflow(program, termios.TCOON)
            self.show(shown, rows)
            screen = Screen(80, 24)
            screen.feed(read_all(user))
        self.assertEqual(screen.cells[2:4], [
            "message 2", "0 of 60 complete, 0 failed, 60 working, 0 missing"])


    def hides_and_shows_keys(self):
        def echoes():
            return bool(termios.tcgetattr(1)[3] & termios.ECHO)

        shown = Terminal(1)
        self.show(shown, [row(1)])
        # The shell may restore the terminal while a job is stopped, or may not.
        shown.lose_place(0, None)
        self.show(shown, [row(1)])
        hidden = not echoes()
        shown.close()
        return hidden and echoes()

    def test_keys_are_hidden_until_the_end_and_after_a_stop(self):
        pid, user = pty.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if self.hides_and_shows_keys() else 1
            finally:
                os._exit(code)
        with contextlib.suppress(OSError):
            while os.read(user, 65536):
                pass
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        os.close(user)


class OnAPipe(unittest.TestCase):
    def test_only_changes_are_printed(self):
        reader, writer = os.pipe()
        shown = Terminal(writer)
        for percent in (1.0, 2.0):
            rows = [row(1, "downloading", percent=percent), row(2, "failed", error="no disk")]
            shown.show(rows, totals(rows, ROOM))
        shown.say("the job ends")
        self.assertEqual(read_all(reader).splitlines(), [
            "pc-01 10.77.1.2 downloading", "pc-02 10.77.1.3 failed: no disk", "the job ends"])
        os.close(reader)
        shown.say("nobody listens")
        os.close(writer)


if __name__ == "__main__":
    unittest.main()
