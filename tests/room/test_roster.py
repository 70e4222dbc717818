"""Where does each machine stand, after what was said?"""
import unittest

from picture import TWO, mac, picture, play, room
from room.roster import DEPLOY, FAILED, OWN_DISK, UNLISTED


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

    def test_two_images(self) -> None:
        for script, shown in [
            ("m1 downloading 40 a", "m1 fetching"),
            ("m1 downloading 40 a; m1 downloading 20 b", "m1 downloading 30"),
            ("m1 done a; m1 downloading 20 b", "m1 downloading 60"),
            ("m1 done a; m1 seeding b", "m1 seeding"),
            ("m1 done a; m1 done b", "m1 done"),
        ]:
            self.assertEqual(picture(script, room(torrents=TWO)), shown, script)

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
            ("m1@9 done; 1 is m1; m1 booted", "m1 booted"),
            ("m1@9 done; m1 booted; 1 is m1", "m1 booted"),
            ("m1@9 done; 9 is m2", ""),
            ("9 is m2; m1@9 done", ""),
            ("9 is m2; m1 booted; m1@9 done", "m1 booted, claimed by 10.77.0.9, too"),
            ("m1 booted; 1 is m1; m1@9 done", "m1 booted, claimed by 10.77.0.9, too"),
            # Another address of the same machine: iPXE's and Linux's.
            ("1 is m1; m1 boot; 9 is m1; m1@9 booted", "m1 booted"),
            ("1 is m1; m1 boot; m1@9 booted; 9 is m1", "m1 booted"),
            # In a routed room it must have been silent.
            ("m1 booted; +50; m1@9 boot", "m1 booted, silent for 52 s, claimed by 10.77.0.9, too"),
            ("m1 booted; +60; m1@9 boot", "m1 booting"),
            ("m1 booted; +60; m1@9 done", "m1 booted, silent for 62 s, claimed by 10.77.0.9, too"),
            ("1 is m1; m1 done; +90; m1@9 boot; m1@9 failed x", "m1 done, claimed by 10.77.0.9, too"),
        ]:
            self.assertEqual(picture(script, room()), shown, script)

    def test_a_liar_decides_nothing_for_another(self) -> None:
        for script in ["m1@9 done; 9 is m2", "9 is m2; m1@9 done", "m1@9 done; 1 is m1; m1 boot",
                       "m1@9 done; m1 boot; 1 is m1"]:
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


if __name__ == "__main__":
    unittest.main()
