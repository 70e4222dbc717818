"""What is asked for, and which sentence does a mistake get?"""
import random
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

from room.job import Image, Job, Machine, Mistake, Torrent, images_of, job_id, parse_mac
from room.jobfile import parse_machines, toml_value
from room.options import FLAGS, HELP, VALUES, Command, job_text, parse

NET = ["--interface", "eth1"]


def command(*arguments: str, folder: str = "/x") -> Command:
    parsed = parse(arguments, folder)
    assert parsed is not None
    return parsed


class CommandLine(unittest.TestCase):
    def mistake(self, arguments: Sequence[str], sentence: str, folder: str = "/x") -> None:
        with self.assertRaises(Mistake) as caught:
            parse(arguments, folder)
        self.assertEqual(str(caught.exception), sentence)

    def test_all_options_of_a_job(self) -> None:
        job = command(
            "--interface", "eth1", "--address=10.77.0.1/24", "--dhcp", "10.77.0.9,10.77.0.20",
            "--kernel", "k", "--initramfs", "/i", "--append", "console=ttyS0 console=tty0",
            "--target", "/dev/sda", "--target=disk:model=QEMU HARDDISK", "--used-ranges", "--live",
            "--no-used-map", "--raw", "--piece-size", "4M", "--args", "--memory 128", "--then",
            "kexec", "--onfail", "wait", "--expect", "30", "--timeout", "3600", "--grace", "5",
            "--linger", "0", "--max-up", "50M", "--agent", "../agent", "--dir", "state",
            "--allow", "10.77.0.1/24", "--allow=fd77::/64",
            "--http-port", "8080", "--tracker-port", "6970", "--seed-port", "6882",
            "--hook", "hostname", "--hook", "./mine.sh", "a.img", "folder/b.img").job
        self.assertEqual(job, Job(
            images=(Image("a.img", "/x/a.img", "/dev/sda"),
                    Image("b.img", "/x/folder/b.img", "disk:model=QEMU HARDDISK")),
            expect=30, interface="eth1", address="10.77.0.1", dhcp="range",
            dhcp_range="10.77.0.9,10.77.0.20", http_port=8080, tracker_port=6970, seed_port=6882,
            kernel="/x/k", initramfs="/i", append="console=ttyS0 console=tty0", used_ranges=True,
            no_used_map=True, live=True, raw=True, piece_size="4M", args="--memory 128",
            then="kexec", onfail="wait", hooks=("hostname", "/x/mine.sh"), timeout=3600, grace=5,
            linger=0, max_up="50M", agent="/agent", dir="/x/state",
            allow=("10.77.0.0/24", "fd77::/64")))

    def test_commands(self) -> None:
        self.assertIsNone(parse(["--then", "shell", "-h"], "/"))
        self.assertEqual(command("--again", "lab-1", "--again=52:54:0:77:0:A", "--dir", "s"),
                         Command(Job(images=(), dir="/x/s"), ("lab-1", "52-54-00-77-00-0a")))
        self.assertTrue(command(*NET, "a.img", "--print-job").print_job)
        self.assertEqual(command(*NET, "--", "--odd.img").job.images[0].path, "/x/--odd.img")
        # The last one counts.
        self.assertEqual(command(*NET, "a", "--dhcp", "10.0.0.1,10.0.0.2", "--no-dhcp").job.dhcp,
                         "none")

    def test_mistakes(self) -> None:
        cases: list[tuple[list[str], str]] = [
            ([], "expected at least one image"),
            (["a.img"], "expected --interface or --address"),
            (["a.img", "--address", "10.0.0.1"], "DHCP needs --interface"),
            (["--then", "rebot"], "--then: 'rebot' is not one of reboot, poweroff, shell, kexec"),
            (["--then=rebot"], "--then: 'rebot' is not one of reboot, poweroff, shell, kexec"),
            (["--onfail="], "--onfail: '' is not one of shell, reboot, poweroff, retry, wait"),
            (["--frobnicate"], "unknown option --frobnicate"),
            (["-x"], "unknown option -x"),
            (["-"], "unknown option -"),
            # Like every abbreviation: tomorrow it may mean another option.
            (["--inter", "eth1"], "unknown option --inter"),
            (["--interface"], "--interface wants a value"),
            (["--raw=yes"], "--raw takes no value"),
            (["--expect", "-1"], "--expect: '-1' is no number from 0 to 4096"),
            (["--expect", "٣"], "--expect: '٣' is no number from 0 to 4096"),
            (["--timeout", "1h"], "--timeout: '1h' is no number from 0 to 864000"),
            (["--http-port", "65536"], "--http-port: '65536' is no number from 1 to 65535"),
            (["--address", "10.0.0"], "--address: '10.0.0' is no IPv4 address"),
            (["--dhcp", "10.0.0.9"], "--dhcp: '10.0.0.9' is not FIRST,LAST"),
            (["--dhcp", "10.0.0.9,10.0.0.1"], "--dhcp: 10.0.0.9 is above 10.0.0.1"),
            (["--dhcp", "10.0.0.9,eth1"], "--dhcp: 'eth1' is no IPv4 address"),
            (["--target", "sda"], "--target: 'sda' is neither a device below /dev nor a selector "
                                  "such as disk:auto"),
            (["--target", 'disk:model="x"'], "--target: a double quote or a control character "
                                             "cannot be on a kernel command line"),
            (["--args", '--name "x"'], "--args: a double quote or a control character cannot be "
                                       "on a kernel command line"),
            (["--append", "a\nb"], "--append: 'a?b' is no text"),
            (["--piece-size", "3M"], "--piece-size: '3M' is not a power of two from 16K to 16M"),
            (["--piece-size", "32M"], "--piece-size: '32M' is not a power of two from 16K to 16M"),
            (["--max-up", "64K"], "--max-up: '64K' is not bytes per second from 128K to 1T"),
            (["--allow", "10.0.0.1"],
             "--allow: '10.0.0.1' is no subnet such as 10.0.0.0/24, and not any"),
            (["--allow", "10.0.0.0/33"],
             "--allow: '10.0.0.0/33' is no subnet such as 10.0.0.0/24, and not any"),
            ([*NET, "a", "--allow", "10.0.0.0/24", "--allow", "any"],
             "--allow any and a subnet exclude each other"),
            (["--hook", "Mine.sh"], "--hook: 'Mine.sh' is no name of a hook; a file needs a "
                                    "slash: ./Mine.sh"),
            (["--again", "pc_1"], "--again: 'pc_1' is neither all, nor a name, nor a MAC address"),
            (["--machines", "none"], "cannot read none: No such file or directory"),
            ([*NET, "a", "--only-listed"], "--only-listed needs a list: --machines FILE"),
            ([*NET, "a", "--wake"], "--wake needs a list: --machines FILE"),
            ([*NET, "a", "--seed-port", "80"],
             "--http-port, --tracker-port and --seed-port must differ"),
            ([*NET, "a", "--target", "/dev/sda", "--target", "/dev/sdb"],
             "expected as many --target as images: 1, not 2"),
            ([*NET, "a", "b"], "a and b would both go to disk:auto; give each image a --target"),
            ([*NET, "a", "b", "--target", "/dev/sda", "--target", "/dev/sda"],
             "a and b would both go to /dev/sda; give each image a --target"),
            ([*NET, ""], "an image has an empty name"),
            ([*NET, "a\udcff.img"], "'a\\udcff.img' is not UTF-8 text"),
            ([*NET, "a\n.img"], "'a?.img' is no text"),
            (["a.toml", "b.toml"], "expected one JOB.toml, not a.toml and b.toml"),
            (["--interface", "eth\udc801"], "--interface: 'eth\\udc801' is not UTF-8 text"),
        ]
        for arguments, sentence in cases:
            with self.subTest(arguments):
                self.mistake(arguments, sentence)

    def test_images_of_the_same_name(self) -> None:
        job = command(*NET, "a/x.img", "b/x.img", "--target", "disk:auto", "--target", "/dev/sdb")
        self.assertEqual([image.name for image in job.job.images], ["x.img", "x.img-2"])

    def test_help_is_the_manual(self) -> None:
        self.assertLessEqual(max(len(line) for line in HELP.split("\n")), 80)
        for name in [*VALUES, *FLAGS]:
            self.assertRegex(HELP, rf"\n  --{name}[ \n]")


