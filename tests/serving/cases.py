"""What must hold when `serve` meets a desk, a room and their accidents?"""
import base64
import gzip
import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import termios
import time

from desk import (ADDRESS, AGENT, COMPONENTS, INTERFACE, MACHINES, MARKER, TOP, Desk, OnTerminal,
                  check, harness, mac, plugged_in, running, wait_until)


# --- before anything starts


def mistakes_are_found_by_one_person(stage):
    desk = Desk(stage)
    for words, *options in (
            ("there is no interface room7; there is:", "--interface", "room7"),
            ("is not in the network of room0, which is 10.77.0.0/24",
             "--dhcp", "10.77.1.100,10.77.1.120"),
            ("no option --grow-lst", "--args", "--grow-lst"),
            ("'rebot' is not one of", "--then", "rebot"),
            ("neither a device below /dev nor a selector", "--target", "sda"),
            ("characters, and the kernel takes", "--append", "x=" + "y" * 2000),
            ("there is no hook nosuch", "--hook", "nosuch")):
        said = desk.run(*options, status=2)
        check(words in said, f"{options}: {said}")
        check(not desk.state.exists(), f"{options}: {desk.state} was made")


def what_cannot_work_here_is_explained(stage):
    desk = Desk(stage)
    with socket.create_server((ADDRESS, 80)), socket.create_server((ADDRESS, 6969),
                                                                   reuse_port=True):
        said = desk.run(status=1)
    check(f"port 80 is taken by python3 (pid {os.getpid()}): --http-port 8080, or stop it" in said,
          said)
    check(f"port 6969 is taken by python3 (pid {os.getpid()}): --tracker-port" in said, said)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 67))
        said = desk.run("--proxy-dhcp", status=1)
    check(f"UDP port 67 is taken by python3 (pid {os.getpid()}): --no-dhcp" in said, said)
    desk.image = stage.path("no-such.img")
    check("cannot read the image" in desk.run(status=1), "a missing image")
    os.mkfifo(stage.path("fifo.img"))
    desk.image = stage.path("fifo.img")
    check("no torrent of" in desk.run(status=1), "a FIFO")
    desk.image = stage.path("packed.img")
    desk.image.write_bytes(gzip.compress(os.urandom(1 << 20)))
    said = desk.run(status=1)
    check("no torrent of" in said and "gzip" in said, said)
    desk.check_nothing_left([])


def a_folder_of_the_site_is_left_alone(stage):
    desk = Desk(stage)
    (desk.state / "www").mkdir(parents=True)
    (desk.state / "www/index.html").write_text("of the site")
    check("not a state directory of serve" in desk.run(status=1), "no refusal")
    check((desk.state / "www/index.html").read_text() == "of the site", "it is gone")
    check(os.listdir(desk.state) == ["www"], os.listdir(desk.state))


def a_folder_that_nginx_cannot_enter_is_explained(stage):
    desk = Desk(stage)
    stage.path("closed").mkdir()
    stage.path("closed").chmod(0o700)
    desk.state = stage.path("closed") / "state"
    check("a folder above it is closed" in desk.run(status=1), "no explanation")
    desk.check_nothing_left([])


def what_the_disk_does_not_take_is_explained(stage):
    desk = Desk(stage)
    said = desk.run("--dir", "/proc/no-such", status=1)
    check("serve: /proc/no-such: No such file" in said, said)
    small = stage.path("small")
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=755", "none", small], check=True)
    stage.undo.append(["umount", small])
    stage.path("boot-file").write_bytes(b"x" * (1 << 20))
    desk.state = small / "state"
    said = desk.run(status=1)
    check("No space left on device" in said and "Traceback" not in said, said)


def nobody_reads_it_to_its_end(stage):
    desk = Desk(stage)
    for option in ("--help", "--print-job"):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run([str(word) for word in desk.command(option)], stdout=writer,
                               stderr=subprocess.PIPE, check=False)
        os.close(writer)
        check((ended.returncode, ended.stderr) == (-signal.SIGPIPE, b""), ended)


def ctrl_c_ends_the_checks(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command("--agent", desk.waiting_agent("get")))
    wait_until("the agent is asked", 10, stage.path("asked").exists)
    serve.press(b"\x03")
    serve.expect(-signal.SIGINT, 10)
    check("Traceback" not in serve.output, serve.output)


