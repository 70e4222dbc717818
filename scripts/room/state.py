"""Where do the files of a job lie, is this folder ours, and does anything of ours still run in it?

    swarmdd-state        the marker: without it, a folder that is not empty is not ours
    serve.pid, NAME.pid  who runs here; serve.pid is locked while its `serve` lives
    log/room.log         what machines said: the state (log.py); log/NAME.log: output of a component
    www/                 what nginx serves
    words/               what failed machines sent, as nginx received it
    tracker/             the root of opentracker
    temporary/           of nginx
    cmdline              kernel options, for machines that are booted in another way
    results.json, results.csv
"""
from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "swarmdd-state"
HOME = Path("/var/lib/swarmdd")
# How long a daemon may take to end before it is killed.
END_SECS = 5.0


class Refused(Exception):
    """This folder cannot be used. The text says why, and what to do."""


class Several(Refused):
    """Nobody says which of these jobs is meant."""


@dataclass(frozen=True)
class State:
    """The state directory of a job."""

    root: Path

    @property
    def www(self) -> Path:
        return self.root / "www"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def room_log(self) -> Path:
        return self.logs / "room.log"

    @property
    def words(self) -> Path:
        return self.root / "words"


def default_root(address: str, http_port: int) -> Path:
    """Two jobs at once have different ports, so they have different folders."""
    return HOME / f"{address}-{http_port}"


def open_state(root: Path) -> State:
    """Makes the folder, or finds that it is ours. Deletes nothing.

    nginx and opentracker drop their privileges. They must be able to enter, and to read what nginx
    serves; nobody else needs to see the logs."""
    refuse_foreign(root)
    # The parents get the mode of any new folder: whoever made them knows who should enter.
    root.mkdir(parents=True, exist_ok=True)
    root = root.resolve()
    # Before anything else, so that a `serve` that is killed now leaves a folder of ours.
    (root / MARKER).write_text("This folder belongs to swarmdd's scripts/serve.\n")
    root.chmod(0o711)
    state = State(root)
    make_folder(state.logs, 0o700)
    make_folder(root / "temporary", 0o711)
    for folder in (root / "tracker", state.www, *(state.www / name for name in
                   ("machines", "retry", "hooks", "table", "tftp", "words"))):
        make_folder(folder, 0o755)
    return state


def refuse_foreign(root: Path) -> None:
    """A site's own files are in no danger: a folder is ours if it is empty or has the marker."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"cannot use {root}: {error.strerror}") from None
    if names and MARKER not in names:
        raise Refused(f"{root} is not empty, and not a state directory of serve (it has no "
                      f"{MARKER}); give --dir a folder of its own")


def make_folder(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Replaces a file at once: a reader sees the old text or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(path)


# --- one `serve` at a time -------------------------------------------------------


def lock(state: State) -> int:
    """Returns a descriptor that holds the lock until this process has ended, however it ends. (A
    child does not inherit it.)"""
    path = state.root / "serve.pid"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused(words_about_owner(state)) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, to_json(identity(os.getpid(), ["serve"])).encode())
    return descriptor


def unlock(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.close(descriptor)


def refuse_running(state: State) -> None:
    if running_serve(state):
        raise Refused(words_about_owner(state))


def running_serve(state: State) -> int | None:
    """The pid of the `serve` of this state directory, if it runs."""
    owner = read_pid_file(state.root / "serve.pid")
    return owner.pid if owner and is_alive(owner) else None


def only_state(home: Path) -> State:
    """The job that is meant if nobody says which: the one that runs, or the only one there is."""
    all_states = [State(marker.parent) for marker in sorted(home.glob(f"*/{MARKER}"))]
    running = [state for state in all_states if running_serve(state)]
    meant = running or all_states
    if not meant:
        raise Refused(f"no job was started in {home}; name the folder of a `serve --dir FOLDER`")
    if len(meant) > 1:
        listed = "\n".join(f"  {state.root}" for state in meant)
        raise Several(f"several jobs {'run' if running else 'were started'}; name one of\n{listed}")
    return meant[0]


def words_about_owner(state: State) -> str:
    owner = read_pid_file(state.root / "serve.pid")
    if owner is None:
        return f"another serve is starting in {state.root}"
    since = time.strftime("%H:%M", time.localtime(owner.since))
    return (f"a serve runs in {state.root} already: pid {owner.pid}, since {since}\n"
            f"  watch it: scripts/status --follow {shlex.quote(str(state.root))}\n"
            f"  end it:   kill {owner.pid}\n"
            "  another job beside it: another --http-port, --tracker-port and --seed-port")


# --- processes: which of them are ours? --------------------------------------------


@dataclass(frozen=True)
class Owned:
    """A process of ours. A pid is used again, but not with the same start time in one boot."""

    pid: int
    # In clock ticks since the system booted.
    started: int
    boot: str
    # In seconds since 1970.
    since: float
    command: tuple[str, ...]


def remember(state: State, name: str, pid: int, command: list[str]) -> None:
    """A component runs: should `serve` be killed, the next one finds it."""
    write_file(state.root / f"{name}.pid", to_json(identity(pid, command)))


def forget(state: State, name: str) -> None:
    (state.root / f"{name}.pid").unlink(missing_ok=True)


def remains(state: State) -> dict[str, list[int]]:
    """Component name -> pids, of a `serve` that was killed. A component may have children: all of
    them are in its session, which lives on without its leader."""
    found = {}
    for path in sorted(state.root.glob("*.pid")):
        owned = read_pid_file(path)
        if path.name == "serve.pid" or owned is None:
            continue
        pids = [pid for pid in session_of(owned)]
        if pids:
            found[path.stem] = pids
    return found


def remaining_pids(state: State) -> set[int]:
    return {pid for pids in remains(state).values() for pid in pids}


def end_processes(pids: list[int], seconds: float = END_SECS) -> None:
    """Asks them to end, waits, and kills those that do not."""
    for pid in pids:
        send(pid, signal.SIGTERM)
    limit = time.monotonic() + seconds
    while any(start_of(pid) is not None for pid in pids):
        if time.monotonic() >= limit:
            for pid in pids:
                send(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def session_of(owned: Owned) -> list[int]:
    """All processes of the session that this process leads or led."""
    if owned.boot != boot_id():
        return []
    leader = start_of(owned.pid)
    # The kernel gives no pid to a new process while a session still has that number.
    if leader is not None and leader != owned.started:
        return []
    return [pid for pid, session in sessions() if session == owned.pid]


def sessions() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        fields = stat_of(int(name)) if name.isdigit() else None
        if fields:
            yield int(name), int(fields[3])


def is_alive(owned: Owned) -> bool:
    return owned.boot == boot_id() and start_of(owned.pid) == owned.started


def start_of(pid: int) -> int | None:
    fields = stat_of(pid)
    return int(fields[19]) if fields else None


def stat_of(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5) counts it as the third), or None
    for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name before it may contain anything.
    fields = text.rpartition(")")[2].split()
    return None if not fields or fields[0] in "ZX" else fields


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity(pid: int, command: list[str]) -> Owned:
    return Owned(pid, start_of(pid) or 0, boot_id(), time.time(), tuple(command))


def to_json(owned: Owned) -> str:
    return json.dumps(vars(owned)) + "\n"


def read_pid_file(path: Path) -> Owned | None:
    try:
        fields = json.loads(path.read_text())
        return Owned(int(fields["pid"]), int(fields["started"]), str(fields["boot"]),
                     float(fields["since"]), tuple(fields["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
