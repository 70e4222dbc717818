"""In which order does it all happen?

Check everything that can be known; describe the images; start the components; watch the room; stop
the tracker, which releases the machines; print and keep the results.
"""
from __future__ import annotations

import ipaddress
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import (again, boot, checks, components, dhcp, log, neighbours, options, packing, page, past,
               results, shelving, wake, words)
from . import state as states
from .boot import Plan, Served
from .claims import neighbour_entries
from .components import Broken, Component
from .job import Image, Job, Mistake, is_address
from .output import Output
from .past import Past
from .row import Row
from .shelf import Shelf
from .shelf_cache import Cache
from .signals import QUESTION, Signals, Wish
from .state import Refused, State
from .torrents import make_torrents

# How often everybody is looked at.
POLL_SECS = 1.0
# How long after the grace time a machine may need to leave: it asks the tracker once more, flushes
# its disk, and sends its last report.
LEAVE_SECS = 30
# Hooks run after that: a file system grows, a large overlay is fetched.
HOOKS_SECS = 300
# A machine that seeds reports every 30 s. One that is silent for longer was switched off.
SILENT_SECS = 45
# A packet may be lost, and a machine may have been on its way down: so twice.
WAKE_SECS = (0.0, 30.0)
TIDY_SECS = 10.0
MESSAGES_MAX = 20
ALL_ACCOUNTED = "every machine that was expected is complete or has failed"


class Interrupted(Exception):
    """Somebody wants the end before the job has begun."""


@dataclass
class Room:
    """A job that runs."""

    plan: Plan
    state: State
    past: Past
    signals: Signals
    output: Output
    history: page.History
    # A failure before this time is tried again: the job had ended since, and somebody wants more.
    tried_since: float
    # Of a Clonezilla image: what machines fetch besides.
    table: shelving.Table | None = None
    components: list[Component] = field(default_factory=list)
    # As they were when the log was read last.
    rows: list[Row] = field(default_factory=list)
    # "running", "ending", "ended", and why it has ended.
    phase: str = "running"
    words: str = ""
    messages: list[tuple[float, str]] = field(default_factory=list)
    # What was written, so that only changes are written.
    scripts: dict[str, str] = field(default_factory=dict)
    retries: dict[str, str] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    # Bytes a second and in all, for each torrent.
    seed: dict[str, tuple[int, int]] = field(default_factory=dict)
    tidied_at: float = 0.0
    # How many machines that are not on the list were named.
    turned_away: int = 0

    @property
    def job(self) -> Job:
        return self.plan.job


def main(arguments: Sequence[str]) -> int:
    # The components drop their privileges and must still be able to read what we write for them.
    os.umask(0o022)
    command = options.parse_or_exit(arguments)
    try:
        return run(command)
    except Mistake as mistake:
        complain(f"{mistake}\n`serve --help` lists the options")
        return 2
    except (Refused, Broken) as refusal:
        complain(str(refusal))
        return 1
    except Interrupted:
        return 130
    except OSError as error:
        # Such as a full disk, while files are copied.
        complain(f"{error.filename2 or error.filename}: {error.strerror}")
        return 1


def complain(text: str) -> None:
    try:
        print("\n".join(f"serve: {line}" for line in text.splitlines()), file=sys.stderr)
    except OSError:
        pass  # the terminal is gone; log/serve.log has it if there is one


def run(command: options.Command) -> int:
    if command.print_job:
        print(options.job_text(command.job), end="")
        return 0
    if not command.job.images:
        complain(again.ask(again.find_state(command.job.dir), command.again))
        return 0
    job = checks.complete(command.job)
    root = Path(job.dir) if job.dir else states.default_root(job.address, job.http_port)
    states.refuse_foreign(root)
    state = State(root)
    if command.again and states.running_serve(state):
        complain(again.ask(state, command.again))
        return 0
    states.refuse_running(state)
    shelf = shelving.find(job)
    checks.check(shelving.expand(job, shelf), states.remaining_pids(state))
    state = states.open_state(root)
    lock = states.lock(state)
    try:
        return serve(job, shelf, state, command.again)
    finally:
        states.unlock(lock)


