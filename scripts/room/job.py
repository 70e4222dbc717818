"""What a job asks for: images, expected machines, and how it runs."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Image:
    """An image of the job, and the disk of each machine that it goes to."""

    name: str
    path: str
    # As the agent understands it: a device below /dev, or a selector such as disk:auto.
    target: str = "disk:auto"


@dataclass(frozen=True)
class Machine:
    """A machine that is expected, or that somebody has given a name."""

    # Six pairs of lower-case hexadecimal digits with dashes: 52-54-00-77-00-01.
    mac: str
    name: str
    # Instead of the target of its only image.
    target: str | None = None
    # More options for `swarmdd get`.
    args: str | None = None
    # Names of images of the job. Empty: all of them.
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that the command line or JOB.toml can say. See `scripts/serve --help`."""

    images: tuple[Image, ...]
    machines: tuple[Machine, ...] = ()
    # Without `machines`: how many there should be. 0: nobody knows.
    expect: int = 0
    only_listed: bool = False
    interface: str = ""
    address: str = ""
    # "range", "proxy" or "none".
    dhcp: str = "proxy"
    dhcp_range: str = ""
    http_port: int = 80
    tracker_port: int = 6969
    seed_port: int = 6881
    kernel: str = ""
    initramfs: str = ""
    append: str = ""
    used_ranges: bool = False
    live: bool = False
    raw: bool = False
    piece_size: str = ""
    args: str = ""
    then: str = "reboot"
    onfail: str = "shell"
    hooks: tuple[str, ...] = ()
    timeout: int = 0
    grace: int = 30
    linger: int = 60
    wake: bool = False
    max_up: str = ""
    agent: str = ""
    # The state directory.
    dir: str = ""
