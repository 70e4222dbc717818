"""boot.py and dhcp.py: which script does each machine get, and what is in it?"""
import ipaddress
import re
import unittest
from dataclasses import replace

from picture import mac
from room import boot, dhcp
from room.boot import Plan, Served
from room.job import Image, Job, Machine, job_id
from room.roster import Roster

SERVER = "http://10.77.0.1:8080"
LAB = Served(Image("lab.img", "/images/lab.img"), "1-lab.img.torrent", "a" * 40, 1 << 20)
DATA = Served(Image("data.img", "/images/data.img", "disk:model=Samsung SSD 970"),
              "2-data.img.torrent", "b" * 40, 1 << 20)
ONE = Machine(mac("m1"), "lab-1")


def plan(job: Job, *served: Served, hooks: tuple[str, ...] = ()) -> Plan:
    images = served or (LAB,)
    job = replace(job, images=tuple(image.image for image in images))
    return Plan(job, job_id([image.torrent() for image in images]), SERVER, images, hooks)


def option(options: str, name: str) -> list[str]:
    """As init splits a kernel command line."""
    words = re.findall(r'(?:[^\s"]|"[^"]*")+', options)
    return [word.partition("=")[2].replace('"', "") for word in words
            if word.startswith(f"{name}=")]


class KernelOptions(unittest.TestCase):
    def test_of_any_machine(self) -> None:
        options = boot.kernel_options(plan(Job(())), boot.ANY_MAC)
        self.assertEqual(option(options, "swarmdd.torrent"), [f"{SERVER}/1-lab.img.torrent"])
        self.assertEqual(option(options, "swarmdd.info_hash"), ["a" * 40])
        self.assertEqual(option(options, "swarmdd.report"), [
            f"{SERVER}/report?job={plan(Job(())).id}&mac=${{netX/mac:hexhyp}}"])
        self.assertEqual(option(options, "BOOTIF"), ["01-${netX/mac:hexhyp}"])
        self.assertEqual(option(options, "swarmdd.args"), ["--tracker-grace 30"])
        self.assertEqual(option(options, "swarmdd.hostname"), [])

    def test_of_a_listed_machine(self) -> None:
        machine = Machine(mac("m1"), "lab-1", target="disk:size=1G..", args="--grow-last",
                          images=("data.img",))
        job = Job((), (machine,), args="--memory 32", append="console=ttyS0", grace=5,
                  then="poweroff", onfail="wait")
        options = boot.kernel_options(plan(job, LAB, DATA, hooks=("hostname", "mine.sh")),
                                      machine.mac, machine)
        self.assertEqual(option(options, "swarmdd.torrent"), [f"{SERVER}/2-data.img.torrent"])
        self.assertEqual(option(options, "swarmdd.target"), ["disk:size=1G.."])
        self.assertEqual(option(options, "swarmdd.hostname"), ["lab-1"])
        self.assertEqual(option(options, "swarmdd.args"),
                         ["--tracker-grace 5 --memory 32 --grow-last"])
        self.assertEqual(option(options, "swarmdd.post"),
                         [f"{SERVER}/hooks/hostname", f"{SERVER}/hooks/mine.sh"])
        self.assertEqual(option(options, "swarmdd.then"), ["poweroff"])
        self.assertEqual(option(options, "swarmdd.onfail"), ["wait"])
        self.assertTrue(options.endswith(" console=ttyS0"))

    def test_peers_are_in_the_subnets_of_the_job(self) -> None:
        for allow, words in [(("10.77.0.0/24", "fd77::/64"),
                              "--allow 10.77.0.0/24 --allow fd77::/64 --tracker-grace 30"),
                             (("any",), "--tracker-grace 30")]:
            options = boot.kernel_options(plan(Job((), allow=allow)), mac("m1"))
            self.assertEqual(option(options, "swarmdd.args"), [words])

    def test_without_a_tracker_machines_know_the_seed(self) -> None:
        job = Job((), address="10.77.0.1", seed_port=7000, no_tracker=True)
        options = boot.kernel_options(plan(job), mac("m1"))
        self.assertEqual(option(options, "swarmdd.args"),
                         ["--peer 10.77.0.1:7000 --tracker-grace 30"])

    def test_images_and_targets_stay_in_pairs(self) -> None:
        options = boot.kernel_options(plan(Job(()), LAB, DATA), mac("m1"))
        self.assertEqual(option(options, "swarmdd.torrent"),
                         [f"{SERVER}/1-lab.img.torrent", f"{SERVER}/2-data.img.torrent"])
        self.assertEqual(option(options, "swarmdd.target"),
                         ["disk:auto", "disk:model=Samsung SSD 970"])

    def test_an_address_in_etc_ethers_is_no_host_name(self) -> None:
        options = boot.kernel_options(plan(Job(())), mac("m1"), Machine(mac("m1"), "10.77.0.9"))
        self.assertEqual(option(options, "swarmdd.hostname"), [])

    def test_a_name_of_a_torrent_means_nothing_in_a_url(self) -> None:
        image = Image("x", "/images/a b&c?#\u00e9.img")
        self.assertEqual(boot.torrent_name(3, image), "3-a_b_c___.img.torrent")


