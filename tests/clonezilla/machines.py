"""What does a machine of Clonezilla look like?

Namespaces: an address, disks and partitions by the names that Clonezilla knows, and no others, a
folder of images, and processes, a /run, a /tmp and a /var/log of its own. Clonezilla's scripts are
those of the host. All of its processes end with the first one.
"""

import os
import subprocess
from pathlib import Path

from harness import AGENT, MIB, TOP, check, wait_until

INSTALL = TOP / "scripts/clonezilla/install"
# Three of Clonezilla's settings are others: where the images are, `ezio -t 1`, which would wait for
# a minute when all is done, and the pause before a report, which is up to 20 seconds.
SETTINGS = Path("/etc/drbl/drbl-ocs.conf")
NETWORK = "10.77.0"
MACHINE = r"""set -eu
dir=$1
shift
# This tree may be below /tmp itself.
case $top in
/tmp/*) mkdir -p "$dir$top"; mount --bind "$top" "$dir$top" ;;
esac
for folder in run tmp var/log; do
    mkdir -p "$dir/$folder"
    mount --rbind "$dir/$folder" "/$folder"
done
mkdir -p /var/log/clonezilla "$dir/images"
{
    echo "ocsroot=$dir/images"
    sed 's/^ezio_leecher_opt=.*/ezio_leecher_opt="-t 0"/
        s/^NOTIFY_OCS_SERVER_TIME_LIMIT=.*/NOTIFY_OCS_SERVER_TIME_LIMIT=1/' "$settings"
} > "$dir/settings"
mount --bind "$dir/settings" "$settings"
mkdir "$dir/dev"
mount -t tmpfs none "$dir/dev"
for name in null zero full random urandom tty; do cp -a "/dev/$name" "$dir/dev/"; done
cp -a /dev/loop* "$dir/dev/"
mkdir "$dir/dev/pts" "$dir/dev/shm"
mount --bind /dev/pts "$dir/dev/pts"
cp -a /dev/ptmx "$dir/dev/"
ln -s /proc/self/fd "$dir/dev/fd"
printf 'major minor  #blocks  name\n\n' > "$dir/partitions"
mount -t tmpfs none /sys/block
for pair; do
    name=${pair%%=*} device=${pair#*=}
    major=$((0x$(stat -c %t "$device"))) minor=$((0x$(stat -c %T "$device")))
    mknod "$dir/dev/$name" b "$major" "$minor"
    echo "$major $minor $(($(blockdev --getsize64 "$device") / 1024)) $name" >> "$dir/partitions"
    case $name in
    *[0-9]) ;;
    *) ln -s "$(readlink -f "/sys/class/block/${device##*/}")" "/sys/block/$name" ;;
    esac
done
mount --bind "$dir/partitions" /proc/partitions
mount --move "$dir/dev" /dev
ip link set lo up
touch "$dir/ready"
# The first process takes in those whose parent has ended.
while true; do
    sleep 1000 &
    wait "$!" || true
done
"""


class Machine:
    def __init__(self, stage, name, number, partitions):
        """`partitions` is {"sda1": device}. The commands of `install` come first in PATH."""
        self.stage, self.name = stage, name
        self.address = f"{NETWORK}.{number}"
        self.directory = stage.directory_for(name)
        self.images = self.directory / "images"
        self.prefix = installed(stage)
        self.holder = stage.start(f"{name}-holder", [
            "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "--", "sh", "-c", MACHINE, "machine", self.directory,
            *(f"{name}={device}" for name, device in partitions.items()),
        ], env={**os.environ, "settings": str(SETTINGS), "top": str(TOP)})
        wait_until(f"{name} is there", 10, lambda: (
            (self.directory / "ready").exists() or self.holder.expect_running()))
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.pid = int(children.read_text())
        # Its disks are detached when its last process is gone.
        stage.undo.append(["timeout", "5", "tail", "--pid", str(self.pid), "-f", "/dev/null"])
        plug_in(self.pid, name, self.address)

    def command(self, *words):
        path = f"{self.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [
            "nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--",
            "env", f"PATH={path}", "LC_ALL=C", "TERM=linux", *words,
        ]

    def start(self, name, *words):
        return self.stage.start(f"{self.name}-{name}", self.command(*words))

    def run(self, *words, seconds=60, status=0):
        """The output of a program that ends with this status."""
        process = self.start(str(words[0]).rsplit("/", maxsplit=1)[-1], *words)
        process.expect(status, seconds)
        return process.output()

    def processes(self, name):
        """The numbers of the processes with this name, as this machine counts them."""
        command = self.command("ps", "-C", name, "-o", "pid=")
        return list(map(int, subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
                        .split()))


