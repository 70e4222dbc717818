"""Does scripts/status tell the same from elsewhere, and say what is wrong if it cannot?"""
import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from room import log, looking, past, state
from room.job import Image, Job, Machine, Torrent

MACS = [f"52-54-00-77-00-0{number}" for number in range(1, 4)]
TORRENT = Torrent("lab.img", 1 << 30, "00" * 20, "disk:auto")
JOB = Job((Image("lab.img", "/srv/lab.img"),),
          tuple(Machine(mac, f"pc-{number}") for number, mac in enumerate(MACS, 1)),
          interface="eth1")


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.state = self.start("10.77.0.1-80")

    def start(self, name: str) -> state.State:
        made = state.open_state(self.home / name)
        begun = past.open_past(JOB, [TORRENT], made)
        self.job = begun.id
        past.begin(begun, made)
        return made

    def report(self, number: int, **members: object) -> None:
        self.append("report", number, body=json.dumps({"target": "/dev/sda", **members}))

    def append(self, kind: str, number: int, **members: object) -> None:
        log.append(str(self.state.room_log), {
            "time": time.time(), "kind": kind, "address": f"10.77.0.{number + 1}",
            "query": f"job={self.job}&mac={MACS[number - 1]}", **members})

    def send_words(self, number: int, words: bytes) -> None:
        self.state.words.mkdir(exist_ok=True)
        (self.state.words / "0000000001").write_bytes(words)
        self.report(number, state="failed", error="no disk\033[2J fits")
        self.append("words", number, file=str(self.state.words / "0000000001"))

    def status(self, *arguments: str) -> tuple[int, str, str]:
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors), \
                mock.patch.object(looking, "HOME", self.home):
            code = looking.main(arguments)
        return code, output.getvalue(), errors.getvalue()


class Looking(Folder):
    def test_the_table_is_computed_from_the_log_of_the_only_job(self) -> None:
        self.report(2, state="downloading", percent=50, pieces=100, have=50, down=1_000_000)
        self.report(3, state="seeding", pieces=100, have=100, good=100)
        code, output, errors = self.status()
        self.assertEqual(code, 0)
        self.assertEqual(output.splitlines(), [
            "1 of 3 complete, 0 failed, 1 working, 1 missing",
            "50 %, 1.0 MB/s, 1.6 GB to go, the server sends 0.0 MB/s",
            "machine  state          %    MB/s    left",
            "pc-1     missing                           not seen yet",
            "pc-2     downloading   50     1.0          ##########..........",
            "pc-3     seeding                           sends 0.0 MB/s"])
        self.assertIn("its serve does not run any more", errors)

    def test_json_is_what_the_page_shows(self) -> None:
        self.report(1, state="failed", error="no disk fits")
        code, output, _ = self.status("--json", str(self.state.root))
        content = json.loads(output)
        self.assertEqual((code, content["job"], content["title"], content["totals"]["failed"]),
                         (0, self.job, "lab.img", 1))
        self.assertEqual([machine["name"] for machine in content["machines"]],
                         ["pc-1", "pc-2", "pc-3"])
        self.assertEqual(content["machines"][0]["error"], "no disk fits")

    def test_results_of_a_job_that_has_ended(self) -> None:
        self.report(1, state="failed", error="no disk fits")
        past.note(self.state, "end", job=self.job, why="time is up")
        code, output, _ = self.status("--results")
        self.assertEqual(code, 0)
        self.assertIn("failed: no disk fits", output)
        self.assertEqual(json.loads(self.status("--json")[1])["phase"], "ended")
        self.assertIn("the job has ended", self.status()[2])

    def test_the_log_of_a_failed_machine(self) -> None:
        text = "--- init and agent\n[1] no \033[2J disk\n"
        for words in (gzip.compress(text.encode()),
                      base64.encodebytes(gzip.compress(text.encode()))):
            self.send_words(1, words)
            for name in ("pc-1", "PC-1", MACS[0], "52:54:00:77:00:01", "10.77.0.2"):
                self.assertEqual(self.status("--log", name),
                                 (0, "--- init and agent\n[1] no ?[2J disk\n", ""))
        self.assertEqual(self.status("--log=pc-1", str(self.state.root))[0], 0)

    def test_no_log_is_said_with_the_reason(self) -> None:
        self.report(1, state="failed", error="no disk fits")
        self.assertEqual(self.status("--log", "pc-1"), (
            1, "", "status: pc-1 has sent no log; it failed: no disk fits\n"))
        self.assertEqual(self.status("--log", "pc-2"), (
            1, "", "status: pc-2 has sent no log; it is missing\n"))
        # A damaged one, and one that leads out of the folder.
        self.send_words(1, b"nothing")
        self.assertEqual(self.status("--log", "pc-1")[0], 1)
        self.append("words", 1, file="/etc/passwd")
        self.assertEqual(self.status("--log", "pc-1")[0], 1)
        code, _, errors = self.status("--log", "pc-9")
        self.assertEqual((code, errors.split(" in ")[0]), (1, "status: there is no machine pc-9"))

    def test_several_jobs_are_listed(self) -> None:
        other = self.start("10.77.0.1-8080")
        code, _, errors = self.status()
        self.assertEqual(code, 2)
        self.assertIn("several jobs were started; name one of", errors)
        self.assertIn(str(self.state.root), errors)
        # The one that runs is meant.
        descriptor = state.lock(other)
        self.assertEqual(state.only_state(self.home), other)
        os.close(descriptor)

    def test_mistakes(self) -> None:
        for arguments in (("--poll",), ("--log",), ("--json=x",), ("a", "b"), ("--json", "--log")):
            self.assertEqual(self.status(*arguments)[0], 2, arguments)
        with tempfile.TemporaryDirectory() as empty:
            code, _, errors = self.status("--json", empty)
            self.assertEqual(code, 1)
            self.assertIn("no job was started in", errors)
            with self.assertRaises(state.Refused):
                state.only_state(Path(empty))


class Following(Folder):
    def test_each_change_is_a_line_until_the_job_ends(self) -> None:
        program = Path(__file__).parents[2] / "scripts/status"
        with subprocess.Popen([sys.executable, program, "--follow", self.state.root],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            # It only ends what hangs.
            limit = threading.Timer(60, child.kill)
            limit.start()
            self.addCleanup(limit.cancel)
            assert child.stdout and child.stderr
            self.report(1, state="booted")
            self.assertEqual(child.stdout.readline(), "pc-1 10.77.0.2 booted\n")
            self.report(1, state="failed", error="no disk fits")
            self.assertEqual(child.stdout.readline(), "pc-1 10.77.0.2 failed: no disk fits\n")
            past.note(self.state, "end", job=self.job, why="all are accounted for")
            self.assertEqual(child.stdout.read(), "")
            self.assertEqual(child.stderr.read(), "status: the job has ended\n")
            self.assertEqual(child.wait(), 0)


if __name__ == "__main__":
    unittest.main()