class Decisions(unittest.TestCase):
    """What machine 1 is given at each stage."""

    def script(self, job: Job, *events: tuple[str, str], tried_since: float = 0.0) -> str:
        """Events: (kind or state, time). Returns the script of machine 1, or the default."""
        made = plan(job)
        roster = Roster(made.job, [LAB.torrent()])
        for number, (what, reason) in enumerate(events, 1):
            entry = {"time": float(number), "address": "10.77.0.11", "kind": "report",
                     "query": f"job={made.id}&mac={mac('m1')}",
                     "body": f'{{"state":"{what}","target":"disk:auto","error":"{reason}"}}'}
            if what == "again":
                entry = {"time": float(number), "kind": "again", "job": made.id,
                         "machine": mac("m1")}
            roster.handle(entry)
        scripts = boot.decisions(made, roster.rows(100.0), roster, tried_since)
        return scripts.get(mac("m1"), boot.unlisted_script(made))

    def test_new_machines_are_deployed(self) -> None:
        self.assertIn("mac=${netX/mac:hexhyp} ", self.script(Job(())))
        self.assertIn("swarmdd.hostname=lab-1", self.script(Job((), (ONE,))))

    def test_others_are_told_and_boot_their_disk(self) -> None:
        other = Machine(mac("m2"), "lab-2")
        script = self.script(Job((), (other,), only_listed=True))
        self.assertIn("not on the list", script)
        self.assertNotIn("kernel ", script)
        # Twin: without --only-listed it is imaged.
        self.assertIn("kernel ", self.script(Job((), (other,))))

    def test_a_machine_that_is_done_boots_its_disk(self) -> None:
        for job in (Job(()), Job((), (ONE,))):
            script = self.script(job, ("done", ""))
            self.assertEqual(script, boot.local_script(SERVER))
            self.assertIn("kernel ", self.script(job, ("done", ""), ("again", "")))
            self.assertIn("kernel ", self.script(job, ("downloading", "")))

    def test_a_failed_machine_boots_what_onfail_says(self) -> None:
        shell = self.script(Job(()), ("failed", "no disk"))
        self.assertIn(f"swarmdd.pre={SERVER}/failed.sh", shell)
        # Its report would replace the reason of the failure.
        self.assertNotIn("swarmdd.report", shell)
        for what in ("reboot", "poweroff"):
            self.assertIn("sanboot", self.script(Job((), onfail=what), ("failed", "no disk")))
        for what in ("retry", "wait"):
            script = self.script(Job((), onfail=what), ("failed", "no disk"))
            self.assertIn("swarmdd.report", script)
            self.assertIn("kernel ", script)

    def test_a_failure_of_a_job_that_has_ended_is_tried_again(self) -> None:
        self.assertIn("swarmdd.report",
                      self.script(Job(()), ("failed", "no disk"), tried_since=1.5))
        self.assertNotIn("swarmdd.report",
                         self.script(Job(()), ("failed", "no disk"), tried_since=0.5))

    def test_no_word_of_a_machine_is_in_a_script(self) -> None:
        script = self.script(Job((), onfail="reboot"), ("failed", "${shell} || goto wait"))
        self.assertNotIn("${shell}", script)


class Dnsmasq(unittest.TestCase):
    NETWORK = ipaddress.IPv4Network("10.77.0.0/24")

    def job(self, dhcp_range: str) -> Job:
        return Job((), (ONE,), interface="br0", address="10.77.0.1", dhcp="range",
                   dhcp_range=dhcp_range)

    def test_a_range_outside_of_the_network(self) -> None:
        words = dhcp.range_trouble(self.job("10.77.0.100,10.77.1.9"), self.NETWORK)
        self.assertEqual(words, "--dhcp 10.77.0.100,10.77.1.9: 10.77.1.9 is not in the network of "
                                "br0, which is 10.77.0.0/24")
        self.assertIsNone(dhcp.range_trouble(self.job("10.77.0.100,10.77.0.120"), self.NETWORK))
        # dnsmasq leaves out our own address, which is all there is here.
        self.assertEqual(dhcp.range_trouble(self.job("10.77.0.1,10.77.0.1"), self.NETWORK),
                         "--dhcp 10.77.0.1,10.77.0.1: this is the address of the server")
        self.assertIsNone(dhcp.range_trouble(self.job("10.77.0.1,10.77.0.9"), self.NETWORK))

    def test_a_listed_machine_gets_its_name(self) -> None:
        words = dhcp.as_server(self.job("10.77.0.100,10.77.0.120"))
        self.assertIn("--dhcp-host=52:54:00:77:00:01,lab-1", words)

    def test_warnings(self) -> None:
        for line, wanted in (
                ("dnsmasq-dhcp: no address range available for DHCP request via br0", True),
                ("dnsmasq: warning: interface br7 does not currently exist", True),
                ("dnsmasq-dhcp: DHCPDISCOVER(br0) no address available", True),
                ("dnsmasq-dhcp: DHCPDISCOVER(br0) 52:54:00:77:00:01", False),
                ("dnsmasq: started, version 2.90 DNS disabled", False)):
            self.assertEqual(dhcp.is_warning(line), wanted, line)


if __name__ == "__main__":
    unittest.main()
