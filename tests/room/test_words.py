"""words.py: what a failed machine sends is unpacked, bounded, and kept for its own machine only."""
import base64
import gzip
import os
import tempfile
import unittest
from pathlib import Path

from made_up import row
from room import words
from room.state import open_state

TEXT = "--- init and agent\n[12.3] swarmdd: no disk\n"


class Unpack(unittest.TestCase):
    def test_gzip_and_base64_of_it(self) -> None:
        packed = gzip.compress(TEXT.encode())
        self.assertEqual(words.unpack(packed), TEXT)
        self.assertEqual(words.unpack(base64.encodebytes(packed)), TEXT)

    def test_what_is_no_gzip_is_nothing(self) -> None:
        packed = gzip.compress(TEXT.encode())
        for body in (b"", b"x" * 100, b"H4sI", b"H4sI\xff!!", packed[:2] + b"x" * 40):
            self.assertIn(words.unpack(body), (None, ""))

    def test_what_was_cut_short_is_shown_as_far_as_it_goes(self) -> None:
        packed = gzip.compress(os.urandom(5000).hex().encode())
        text = words.unpack(packed[:3000]) or ""
        self.assertGreater(len(text), 1000)

    def test_a_bomb_is_not_unpacked_to_its_end(self) -> None:
        bomb = gzip.compress(b"x" * (64 << 20))
        self.assertLessEqual(len(words.unpack(bomb) or ""), words.TEXT_BYTES_MAX)

    def test_control_characters_are_no_commands(self) -> None:
        self.assertEqual(words.unpack(gzip.compress("a\x1b[2J\r\tb\n\u202e".encode())),
                         "a?[2J?\tb\n?")


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = open_state(Path(folder.name) / "state")
        self.state.words.mkdir()

    def send(self, name: str, text: str, changed_at: float = 1000.0) -> None:
        (self.state.words / name).write_bytes(gzip.compress(text.encode()))
        os.utime(self.state.words / name, (changed_at, changed_at))

    def test_the_newest_of_each_machine_is_published(self) -> None:
        published: dict[str, str] = {}
        self.send("0001", "first")
        self.send("0002", "second")
        one = row(1, "failed", words="0001")
        words.publish(self.state, [one], published)
        file = self.state.www / f"words/{one.mac}.txt"
        self.assertEqual(file.read_text(), "first")
        words.publish(self.state, [row(1, "failed", words="0002")], published)
        self.assertEqual(file.read_text(), "second")

    def test_no_path_leads_out_of_the_folder(self) -> None:
        (self.state.root / "secret").write_bytes(gzip.compress(b"secret"))
        words.publish(self.state, [row(1, "failed", words="../secret")], {})
        self.assertEqual(list((self.state.www / "words").iterdir()), [])

    def test_what_belongs_to_nobody_goes_away(self) -> None:
        for name in ("0001", "0002", "0003"):
            self.send(name, "words", 1000.0)
        os.utime(self.state.words / "0003", (1990.0, 1990.0))
        words.tidy(self.state, [row(1, "failed", words="0001")], now=2000.0)
        self.assertEqual(sorted(os.listdir(self.state.words)), ["0001", "0003"])

    def test_the_oldest_go_first_when_all_are_too_long(self) -> None:
        rows = []
        for number in range(3):
            path = self.state.words / f"{number}"
            with open(path, "wb") as file:
                file.truncate(words.FOLDER_BYTES_MAX // 2 - 1)
            os.utime(path, (1000.0 + number, 1000.0 + number))
            rows.append(row(number, "failed", words=f"{number}"))
        words.tidy(self.state, rows, now=2000.0)
        self.assertEqual(sorted(os.listdir(self.state.words)), ["1", "2"])


if __name__ == "__main__":
    unittest.main()
