"""Do the scripts of Debian's Clonezilla deploy with our `ezio`?

Clonezilla 5.3.17 calls EZIO 1. Its own ocs-gen-bt-slices, ocs-gen-bt-metainfo and ocs-btsrv run
here unchanged, with the real partclone and opentracker. These things are not as in a real room:

* /dev/sda1 and /dev/sda2 are nodes of partitions on loop devices;
* the whitelist is put where this opentracker looks for it, below its root folder: ocs-btsrv of
  5.3.17 names a file that nobody writes, and then Debian's opentracker serves no torrent;
* the torrents are copied to the machine, which in a room fetches them from the server's lighttpd;
* `ezio -t 0` instead of `-t 1`, so that a machine does not wait for a minute when all is done;
* ocs-sr, which makes the partitions around this, runs in `restore`.
"""

import os
import shutil
import subprocess
from pathlib import Path

from harness import AGENT, Failed, check, wait_until
from machines import Machine, check_ext4, disk, file_systems, same_partition

SIZES_MIB = (24, 40)
NAMES = ("sda1", "sda2")
KINDS = ("ext4", "vfat")


def room(stage, sizes_mib=SIZES_MIB):
    """Server and machine; the server's partitions and the machine's."""
    source, target = disk(stage, "source", SIZES_MIB), disk(stage, "target", sizes_mib)
    file_systems(stage, source)
    server = Machine(stage, "server", 1, dict(zip(NAMES, source)))
    machine = Machine(stage, "machine", 2, dict(zip(NAMES, target)))
    return server, machine, source, target


def clone(stage, source):
    """Images of the partitions by partclone, all at once: it pauses more than it works."""
    images = [stage.path(kind) for kind in KINDS[:len(source)]]
    partclone(*(f"partclone.{kind} -c -s {one} -o {image}"
                for kind, one, image in zip(KINDS, source, images)))
    return images


def restored(stage, images):
    """What partclone makes of them: partitions."""
    partitions = disk(stage, "restored", SIZES_MIB[:len(images)])
    partclone(*(f"partclone.{kind} -r -s {image} -o {one}"
                for kind, one, image in zip(KINDS, partitions, images)))
    return partitions


