"""Do the scripts of today's Clonezilla deploy with our `ezio`?

It calls EZIO 2: a daemon, torrents that are added while it runs, and a script that waits.
`today-seeder` and `today-leecher` beside this folder call what Clonezilla calls, in its order.
"""

import os
import re
from pathlib import Path

from cases.debian import KINDS, NAMES, SIZES_MIB, check_deployed, clone, info_hash_of
from fixtures import full_file_system
from harness import MIB, Failed, check, wait_until
from machines import Machine, check_ext4, disk, file_systems

HERE = Path(__file__).resolve().parents[1]
# -w 2, 15 s since the last upload, and the way to the end.
END_SECS = 60


def room(stage, targets, mode="raw-dev"):
    """A server that seeds, a machine, and the torrents. `targets` is {"sda1": device}."""
    source = disk(stage, "source", SIZES_MIB)
    file_systems(stage, source)
    server = Machine(stage, "server", 1, dict(zip(NAMES, source)))
    machine = Machine(stage, "machine", 2, targets)
    torrents = [make_torrent(server, name, kind, mode)
                for name, kind in zip(NAMES, KINDS)]
    start_tracker(server, torrents)
    paths = [server.images if mode == "img" else f"/dev/{name}" for name in NAMES]
    server.run(HERE / "today-seeder", "/var/log", mode, *pairs(torrents, paths))
    return server, machine, source, torrents


def make_torrent(server, name, kind, mode):
    """By partclone and the script in the place of EZIO's, as Clonezilla calls them."""
    folder, torrent = server.images / name, server.images / f"{name}.torrent"
    if mode == "raw-dev":
        folder.mkdir()
    how = "-t" if mode == "raw-dev" else "-T"
    server.run(f"partclone.{kind}", "-c", "-d", how, "-z", "16777216", "-s", f"/dev/{name}",
               "-o", folder, "-L", "/dev/null")
    info = (folder / "torrent.info").rename(server.images / f"{name}.torrent.info")
    said = server.run("partclone_create_torrent.py", "-p", name, "-c", "Clonezilla", "-i", info,
                      "-t", f"http://{server.address}:6969/announce", "-o", torrent)
    check(said == f"{torrent} created successfully\n", said)
    return torrent


def start_tracker(server, torrents):
    (server.images / "whitelist").write_text("".join(f"{info_hash_of(t)}\n" for t in torrents))
    for folder in (server.images, server.directory, server.stage.directory):
        folder.chmod(0o755)
    server.start("opentracker", "opentracker", "-p", "6969", "-d", server.images, "-w",
                 "/whitelist")


def pairs(torrents, paths):
    return [word for pair in zip(torrents, paths) for word in pair]


def leech(machine, script, torrents, *, terminal=None):
    """The started leecher. `terminal` is (columns, rows)."""
    words = [HERE / "today-leecher", "/var/log", script,
             *pairs(torrents, [f"/dev/{name}" for name in NAMES])]
    if terminal:
        line = " ".join(map(str, words))
        columns, rows = terminal
        words = ["script", "-qefc", f"stty cols {columns} rows {rows}; exec {line}", "/dev/null"]
    return machine.start("leecher", *words)


def deploys(stage, mode, script, terminal=None):
    target = disk(stage, "target", SIZES_MIB)
    server, machine, source, torrents = room(stage, dict(zip(NAMES, target)), mode)
    leecher = leech(machine, script, torrents, terminal=terminal)
    wait_until("ezio runs", 10, lambda: machine.processes("ezio"))
    leecher.expect(0, END_SECS)
    check(not machine.processes("ezio"), "ezio still runs on the machine")
    check_deployed(stage, target, clone(stage, source))
    noted = (server.directory / "var/log/ezio-seeder.pid").read_text().split()
    check(list(map(int, noted)) == server.processes("ezio"), "the noted number is another")
    server.run("kill", "-TERM", *noted)
    wait_until("the seed has ended", 10, lambda: not server.processes("ezio"))
    return leecher.output()


def todays_clonezilla_deploys_from_devices(stage):
    said = deploys(stage, "raw-dev", "ezio_cli.py")
    lines = re.findall(r"\[T: \d+\]\[P: +\d+%\]\[D: \d+\.\d\dGB/min\]\[U: [^]]*\]\[R: \d\]", said)
    check(lines and lines[-1].endswith("[R: 0]"), f"it says {said}")
    check(said.endswith("\n\nFinished. Exiting...\n"), f"it ends with {said[-99:]!r}")


def todays_clonezilla_deploys_from_slices_on_a_small_console(stage):
    """The terminal is smaller than the 80x24 of EZIO's own script."""
    said = deploys(stage, "img", "ezio_ui.py", (44, 8))
    check("/dev/sda1" in said and "Finished. Exiting..." in said, f"it says {said}")
    plain = re.sub(r"\033\[[0-9;]*[A-Za-z]", "", said)
    long = [line for line in re.split(r"[\r\n]+", plain) if "GB/min" in line and len(line) > 44]
    check(not long, f"longer than the terminal: {long}")


def stays_on_an_error(stage, targets, reason):
    """The other torrent is deployed. The script stays, and ends with a failure when it is told."""
    _, machine, _, torrents = room(stage, targets)
    leecher = leech(machine, "ezio_ui.py", torrents)
    wait_until("it stays on the error", END_SECS, lambda: (
        "This stays here" in leecher.output() or leecher.expect_running()))
    check(re.search(reason, leecher.output()), f"no reason is given:\n{leecher.tail()}")
    try:
        leecher.wait(4)
    except Failed:
        pass
    leecher.expect_running()
    script = machine.run("pgrep", "-f", "python3 .*/ezio_ui.py").strip()
    status = machine.start("strace", "strace", "-e", "trace=none", "-p", script)
    wait_until("strace is there", 5, lambda: "attached" in status.output())
    machine.run("kill", "-TERM", script)
    wait_until("the status is known", 5, lambda: "exited with" in status.output())
    check("exited with 1 " in status.output(), f"the status is another: {status.output()}")
    check_ext4(stage, targets["sda1"])


def a_refused_target_keeps_the_script_of_today_from_ending(stage):
    good, small = disk(stage, "target", (24, 8))
    stays_on_an_error(stage, {"sda1": good, "sda2": small}, r"/dev/sda2 holds .*, image needs ")


def a_target_that_fails_keeps_the_script_of_today_from_ending(stage):
    """A thin disk, for which there is no space."""
    good = disk(stage, "target", (24,))[0]
    place = full_file_system(stage, "thin")
    left = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
    (place / "rest").write_bytes(bytes(left - 3 * MIB))
    thin = stage.attach(place / "sparse")
    stays_on_an_error(stage, {"sda1": good, "sda2": thin},
                      r"cannot write /dev/sda2 .*No space left on device")


CASES = [
    todays_clonezilla_deploys_from_devices,
    todays_clonezilla_deploys_from_slices_on_a_small_console,
    a_refused_target_keeps_the_script_of_today_from_ending,
    a_target_that_fails_keeps_the_script_of_today_from_ending,
]
