"""How did it end, and how is a machine switched on?"""
import csv
import io
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

from picture import entries, mac, play, room
from room.results import all_good, csv_text, results, summary, table, write
from room.roster import Roster
from room.table import width
from room.wake import magic_packet

NOW = 2000.0


def found(ours: Roster) -> dict[str, Any]:
    rows = ours.rows(NOW)
    return results(rows, ours.totals(rows), ours.job, ours.id, "all are there", NOW)


class ExitStatus(unittest.TestCase):
    def test_pictures(self) -> None:
        for script, listed, expect, good in [
            ("m1 done; m2 seeding", 2, 0, True),
            ("m1 done", 2, 0, False),
            ("m1 done; m2 failed x", 2, 0, False),
            ("m1 done; m2 done; m3 failed x", 2, 0, False),
            ("m1 done; m3 done", 2, 0, False),
            ("m1 done; m2 done; m2 again", 2, 0, False),
            ("m1 done; m2 done", 0, 2, True),
            ("m1 done; m2 done; m3 downloading 4", 0, 2, True),
            ("m1 done; m2 done; m3 done; m3 again", 0, 2, False),
            ("m1 done", 0, 2, False),
            ("m1 done; m2 failed x", 0, 2, False),
            ("", 0, 2, False),
            # Behind a router with NAT, or made up by somebody who acts as one.
            ("9 is m9; m1@9 done; m2@9 done; m3@9 done; m4@9 done", 0, 4, False),
            ("9 is m9; m1@9 done; m2@9 done; m3@9 done; m4@9 done", 4, 0, True),
            ("m1 done", 0, 0, True),
            ("m1 done; m2 boot", 0, 0, True),
            ("m1 done; m2 booted", 0, 0, False),
            ("m1 failed x", 0, 0, False),
        ]:
            ours = play(script, room(listed, expect=expect))
            rows = ours.rows(NOW)
            totals = ours.totals(rows)
            self.assertEqual(all_good(rows, totals, ours.job), good, script)


    def test_hooks_must_have_run(self) -> None:
        for script, good, said in [
            ("m1 done; m1 hooks-ok", True, "done"),
            ("m1 done", False, "complete, hooks not finished"),
            ("m1 seeding", False, "complete, hooks not finished"),
            ("m1 done; m1 boot", False, "complete, hooks not finished"),
            ("m1 done; m1 failed no key", False, "failed: no key"),
            ("m1 done; m1 hooks-ok; m2 done", False, "done"),
        ]:
            ours = play(script, room(1, hooks=("ssh-keys",)))
            self.assertEqual((found(ours)["good"], found(ours)["machines"][0]["result"]),
                             (good, said), script)


class Files(unittest.TestCase):
    def test_what_is_stored(self) -> None:
        ours = play("m1 booted; m1 fetching; +8; m1 done; m2 failed no disk", room(3))
        stored = found(ours)
        self.assertEqual(
            [(m["name"], m["result"], m["verified"], m["seconds"], m["mb_per_second"])
             for m in stored["machines"]],
            [("lab-1", "done", 100, 9.0, 11.1), ("lab-2", "failed: no disk", 0, 0.0, 0.0),
             ("lab-3", "missing: never asked to boot", 0, 0.0, 0.0)])
        self.assertEqual(stored["missing_names"], ["lab-3"])
        self.assertFalse(stored["good"])
        with tempfile.TemporaryDirectory() as state:
            write(state, stored)
            self.assertEqual(json.loads(Path(state, "results.json").read_text()), stored)
            rows = list(csv.DictReader(io.StringIO(Path(state, "results.csv").read_text())))
            self.assertEqual([row["name"] for row in rows], ["lab-1", "lab-2", "lab-3"])
            self.assertEqual(sorted(path.name for path in Path(state).iterdir()),
                             ["results.csv", "results.json"])

    def test_a_spreadsheet_runs_nothing(self) -> None:
        for formula in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", '=a"b,c']:
            ours = room()
            for line in entries("m1 seeding", ours):
                said = json.loads(line["body"]) | {"disk": {"serial": formula, "model": formula}}
                ours.handle(line | {"body": json.dumps(said)})
            row, = csv.DictReader(io.StringIO(csv_text(found(ours))))
            self.assertEqual(row["serial"], "'" + formula)
            self.assertEqual(row["disk"], "'" + f"{formula}, serial {formula}")


class Table(unittest.TestCase):
    def test_picture(self) -> None:
        ours = play("m1 booted; m1 fetching; +8; m1 done; m2 failed no disk; m3 downloading 40",
                    room(4))
        rows = ours.rows(NOW)
        self.assertEqual(table(rows, ours.totals(rows)), """\
machine           disk                pieces   fetched seconds   MB/s  result
lab-1             -                  100/100      0 MB     9.0   11.1  done
lab-2             -                        -         -       -      -  failed: no disk
lab-3             -                    0/100      0 MB       -      -  unfinished: downloading 40 %
lab-4             -                        -         -       -      -  missing: never asked to boot

1 complete, 1 failed, 1 unfinished, 1 missing (lab-4), 4 expected
""")

    def test_never_wider_than_100(self) -> None:
        for reason in ["x" * 5000, "word " * 300, "幅の広い文字 " * 30, "\N{PILE OF POO}" * 90, "a b"]:
            ours = play(f"m1 failed {reason}; m2 done", room(2))
            rows = ours.rows(NOW)
            lines = table(rows, ours.totals(rows)).split("\n")
            self.assertLessEqual(max(width(line) for line in lines), 100)
            self.assertLessEqual(len(lines), 9)

    def test_a_hundred_missing_machines(self) -> None:
        ours = room(99)
        rows = ours.rows(NOW)
        self.assertTrue(summary(rows, ours.totals(rows)).endswith(
            "lab-19, lab-20 and 79 more), 99 expected"))

    def test_bytes_on_the_wire_are_said_if_they_are_fewer(self) -> None:
        ours = room(1)
        rows = ours.rows(NOW)
        for wire, words in ((0, ""), (5 * 10**9, ""),
                            (26 * 10**8, "; 5.0 GB fetched, 2.6 GB on the wire")):
            rows = [replace(row, fetched=5 * 10**9, fetched_wire=wire) for row in rows]
            self.assertTrue(summary(rows, ours.totals(rows)).endswith(f"1 expected{words}"))


class Wake(unittest.TestCase):
    def test_packet(self) -> None:
        self.assertEqual(magic_packet("52-54-00-77-00-0a").hex(),
                         "ffffffffffff" + "52540077000a" * 16)
        self.assertEqual(len(magic_packet(mac("m1"))), 102)


if __name__ == "__main__":
    unittest.main()
