"""What does the command line of `serve` ask for?

The same table of options reads the keys of [job] in JOB.toml (jobfile.py), and writes them for
--print-job. Everything is checked here that can be checked without looking at this host.
"""
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .job import (Image, Job, Mistake, check, check_target, is_host_name, parse_mac)
from .jobfile import (MACHINES_MAX, fits_command_line, parse_machines, read_job_file, read_text,
                      unique_names, write_job_file)

HELP = """\
Puts disk images on every machine of a network that PXE-boots: the server side.
Starts opentracker, nginx, `swarmdd seed` and dnsmasq, shows where every machine
stands, and ends when all that are expected are complete or have failed.

Usage:
  scripts/serve [options] --interface IF IMAGE...
  scripts/serve [options] --interface IF CLONEZILLA_IMAGE_DIR
  scripts/serve [options] JOB.toml
  scripts/serve [--dir STATE] --again all|NAME|MAC

A machine is complete when it has read back what it wrote. At the end the
tracker stops, which releases the machines, and a table is printed. A machine
that is done boots from its own disk, also after `serve` was started again with
the same images and targets: only --again writes it once more.
Ctrl-C asks whether to end the job; a second one ends it.

Machines boot by the PXE of their BIOS or UEFI, by UEFI HTTP boot, or by iPXE in
their network card. http://ADDR/ shows the room; scripts/status does, too.

Network:
  --interface IF       The network of the machines
  --address ADDR       Address of the server there. Default: the first of IF
  --dhcp FIRST,LAST    Give addresses from FIRST to LAST
  --proxy-dhcp         Another server gives addresses; only add what to boot.
                       This is the default
  --no-dhcp            Start no dnsmasq; print what to enter in your DHCP server
Who is expected:
  --machines FILE      A list with lines `MAC NAME [key=value]...`; /etc/ethers
                       is one. Keys: target=TARGET, args="OPTION...", and
                       image=NAME (repeatable; default: all images). Machines
                       get NAME as host name
  --expect N           Without a list: N machines are expected. Default: nobody
                       knows, and the job ends by --timeout or Ctrl-C
  --only-listed        Other machines see a sentence and boot from their disk.
                       Default: they are imaged, too
  --wake               Send Wake-on-LAN to listed machines that are not there
Boot files:
  --kernel FILE        Default: the one that scripts/kernel cloud fetches
  --initramfs FILE     Default: target/initramfs-vm.img
  --append "OPTION..." More kernel options. The machines show their state on the
                       screen; for a serial console, too, name both:
                       --append "console=ttyS0 console=tty0"
Deployment:
  --target TARGET      Disk for each IMAGE, in order: a device below /dev, or a
                       selector. Default: disk:auto
  --used-ranges        Of a disk with a partition table, send only the used
                       ranges; with partclone installed, also of its file
                       systems. Default: each image whole, byte for byte
  --no-used-map        With --used-ranges: send all of each partition
  --live               Take an IMAGE even if it is in use and may change
  --raw                Take an IMAGE as it is, even if it seems to be an archive
  --pack               Pack each IMAGE into IMAGE.lz4, once, and serve that.
                       One that is packed already (scripts/pack) is served
                       as it is
  --piece-size SIZE    16K to 16M. Default: what `swarmdd make` chooses
  --cache DIR          Where a Clonezilla image is unpacked, once. Default:
                       /var/cache/swarmdd
  --cache-size SIZE    The most that DIR may hold, such as 200G; what was not
                       used for the longest time is removed. Default: what fits
  --resize-table       Of a Clonezilla image: partitions with data grow with the
                       disk, in proportion. Default: the rest stays free. The
                       file systems grow with --hook grow
  --args "OPTION..."   More options for `swarmdd get`
  --hook NAME|FILE     Run a hook on each machine after its disk is complete:
                       one of initramfs/hooks, or your own shell script (with a
                       slash: ./mine.sh). Repeatable, run in order. overlay=FILE
                       lays a tarball over the deployed system
  --then WHAT          After the job: reboot, poweroff, shell, kexec.
                       Default: reboot
  --onfail WHAT        After a failure: shell, reboot, poweroff, retry, or wait
                       (until --again at the server). Default: shell
The end of the job:
  --timeout SECS       End after this time. Default: never
  --grace SECS         Machines leave when the tracker has been away for SECS.
                       Default: 30
  --linger SECS        With --then reboot: answer DHCP for SECS after the job,
                       so that machines which PXE-boot again find their disk.
                       Default: 60
  --again all|NAME|MAC Image this machine again, at its next PXE boot; with
                       --onfail wait a failed one begins by itself. Repeatable.
                       With IMAGE: start the job. Without: tell the job that
                       runs and exit; one that has ended does it when serve is
                       started with the same images
Server:
  --http-port PORT     Default: 80
  --tracker-port PORT  Default: 6969
  --no-tracker         Start no opentracker: machines know the seed and learn of
                       each other from it. Its end is the end of the job
  --seed-port PORT     Default: 6881
  --max-up RATE        Limit of the seed per second: 128K or more, such as 50M.
                       Default: none. Of machines: --args "--max-up RATE"
  --allow NET/LEN|any  Only machines of this subnet are peers. Repeatable.
                       Default: those of --interface, or of --address; name
                       these, too, if rooms behind routers have theirs named.
                       The seed always is a peer
  --agent FILE         The agent that seeds. Default: target/swarmdd
  --dir STATE          Log, results, and what nginx serves. Default:
                       /var/lib/swarmdd/ADDR-PORT
  --print-job          Print the job as JOB.toml, and exit
  -h, --help           This text

JOB.toml has the long options as keys of [job] (used-ranges = true), then an
[[image]] (path, name, target) for each image and, if wanted, a [[machine]]
(mac, name, target, args, image) for each machine. Options replace its keys.

Exit status: 0 if all expected machines are complete and none has failed, 1
otherwise, 2 for a mistake in the options.

Examples:
  scripts/serve --interface eth1 --dhcp 10.0.0.100,10.0.0.250 \\
      --expect 30 --timeout 3600 lab.img
  scripts/serve --interface eth1 --machines room.txt --hook hostname lab.img
  scripts/serve --again lab-07
"""


