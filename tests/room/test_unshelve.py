"""Images of Debian's partclone, compressed by the real programs: unpacked, and what is refused."""
import contextlib
import fcntl
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
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from room import shelf_cache, shelf_unpack, unshelve
from room.shelf import COMPRESSIONS, Packed
from room.state import Refused

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = {"gz": "gzip -c", "bz2": "bzip2 -c", "lzo": "lzop -c", "lzma": "xz -c --format=lzma",
            "xz": "xz -c -0", "lzip": "lzip -c", "lrz": "lrzip -q -o - -", "lz4": "lz4 -c",
            "zst": "zstd -cq", "uncomp": "cat"}


def run(command: str, **more: object) -> bytes:
    path = os.environ["PATH"] + ":/sbin:/usr/sbin"
    return subprocess.run(command.split(), check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, env=os.environ | {"PATH": path},
                          **more).stdout  # type: ignore[call-overload]


def make_image(folder: Path, *options: str) -> bytes:
    """An ext4 of 8 MiB with 1 MiB of noise, as partclone saves it."""
    files = folder / "files"
    files.mkdir()
    (files / "noise").write_bytes(random.Random(13).randbytes(1 << 20))
    run(f"mke2fs -q -F -t ext4 -d {files} {folder}/ext4 8M")
    run(f"partclone.extfs -c -F -q -L {folder}/log {' '.join(options)} -s {folder}/ext4 "
        f"-o {folder}/ext4.partclone")
    return (folder / "ext4.partclone").read_bytes()


