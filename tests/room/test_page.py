"""Are the figures of status.json right, bounded, and whole at any moment?"""
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from made_up import GIB, ROOM, row
from room.page import HISTORY_POINTS_MAX, History, status, totals, write


class Totals(unittest.TestCase):
    def test_the_room_in_one_line(self):
        rows = [row(1, "done"), row(2, "failed", percent=50.0, error="no disk"),
                row(3, "downloading", percent=25.0, down=100, up=30, eta=60, fetched=9,
                    fetched_wire=5),
                row(4, "downloading", percent=75.0, down=50, up=5, eta=20),
                row(5, "verifying", percent=10.0), row(6)]
        self.assertEqual(
            totals(rows, ROOM).__dict__,
            {"machines": 6, "complete": 1, "failed": 1, "working": 3, "missing": 1, "down": 150,
             "up": 35, "bytes_left": 20 * GIB, "percent": 60.0, "eta": 60, "seed_up": 0,
             "fetched": 9, "fetched_wire": 5})

    def test_expected_machines_without_a_row_are_missing(self):
        sums = totals([row(1, "done")], replace(ROOM, expect=3))
        self.assertEqual((sums.machines, sums.complete, sums.missing, sums.bytes_left),
                         (3, 1, 2, 20 * GIB))

    def test_a_machine_that_is_to_be_imaged_again_is_not_failed(self):
        sums = totals([row(1, "failed", again=True), row(2, "done", again=True, complete=False)],
                      ROOM)
        self.assertEqual((sums.complete, sums.failed, sums.working), (0, 0, 2))

    def test_no_machine(self):
        self.assertEqual(totals([], ROOM).percent, 0.0)


class Rates(unittest.TestCase):
    def test_a_point_is_the_mean_of_its_time(self):
        history = History(1000.0)
        for now, down in ((1000.1, 10), (1000.9, 20), (1003.0, 40), (999.0, 60)):
            history.add(now, down)
        self.assertEqual(history.points(), {"began_at": 1000.0, "step": 1, "down": [15, 0, 0, 50]})

    def test_a_long_job_has_as_many_points_as_a_short_one(self):
        history = History(0.0)
        for second in range(86_400):
            history.add(float(second), second)
        self.assertEqual(history.step, 512)
        self.assertEqual(len(history.down), 86_400 // 512 + 1)
        for index, down in enumerate(history.down[:-1]):
            self.assertAlmostEqual(down, index * 512 + 255, delta=10)

    def test_a_clock_that_is_wrong_by_years_costs_nothing(self):
        history = History(0.0)
        history.add(1.0, 5)
        history.add(2e9, 7)
        history.add(0.0, 7)
        self.assertLessEqual(len(history.down), HISTORY_POINTS_MAX)

    def test_a_new_serve_of_the_same_job_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "status.json"
            history = History(100.0)
            history.add(101.0, 7)
            write(path, status([], ROOM, history, 101.0))
            again = History.load(path, ROOM.job, 100.0)
            again.add(102.0, 9)
            self.assertEqual(again.points(), {"began_at": 100.0, "step": 1, "down": [0, 7, 9]})
            self.assertEqual(History.load(path, "another", 100.0).down, [])
            path.write_text('{"job": "0123456789ab", "history": {"step": 0')
            self.assertEqual(History.load(path, ROOM.job, 100.0).down, [])
            self.assertEqual(History.load(Path(folder) / "none", ROOM.job, 100.0).down, [])


class Status(unittest.TestCase):
    def test_text_of_machines_is_text_in_json(self):
        hostile = row(1, "failed", name="</script>\u202e\ud800", error="\"'<b>\n", flags=["<i>"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "status.json"
            write(path, status([hostile], ROOM, History(0.0), 5.0))
            self.assertEqual(path.stat().st_mode & 0o777, 0o644)
            self.assertEqual([entry.name for entry in Path(folder).iterdir()], ["status.json"])
            machine = json.loads(path.read_text())["machines"][0]
        self.assertEqual((machine["name"], machine["error"], machine["flags"]),
                         (hostile.name, hostile.error, hostile.flags))


if __name__ == "__main__":
    unittest.main()