@dataclass(frozen=True)
class Command:
    """What one call of `serve` shall do."""

    job: Job
    # "all", names, or MAC addresses with dashes. Without images in the job: only mark these.
    again: tuple[str, ...] = ()
    print_job: bool = False


def parse(arguments: Sequence[str], folder: str) -> Command | None:
    """None: --help was asked for. `folder` is where relative paths begin. Raises Mistake."""
    found: dict[str, Any] = {}
    operands = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            return None
        if word == "--":
            operands += rest
            break
        if not word.startswith("-"):
            operands.append(word)
            continue
        name, equals, value = word.partition("=")
        if name.removeprefix("--") in FLAGS and name.startswith("--"):
            if equals:
                raise Mistake(f"{name} takes no value")
            found |= FLAGS[name[2:]]
        elif name.removeprefix("--") in VALUES and name.startswith("--"):
            if not equals:
                if not rest:
                    raise Mistake(f"{name} wants a value")
                value = rest.pop(0)
            read_value(name[2:], value, name, folder, found)
        else:
            raise Mistake(f"unknown option {name}")
    return command_of(found, operands, folder)


def command_of(found: dict[str, Any], operands: Sequence[str], folder: str) -> Command:
    files = [operand for operand in operands if operand.endswith(".toml")]
    paths = [operand for operand in operands if not operand.endswith(".toml")]
    if len(files) > 1:
        raise Mistake(f"expected one JOB.toml, not {' and '.join(files)}")
    images = images_of_operands(paths, found.pop("targets", []))
    if files:
        found, images = add_job_file(files[0], folder, found, images)
    # From a file or from the command line, the list may be the mistake.
    again = tuple(found.pop("again", []))
    print_job = found.pop("print_job", False)
    images = tuple(Image(image.name, os.path.join(folder, image.path), image.target)
                   for image in images)
    job = Job(images=images, **{key: tuple(value) if isinstance(value, list) else value
                                for key, value in found.items()})
    if not again or images:
        check(job)
    elif print_job:
        raise Mistake("expected at least one image")
    return Command(job, again, print_job)


def images_of_operands(paths: Sequence[str], targets: Sequence[str]) -> tuple[Image, ...]:
    if targets and len(targets) != len(paths):
        raise Mistake(f"expected as many --target as images: {len(paths)}, not {len(targets)}")
    for path in paths:
        if not path:
            raise Mistake("an image has an empty name")
        check_utf8(path, "")
        if not path.isprintable():
            raise Mistake(f"'{clean(path)}' is no text")
    return unique_names(Image(os.path.basename(path.rstrip("/")), os.path.normpath(path), target)
                        for path, target in zip(paths, targets or ["disk:auto"] * len(paths)))


