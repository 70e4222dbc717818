"""Is this job possible here? Everything that can be known before anything starts: a mistake is to
be found by one person, not by forty machines."""
from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import boot, components, dhcp, ports
from .job import Job, Machine, Mistake, disk_of, images_of
from .packing import is_packed
from .state import Refused

TOP = Path(__file__).resolve().parents[2]
# Debian keeps daemons out of an ordinary user's path.
os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"

# Command -> Debian package.
TOOLS = {"opentracker": "opentracker", "nginx": "nginx-light", "ip": "iproute2"}
HOOKS = TOP / "initramfs/hooks"
# It becomes a part of a URL on a kernel command line.
HOOK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")


def complete(job: Job) -> Job:
    """With everything that follows from the rest: address, kernel, initramfs, agent."""
    address = job.address or str(interface_of(job).ip)
    return dataclasses.replace(
        job,
        address=address,
        allow=with_seed(job.allow or own_subnets(job, address), address),
        agent=job.agent or str(TOP / "target/swarmdd"),
        initramfs=job.initramfs or str(TOP / "target/initramfs-vm.img"),
        kernel=job.kernel or default_kernel())


def default_kernel() -> str:
    """The kernel of scripts/kernel, which fetches it at the first time."""
    fetched = run(str(TOP / "scripts/kernel"), "cloud")
    if fetched.returncode:
        raise Refused(f"no --kernel, and none could be fetched: {first_line(fetched.stderr)}")
    return str(next(Path(fetched.stdout.strip(), "boot").glob("vmlinuz-*")))


def check(job: Job, ours: set[int]) -> None:
    """Raises Mistake or Refused. `ours`: processes that are going to be ended first."""
    check_tools(job)
    check_files(job)
    check_network(job)
    check_ports(job, ours)
    check_options(job)
    check_length(job)
    check_hooks(job)
    if has_table(job) and "clonezilla" not in packed_in(job):
        raise Refused(f"{job.initramfs} has no sfdisk for the partition table: pack it once more, "
                      "with --with clonezilla as well")


# --- tools and files ----------------------------------------------------------------


