"""components.py and checks.py, as far as no daemon is needed (tests/serving has those)."""
import os
import tempfile
import time
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from room import checks, components
from room.components import Broken, Component
from room.job import Image, Job, Machine, Mistake
from room.state import open_state, start_of


class WithState(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.state = open_state(self.folder / "state")

    def component(self, script: str) -> Component:
        made = Component("seeder", ["sh", "-c", script])
        self.addCleanup(components.end, made, self.state)
        return made


class Life(WithState):
    def test_one_that_ends_at_once_is_explained(self) -> None:
        made = self.component("echo first; echo the reason >&2; exit 3")
        made.trouble = lambda: "no answer"
        with self.assertRaisesRegex(Broken, "^seeder ended: exit status 3 / first / the reason$"):
            components.start(made, self.state)

    def test_one_that_cannot_be_started_is_named(self) -> None:
        with self.assertRaisesRegex(Broken, "cannot start /no/such: .*No such file"):
            components.start(Component("seeder", ["/no/such"]), self.state)

    def test_it_is_started_again_three_times(self) -> None:
        made = self.component("echo word; exit 1")
        components.start(made, self.state)
        for number in range(1, 4):
            assert made.process
            made.process.wait(10)
            self.assertEqual(components.revive(made, self.state),
                             f"seeder died and was started again ({number} of 3): "
                             "exit status 1 / word")
        made.process.wait(10)
        with self.assertRaisesRegex(Broken, "seeder has died 4 times: exit status 1 / word"):
            components.revive(made, self.state)
        self.assertIsNone(components.revive(made, self.state))

    def test_one_that_was_stopped_stays_away(self) -> None:
        made = self.component("exec sleep 60")
        components.start(made, self.state)
        self.assertIsNone(components.revive(made, self.state))
        components.end(made, self.state)
        self.assertIsNone(components.revive(made, self.state))
        self.assertEqual(list(self.state.root.glob("*.pid")), [])

    def test_its_children_end_with_it(self) -> None:
        made = self.component("trap '' TERM; sleep 60 & echo $!; exec sleep 60")
        components.start(made, self.state)
        lines: list[str] = []
        while not lines:
            lines = components.new_lines(made, self.state)
        components.end(made, self.state, 0.1)
        limit = time.monotonic() + 10
        while start_of(int(lines[0])) is not None:
            self.assertLess(time.monotonic(), limit)


class Log(WithState):
    def write(self, text: bytes) -> None:
        with open(components.log_of(self.made, self.state), "ab") as log:
            log.write(text)

    def test_whole_lines_once(self) -> None:
        self.made = Component("seeder", [])
        self.write(b"one\ntwo\nthr")
        self.assertEqual(components.new_lines(self.made, self.state), ["one", "two"])
        self.assertEqual(components.new_lines(self.made, self.state), [])
        self.write(b"ee\n")
        self.assertEqual(components.new_lines(self.made, self.state), ["three"])

    def test_a_long_log_begins_anew(self) -> None:
        self.made = Component("seeder", [])
        with mock.patch.object(components, "LOG_BYTES_MAX", 10):
            self.write(b"one line\nanother one\n")
            self.assertEqual(components.new_lines(self.made, self.state),
                             ["one line", "another one"])
            self.assertEqual(os.path.getsize(components.log_of(self.made, self.state)), 0)
            self.write(b"new\n")
            self.assertEqual(components.new_lines(self.made, self.state), ["new"])

    def test_figures_of_the_seed(self) -> None:
        figures: dict[str, tuple[int, int]] = {}
        components.seed_figures(['{"torrent":"a","up":5,"uploaded":10}', "swarmdd: a warning",
                                 '{"torrent":"a","up":7,"uploaded":20}', "{torn",
                                 '{"torrent":"b","up":1,"uploaded":2}'], figures)
        self.assertEqual(figures, {"a": (7, 20), "b": (1, 2)})


class Hooks(WithState):
    def setUp(self) -> None:
        super().setUp()
        shipped = self.folder / "hooks"
        shipped.mkdir()
        (shipped / "grow").write_text("#!/bin/sh\n# needs: ext4|xfs efi\n")
        (shipped / "overlay").write_text("#!/bin/sh\n")
        (self.folder / "mine.sh").write_text("echo mine\n")
        (self.folder / "a.tar").write_text("")
        self.packed = ""
        answer = mock.Mock(returncode=0, stderr="")
        type(answer).stdout = mock.PropertyMock(side_effect=lambda: self.packed)
        for what in (mock.patch.object(checks, "HOOKS", shipped),
                     mock.patch.object(checks, "run", return_value=answer)):
            what.start()
            self.addCleanup(what.stop)

    def check(self, *hooks: str) -> None:
        checks.check_hooks(Job((), hooks=hooks))

    def test_tools_that_a_hook_needs(self) -> None:
        for self.packed in ("efi\next4\n", "efi\nxfs\nntfs\n"):
            self.check("grow")
        for self.packed, missing in (("", r"'ext4\|xfs'"), ("ext4\n", "'efi'")):
            with self.assertRaisesRegex(checks.Refused, f"hook grow needs {missing}"):
                self.check("grow")

    def test_names(self) -> None:
        self.check(f"{self.folder}/mine.sh", f"overlay={self.folder}/a.tar")
        for hooks, words in ((("nosuch",), "no hook nosuch; there is: grow, overlay"),
                             (("overlay",), "overlay=FILE"),
                             ((f"{self.folder}/mine.sh",) * 2, "a name of its own")):
            with self.assertRaisesRegex(Mistake, words):
                self.check(*hooks)
        with self.assertRaisesRegex(checks.Refused, "cannot read the file of --hook"):
            self.check(f"{self.folder}/gone.sh")


class Allow(unittest.TestCase):
    """Machines that may not call the seed wait for ever."""

    def test_the_seed_is_in_the_list_that_the_user_gives(self) -> None:
        for address, given, expected in (
                ("10.1.0.5", ("10.2.0.0/16",), ("10.2.0.0/16", "10.1.0.5/32")),
                ("10.1.0.5", ("10.2.0.0/16", "fd77::/64"),
                 ("10.2.0.0/16", "fd77::/64", "10.1.0.5/32")),
                ("10.1.0.5", ("::/0",), ("::/0", "10.1.0.5/32")),
                ("10.1.0.5", ("10.2.0.0/16", "10.1.0.0/24"), ("10.2.0.0/16", "10.1.0.0/24")),
                ("10.1.0.5", ("10.1.0.5/32",), ("10.1.0.5/32",)),
                ("10.1.0.5", ("any",), ("any",)),
                ("fd77::5", ("10.2.0.0/16",), ("10.2.0.0/16", "fd77::5/128"))):
            job = Job((), address=address, kernel="k", allow=given)
            self.assertEqual(checks.complete(job).allow, expected)

    def test_without_a_list_it_is_that_of_the_interface_and_the_seed(self) -> None:
        shown = ('[{"addr_info": [{"local": "10.2.0.1", "prefixlen": 16},'
                 ' {"local": "10.2.0.2", "prefixlen": 16}]}]')
        for address, expected in (("10.2.0.1", ("10.2.0.0/16",)),
                                  ("10.1.0.5", ("10.2.0.0/16", "10.1.0.5/32"))):
            job = Job((), address=address, kernel="k", interface="made0")
            with mock.patch.object(checks, "run", return_value=mock.Mock(stdout=shown)):
                self.assertEqual(checks.complete(job).allow, expected)


class Length(unittest.TestCase):
    JOB = Job((Image("lab.img", "/lab.img"),), address="10.77.0.1")

    def test_what_the_kernel_would_cut_off(self) -> None:
        checks.check_length(self.JOB)
        with self.assertRaisesRegex(Mistake, "characters, and the kernel takes 2047"):
            checks.check_length(replace(self.JOB, append="x" * 2000))
        one = Machine("52-54-00-77-00-01", "lab-1", args="--memory " + "9" * 1800)
        with self.assertRaisesRegex(Mistake, "characters, and the kernel takes 2047"):
            checks.check_length(replace(self.JOB, machines=(one,)))


if __name__ == "__main__":
    unittest.main()