def add_job_file(file: str, folder: str, found: dict[str, Any], images: tuple[Image, ...]
                 ) -> tuple[dict[str, Any], tuple[Image, ...]]:
    """What the command line says replaces what the file says."""
    said: dict[str, Any] = {}
    path = os.path.join(folder, file)

    def set_option(name: str, value: Any, place: str) -> None:
        read_key(name, value, place, os.path.dirname(path), said)

    file_images, file_machines = read_job_file(path, file, set_option)
    if images and file_images:
        raise Mistake(f"{images[0].path}: the images of this job are in {file}")
    if file_machines and "machines" in said:
        raise Mistake(f"{file}: there are [[machine]] tables and a key 'machines'; choose one")
    if file_machines:
        said["machines"] = file_machines
    # Who is expected is one question: the command line answers it whole.
    if "machines" in found or "expect" in found:
        said.pop("machines", None)
        said.pop("expect", None)
    return said | found, images or file_images


# --- one option


class Wrong(Exception):
    """A value that an option does not take."""


def read_value(name: str, value: str, place: str, folder: str, found: dict[str, Any]) -> None:
    field, convert = VALUES[name]
    check_utf8(value, f"{place}: ")
    try:
        converted = convert(value, folder)
    except Wrong as wrong:
        raise Mistake(f"{place}: {wrong}") from None
    if name in REPEATABLE:
        found.setdefault(field, []).append(converted)
    else:
        found[field] = converted
    if name == "dhcp":
        found["dhcp"] = "range"


