"""What is read of a Clonezilla image directory, and what is refused by name."""
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from room import shelf
from room.state import Refused

GPT = """\
label: gpt
label-id: 4A2A5F9C-8E1D-4A65-8C6C-1C2D3E4F5A6B
device: /dev/sda
unit: sectors
first-lba: 34
last-lba: 131038
sector-size: 512

/dev/sda1 : start=        2048, size=       20480, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, \
uuid=11111111-2222-4333-8444-555555555555, name="EFI, and more", attrs="LegacyBIOSBootable"
/dev/sda2 : start=       22528, size=       40960, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, \
uuid=22222222-2222-4333-8444-555555555555
/dev/sda3 : start=       63488, size=       20480, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, \
uuid=33333333-2222-4333-8444-555555555555
"""
MBR = """\
# partition table of /dev/sda
unit: sectors

/dev/sda1 : start=     2048, size=   204800, Id= 7, bootable
/dev/sda2 : start=   206848, size=   204798, Id= 5
/dev/sda3 : start=        0, size=        0, Id= 0
/dev/sda5 : start=   206850, size=   100000, Id=82
"""


class Directory(unittest.TestCase):
    """A directory with two partitions and swap, of which each test changes something."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("disk", "sda\n")
        self.write("parts", "sda1 sda2\n")
        self.write("sda-pt.sf", GPT)
        self.write("sda1.vfat-ptcl-img.zst.aa")
        self.write("sda2.ext4-ptcl-img.gz.ab")
        self.write("sda2.ext4-ptcl-img.gz.aa")
        self.write("swappt-sda3.info", 'UUID="0d6e9a9c-7d57-4b4e-a8f9-b9e4b3c0b6a1"\n'
                                       'LABEL="swap-of-sda"\n')

    def write(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def read(self) -> shelf.Shelf:
        return shelf.read_shelf(str(self.folder))

    def refused(self, pattern: str) -> None:
        with self.assertRaisesRegex(Refused, pattern):
            self.read()

    def test_what_clonezilla_writes_today(self) -> None:
        found = self.read()
        self.assertEqual(found.disk, "sda")
        self.assertEqual([(number, packed.kind, packed.compression, len(packed.files))
                          for number, packed in found.parts],
                         [(1, "vfat", "zst", 1), (2, "ext4", "gz", 2)])
        self.assertEqual(found.parts[1][1].files[1].name, "sda2.ext4-ptcl-img.gz.ab")
        self.assertEqual(found.swaps, (shelf.Swap(3, "0d6e9a9c-7d57-4b4e-a8f9-b9e4b3c0b6a1",
                                                  "swap-of-sda"),))
        self.assertEqual((found.table.label, found.table.sector_bytes), ("gpt", 512))

    def test_the_plan_for_machines_is_a_script_that_sfdisk_takes(self) -> None:
        text = shelf.plan_text(self.read(), False)
        self.assertIn("\nswap 3 0d6e9a9c-7d57-4b4e-a8f9-b9e4b3c0b6a1 swap-of-sda\n", text)
        self.assertIn("\ngrows\n", text)
        disk = self.folder / "image"
        with open(disk, "wb") as file:
            file.truncate(96 << 20)
        script = text.partition("script\n")[2]
        subprocess.run(["/sbin/sfdisk", "--quiet", str(disk)], input=script, text=True, check=True)
        dump = subprocess.run(["/sbin/sfdisk", "--dump", str(disk)], capture_output=True, text=True,
                              check=True).stdout
        read_again = shelf.parse_table(dump.replace(str(disk), "/dev/sda"), "dump")
        self.assertEqual(read_again.entries[0], self.read().table.entries[0])
        self.assertEqual(read_again.label_id, self.read().table.label_id)
        # Of a larger disk all is usable.
        self.assertIn("last-lba: 196574", dump)

    def test_only_partitions_of_data_grow(self) -> None:
        self.assertIn("\ngrows 2\n", shelf.plan_text(self.read(), True))

    def test_an_mbr_in_the_words_of_an_old_sfdisk(self) -> None:
        self.write("sda-pt.sf", MBR)
        self.write("parts", "sda1")
        (self.folder / "swappt-sda3.info").unlink()
        (self.folder / "sda-mbr").write_bytes(b"B" * 440 + b"\x78\x56\x34\x12" + b"B" * 68)
        (self.folder / "sda-hidden-data-after-mbr").write_bytes(b"H" * 2048 * 512)
        found = self.read()
        self.assertEqual([entry.number for entry in found.table.entries], [1, 2, 5])
        self.assertEqual(found.table.entries[0], shelf.Entry(1, 2048, 204800, "7", "bootable"))
        self.assertEqual(len(found.boot_code), 446)
        self.assertEqual(found.table.label_id, "0x12345678")
        # Not beyond the first partition.
        self.assertEqual(found.hidden, b"H" * 2047 * 512)
        self.assertEqual(found.swaps, (shelf.Swap(5),))
        with self.assertRaisesRegex(Refused, "logical partitions"):
            shelf.plan_text(found, True)

    def write_windows(self, *lines: str) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        self.write("disk", "sda")
        self.write("parts", " ".join(f"sda{n}" for n in range(1, 1 + len(lines))))
        self.write("sda-pt.sf", "label: dos\nlabel-id: 0x12345678\nunit: sectors\n" + "".join(
            f"/dev/sda{n} : {line}\n" for n, line in enumerate(lines, 1)))
        for number in range(1, 1 + len(lines)):
            self.write(f"sda{number}.ntfs-ptcl-img.zst")

    def test_what_windows_boots_from_keeps_its_size_and_place(self) -> None:
        system = "start=206848, size=20000000, type=7"
        self.write_windows("start=2048, size=204800, type=7, bootable", system)
        self.assertIn("\ngrows 2\n", shelf.plan_text(self.read(), True))
        # Of another size only Clonezilla's file says so: without it the system would move.
        self.write_windows("start=2048, size=102400, type=7, bootable", system)
        with self.assertRaisesRegex(Refused, "would move partition 2, which is NTFS"):
            shelf.plan_text(self.read(), True)
        self.assertIn("\ngrows\n", shelf.plan_text(self.read(), False))
        self.write("sda1.info", "PARTITION_TYPE=Win_boot_reserved\n")
        self.assertIn("\ngrows 2\n", shelf.plan_text(self.read(), True))
        # What repairs Windows lies behind it.
        self.write_windows("start=2048, size=204800, type=7, bootable", system,
                           "start=20206848, size=1000000, type=27")
        with self.assertRaisesRegex(Refused, "would move partition 3, which is NTFS"):
            shelf.plan_text(self.read(), True)

    def test_a_gpt_keeps_what_lies_behind_the_first_sector(self) -> None:
        (self.folder / "sda-hidden-data-after-mbr").write_bytes(b"H" * 512)
        self.assertEqual(self.read().hidden, b"")

    def test_a_missing_part_is_named(self) -> None:
        self.write("sda2.ext4-ptcl-img.gz.ad")
        self.refused(r"sda2\.ext4-ptcl-img\.gz\.ac is missing, and .*\.ad is there")
        (self.folder / "sda2.ext4-ptcl-img.gz.ad").unlink()
        (self.folder / "sda2.ext4-ptcl-img.gz.aa").unlink()
        self.refused(r"gz\.aa is missing")

    def test_what_is_not_deployed_is_refused_by_name(self) -> None:
        for name, text, words in (
                ("lvm_vg_dev.list", "vg0 /dev/sda2 3Xk\n", "volumes of LVM .*vg0 /dev/sda2"),
                ("luks-dev.list", "# a comment\n/dev/sda2 1 x\n", "LUKS"),
                ("ecryptfs.info", "", "eCryptfs"),
                ("sda1.ntfs-img.aa", "", "ntfsclone"),
                ("sda1.ext3-ptcl-img.xz", "", "two images of sda1"),
                ("sda-gpt-1st", "", "")):
            self.write(name, text)
            if words:
                self.refused(words)
            else:
                self.read()
            (self.folder / name).unlink()
        # Made by Clonezilla even if there is none.
        self.write("lvm_vg_dev.list")
        self.read()

    def test_an_image_that_is_not_there(self) -> None:
        (self.folder / "sda1.vfat-ptcl-img.zst.aa").unlink()
        self.refused("no image of sda1")
        self.write("sda1.gz.000")
        self.refused("partimage")

    def test_odd_names(self) -> None:
        for name, text, words in (
                ("disk", "sda sdb", "2 disks"), ("disk", "../sda", "no name of a disk"),
                ("disk", "", "0 disks"), ("parts", "", "no partition"),
                ("parts", "sda1 md0", "no partition of sda"),
                ("parts", "sda1 sda9", "no partition sda9"), ("parts", "sda1 sda1", "twice"),
                ("parts", "../../etc/passwd", "no partition of sda"),
                ("parts", " ".join(f"sda{n}" for n in range(99)), "99 names")):
            kept = (self.folder / name).read_text()
            self.write(name, text)
            self.refused(words)
            self.write(name, kept)

    def test_tables_that_cannot_be(self) -> None:
        for old, new, words in (
                ("label: gpt", "label: sun", "kind 'sun'"),
                ("unit: sectors", "unit: pigs", "counts in 'pigs'"),
                ("sector-size: 512", "sector-size: 3", "of 3 bytes"),
                ("size=       40960", "size=       many", "no number of sectors"),
                ("size=       40960", "size=" + "9" * 16, "no number of sectors"),
                ("type=0FC6", "type=$(x)0FC6", "no type"),
                ("size=       40960, ", "size=       40960, rm=-rf, ", "unknown word 'rm'"),
                ("name=\"EFI", "name=\"\x1bEFI", "no text"),
                ("label-id: 4A", "label-id: `4A", "no label-id"),
                (", uuid=2222", ", bootable, name=2222", "a partition no uuid"),
                ("/dev/sda2 :", "/dev/sda1 :", "one of them twice")):
            self.write("sda-pt.sf", GPT.replace(old, new))
            self.refused(words)

    def test_partitions_that_overlap(self) -> None:
        with self.assertRaisesRegex(Refused, "partition 2 begins at sector 22527, within partition "
                                    "1, which ends at 22527"):
            shelf.parse_table(GPT.replace("start=       22528", "start=       22527"), "t")
        dos = MBR.replace("unit", "label-id: 0x12345678\nunit")
        shelf.parse_table(dos, "t")
        more = dos + "/dev/sda6 : start=   306851, size=   104795, Id=83\n"
        shelf.parse_table(more, "t")
        for old, new, words in (
                ("start=     2048, size=   204800", "start=     2048, size=   204801",
                 "partition 2 begins at sector 206848, within partition 1"),
                ("104795", "104796", "partition 6, sectors 306851 to 411646, lies in no extended"),
                ("306851", "306849", "partition 6 begins at sector 306849, within partition 5"),
                ("start=   206850", "start=   206848", "partition 5, .* lies in no extended"),
                ("Id= 5", "Id=83", "partition 5, .* lies in no extended")):
            with self.assertRaisesRegex(Refused, words):
                shelf.parse_table(more.replace(old, new), "t")

    def test_a_gpt_that_an_old_sfdisk_did_not_know(self) -> None:
        self.write("sda-pt.sf", MBR.replace("unit", "label-id: 0x12345678\nunit"))
        self.write("sda-gpt-1st")
        self.refused("old sfdisk")

    def test_links_and_what_is_no_file(self) -> None:
        outside = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, outside)
        self.write("sda-mbr", "B" * 512)
        for name in ("disk", "parts", "sda-pt.sf", "sda-mbr", "swappt-sda3.info",
                     "sda1.vfat-ptcl-img.zst.aa", "sda2.ext4-ptcl-img.gz.ab"):
            file = self.folder / name
            kept = file.rename(outside / name)
            file.symlink_to(kept)
            self.refused(f"{name} leads out of the image directory, to '{kept}'")
            file.unlink()
            os.mkfifo(file)
            self.refused(f"{name} is no regular file")
            file.unlink()
            file.symlink_to("/dev/zero")
            self.refused(f"{name} is no regular file")
            file.unlink()
            file.mkdir()
            self.refused(f"{name} is no regular file|has no file")
            file.rmdir()
            file.symlink_to("nowhere")
            self.refused(f"cannot read .*{name}: No such file")
            file.unlink()
            # Twin: a link to another file of the directory.
            kept.rename(self.folder / "kept")
            file.symlink_to("kept")
            self.read()
            file.unlink()
            (self.folder / "kept").rename(file)
        # Also through a link to the directory.
        (outside / "link").symlink_to(self.folder)
        shelf.read_shelf(str(outside / "link"))

    def test_names_of_nvme(self) -> None:
        for name in list(self.folder.iterdir()):
            name.rename(self.folder / name.name.replace("sda", "nvme0n1p", 1)
                        .replace("nvme0n1p-pt", "nvme0n1-pt"))
        self.write("disk", "nvme0n1")
        self.write("parts", "nvme0n1p1 nvme0n1p2")
        self.write("nvme0n1-pt.sf", GPT.replace("sda", "nvme0n1p"))
        found = self.read()
        self.assertEqual([number for number, _ in found.parts], [1, 2])
        self.assertEqual(found.swaps[0].label, "swap-of-sda")

    def test_hostile_words_for_swap(self) -> None:
        self.write("swappt-sda3.info", 'UUID="$(reboot)"\nLABEL="`reboot`"\n')
        self.assertEqual(self.read().swaps, (shelf.Swap(3),))


if __name__ == "__main__":
    unittest.main()
