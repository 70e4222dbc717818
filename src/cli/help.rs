//! What does `--help` print?
//!
//! For the program and for each command: what it does, usage, options with defaults, an example. No
//! line is longer than 80 columns; a test at the end of the file checks this.

pub(super) const PROGRAM: &str = "\
swarmdd is dd from a swarm: it puts one disk image on many machines at once,
over BitTorrent, straight onto the raw disk. Every machine passes on the pieces
that it has, and reads back what it wrote.

Usage:
  swarmdd get    [options] TORRENT TARGET [TORRENT TARGET]...
  swarmdd seed   [options] TORRENT SOURCE [TORRENT SOURCE]...
  swarmdd daemon [options] --control SOCKET
  swarmdd make   [options] SOURCE -o FILE.torrent
  swarmdd verify TORRENT TARGET
  swarmdd info   TORRENT
  swarmdd disks

Commands:
  get     Fetch an image onto a disk, read it back, then pass it on to others.
  seed    Serve an image that is already there.
  daemon  Fetch and serve what programs add while it runs.
  make    Describe a disk or an image in a torrent file.
  verify  Read a disk and compare it with a torrent; change nothing.
  info    Say what a torrent file holds and what disk it needs.
  disks   List the disks of this machine that could be a target.

Options:
  -h, --help     This text; after a command, the text for that command.
  -V, --version  The version.

Exit status: 0 done; 1 failed, and a line on stderr says what and where;
2 the command line was not understood; 3 as 1, and the server of --report could
not be told.

Example:
  swarmdd make disk.img -o disk.torrent --tracker http://10.0.0.1:6969/announce
  swarmdd seed disk.torrent disk.img
  swarmdd get http://10.0.0.1/disk.torrent /dev/sda
";

pub(super) const GET: &str = "\
Fetches each TORRENT onto its TARGET, reads everything back, and passes it on
to other machines until the tracker goes away. All refusals (disk mounted or in
use, too small, read-only, of another sector size) come before the first byte is
written.

Usage:
  swarmdd get [options] TORRENT TARGET [TORRENT TARGET]...

TORRENT is a file or an http:// URL.
TARGET is a block device, a regular file (created if missing, and cut to the
length of the image), or a selector that must match exactly one disk:
  disk:auto               the only internal disk that is not in use: SATA, SAS,
                          NVMe on PCI, eMMC, virtio; not removable
  disk:serial=TEXT        the disk with this serial number
  disk:wwn=TEXT           the disk with this World Wide Name
  disk:model=TEXT         the disk of this model
  disk:size=MIN..MAX      the disk of a size in this range, as in 200G..500G
  disk:path=PATH          the disk that PATH leads to; names below
                          /dev/disk/by-path and by-id are known without udev
Several conditions are joined with commas: disk:auto,size=200G..
A disk of the network (iSCSI, FC, NVMe-oF, rbd) and a member of a RAID of the
firmware need serial=, wwn= or path=.
A disk that is in use (mounted, swap, RAID, LVM) or that the system was booted
from never matches. `swarmdd disks` lists the disks of this machine.

After the last upload, the backup GPT of an image of a whole disk is moved to
the end of TARGET and the kernel is told to read the partition table.