LIST = """\
# The lab on the second floor.
52:54:00:77:00:01 lab-01
52-54-00-77-00-02\tlab-02.example.org target=/dev/nvme0n1 # its disk is another
8:0:20:0:61:CA   lab-03 args="--memory 256 --fresh" image=a.img image='b.img'

52:54:00:77:00:04 10.77.0.4
"""


class ListOfMachines(unittest.TestCase):
    def test_lines(self) -> None:
        self.assertEqual(parse_machines(LIST, "room.txt"), (
            Machine("52-54-00-77-00-01", "lab-01"),
            Machine("52-54-00-77-00-02", "lab-02.example.org", target="/dev/nvme0n1"),
            Machine("08-00-20-00-61-ca", "lab-03", args="--memory 256 --fresh",
                    images=("a.img", "b.img")),
            Machine("52-54-00-77-00-04", "10.77.0.4")))

    def test_a_comment_may_have_one_quotation_mark(self) -> None:
        self.assertEqual(parse_machines("0:0:0:0:0:1 a # don't", "x"),
                         (Machine("00-00-00-00-00-01", "a"),))
        self.assertEqual(parse_machines("0:0:0:0:0:1 a args=a#b", "x")[0].args, "a#b")

    def test_mistakes(self) -> None:
        mac = "52:54:00:77:00:01"
        for text, sentence in [
            ("", "room.txt lists no machine"),
            ("# nobody", "room.txt lists no machine"),
            (f"\n{mac}", "room.txt line 2: expected MAC NAME [key=value]..."),
            ("zz:54:00:77:00:01 a", "room.txt line 1: 'zz:54:00:77:00:01' is no MAC address"),
            ("52:54:00:77:00 a", "room.txt line 1: '52:54:00:77:00' is no MAC address"),
            ("52:54-00:77:00:01 a", "room.txt line 1: '52:54-00:77:00:01' is no MAC address"),
            (f"{mac} lab_1", "room.txt line 1: 'lab_1' is no host name (letters, digits and "
                             "dashes; not 'all')"),
            (f"{mac} all", "room.txt line 1: 'all' is no host name (letters, digits and dashes; "
                           "not 'all')"),
            (f"{mac} {'a' * 64}", f"room.txt line 1: '{'a' * 64}' is no host name (letters, "
                                  "digits and dashes; not 'all')"),
            (f"{mac} a tagret=/dev/sda", "room.txt line 1: unknown key 'tagret'"),
            (f"{mac} a target=sda", "room.txt line 1: target: 'sda' is neither a device below "
                                    "/dev nor a selector such as disk:auto"),
            (f"{mac} a target=/dev/sda target=/dev/sdb", "room.txt line 1: target= is given twice"),
            (f"{mac} a image=x image=x", "room.txt line 1: an image is given twice"),
            (f"{mac} a target=", "room.txt line 1: target: expected a text"),
            (f"{mac} a quickly", "room.txt line 1: expected key=value, not 'quickly'"),
            (f"{mac} a args=\"--fresh", "room.txt line 1: a quotation mark has no partner"),
            (f"{mac} a args='a \"b\"'", "room.txt line 1: args: a double quote or a control "
                                        "character cannot be on a kernel command line"),
            (f"{mac} a\n\n52-54-00-77-00-1 b", "room.txt line 3: 52-54-00-77-00-01 is in line 1, "
                                               "too"),
            (f"{mac} lab\n0:0:0:0:0:1 LAB", "room.txt line 2: LAB is in line 1, too"),
        ]:
            with self.subTest(text), self.assertRaises(Mistake) as caught:
                parse_machines(text, "room.txt")
            self.assertEqual(str(caught.exception), sentence)

    def test_what_does_not_fit_the_job(self) -> None:
        one = [*NET, "a.img"]
        two = [*NET, "a.img", "b.img", "--target", "/dev/sda", "--target", "/dev/sdb"]
        for arguments, text, sentence in [
            (one, "image=c.img", "lab: there is no image 'c.img'; there is: a.img"),
            (two, "target=/dev/sdc", "lab: target= is for a machine with one image; this one gets "
                                     "a.img, b.img"),
            ([*NET, "a.img", "b.img"], "image=a.img",
             "a.img and b.img would both go to disk:auto of a machine that is not listed (see "
             "--only-listed); give each image a --target"),
            ([*one, "--expect", "3"], "", "--expect and a list of machines: the machines of the "
                                          "list are expected"),
        ]:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "room.txt").write_text("0:0:0:0:0:1 lab " + text)
                with self.subTest(text), self.assertRaises(Mistake) as caught:
                    parse([*arguments, "--machines", "room.txt"], folder)
                self.assertEqual(str(caught.exception), sentence)

    def test_without_others_each_machine_may_have_one_of_the_images(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "room.txt").write_text("0:0:0:0:0:1 a image=a.img\n"
                                                "0:0:0:0:0:2 b image=b.img\n")
            job = command(*NET, "--machines", "room.txt", "--only-listed", "a.img", "b.img",
                          folder=folder).job
        self.assertEqual([image.target for image in job.images], ["disk:auto", "disk:auto"])

    def test_images_of_a_machine(self) -> None:
        job = Job(images=(Image("a", "/a"), Image("b", "/b")))
        machine = Machine("00-00-00-00-00-01", "lab", target="/dev/sdb", images=("b",))
        self.assertEqual(images_of(machine, job), (Image("b", "/b", "/dev/sdb"),))
        self.assertEqual(images_of(None, job), job.images)

    def test_mac_forms(self) -> None:
        for text in ["52:54:00:AB:00:01", "52-54-00-ab-00-01", "52:54:0:aB:0:1"]:
            self.assertEqual(parse_mac(text), "52-54-00-ab-00-01")
        for text in ["", "52:54:00:ab:00:01 ", "52:54:00:ab:00:011", "525400ab0001", "5:4:0:1"]:
            self.assertIsNone(parse_mac(text))