# --- a job


def peers_are_in_the_subnets_of_the_server(stage):
    """Those of its interface, or of --allow. Machines of others are named."""
    desk = Desk(stage)
    subprocess.run(["ip", "address", "add", "10.77.9.1/28", "dev", INTERFACE], check=True)
    stage.undo.append(["ip", "address", "delete", "10.77.9.1/28", "dev", INTERFACE])
    for options, words in [([], "--allow 10.77.0.0/24 --allow 10.77.9.0/28 "),
                           (["--allow", "10.77.0.1/32"], "--allow 10.77.0.1/32 "),
                           (["--allow", "any"], "")]:
        serve = desk.start(*options)
        for place, text in [("machines", (desk.state / "cmdline").read_text()),
                            ("seed", desk.command_of("seeder"))]:
            check(words in text and ("--allow" in text) == bool(words), f"{place}: {text}")
        desk.say(1, "booted")
        desk.wait_row(1, state="booted")
        sentence = f"is at {MACHINES[1]}, which no --allow contains: 10.77.0.1/32"
        if "10.77.0.1/32" in options:
            wait_until("it names a machine outside", 10, lambda: sentence in serve.output())
        check((sentence in serve.output()) == ("10.77.0.1/32" in options), serve.output())
        os.kill(serve.pid, signal.SIGKILL)
        serve.wait(10)


def a_room_without_a_tracker_ends_with_its_seed(stage):
    desk = Desk(stage)
    serve = desk.start("--no-tracker", "--expect", "2")
    words = re.search('swarmdd.args="(.*)"', (desk.state / "cmdline").read_text())[1].split()
    check("--peer" in words and not harness.can_connect(6969, ADDRESS), f"a tracker: {words}")
    torrent = next((desk.state / "www").glob("*.torrent"))
    agents = []
    for number in (1, 2):
        report = desk.url(f"report?job={desk.job()}&mac={mac(number)}")
        agents.append(stage.get(*words, "--report", report, desk.url(torrent.name),
                                stage.path(f"{number}.disk")))
    serve.expect(0, 40)
    check("stopping the seed: complete machines leave" in serve.output(), serve.tail())
    for number, agent in enumerate(agents, 1):
        agent.expect(0, 5)
        check(stage.path(f"{number}.disk").read_bytes() == desk.image.read_bytes(), "its disk")
    desk.check_nothing_left([])


def two_machines_are_imaged_and_released(stage):
    desk = Desk(stage)
    stage.path("room").write_text(f"{mac(1)} lab-1\n{mac(2)} lab-2 args=--fresh\n{mac(3)} lab-3\n")
    serve = desk.start("--machines", stage.path("room"))
    pids = desk.pids()
    torrent = next((desk.state / "www").glob("*.torrent"))
    agents = []
    for number in (1, 2):
        # The agents speak from the address of the server.
        script = desk.boot(number, ADDRESS)
        check(f"swarmdd.hostname=lab-{number} " in script, script)
        check(("--fresh" in script) == (number == 2), script)
        report = desk.url(f"report?job={desk.job()}&mac={mac(number)}")
        agents.append(stage.get("--tracker-grace", 1, "--report", report, desk.url(torrent.name),
                                stage.path(f"{number}.disk")))
    for number, agent in enumerate(agents, 1):
        agent.wait_state("seeding", 20)
        desk.wait_row(number, state="seeding", name=f"lab-{number}", complete=True)
    check("sanboot" in desk.boot(1, ADDRESS), "a machine that is done is deployed again")
    os.kill(serve.pid, signal.SIGTERM)
    for number, agent in enumerate(agents, 1):
        agent.expect(0, 20)
        check(stage.path(f"{number}.disk").read_bytes() == desk.image.read_bytes(), "its disk")
    serve.expect(1, 20)
    results = desk.results()
    check([results[mac(number)]["result"] for number in (1, 2)] == ["done", "done"], results)
    check("missing" in results[mac(3)]["result"], results)
    check("2 complete, 0 failed" in serve.output() and "1 missing (lab-3)" in serve.output(),
          serve.output())
    desk.check_nothing_left(pids)