def serve(job: Job, shelf: Shelf | None, state: State, wanted_again: tuple[str, ...]) -> int:
    signals = Signals()
    output = Output(state)
    started: list[Component] = []
    cache = shelving.cache_of(job)
    table = None
    try:
        if shelf:
            job, table = unpack(job, shelf, cache, signals, output)
        if job.pack:
            job = pack(job, signals, output)
        # Before the remains of a killed `serve` are ended: machines leave if they miss the tracker
        # for longer than the grace time, and the log of an hour of 400 machines takes 9 s.
        served = make_torrents(job, state, output.say, output.progress, lambda: not signals.wish)
        interrupted(signals)
        # Images take minutes to hash. Somebody may have taken a port since.
        checks.check_ports(job, states.remaining_pids(state))
        story = past.open_past(job, [image.torrent() for image in served], state,
                               table.plan if table else "")
        end_remains(state, output)
        room = open_room(story, state, served, table, signals, output, wanted_again)
        if all_done_already(room):
            # The `serve` that saw it may have been killed before it kept the results.
            return 0 if finish(room, ALL_ACCOUNTED) else 1
        prepare_files(room)
        start_components(room, started)
        print_what_to_boot(room)
        why, is_broken = watch_until_end(room)
        release(room)
        is_good = finish(room, why)
        return 0 if is_good and not is_broken else 1
    finally:
        signals.ignore()
        for component in reversed(started):
            in_a_hurry = signals.wish == Wish.AT_ONCE
            components.end(component, state, 0 if in_a_hurry else states.END_SECS)
        cache.close()
        output.close()


def unpack(job: Job, shelf: Shelf, cache: Cache, signals: Signals, output: Output
           ) -> tuple[Job, shelving.Table]:
    """The job with its unpacked images, and what machines fetch besides."""
    def progress(part: str, percent: float) -> None:
        interrupted(signals)
        output.progress(f"{part}: {percent:.0f} %")

    unpacked = shelving.unpack(shelf, cache, output.say, progress)
    interrupted(signals)
    return (shelving.expand(job, shelf, unpacked),
            shelving.table_of(shelf, job.resize_table, unpacked))


def pack(job: Job, signals: Signals, output: Output) -> Job:
    """The job with a packed image beside each one that is not packed."""
    def packed(image: Image) -> Image:
        def progress(percent: float) -> None:
            interrupted(signals)
            output.progress(f"{image.name}: {percent:.0f} %")

        path = Path(image.path)
        if packing.is_packed(path):
            return image
        return replace(image, packed=str(packing.packed_beside(path, output.say, progress)))

    return replace(job, images=tuple(packed(image) for image in job.images))


def interrupted(signals: Signals) -> None:
    if signals.wish:
        raise Interrupted


# --- before the start ----------------------------------------------------------------


def end_remains(state: State, output: Output) -> None:
    for name, pids in states.remains(state).items():
        output.say(f"ending what a killed serve has left: {name} (pid "
                   f"{', '.join(str(pid) for pid in pids)})")
        states.end_processes(pids)
        states.forget(state, name)


def open_room(story: Past, state: State, served: tuple[Served, ...],
              table: shelving.Table | None, signals: Signals, output: Output,
              wanted_again: tuple[str, ...]) -> Room:
    """Knows everything that an earlier `serve` of this job knew."""
    job = story.job
    tried_since = story.ended_at
    # The same line again, since `serve` was killed: who was imaged meanwhile has been asked for.
    goes_on = story.started_at > story.ended_at and story.started_again == wanted_again
    if not goes_on:
        again.mark(story, state, wanted_again)
    past.begin(story, state, wanted_again)
    past.catch_up(story)
    plan = Plan(job, story.id, boot.server_url(job), served,
                tuple(name for name, _ in checks.hook_files(job) if name != checks.OVERLAY[1]),
                f"table/{table.plan}" if table else "")
    history = page.History.load(state.www / "status.json", plan.id, story.began_at)
    return Room(plan, state, story, signals, output, history, tried_since, table,
                rows=story.roster.rows(time.time()))