def partclone(*commands):
    """Without -L it would write a log of the host."""
    started = [subprocess.Popen([*command.split(), "-L", os.devnull], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for command in commands]
    for process, command in zip(started, commands):
        check(process.wait(60) == 0, f"{command} fails")


def put_image(server, images):
    """A Clonezilla image of two partitions, compressed."""
    image = server.images / "img"
    image.mkdir()
    (image / "parts").write_text(" ".join(NAMES) + "\n")
    (image / "disk").write_text("sda\n")
    for name, kind, plain in zip(NAMES, KINDS, images):
        compressed = image / f"{name}.{kind}-ptcl-img.zst.aa"
        subprocess.run(["zstd", "-q", "-o", compressed, plain], check=True)


def allow(server, torrents):
    """See above."""
    info_hashes = [info_hash_of(torrent) for torrent in torrents]
    whitelist = server.images / "btzone/img/etc/opentracker/whitelist.txt"
    whitelist.parent.mkdir(parents=True)
    whitelist.write_text("".join(f"{line}\n" for line in info_hashes))
    # opentracker is not root.
    for folder in whitelist.parents:
        if folder == server.stage.directory.parent:
            break
        folder.chmod(0o755)


def info_hash_of(torrent):
    told = subprocess.run([AGENT, "info", torrent], check=True, capture_output=True, text=True)
    return next(line.split()[-1] for line in told.stdout.splitlines() if "info-hash" in line)


def torrents_of(server):
    return [server.images / f"btzone/img/{name}.torrent" for name in NAMES]


def deploy(server, machine):
    """Copies the torrents, and returns the started leecher of Clonezilla."""
    folder = machine.images / "btzone/img"
    folder.mkdir(parents=True)
    for torrent in torrents_of(server):
        shutil.copy(torrent, folder)
    return machine.start("ocs-btsrv", "ocs-btsrv", "--for-leecher", "-r", machine.images / "btzone",
                         "start", "img", *NAMES)


def check_deployed(stage, target, images):
    """Each partition is what partclone makes of its image; file systems are clean."""
    for one, other, name in zip(target, restored(stage, images), NAMES):
        check(same_partition(one, other), f"{name} differs from what partclone restores")
    check_ext4(stage, target[0])
    for fat in target[1:]:
        subprocess.run(["fsck.vfat", "-n", fat], check=True, stdout=subprocess.DEVNULL)


def check_stops(server):
    """Clonezilla ends the seed by the number that it has noted, and by SIGKILL."""
    seeds = server.processes("ezio")
    check(len(seeds) == 1, f"there are {len(seeds)} processes called ezio on the server")
    noted = list((server.directory / "var/log/clonezilla").glob("*torrent.pid"))
    check([int(path.read_text()) for path in noted] == seeds, "the noted number is another")
    server.run("ocs-btsrv", "stop", "all")
    wait_until("ezio has ended", 5, lambda: not server.processes("ezio"))


def serve_image(stage, server):
    """Clonezilla seeds the image."""
    server.run("ocs-gen-bt-slices", "img", *NAMES)
    # The tracker reads its whitelist when it starts, in the middle of ocs-btsrv.
    early = []
    for name in NAMES:
        early.append(stage.path(f"{name}.torrent"))
        server.run("partclone_create_torrent.py", "-p", name, "-c", "test", "-o", early[-1],
                   "-i", server.images / f"btzone/img/{name}.torrent.info")
    allow(server, early)
    server.run("ocs-btsrv", "-p", server.address, "start", "img", *NAMES)
    check(all(map(Path.exists, torrents_of(server))), "ocs-btsrv has made no torrents")


def clonezilla_of_debian_deploys_an_image(stage):
    server, machine, source, target = room(stage)
    images = clone(stage, source)
    put_image(server, images)
    serve_image(stage, server)
    deploy(server, machine).expect(0, 60)
    check_deployed(stage, target, images)
    check_stops(server)


def clonezilla_of_debian_deploys_from_a_device(stage):
    server, machine, source, target = room(stage)
    images = clone(stage, source)
    folder = server.images / "btzone/img"
    folder.mkdir(parents=True)
    server.run("ocs-gen-bt-metainfo", "-d", folder, *NAMES)
    allow(server, torrents_of(server))
    server.run("ocs-btsrv", "-f", "-p", server.address, "start", "img", *NAMES)
    deploy(server, machine).expect(0, 60)
    check_deployed(stage, target, images)
    check_stops(server)


def a_target_that_is_too_small_does_not_end_clonezilla(stage):
    """ocs-btsrv loses the status of ezio in a pipe, so ezio stays. A torrent of partclone does not
    say how large the partition was, only where its data lies: 8 MiB cannot hold that."""
    server, machine, _, target = room(stage, sizes_mib=(24, 8))
    folder = server.images / "btzone/img"
    folder.mkdir(parents=True)
    server.run("ocs-gen-bt-metainfo", "-d", folder, *NAMES)
    allow(server, torrents_of(server))
    server.run("ocs-btsrv", "-f", "-p", server.address, "start", "img", *NAMES)
    before = [Path(part).read_bytes() for part in target]
    leecher = deploy(server, machine)
    wait_until("the error is shown", 30, lambda: "NOT DEPLOYED" in leecher.output())
    check("/dev/sda2 holds" in leecher.output(), f"no reason is given:\n{leecher.tail()}")
    try:
        leecher.wait(5)
    except Failed:
        pass
    leecher.expect_running()
    check([Path(part).read_bytes() for part in target] == before, "something was written")
    machine.run("kill", "-TERM", *map(str, machine.processes("ezio")))
    leecher.wait(10)


CASES = [
    clonezilla_of_debian_deploys_an_image,
    clonezilla_of_debian_deploys_from_a_device,
    a_target_that_is_too_small_does_not_end_clonezilla,
]