def check_tools(job: Job) -> None:
    """All missing packages at once."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)
               and not (job.no_tracker and tool == "opentracker")]
    if not shutil.which("lz4") and (
            job.pack or any(is_packed(Path(image.path)) for image in job.images)):
        missing.append("lz4")
    if job.dhcp != "none":
        missing += [] if shutil.which("dnsmasq") else ["dnsmasq-base"]
        missing += [] if all((dhcp.IPXE / name).exists() for name in dhcp.LOADERS) else ["ipxe"]
    if missing:
        raise Refused("missing Debian package(s): " + " ".join(missing))
    starter = run(str(TOP / "scripts/disk-starter"), "--check")
    if starter.returncode:
        raise Refused(first_line(starter.stderr))


def check_files(job: Job) -> None:
    if not os.access(job.agent, os.X_OK):
        raise Refused(f"no agent at {job.agent}; scripts/build makes it")
    check_readable("kernel", job.kernel, "scripts/kernel fetches one")
    check_readable("initramfs", job.initramfs, "scripts/mkinitramfs makes it")
    for image in job.images:
        check_readable("image", image.path, "")


def check_readable(what: str, path: str, advice: str) -> None:
    try:
        # A FIFO would have us wait for its writer.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise Refused(f"cannot read the {what} {path}: {error.strerror}"
                      + (f"; {advice}" if advice else "")) from None


# --- the network -----------------------------------------------------------------------


def interface_of(job: Job) -> ipaddress.IPv4Interface:
    """The address of the server on --interface, with its network."""
    if not job.interface:
        return ipaddress.IPv4Interface(job.address)
    shown = run("ip", "-json", "-4", "address", "show", "dev", job.interface)
    if shown.returncode:
        raise Mistake(f"there is no interface {job.interface}; there is: {interface_names()}")
    found = addresses_in(shown.stdout)
    if not found:
        raise Refused(f"interface {job.interface} has no IPv4 address; set one, or see --address")
    if not job.address:
        return found[0]
    # Without DHCP of ours the machines may reach another address of this host, through a router.
    everywhere = run("ip", "-json", "-4", "address").stdout if job.dhcp == "none" else ""
    for interface in found + addresses_in(everywhere):
        if str(interface.ip) == job.address:
            return interface
    raise Mistake(f"{job.address} is no address of {job.interface}; it has: "
                  + ", ".join(str(interface.ip) for interface in found))


def own_subnets(job: Job, address: str) -> tuple[str, ...]:
    """The subnets of --interface; without it, of the interface that has the address."""
    shown = run("ip", "-json", "-4", "address", *(["show", "dev", job.interface]
                                                  if job.interface else [])).stdout
    found = [interface.network for interface in addresses_in(shown)
             if job.interface or str(interface.ip) == address]
    return tuple(dict.fromkeys(str(network) for network in found))


def with_seed(allow: tuple[str, ...], address: str) -> tuple[str, ...]:
    """The seed is at the address, wherever that is. Machines that may not call it get nothing."""
    seed = ipaddress.ip_address(address)
    if "any" in allow or any(seed in ipaddress.ip_network(subnet) for subnet in allow):
        return allow
    return (*allow, str(ipaddress.ip_network(seed)))


def addresses_in(shown: str) -> list[ipaddress.IPv4Interface]:
    return [ipaddress.IPv4Interface(f"{entry['local']}/{entry['prefixlen']}")
            for interface in json.loads(shown or "[]")
            for entry in interface.get("addr_info", []) if "local" in entry]


def interface_names() -> str:
    shown = run("ip", "-json", "link")
    return ", ".join(link["ifname"] for link in json.loads(shown.stdout or "[]"))


def check_network(job: Job) -> None:
    interface = interface_of(job)
    if job.dhcp == "range":
        trouble = dhcp.range_trouble(job, interface.network)
        if trouble:
            raise Mistake(trouble)
    if job.dhcp != "none":
        missing = dhcp.missing_capabilities()
        if missing:
            raise Refused(f"dnsmasq needs root, or {' and '.join(missing)}; or see --no-dhcp")


def check_ports(job: Job, ours: set[int]) -> None:
    """All of them, so that one look at the list is enough."""
    troubles = []
    for need in components.needs(job) + dhcp.needs(job):
        trouble = ports.trouble(need)
        if trouble and not {pid for _, pid in ports.holders(need)} & ours:
            troubles.append(trouble)
    if troubles:
        raise Refused("\n".join(troubles))


# --- what machines and tools are handed --------------------------------------------------


def check_options(job: Job) -> None:
    """By the program that will read them."""
    nothing = "/dev/null/nothing"
    if job.max_up:
        ask_agent(job, "", "seed", "--max-up", job.max_up, nothing, nothing)
    if job.piece_size:
        ask_agent(job, "", "make", "--piece-size", job.piece_size, nothing, "-o", nothing)
    machines: list[Machine | None] = [] if job.only_listed else [None]
    machines += [machine for machine in job.machines
                 if job.only_listed or machine.args or machine.target or machine.images]
    for machine in machines:
        whose = f"{machine.name}: " if machine else ""
        targets = dict.fromkeys(disk_of(image.target) for image in images_of(machine, job))
        pairs = [word for target in targets for word in (nothing, target)]
        ask_agent(job, whose, "get", "--check-only", *boot.agent_options(job, machine), *pairs)


def ask_agent(job: Job, whose: str, *words: str) -> None:
    """Exit status 2: it does not understand its options. (`seed` and `make` have no --check-only,
    so they fail in any case.)"""
    answer = run(job.agent, *words)
    if answer.returncode == 2:
        raise Mistake(whose + first_line(answer.stderr).removeprefix("swarmdd: "))


def check_length(job: Job) -> None:
    """Of the kernel's command line. The kernel would cut it off without a word."""
    images = tuple(boot.Served(image, boot.torrent_name(number, image), "0" * 40, 0)
                   for number, image in enumerate(job.images, 1))
    plan = boot.Plan(job, "0" * 12, boot.server_url(job), images,
                     tuple(name for name, _ in hook_files(job)),
                     f"table/{'0' * 64}" if has_table(job) else "")
    longest = max(len(boot.kernel_options(plan, "00-00-00-00-00-00", machine))
                  for machine in (None, *job.machines))
    if longest > boot.KERNEL_OPTIONS_MAX:
        raise Mistake(f"the kernel options would have {longest} characters, and the kernel takes "
                      f"{boot.KERNEL_OPTIONS_MAX}: shorter --args, --append, or fewer --hook")


