"""What is asked for: images, expected machines, and how the job runs. And is it possible?"""
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """An image of the job, and the disk of each machine that it goes to."""

    # Unique in the job.
    name: str
    path: str
    # As the agent understands it: a device below /dev, or a selector such as disk:auto. With #N,
    # which the initramfs understands: partition N of that disk.
    target: str = "disk:auto"
    # Where it lies packed, if that is described and served instead.
    packed: str = ""

    @property
    def source(self) -> str:
        return self.packed or self.path


@dataclass(frozen=True)
class Machine:
    """A machine that is expected, or that somebody has given a name."""

    # Six pairs of lower-case hexadecimal digits with dashes: 52-54-00-77-00-01.
    mac: str
    # A host name; in /etc/ethers it may be an IP address.
    name: str
    # Instead of the target of its only image, or of the disk of all its images.
    target: str | None = None
    # More options for `swarmdd get`.
    args: str | None = None
    # Names of images of the job. Empty: all of them.
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that the command line or JOB.toml can say. See `scripts/serve --help`.

    Paths are absolute. An empty text or 0 means that nothing was said."""

    images: tuple[Image, ...]
    machines: tuple[Machine, ...] = ()
    # Without `machines`: how many there should be. 0: nobody knows.
    expect: int = 0
    only_listed: bool = False
    interface: str = ""
    address: str = ""
    # "range", "proxy" or "none".
    dhcp: str = "proxy"
    # FIRST,LAST
    dhcp_range: str = ""
    http_port: int = 80
    tracker_port: int = 6969
    seed_port: int = 6881
    kernel: str = ""
    initramfs: str = ""
    append: str = ""
    used_ranges: bool = False
    no_used_map: bool = False
    live: bool = False
    raw: bool = False
    # Pack each image, and keep it beside the image.
    pack: bool = False
    piece_size: str = ""
    # Of a Clonezilla image directory: where it is unpacked, and the most that may lie there.
    cache: str = ""
    cache_size: str = ""
    resize_table: bool = False
    args: str = ""
    then: str = "reboot"
    onfail: str = "shell"
    # Each is the name of a hook that is shipped, or the absolute path of a shell script.
    hooks: tuple[str, ...] = ()
    timeout: int = 0
    grace: int = 30
    linger: int = 60
    wake: bool = False
    max_up: str = ""
    # Subnets of all peers, or "any". Empty: those of the server (checks.py).
    allow: tuple[str, ...] = ()
    # The machines know the seed, and learn of each other from it.
    no_tracker: bool = False
    agent: str = ""
    # The state directory.
    dir: str = ""


@dataclass(frozen=True)
class Torrent:
    """An image that was hashed. The `job` line of the log holds these."""

    # Of the image.
    name: str
    bytes: int
    info_hash: str
    target: str


class Mistake(Exception):
    """A mistake in what was asked for. The text names the option, line or key; `serve` prints it
    and exits with status 2."""


def job_id(torrents: Iterable[Torrent], table: str = "") -> str:
    """The same images for the same targets are the same job, also after a restart or tomorrow; if
    machines get a partition table first, also the same table: the name of its plan."""
    pairs = "".join(f"{torrent.info_hash} {torrent.target}\n" for torrent in torrents)
    return hashlib.sha256(f"{pairs}{table}".encode()).hexdigest()[:12]


def images_of(machine: Machine | None, job: Job) -> tuple[Image, ...]:
    """What goes onto this machine, or onto a machine that is not listed."""
    if machine is None:
        return job.images
    chosen = tuple(image for image in job.images
                   if not machine.images or image.name in machine.images)
    if machine.target is not None and is_one_disk(chosen):
        return tuple(Image(image.name, image.path,
                           machine.target + image.target.removeprefix(disk_of(image.target)))
                     for image in chosen)
    return chosen


def disk_of(target: str) -> str:
    """disk:auto, of disk:auto#1."""
    return re.sub("#[1-9][0-9]*$", "", target)


def is_one_disk(images: Sequence[Image]) -> bool:
    return len(images) == 1 or (len({disk_of(image.target) for image in images}) == 1
                                and all("#" in image.target for image in images))


MAC = re.compile(r"[0-9a-fA-F]{1,2}([:-])[0-9a-fA-F]{1,2}(\1[0-9a-fA-F]{1,2}){4}")


def parse_mac(text: str) -> str | None:
    """Colons or dashes, upper or lower case; /etc/ethers may leave out leading zeros."""
    if not MAC.fullmatch(text):
        return None
    return "-".join(pair.zfill(2) for pair in re.split("[:-]", text.lower()))


LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


def is_host_name(name: str) -> bool:
    """RFC 1123, and no IP address. Linux takes 64 characters."""
    return (len(name) <= 64 and not is_address(name)
            and all(len(label) <= 63 and LABEL.fullmatch(label) for label in name.split(".")))


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_target(target: str) -> str | None:
    """What is wrong with a target, or None. Whether the disk exists is for each machine to see."""
    if '"' in target or not target.isprintable():
        return "a double quote or a control character cannot be on a kernel command line"
    if target.startswith("/dev/") or (target.startswith("disk:") and len(target) > len("disk:")):
        return None
    return f"'{target}' is neither a device below /dev nor a selector such as disk:auto"


def check(job: Job) -> None:
    """Raises Mistake if the parts of a job do not fit each other."""
    if not job.images:
        raise Mistake("expected at least one image")
    if not job.interface and not job.address:
        raise Mistake("expected --interface or --address")
    if job.dhcp != "none" and not job.interface:
        raise Mistake("DHCP needs --interface")
    if job.only_listed and not job.machines:
        raise Mistake("--only-listed needs a list: --machines FILE")
    if job.expect and job.machines:
        raise Mistake("--expect and a list of machines: the machines of the list are expected")
    if job.wake and not job.machines:
        raise Mistake("--wake needs a list: --machines FILE")
    if len({job.http_port, job.tracker_port, job.seed_port}) < 3:
        raise Mistake("--http-port, --tracker-port and --seed-port must differ")
    if "any" in job.allow and job.allow != ("any",):
        raise Mistake("--allow any and a subnet exclude each other")
    for machine in job.machines:
        check_machine(machine, job)
    if not job.only_listed:
        check_targets(job.images, "" if not job.machines else
                      " of a machine that is not listed (see --only-listed)")


def check_machine(machine: Machine, job: Job) -> None:
    names = [image.name for image in job.images]
    for name in machine.images:
        if name not in names:
            raise Mistake(f"{machine.name}: there is no image '{name}'; there is: "
                          + ", ".join(names))
    images = images_of(machine, job)
    if machine.target is not None and not is_one_disk(images):
        raise Mistake(f"{machine.name}: target= is for a machine with one image; this one gets "
                      + ", ".join(image.name for image in images))
    check_targets(images, f" of {machine.name}")


def check_targets(images: Sequence[Image], whose: str) -> None:
    """The agent would refuse a target that is given twice: on every machine."""
    seen: dict[str, str] = {}
    for image in images:
        if image.target in seen:
            raise Mistake(f"{seen[image.target]} and {image.name} would both go to "
                          f"{image.target}{whose}; give each image a --target")
        seen[image.target] = image.name
