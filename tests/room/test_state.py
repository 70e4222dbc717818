"""state.py and ports.py: another's folder is left alone, and only our own processes end."""
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from room import ports, state
from room.ports import Need
from room.state import Refused


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "state"

    def sleeper(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command or ("sleep", "60"), start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class OpenState(Folder):
    def test_a_new_folder_becomes_ours(self) -> None:
        made = state.open_state(self.root)
        self.assertTrue((self.root / state.MARKER).exists())
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o711)
        self.assertEqual(made.logs.stat().st_mode & 0o777, 0o700)

    def test_a_folder_of_ours_keeps_everything(self) -> None:
        made = state.open_state(self.root)
        made.room_log.write_text("{}\n")
        self.assertEqual(state.open_state(self.root).room_log.read_text(), "{}\n")

    def test_a_foreign_folder_is_refused_and_left_as_it_is(self) -> None:
        (self.root / "www").mkdir(parents=True)
        (self.root / "www/page").write_text("of the site")
        self.root.chmod(0o700)
        with self.assertRaisesRegex(Refused, "not empty"):
            state.open_state(self.root)
        self.assertEqual((self.root / "www/page").read_text(), "of the site")
        self.assertEqual(os.listdir(self.root), ["www"])
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)

    def test_what_is_no_folder_is_refused(self) -> None:
        self.root.write_text("")
        with self.assertRaisesRegex(Refused, "Not a directory"):
            state.open_state(self.root)


class Lock(Folder):
    def test_a_second_serve_is_told_about_the_first(self) -> None:
        made = state.open_state(self.root)
        held = state.lock(made)
        with self.assertRaisesRegex(Refused, f"pid {os.getpid()}, since .*\n.*status --follow"
                                             f"(.|\n)*kill {os.getpid()}"):
            state.lock(made)
        self.assertEqual(state.running_serve(made), os.getpid())
        state.unlock(held)
        self.assertIsNone(state.running_serve(made))
        state.unlock(state.lock(made))

    def test_a_killed_serve_holds_nothing(self) -> None:
        made = state.open_state(self.root)
        code = ("import sys, time; from pathlib import Path; from room import state\n"
                "state.lock(state.State(Path(sys.argv[1]))); print('held', flush=True)\n"
                "time.sleep(60)")
        process = subprocess.Popen(["python3", "-c", code, str(self.root)],
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"held\n")
        with self.assertRaises(Refused):
            state.lock(made)
        process.kill()
        process.wait()
        self.assertIsNone(state.running_serve(made))
        state.unlock(state.lock(made))


class Remains(Folder):
    def test_a_component_of_a_killed_serve_is_found_with_its_children(self) -> None:
        made = state.open_state(self.root)
        process = self.sleeper("sh", "-c", "sleep 60 & echo $!; wait")
        state.remember(made, "nginx", process.pid, ["sh"])
        found: list[int] = []
        limit = time.monotonic() + 10
        while len(found) < 2 and time.monotonic() < limit:
            found = state.remains(made).get("nginx", [])
        self.assertEqual(len(found), 2)
        self.assertIn(process.pid, found)
        # Without its leader, too.
        process.kill()
        process.wait()
        child = [pid for pid in found if pid != process.pid]
        self.assertEqual(state.remains(made), {"nginx": child})
        state.end_processes(child)
        self.assertEqual(state.remains(made), {})

    def test_a_pid_that_was_used_again_is_not_ours(self) -> None:
        made = state.open_state(self.root)
        process = self.sleeper()
        owned = state.identity(process.pid, ["sleep"])
        for changed in ({"started": owned.started - 1}, {"boot": "another"}):
            state.write_file(self.root / "nginx.pid", state.to_json(
                state.Owned(**{**vars(owned), **changed})))
            self.assertEqual(state.remains(made), {})
        # Twin: with its own start time it is.
        state.remember(made, "nginx", process.pid, ["sleep"])
        self.assertEqual(state.remains(made), {"nginx": [process.pid]})

    def test_a_damaged_pid_file_names_nobody(self) -> None:
        made = state.open_state(self.root)
        for text in ("", "12", "{}", '{"pid": "x"}', "[1]"):
            (self.root / "nginx.pid").write_text(text)
            self.assertEqual(state.remains(made), {})

    def test_who_does_not_listen_is_killed(self) -> None:
        ready = self.root.with_name("ready")
        os.mkfifo(ready)
        process = self.sleeper("sh", "-c", 'trap "" TERM; : > "$0"; exec sleep 60', str(ready))
        # Opened for writing only after it has stopped listening.
        ready.read_bytes()
        state.end_processes([process.pid], 0.2)
        self.assertEqual(process.wait(10), -signal.SIGKILL)


class Ports(unittest.TestCase):
    def need(self, port: int) -> Need:
        return Need("tcp", "127.0.0.1", port, "--http-port 8080")

    def test_a_free_port_is_no_trouble(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.assertIsNone(ports.trouble(self.need(port)))

    def test_the_holder_of_a_port_is_named(self) -> None:
        for address in ("127.0.0.1", ""):
            with socket.create_server((address, 0)) as server:
                port = server.getsockname()[1]
                words = ports.trouble(self.need(port))
            self.assertRegex(words or "", rf"^port {port} is taken by python3.* \(pid "
                                          rf"{os.getpid()}\): --http-port 8080, or stop it$")

    def test_a_listener_that_would_share_its_port_counts(self) -> None:
        with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
            self.assertIn("is taken", ports.trouble(self.need(server.getsockname()[1])) or "")

    def test_a_port_of_another_address_is_free(self) -> None:
        with socket.create_server(("127.0.0.2", 0)) as server:
            self.assertIsNone(ports.trouble(self.need(server.getsockname()[1])))

    def test_an_address_that_is_not_ours(self) -> None:
        words = ports.trouble(Need("tcp", "192.0.2.1", 80, ""))
        self.assertIn("192.0.2.1", words or "")

    def test_udp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("0.0.0.0", 0))
            port = server.getsockname()[1]
            words = ports.trouble(Need("udp", "127.0.0.1", port, "--no-dhcp"))
        self.assertRegex(words or "", rf"UDP port {port} is taken by .*{os.getpid()}")


if __name__ == "__main__":
    unittest.main()