class JobFile(unittest.TestCase):
    def read(self, text: str, *more: str) -> Job:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "sub").mkdir()
            Path(folder, "sub", "job.toml").write_text(text)
            Path(folder, "room.txt").write_text("0:0:0:0:0:1 lab-1\n")
            return command("sub/job.toml", *more, folder=folder).job

    def test_mistakes(self) -> None:
        good = '[job]\ninterface="e"\n[[image]]\npath="a"\n'
        for text, sentence in [
            (good + "[[machine]]\nmac='0:0:0:0:0:1'\nname='a'\n[[machine]]\nmac='0:0:0:0:0:2'\n"
             "name='b'\ntagret='x'", "job.toml: [[machine]] 2: unknown key 'tagret'"),
            (good + "[[machine]]\nmac='0:0:0:0:0:1'\nname='a'\n[[machine]]\nmac='0:0:0:0:0:1'\n"
             "name='b'", "job.toml: [[machine]] 2: 00-00-00-00-00-01 is in [[machine]] 1, too"),
            (good + "[[machine]]\nmac=5\nname='a'", "job.toml: [[machine]] 1: expected a key 'mac' "
                                                    "with a text"),
            (good + "[[machine]]\nmac='0:0:0:0:0:1'\nname='a'\nimage=[1]",
             "job.toml: [[machine]] 1: image: expected a text"),
            (good + "[[image]]\nname='b'", "job.toml: [[image]] 2: expected a key 'path'"),
            (good + "[[image]]\npath='b'\ntarget='sda'",
             "job.toml: [[image]] 2: target: 'sda' is neither a device below /dev nor a selector "
             "such as disk:auto"),
            ("[jobs]", "job.toml: unknown key 'jobs'; there are [job], [[image]], [[machine]]"),
            ("job = 1", "job.toml: 'job' is no table; write [job]"),
            ("[image]\npath='a'", "job.toml: 'image' is no list of tables; write [[image]]"),
            ("[job]\nthen='rebot'", "job.toml: [job]: then: 'rebot' is not one of reboot, "
                                    "poweroff, shell, kexec"),
            ("[job]\nexpect='x'", "job.toml: [job]: expect: 'x' is no number from 0 to 4096"),
            ("[job]\nexpect=1.5", "job.toml: [job]: expect: expected a number"),
            ("[job]\nraw='yes'", "job.toml: [job]: raw: expected true or false"),
            ("[job]\ninterface=1", "job.toml: [job]: interface: expected a text"),
            ("[job]\nused_ranges=true", "job.toml: [job]: unknown key 'used_ranges'"),
            ("[job]\ntarget='/dev/sda'", "job.toml: [job]: unknown key 'target'"),
            ("[job]\nthen=", "job.toml: Invalid value (at end of document)"),
            ("x=" + "[" * 9999, "job.toml: nested too deeply"),
        ]:
            with self.subTest(text[:200]), self.assertRaises(Mistake) as caught:
                self.read(text)
            self.assertEqual(str(caught.exception), sentence)

    def test_not_text(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "job.toml").write_bytes(b"[job]\n# \xff")
            with self.assertRaisesRegex(Mistake, "job.toml line 2 is not UTF-8 text"):
                parse(["job.toml"], folder)

    def test_a_file_of_windows(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "job.toml").write_bytes(
                b"\xef\xbb\xbf[job]\r\ninterface='e'\r\nmachines='room.txt'\r\n"
                b"[[image]]\r\npath='a'\r\n")
            Path(folder, "room.txt").write_bytes(b"\xef\xbb\xbf52:54:00:77:00:01\tlab-1\r\n")
            self.assertEqual(command("job.toml", folder=folder).job.machines[0].name, "lab-1")

    def test_the_command_line_replaces_keys(self) -> None:
        text = '[job]\ninterface="e"\nexpect=3\nthen="shell"\n[[image]]\npath="../a"\n'
        job = self.read(text, "--then", "kexec", "--machines", "room.txt")
        self.assertEqual((job.then, job.expect, [m.name for m in job.machines]),
                         ("kexec", 0, ["lab-1"]))
        # Relative to the folder of the file.
        self.assertRegex(job.images[0].path, "^/.*/a$")
        self.assertNotIn("sub", job.images[0].path)
        with self.assertRaisesRegex(Mistake, "^b.img: the images of this job are in sub/job.toml"):
            self.read(text, "b.img")

    def test_a_printed_job_reads_back_as_the_same(self) -> None:
        for seed in range(300):
            job = made_up_job(random.Random(seed))
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "job.toml").write_text(job_text(job), encoding="utf-8")
                self.assertEqual(command("job.toml", folder=folder).job, job, f"seed {seed}")

    def test_odd_texts(self) -> None:
        self.assertEqual(toml_value('a"b\\c\x7f\u20ac\U0001f600\x01'),
                         '"a\\"b\\\\c\\u007f€😀\\u0001"')


