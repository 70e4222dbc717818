"""Does a whole machine of Debian's Clonezilla, from its first question to its last, deploy with our
`ezio`?

ocs-sr saves a disk on the server, and the server offers it as its ocs-live-feed-img does. The
machine runs `ocs-live-get-img SERVER`: it fetches the image without its data, and `ocs-sr ...
bt_restoredisk` writes the partition table, calls `ocs-btsrv --for-leecher`, which calls `ezio`, and
makes the swap. When that has ended, it tells ocsmgrd. Besides what `debian` lists, these things are
not as in a real room:

* nobody boots: server and machine are namespaces;
* sda, sda1, sda2 and sda3 are loop devices on one file, with a /proc/partitions and a /sys/block of
  their own, because this kernel reads no partition table of a loop device. So the partitions are
  there before ocs-sr writes the table, and its partprobe and `blockdev --rereadpt` fail, which it
  overlooks;
* ocs-live-feed-img does not run, since it starts services by systemd: `offer` writes its two files
  as it does, and Python's http.server serves them in lighttpd's place.
"""

import shutil
import subprocess

from cases.debian import NAMES, SIZES_MIB, check_stops, serve_image, torrents_of
from cases.notice import start_ocsmgrd
from fixtures import spoil
from harness import AGENT, MIB, check, wait_until
from machines import Machine, check_ext4, file_systems

PARTS = {**dict(zip(NAMES, SIZES_MIB)), "sda3": 8}
SWAP = ("1d5d6e0a-7b0e-4b33-9f63-5a5c00000013", "lab-swap")
# As 90-shelf saves a disk.
SAVE = "-batch -nogui -q2 -j2 -z9p -i 4096 -sfsck -sc -senc -p true savedisk img sda".split()
# What the menu of ocs-live-feed-img has chosen at first, but for `-p reboot`, and for -r, which
# fits a file system to its partition: it fits.
OPTIONS = "-g auto -e1 auto -e2 -j2 -p true"


def disk(stage, name, table):
    """{"sda": device, "sda1": ...} of a file of 0xA5 that can hold these partitions."""
    backing = stage.path(name)
    backing.write_bytes(b"\xa5" * (sum(PARTS.values()) + 2) * MIB)
    subprocess.run(["sfdisk", "--quiet", "--wipe", "always", backing], input=table, text=True,
                   check=True)
    devices, start = {"sda": stage.attach(backing)}, MIB
    for part, size in PARTS.items():
        devices[part] = stage.attach(backing, part=(start, size * MIB))
        start += size * MIB
    return devices


def table_of(disk):
    """Its partitions, without the names of devices."""
    dump = subprocess.run(["sfdisk", "--dump", disk], check=True, capture_output=True, text=True)
    return [line.split(":")[1] for line in dump.stdout.splitlines() if " : " in line]


def swap_of(device):
    """Its UUID and label."""
    return tuple(subprocess.run(["blkid", "-p", "-o", "value", "-s", tag, device], text=True,
                                capture_output=True, check=False).stdout.strip()
                 for tag in ("UUID", "LABEL"))


def offer(server):
    """What ocs-live-feed-img offers: the image without its data, and how to restore it."""
    image, folder = server.images / "img", server.directory / "www"
    pseudo = server.directory / "img-wo-fs"
    shutil.copytree(image, pseudo)
    for path in pseudo.glob("*-ptcl-img.*"):
        path.write_bytes(b"")
    (pseudo / "btzone/img").mkdir(parents=True)
    for torrent in torrents_of(server):
        shutil.copy(torrent, pseudo / "btzone/img")
    folder.mkdir()
    subprocess.run(["tar", "-C", pseudo, "-cJf", folder / "img-wo-fs.tar.xz",
                    *(path.name for path in pseudo.iterdir())], check=True)
    (folder / "ocs-client-run.conf").write_text(
        'pseudo_img="img-wo-fs.tar.xz"\n'
        'img_prefix="img"\n'
        f'ocs_sr_opt="--ocsroot /tmp/ -l en_US.UTF-8 --batch {OPTIONS} bt_restoredisk"\n'
        'ocs_restore_dev="sda"\n')
    server.start("http", "/usr/bin/python3", "-m", "http.server", "--directory", folder, "80")
    wait_until("the server listens", 5, lambda: ":80 " in server.run("ss", "-ltn"))


def ocs_sr_deploys_a_disk(stage):
    table = "label: dos\n" + "".join(f"size={size}MiB, type={kind}\n" for size, kind in zip(
        PARTS.values(), ("83", "c", "82")))
    source = disk(stage, "source", table)
    target = disk(stage, "target", "label: gpt\nsize=9MiB\n")
    file_systems(stage, [source[name] for name in NAMES])
    subprocess.run(["mkswap", "--uuid", SWAP[0], "--label", SWAP[1], source["sda3"]], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server, machine = Machine(stage, "server", 1, source), Machine(stage, "machine", 2, target)
    server.run("ocs-sr", *SAVE, seconds=120)
    serve_image(stage, server)
    offer(server)
    log = start_ocsmgrd(server)
    said = machine.run("ocs-live-get-img", "--batch", "-icol", server.address, seconds=240)
    check(table_of(target["sda"]) == table_of(source["sda"]), f"the table differs:\n{said}")
    # The FAT is as it was sent. The ext4 is not: ocs-sr has mounted it to look for GRUB.
    verify = [AGENT, "verify", torrents_of(server)[1], target["sda2"]]
    subprocess.run(verify, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    check_ext4(stage, target["sda1"])
    check(swap_of(target["sda3"]) == SWAP, f"the swap is {swap_of(target['sda3'])}")
    check(f"client {machine.address} " in log.read_text(), f"ocsmgrd has:\n{log.read_text()}")
    check_stops(server)
    # The twin: one byte in front of the files.
    spoil(target["sda2"], 3)
    done = subprocess.run(verify, check=False, capture_output=True, text=True)
    check(done.returncode == 1, f"the comparison sees nothing: {done.stderr}")


CASES = [ocs_sr_deploys_a_disk]
