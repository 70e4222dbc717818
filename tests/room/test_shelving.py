"""A Clonezilla image directory as a job: images, kernel options, what machines fetch."""
import shutil
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from room import boot, options, past, shelf, shelf_cache, shelving, state
from room.job import Image, Job, Machine, Mistake, Torrent, check, images_of
from room.shelf_cache import Image as Unpacked
from room.state import Refused
from test_shelf import GPT
from test_unshelve import TOP, make_image, run

MAC = "52-54-00-77-00-01"


class Shelving(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for name, text in (("disk", "sda"), ("parts", "sda1 sda2"), ("sda-pt.sf", GPT),
                           ("sda-mbr", "B" * 512), ("sda1.vfat-ptcl-img.zst", ""),
                           ("sda2.ext4-ptcl-img.zst", "")):
            (self.folder / name).write_text(text)
        self.job = Job((Image("win", str(self.folder)),), address="10.77.0.1", dhcp="none")

    def expanded(self, **more: object) -> Job:
        job = replace(self.job, **more)  # type: ignore[arg-type]
        return shelving.expand(job, shelving.find(job))

    def test_each_partition_is_an_image(self) -> None:
        self.assertEqual([(image.name, image.target) for image in self.expanded().images],
                         [("win/sda1", "disk:auto#1"), ("win/sda2", "disk:auto#2")])
        check(self.expanded())

    def test_a_machine_may_have_another_disk(self) -> None:
        machine = Machine(MAC, "pc-1", "/dev/nvme0n1", images=("win",))
        job = self.expanded(machines=(machine,))
        check(job)
        self.assertEqual([image.target for image in images_of(job.machines[0], job)],
                         ["/dev/nvme0n1#1", "/dev/nvme0n1#2"])
        # Twin: two images of two disks.
        two = replace(self.job, images=(Image("a", "a"), Image("b", "b", "/dev/sdb")),
                      machines=(replace(machine, images=()),))
        with self.assertRaisesRegex(Mistake, "target= is for a machine with one image"):
            check(two)

    def test_a_job_that_was_kept_is_read_again(self) -> None:
        job = self.expanded(resize_table=True, machines=(Machine(MAC, "pc-1", "/dev/sdb"),))
        (self.folder / "job.toml").write_text(options.job_text(job))
        command = options.parse([str(self.folder / "job.toml")], str(self.folder))
        assert command
        self.assertEqual(command.job, job)

    def test_machines_are_told_the_plan_by_its_sum(self) -> None:
        found = shelf.read_shelf(str(self.folder))
        table = shelving.table_of(found, False, [])
        self.assertEqual(sorted(table.files), sorted([table.plan, "boot-code"]))
        self.assertNotEqual(table.plan, shelving.table_of(found, True, []).plan)
        served = tuple(boot.Served(image, f"{number}.torrent", "0" * 40, 1)
                       for number, image in enumerate(self.expanded().images))
        plan = boot.Plan(self.expanded(), "id", "http://s", served, (), f"table/{table.plan}")
        words = boot.kernel_options(plan, MAC).split()
        self.assertIn(f"swarmdd.table=http://s/table/{table.plan}", words)
        self.assertIn("swarmdd.target=disk:auto#2", words)
        self.assertNotIn("swarmdd.table", boot.kernel_options(replace(plan, table=""), MAC))

    def test_another_table_is_another_job_also_when_it_is_read_again(self) -> None:
        job = self.expanded()
        torrents = [Torrent(image.name, 5, "a" * 40, image.target) for image in job.images]
        made = state.open_state(self.folder / "state")
        ids = []
        for resize in (False, True, True):
            table = shelving.table_of(shelf.read_shelf(str(self.folder)), resize, [])
            begun = past.open_past(job, torrents, made, table.plan)
            self.assertEqual(begun.began_at > 0, len(ids) == 2)
            past.begin(begun, made)
            self.assertEqual((past.load(made).id, past.load(made).roster.id), (begun.id,) * 2)
            ids.append(begun.id)
        self.assertEqual((len(set(ids)), ids[1]), (2, ids[2]))
        # Also what lies beside the partitions is said in the plan.
        (self.folder / "sda-mbr").write_text("C" * 512)
        other = shelving.table_of(shelf.read_shelf(str(self.folder)), True, [])
        self.assertNotIn(past.open_past(job, torrents, made, other.plan).id, ids)

    def test_it_is_served_alone(self) -> None:
        job = replace(self.job, images=(*self.job.images, Image("b", "b", "/dev/sdb")))
        with self.assertRaisesRegex(Mistake, "serve it alone"):
            shelving.find(job)
        with self.assertRaisesRegex(Mistake, "for a Clonezilla image"):
            shelving.find(Job((Image("a", "/dev/null"),), resize_table=True))
        self.assertIsNone(shelving.find(Job((Image("a", "/dev/null"),))))

    def test_the_size_of_the_cache(self) -> None:
        for text, count in (("", 0), ("2097152", 2 << 20), ("5g", 5 << 30)):
            self.assertEqual(shelving.cache_of(replace(self.job, cache_size=text)).limit_bytes,
                             count)

    def test_an_image_must_be_one_of_its_partition(self) -> None:
        found = shelf.read_shelf(str(self.folder))
        cache = shelf_cache.Cache(self.folder / "cache")
        self.addCleanup(cache.close)
        image = make_image(self.folder)
        raw = b"x" + bytes((20480 * 512) - 1)

        def unpack(first: bytes, second: bytes) -> int:
            packed = []
            for part, content in (("sda1", first), ("sda2", second)):
                file = self.folder / f"{part}.{len(content)}"
                file.write_bytes(content)
                packed.append(shelf.Packed(part, "dd", "uncomp", (file,)))
            of_these = replace(found, parts=((1, packed[0]), (2, packed[1])))
            return len(shelving.unpack(of_these, cache, str, lambda *_: None))

        # Of 8 MiB, which fit into 10 MiB and into 20 MiB.
        self.assertEqual(unpack(raw, image), 2)
        self.assertEqual(unpack(image, image), 2)
        for wrong, bytes_ in ((raw[:-512], 10485248), (raw + bytes(512), 10486272)):
            with self.assertRaisesRegex(Refused, f"image of sda1 is one of {bytes_} bytes, and the "
                                        "partition has 10485760 in sda-pt.sf"):
                unpack(wrong, image)
        with self.assertRaisesRegex(Refused, "sda2 is one of 10485760 .* has 20971520"):
            unpack(raw, raw)
        entries = (shelf.Entry(1, 2048, 16383, "83"), *found.table.entries[1:])
        found = replace(found, table=replace(found.table, entries=entries))
        with self.assertRaisesRegex(Refused, "sda1 is one of 8388608 bytes, .* has 8388096"):
            unpack(image, image)

    def test_the_uuid_of_an_efi_partition(self) -> None:
        """As partclone saves it, and raw: blkid says the same."""
        packed = shelf.Packed("sda1", "vfat", "zst", (Path("sda1"),))
        for bits, mib in ((16, 16), (32, 64)):
            fat = self.folder / "fat"
            fat.unlink(missing_ok=True)
            run(f"mkfs.vfat -F {bits} -C {fat} {mib << 10}")
            run(f"partclone.vfat -c -F -q -L {self.folder}/log -s {fat} -o {fat}.partclone -O "
                f"{fat}.partclone")
            uuid = run(f"blkid --probe --match-tag UUID --output value {fat}").decode().strip()
            self.assertRegex(uuid, "^[0-9A-F]{4}-[0-9A-F]{4}$")
            self.assertEqual(shelving.fat_uuid(Unpacked(packed, fat, False)), uuid)
            self.assertEqual(
                shelving.fat_uuid(Unpacked(packed, Path(f"{fat}.partclone"), True)), uuid)
        self.assertEqual(shelving.fat_uuid(Unpacked(packed, Path("/bin/sh"), False)), "")

    def test_the_starter_of_a_disk_finds_it_by_that_uuid(self) -> None:
        out = self.folder / "disk.efi"
        run(f"{TOP}/scripts/disk-starter {out} UUID=AB12-CD34")
        self.assertIn(b"search --no-floppy --fs-uuid --set=root AB12-CD34\n", out.read_bytes())
        run(f"{TOP}/scripts/disk-starter {out} UUID=")
        self.assertNotIn(b"--set=root", out.read_bytes())


if __name__ == "__main__":
    unittest.main()