def check_utf8(value: str, place: str) -> None:
    """Whatever else is on the disk cannot be in JOB.toml, in the log, or on the page."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Mistake(f"{place}{value!a} is not UTF-8 text") from None


def read_key(name: str, value: Any, place: str, folder: str, found: dict[str, Any]) -> None:
    """A key of [job]."""
    if name in FLAGS and name != "print-job":
        if not isinstance(value, bool):
            raise Mistake(f"{place}: {name}: expected true or false")
        if value:
            found.update(FLAGS[name])
    elif name in VALUES and name not in ("target", "again"):
        values = value if isinstance(value, list) and name in REPEATABLE else [value]
        for part in values:
            is_number = isinstance(part, int) and not isinstance(part, bool) and name in NUMBERS
            if not is_number and not isinstance(part, str):
                raise Mistake(f"{place}: {name}: expected a "
                              + ("number" if name in NUMBERS else "text"))
            read_value(name, str(part), f"{place}: {name}", folder, found)
    else:
        raise Mistake(f"{place}: unknown key '{name}'")


def job_text(job: Job) -> str:
    """JOB.toml. Reading it gives the same job."""
    options: list[tuple[str, Any]] = []
    names = {field: name for name, (field, _) in VALUES.items()}
    flags = {"used_ranges": "used-ranges", "no_used_map": "no-used-map", "live": "live",
             "raw": "raw", "pack": "pack", "resize_table": "resize-table", "wake": "wake",
             "only_listed": "only-listed", "no_tracker": "no-tracker"}
    for field in fields(Job):
        value = getattr(job, field.name)
        if field.name in ("images", "machines", "dhcp") or value == field.default:
            continue
        if field.name in flags:
            options.append((flags[field.name], True))
        else:
            options.append((names[field.name], list(value) if isinstance(value, tuple) else value))
    if job.dhcp == "none":
        options.append(("no-dhcp", True))
    return write_job_file(job, options)


# --- values. Each converter takes the text and the folder where relative paths begin.


def text(value: str, _folder: str) -> str:
    if not value or not value.isprintable():
        raise Wrong(f"'{clean(value)}' is no text" if value else "the value is empty")
    return value


def clean(value: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in value)


def path(value: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, text(value, folder)))


def number(least: int, most: int) -> "Converter":
    def convert(value: str, _folder: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise Wrong(f"'{clean(value)}' is no number from {least} to {most}")
        return int(value)
    return convert


def one_of(*words: str) -> "Converter":
    def convert(value: str, _folder: str) -> str:
        if value not in words:
            raise Wrong(f"'{clean(value)}' is not one of {', '.join(words)}")
        return value
    return convert


def address(value: str, _folder: str) -> str:
    """/LEN is taken off, since `ip address` prints it."""
    try:
        return str(ipaddress.IPv4Address(value.partition("/")[0]))
    except ValueError:
        raise Wrong(f"'{clean(value)}' is no IPv4 address") from None


def subnet(value: str, _folder: str) -> str:
    if value == "any":
        return value
    try:
        if "/" in value:
            return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        pass
    raise Wrong(f"'{clean(value)}' is no subnet such as 10.0.0.0/24, and not any")


def dhcp_range(value: str, folder: str) -> str:
    first, comma, last = value.partition(",")
    if not comma:
        raise Wrong(f"'{clean(value)}' is not FIRST,LAST")
    first, last = address(first, folder), address(last, folder)
    if ipaddress.IPv4Address(first) > ipaddress.IPv4Address(last):
        raise Wrong(f"{first} is above {last}")
    return f"{first},{last}"


def target(value: str, _folder: str) -> str:
    wrong = check_target(value)
    if wrong:
        raise Wrong(wrong)
    return value


def agent_options(value: str, _folder: str) -> str:
    if not fits_command_line(value):
        raise Wrong("a double quote or a control character cannot be on a kernel command line")
    return value.strip()


def kernel_options(value: str, folder: str) -> str:
    return text(value, folder).strip()


SIZE = re.compile("([0-9]{1,12})([KMGT]?)", re.IGNORECASE)


def size(least: int, most: int, words: str, power: bool = False) -> "Converter":
    """As the agent reads it, which gets the text."""
    def convert(value: str, _folder: str) -> str:
        parts = SIZE.fullmatch(value)
        count = int(parts[1]) << " KMGT".index(parts[2].upper() or " ") * 10 if parts else 0
        if not least <= count <= most or (power and count & (count - 1)):
            raise Wrong(f"'{clean(value)}' is not {words}")
        return value
    return convert


def machines(value: str, folder: str) -> object:
    return parse_machines(read_text(path(value, folder), value), os.path.basename(value))


def hook(value: str, folder: str) -> str:
    name, _, file = value.partition("=")
    if name == "overlay" and file:
        return f"{name}={path(file, folder)}"
    if "/" in value:
        return path(value, folder)
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", value):
        raise Wrong(f"'{clean(value)}' is no name of a hook; a file needs a slash: "
                    f"./{clean(value)}")
    return value


def which_machine(value: str, _folder: str) -> str:
    mac = parse_mac(value)
    if mac is None and not is_host_name(value):
        raise Wrong(f"'{clean(value)}' is neither all, nor a name, nor a MAC address")
    return mac or value


Converter = Callable[[str, str], object]

PORT = number(1, 65535)
# Ten days: nobody stays longer, and a mistyped number is found.
SECONDS = number(0, 864000)

# The option, the field of Job, and the converter. In the order of --help.
VALUES: dict[str, tuple[str, Converter]] = {
    "interface": ("interface", text),
    "address": ("address", address),
    "dhcp": ("dhcp_range", dhcp_range),
    "machines": ("machines", machines),
    "expect": ("expect", number(0, MACHINES_MAX)),
    "kernel": ("kernel", path),
    "initramfs": ("initramfs", path),
    "append": ("append", kernel_options),
    "target": ("targets", target),
    "piece-size": ("piece_size", size(1 << 14, 1 << 24, "a power of two from 16K to 16M", True)),
    "cache": ("cache", path),
    "cache-size": ("cache_size", size(1 << 20, 1 << 50, "a size such as 200G")),
    "args": ("args", agent_options),
    "hook": ("hooks", hook),
    "then": ("then", one_of("reboot", "poweroff", "shell", "kexec")),
    "onfail": ("onfail", one_of("shell", "reboot", "poweroff", "retry", "wait")),
    "timeout": ("timeout", SECONDS),
    "grace": ("grace", SECONDS),
    "linger": ("linger", SECONDS),
    "again": ("again", which_machine),
    "http-port": ("http_port", PORT),
    "tracker-port": ("tracker_port", PORT),
    "seed-port": ("seed_port", PORT),
    "max-up": ("max_up", size(1 << 17, 1 << 40, "bytes per second from 128K to 1T")),
    "allow": ("allow", subnet),
    "agent": ("agent", path),
    "dir": ("dir", path),
}
REPEATABLE = ("target", "hook", "again", "allow")
NUMBERS = ("expect", "timeout", "grace", "linger", "http-port", "tracker-port", "seed-port")
# What each option without a value sets.
FLAGS: dict[str, dict[str, Any]] = {
    "proxy-dhcp": {"dhcp": "proxy", "dhcp_range": ""},
    "no-dhcp": {"dhcp": "none", "dhcp_range": ""},
    "only-listed": {"only_listed": True},
    "wake": {"wake": True},
    "used-ranges": {"used_ranges": True},
    "no-used-map": {"no_used_map": True},
    "live": {"live": True},
    "raw": {"raw": True},
    "pack": {"pack": True},
    "resize-table": {"resize_table": True},
    "no-tracker": {"no_tracker": True},
    "print-job": {"print_job": True},
}


def parse_or_exit(arguments: Sequence[str]) -> Command:
    """For a command: --help and mistakes end here."""
    try:
        command = parse(arguments, os.getcwd())
    except Mistake as mistake:
        print(f"serve: {mistake}\nserve: `serve --help` lists the options", file=sys.stderr)
        sys.exit(2)
    if command is None:
        print(HELP, end="")
        sys.exit(0)
    return command