Options:
  --listen ADDR:PORT    Where to wait for peers; the next free port is taken if
                        this one is in use. Default: [::]:6881
  --peer ADDR:PORT      A peer to connect to, tracker or not. Repeatable. Peers
                        learn of others from it. If the torrent names no
                        tracker, the end of a peer that seeds counts as its end.
  --allow NET/LEN       Take part only with peers of this subnet: others are not
                        called, not answered, not told of. A --peer must
                        be in one. Repeatable. Default: peers from anywhere
  --memory MIB          Memory for all buffers and tables together, 16 to 4096.
                        Default: 64, or more if the torrents need it; at most
                        half of what is free
  --compress MODE       auto: blocks go over the network compressed (LZ4) if the
                        peer is an agent of this kind, too, they shrink, and
                        this machine has the time; always: without the last;
                        never: neither sent nor taken so. Default: auto
  --max-up RATE         Send at most this many bytes of payload per second, to
                        all peers and from all pairs together, as they go over
                        the network: 128K to 1T.
                        K, M, G, T are powers of 1024. Default: no limit
  --max-down RATE       Fetch at most this many bytes of payload per second, for
                        all pairs together. TARGET is still read at full speed.
                        Default: no limit
  --progress MODE       auto: one line, redrawn, on a terminal, else plain;
                        plain: a line every 5 seconds; json: one JSON object per
                        line on stdout; none. Default: auto
  --report URL          POST what --progress json prints, and mac, nic, driver,
                        link_mbps and version, to this http:// URL: at each
                        change of state, every 5 s, every 30 s while seeding.
                        Any 2xx answer will do. A server that is away stops
                        nothing; the end waits for it for 10 s at most, and a
                        failure that it did not hear of is exit status 3.
  --info-hash HEX       Refuse a torrent with any other info-hash. With several
                        torrents: once for each, in their order.
  --fresh               Fetch everything; do not scan TARGET. By default, pieces
                        of the image that TARGET holds already are not fetched.
  --no-verify           Do not read back what was written. The result says so.
  --tracker-grace SECS  Leave when complete and the tracker has been unreachable
                        for this long. Default: 30
  --seed-secs SECS      Leave after seeding for this long, even if the tracker
                        is still there. Default: no limit
  --min-upload RATE     Leave when complete and, for 15 s, less than this many
                        bytes per second were sent. Default: no limit
  --ratio N             Leave when complete and N times the image was sent, as
                        in 3 or 1.5. Default: no limit
  --idle SECS           Leave when complete and, for this long, nothing was
                        sent. The first limit that is reached counts, or the
                        tracker. Default: no limit
  --no-seed             Leave as soon as TARGET is complete: --seed-secs 0
  --stall-secs SECS     Fail when incomplete and, for this long, no block has
                        arrived and no piece has been written.
                        Default: no limit, keep trying
  --dry-run             Print the plan and change nothing: target, ranges, what
                        would be overwritten (partition table, file systems,
                        labels), how much would be fetched.
  --check-only          Check these words and do nothing else: exit status 0, or
                        2 and the reason. No TORRENT and no disk is looked at;
                        TARGET must be a name below /dev or a selector.
  --allow-smaller       Accept a disk that is smaller than the one the image was
                        made on, if the used ranges of the image fit.
  --grow-last           Image of a whole disk: enlarge the last partition to the
                        end of TARGET. Its file system keeps its size.
  --keep-signatures     Leave signatures of other uses (RAID, ZFS, an old GPT)
                        where the image has nothing. By default their magic
                        numbers are wiped in the end, as wipefs does it.
  -h, --help            This text.

Example:
  swarmdd get http://10.0.0.1/sda1.torrent /dev/sda1 \\
              http://10.0.0.1/sda2.torrent /dev/sda2
";

pub(super) const SEED: &str = "\
Serves each SOURCE, which must hold what its TORRENT describes, to all peers.
Each piece is hashed before it is sent for the first time; a piece that does not
match the torrent, or cannot be read, is reported and not served. Ends when the
tracker goes away, after --seed-secs, or on Ctrl-C.

Usage:
  swarmdd seed [options] TORRENT SOURCE [TORRENT SOURCE]...

TORRENT is a file or an http:// URL.
SOURCE is a block device, a raw image file, a partclone image, or a directory of
slices as partclone -T writes them, or the one above it (DIR/NAME/OFFSET), or
what `lz4 -B16384 -BX` packed of an image. It is only read.