def a_job_that_is_done_says_so(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "1")
    desk.say(1, "done")
    serve.expect(0, 20)
    (desk.state / "results.json").unlink()
    said = desk.run("--expect", "1", status=0)
    check("this job is done already" in said and "--again all" in said, said)
    # The first one might have been killed before it came to this.
    check("1 complete" in said and desk.results()[mac(1)]["result"] == "done", said)
    status = subprocess.run([TOP / "scripts/status", desk.state], capture_output=True, text=True,
                            check=True)
    check(status.stderr == "status: the job has ended\n", status.stderr)
    # Asked for, it starts; only this machine is imaged.
    serve = desk.start("--expect", "2", "--again", mac(1))
    check("kernel " in desk.boot(1), "it is not imaged again")
    desk.say(2, "done")
    desk.wait_row(2, state="done")
    desk.say(1, "booted")
    desk.say(1, "done")
    serve.expect(0, 20)


def again_speaks_to_a_job_that_runs(stage):
    desk = Desk(stage)
    desk.start("--onfail", "wait")
    desk.say(1, "done")
    desk.say(2, "failed", error="no disk")
    desk.wait_row(2, state="failed", error="no disk")
    check("sanboot" in desk.boot(1), "not done")
    check(desk.get(f"retry/{mac(2)}", 2)[0] == 404, "it may try already")
    said = desk.run("--again", mac(2), status=0, images=False)
    check("imaged again" in said, said)
    wait_until("the machine is told", 10, lambda: desk.get(f"retry/{mac(2)}", 2)[0] == 200)
    desk.say(2, "booted")
    said = desk.run("--again", mac(2), status=0, images=False)
    check(f"{mac(2)}: nothing to do again yet, it is booted" in said, said)
    wait_until("only once", 10, lambda: desk.get(f"retry/{mac(2)}", 2)[0] == 404)
    check("sanboot" in desk.boot(1), "the other one is imaged again")
    for wrong in ("lab-9", mac(9)):
        check("there is no such machine" in desk.run("--again", wrong, status=2, images=False),
              f"a wrong name: {wrong}")


def again_at_the_end_promises_nothing_now(stage):
    desk = Desk(stage)
    serve = desk.start("--onfail", "wait", "--grace", "30")
    desk.say(1, "seeding")
    desk.say(2, "failed", error="no disk")
    desk.wait_row(2, state="failed")
    os.kill(serve.pid, signal.SIGTERM)
    wait_until("it ends", 20, lambda: "stopping the tracker" in serve.output())
    said = desk.run("--again", mac(2), status=0, images=False)
    check("after this job has ended" in said, said)
    desk.wait_row(2, again=True)
    check(desk.get(f"retry/{mac(2)}", 2)[0] == 404, "it begins while nobody can serve it")


def a_second_serve_is_told_about_the_first(stage):
    desk = Desk(stage)
    serve = desk.start()
    said = desk.run(status=1)
    check(f"pid {serve.pid}, since" in said and f"kill {serve.pid}" in said, said)
    serve.expect_running()


def two_jobs_at_once(stage):
    first, second = Desk(stage), Desk(stage, "second")
    first.start()
    second.port = 8080
    second.start("--http-port", "8080", "--tracker-port", "6970", "--seed-port", "6882",
                 "--target", "disk:size=1M..")
    check(first.job() != second.job(), "the same job")
    first.say(1, "done")
    second.say(1, "downloading")
    first.wait_row(1, state="done")
    second.wait_row(1, state="downloading")
    check("http://10.77.0.1:8080/kernel" in second.boot(1), second.boot(1))
    check("sanboot" in first.boot(1), first.boot(1))


def a_port_is_taken_while_images_are_hashed(stage):
    desk = Desk(stage)
    serve = stage.start("serve", desk.command("--agent", desk.waiting_agent("make")))
    wait_until("the image is hashed", 10, stage.path("asked").exists)
    with socket.create_server((ADDRESS, 6969), reuse_port=True):
        stage.path("go").touch()
        serve.expect(1, 20)
    check(f"port 6969 is taken by python3 (pid {os.getpid()})" in serve.output(), serve.output())
    desk.check_nothing_left([])