def all_done_already(room: Room) -> bool:
    done = sum(row.complete and not row.hooks_due for row in room.rows)
    if not done:
        return False
    if everybody_is_accounted_for(room) and done == len(room.rows):
        room.output.say(f"this job is done already: all {done} machines have these images; "
                        "--again all images them again")
        return True
    room.output.say(f"{done} machines of this job are done and boot their own disks; "
                    "see --again")
    return False


def prepare_files(room: Room) -> None:
    """Everything that nginx serves. What an earlier job has left goes away."""
    www, plan = room.state.www, room.plan
    clear(www / "machines")
    clear(www / "retry")
    clear(www / "hooks")
    clear(www / "table")
    for file in www.glob("*.torrent"):
        if file.name not in {served.file for served in plan.images}:
            file.unlink()
    copy(room.job.kernel, www / "kernel")
    copy(room.job.initramfs, www / "initramfs")
    for name, source in checks.hook_files(room.job):
        copy(str(source), www / "hooks" / name)
    for file_name, content in (room.table.files if room.table else {}).items():
        (www / "table" / file_name).write_bytes(content)
    page.install(www)
    dhcp.install_loaders(room.state)
    states.write_file(www / "boot.ipxe", boot.first_script(plan.server))
    states.write_file(www / "unlisted.ipxe", boot.unlisted_script(plan))
    states.write_file(www / "failed.sh", boot.FAILED_HOOK)
    make_disk_starter(room.table.fat_uuids if room.table else
                      [image.path for image in room.job.images], www / "disk.efi")
    # A machine that is done must not find the server without its decision.
    write_decisions(room)


def make_disk_starter(images: Sequence[str], target: Path) -> None:
    made = checks.run(str(checks.TOP / "scripts/disk-starter"), str(target), *images)
    if made.returncode:
        raise Refused(checks.first_line(made.stderr))


