"""How is a job, or a list of machines, written in a file?

A list of machines has lines `MAC NAME [key=value]...`; /etc/ethers is such a list. JOB.toml has
tables [job], whose keys are the long options of `serve`, [[image]] and [[machine]].
"""
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

from .job import (Image, Job, Machine, Mistake, check_target, is_address, is_host_name,
                  parse_mac)

# A room has some hundred machines. Ten thousand lines are another file, given by mistake.
MACHINES_MAX = 4096
# A file that is larger is not text that somebody wrote.
FILE_BYTES_MAX = 4 << 20

# A word may have quoted parts, as in a shell: args="--memory 256"
WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
QUOTED = re.compile(r""""([^"]*)"|'([^']*)'""")


def read_text(path: str, where: str) -> str:
    """`where` is how the user named the file."""
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Mistake(f"cannot read {where}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise Mistake(f"{where} has more than {FILE_BYTES_MAX >> 20} MiB and is no such file")
    try:
        # Notepad begins a text with a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise Mistake(f"{where} line {line} is not UTF-8 text") from None


# --- a list of machines


def parse_machines(text: str, where: str) -> tuple[Machine, ...]:
    machines: list[Machine] = []
    places: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{where} line {number}"
        words = split_words(line, place)
        if not words:
            continue
        if len(words) < 2:
            raise Mistake(f"{place}: expected MAC NAME [key=value]...")
        machine = make_machine(words[0], words[1], pairs_of(words[2:], place), place)
        note_machine(machine, f"line {number}", place, places)
        machines.append(machine)
        if len(machines) > MACHINES_MAX:
            raise Mistake(f"{where} lists more than {MACHINES_MAX} machines")
    if not machines:
        raise Mistake(f"{where} lists no machine")
    return tuple(machines)


def split_words(line: str, place: str) -> list[str]:
    words: list[str] = []
    position = 0
    while True:
        position += len(line[position:]) - len(line[position:].lstrip())
        if position == len(line) or line[position] == "#":
            return words
        word = WORD.match(line, position)
        if not word or (word.end() < len(line) and not line[word.end()].isspace()):
            raise Mistake(f"{place}: a quotation mark has no partner")
        words.append(QUOTED.sub(lambda part: part[1] or part[2] or "", word[0]))
        position = word.end()


def pairs_of(words: Iterable[str], place: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise Mistake(f"{place}: expected key=value, not '{word}'")
        if key == "image":
            pairs.setdefault(key, []).append(value)
        elif key in pairs:
            raise Mistake(f"{place}: {key}= is given twice")
        else:
            pairs[key] = value
    return pairs


def make_machine(mac_text: str, name: str, pairs: dict[str, Any], place: str) -> Machine:
    """A machine of either kind of file. In JOB.toml a value may have any type."""
    mac = parse_mac(mac_text)
    if mac is None:
        raise Mistake(f"{place}: '{mac_text}' is no MAC address")
    if name == "all" or not (is_host_name(name) or is_address(name)):
        raise Mistake(f"{place}: '{name}' is no host name (letters, digits and dashes; not 'all')")
    for key, value in pairs.items():
        if key not in ("target", "args", "image"):
            raise Mistake(f"{place}: unknown key '{key}'")
        texts = value if key == "image" and isinstance(value, list) else [value]
        for part in texts:
            if not isinstance(part, str) or not part:
                raise Mistake(f"{place}: {key}: expected a text")
    images = pairs.get("image", [])
    machine = Machine(mac, name, pairs.get("target"), pairs.get("args"),
                      tuple(images if isinstance(images, list) else [images]))
    check_texts(machine, place)
    return machine


def check_texts(machine: Machine, place: str) -> None:
    wrong = None if machine.target is None else check_target(machine.target)
    if wrong:
        raise Mistake(f"{place}: target: {wrong}")
    if machine.args is not None and not fits_command_line(machine.args):
        raise Mistake(f"{place}: args: a double quote or a control character cannot be on a "
                      "kernel command line")
    if len(set(machine.images)) < len(machine.images):
        raise Mistake(f"{place}: an image is given twice")


def fits_command_line(text: str) -> bool:
    return '"' not in text and text.isprintable()


def note_machine(machine: Machine, short: str, place: str, places: dict[str, str]) -> None:
    """Names are compared as DNS compares them."""
    for key, words in ((machine.mac, machine.mac), (machine.name.lower(), machine.name)):
        if key in places:
            raise Mistake(f"{place}: {words} is in {places[key]}, too")
    places[machine.mac] = places[machine.name.lower()] = short


# --- JOB.toml


def read_job_file(path: str, where: str, set_option: Callable[[str, Any, str], None]
                  ) -> tuple[tuple[Image, ...], tuple[Machine, ...]]:
    """Gives the keys of [job] to `set_option(name, value, place)`. Returns the rest. Names of files
    are relative to the folder of the file."""
    name = os.path.basename(where)
    try:
        tables = tomllib.loads(read_text(path, where))
    except tomllib.TOMLDecodeError as error:
        raise Mistake(f"{name}: {error}") from None
    except RecursionError:
        raise Mistake(f"{name}: nested too deeply") from None
    for key in tables:
        if key not in ("job", "image", "machine"):
            raise Mistake(f"{name}: unknown key '{key}'; there are [job], [[image]], [[machine]]")
    job = tables.get("job", {})
    if not isinstance(job, dict):
        raise Mistake(f"{name}: 'job' is no table; write [job]")
    for key, value in job.items():
        set_option(key, value, f"{name}: [job]")
    folder = os.path.dirname(os.path.abspath(path))
    images = [read_image(table, folder, f"{name}: [[image]] {number}")
              for number, table in tables_of(tables, "image", name)]
    places: dict[str, str] = {}
    machines = []
    for number, table in tables_of(tables, "machine", name):
        place = f"{name}: [[machine]] {number}"
        machine = read_machine(table, place)
        note_machine(machine, f"[[machine]] {number}", place, places)
        machines.append(machine)
    return unique_names(images), tuple(machines)


def tables_of(tables: dict[str, Any], key: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    found = tables.get(key, [])
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise Mistake(f"{name}: '{key}' is no list of tables; write [[{key}]]")
    if len(found) > MACHINES_MAX:
        raise Mistake(f"{name}: more than {MACHINES_MAX} times [[{key}]]")
    return list(enumerate(found, 1))


def read_image(table: dict[str, Any], folder: str, place: str) -> Image:
    for key, value in table.items():
        if key not in ("path", "name", "target"):
            raise Mistake(f"{place}: unknown key '{key}'")
        if not isinstance(value, str) or not value:
            raise Mistake(f"{place}: {key}: expected a text")
    if "path" not in table:
        raise Mistake(f"{place}: expected a key 'path'")
    path = os.path.join(folder, table["path"])
    image = Image(table.get("name", os.path.basename(path)), os.path.normpath(path),
                  table.get("target", "disk:auto"))
    wrong = check_target(image.target)
    if wrong:
        raise Mistake(f"{place}: target: {wrong}")
    return image


def read_machine(table: dict[str, Any], place: str) -> Machine:
    for key in ("mac", "name"):
        if not isinstance(table.get(key), str):
            raise Mistake(f"{place}: expected a key '{key}' with a text")
    pairs = {key: value for key, value in table.items() if key not in ("mac", "name")}
    return make_machine(table["mac"], table["name"], pairs, place)


def unique_names(images: Iterable[Image]) -> tuple[Image, ...]:
    """Two images may have the same file name in two folders: the second is called NAME-2."""
    taken: set[str] = set()
    named = []
    for image in images:
        name, number = image.name, 1
        while name in taken:
            number += 1
            name = f"{image.name}-{number}"
        taken.add(name)
        named.append(Image(name, image.path, image.target))
    return tuple(named)


def write_job_file(job: Job, options: Iterable[tuple[str, Any]]) -> str:
    """`options` are the keys of [job] that differ from the defaults."""
    lines = ["[job]"] + [f"{key} = {toml_value(value)}" for key, value in options]
    for image in job.images:
        lines += ["", "[[image]]"] + toml_lines(
            {"path": image.path, "name": image.name, "target": image.target})
    for machine in job.machines:
        lines += ["", "[[machine]]"] + toml_lines(
            {"mac": machine.mac, "name": machine.name, "target": machine.target,
             "args": machine.args, "image": list(machine.images) or None})
    return "\n".join(lines) + "\n"


def toml_lines(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None]


def toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(part) for part in value) + "]"
    # A TOML string is a JSON string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
