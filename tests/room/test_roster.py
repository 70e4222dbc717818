"""Where does each machine stand, after what was said?"""
import json
import random
import unittest
from typing import Any

from picture import BYTES, TWO, end_of, entries, mac, picture, play, room, who
from room import claims, hostile, roster
from room.log import Entry
from room.machine import DEPLOY, FAILED, OWN_DISK, STATES, UNLISTED
from room.results import all_good
from room.roster import Roster
from room.row import Row


class Lives(unittest.TestCase):
    """One machine."""

    def test_each_step_is_a_state(self) -> None:
        for script, shown in [
            ("m1 boot", "m1 booting"),
            ("m1 boot; m1 booted", "m1 booted"),
            ("m1 booted; m1 fetching", "m1 fetching"),
            ("m1 booted; m1 scanning 3", "m1 scanning 3"),
            ("m1 booted; m1 downloading 40", "m1 downloading 40"),
            ("m1 booted; m1 downloading 40; m1 verifying 7", "m1 verifying 7"),
            ("m1 booted; m1 seeding", "m1 seeding"),
            ("m1 booted; m1 seeding; m1 done", "m1 done"),
            ("m1 booted; m1 failed no disk", "m1 failed: no disk"),
            ("m1 failed", "m1 failed: no reason given"),
            ("m1 downloading 40; m1 dancing", "m1 downloading 40"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_a_machine_that_starts_anew_is_where_it_is(self) -> None:
        for script, shown in [
            ("m1 downloading 40; m1 boot", "m1 booting"),
            ("m1 downloading 40; m1 booted", "m1 booted"),
            ("m1 failed no disk; m1 booted", "m1 booted"),
            ("m1 failed no disk; m1 fetching", "m1 fetching"),
            ("m1 failed no disk; m1 downloading 2", "m1 downloading 2"),
            ("m1 downloading 9; m1 failed no disk; m1 fetching", "m1 fetching"),
            ("m1 done; m1 fetching", "m1 fetching"),
            # A shell may be offered, and the reason must stay on the page.
            ("m1 failed no disk; m1 boot", "m1 failed: no disk"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_done_then_rebooted(self) -> None:
        for script, shown in [
            ("m1 done; m1 boot", "m1 done, back"),
            ("m1 seeding; m1 boot", "m1 done, back"),
            ("m1 done; m1 boot-efi", "m1 done"),
            ("m1 done; m1 boot-efi; m1 disk", "m1 done, back"),
            ("m1 booted; m1 disk", "m1 booted"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_hooks_run_after_the_agent_is_done(self) -> None:
        for script, shown in [
            ("m1 seeding", "m1 seeding"),
            ("m1 done", "m1 hooks"),
            ("m1 done; m1 hooks-ok", "m1 done"),
            # The last report of the agent was lost.
            ("m1 seeding; m1 hooks-ok", "m1 done"),
            ("m1 done; m1 failed no key", "m1 failed: no key"),
            ("m1 done; m1 hooks-bad", "m1 hooks"),
            # Switched off and on again meanwhile.
            ("m1 done; m1 boot", "m1 hooks, back"),
            ("m1 done; m1 hooks-ok; m1 boot", "m1 done, back"),
            ("m1 done; m1 hooks-ok; m1 booted; m1 done", "m1 hooks"),
            ("m1 done; m1 hooks-ok; m1 again; m1 hooks-ok", "m1 done, again"),
            # No image without a report about it.
            ("m1 hooks-ok", "m1 missing"),
            ("m1 downloading 4; m1 hooks-ok", "m1 downloading 4"),
            ("m1 failed no disk; m1 hooks-ok", "m1 failed: no disk"),
        ]:
            self.assertEqual(picture(script, room(1, hooks=("grow",))).replace("lab-1", "m1"),
                             shown, script)
        self.assertEqual(picture("m1 done a; m1 hooks-ok", room(1, TWO, hooks=("grow",))),
                         "m1 fetching")
        self.assertEqual(picture("m1 done; m1 hooks-ok", room()), "m1 done")
        self.assertEqual(play("m1 done", room(hooks=("grow",))).decision(mac("m1")), OWN_DISK)

    def test_two_images(self) -> None:
        for script, shown in [
            ("m1 downloading 40 a", "m1 fetching"),
            ("m1 downloading 40 a; m1 downloading 20 b", "m1 downloading 30"),
            ("m1 done a; m1 downloading 20 b", "m1 downloading 60"),
            ("m1 done a; m1 seeding b", "m1 seeding"),
            ("m1 done a; m1 done b", "m1 done"),
        ]:
            self.assertEqual(picture(script, room(torrents=TWO)), shown, script)

    def test_one_of_two_fails(self) -> None:
        """The agent goes on with the other one, which is no recovery."""
        def said(state: str, target: str) -> Entry:
            return report({"state": state, "target": target, "error": "no disk"})

        lines = [said("scanning", "a"), said("scanning", "b"), said("failed", "a"),
                 said("downloading", "b")]
        self.assertEqual(the_row(*lines, ours=room(torrents=TWO)).state, "failed")
        self.assertEqual(
            the_row(*lines, said("scanning", "a"), ours=room(torrents=TWO)).state, "fetching")

    def test_a_disk_of_another_name_is_the_same_image(self) -> None:
        self.assertEqual(picture("m1 scanning 3 /dev/sda; m1 done /dev/sdb", room()), "m1 done")


class Decisions(unittest.TestCase):
    """What a machine boots."""

    def test_by_what_it_said(self) -> None:
        for script, decision in [
            ("", DEPLOY),
            ("m1 booted; m1 downloading 40", DEPLOY),
            ("m1 seeding", OWN_DISK),
            ("m1 done", OWN_DISK),
            ("m1 done; m1 booted", OWN_DISK),
            ("m1 failed no disk", FAILED),
            ("m1 done; m1 failed the hook", FAILED),
            ("m1 done; m1 failed the hook; m1 booted", DEPLOY),
            ("m1 done; m1 again", DEPLOY),
            ("m1 failed no disk; m1 again", DEPLOY),
        ]:
            self.assertEqual(play(script, room()).decision(mac("m1")), decision, script)

    def test_not_listed(self) -> None:
        ours = play("m2 boot; m2 booted; m1 boot", room(1, only_listed=True))
        self.assertEqual(ours.decision(mac("m2")), UNLISTED)
        self.assertEqual([row.mac for row in ours.rows(2000)], [mac("m1")])
        self.assertEqual(list(ours.turned_away), [mac("m2")])
        self.assertEqual(room(1).decision(mac("m2")), DEPLOY)


class Again(unittest.TestCase):
    def test_until_it_begins(self) -> None:
        for script, shown in [
            ("m1 done; m1 again", "m1 done, again"),
            ("m1 seeding; m1 again; m1 seeding; m1 done", "m1 seeding, again"),
            ("m1 done; m1 again; m1 boot", "m1 booting"),
            ("m1 done; m1 again; m1 boot; m1 booted; m1 done", "m1 done"),
            ("m1 failed x; m1 again", "m1 failed: x, again"),
            ("m1 failed x; m1 again; m1 failed x", "m1 failed: x, again"),
            ("m1 failed x; m1 again; m1 retry; m1 fetching", "m1 fetching"),
            ("m1 failed x; m1 again; m1 retry; m1 failed y", "m1 failed: y"),
            # It is being imaged.
            ("m1 downloading 40; m1 again; m1 done", "m1 done"),
            ("m1 done; m2 done; all again", "m1 done, again; m2 done, again"),
            ("m1 done; m2 done; m2 again", "m1 done; m2 done, again"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_by_name(self) -> None:
        self.assertEqual(picture("m1 done; m2 done; LAB-1 again", room(2)),
                         "m1 done, again; m2 done")

    def test_of_another_job(self) -> None:
        ours = play("m1 done", room())
        ours.handle({"time": 1.0, "kind": "again", "job": "0" * 12, "machine": "all"})
        self.assertEqual(ours.decision(mac("m1")), OWN_DISK)


class Speakers(unittest.TestCase):
    """Who may speak for a MAC address."""

    def test_pictures(self) -> None:
        for script, shown in [
            # Nothing is known of either address: the first one is believed.
            ("m1 downloading 4; m1@9 done", "m1 downloading 4, claimed by 10.77.0.9, too"),
            # The kernel knows better.
            ("m1@9 done; 1 is m1; m1 booted", "m1 booted, claimed by 10.77.0.9, too"),
            ("m1@9 done; m1 booted; 1 is m1", "m1 booted, claimed by 10.77.0.9, too"),
            ("9 is m2; m1 booted; m1@9 done", "m1 booted, claimed by 10.77.0.9, too"),
            ("m1 booted; 1 is m1; m1@9 done", "m1 booted, claimed by 10.77.0.9, too"),
            # What a stranger says of a machine that nobody has seen is only a flag.
            ("9 is m2; m1@9 done", f"m1 missing, 10.77.0.9 ({mac('m2')}) says that it is done"),
            ("m1@9 done; 9 is m2", f"m1 missing, 10.77.0.9 ({mac('m2')}) says that it is done"),
            ("9 is m2; m1@9 failed x",
             f"m1 missing, 10.77.0.9 ({mac('m2')}) says that it is failed"),
            ("9 is m2; m1@9 done; m1 booted", "m1 booted, claimed by 10.77.0.9, too"),
            ("9 is m2; 8 is m2; m1@9 booted; m1@8 done", "m1 missing, claimed by 10.77.0.8, too, "
             f"10.77.0.9 ({mac('m2')}) says that it is booted"),
            # A router with NAT.
            ("9 is m9; " + "; ".join(f"m{n}@9 done" for n in (1, 2, 3, 4)),
             "; ".join(f"m{n} done" for n in (1, 2, 3, 4))),
            # Another address of the same machine: iPXE's and Linux's.
            ("1 is m1; m1 boot; 9 is m1; m1@9 booted", "m1 booted"),
            ("1 is m1; m1 boot; m1@9 booted; 9 is m1", "m1 booted"),
            # An address that another machine has now.
            ("1 is m1; m1 booted; 1 is m2; m1 done", "m1 booted, claimed by 10.77.0.1, too"),
            # In a routed room it must have been silent.
            ("m1 booted; +50; m1@9 boot", "m1 booted, silent for 52 s, claimed by 10.77.0.9, too"),
            ("m1 booted; +60; m1@9 boot", "m1 booting"),
            ("m1 booted; +60; m1@9 done", "m1 booted, silent for 62 s, claimed by 10.77.0.9, too"),
            ("1 is m1; m1 done; +90; m1@9 boot; m1@9 failed x",
             "m1 done, claimed by 10.77.0.9, too"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_only_a_stranger_says_that_it_is_complete(self) -> None:
        for script, complete in [
            ("9 is m9; m1@9 done", 0), ("m1@9 done; 9 is m9", 0), ("9 is m9; m1@9 seeding", 0),
            ("9 is m2; m1@9 done; m2@9 done", 1),
            # A router without NAT: its machines have addresses that are not on the link.
            ("m1@9 done", 1), ("8 is m9; m1@71 done; m2@72 done", 2),
            # A router with NAT speaks for a room.
            ("9 is m9; " + "; ".join(f"m{n}@9 done" for n in (1, 2, 3)), 0),
            ("9 is m9; " + "; ".join(f"m{n}@9 done" for n in (1, 2, 3, 4)), 4),
            # One with proxy ARP answers for the address of each of them.
            ("; ".join(f"{n} is m9; m{n}@{n} done" for n in (1, 2, 3)), 0),
            ("; ".join(f"{n} is m9; m{n}@{n} done" for n in (1, 2, 3, 4)), 4),
            # A machine of the room is no router.
            ("5 is m5; m5 booted; " + "; ".join(f"m{n}@5 done" for n in (1, 2, 3, 4)), 0),
        ]:
            ours = play(script, room(5))
            rows = ours.rows(2000.0)
            totals = ours.totals(rows)
            self.assertEqual((totals.complete, totals.failed), (complete, 0), script)
            self.assertFalse(all_good(rows, totals, ours.job), script)

    def test_a_liar_decides_nothing_for_another(self) -> None:
        for script in ["m1@9 done; 9 is m2", "9 is m2; m1@9 done", "m1@9 done; 1 is m1; m1 boot",
                       "m1@9 done; m1 boot; 1 is m1", "9 is m2; m1@9 failed x",
                       "9 is m2; m1@9 done; m1 boot"]:
            self.assertEqual(play(script, room(2)).decision(mac("m1")), DEPLOY, script)
        self.assertEqual(
            play("1 is m1; m1 done; m1@9 failed x", room(2)).decision(mac("m1")), OWN_DISK)

    def test_another_job(self) -> None:
        for script, shown in [
            ("m1 downloading 4; m1 done job=0123456789ab", "m1 downloading 4"),
            ("job OTHER; m1 boot; job ours; m1 booted", "m1 booted"),
            ("m1 done; job OTHER; m1 boot; m2 boot; job ours", "m1 done"),
            ("job OTHER; m1 done", "m1 done"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)


def report(said: Any, address: str = "10.77.0.1", query: str | None = None,
           time: float = 1000.0) -> Entry:
    """A line of the log with this body."""
    return {"time": time, "kind": "report", "address": address,
            "query": f"mac={mac('m1')}" if query is None else query,
            "body": said if isinstance(said, str) else json.dumps(said)}


def the_row(*lines: Entry, ours: Roster | None = None) -> Row:
    ours = ours or room()
    for line in lines:
        ours.handle(line)
    row, = ours.rows(2000.0)
    return row


class WithoutMac(unittest.TestCase):
    """Machines that were booted in another way."""

    def test_by_the_member(self) -> None:
        row = the_row(report({"state": "seeding", "mac": "52:54:00:77:00:05"}, query=""))
        self.assertEqual((row.mac, row.name, row.state), (mac("m5"), mac("m5"), "seeding"))

    def test_by_the_address(self) -> None:
        row = the_row(report({"state": "seeding"}, query=""))
        self.assertEqual((row.mac, row.name, row.address), ("", "10.77.0.1", "10.77.0.1"))

    def test_init_had_named_it(self) -> None:
        row = the_row(report({"state": "booted", "mac": mac("m5")}, query=""),
                      report({"state": "seeding"}, query=""))
        self.assertEqual((row.mac, row.state), (mac("m5"), "seeding"))

    def test_the_kernel_knows_its_mac(self) -> None:
        self.assertEqual(picture("1 is m1", room()), "")
        row = the_row({"time": 1, "kind": "neighbour", "address": "10.77.0.1", "mac": mac("m5")},
                      report({"state": "seeding"}, query=""))
        self.assertEqual((row.mac, row.state), (mac("m5"), "seeding"))


class Lists(unittest.TestCase):
    def test_missing_machines_are_rows(self) -> None:
        self.assertEqual(picture("m5 booted; m2 booted", room(3)),
                         "m1 missing; m2 booted; m3 missing; m5 booted")
        rows = play("m5 booted; m2 booted", room(3)).rows(1002)
        self.assertEqual([(row.name, row.listed) for row in rows],
                         [("lab-1", True), ("lab-2", True), ("lab-3", True), (mac("m5"), False)])

    def test_expect_counts_the_first_ones(self) -> None:
        ours = play("m5 booted; m2 booted; m3 done", room(expect=2))
        rows = ours.rows(1003)
        self.assertEqual([(who(row.mac), row.listed) for row in rows],
                         [("m5", True), ("m2", True), ("m3", False)])
        totals = play("m5 done", room(expect=3)).totals(rows[:1])
        self.assertEqual((totals.expected, totals.missing, totals.working), (3, 2, 1))


class Figures(unittest.TestCase):
    def test_what_a_row_says(self) -> None:
        row = the_row(
            report({"state": "fetching"}, time=1000),
            report({"state": "downloading", "target": "disk:auto", "percent": 40.5, "have": 40,
                    "pieces": 100, "fetched": 7, "uploaded": 8, "fetched_wire": 3,
                    "uploaded_wire": 4, "down": 5, "up": 6, "eta": 12,
                    "waiting": "for a peer", "nic": "eth0", "driver": "e1000e", "version": "1.0",
                    "link_mbps": 1000, "disk": {"path": "/dev/sda", "model": "QEMU HARDDISK",
                                                "serial": "DISK1", "size": 64 << 20}}, time=1001))
        self.assertEqual(
            (row.percent, row.down, row.up, row.fetched, row.uploaded, row.pieces, row.eta,
             row.waiting, row.nic, row.driver, row.version, row.link_mbps, row.bytes, row.left,
             row.fetched_wire, row.uploaded_wire),
            (40.5, 5, 6, 7, 8, 100, 12, "for a peer", "eth0", "e1000e", "1.0", 1000, BYTES,
             BYTES * 6 // 10, 3, 4))
        self.assertEqual(row.disk, "QEMU HARDDISK, serial DISK1, 64 MiB")
        self.assertEqual(row.disks, [{"target": "disk:auto", "path": "/dev/sda",
                                      "model": "QEMU HARDDISK", "serial": "DISK1",
                                      "size": 64 << 20}])
        self.assertEqual((row.began_at, row.complete_at, row.heard_at, row.silent),
                         (1000, None, 1001, 999))

    def test_old_speeds_are_not_shown(self) -> None:
        rows = play("m1 downloading 4; m2 seeding; m3 done; m4 downloading 4; m4 failed x",
                    room()).rows(1010)
        self.assertEqual([(row.down, row.up) for row in rows], [(5, 7), (0, 7), (0, 0), (0, 0)])

    def test_no_read_back_is_said(self) -> None:
        said = {"state": "done", "target": "t", "verified": False}
        self.assertEqual((the_row(report(said)).complete, the_row(report(said)).read_back),
                         (True, False))

    def test_the_time_that_a_stop_watch_would_show(self) -> None:
        row = play("m1 booted; +9; m1 fetching; +9; m1 seeding; +99; m1 done", room()).rows(9999)[0]
        self.assertEqual((row.began_at, row.complete_at), (1010, 1020))


class Flags(unittest.TestCase):
    def flags(self, ours: Roster, now: float) -> list[list[str]]:
        return [row.flags for row in ours.rows(now)]

    def test_links(self) -> None:
        cases: list[tuple[list[Any], list[str]]] = [
            ([1000, 1000, 100], ["", "", "link has 100 Mb/s"]),
            ([10000, 1000, 10000], ["", "link has 1000 Mb/s, others have 10000", ""]),
            ([None, 0, -1, "x", True], [""] * 5),
            ([1000], [""]),
        ]
        for links, flags in cases:
            ours = room()
            for n, link in enumerate(links, 1):
                ours.handle(report({"state": "done", "link_mbps": link}, f"10.77.0.{n}",
                                   f"mac={mac(f'm{n}')}"))
            self.assertEqual(self.flags(ours, 1000), [[flag] if flag else [] for flag in flags])

    def test_silence(self) -> None:
        for state, seconds, flag in [
            ("booted", 29, ""), ("booted", 30, "silent for 30 s"),
            ("downloading", 30, "silent for 30 s"), ("seeding", 74, ""),
            ("seeding", 75, "silent for 75 s"), ("done", 9999, ""), ("failed", 9999, ""),
        ]:
            ours = play(f"m1 {state}", room())
            self.assertEqual(self.flags(ours, 1000 + seconds), [[flag] if flag else []], state)

    def test_stuck(self) -> None:
        others = "; ".join(f"m{n} scanning 0" for n in (1, 2, 3))
        gone = "; ".join(f"m{n} downloading 1" for n in (1, 2, 3))
        script = f"m4 scanning 0; {others}; {gone}; +{{}}; m4 scanning 9"
        for seconds, flag in [(10, ""), (20, ""), (30, "scanning for 38 s, others 3 s")]:
            ours = play(script.format(seconds), room())
            now = end_of(script.format(seconds), ours)
            self.assertEqual(self.flags(ours, now)[0], [flag] if flag else [])
        # The time before a machine started anew says nothing about the others.
        script = f"m4 scanning 0; {others}; +50; m1 boot; m2 boot; m3 boot"
        self.assertEqual([sorted(seen.spent) for seen in play(script, room()).seen.values()],
                         [[]] * 4)
        # Two others are not enough to say what is usual.
        script = "m4 scanning 0; m1 scanning 0; m2 scanning 0; m1 downloading 1; m2 downloading 1"
        self.assertEqual(self.flags(play(script, room()), 1020)[0], [])

    def test_a_slow_disk(self) -> None:
        begin = "; ".join(f"m{n} verifying 0" for n in (1, 2, 3, 4))
        for fast, slow, flag in [(80, 20, "disk reads 2 MB/s, others 10"), (80, 40, "")]:
            end = "; ".join(f"m{n} verifying {fast}" for n in (1, 2, 3))
            ours = play(f"{begin}; +4; {end}; m4 verifying {slow}", room())
            self.assertEqual(self.flags(ours, 1012)[3], [flag] if flag else [])
            # The flag stays when it is complete.
            for line in entries("m4 done", ours, 1500 if flag else 1009):
                ours.handle(line)
            self.assertEqual(bool(self.flags(ours, 1500)[3]), bool(flag))


class Hostile(unittest.TestCase):
    def test_a_roster_without_images(self) -> None:
        self.assertEqual(picture("m1 scanning 3; m1 done", room(torrents=())), "m1 done")

    def test_every_member_of_any_type(self) -> None:
        odd: list[Any] = [None, True, -1, 1e300, -1e300, 10**30, 0.5, "", "x" * 10_000, "\x1b[2J",
                          "\u202egnp", "\ud800", [], [[]] * 100, {}, {"a": 1}, {"model": 5}]
        members = ["state", "torrent", "target", "percent", "have", "pieces", "fetched",
                   "uploaded", "down", "up", "peers", "eta", "waiting", "verified", "good", "disk",
                   "error", "mac", "nic", "driver", "link_mbps", "version", "wiped",
                   "fetched_wire", "uploaded_wire"]
        for seed in range(1000):
            random_ = random.Random(seed)
            said: dict[str, Any] = {"state": random_.choice(STATES), "target": "t"}
            for member in random_.sample(members, 6):
                said[member] = random_.choice(odd)
            ours = room(1)
            ours.handle(report(said))
            for row in ours.rows(2000.0):
                self.check(row, seed)

    def check(self, row: Row, seed: int) -> None:
        self.assertIn(row.state, STATES)
        self.assertTrue(0 <= row.percent <= 100, f"seed {seed}: {row}")
        self.assertTrue(0 <= row.left <= row.bytes and 0 <= row.verified <= row.pieces)
        # JSON without NaN, and text that a terminal and a page can show.
        json.dumps(vars(row), allow_nan=False).encode()
        texts = [row.name, row.waiting, row.disk, row.nic, row.driver, row.version, row.error,
                 *row.flags, *(value for disk in row.disks for value in disk.values()
                               if isinstance(value, str))]
        for words in texts:
            self.assertTrue(words.isprintable() and len(words) <= 1000, f"seed {seed}: {words!r}")

    def test_texts(self) -> None:
        for text, shown in [
            ("Käse 5 €", "Käse 5 €"), ("a\tb\r\nc", "a b c"), ("\x1b[31mred", "[31mred"),
            ("\u202eexe.png", "exe.png"), ("\u200b\ufeffa", "a"), ("z\u0335\u0336\u0337", "z"),
            ("e\u0301", "é"), ("\ud800", ""), ("  a  ", "a"), ("x" * 5000, "x" * 100),
            ("<script>", "<script>"),
        ]:
            self.assertEqual(hostile.clean(text, 100), shown)

    def test_other_lines(self) -> None:
        ours = room(1)
        for line in [
            report("no json"), report("[1]"), report("{" * 5000), report("x" * 100_000),
            report({"state": "done", "x": "x" * hostile.BODY_CHARS_MAX}),
            report({"state": "dancing"}), report({}), report({"state": ["done"]}),
            report({"state": "done"}, query="x" * 5000 + "&job=a"),
            report({"state": "done"}, query="job=" + "0" * 12),
            {"time": 1, "kind": "boot", "address": "a", "path": "/boot/"},
            {"time": 1, "kind": "boot", "address": "a", "path": 5},
            {"time": 1, "kind": "boot"}, {"time": 1, "kind": "words", "query": "mac=x"},
            {"time": 1, "kind": ["report"]}, {"time": 1}, {"time": 1, "kind": "neighbour"},
            {"time": 1, "kind": "neighbour", "address": "10.77.0.1", "mac": 7},
            {"time": 1, "kind": "again", "job": ours.id, "machine": {"a": 1}},
            {"time": 1, "kind": "report", "address": "a", "query": 5, "body": 5},
        ]:
            ours.handle(line)
        self.assertEqual([row.state for row in ours.rows(5)], ["missing"])

    def test_a_flood_of_machines_leaves_the_places_of_those_that_are_listed(self) -> None:
        ours = room(2)
        for n in range(roster.MACHINES_MAX + 500):
            ours.handle(report({"state": "done"}, f"10.77.{n % 7}.9",
                               f"mac=02-00-00-00-{n // 256:02x}-{n % 256:02x}"))
        play("m2 done", ours)
        rows = ours.rows(2000)
        self.assertEqual(len(rows), roster.MACHINES_MAX)
        self.assertEqual(rows[1].state, "done")
        # A machine that the kernel knows takes the place of one that a stranger speaks for.
        play("m7 booted; 7 is m7; m7 booted", ours)
        self.assertNotIn(mac("m7"), ours.seen)
        ours.handle({"time": 1.0, "kind": "neighbour", "address": "10.77.3.9", "mac": mac("m9")})
        play("m7 booted", ours)
        self.assertEqual(ours.seen[mac("m7")].state, "booted")
        self.assertEqual(len(ours.rows(2000)), roster.MACHINES_MAX)
        # What it remembers has an end, too.
        for n in range(3 * claims.ADDRESSES_MAX):
            ours.handle(report({"state": "done"}, f"a{n}", f"mac={mac('m2')}"))
            ours.handle(report({"state": "done"}, "b", f"mac={mac('m2')}"))
            ours.handle(report({"state": "done"}, f"c{n}", f"mac={mac('m99')}"))
        self.assertLessEqual(len(ours.claims.refused), claims.REFUSED_ADDRESSES_MAX)
        self.assertEqual({len(kept) for kept in ours.claims.refused.values()},
                         {1, claims.REFUSED_PER_ADDRESS_MAX})
        self.assertLessEqual(len(ours.claims.speakers), claims.ADDRESSES_MAX)
        self.assertLessEqual(len(ours.seen[mac("m2")].claims), claims.CLAIMS_MAX)


class Neighbours(unittest.TestCase):
    def test_lines_that_the_log_lacks(self) -> None:
        ours = play("m1 boot; m2 boot; m1@9 booted; 2 is m2", room())
        table = {"10.77.0.1": "52:54:00:77:00:01", "10.77.0.2": "52:54:00:77:00:02",
                 "10.77.0.9": "bad", "10.77.0.77": "52:54:00:77:00:77"}
        missing = claims.neighbour_entries(ours.claims, table, 5.0)
        self.assertEqual(missing, [{"time": 5.0, "kind": "neighbour", "address": "10.77.0.1",
                                    "mac": mac("m1")}])
        for line in missing:
            ours.handle(line)
        self.assertEqual(claims.neighbour_entries(ours.claims, table, 6.0), [])


# --- the twin


def twin(lines: list[Entry], n: int) -> tuple[str, str]:
    """State and decision of machine n, from all lines at once, by the rules as they are written
    down. For a room in which the kernel knows all addresses from the beginning."""
    address, own = f"10.77.0.{n}", mac(f"m{n}")
    state, done, again, tried = "missing", False, False, False
    def is_own(line: Entry) -> bool:
        return (line.get("address") == address
                and own in line.get("query", "") + line.get("path", ""))

    if not any(is_own(line) for line in lines):
        # At most others have spoken for it.
        return "", DEPLOY
    for line in lines:
        kind = line["kind"]
        if kind == "again":
            if line["machine"] in ("all", own) and (done or state == "failed"):
                again, done, tried = True, False, False
            continue
        if not is_own(line):
            continue
        if kind == "retry":
            tried = True
        elif kind == "boot":
            if again or (not done and state != "failed"):
                state, again, tried = "booting", False, False
            elif done:
                # It boots its own disk. If it was being imaged once more, it stays unfinished.
                state = "done" if state == "seeding" else state
        elif kind == "report":
            said = json.loads(line["body"])["state"]
            if again and said in ("seeding", "done"):
                continue
            if said == "failed" and again and not tried:
                continue
            state, again, tried = said, False, False
            if state in ("seeding", "done"):
                done = True
            elif state == "failed":
                done = False
    decision = (DEPLOY if again else FAILED if state == "failed" else
                OWN_DISK if done else DEPLOY)
    return state, decision


def random_script(random_: random.Random) -> str:
    verbs = ["boot", "booted", "fetching", "scanning 1", "downloading 40", "verifying 5",
             "seeding", "done", "failed x", "retry", "again"]
    steps = []
    for _ in range(random_.randrange(1, 40)):
        name = f"m{random_.randrange(1, 4)}"
        verb = random_.choice(verbs)
        liar = f"@{random_.randrange(1, 4)}" if random_.random() < 0.3 and verb != "again" else ""
        steps.append(f"{name}{liar} {verb}" if random_.random() < 0.97 else "all again")
    return "; ".join(steps)


class Twin(unittest.TestCase):
    KNOWN = "1 is m1; 2 is m2; 3 is m3; "

    def test_a_naive_twin_sees_the_same(self) -> None:
        for seed in range(1000):
            script = self.KNOWN + random_script(random.Random(seed))
            ours = room(3)
            lines = entries(script, ours)
            for line in lines:
                ours.handle(line)
            for n, row in enumerate(ours.rows(9999.0), 1):
                state, decision = twin(lines, n)
                self.assertEqual((row.state if state else "", ours.decision(row.mac)),
                                 (state, decision), f"seed {seed}, m{n}: {script}")

    def test_a_restart_knows_the_same(self) -> None:
        """Looking at the rows changes nothing, and neither does the hour at which neighbours
        become known for a machine that nobody lies about."""
        for seed in range(300):
            random_ = random.Random(seed)
            script = random_script(random_)
            running = room(2)
            lines = entries(script + "; 1 is m1; 3 is m2; m3@1 done", running)
            for number, line in enumerate(lines):
                running.handle(line)
                running.rows(float(line["time"]))
                running.decision(mac("m1"))
                if random_.random() < 0.1:
                    restarted = room(2)
                    for earlier in lines[:number + 1]:
                        restarted.handle(json.loads(json.dumps(earlier)))
                    self.assertEqual(restarted.rows(9999.0), running.rows(9999.0), f"seed {seed}")


if __name__ == "__main__":
    unittest.main()