def clear(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def copy(source: str, target: Path) -> None:
    new = target.with_name(target.name + ".new")
    shutil.copyfile(source, new)
    new.chmod(0o644)
    new.replace(target)


def start_components(room: Room, started: list[Component]) -> None:
    """In the order in which one needs the other. `started`: those that are to be ended."""
    job, state = room.job, room.state
    room.components = started
    makers: list[Callable[[], Component]] = [] if job.no_tracker else [
        lambda: components.tracker(job, state, room.plan.images)]
    makers += [
        lambda: components.web_server(job, state, room.plan.server),
        lambda: components.seed(job, state, room.plan.images)]
    if job.dhcp != "none":
        makers.append(lambda: dhcp.component(job, state, room.plan.server))
    for make in makers:
        component = make()
        started.append(component)
        components.start(component, state)
        interrupted(room.signals)


def print_what_to_boot(room: Room) -> None:
    """Also for administrators who boot machines in another way: scripts, PXELINUX, GRUB."""
    job, server = room.job, room.plan.server
    options_text = boot.kernel_options(room.plan, "MAC")
    room.output.say(f"log, results and what nginx serves are in {room.state.root}")
    room.output.say(f"the room: {server}/")
    room.output.say(f"iPXE script: {server}/boot.ipxe")
    room.output.say(f"or boot {server}/kernel and {server}/initramfs with (MAC as "
                    "52-54-00-12-34-56)")
    room.output.say(f"  {options_text}")
    if job.allow != ("any",):
        room.output.say(f"peers are in {', '.join(job.allow)} (see --allow)")
    if job.dhcp == "none":
        room.output.print(dhcp.foreign_server_words(job, room.state, server))
    elif job.dhcp == "range":
        room.output.say(f"machines on {job.interface} get an address in {job.dhcp_range}; "
                        "switch them on")
    else:
        room.output.say(f"machines on {job.interface} are told what to boot (proxy DHCP); "
                        "switch them on")
    # Last: a script that waits for this file may go on.
    states.write_file(room.state.root / "cmdline", options_text + "\n")


# --- watching ---------------------------------------------------------------------------


def watch_until_end(room: Room) -> tuple[str, bool]:
    """Why the job ends, and whether that is a failure by itself. Machines that are complete are
    released in any case."""
    try:
        return watch(room), False
    except Broken as broken:
        room.output.say(str(broken))
        return str(broken), True


def watch(room: Room) -> str:
    """Until the job is to end. Returns why."""
    began_at = time.monotonic()
    wakes = list(WAKE_SECS) if room.job.wake else []
    while True:
        poll(room)
        if everybody_is_accounted_for(room):
            return ALL_ACCOUNTED
        if room.signals.ends():
            return "somebody ended it"
        if room.job.timeout and time.monotonic() - began_at >= room.job.timeout:
            return f"time is up after {room.job.timeout} s"
        if wakes and time.monotonic() - began_at >= wakes[0]:
            wakes.pop(0)
            wake_missing(room)
        room.signals.wait(POLL_SECS)


def poll(room: Room) -> list[Row]:
    """Looks at everybody once, decides, and shows."""
    for duty in (look_after_components, read_log, name_turned_away, name_not_allowed,
                 write_decisions, keep_words, show):
        try:
            duty(room)
        except OSError as error:
            # Such as a full disk. The machines go on, and so does the job.
            warn(room, f"trying again: {error}")
    return room.rows


def name_turned_away(room: Room) -> None:
    """Somebody may have forgotten them on the list."""
    macs = list(room.past.roster.turned_away)
    for mac in macs[room.turned_away:]:
        warn(room, f"{mac} is not on the list: it boots from its own disk")
    room.turned_away = len(macs)


def name_not_allowed(room: Room) -> None:
    """A machine of another subnet finds no peer, and can only say that it waits."""
    allowed = [ipaddress.ip_network(subnet) for subnet in room.job.allow if subnet != "any"]
    for row in room.rows if allowed else []:
        if is_address(row.address):
            ip = ipaddress.ip_address(row.address)
            if not any(ip in subnet for subnet in allowed):
                warn(room, f"{row.name or row.mac} is at {ip}, which no --allow contains: "
                           f"{', '.join(room.job.allow)}")


def look_after_components(room: Room) -> None:
    for component in room.components:
        try:
            look_after(room, component)
        except Broken as broken:
            if room.phase == "running":
                raise
            # It ends anyway, and what is known must still be printed and kept.
            warn(room, str(broken))


def look_after(room: Room, component: Component) -> None:
    sentence = components.revive(component, room.state)
    if sentence:
        warn(room, sentence)
        past.note(room.state, "component", name=component.name, event="restart", words=sentence)
    lines = components.new_lines(component, room.state)
    if component.name == "seeder":
        components.seed_figures(lines, room.seed)
    elif component.name == "dnsmasq":
        for line in filter(dhcp.is_warning, lines):
            warn(room, line)


def warn(room: Room, text: str) -> None:
    """Once, however often it is found."""
    if text not in (said for _, said in room.messages):
        room.messages = [*room.messages, (time.time(), text)][-MESSAGES_MAX:]
        room.output.say(text)


def read_log(room: Room) -> None:
    """The neighbours are read after the log: whoever spoke is in the table of the kernel then."""
    past.catch_up(room.past)
    for entry in neighbour_entries(room.past.roster.claims, neighbours.table(), time.time()):
        log.append(str(room.state.room_log), entry)
    past.catch_up(room.past)
    room.rows = room.past.roster.rows(time.time())


def write_decisions(room: Room) -> None:
    scripts = boot.decisions(room.plan, room.rows, room.past.roster, room.tried_since)
    write_changes(room.state.www / "machines", ".ipxe", scripts, room.scripts)
    # A failed machine that waits asks for this file. Without the tracker it would only fail again.
    retries = {row.mac: "" for row in room.rows
               if row.mac and row.again and room.phase == "running"}
    write_changes(room.state.www / "retry", "", retries, room.retries)


def write_changes(folder: Path, ending: str, wanted: dict[str, str], written: dict[str, str]
                  ) -> None:
    for mac in [mac for mac in written if mac not in wanted]:
        (folder / (mac + ending)).unlink(missing_ok=True)
        del written[mac]
    for mac, text in wanted.items():
        if written.get(mac) != text:
            states.write_file(folder / (mac + ending), text)
            written[mac] = text


def keep_words(room: Room) -> None:
    words.publish(room.state, room.rows, room.published)
    if time.monotonic() - room.tidied_at >= TIDY_SECS:
        room.tidied_at = time.monotonic()
        words.tidy(room.state, room.rows)


def show(room: Room) -> None:
    now, surroundings, rows = time.time(), around(room), room.rows
    totals = page.totals(rows, surroundings)
    room.history.add(now, totals.down)
    asking = room.signals.wish == Wish.ASKED
    room.output.show(rows, totals, QUESTION if asking else "")
    page.write(room.state.www / "status.json",
               page.status(rows, surroundings, room.history, now))


def around(room: Room) -> page.Around:
    torrents, job = room.past.torrents, room.job
    size = {torrent.name: torrent.bytes for torrent in torrents}
    return page.Around(
        job=room.plan.id, title=", ".join(size), images=tuple(size.items()),
        server=room.plan.server, expect=len(job.machines) or job.expect,
        began_at=room.past.began_at, phase=room.phase, words=room.words,
        seed_up=sum(up for up, _ in room.seed.values()),
        seed_uploaded=sum(uploaded for _, uploaded in room.seed.values()),
        messages=tuple(room.messages))


def everybody_is_accounted_for(room: Room) -> bool:
    """Nobody is left to wait for. Never, if nobody knows how many there should be. A failure of
    before the last end of the job is tried again. Without a list, anybody could make up as many
    machines as are expected."""
    expected = len(room.job.machines) or room.job.expect
    rows = [row for row in room.rows
            if (row.listed if room.job.machines else not row.hearsay)]
    accounted = sum(row.complete or (row.state == "failed" and not row.again
                                     and (row.state_since or 0) > room.tried_since)
                    for row in rows)
    return 0 < expected <= accounted


def wake_missing(room: Room) -> None:
    macs = [row.mac for row in room.rows if row.listed and row.state == "missing"]
    try:
        wake.wake(macs, room.job.address)
        warn(room, f"Wake-on-LAN sent to {len(macs)} machines that are not there")
    except OSError as error:
        warn(room, f"cannot send Wake-on-LAN: {error.strerror}")


# --- the end -------------------------------------------------------------------------------


def release(room: Room) -> None:
    """The end of the tracker, or without one of the seed, is the signal for the agents. It must
    stay away for longer than the grace time."""
    room.phase = "ending"
    past.note(room.state, "ending", job=room.plan.id)
    what = "seed" if room.job.no_tracker else "tracker"
    room.output.say(f"stopping the {what}: complete machines leave in {room.job.grace} s")
    # The seed would leave by itself in the same time, and its end would look like a failure.
    for component in list(room.components):
        if component.name in ("opentracker", "seeder"):
            components.end(component, room.state)
    hooks_secs = HOOKS_SECS if room.job.hooks else 0
    wait_for(room, room.job.grace + LEAVE_SECS + hooks_secs, Wish.AT_ONCE, has_left)
    by_hand = room.signals.ends()
    if room.job.then == "reboot" and room.job.dhcp != "none" and not by_hand:
        wait_for(room, room.job.linger, Wish.END, lambda row: row.state != "done" or row.back)


def has_left(row: Row) -> bool:
    """Does it need the server no more? One that asked for its own disk runs no hooks."""
    if row.state == "hooks":
        return row.again or row.back
    return not row.complete or row.state == "done" or (row.silent or 0) > SILENT_SECS


def wait_for(room: Room, seconds: float, until: Wish, is_ready: Callable[[Row], bool]) -> None:
    """Until all machines are, or until somebody wishes for an end as much as `until`."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and room.signals.wish < until:
        if all(is_ready(row) for row in poll(room)):
            return
        room.signals.wait(POLL_SECS)


def finish(room: Room, why: str) -> bool:
    """Prints and keeps the results. Are they all good?"""
    room.phase, room.words = "ended", why
    rows = poll(room)
    room.output.terminal.close()
    totals = room.past.roster.totals(rows)
    found = results.results(rows, totals, room.job, room.plan.id, why, time.time())
    try:
        results.write(str(room.state.root), found)
        past.note(room.state, "end", job=room.plan.id, why=why)
    except OSError as error:
        room.output.say(f"cannot keep the results: {error}")
    room.output.say(why)
    room.output.print(results.table(rows, totals))
    room.output.say(f"log and results are in {room.state.root}")
    return results.all_good(rows, totals, room.job)
