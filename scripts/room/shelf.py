"""What is in a Clonezilla image directory? Names and small files are read; nothing is unpacked.

    disk, parts                  sda; sda1 sda2
    sda-pt.sf                    the partition table, as `sfdisk --dump` prints it
    sda-mbr                      the first sector
    sda-hidden-data-after-mbr    from the second sector to the first partition; only of an MBR
    sda1.ext4-ptcl-img.zst.aa    a partclone image, compressed and split: .aa, .ab, ...
    sda1.dd-ptcl-img.gz.aa       a raw partition; older: sda1.dd-img.aa
    swappt-sda3.info             UUID and label of a swap partition
    lvm_vg_dev.list, luks-dev.list, ecryptfs.info    what is refused here

Read in Debian's clonezilla 5.3.17 (/usr/share/drbl/sbin/ocs-functions). A directory comes from
somewhere else, so every name and number in it is checked.
"""
from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .state import Refused

# sda, nvme0n1, mmcblk0; it becomes a part of file names and of messages.
DISK_NAME = re.compile("[A-Za-z][A-Za-z0-9]{0,31}")
# More are on no disk that anybody deploys, and each is a torrent.
PARTS_MAX = 64
# `disk`, `parts`, *-pt.sf, swappt-*.info: text of some hundred lines.
TEXT_BYTES_MAX = 1 << 20
# Clonezilla saves up to 1 GiB; the first partition of a usual table begins at 1 MiB.
HIDDEN_BYTES_MAX = 64 << 20
# The rest of the first sector is the signature and the table of an MBR.
BOOT_CODE_BYTES = 446

# The word in a name, and how the file is unpacked (shelf_unpack.py). "" is said by the first bytes.
COMPRESSIONS = ("gz", "bz2", "lzo", "lzma", "xz", "lzip", "lrz", "lz4", "zst", "uncomp")
IMAGE_NAME = re.compile(
    r"(?P<part>[A-Za-z0-9_.+-]+?)\.(?P<kind>[A-Za-z0-9+_]+-ptcl|dd|ntfs)-img"
    rf"(?:\.(?P<compression>{'|'.join(COMPRESSIONS)}))?(?:\.(?P<suffix>[a-z]{{2,3}}))?")
# ntfsclone; partimage writes sda1.000 or sda1.gz.000.
NTFSCLONE = re.compile(r".*\.ntfs-img(\..*)?")
PARTIMAGE = re.compile(r".*\.[0-9]{3}")

