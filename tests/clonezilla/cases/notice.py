"""Does Clonezilla's server hear that a machine is complete?"""

import re

from harness import check, wait_until
from machines import Machine
from torrent import Torrent

REPORT = " /dev/sda1 /dev/sda2, success, 4.721 mins;"


def server_and_client(stage):
    server, client = Machine(stage, "server", 1, {}), Machine(stage, "client", 2, {})
    mac = client.run("cat", "/sys/class/net/eth0/address").strip()
    return server, client, mac


def start_ocsmgrd(server):
    """Returns its log. With -n it writes no configuration for PXE."""
    daemon = server.start("ocsmgrd", "ocsmgrd", "-n")
    log = server.directory / "var/log/clonezilla/clonezilla-jobs.log"
    wait_until("ocsmgrd has begun", 5, lambda: log.exists() or daemon.expect_running())
    wait_until("ocsmgrd listens", 5, lambda: "6461" in server.run("ss", "-ltn"))
    return log


def ocsmgrd_of_debian_takes_the_report(stage):
    """It forgets three words of the report if the fields for UEFI are not there, so they must
    be."""
    server, client, mac = server_and_client(stage)
    # Twin: nobody listens.
    client.run("ocsmgrd-notify", "--blanks", "--delay", "0", server.address, REPORT, status=1)
    log = start_ocsmgrd(server)
    client.run("ocsmgrd-notify", "--blanks", "--delay", "0", server.address, REPORT)
    line = f"client {client.address} ({mac}) finished restoring. Stats:{REPORT}"
    wait_until("ocsmgrd has written the report", 5, lambda: line in log.read_text())


def the_line_of_todays_clonezilla_has_commas(stage):
    server, client, mac = server_and_client(stage)
    listener = server.start("nc", "nc", "-l", "-N", server.address, "7000")
    wait_until("nc listens", 5, lambda: "7000" in server.run("ss", "-ltn"))
    client.run("ocsmgrd-notify", "--delay", "0", f"{server.address}:7000", REPORT)
    listener.expect(0, 5)
    check(listener.output() == f"{client.address},{mac},,,,{REPORT}\n", listener.output())


def as_a_hook_it_reports_the_disks_to_the_server_of_the_job(stage):
    server, client, mac = server_and_client(stage)
    listener = server.start("nc", "nc", "-l", "-N", server.address, "6461")
    wait_until("nc listens", 5, lambda: "6461" in server.run("ss", "-ltn"))
    client.run("env", "SWARMDD_DISKS=/dev/vda /dev/vdb",
               f"SWARMDD_SERVER=http://{server.address}:8080", "busybox", "ash",
               f"{client.prefix}/bin/ocsmgrd-notify", seconds=40)
    listener.expect(0, 5)
    begin = f"{client.address},{mac},,,, /dev/vda /dev/vdb, success, "
    check(listener.output().startswith(begin) and listener.output().endswith(" mins;\n"),
          listener.output())


def the_script_that_waits_reports_when_all_is_done(stage):
    server, client, mac = server_and_client(stage)
    torrent = Torrent(stage.directory, stage.image("image", 1 << 20), 1 << 18)
    ezio = client.start("ezio", "ezio")
    # Twin: while nobody hears the report, it stays.
    words = ["ezio_cli.py", "-w", "0", "--notify-ocsmgrd", f"{server.address}:7000"]
    client.run("ezio_add_torrent.py", "-S", torrent.path, torrent.image)
    unheard = client.start("unheard", *words)
    wait_until("it stays", 40, lambda: "This stays here" in unheard.output())
    check("did not take the report" in unheard.output(), unheard.output())
    ezio.expect(0, 5)

    client.start("ezio", "ezio")
    listener = server.start("nc", "nc", "-l", "-N", server.address, "7000")
    wait_until("nc listens", 5, lambda: "7000" in server.run("ss", "-ltn"))
    client.run("ezio_add_torrent.py", "-S", torrent.path, torrent.image)
    client.run(*words)
    listener.expect(0, 5)
    expected = rf"{client.address},{mac},,,, {torrent.image}, success, \d\.\d\d\d mins;\n"
    check(re.fullmatch(expected, listener.output()), listener.output())


CASES = [
    ocsmgrd_of_debian_takes_the_report,
    the_line_of_todays_clonezilla_has_commas,
    as_a_hook_it_reports_the_disks_to_the_server_of_the_job,
    the_script_that_waits_reports_when_all_is_done,
]
