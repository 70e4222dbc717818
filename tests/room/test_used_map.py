import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from room.job import Image
from room.state import State
from room.torrents import map_used
from room.used_map import (Part, dirt_of, map_text, overlap, parse, parts_of, sentence_of,
                           unused_in, Wrong)

# partclone.ntfs 0.3.23 -D of a file of 64 MiB: the last 4096 bytes are no whole cluster.
NTFS = """\
# Domain logfile created by unset_name v0.3.23
# Source: n.img
# Offset: 0x00000000
# current_pos  current_status
0x03FFF000     ?
#      pos        size  status
0x00000000  0x00003000  +
0x00003000  0x00001000  ?
0x00004000  0x00013000  +
0x00017000  0x03FE8000  ?
"""


def table(label: str, *entries: tuple[int, int, str]) -> str:
    """What `sfdisk --json` prints, from (start, size, type)."""
    partitions = [{"node": f"d{number}", "start": start, "size": size, "type": kind}
                  for number, (start, size, kind) in enumerate(entries, 1)]
    return json.dumps({"partitiontable": {"label": label, "sectorsize": 512,
                                          "partitions": partitions}})


class Parts(unittest.TestCase):
    def test_partitions_are_read_without_extended_ones(self) -> None:
        shown = table("dos", (8, 2, "83"), (16, 64, "5"), (24, 8, "83"))
        self.assertEqual(parts_of(shown), [Part("d1", 4096, 1024), Part("d3", 12288, 4096)])
        self.assertEqual(parts_of(table("gpt", (8, 2, "0FC63DAF"))), [Part("d1", 4096, 1024)])
        self.assertEqual(parts_of('{"partitiontable": {"label": "dos"}}'), [])

    def test_a_protective_mbr_alone_is_a_gpt_in_other_sectors(self) -> None:
        self.assertIsNone(parts_of(table("dos", (1, 4095, "ee"))))

    def test_partitions_that_overlap(self) -> None:
        self.assertFalse(overlap([Part("b", 8, 4), Part("a", 0, 8), Part("c", 12, 1)]))
        self.assertTrue(overlap([Part("b", 8, 4), Part("a", 0, 9)]))


class Maps(unittest.TestCase):
    def test_unused_blocks_of_partclone(self) -> None:
        self.assertEqual(unused_in(NTFS, 64 << 20), [(0x3000, 0x4000), (0x17000, 0x3fff000)])

    def test_a_map_that_is_not_clear_is_not_guessed_at(self) -> None:
        for old, new in [("0x00003000  0x00001000", "0x00003000  0x00000800"), ("  ?", "  -"),
                         ("  +", ""), ("0x00017000", "17k"), (NTFS[200:], "")]:
            with self.assertRaises(ValueError, msg=new):
                unused_in(NTFS.replace(old, new), 64 << 20)
        # It may not end behind its partition.
        with self.assertRaises(ValueError):
            unused_in(NTFS, 0x3ffefff)

    def test_everything_that_is_not_unused_is_used(self) -> None:
        lines = map_text("a\nb", 100, [(50, 60), (10, 20), (90, 100)]).splitlines()
        self.assertEqual(lines[1], r"# Source: 'a\nb'")
        self.assertEqual(lines[5:], ["0x0 0xa +", "0xa 0xa ?", "0x14 0x1e +", "0x32 0xa ?",
                                     "0x3c 0x1e +", "0x5a 0xa ?"])
        self.assertEqual(map_text("", 8, []).splitlines()[5:], ["0x0 0x8 +"])


class Dirt(unittest.TestCase):
    def dirt(self, kind: str, *fields: tuple[int, bytes]) -> str:
        disk = bytearray(2 << 20)
        for offset, value in fields:
            disk[offset:offset + len(value)] = value
        return dirt_of(kind, lambda offset, length: bytes(disk[offset:offset + length]))

    def test_each_file_system_that_was_not_unmounted(self) -> None:
        checkpoints = ((1024 + 16, b"\x0c"), (1024 + 20, b"\x01"), (1024 + 76, b"\x02"))
        cases = {
            "ext4": ((1024 + 0x60, b"\xc6\x02"),),
            "exfat": ((0x6a, b"\x02"),),
            "vfat": ((0x41, b"\x01"),),
            "btrfs": ((0x10060, b"\0\x40"),),
            # The second pack is newer, and its flags lack CP_UMOUNT_FLAG.
            "f2fs": (*checkpoints, (0x2000, b"\x07"), (0x2084, b"\x01"), (0x4000, b"\x08")),
        }
        for kind, fields in cases.items():
            self.assertNotEqual(self.dirt(kind, *fields), "", kind)
        clean = {"ext4": ((1024 + 0x60, b"\xc2\x02"),), "exfat": (), "btrfs": (), "ntfs": (),
                 "vfat": ((22, b"\x20"), (0x41, b"\x01")),
                 "f2fs": (*checkpoints, (0x2000, b"\x09"), (0x2084, b"\x05"), (0x4000, b"\x08"))}
        for kind, fields in clean.items():
            self.assertEqual(self.dirt(kind, *fields), "", kind)
        self.assertNotEqual(self.dirt("vfat", (22, b"\x20"), (0x25, b"\x01")), "")