SWAP_TYPES = ("82", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F")
EXTENDED_TYPES = ("5", "05", "F", "0F", "85")
# With --resize-table they keep their size: swap, EFI, BIOS boot, PReP, Microsoft reserved, Windows
# recovery. 27 and EF are those of an MBR.
FIXED_TYPES = (*SWAP_TYPES, "EF", "27", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
               "21686148-6449-6E6F-744E-656564454649", "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
               "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC")


@dataclass(frozen=True)
class Packed:
    """The image of one partition, as it lies in the directory."""

    # sda1, or a volume of LVM: vg-lv
    part: str
    # ext4, vfat, ... or dd
    kind: str
    # Of COMPRESSIONS, or "": the name does not say.
    compression: str
    # In order.
    files: tuple[Path, ...]

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Entry:
    """A partition of the table; numbers in sectors."""

    number: int
    start: int
    size: int
    # Upper case: 83, or a GUID.
    type: str
    # As sfdisk reads it: `uuid=..., name="...", bootable`
    rest: str = ""

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Table:
    """A partition table."""

    # "gpt" or "dos"
    label: str
    label_id: str
    sector_bytes: int
    # Of a GPT: the first sector that a partition may have; 0: nothing was said.
    first_lba: int
    entries: tuple[Entry, ...]

    def entry(self, number: int) -> Entry | None:
        return next((entry for entry in self.entries if entry.number == number), None)


@dataclass(frozen=True)
class Swap:
    """What a swap partition was called."""

    number: int
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class Shelf:
    """A Clonezilla image of one disk."""

    folder: Path
    disk: str
    table: Table
    # By number of the partition.
    parts: tuple[tuple[int, Packed], ...]
    swaps: tuple[Swap, ...]
    # Numbers of the partitions that Windows boots from, and that hold nothing else.
    reserved: tuple[int, ...]
    boot_code: bytes
    hidden: bytes


def is_shelf(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in ("disk", "parts"))


def read_shelf(path: str) -> Shelf:
    """Raises Refused, by name, for everything that could not be deployed."""
    folder = Path(path)
    names = list_names(folder)
    refuse_unsupported(folder, names)
    disk = disk_of(folder, names)
    boot_sector = read_bytes(folder / f"{disk}-mbr", 512) if f"{disk}-mbr" in names else b""
    table = parse_table(read_text(folder / f"{disk}-pt.sf"), f"{disk}-pt.sf", boot_sector)
    if f"{disk}-gpt-1st" in names and table.label != "gpt":
        raise Refused(f"{folder}: {disk}-pt.sf does not describe the GPT of this disk: it was made "
                      "by an old sfdisk; restore the image and save it with today's Clonezilla")
    parts = []
    for part in words_of(folder / "parts"):
        number = number_of(part, disk, folder)
        if table.entry(number) is None:
            raise Refused(f"{folder}: {disk}-pt.sf has no partition {part}")
        parts.append((number, find_packed(folder, names, part)))
    if not parts:
        raise Refused(f"{folder}: parts names no partition")
    swaps = find_swaps(folder, names, disk, table, {number for number, _ in parts})
    reserved = tuple(number for number, packed in parts if is_reserved(folder, names, packed.part)
                     or is_reserved_of_old(table, number))
    return Shelf(folder, disk, table, tuple(parts), swaps, reserved, boot_sector[:BOOT_CODE_BYTES],
                 read_hidden(folder, names, disk, table))


# --- the directory ------------------------------------------------------------------


def list_names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise Refused(f"cannot read {folder}: {error.strerror}") from None


def refuse_unsupported(folder: Path, names: Sequence[str]) -> None:
    """What Clonezilla would restore with programs that are not here."""
    for name, what in (("lvm_vg_dev.list", "volumes of LVM"), ("luks-dev.list", "LUKS"),
                       ("ecryptfs.info", "an encrypted image (eCryptfs)")):
        if name in names and (name == "ecryptfs.info" or lines_of(folder / name)):
            where = "" if name == "ecryptfs.info" else f": {lines_of(folder / name)[0]}"
            raise Refused(f"{folder} has {what} ({name}{where}), which serve does not deploy; "
                          "restore it once with Clonezilla and serve that disk whole")
    for name in names:
        if re.fullmatch("mdadm.*|mdstat.*", name):
            raise Refused(f"{folder} has a RAID of Linux ({name}), which serve does not deploy")


def disk_of(folder: Path, names: Sequence[str]) -> str:
    if "disk" not in names:
        raise Refused(f"{folder} has no file 'disk': it holds single partitions (saveparts), "
                      "and serve deploys whole disks (savedisk)")
    if "parts" not in names:
        raise Refused(f"{folder} has no file 'parts'")
    disks = words_of(folder / "disk")
    if len(disks) != 1:
        raise Refused(f"{folder} is an image of {len(disks)} disks ({' '.join(disks[:8])}), and "
                      "serve deploys images of one disk")
    if not DISK_NAME.fullmatch(disks[0]):
        raise Refused(f"{folder}: '{disks[0]!a}' is no name of a disk")
    return disks[0]


def number_of(part: str, disk: str, folder: Path) -> int:
    """sda1 of sda, and nvme0n1p1 of nvme0n1: 1."""
    separator = "p" if disk[-1].isdigit() else ""
    found = re.fullmatch(rf"{re.escape(disk + separator)}([1-9][0-9]{{0,2}})", part)
    if not found:
        raise Refused(f"{folder}: parts names {part[:64]!a}, which is no partition of {disk}")
    return int(found[1])


def words_of(file: Path) -> list[str]:
    words = read_text(file).split()
    if len(words) > PARTS_MAX:
        raise Refused(f"{file} has {len(words)} names; {PARTS_MAX} are the limit")
    if len(set(words)) < len(words):
        raise Refused(f"{file} names something twice")
    return words


def lines_of(file: Path) -> list[str]:
    """Without comments and empty lines."""
    return [line for line in read_text(file).splitlines() if line.strip() and line[0] != "#"]


def read_text(file: Path) -> str:
    text = read_bytes(file, TEXT_BYTES_MAX + 1)
    if len(text) > TEXT_BYTES_MAX:
        raise Refused(f"{file} has more than {TEXT_BYTES_MAX >> 20} MiB and is no such file")
    return text.decode("utf-8", "replace")


def read_bytes(file: Path, count: int) -> bytes:
    with open(open_inside(file), "rb") as opened:
        try:
            return opened.read(count)
        except OSError as error:
            raise Refused(f"cannot read {file}: {error.strerror}") from None


def open_inside(file: Path) -> int:
    """A descriptor of a file of an image directory. Every read of one goes through here: a link
    must not lead out of the directory, to /etc/shadow, and a FIFO would have us wait for its
    writer. A link to another file of the directory is one of its files."""
    try:
        # Looks at it without opening it, which has effects on some devices.
        seen = os.open(file, os.O_PATH | os.O_CLOEXEC)
        try:
            place = os.readlink(f"/proc/self/fd/{seen}")
            if not stat.S_ISREG(os.fstat(seen).st_mode):
                raise Refused(f"{file} is no regular file, and none of an image")
            if not place.startswith(os.path.join(os.path.realpath(file.parent), "")):
                raise Refused(f"{file} leads out of the image directory, to {place!a}")
            return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(seen)
    except OSError as error:
        raise Refused(f"cannot read {file}: {error.strerror}") from None


# --- the images of partitions ---------------------------------------------------------


def parts_in(names: Iterable[str]) -> list[str]:
    """Every partition that has an image here, in the order of their names."""
    return sorted({found["part"] for name in names if (found := IMAGE_NAME.fullmatch(name))})


def find_packed(folder: Path, names: Sequence[str], part: str) -> Packed:
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        if name.startswith(f"{part}.") and NTFSCLONE.fullmatch(name):
            raise Refused(f"{folder / name} is an image of ntfsclone; only those of partclone and "
                          "dd are unpacked here: restore it and save it with today's Clonezilla")
        found = IMAGE_NAME.fullmatch(name)
        if found and found["part"] == part:
            stem = name.removesuffix(f".{found['suffix']}") if found["suffix"] else name
            kind = found["kind"].removesuffix("-ptcl")
            key = (stem, kind, found["compression"] or "")
            kinds.setdefault(key, []).append(found["suffix"] or "")
    if not kinds:
        for name in names:
            if name.startswith(f"{part}.") and PARTIMAGE.fullmatch(name):
                raise Refused(f"{folder / name} is an image of partimage; only those of partclone "
                              "and dd are unpacked here")
        raise Refused(f"{folder} has no image of {part}: no {part}.*-ptcl-img.* is there")
    if len(kinds) > 1:
        raise Refused(f"{folder} has two images of {part}: "
                      + " and ".join(stem for stem, _, _ in list(kinds)[:2]))
    (stem, kind, compression), suffixes = kinds.popitem()
    files = tuple(folder / name for name in in_order(folder, stem, suffixes))
    for file in files:
        # Before an hour of unpacking.
        os.close(open_inside(file))
    return Packed(part, kind, compression, files)


def in_order(folder: Path, stem: str, suffixes: list[str]) -> list[str]:
    """The names of the parts of a split file, as `split` made them: none may be missing. The end
    of the last one is for the decompressor to find."""
    if suffixes == [""]:
        return [stem]
    if "" in suffixes:
        raise Refused(f"{folder}: there is {stem} and its parts, {stem}.{max(suffixes)}")
    suffixes.sort(key=lambda suffix: (len(suffix), suffix))
    letters = "abcdefghijklmnopqrstuvwxyz"
    expected = map("".join, itertools.product(letters, repeat=len(suffixes[0])))
    for suffix, wanted in zip(suffixes, expected):
        if suffix != wanted:
            raise Refused(f"{folder / stem}.{wanted} is missing, and {stem}.{suffix} is there")
    return [f"{stem}.{suffix}" for suffix in suffixes]


# --- the partition table ----------------------------------------------------------------

ENTRY = re.compile(r"/dev/[^\s:]*?([0-9]{1,3})\s*:(.*)")
FIELD = re.compile(r"""\s*([A-Za-z]+)\s*(?:=\s*("[^"]*"|[^",]*?))?\s*(?:,|$)""")
GUID = re.compile("[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")


def parse_table(text: str, name: str, boot_sector: bytes = b"") -> Table:
    """Of `sfdisk --dump`; also in the words of util-linux before 2.26, which had no label. The
    signature of the disk is in its first sector, too."""
    said = {"label": "dos", "label-id": "", "unit": "sectors", "sector-size": "512",
            "first-lba": "0"}
    entries: list[Entry] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not line.isprintable():
            raise Refused(f"{name}: a line has characters that are no text")
        found = ENTRY.fullmatch(line)
        if found:
            entry = parse_entry(int(found[1]), found[2], name)
            # The old words for nothing.
            entries += [entry] if entry.size else []
        else:
            key, colon, value = line.partition(":")
            if not colon:
                raise Refused(f"{name}: '{line[:60]}' is no line of sfdisk")
            said[key.strip().lower()] = value.strip()
    if said["label"] == "dos" and not said["label-id"] and len(boot_sector) == 512:
        said["label-id"] = f"0x{int.from_bytes(boot_sector[440:444], 'little'):08x}"
    table = Table(said["label"], said["label-id"], whole(said["sector-size"], name),
                  whole(said["first-lba"], name), tuple(entries))
    check_table(table, said["unit"], name)
    return table


def parse_entry(number: int, text: str, name: str) -> Entry:
    fields: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = FIELD.match(text, position)
        if not found or found.end() == position:
            raise Refused(f"{name}: partition {number}: cannot read '{text[position:][:40]}'")
        fields[found[1].lower()] = found[2] or ""
        position = found.end()
    unknown = set(fields) - {"start", "size", "type", "id", "uuid", "name", "attrs", "bootable"}
    if unknown:
        raise Refused(f"{name}: partition {number}: unknown word '{min(unknown)}'")
    rest = [f"{key}={fields[key]}" for key in ("uuid", "name", "attrs") if key in fields]
    rest += ["bootable"] if "bootable" in fields else []
    return Entry(number, whole(fields.get("start", ""), name), whole(fields.get("size", ""), name),
                 (fields.get("type") or fields.get("id") or "").strip().upper(), ", ".join(rest))


def whole(text: str, name: str) -> int:
    # 2^53: awk on the machine counts in floating point.
    if not re.fullmatch("[0-9]{1,16}", text.strip()) or int(text) >= 1 << 53:
        raise Refused(f"{name}: '{text[:40]}' is no number of sectors")
    return int(text)


def check_table(table: Table, unit: str, name: str) -> None:
    numbers = [entry.number for entry in table.entries]
    if table.label not in ("gpt", "dos"):
        raise Refused(f"{name}: a partition table of the kind '{table.label[:20]}'; serve deploys "
                      "GPT and MBR (dos)")
    if unit != "sectors" or table.sector_bytes not in (512, 4096):
        raise Refused(f"{name}: counts in '{unit[:20]}' of {table.sector_bytes} bytes; expected "
                      "sectors of 512 or 4096")
    if not re.fullmatch("(0x)?[0-9A-Fa-f-]{0,36}", table.label_id):
        raise Refused(f"{name}: '{table.label_id[:40]}' is no label-id")
    if not table.label_id or (table.label == "gpt" and any("uuid=" not in entry.rest
                                                           for entry in table.entries)):
        raise Refused(f"{name}: the {table.label.upper()} has no label-id, or a partition no uuid: "
                      "it was made by an old sfdisk; save the image with today's Clonezilla")
    if not numbers or len(numbers) > PARTS_MAX or len(set(numbers)) < len(numbers):
        raise Refused(f"{name}: {len(numbers)} partitions, or one of them twice; from 1 to "
                      f"{PARTS_MAX} are deployed")
    for entry in table.entries:
        if not GUID.fullmatch(entry.type) and not re.fullmatch("[0-9A-F]{1,2}", entry.type):
            raise Refused(f"{name}: partition {entry.number}: '{entry.type[:40]}' is no type")
    check_places(table, name)


def check_places(table: Table, name: str) -> None:
    """An image of one partition must not be written over that of another."""
    logical = [entry for entry in table.entries if table.label == "dos" and entry.number > 4]
    extended = [entry for entry in table.entries
                if table.label == "dos" and entry.number <= 4 and entry.type in EXTENDED_TYPES]
    for entry in logical:
        if not any(outer.start < entry.start and entry.end <= outer.end for outer in extended):
            raise Refused(f"{name}: partition {entry.number}, sectors {entry.start} to "
                          f"{entry.end - 1}, lies in no extended partition")
    for group in (logical, [entry for entry in table.entries if entry not in logical]):
        group.sort(key=lambda entry: entry.start)
        for before, entry in zip(group, group[1:]):
            if entry.start < before.end:
                raise Refused(f"{name}: partition {entry.number} begins at sector {entry.start}, "
                              f"within partition {before.number}, which ends at {before.end - 1}")


# --- what lies beside the partitions ---------------------------------------------------------

SWAP_UUID = re.compile('UUID="([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"')
# mkswap takes 16 bytes.
SWAP_LABEL = re.compile('LABEL="([^"`$\\\\]{1,16})"')


def find_swaps(folder: Path, names: Sequence[str], disk: str, table: Table, taken: set[int]
               ) -> tuple[Swap, ...]:
    """By its file, or by its type: Clonezilla makes both."""
    separator = "p" if disk[-1].isdigit() else ""
    swaps = []
    for entry in table.entries:
        name = f"swappt-{disk}{separator}{entry.number}.info"
        if entry.number in taken or (name not in names and entry.type not in SWAP_TYPES):
            continue
        text = read_text(folder / name) if name in names else ""
        uuid, label = SWAP_UUID.search(text), SWAP_LABEL.search(text)
        if label and not label[1].isprintable():
            raise Refused(f"{folder / name}: the label has characters that are no text")
        swaps.append(Swap(entry.number, uuid[1] if uuid else "", label[1] if label else ""))
    return tuple(swaps)


def is_reserved(folder: Path, names: Sequence[str], part: str) -> bool:
    """Clonezilla says so since 2.4.36."""
    return f"{part}.info" in names and bool(re.search(
        '^PARTITION_TYPE="?Win_boot_reserved"?$', read_text(folder / f"{part}.info"), re.M))


def is_reserved_of_old(table: Table, number: int) -> bool:
    """Windows Vista and 7 made it of 100 or 200 MiB; so ocs-expand-mbr-pt finds it."""
    entry = table.entry(number)
    return (entry is not None and table.label == "dos" and entry.type in ("7", "07")
            and "bootable" in entry.rest and entry.size in (204800, 409600))


def read_hidden(folder: Path, names: Sequence[str], disk: str, table: Table) -> bytes:
    """Only of an MBR, as Clonezilla does: a GPT lies there. Not beyond the first partition."""
    name = f"{disk}-hidden-data-after-mbr"
    if name not in names or table.label != "dos" or table.sector_bytes != 512:
        return b""
    room = (min(entry.start for entry in table.entries) - 1) * 512
    if room > HIDDEN_BYTES_MAX:
        raise Refused(f"{folder / name}: {room >> 20} MiB before the first partition; "
                      f"{HIDDEN_BYTES_MAX >> 20} MiB are the limit")
    return read_bytes(folder / name, max(0, room))


# --- for the machines ---------------------------------------------------------------------------


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if content else "-"


def refuse_to_move_ntfs(shelf: Shelf, grows: Sequence[str]) -> None:
    """Its boot sector says where on the disk it begins, and Windows finds the partitions of an MBR
    by that place. Those behind one that grows move."""
    first = min(entry.start for entry in shelf.table.entries if str(entry.number) in grows)
    kinds = {number: packed.kind for number, packed in shelf.parts}
    for entry in shelf.table.entries:
        if entry.start > first and (entry.type in ("7", "07") or kinds.get(entry.number) == "ntfs"):
            raise Refused(f"{shelf.folder}: --resize-table would move partition {entry.number}, "
                          "which is NTFS, and Windows would not boot from an MBR then; serve it "
                          "without, and extend the last partition in Windows")


def plan_text(shelf: Shelf, resize: bool) -> str:
    """What initramfs/table.sh reads. The script for sfdisk has no last-lba, so that a GPT ends
    where the disk of the machine does."""
    table = shelf.table
    grows = [str(entry.number) for entry in table.entries
             if entry.type not in FIXED_TYPES and entry.number not in shelf.reserved]
    if resize and any(entry.type in EXTENDED_TYPES for entry in table.entries):
        raise Refused(f"{shelf.folder}: --resize-table does not stretch logical partitions")
    if resize and not grows:
        raise Refused(f"{shelf.folder}: --resize-table: no partition of this table may grow")
    if resize and table.label == "dos":
        refuse_to_move_ntfs(shelf, grows)
    lines = ["swarmdd-table 1",
             "image " + "".join(letter if letter.isprintable() else "?"
                                for letter in shelf.folder.name),
             f"label {table.label}", f"sector-bytes {table.sector_bytes}",
             f"boot-code-sha256 {digest_of(shelf.boot_code)}",
             f"hidden-sha256 {digest_of(shelf.hidden)}",
             "grows " + (" ".join(grows) if resize else "")]
    lines += [f"swap {swap.number} {swap.uuid or '-'} {swap.label}" for swap in shelf.swaps]
    lines += ["script", f"label: {table.label}"]
    lines += [f"label-id: {table.label_id}"] if table.label_id else []
    # sfdisk's own default would refuse a partition before 1 MiB, such as that of GRUB at 34.
    lines += [f"first-lba: {table.first_lba}"] if table.label == "gpt" and table.first_lba else []
    lines += ["unit: sectors", ""]
    for entry in table.entries:
        rest = f", {entry.rest}" if entry.rest else ""
        lines.append(f"/dev/disk-{entry.number} : start={entry.start}, size={entry.size}, "
                     f"type={entry.type}{rest}")
    return "\n".join(line.rstrip() for line in lines) + "\n"