Options:
  --listen ADDR:PORT    Where to wait for peers; the next free port is taken if
                        this one is in use. Default: [::]:6881
  --peer ADDR:PORT      A peer to connect to, tracker or not. Repeatable.
  --allow NET/LEN       Take part only with peers of this subnet: others are not
                        called, not answered, not told of. A --peer must
                        be in one. Repeatable. Default: peers from anywhere
  --memory MIB          Memory for all buffers and tables together, 16 to 4096.
                        Default: 64, or more if the torrents need it; at most
                        half of what is free
  --compress MODE       auto, always or never, as `swarmdd get` takes it.
  --max-up RATE         Send at most this many bytes of payload per second, to
                        all peers and from all pairs together: 128K to 1T.
                        K, M, G, T are powers of 1024. Default: no limit
  --progress MODE       auto: one line, redrawn, on a terminal, else plain;
                        plain: a line every 5 seconds; json: one JSON object per
                        line on stdout; none. Default: auto
  --report URL          POST what --progress json prints to this http:// URL, as
                        `swarmdd get` does.
  --tracker-grace SECS  Leave when the tracker has been unreachable for this
                        long. Default: 30
  --seed-secs SECS      Leave after this long, even if the tracker is still
                        there. Default: no limit
  --min-upload RATE     Leave when, for 15 s, less than this many bytes per
                        second were sent. Counts from the first block that is
                        sent. Default: no limit
  --ratio N             Leave when N times the image was sent, as in 3 or 1.5.
                        Default: no limit
  --idle SECS           Leave when nothing was sent for this long, before the
                        first block, too. Default: no limit
  --check               First read and hash every SOURCE completely, and do not
                        begin if any piece is bad.
  -h, --help            This text.

Example:
  swarmdd seed --listen 10.0.0.1:6881 disk.torrent disk.img
";

pub(super) const DAEMON: &str = "\
Runs jobs that programs of this machine add while it runs. Ends on `shutdown`,
SIGTERM or Ctrl-C; the exit status is 0 only if every job was complete.

Usage:
  swarmdd daemon [options] --control SOCKET

