"""Who is to be imaged again? `serve --again` without images speaks to a job that runs, or that has
ended and will be started again."""
from __future__ import annotations

from pathlib import Path

from . import past as pasts
from . import state as states
from .job import Mistake
from .past import Past
from .state import Refused, State


def find_state(folder: str) -> State:
    """That of --dir, or of the only job that is meant without it."""
    if not folder:
        return states.only_state(states.HOME)
    state = State(Path(folder))
    if not (state.root / states.MARKER).exists():
        raise Refused(f"{folder} is no state directory of serve")
    return state


def ask(state: State, names: tuple[str, ...]) -> str:
    """Marks them in the log. Returns what will happen."""
    past = pasts.load(state)
    mark(past, state, names)
    pasts.catch_up(past)
    goes_on = states.running_serve(state) and past.ending_at < past.started_at
    when = ("at the next PXE boot" if goes_on
            else "when serve is started with the same images, after this job has ended"
            if states.running_serve(state) else "when serve is started with the same images")
    return "\n".join(promise(past, name, when) for name in names)


def promise(past: Past, name: str, when: str) -> str:
    """Whoever is being imaged just now will not be imaged twice."""
    machine = past.roster.seen.get(past.roster.find(name) or "")
    if machine and not machine.again:
        return f"{name}: nothing to do again yet, it is {machine.state}"
    return f"{name}: imaged again {when}"


def mark(past: Past, state: State, names: tuple[str, ...]) -> None:
    for name in names:
        if name != "all" and past.roster.find(name) not in past.roster.seen:
            known = ", ".join(row.name for row in past.roster.rows(0)[:20])
            raise Mistake(f"--again {name}: there is no such machine; there is: {known or 'none'}")
    for name in names:
        pasts.note(state, "again", job=past.id, machine=name)