def only_used_blocks_are_sent(stage):
    """A file system is made over data of an earlier one."""
    desk = Desk(stage)
    desk.image = stage.image("ext4.img", 32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", desk.image], check=True)
    sizes = []
    for words, *options in (
            ("of 32 MiB used",),
            (None, "--no-used-map"),
            ("ext4.img: FS was not cleanly unmounted",)):
        if len(sizes) == 2:
            subprocess.run(["debugfs", "-w", "-R", "ssv state 0", desk.image], check=True,
                           capture_output=True)
        desk.start("--used-ranges", *options)
        [torrent] = (desk.state / "www").glob("*.torrent")
        info = subprocess.run([AGENT, "info", torrent], capture_output=True, text=True, check=True)
        sizes.append(int(re.search(r"^size: (\d+)", info.stdout, re.M)[1]))
        said = desk.serve.output()
        check(words in said if words else " used" not in said, said)
        check(not list(desk.state.glob("*.map")), "the map is left")
        desk.serve.end()
    check(sizes[0] < 8 << 20 and sizes[1:] == [32 << 20] * 2, f"described are {sizes}")


def half_of_it_is_words(path):
    """The random image, so that it can be packed."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"words " * (path.stat().st_size // 12))


def an_image_is_packed_once_and_served_so(stage):
    desk = Desk(stage)
    half_of_it_is_words(desk.image)
    packed = stage.path("lab.img.lz4")
    serve = desk.start("--pack", "--expect", "1")
    check("packing" in serve.output(), serve.output())
    check(str(packed) in desk.command_of("seeder"), desk.command_of("seeder"))
    torrent = next((desk.state / "www").glob("*.torrent"))
    report = desk.url(f"report?job={desk.job()}&mac={mac(1)}")
    agent = stage.get("--tracker-grace", 1, "--report", report, desk.url(torrent.name),
                      stage.path("1.disk"))
    agent.wait_state("seeding", 20)
    fetched = agent.reports()[-1]["fetched_wire"]
    check(fetched < 0.6 * desk.image.stat().st_size, f"{fetched} bytes came")
    serve.expect(0, 20)
    agent.expect(0, 5)
    check(stage.path("1.disk").read_bytes() == desk.image.read_bytes(), "its disk")
    restored = subprocess.run(["lz4", "-dcq", packed], capture_output=True, check=True).stdout
    check(restored == desk.image.read_bytes(), "lz4 restores something else")
    before = packed.stat()
    for is_changed in (False, True):
        if is_changed:
            half_of_it_is_words(desk.image)
        desk.start("--pack", "--again", "all")
        check(("packing" in desk.serve.output()) == is_changed, desk.serve.output())
        check((packed.stat().st_ino != before.st_ino) == is_changed, f"changed: {is_changed}")
        desk.serve.end()


def ctrl_c_ends_the_packing_and_leaves_nothing(stage):
    desk = Desk(stage)
    programs = stage.path("programs")
    programs.mkdir()
    # The image is one part for it.
    (programs / "lz4").write_text(f"#!/bin/sh\n: > {stage.path('packing')}\n"
                                  f"until [ -e {stage.path('go')} ]; do sleep 0.1; done\n"
                                  'exec /usr/bin/lz4 "$@"\n')
    (programs / "lz4").chmod(0o755)
    before = set(stage.directory.iterdir()) | {stage.path("packing"), stage.path("go")}
    serve = OnTerminal(stage, ["/usr/bin/env", f"PATH={programs}:{os.environ['PATH']}",
                               *desk.command("--pack")])
    wait_until("it packs", 10, stage.path("packing").exists)
    check(any(path.name.startswith(".lab.img.lz4.") for path in stage.directory.iterdir()),
          "nothing is begun")
    serve.press(b"\x03")
    stage.path("go").touch()
    serve.expect(130, 10)
    check("Traceback" not in serve.output, serve.output)
    left = set(stage.directory.iterdir()) - before - {desk.state}
    check(not left, f"{left} are left")
    desk.check_nothing_left([])


# --- accidents at the server


def a_serve_is_killed_while_it_hashes(stage):
    desk = Desk(stage)
    serve = stage.start("serve", desk.command("--agent", desk.waiting_agent("make")))
    wait_until("the image is hashed", 10, stage.path("asked").exists)
    make = wait_until("it is remembered", 10, lambda: desk.pid_of("make"))
    os.kill(serve.pid, signal.SIGKILL)
    serve.wait(5)
    check(running([make]), "it has ended by itself")
    desk.start()
    check(not running([make]), "it still writes")


def a_component_dies_while_the_job_ends(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "1", "--grace", "30")
    desk.say(1, "seeding")
    wait_until("the end", 10, lambda: "stopping the tracker" in serve.output())
    for _ in range(3):
        desk.kill("nginx")
    os.kill(desk.pid_of("nginx"), signal.SIGKILL)
    wait_until("a word", 10, lambda: "nginx has died 4 times" in serve.output())

    def has_ended():
        # The second one waits for no machine; one that comes too soon is none.
        return not serve.is_running() or os.kill(serve.pid, signal.SIGTERM)
    wait_until("serve ends", 10, has_ended)
    serve.expect(0, 1)
    check("1 complete" in serve.output(), serve.output())
    check(desk.results()[mac(1)]["complete"], desk.results())


def a_component_that_dies_is_started_again(stage):
    desk = Desk(stage)
    serve = desk.start()
    for component in COMPONENTS:
        desk.kill(component)
        words = f"{component} died and was started again (1 of 3): signal 9"
        wait_until(words, 10, lambda: words in serve.output())
    wait_until("nginx serves", 10, lambda: desk.get("boot.ipxe")[0] == 200)
    check(desk.say(1, "downloading") == 204, "no report")
    desk.wait_row(1, state="downloading")
    check(len(desk.page()["messages"]) >= 3, "the page does not say it")


def a_component_that_dies_for_ever_ends_the_job(stage):
    desk = Desk(stage)
    serve = desk.start()
    pids = desk.pids()
    for _ in range(4):
        desk.kill("opentracker")
    serve.expect(1, 20)
    check("opentracker has died 4 times: signal 9" in serve.output(), serve.output())
    check("0 complete, 0 failed" in serve.output(), "no table")
    desk.check_nothing_left(pids)


def a_killed_serve_goes_on(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "2")
    desk.say(1, "seeding")
    desk.say(2, "downloading", percent=50)
    desk.wait_row(1, complete=True)
    os.kill(serve.pid, signal.SIGKILL)
    serve.wait(5)
    old = desk.pids()
    check(all(harness.can_connect(port, ADDRESS) for port in (80, 6969)), "its components ended")
    # nginx still writes the log.
    desk.say(3, "booted")
    serve = desk.start("--expect", "2")
    for component, pid in zip(COMPONENTS, old):
        check(f"ending what a killed serve has left: {component} (pid {pid}" in serve.output(),
              serve.output())
    check(not running(old), "remains still run")
    check("sanboot" in desk.boot(1), "imaged twice")
    desk.wait_row(2, state="downloading", percent=50)
    desk.wait_row(3, state="booted")
    desk.say(1, "done")
    desk.say(2, "done")
    serve.expect(0, 20)
    check({desk.results()[mac(number)]["result"] for number in (1, 2)} == {"done"}, "results")


def a_killed_serve_images_nobody_twice(stage):
    desk = Desk(stage)
    desk.start("--expect", "2")
    desk.say(1, "done")
    desk.say(2, "done")
    desk.serve.expect(0, 20)
    again = ("--expect", "2", "--again", "all")
    serve = desk.start(*again)
    desk.say(1, "booted")
    desk.say(1, "seeding")
    desk.wait_row(1, state="seeding", again=False)
    os.kill(serve.pid, signal.SIGKILL)
    serve.wait(5)
    serve = desk.start(*again)
    check("sanboot" in desk.boot(1), "imaged twice")
    check("kernel " in desk.boot(2), "not imaged again")
    # When the job has ended, it is a new wish.
    desk.say(2, "done")
    desk.say(1, "done")
    serve.expect(0, 20)
    desk.start(*again)
    check("kernel " in desk.boot(1), "not imaged again")


def a_torn_log_is_read(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "2")
    desk.say(1, "done")
    desk.wait_row(1, state="done")
    os.kill(serve.pid, signal.SIGKILL)
    serve.wait(5)
    with open(desk.state / "log/room.log", "ab") as log:
        log.write(b'{"time":1795986631.9,"kind":"report","addr')
    desk.start("--expect", "2")
    check("sanboot" in desk.boot(1), "the log is lost")
    desk.say(2, "downloading")
    desk.wait_row(2, state="downloading")


def a_full_log_of_another_day_is_another_job(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "1")
    old = desk.job()
    desk.say(1, "done")
    serve.expect(0, 20)
    stage.image("lab.img", 3 << 20)
    desk.start("--expect", "1")
    check(desk.job() != old, "another image is the same job")
    check("kernel " in desk.boot(1), "a machine is done that never saw this image")
    # An agent of yesterday.
    desk.post(f"report?job={old}&mac={mac(1)}", b'{"state":"done","target":"disk:auto"}',
              MACHINES[1])
    check("kernel " in desk.boot(1), "a report of another job counts")


def warnings_of_dnsmasq_are_shown(stage):
    desk = Desk(stage)
    (desk.state / "log").mkdir(parents=True)
    (desk.state / MARKER).touch()
    # The only address has a tenant.
    until = int(time.time()) + 3600
    (desk.state / "leases").write_text(f"{until} 52:54:00:77:00:01 10.77.0.100 * *\n")
    serve = desk.start("--dhcp", "10.77.0.100,10.77.0.100")
    subprocess.run([TOP / "qemu-tests/boot-client", plugged_in(), ADDRESS, "bios"],
                   capture_output=True, check=False)
    wait_until("the warning", 15, lambda: "no address available" in serve.output())
    desk.kill("dnsmasq")
    wait_until("it runs again", 10, lambda: "dnsmasq died and was started" in serve.output())


# --- signals and terminals


def sigterm_ends_in_good_order(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "2")
    pids = desk.pids()
    desk.say(1, "downloading", percent=50)
    desk.wait_row(1, state="downloading")
    os.kill(serve.pid, signal.SIGTERM)
    serve.expect(1, 20)
    check("0 complete, 0 failed, 1 unfinished" in serve.output(), serve.output())
    check("somebody ended it" in serve.output(), serve.output())
    desk.check_nothing_left(pids)


def a_second_signal_waits_for_no_machine(stage):
    desk = Desk(stage)
    serve = desk.start("--expect", "2", "--grace", "60")
    pids = desk.pids()
    desk.say(1, "seeding")
    desk.wait_row(1, state="seeding")
    os.kill(serve.pid, signal.SIGTERM)
    wait_until("it waits", 10, lambda: "stopping the tracker" in serve.output())
    time.sleep(1.5)
    serve.expect_running()
    os.kill(serve.pid, signal.SIGTERM)
    serve.expect(1, 10)
    check("1 complete" in serve.output(), "no table")
    desk.check_nothing_left(pids)


def ctrl_c_asks_first(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command())
    desk.wait_ready(serve)
    pids = desk.pids()
    serve.press(b"\x03")
    serve.wait_for("end the job now (e), or keep going (k)?")
    serve.press(b"k")
    desk.say(1, "downloading")
    desk.wait_row(1, state="downloading")
    serve.expect_running()
    # A child would have died of the first Ctrl-C.
    check(desk.pids() == pids, "a component has died")
    serve.output = ""
    serve.press(b"\x03")
    serve.wait_for("end the job now (e), or keep going (k)?")
    serve.press(b"e")
    serve.expect(1, 20)
    check("1 unfinished" in serve.output, serve.output)
    local = termios.tcgetattr(serve.terminal)[3]
    check(local & termios.ECHO and local & termios.ICANON, "the terminal is not as it was")
    desk.check_nothing_left(pids)


def a_second_ctrl_c_ends(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command())
    desk.wait_ready(serve)
    pids = desk.pids()
    serve.press(b"\x03")
    serve.wait_for("end the job now (e)")
    serve.press(b"\x03")
    serve.expect(0, 20)
    check("0 complete, 0 failed" in serve.output, serve.output)
    desk.check_nothing_left(pids)


def the_quit_key_leaves_nothing(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command())
    desk.wait_ready(serve)
    pids = desk.pids()
    serve.press(b"\x1c")
    serve.expect(0, 20)
    check("0 complete, 0 failed" in serve.output, serve.output)
    desk.check_nothing_left(pids)


def a_second_ctrl_c_ends_the_lingering(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command("--expect", "1", "--dhcp", "10.77.0.100,10.77.0.120"))
    desk.wait_ready(serve)
    desk.say(1, "done")
    serve.wait_for("stopping the tracker")
    wait_until("the machine is looked at", 10, lambda: desk.row(1))
    serve.output = ""
    serve.press(b"\x03")
    serve.wait_for("end the job now (e)")
    serve.press(b"\x03")
    serve.expect(0, 10)
    check("1 complete" in serve.output, serve.output)


def a_lost_terminal_ends_nothing(stage):
    desk = Desk(stage)
    serve = OnTerminal(stage, desk.command("--expect", "1"))
    desk.wait_ready(serve)
    pids = desk.pids()
    serve.hang_up()
    desk.say(1, "downloading")
    desk.wait_row(1, state="downloading")
    serve.expect_running()
    check(desk.pids() == pids, "a component has died")
    desk.say(1, "done")
    wait_until("serve ends", 20, lambda: not serve.is_running())
    check(serve.status == 0, f"status {serve.status}")
    log = (desk.state / "log/serve.log").read_text()
    check("1 complete, 0 failed" in log, log)
    desk.check_nothing_left(pids)


def a_closed_pipe_ends_nothing(stage):
    desk = Desk(stage)
    reader, writer = os.pipe()
    serve = subprocess.Popen([str(word) for word in desk.command("--expect", "1")],
                             stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    try:
        wait_until("serve is ready", 20, lambda: (desk.state / "cmdline").exists())
        pids = desk.pids()
        desk.say(1, "done")
        check(serve.wait(20) == 0, f"status {serve.returncode}")
    finally:
        serve.kill()
        serve.wait()
    desk.check_nothing_left(pids)


# --- hostile words


def a_liar_spoils_only_its_own_row(stage):
    desk = Desk(stage)
    serve = desk.start()
    desk.say(1, "downloading", percent=10)
    desk.wait_row(1, state="downloading")
    # Another address speaks for it.
    desk.say(1, "done", address=MACHINES[9])
    desk.say(9, "failed", error="<script>alert(1)</script>\u001b[2J" + "x" * 10000)
    desk.wait_row(9, state="failed")
    desk.wait_row(1, state="downloading", percent=10)
    check("claimed by" in " ".join(desk.row(1)["flags"]), desk.row(1))
    check("kernel " in desk.boot(1), "a liar decides what another machine boots")
    check("\x1b" not in serve.output(), "a report reaches the terminal as a command")
    check(len(desk.row(9)["error"]) <= 1000, "too long")


def floods_and_halves_do_no_harm(stage):
    desk = Desk(stage)
    serve = desk.start()
    path = f"report?job={desk.job()}&mac={mac(9)}"
    check(desk.post(path, b"x" * (65 << 10), MACHINES[9]) == 413, "65 KiB are taken")
    for body in (b"[" * 60000, b"\xff" * 60000, b'{"state":' + b"9" * 5000 + b"}", b"", b"null"):
        desk.post(path, body, MACHINES[9])
    halves = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    for _ in range(1500):
        half = socket.create_connection((ADDRESS, 80), source_address=(MACHINES[9], 0))
        half.sendall(f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        halves.append(half)
    for number in range(300):
        desk_connection = socket.create_connection((ADDRESS, 80))
        desk_connection.sendall(f"GET /boot/{mac(9)}?{number} HTTP/1.0\r\n\r\n".encode())
        halves.append(desk_connection)
    desk.say(1, "downloading")
    desk.wait_row(1, state="downloading")
    for half in halves:
        half.close()
    serve.expect_running()
    for path in ("../serve.pid", "log/room.log", "%2e%2e/log/room.log", "boot/../../log/room.log"):
        check(desk.get(path)[0] in (400, 403, 404), f"{path} is served")


def a_flood_does_not_fill_the_disk(stage):
    """As fast as one machine can, in words that grow in the log."""
    desk = Desk(stage)
    desk.start()
    log = desk.state / "log/room.log"
    path = f"report?job={desk.job()}&mac={mac(9)}"
    check(desk.post(path, b'{"state":"x","error":"' + b"\\u0001" * 2000 + b'"}', MACHINES[9])
          == 204, "not taken")
    # nginx answers first and logs then.
    wait_until("the report is in the log", 10, lambda: b"u0001" in log.read_bytes())
    size = log.stat().st_size
    desk.post(path, b'{"error":"no JSON' + b"\x01" * 10000 + b'"}', MACHINES[9])
    link = http.client.HTTPConnection(ADDRESS, timeout=10, source_address=(MACHINES[9], 0))
    body = b'{"state":"booted","error":"' + b'\\"' * 6000 + b'"}'
    until, count = time.monotonic() + 3, 0
    while time.monotonic() < until:
        link.request("POST", "/" + path, body)
        link.getresponse().read()
        count += 1
    check(count > 400, f"only {count} requests: this proves nothing")
    grown = log.stat().st_size - size
    check(grown < 300 * 32 << 10, f"{grown} bytes of {count} requests")
    desk.say(1, "downloading")
    desk.wait_row(1, state="downloading")
    check(b"no JSON" not in log.read_bytes(), "what is no JSON is kept")


def last_words_reach_the_server(stage):
    desk = Desk(stage)
    desk.start()
    desk.say(1, "failed", error="no disk")
    text = "--- init and agent\n[1.0] swarmdd: no disk \u001b[2J\n"
    body = base64.encodebytes(gzip.compress(text.encode()))
    path = f"words?job={desk.job()}&mac={mac(1)}"
    check(desk.post(path, body, MACHINES[1]) == 204, "not taken")
    file = f"words/{mac(1)}.txt"
    wait_until("the words are there", 10, lambda: desk.get(file)[0] == 200)
    check(desk.get(file)[1] == text.replace("\x1b", "?").rstrip("\n") + "\n"
          or "no disk" in desk.get(file)[1], desk.get(file))
    check("\x1b" not in desk.get(file)[1], "a command for a terminal")
    head = subprocess.run(["curl", "--silent", "--head", "--noproxy", "*", desk.url(file)],
                          capture_output=True, text=True, check=True).stdout
    check("text/plain" in head and "nosniff" in head and "no-store" in head, head)
    # Nobody else's, and no bomb.
    bomb = gzip.compress(b"x" * (64 << 20))
    check(desk.post(path, bomb, MACHINES[9]) == 204, "not taken")
    check(desk.post(path, b"x" * (257 << 10), MACHINES[9]) == 413, "257 KiB are taken")
    desk.wait_row(1, state="failed")
    check("no disk" in desk.get(file)[1], "another machine replaced them")


CASES = [
    mistakes_are_found_by_one_person, what_cannot_work_here_is_explained,
    what_the_disk_does_not_take_is_explained, nobody_reads_it_to_its_end, ctrl_c_ends_the_checks,
    a_folder_of_the_site_is_left_alone, a_folder_that_nginx_cannot_enter_is_explained,
    peers_are_in_the_subnets_of_the_server, a_room_without_a_tracker_ends_with_its_seed,
    two_machines_are_imaged_and_released, a_job_that_is_done_says_so,
    again_speaks_to_a_job_that_runs, again_at_the_end_promises_nothing_now,
    a_second_serve_is_told_about_the_first, two_jobs_at_once,
    a_port_is_taken_while_images_are_hashed, only_used_blocks_are_sent,
    an_image_is_packed_once_and_served_so, ctrl_c_ends_the_packing_and_leaves_nothing,
    a_serve_is_killed_while_it_hashes,
    a_component_dies_while_the_job_ends, a_second_ctrl_c_ends_the_lingering,
    a_component_that_dies_is_started_again, a_component_that_dies_for_ever_ends_the_job,
    warnings_of_dnsmasq_are_shown, a_killed_serve_goes_on,
    a_killed_serve_images_nobody_twice, a_torn_log_is_read,
    a_full_log_of_another_day_is_another_job,
    sigterm_ends_in_good_order, a_second_signal_waits_for_no_machine, ctrl_c_asks_first,
    the_quit_key_leaves_nothing, a_second_ctrl_c_ends, a_lost_terminal_ends_nothing,
    a_closed_pipe_ends_nothing,
    a_liar_spoils_only_its_own_row, floods_and_halves_do_no_harm,
    a_flood_does_not_fill_the_disk, last_words_reach_the_server,
]
