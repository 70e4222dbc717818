"""How do machines find the boot script: by our dnsmasq, or by somebody else's DHCP server?"""
from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from . import components
from .components import Component
from .job import Job
from .ports import Need
from .state import State

IPXE = Path("/usr/lib/ipxe")
# Both use the driver of the firmware, which has just worked; ipxe.efi has drivers of its own and
# hangs in `exit`.
LOADERS = ("undionly.kpxe", "snponly.efi")
# What dnsmasq needs if it is not root, by the number of the bit (capabilities(7)).
CAPABILITIES = {10: "CAP_NET_BIND_SERVICE", 12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}


def needs(job: Job) -> list[Need]:
    """The ports of dnsmasq."""
    if job.dhcp == "none":
        return []
    advice = "--no-dhcp"
    ports = [Need("udp", "0.0.0.0", 67, advice, job.interface),
             Need("udp", job.address, 69, advice, job.interface)]
    if job.dhcp == "proxy":
        # Where firmware asks a proxy for the boot file.
        ports.append(Need("udp", "0.0.0.0", 4011, advice, job.interface))
    return ports


def missing_capabilities() -> list[str]:
    """A program that we start gets the ambient capabilities only, unless we are root."""
    if os.geteuid() == 0:
        return []
    status = Path("/proc/self/status").read_text()
    ambient = next(int(line.split()[1], 16) for line in status.splitlines()
                   if line.startswith("CapAmb:"))
    return [name for bit, name in CAPABILITIES.items() if not ambient >> bit & 1]


def range_trouble(job: Job, network: ipaddress.IPv4Network) -> str | None:
    """What is wrong with --dhcp FIRST,LAST here. dnsmasq starts with any range, and then answers
    nobody."""
    for end in job.dhcp_range.split(","):
        if ipaddress.IPv4Address(end) not in network:
            return (f"--dhcp {job.dhcp_range}: {end} is not in the network of {job.interface}, "
                    f"which is {network}")
    if job.dhcp_range == f"{job.address},{job.address}":
        return f"--dhcp {job.dhcp_range}: this is the address of the server"
    return None


def install_loaders(state: State) -> None:
    """iPXE for machines without it: by TFTP, or from the URL that UEFI HTTP boot wants."""
    for name in LOADERS:
        if (IPXE / name).exists():
            copy = state.www / "tftp" / name
            copy.write_bytes((IPXE / name).read_bytes())
            copy.chmod(0o644)


def component(job: Job, state: State, server: str) -> Component:
    dnsmasq = Component("dnsmasq", command(job, state, server))
    # It says so when it has opened its sockets.
    dnsmasq.trouble = lambda: None if any(
        "started, " in line for line in components.words_of(dnsmasq, state)) else "it is silent"
    return dnsmasq


def command(job: Job, state: State, server: str) -> list[str]:
    """A machine whose network card has iPXE (QEMU's cards do) goes straight to the script; other
    machines get iPXE first. Client architectures: RFC 4578 and IANA; 0 is a BIOS, 7 and 9 are UEFI
    on x86-64, 16 is its HTTP boot."""
    (state.root / "leases").touch()
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
             "--log-facility=-", "--log-dhcp", "--port=0", f"--interface={job.interface}",
             "--bind-dynamic", "--except-interface=lo", f"--dhcp-leasefile={state.root}/leases",
             "--enable-tftp", f"--tftp-root={state.www}/tftp", "--dhcp-match=set:ipxe,175",
             "--dhcp-match=set:http,option:client-arch,16",
             "--dhcp-match=set:bios,option:client-arch,0",
             "--dhcp-match=set:efi,option:client-arch,7",
             "--dhcp-match=set:efi,option:client-arch,9",
             # With proxy DHCP, iPXE takes a script only from a server that names itself as the
             # next one.
             f"--dhcp-boot=tag:ipxe,{server}/boot.ipxe,,{job.address}",
             f"--dhcp-boot=tag:!ipxe,tag:http,{server}/tftp/snponly.efi"]
    return words + (as_server(job) if job.dhcp == "range" else as_proxy(job))


def as_server(job: Job) -> list[str]:
    """A client that names no architecture is an old BIOS."""
    # A name in /etc/ethers may be an IP address; dnsmasq then gives this one.
    hosts = [f"--dhcp-host={machine.mac.replace('-', ':')},{machine.name}"
             for machine in job.machines]
    return ["--dhcp-authoritative", f"--dhcp-range={job.dhcp_range},1h",
            "--dhcp-option-force=tag:http,option:vendor-class,HTTPClient",
            "--dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe",
            "--dhcp-match=set:arch,option:client-arch",
            "--dhcp-boot=tag:!ipxe,tag:!arch,undionly.kpxe",
            "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi", *hosts]


def as_proxy(job: Job) -> list[str]:
    """Another server gives the addresses. As a proxy, dnsmasq does not answer an old BIOS, answers
    HTTP boot only if told so, and would send the URL of a --pxe-service too late."""
    return [f"--dhcp-range={job.address},proxy", "--dhcp-pxe-vendor=PXEClient,HTTPClient",
            "--pxe-service=tag:!ipxe,x86PC,swarmdd,undionly.kpxe",
            "--pxe-service=tag:!ipxe,X86-64_EFI,swarmdd,snponly.efi",
            "--pxe-service=tag:!ipxe,BC_EFI,swarmdd,snponly.efi"]


def is_warning(line: str) -> bool:
    """Is this line of dnsmasq's log for the person at the server?"""
    return any(word in line for word in ("warning", "no address range", "failed", "cannot",
                                         "not available", "no address available"))


def foreign_server_words(job: Job, state: State, server: str) -> str:
    """With --no-dhcp: what to enter in a DHCP server of the site. It names a TFTP server, which is
    the site's own, too."""
    boot, here = f"{server}/boot.ipxe", job.address
    return f"""What to enter in the DHCP server of the site. {here} stands for a TFTP server
with undionly.kpxe and snponly.efi; copies are in
{state.www}/tftp
ISC dhcpd:
  option arch code 93 = unsigned integer 16;
  next-server {here};
  if exists user-class and option user-class = "iPXE" {{
    filename "{boot}";
  }} elsif option arch = 00:07 or option arch = 00:09 {{
    filename "snponly.efi";
  }} else {{
    filename "undionly.kpxe";
  }}
Kea, in Dhcp4:
  "next-server": "{here}",
  "client-classes": [
    {{ "name": "ipxe", "test": "option[77].hex == 'iPXE'",
      "boot-file-name": "{boot}" }},
    {{ "name": "efi7", "test": "not member('ipxe') and option[93].hex == 0x0007",
      "boot-file-name": "snponly.efi" }},
    {{ "name": "efi9", "test": "not member('ipxe') and option[93].hex == 0x0009",
      "boot-file-name": "snponly.efi" }},
    {{ "name": "bios", "test": "not member('ipxe') and option[93].hex == 0x0000",
      "boot-file-name": "undionly.kpxe" }} ]
Windows DHCP Server: define the user class iPXE (ASCII: iPXE) and the vendor
classes PXEClient:Arch:00000, PXEClient:Arch:00007, PXEClient:Arch:00009; then
three policies of the scope:
  user class iPXE:                 067 = {boot}
  vendor class …:00007* or …:00009*: 066 = {here}, 067 = snponly.efi
  vendor class …:00000*:             066 = {here}, 067 = undionly.kpxe
A router of the FritzBox kind can name no boot file: use --proxy-dhcp, which
leaves the router as it is and needs nothing from it."""