# --- hooks ----------------------------------------------------------------------------------

# --hook overlay=FILE: the hook fetches this file from beside itself.
OVERLAY = "overlay=", "overlay.tar"


def hook_files(job: Job) -> list[tuple[str, Path]]:
    """Name below www/hooks and the file, for each --hook; with what hooks fetch."""
    files = []
    for hook in job.hooks:
        if hook.startswith(OVERLAY[0]):
            files += [("overlay", HOOKS / "overlay"),
                      (OVERLAY[1], Path(hook.removeprefix(OVERLAY[0])))]
        elif "/" in hook:
            files.append((Path(hook).name, Path(hook)))
        else:
            files.append((hook, HOOKS / hook))
    return files


def check_hooks(job: Job) -> None:
    if not job.hooks:
        return
    files = hook_files(job)
    names = [name for name, _ in files]
    for name, file in files:
        if not os.access(file, os.R_OK) and file.parent == HOOKS:
            raise Mistake(f"there is no hook {name}; there is: " + ", ".join(shipped_hooks()))
        check_readable("file of --hook", str(file), "")
        if not HOOK_NAME.fullmatch(name) or names.count(name) > 1:
            raise Mistake(f"--hook {file}: each hook needs a name of its own, of letters, digits, "
                          "dots and dashes")
    if "overlay" in names and OVERLAY[1] not in names:
        raise Mistake("--hook overlay needs a file: --hook overlay=FILE")
    check_packed(job, [(name, file) for name, file in files if name != OVERLAY[1]])


def shipped_hooks() -> list[str]:
    return sorted(path.name for path in HOOKS.glob("*")) or ["none"]


def check_packed(job: Job, hooks: list[tuple[str, Path]]) -> None:
    """Are the tools in the initramfs that the hooks say they need?

    A line `# needs: ext4|xfs efi` means efi, and one of the first two."""
    packed = packed_in(job)
    for name, file in hooks:
        for word in needs_of(file.read_text(errors="replace")):
            if not packed & set(word.split("|")):
                raise Refused(f"hook {name} needs '{word}' in the initramfs: "
                              f"pack it once more, with --with {word.split('|')[0]} as well")


def packed_in(job: Job) -> set[str]:
    """The lists of initramfs/with in the initramfs."""
    listed = run(str(TOP / "scripts/mkinitramfs"), "--list-with", job.initramfs)
    if listed.returncode:
        raise Refused(first_line(listed.stderr).removeprefix("mkinitramfs: "))
    return set(listed.stdout.split())


def has_table(job: Job) -> bool:
    """Do machines make a partition table first?"""
    return any("#" in image.target for image in job.images)


def needs_of(hook: str) -> list[str]:
    for line in hook.splitlines():
        if line.startswith("# needs:"):
            return line.removeprefix("# needs:").split()
    return []


# --- tools ------------------------------------------------------------------------------------


def run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, timeout=600, check=False)
    except OSError as error:
        raise Refused(f"cannot start {command[0]}: {error.strerror}") from None


def first_line(text: str) -> str:
    """Of a tool's error: the reason. What follows is advice."""
    for line in text.splitlines():
        if line.strip():
            return line.strip()
    return "no reason given"