Programs send JSON objects, one a line, and get one for each that begins with
{\"ok\":true or {\"ok\":false,\"error\":TEXT:
  {\"do\":\"add\",\"torrent\":FILE,\"path\":TARGET,\"seed\":BOOL}  as get or seed
  {\"do\":\"list\"}  all jobs, as --progress json prints them
  {\"do\":\"pause\",\"info_hash\":HEX}  ends a job, which stays listed
  {\"do\":\"shutdown\"}

Options:
  --control SOCKET  Unix socket, for the owner alone. Required.
  --memory MIB      For all jobs together. Default: 512, at most half of what is
                    free. A job that finds too little left is refused.
  As in `swarmdd get`: --listen, --peer, --allow, --compress, --max-up,
  --max-down, --progress, --report, --tracker-grace, --seed-secs, --min-upload,
  --ratio, --idle, --stall-secs, --fresh, --no-verify, --allow-smaller,
  --grow-last, --keep-signatures
  -h, --help        This text.

Example:
  swarmdd daemon --control /run/swarmdd.sock
";

pub(super) const MAKE: &str = "\
Reads SOURCE once and writes a torrent that describes it: its used ranges with
their offsets on the disk (FSBT), or with --single one file. Prints the
info-hash, for --info-hash of `swarmdd get`.

Usage:
  swarmdd make [options] SOURCE -o FILE.torrent

SOURCE is a block device, a raw image file, a directory of slices as partclone
-T writes them, or partclone's torrent.info, whose torrent is that of
partclone_create_torrent.py, with the same info-hash. If it has a GPT or an MBR,
the torrent describes all partitions, and outside of them everything that is not
zero, but not the backup GPT: `swarmdd get` writes that to the end of its own
disk. Any other SOURCE is described completely, and so is one whose entries
overlap or name no kind; the holes of a sparse file count as zeros. Recorded are
the size and the sector size of the disk, its table, and the least that a target
must hold. A partclone image is described as its used blocks, at their offsets
in the partition; a CRC-32 in it that does not fit ends that. What `lz4 -B16384
-BX` packed is read as what it was. A file of another format (compressed, an
archive, of a virtual machine), a damaged GPT, and an image that ends before its
partitions do are refused.

Options:
  -o, --output FILE     The torrent file to write. Required.
  --tracker URL         Where agents find each other. Repeatable: the next one
                        is asked when those before it do not answer.
  --piece-size SIZE     A power of two from 16K to 16M. Default: 1M to 4M, the
                        largest that gives at least 2000 pieces; 8M over 1 TiB,
                        16M over 2 TiB
  --name TEXT           Name in the torrent. Default: the file name of SOURCE
                        or DIR. Needed for a torrent.info; there vg/lv, too.
  --private             Agents find each other through the tracker only.
  --webseed URL         Where the data is available over HTTP, too. Repeatable.
  --single              Describe one file from offset 0 to the end, for any
                        BitTorrent client: byte for byte, with the backup GPT.
  --skip-holes          Leave out the holes of a sparse file: the target keeps
                        what it has there. Only if nothing relies on holes being
                        zeros; a file system that is new from mke2fs does.
  --used-map FILE       Leave out what this map of all of SOURCE calls unused:
                        of scripts/used-map, partclone -D, ddrescue or bmaptool.
  --slices DIR          Write what is described into this new directory, too, as
                        slices of at most 16 MiB: for another client to seed.
  --live                Read SOURCE although it is in use: mounted to be written
                        (it or what lies on it), swap, or open in a program such
                        as QEMU. What changes meanwhile makes a broken image.
  --raw                 Describe all bytes of SOURCE as they are, whatever they
                        seem to be: no partition table counts, here or on the
                        target.
  -h, --help            This text.

SIZE takes K, M, G, T: powers of 1024.

Example:
  swarmdd make /dev/sdb -o lab.torrent --tracker http://10.0.0.1:6969/announce
";

pub(super) const VERIFY: &str = "\
Reads everything of TARGET that TORRENT describes and compares the hashes.
Prints how many pieces are good and at which byte the first bad one begins; the
exit status is 0 only if all are good. Nothing is written. If an image of a
whole disk lies on a disk of another size, the piece with the partition table is
bad: the table was fitted to that disk.

Usage:
  swarmdd verify TORRENT TARGET

TORRENT is a file or an http:// URL. TARGET is a block device, a file, or a
selector as in `swarmdd get`.

Options:
  -h, --help  This text.

Example:
  swarmdd verify disk.torrent /dev/sda
";

pub(super) const INFO: &str = "\
Says what a torrent holds: name, info-hash, size, pieces, where its data lies
on the disk, and how large that disk must be and how aligned. Prints one
`key: value` per line on stdout.

Usage:
  swarmdd info TORRENT

TORRENT is a file or an http:// URL.

Options:
  -h, --help  This text.

Example:
  swarmdd info http://10.0.0.1/disk.torrent
";

pub(super) const DISKS: &str = "\
Lists the disks of this machine and their partitions: path, size, what is on
them (partition table, file system and label), and what uses them. Below each
disk: bus, sector size, and the values for the selectors of `swarmdd get`.

Usage:
  swarmdd disks [TARGET]

With TARGET, prints the path of the disk that `swarmdd get` would write, or says
why it would not: mounted, in use, read-only, not exactly one.

Options:
  -h, --help  This text.

Example:
  swarmdd disks disk:auto
";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 8] = [PROGRAM, GET, SEED, DAEMON, MAKE, VERIFY, INFO, DISKS];

    #[test]
    fn no_line_is_wider_than_a_console() {
        for line in ALL.iter().flat_map(|text| text.lines()) {
            assert!(
                line.chars().count() <= 80,
                "{} columns: {line}",
                line.chars().count()
            );
        }
    }

    #[test]
    fn every_text_is_complete() {
        for text in ALL {
            for part in [
                "\nUsage:\n  swarmdd ",
                "\nOptions:\n  ",
                "-h, --help",
                "\nExample:\n  swarmdd ",
            ] {
                assert!(text.contains(part), "{part:?} is missing in: {text}");
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
            assert!(
                text.is_ascii(),
                "a console of an initramfs shows ASCII only"
            );
        }
    }
}
