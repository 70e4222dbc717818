"""What did machines say? Every line that was written whole, once."""
import json
import os
import random
import tempfile
import unittest
from pathlib import Path

from room.log import CHUNK_BYTES, LINE_BYTES_MAX, Reader, append


class Log(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "room.log")
        self.reader = Reader(str(self.path))

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def numbers(self) -> list[int]:
        """What is new, by the member `n` of each entry."""
        return [entry["n"] for entry in self.reader.entries()]


def line(n: int) -> bytes:
    return b'{"time":1000.5,"n":%d}\n' % n


class Reading(Log):
    def test_each_line_once(self) -> None:
        self.assertEqual(self.numbers(), [])
        self.write(line(1) + line(2))
        self.assertEqual(self.numbers(), [1, 2])
        self.assertEqual(self.numbers(), [])
        self.write(line(3))
        self.assertEqual(self.numbers(), [3])

    def test_a_torn_line_is_left_for_the_next_time(self) -> None:
        whole = line(1) + '{"time":5,"n":2,"ü":"é"}\n'.encode()
        for cut in range(len(whole) + 1):
            self.path.write_bytes(b"")
            self.reader = Reader(str(self.path))
            self.write(whole[:cut])
            before = self.numbers()
            self.write(whole[cut:])
            self.assertEqual(before + self.numbers(), [1, 2], f"cut at {cut}")

    def test_garbage_is_skipped(self) -> None:
        for garbage in [
            b"hello", b"[1]", b'"x"', b"null", b"{", b'{"time":1}{"time":2}', b'{"n":1}',
            b'{"time":"1","n":1}', b'{"time":true,"n":1}', b'{"time":NaN,"n":1}',
            b'{"time":1,"n":NaN}', b'{"time":-1,"n":1}', b'{"time":1e999,"n":1}',
            b'{"time":1e12,"n":1}', b'{"time":1,"n":' + b"9" * 5000 + b"}", b"[" * 100_000,
            b'{"a":' * 50_000, b"\x00\x01\x02", b"\xff\xfe", b'{"time":1,"n":"\x01"}',
            b'{"time":1,"n":5,"x":"' + b"x" * LINE_BYTES_MAX + b'"}',
        ]:
            with self.subTest(garbage[:40]):
                self.path.write_bytes(line(1) + garbage + b"\n" + line(2))
                self.reader = Reader(str(self.path))
                self.assertEqual(self.numbers(), [1, 2])

    def test_only_lines_of_a_kind(self) -> None:
        for n, kind in enumerate(["job", "report", "job"]):
            append(str(self.path), {"time": 1, "n": n, "kind": kind, "body": '{"kind":"job"}'})
        self.reader = Reader(str(self.path), b'"kind":"job"')
        self.assertEqual(self.numbers(), [0, 2])

    def test_invalid_utf_8_in_a_text_is_no_reason_to_lose_the_line(self) -> None:
        self.write(b'{"time":1,"n":1,"body":"\xff"}\n')
        self.assertEqual(list(self.reader.entries())[0]["body"], "\ufffd")

    def test_a_line_without_end_does_not_fill_the_memory(self) -> None:
        self.write(line(1))
        for _ in range(3):
            self.write(b"x" * CHUNK_BYTES)
            self.assertLessEqual(len(self.numbers()), 1)
        self.write(b"x\n" + line(2))
        self.assertEqual(self.numbers(), [2])

    def test_the_end_of_a_long_line_is_no_line(self) -> None:
        self.write(b"x" * CHUNK_BYTES + line(1) + line(2))
        self.assertEqual(self.numbers(), [2])

    def test_lines_across_chunks(self) -> None:
        filler = b'{"time":1,"n":0,"x":"' + b"y" * 1000 + b'"}\n'
        count = 2 * CHUNK_BYTES // len(filler) + 10
        self.write(filler * count)
        self.assertEqual(self.numbers(), [0] * count)

    def test_a_new_log(self) -> None:
        self.write(line(1) + line(2))
        self.assertEqual(self.numbers(), [1, 2])
        self.path.unlink()
        self.assertEqual(self.numbers(), [])
        self.write(line(3))
        self.assertEqual(self.numbers(), [3])

    def test_any_cuts(self) -> None:
        """Written in pieces of any size, read at any time: each whole line once, in order."""
        for seed in range(50):
            random_ = random.Random(seed)
            self.path.write_bytes(b"")
            self.reader = Reader(str(self.path))
            whole, wanted = b"", []
            for n in range(random_.randrange(60)):
                kind = random_.randrange(4)
                whole += line(n) if kind else random_.choice([b"\n", b"torn\n", b"\xff\n"])
                wanted += [n] if kind else []
            read = []
            while whole:
                cut = random_.randrange(1, 40)
                self.write(whole[:cut])
                whole = whole[cut:]
                if random_.random() < 0.5:
                    read += self.numbers()
            self.assertEqual(read + self.numbers(), wanted, f"seed {seed}")


class Appending(Log):
    def test_what_is_written_is_read(self) -> None:
        append(str(self.path), {"time": 1.5, "n": 7, "text": "ü\n\"\udc80"})
        entry, = self.reader.entries()
        self.assertEqual(entry, {"time": 1.5, "n": 7, "text": "ü\n\"\udc80"})
        self.assertEqual(self.path.read_bytes().count(b"\n"), 1)

    def test_a_torn_line_of_a_killed_writer(self) -> None:
        self.write(line(1) + b'{"time":1,"n":')
        self.assertEqual(self.numbers(), [1])
        append(str(self.path), {"time": 2, "n": 3})
        append(str(self.path), {"time": 2, "n": 4})
        self.assertEqual(self.numbers(), [3, 4])

    def test_no_time_is_no_number(self) -> None:
        with self.assertRaises(ValueError):
            append(str(self.path), {"time": float("nan")})

    def test_many_writers(self) -> None:
        """Processes at once: no line is lost or mixed."""
        children = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                for n in range(200):
                    append(str(self.path), {"time": 1, "n": child * 1000 + n, "x": "y" * 5000})
                os._exit(0)
            children.append(pid)
        for pid in children:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(sorted(self.numbers()),
                         [child * 1000 + n for child in range(4) for n in range(200)])


class Layout(unittest.TestCase):
    def test_one_line_is_compact(self) -> None:
        """Scripts may look for it with grep."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "log")
            append(path, {"time": 1, "kind": "end", "job": "x", "why": "time is up"})
            self.assertEqual(Path(path).read_text(),
                             '{"time":1,"kind":"end","job":"x","why":"time is up"}\n')
            self.assertEqual(json.loads(Path(path).read_text())["why"], "time is up")


if __name__ == "__main__":
    unittest.main()