def made_up_job(random_: random.Random) -> Job:
    def some(*values: object) -> object:
        return random_.choice(values)

    images = tuple(Image(f"i{n}.img", f"/d {n}/\"ü\\{n}.img", f"/dev/sd{chr(97 + n)}")
                   for n in range(random_.randrange(1, 4)))
    machines = tuple(
        Machine(f"52-54-00-77-00-{n:02x}", f"lab-{n}", args=random_.choice([None, "--fresh ü"]),
                images=(images[0].name,) if n % 2 else (),
                target="disk:model=QEMU HARDDISK" if n % 2 or len(images) == 1 else None)
        for n in range(random_.choice([0, 0, 1, 5])))
    options: dict[str, object] = {
        "expect": 0 if machines else some(0, 30),
        "only_listed": bool(machines) and some(True, False),
        "wake": bool(machines) and some(True, False), "address": some("", "10.77.0.1"),
        "http_port": some(80, 8080), "tracker_port": some(6969, 1), "seed_port": some(6881, 9),
        "kernel": some("", "/boot/vm linuz"), "append": some("", "console=ttyS0 console=tty0"),
        "used_ranges": some(True, False), "no_used_map": some(True, False),
        "live": some(True, False), "raw": some(True, False),
        "piece_size": some("", "4M"), "args": some("", "--memory 64"),
        "then": some("kexec", "reboot"), "onfail": some("wait", "shell"),
        "hooks": some((), ("hostname", "/own/hook.sh"), ("overlay=/a.tar",)),
        "timeout": some(0, 60), "grace": some(30, 0), "linger": some(60, 0),
        "no_tracker": some(True, False),
        "max_up": some("", "50M"), "allow": some((), ("any",), ("10.0.0.0/8", "fd00::/8")),
        "agent": some("", "/agent"), "dir": some("", "/state")}
    dhcp = random_.choice(["proxy", "none", "range"])
    return Job(images=images, machines=machines, interface="eth1", dhcp=dhcp,
               dhcp_range="10.0.0.1,10.0.0.9" if dhcp == "range" else "",
               **options)  # type: ignore[arg-type]


class JobId(unittest.TestCase):
    def test_the_same_images_for_the_same_targets(self) -> None:
        one = Torrent("a", 5, "a" * 40, "disk:auto")
        self.assertEqual(job_id([one]), "4bd2081178a2")
        # Neither the name nor the path of an image counts, but all else does.
        self.assertEqual(job_id([Torrent("b", 5, "a" * 40, "disk:auto")]), job_id([one]))
        others: list[list[Torrent]] = [[], [one, one], [Torrent("a", 5, "b" * 40, "disk:auto")],
                  [Torrent("a", 5, "a" * 40, "/dev/sda")]]
        self.assertEqual(len({job_id(torrents) for torrents in [[one], *others]}), 5)

    def test_another_partition_table_is_another_job(self) -> None:
        one = Torrent("a", 5, "a" * 40, "disk:auto#1")
        self.assertEqual(len({job_id([one], table) for table in ("", "1" * 64, "2" * 64)}), 3)


if __name__ == "__main__":
    unittest.main()