class Shelves(unittest.TestCase):
    image: bytes
    work: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.work = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.image = make_image(cls.work)

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.work))
        self.cache = self.folder / "cache"
        self.shelf = self.folder / "win"
        self.shelf.mkdir()
        quiet = contextlib.redirect_stderr(io.StringIO())
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def put(self, name: str, content: bytes, split: int = 0) -> None:
        step = split or len(content)
        for number, offset in enumerate(range(0, len(content), step)):
            suffix = f".a{chr(ord('a') + number)}" if split else ""
            (self.shelf / (name + suffix)).write_bytes(content[offset:offset + step])

    def unshelve(self, *options: str) -> list[list[str]]:
        """What it prints. Raises AssertionError with its words if it fails."""
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            status = unshelve.main(["--cache", str(self.cache), *options, str(self.shelf)])
        if status:
            raise AssertionError(errors.getvalue())
        return [line.split("\t") for line in said.getvalue().splitlines()]

    def fails(self, pattern: str, *options: str) -> None:
        with self.assertRaisesRegex(AssertionError, pattern):
            self.unshelve(*options)
        self.assertEqual(list(self.cache.glob("*.new")), [])

    def test_every_compression_gives_the_image_back(self) -> None:
        self.assertEqual(set(PROGRAMS), set(COMPRESSIONS))
        for compression, program in PROGRAMS.items():
            with self.subTest(compression):
                packed = run(program, input=self.image)
                name = f"sda1.ext4-ptcl-img.{compression}"
                self.put(name, packed, split=len(packed) // 3 + 1)
                [[part, kind, path]] = self.unshelve()
                self.assertEqual((part, kind), ("sda1", "ext4"))
                self.assertEqual(Path(path).name, "sda1.partclone")
                self.assertTrue(Path(path).read_bytes() == self.image)
                for file in self.shelf.iterdir():
                    file.unlink()

    def test_old_names_do_not_say_how_they_are_compressed(self) -> None:
        for compression in ("gz", "xz", "lz4", "zst", "uncomp"):
            packed = Packed("sda1", "ext4", "", (self.shelf / "x",))
            self.put("x", run(PROGRAMS[compression], input=self.image))
            self.assertEqual(shelf_unpack.guess(packed.files[0]), compression)

    def test_a_raw_partition_has_holes(self) -> None:
        raw = b"\0" * (3 << 20) + b"data" + b"\0" * (2 << 20) + b"end" + b"\0" * 100000
        self.put("sda2.dd-img", run("gzip -c", input=raw), split=2000)
        [[part, kind, path]] = self.unshelve()
        self.assertEqual((part, kind, Path(path).name), ("sda2", "dd", "sda2.raw"))
        self.assertTrue(Path(path).read_bytes() == raw)
        self.assertLessEqual(os.stat(path).st_blocks * 512, 256 << 10)

    def test_version_1_has_a_byte_map(self) -> None:
        blocks = bytes([1, 0, 1, 1, 0, 9])
        header = (b"partclone-image" + b"EXTFS".ljust(15, b"\0") + b"0001" + b"\0\0"
                  + (512).to_bytes(4, "little") + (3072).to_bytes(8, "little")
                  + (6).to_bytes(8, "little") + (3).to_bytes(8, "little"))
        image = header.ljust(4160, b"\0") + blocks + b"BiTmAgIc" + b"x" * 3 * 516
        self.put("sda1.ext4-ptcl-img.gz", run("gzip -c", input=image))
        self.assertTrue(Path(self.unshelve()[0][2]).read_bytes() == image)
        self.put("sda1.ext4-ptcl-img.gz", run("gzip -c", input=image[:-1]))
        self.fails("ends at byte 5721 of 5722")

    def test_a_second_time_nothing_is_unpacked(self) -> None:
        self.put("sda1.ext4-ptcl-img.zst", run("zstd -cq", input=self.image), split=1 << 19)
        path = Path(self.unshelve()[0][2])
        made = path.stat().st_mtime_ns
        self.assertEqual(self.unshelve()[0][2], str(path))
        self.assertEqual(path.stat().st_mtime_ns, made)
        # Twin: an image that was saved again has other times.
        os.utime(self.shelf / "sda1.ext4-ptcl-img.zst.ab", (1, 1))
        self.assertNotEqual(self.unshelve()[0][2], str(path))

    def test_damage_is_found_and_named(self) -> None:
        packed = bytearray(run("zstd -cq --check", input=self.image))
        packed[len(packed) * 2 // 3] ^= 1
        self.put("sda1.ext4-ptcl-img.zst", packed, split=len(packed) // 2 + 1)
        self.fails(r"sda1\.ext4-ptcl-img\.zst\.ab or a part before it is damaged: zstd: ")
        packed = bytearray(run("zstd -cq", input=self.image))
        self.put("sda1.ext4-ptcl-img.zst", packed[:-9], split=len(packed) // 2 + 1)
        self.fails(r"zst\.ab or a part before it is damaged: zstd: ")
        self.put("sda1.ext4-ptcl-img.zst", packed[:-9])
        for part in self.shelf.glob("*.zst.a?"):
            part.unlink()
        self.fails(r"ptcl-img\.zst is damaged: zstd: ")

    def test_damage_that_no_decompressor_sees(self) -> None:
        for offset, words in ((70, "checksum of its header"), (112, "checksum of its bitmap")):
            wrong = bytearray(self.image)
            wrong[offset] ^= 1
            self.put("sda1.ext4-ptcl-img.uncomp", wrong)
            self.fails(words)
        self.put("sda1.ext4-ptcl-img.uncomp", self.image[:-1])
        self.fails(f"ends at byte {len(self.image) - 1} of {len(self.image)}")
        self.put("sda1.ext4-ptcl-img.uncomp", self.image + b"x")
        self.fails(f"more than the {len(self.image)} bytes")
        for length in (0, 14, 60, 109, 111, 200):
            (self.shelf / "sda1.ext4-ptcl-img.uncomp").write_bytes(self.image[:length])
            # Less than the magic word is a very small raw partition.
            if length != 14:
                self.fails("ends within" if length else "nothing is in it")

    def test_a_missing_part_and_a_missing_partition(self) -> None:
        self.put("sda1.ext4-ptcl-img.gz", run("gzip -c", input=self.image), split=1 << 18)
        (self.shelf / "sda1.ext4-ptcl-img.gz.ab").unlink()
        self.fails(r"gz\.ab is missing, and .*gz\.ac is there")
        with self.assertRaisesRegex(Refused, "no image of sda7"):
            unshelve.unshelve(unshelve.parse([str(self.shelf), "sda7"]))

    def test_a_part_that_became_a_link_meanwhile(self) -> None:
        """What is read is looked at, not what once had that name."""
        self.put("sda1.ext4-ptcl-img.gz", run("gzip -c", input=self.image), split=1 << 18)
        wish = unshelve.parse(["--cache", str(self.cache), str(self.shelf)])
        chosen = unshelve.choose(wish)
        part = chosen[0].files[1].rename(self.folder / "far")
        chosen[0].files[1].symlink_to(part)
        with self.assertRaisesRegex(Refused, r"gz\.ab leads out of the image directory"):
            shelf_cache.unpack_all(shelf_cache.Cache(self.cache), chosen, str, lambda *_: None)

    def test_a_missing_program_is_named_with_its_package(self) -> None:
        self.put("sda1.ext4-ptcl-img.lzo", b"x")
        path = os.environ["PATH"]
        os.environ["PATH"] = "/nowhere"
        try:
            self.fails("lzop is missing; install the package lzop")
        finally:
            os.environ["PATH"] = path

    def test_the_limit_evicts_what_was_used_least_recently(self) -> None:
        limit = str(len(self.image) * 5 // 2)
        paths = []
        for number in (1, 2):
            self.put(f"sda{number}.ext4-ptcl-img.uncomp", self.image)
        for number in (1, 2):
            wish = unshelve.parse(["--cache", str(self.cache), "--cache-size", limit,
                                   str(self.shelf), f"sda{number}"])
            paths.append(unshelve.unshelve(wish)[0].path)
        os.utime(paths[0].parent, (2, 2))
        os.utime(paths[1].parent, (1, 1))
        self.put("sdb1.ext4-ptcl-img.uncomp", self.image)
        wish = unshelve.parse(["--cache", str(self.cache), "--cache-size", limit,
                               str(self.shelf), "sdb1"])
        third = unshelve.unshelve(wish)[0].path
        self.assertEqual([path.exists() for path in (*paths, third)], [True, False, True])
        # Twin: three at once do not fit: sda2 is missing, sda1 and sdb1 would be in use. Nothing is
        # evicted for what cannot be: nor for one that is too large for the cache, or the disk.
        self.fails(r"sda2: .* unpacked; the cache .* may hold .*, and .* in use",
                   "--cache-size", limit)
        for file in self.shelf.iterdir():
            file.unlink()
        self.put("sda3.ext4-ptcl-img.uncomp", self.image)
        self.fails(r"sda3: .* unpacked; the cache .* may hold .*, and 0 bytes of it are in use",
                   "--cache-size", str(len(self.image) * 9 // 10))
        with mock.patch.object(shelf_cache, "SPARE_BYTES", 1 << 60):
            self.fails("sda3: .* unpacked; the disk of .* left, and .* could be evicted")
        self.assertEqual([path.exists() for path in (paths[0], third)], [True, True])
        self.assertEqual(len(self.unshelve("--cache-size", limit)), 1)
        self.assertEqual([path.exists() for path in (paths[0], third)], [False, True])

    def test_what_others_put_into_the_folder_of_the_cache_stays(self) -> None:
        self.put("sda1.ext4-ptcl-img.uncomp", self.image)
        self.cache.mkdir()
        (self.cache / "lost+found").mkdir()
        image = Path(self.unshelve()[0][2])
        foreign = ["home", "home.new", "0" * 31, "0" * 32 + ".old", "f" * 32 + "g.new"]
        for name in foreign:
            (self.cache / name).mkdir()
            (self.cache / name / "letter").write_bytes(self.image)
            os.utime(self.cache / name, (1, 1))
        (self.folder / "far").mkdir()
        (self.folder / "far/letter").write_text("dear")
        (self.cache / ("1" * 32)).symlink_to(self.folder / "far")
        self.put("sda1.ext4-ptcl-img.uncomp", self.image)
        os.utime(self.shelf / "sda1.ext4-ptcl-img.uncomp", (1, 1))
        self.assertNotEqual(self.unshelve("--cache-size", str(len(self.image) * 3 // 2))[0][2],
                            str(image))
        # Twin: what is the cache's own has gone.
        self.assertFalse(image.parent.exists())
        for name in (*foreign, "1" * 32):
            self.assertTrue((self.cache / name / "letter").exists(), name)

    def test_a_folder_that_is_no_cache(self) -> None:
        self.put("sda1.ext4-ptcl-img.uncomp", self.image)
        (self.cache / "home.new").mkdir(parents=True)
        with self.assertRaisesRegex(AssertionError, "is no cache: 'home.new' lies in it"):
            self.unshelve()
        self.assertEqual(os.listdir(self.cache), ["home.new"])

    def test_what_is_in_use_stays(self) -> None:
        self.put("sda1.ext4-ptcl-img.uncomp", self.image)
        wish = unshelve.parse(["--cache", str(self.cache), str(self.shelf)])
        cache = shelf_cache.Cache(self.cache, len(self.image) * 3 // 2)
        [used] = shelf_cache.unpack_all(cache, unshelve.choose(wish), str, lambda *_: None)
        self.put("sda2.ext4-ptcl-img.uncomp", self.image)
        self.fails("in use", "--cache-size", str(len(self.image) * 3 // 2))
        self.assertTrue(used.path.exists())
        cache.close()

    def stopped(self) -> list[str]:
        """What was said until `progress` was called for the third time, which ends it."""
        said: list[str] = []
        calls = iter(range(3))

        def progress(*_: object) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        def too_late(*_: object) -> None:
            raise AssertionError("progress was not called")

        wish = unshelve.parse(["--cache", str(self.cache), str(self.shelf)])
        signal.signal(signal.SIGALRM, too_late)
        signal.alarm(20)
        try:
            with self.assertRaises(KeyboardInterrupt):
                shelf_cache.unpack_all(shelf_cache.Cache(self.cache), unshelve.choose(wish),
                                       said.append, progress)
        finally:
            signal.alarm(0)
        return said

    def test_it_can_be_ended_while_another_unpacks(self) -> None:
        self.put("sda1.ext4-ptcl-img.uncomp", self.image)
        self.cache.mkdir()
        with open(self.cache / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual(self.stopped(), ["waiting until another unshelve or serve has "
                                              f"unpacked into {self.cache}"])
        # Twin: nobody has the lock any more.
        self.assertEqual(len(self.unshelve()), 1)

    def test_it_can_be_ended_while_nothing_is_unpacked(self) -> None:
        """Before the first byte, and in the middle."""
        self.put("sda1.dd-img.gz", run("gzip -1c", input=bytes(9)))
        silent = self.folder / "silent"
        silent.mkdir()
        for script in ("sleep 60", "head -c 4000; sleep 60"):
            (silent / "pigz").write_text(f"#!/bin/sh\n(echo; {script}) < /dev/zero\n")
            (silent / "pigz").chmod(0o755)
            with mock.patch.dict(os.environ, PATH=f"{silent}:{os.environ['PATH']}"):
                self.stopped()
            self.assertEqual(list(self.cache.glob("*.new")), [])

    def test_a_signal_leaves_nothing_behind(self) -> None:
        """Whoever is asked to end while it unpacks; a killed one is tidied up by the next."""
        self.put("sda1.dd-img.gz", run("gzip -1c", input=random.Random(1).randbytes(32 << 20)))
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)):
            with self.unpacking() as process:
                process.send_signal(number)
                self.assertEqual(process.wait(60), status)
            left = list(self.cache.glob("*.new"))
            self.assertEqual(len(left), 1 if number == signal.SIGKILL else 0)
        self.assertEqual(len(self.unshelve()), 1)
        self.assertEqual(list(self.cache.glob("*.new")), [])

    @contextlib.contextmanager
    def unpacking(self) -> Iterator["subprocess.Popen[bytes]"]:
        """A process in the middle of it: its decompressor is a slow one."""
        slow = self.folder / "slow"
        slow.mkdir(exist_ok=True)
        (slow / "pigz").write_text("#!/bin/sh\ngzip -dc | (head -c 4000000; sleep 20; cat)\n")
        (slow / "pigz").chmod(0o755)
        # A shell starts what it puts into the background with SIGINT ignored.
        def take_signals() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with subprocess.Popen([sys.executable, str(TOP / "scripts/unshelve"), "--cache",
                               str(self.cache), str(self.shelf)], stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, preexec_fn=take_signals,
                              env=os.environ | {"PATH": f"{slow}:{os.environ['PATH']}"}) as process:
            limit = time.monotonic() + 60
            while not any(file.stat().st_size for file in self.cache.glob("*.new/*")):
                self.assertLess(time.monotonic(), limit)
                time.sleep(0.02)
            yield process


if __name__ == "__main__":
    unittest.main()
