"""What does a machine boot? Texts of iPXE scripts and kernel options, made of the job and the
roster.

A machine asks for /boot/MAC. nginx answers with machines/MAC.ipxe if there is this file, else with
unlisted.ipxe.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .job import Image, Job, Machine, Torrent, images_of, is_host_name
from .machine import FAILED, OWN_DISK
from .roster import Roster
from .row import Row

# In a script that serves many machines, iPXE puts the MAC address here.
ANY_MAC = "${netX/mac:hexhyp}"
# COMMAND_LINE_SIZE of x86 is 2048 with its end; the kernel cuts off the rest without a word.
KERNEL_OPTIONS_MAX = 2047


@dataclass(frozen=True)
class Served:
    """An image of the job as machines fetch it."""

    image: Image
    # Of the torrent, below www/.
    file: str
    info_hash: str
    bytes: int

    def torrent(self) -> Torrent:
        return Torrent(self.image.name, self.bytes, self.info_hash, self.image.target)


@dataclass(frozen=True)
class Plan:
    """Everything that the boot scripts depend on."""

    job: Job
    # See job.job_id.
    id: str
    # http://ADDRESS or http://ADDRESS:PORT
    server: str
    images: tuple[Served, ...]
    # Names below www/hooks/, in order.
    hooks: tuple[str, ...] = ()
    # The partition table that disks get first, below www/; or "".
    table: str = ""


def server_url(job: Job) -> str:
    return f"http://{job.address}" + ("" if job.http_port == 80 else f":{job.http_port}")


# --- decisions ----------------------------------------------------------------


def decisions(plan: Plan, rows: Iterable[Row], roster: Roster, tried_since: float
              ) -> dict[str, str]:
    """MAC -> script, for every machine that gets another one than unlisted.ipxe. A machine that
    failed before `tried_since` is tried again."""
    listed = {machine.mac: machine for machine in plan.job.machines}
    scripts = {mac: deploy_script(plan, mac, machine) for mac, machine in listed.items()}
    for row in rows:
        if not row.mac:
            continue
        decision = roster.decision(row.mac)
        if decision == OWN_DISK:
            scripts[row.mac] = local_script(plan.server)
        elif decision == FAILED and (row.state_since or 0) > tried_since:
            script = failed_script(plan, row.mac, listed.get(row.mac))
            if script:
                scripts[row.mac] = script
    return scripts


def failed_script(plan: Plan, mac: str, machine: Machine | None) -> str | None:
    """After a failure, the same again would mostly fail again, and with --onfail reboot for ever.
    So the machine does not write its disk until somebody says so (`serve --again`), unless the job
    asks to try again. None: as if it had not failed."""
    if plan.job.onfail == "shell":
        return shell_script(plan, mac, machine)
    if plan.job.onfail in ("reboot", "poweroff"):
        return local_script(plan.server, "This machine failed; serve --again images it again.")
    return None


# --- scripts --------------------------------------------------------------------


def first_script(server: str) -> str:
    """Every machine asks by its MAC address, and the server decides. A lost packet must not turn
    "boot from disk" into "deploy", so there is no `||` to another script."""
    return f"""#!ipxe
:again
chain --replace --autofree {server}/boot/{ANY_MAC}?platform=${{platform}} || sleep 5
goto again
"""


def unlisted_script(plan: Plan) -> str:
    """For machines without a script of their own."""
    if plan.job.only_listed:
        words = f"This machine ({ANY_MAC}) is not on the list of this job: it is not imaged."
        return local_script(plan.server, words)
    return deploy_script(plan, ANY_MAC)


def deploy_script(plan: Plan, mac: str, machine: Machine | None = None) -> str:
    return start_script(plan.server, kernel_options(plan, mac, machine))


def shell_script(plan: Plan, mac: str, machine: Machine | None) -> str:
    """Our initramfs, which stops before it does anything: see FAILED_HOOK. It reports nothing, or
    the server would forget the reason of the failure."""
    options = kernel_options(plan, mac, machine, reports=False)
    return start_script(plan.server, f"{options} swarmdd.pre={plan.server}/failed.sh")


# Runs as swarmdd.pre, whose first words on the standard error become the reason on the screen.
FAILED_HOOK = """echo "this machine failed before; on the server, \
'serve --again $SWARMDD_MAC' images it again" >&2
exit 1
"""


def start_script(server: str, options: str) -> str:
    return f"""#!ipxe
:again
kernel {server}/kernel initrd=initramfs {options} || goto wait
initrd --name initramfs {server}/initramfs || goto wait
boot
:wait
imgfree
sleep 5
goto again
"""


def local_script(server: str, words: str = "") -> str:
    """Many a BIOS hangs on `exit`, so on a BIOS iPXE starts the first disk itself. Under UEFI this
    iPXE (2019) knows no local disk, so GRUB starts the loader there; it returns if it finds none.
    Then a failure tells the firmware to go on with its boot order, where other network entries take
    OVMF four minutes. Success would open the setup."""
    said = f"echo {words}\nsleep 5\n" if words else ""
    return f"""#!ipxe
{said}iseq ${{platform}} efi && goto efi ||
sanboot --no-describe --drive 0x80 || exit
:efi
chain {server}/disk/{ANY_MAC} ||
exit 1
"""


# --- kernel options ---------------------------------------------------------------


def kernel_options(plan: Plan, mac: str, machine: Machine | None = None, *,
                   reports: bool = True) -> str:
    """Of one machine, or of any (`mac` is then a placeholder)."""
    job = plan.job
    options = []
    served = {served.image.name: served for served in plan.images}
    for image in images_of(machine, job):
        options += [f"swarmdd.torrent={plan.server}/{served[image.name].file}",
                    f"swarmdd.target={quoted(image.target)}",
                    f"swarmdd.info_hash={served[image.name].info_hash}"]
    if plan.table:
        options.append(f"swarmdd.table={plan.server}/{plan.table}")
    if reports:
        options.append(f"swarmdd.report={plan.server}/report?job={plan.id}&mac={mac}")
    options += [f"BOOTIF=01-{mac}", f"swarmdd.then={job.then}", f"swarmdd.onfail={job.onfail}"]
    if machine and is_host_name(machine.name):
        options.append(f"swarmdd.hostname={machine.name}")
    options.append(f'swarmdd.args="{" ".join(agent_options(job, machine))}"')
    options += [f"swarmdd.post={plan.server}/hooks/{hook}" for hook in plan.hooks]
    return " ".join(options + ([job.append] if job.append else []))


def agent_options(job: Job, machine: Machine | None = None) -> list[str]:
    """Split as init splits them: at white space."""
    words = f"--tracker-grace {job.grace} {job.args} {machine.args or '' if machine else ''}"
    seed = ["--peer", f"{job.address}:{job.seed_port}"] if job.no_tracker else []
    return [*allow_options(job), *seed, *words.split()]


def allow_options(job: Job) -> list[str]:
    return [word for subnet in job.allow if subnet != "any" for word in ("--allow", subnet)]


def quoted(value: str) -> str:
    """A model of a disk may have spaces in its name. (Double quotes in it are refused.)"""
    return f'"{value}"' if " " in value else value


# --- files below www/ ---------------------------------------------------------------


def torrent_name(number: int, image: Image) -> str:
    """`N-NAME.torrent`, of characters that mean nothing in a URL or on a kernel command line."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(image.path).name)
    return f"{number}-{name}.torrent"