class Words(unittest.TestCase):
    def test_the_sentence_of_partclone(self) -> None:
        head = "Partclone v0.3.23 http://partclone.org\nStarting to map device (/dev/loop0) to " \
               "domain log (r.map)\n"
        cases = {
            head + "device (/dev/loop0) is mounted at /mnt\nerror exit\n":
                "device (/dev/loop0) is mounted at /mnt",
            head + "ntfsclone-ng.c: NTFS Volume 'n' is scheduled for a check or it was shutdown \n"
                   "uncleanly. Please boot Windows or fix it by fsck.\n":
                "NTFS Volume 'n' is scheduled for a check or it was shutdown uncleanly. Please "
                "boot Windows or fix it by fsck.",
            head: "partclone gives no reason",
        }
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            self.assertEqual(sentence_of(log), "partclone gives no reason")
            for text, sentence in cases.items():
                log.write_text(text)
                self.assertEqual(sentence_of(log), sentence)

    def test_the_command_line(self) -> None:
        self.assertEqual(parse(["-o", "m", "disk"]), ("disk", "m"))
        self.assertEqual(parse(["disk", "--output=m"]), ("disk", "m"))
        for words in [[], ["a", "b"], ["a", "-o"], ["-x", "a"]]:
            with self.assertRaises(Wrong):
                parse(words)


# sfdisk, blkid, losetup and partclone of a disk that is one ext4. The last one takes its time, and
# detaching is slow enough for a second signal.
STAND_IN = """\
#!/bin/sh
case ${0##*/} in
sfdisk) exit 1 ;;
blkid) echo TYPE=ext4 ;;
losetup)
    case $1 in
    --detach) touch "$FOLDER/detaching"; sleep 0.6; echo "$2" > "$FOLDER/detached" ;;
    *) echo "$FOLDER/disk" ;;
    esac
    ;;
partclone.ext4) touch "$FOLDER/began"; exec sleep 30 ;;
esac
"""


class Signals(unittest.TestCase):
    def test_each_detaches_the_loop_device_and_another_one_does_not_hinder(self) -> None:
        for first in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            with self.subTest(first), tempfile.TemporaryDirectory() as folder:
                self.ended_by(first, Path(folder))

    def ended_by(self, first: signal.Signals, folder: Path) -> None:
        (folder / "disk").write_bytes(bytes(1 << 16))
        (folder / "temporary").mkdir()
        for name in ("sfdisk", "blkid", "losetup", "partclone.ext4"):
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        started = subprocess.Popen(
            [sys.executable, "-c", "import sys; from room.used_map import main; "
             "sys.exit(main(sys.argv[1:]))", folder / "disk"],
            env={**os.environ, "FOLDER": str(folder), "TMPDIR": str(folder / "temporary"),
                 "PATH": f"{folder}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for number, moment in ((first, "began"), (signal.SIGTERM, "detaching")):
            end = time.monotonic() + 20
            while not (folder / moment).exists() and started.poll() is None:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.02)
            started.send_signal(number)
        self.assertEqual(started.wait(20), 130)
        self.assertEqual((folder / "detached").read_text(), f"{folder}/disk\n")
        self.assertEqual(list((folder / "temporary").iterdir()), [])


class Serve(unittest.TestCase):
    def test_without_partclone_the_job_goes_on(self) -> None:
        said: list[str] = []
        with mock.patch("shutil.which", return_value=None):
            options = map_used(Image("lab.img", "/nowhere"), State(Path("/nowhere")),
                               Path("/nowhere/map"), said.append, lambda: True)
        self.assertEqual(options, [])
        self.assertEqual(said, ["lab.img: partclone is not installed, so deleted files are sent "
                                "as well"])
