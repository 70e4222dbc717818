"""Images packed by Debian's lz4, and what is refused."""
import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from room import pack, packing, torrents
from room.job import Image
from room.shelf_unpack import PARTCLONE
from room.state import Refused

TOP = Path(__file__).resolve().parents[2]


def unpacked(path: Path) -> bytes:
    return subprocess.run(["lz4", "-dc", path], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


class Packing(unittest.TestCase):
    def setUp(self) -> None:
        self.work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)
        self.image = self.work / "disk.img"
        random_bytes = random.Random(7).randbytes
        # Three parts, of which the last one is not full.
        self.content = (random_bytes(300_000) + b"swarm" * 3_000_000 + bytes(20 << 20)
                        + random_bytes(12345))
        self.image.write_bytes(self.content)
        self.target = self.work / "disk.img.lz4"

    def pack(self, *arguments: str) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            status = pack.main(arguments)
        return status, said.getvalue()

    def test_lz4_restores_the_image(self) -> None:
        status, said = self.pack(str(self.image))
        self.assertEqual(status, 0, said)
        self.assertIn(f"{self.target}: ", said)
        self.assertTrue(unpacked(self.target) == self.content)
        # One frame with blocks of 16 KiB, and the note behind it.
        packed = self.target.read_bytes()
        at, count = len(packing.HEADER), 0
        while length := int.from_bytes(packed[at:at + 4], "little"):
            at, count = at + 8 + (length & 0x7fffffff), count + 1
        self.assertEqual(count, -(-len(self.content) // packing.BLOCK_BYTES))
        self.assertEqual(packed[at + 4:at + 8], packing.NOTE_MAGIC)
        self.assertEqual(packing.read_note(self.target), packing.note_of(self.image))
        self.assertEqual(sorted(os.listdir(self.work)), ["disk.img", "disk.img.lz4"])

    def test_what_was_not_packed_by_us_is_not_replaced(self) -> None:
        self.target.write_bytes(b"precious")
        status, said = self.pack(str(self.image))
        self.assertEqual(status, 1)
        self.assertIn("is there already", said)
        self.assertEqual(self.target.read_bytes(), b"precious")
        for source, why in ((self.work, "no regular file"), (self.target, "is there already")):
            self.assertIn(why, self.pack(str(source), "-o", str(self.target))[1])
        self.assertEqual(self.pack()[0], 2)
        self.assertEqual(self.pack(str(self.image), "--fast")[0], 2)

    def test_it_is_packed_once_and_again_when_it_has_changed(self) -> None:
        said: list[str] = []
        for _ in range(2):
            found = packing.packed_beside(self.image, said.append, lambda _: None)
            self.assertEqual(found, self.target)
        self.assertEqual(said, [f"packing {self.image}"])
        self.image.write_bytes(b"another" * 9000)
        packing.packed_beside(self.image, said.append, lambda _: None)
        self.assertEqual(len(said), 2)
        self.assertEqual(unpacked(self.target), b"another" * 9000)
        with self.assertRaisesRegex(Refused, "is packed already"):
            packing.packed_beside(self.target, said.append, lambda _: None)

    def test_nothing_is_left_if_it_fails(self) -> None:
        def fails(_: float) -> None:
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            packing.packed_beside(self.image, lambda _: None, fails)
        with mock.patch.object(packing, "COMMAND", ("false",)):
            with self.assertRaisesRegex(Refused, "lz4 failed"):
                packing.packed_beside(self.image, lambda _: None, lambda _: None)
        self.assertEqual(os.listdir(self.work), ["disk.img"])

    def test_a_signal_leaves_nothing(self) -> None:
        with open(self.image, "ab") as file:
            file.truncate(4 << 30)
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen([sys.executable, TOP / "scripts/pack", self.image],
                                  stderr=subprocess.PIPE) as process:
                limit = time.monotonic() + 30
                while len(os.listdir(self.work)) == 1 and time.monotonic() < limit:
                    time.sleep(0.01)
                self.assertEqual(len(os.listdir(self.work)), 2)
                process.send_signal(number)
                self.assertEqual(process.wait(60), 130)
            self.assertEqual(os.listdir(self.work), ["disk.img"])

    def test_what_serve_asks_of_a_packed_image(self) -> None:
        self.image.write_bytes(PARTCLONE + b"x" * 99)
        self.assertTrue(torrents.is_partclone(str(self.image)))
        packing.pack(self.image, self.target, lambda _: None)
        self.assertTrue(torrents.is_partclone(str(self.target)))
        self.assertTrue(packing.is_packed(self.target) and not packing.is_packed(self.image))
        words = "name: x\nsize: 1234 bytes (1.2 KiB)\n"
        self.assertEqual(torrents.bytes_of(Image("x", str(self.target)), words), 1234)
        self.assertEqual(torrents.bytes_of(Image("x", str(self.image)), words),
                         self.image.stat().st_size)


if __name__ == "__main__":
    unittest.main()
