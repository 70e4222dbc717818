"""How are the file systems made, filled, copied by the real partclone, checked and looked at?"""

import filecmp
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import MIB, check

# What the files of a case are taken from: the library of Python, which is there.
LIBRARY = Path(os.__file__).parent
TREE_BYTES = 6 * MIB


def run(*command):
    """The output of a command that must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0,
          f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def run_all(commands):
    """All at once: each partclone sleeps for two seconds."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        list(pool.map(lambda command: run(*command), commands))


def tree(stage):
    """A directory of real files of all sizes."""
    place = stage.directory_for("tree")
    total = 0
    for number, source in enumerate(sorted(LIBRARY.rglob("*.py"))):
        if total < TREE_BYTES:
            total += shutil.copyfile(source, place / f"{number}-{source.name}").stat().st_size
    (place / "large").write_bytes(os.urandom(2 * MIB + 77))
    return place


def copy_in(files, place):
    for path in files.iterdir():
        shutil.copyfile(path, place / path.name)
        (place / f"gone-{path.name}").write_bytes(b"junk" * 3000)


def remove_some(place):
    for path in place.glob("gone-*"):
        path.unlink()


def same_files(files, place):
    names = sorted(path.name for path in files.iterdir())
    same, other, failed = filecmp.cmpfiles(files, place, names, shallow=False)
    check(len(same) == len(names) > 50, f"files differ: {other}, or are missing: {failed}")


class FileSystem:
    """How a kind of file system is made, filled, checked and looked at. Without a mount command,
    the kernel has a driver."""

    def __init__(self, name, megabytes, mkfs, fsck, *, mount=(), program=None):
        self.name, self.bytes, self.mkfs, self.fsck = name, megabytes * MIB, mkfs, fsck
        self.mount, self.program = mount, program or name

    def partclone(self, *arguments):
        """The command. Without -L it would write a log of the host."""
        return [f"partclone.{self.program}", "-L", os.devnull, *arguments]

    def mounted(self, stage, device, work):
        place = Path(tempfile.mkdtemp(dir=stage.directory))
        command = self.mount or ("mount", "-t", self.program)
        run(*command, device, place)
        stage.undo.append(["umount", place])
        work(place)
        run(*stage.undo.pop())

    def fill(self, stage, device, files):
        self.mounted(stage, device, lambda place: copy_in(files, place))
        # Not before all are on the disk, or their blocks would be given to others.
        self.mounted(stage, device, remove_some)

    def check_files(self, stage, device, files):
        self.mounted(stage, device, lambda place: same_files(files, place))


class Fat(FileSystem):
    """This kernel may have no driver: mtools."""

    def fill(self, stage, device, files):
        run("mcopy", "-i", device, *sorted(files.iterdir()), "::")
        names = [path.name for path in sorted(files.iterdir())[::5]]
        run("mdel", "-i", device, *(f"::{name}" for name in names))
        run("mcopy", "-i", device, *(files / name for name in reversed(names)), "::")

    def check_files(self, stage, device, files):
        place = stage.directory_for("fat-target")
        run("mcopy", "-i", device, "::*", place)
        same_files(files, place)


class F2fs(FileSystem):
    """Nothing mounts it here: its own tools."""

    def fill(self, stage, device, files):
        run("sload.f2fs", "-f", files, device)

    def check_files(self, stage, device, files):
        # The number of a file is in what the check prints of every directory entry.
        listed = run("fsck.f2fs", "-t", device)
        check(all(path.name[:20] in listed for path in files.iterdir()), f"it lists:\n{listed}")


EXT = ("mkfs.ext4", "-q", "-F")
E2FSCK = ("e2fsck", "-fn")
FILE_SYSTEMS = [
    FileSystem("ext4", 64, (*EXT, "-b", "4096"), E2FSCK),
    FileSystem("ext4-1k", 64, (*EXT, "-b", "1024"), E2FSCK, program="ext4"),
    FileSystem("ntfs", 64, ("mkntfs", "-q", "-Q", "-F"),
               # ntfsfix misses the last sector, which partclone leaves out.
               ("ntfsresize", "--info", "--force", "--no-progress-bar"), mount=("ntfs-3g",)),
    Fat("fat32", 64, ("mkfs.fat", "-I", "-F", "32"), ("fsck.fat", "-n")),
    FileSystem("exfat", 64, ("mkfs.exfat",), ("fsck.exfat", "-n"), mount=("mount.exfat-fuse",)),
    FileSystem("xfs", 320, ("mkfs.xfs", "-q", "-f"), ("xfs_repair", "-n")),
    FileSystem("btrfs", 128, ("mkfs.btrfs", "-q", "-f"), ("btrfs", "check", "-q")),
    F2fs("f2fs", 160, ("mkfs.f2fs", "-q", "-f"), ("fsck.f2fs", "--dry-run")),
]
def empty_loop(stage, name, length):
    backing = stage.path(name)
    with open(backing, "wb") as file:
        file.truncate(length)
    return stage.attach(backing)


def filled(stage, system, files):
    """A loop device with this file system and these files."""
    device = empty_loop(stage, f"{system.name}-disk", system.bytes)
    run(*system.mkfs, device)
    system.fill(stage, device, files)
    return device


def restore(image, device):
    return ["partclone.restore", "-s", image, "-O", device, "-L", os.devnull]


def clone(stage, system, device, name, *options):
    image = stage.path(name)
    run(*system.partclone("-c", "-s", device, "-O", image, *options))
    return image


def restored(stage, image, name, length):
    """What partclone makes of it, on a device of zeros."""
    device = empty_loop(stage, name, length)
    run(*restore(image, device))
    return device