def installed(stage):
    prefix = stage.path("usr")
    if not prefix.exists():
        subprocess.run([INSTALL, "--prefix", prefix, "--agent", AGENT], check=True,
                       stderr=subprocess.DEVNULL)
    return prefix


def plug_in(pid, name, address):
    ip = ["ip", "link"]
    if subprocess.run([*ip, "show", "br0"], capture_output=True, check=False).returncode:
        subprocess.run([*ip, "add", "br0", "type", "bridge", "forward_delay", "0"], check=True)
        subprocess.run([*ip, "set", "br0", "up"], check=True)
    outside = f"v-{name}"
    subprocess.run([*ip, "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(pid)],
                   check=True)
    subprocess.run([*ip, "set", outside, "master", "br0", "up"], check=True)
    inside = ["nsenter", f"--target={pid}", "--net", "ip"]
    subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
    subprocess.run([*inside, "address", "add", f"{address}/24", "dev", "eth0"], check=True)


# ---- disks


def disk(stage, name, sizes_mib):
    """A loop device with a partition of each size, filled with 0xA5; and its partitions."""
    backing = stage.path(name)
    backing.write_bytes(b"\xa5" * (sum(sizes_mib) + 2) * MIB)
    table = "label: dos\n" + "".join(f"size={size}MiB\n" for size in sizes_mib)
    subprocess.run(["sfdisk", "--quiet", "--wipe", "always", backing], input=table, text=True,
                   check=True)
    device = stage.attach(backing, partitions=True)
    partitions = [f"{device}p{number}" for number in range(1, len(sizes_mib) + 1)]
    if not os.path.exists(partitions[0]):  # a kernel that reads no partition tables is told
        start = 2048
        for number, size in enumerate(sizes_mib, 1):
            subprocess.run(["addpart", device, str(number), str(start), str(size * 2048)],
                           check=True)
            start += size * 2048
    wait_until("the partitions are there", 5, lambda: all(map(os.path.exists, partitions)))
    return partitions


def file_systems(stage, partitions):
    """An ext4 on the first one and a FAT on the second one, with files."""
    tree = stage.directory_for("tree")
    (tree / "noise").write_bytes(os.urandom(9 * MIB + 777))
    (tree / "words").write_text("deployed\n")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, partitions[0]], check=True)
    if partitions[1:]:
        subprocess.run(["mkfs.vfat", "-F", "32", "-s", "1", partitions[1]], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["mcopy", "-i", partitions[1], "-s", tree / "noise", tree / "words", "::"],
                       check=True, stderr=subprocess.DEVNULL)


def same_partition(one, other):
    return subprocess.run(["cmp", "--quiet", one, other], check=False).returncode == 0


def check_ext4(stage, partition):
    """It is clean, and its files are those of the source."""
    subprocess.run(["e2fsck", "-fn", partition], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    place = stage.mount(partition, f"mounted-{Path(partition).name}", "ext4")
    for name in ("noise", "words"):
        found, expected = place / name, stage.path("tree") / name
        check(found.read_bytes() == expected.read_bytes(), f"{found} differs")
