//! Is a source a raw disk image, or a file of another format: an archive, the image of a virtual
//! machine, the error page of a web server?
//!
//! Deployed byte for byte, such a file makes a disk that is verified and does not boot. The first
//! and the last bytes come in. A short magic number may also begin a boot sector or lie in front of
//! a file system, so it counts only where no partition table and no file system was recognised.
//!
//! Read first: magic(5), and the format of each row: RFC 1952 (gzip), the zstd, xz and lz4 frame
//! formats, APPNOTE.TXT (zip), docs/interop/qcow2.rst and block/*.c of QEMU, pax(1) (ustar).

/// Bytes that are read from the beginning. Enough to tell text from data.
pub const HEAD_BYTES: usize = 4096;
/// Bytes that are read from the end of a regular file.
pub const TAIL_BYTES: usize = 512;

/// A format that is not that of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFormat {
    /// With its article.
    pub name: &'static str,
    /// The command that makes a raw image of FILE, or what else helps. FILE may have any name, also
    /// that of a raw image: many a gzip file is called `disk.img`.
    pub help: &'static str,
}

/// A magic number that is no longer than this may also be there by chance.
const WEAK_BYTES: usize = 4;

const GZIP: &str = "gzip --decompress --stdout < FILE > FILE.raw";
const XZ: &str = "xz --decompress --stdout < FILE > FILE.raw";
const ZSTD: &str = "zstd --decompress --stdout < FILE > FILE.raw";
const BZIP2: &str = "bzip2 --decompress --stdout < FILE > FILE.raw";
const LZ4: &str = "lz4 --decompress --stdout < FILE > FILE.raw";
const LZIP: &str = "lzip --decompress --stdout < FILE > FILE.raw";
const LZOP: &str = "lzop --decompress --stdout < FILE > FILE.raw";
const UNZIP: &str = "unzip FILE";
const SEVEN: &str = "7z x FILE";
const TAR: &str = "tar --extract --file FILE";
const AR: &str = "ar x FILE";
const CPIO: &str = "cpio --extract < FILE";
const OPENSSL: &str = "openssl enc -d -in FILE -out FILE.raw";
const QEMU: &str = "qemu-img convert -O raw FILE FILE.raw";
const VPC: &str = "qemu-img convert -f vpc -O raw FILE FILE.raw";
const DMG: &str = "qemu-img convert -f dmg -O raw FILE FILE.raw";
const SIMG: &str = "simg2img FILE FILE.raw";
const NTFS: &str = "ntfsclone --restore-image --overwrite FILE.raw FILE";
const WIM: &str = "wimapply FILE 1 DIRECTORY";
const RESTORE: &str = "restore it onto a disk and describe that disk";
const IMAGE: &str = "give the image itself";

const HTML: &str = "an HTML page, as a web server sends it with an error";

/// Name, help, place and bytes of the magic number.
type Row = (&'static str, &'static str, usize, &'static [u8]);

const ROWS: [Row; 45] = [
    ("a gzip file", GZIP, 0, b"\x1f\x8b\x08"),
    ("a compress file", GZIP, 0, b"\x1f\x9d\x90"),
    ("an xz file", XZ, 0, b"\xfd7zXZ\0"),
    ("a Zstandard file", ZSTD, 0, b"\x28\xb5\x2f\xfd"),
    // The first block, or the end of an empty file.
    ("a bzip2 file", BZIP2, 4, b"\x31\x41\x59\x26\x53\x59"),
    ("a bzip2 file", BZIP2, 4, b"\x17\x72\x45\x38\x50\x90"),
    ("an lz4 file", LZ4, 0, b"\x04\x22\x4d\x18"),
    ("an lz4 file", LZ4, 0, b"\x02\x21\x4c\x18"),
    ("an lzip file", LZIP, 0, b"LZIP\x01"),
    ("an lzop file", LZOP, 0, b"\x89LZO\0\r\n\x1a\n"),
    ("a zip archive", UNZIP, 0, b"PK\x03\x04"),
    ("a zip archive", UNZIP, 0, b"PK\x05\x06"),
    ("a zip archive", UNZIP, 0, b"PK\x07\x08"),
    ("a 7z archive", SEVEN, 0, b"7z\xbc\xaf\x27\x1c"),
    ("a rar archive", SEVEN, 0, b"Rar!\x1a\x07"),
    ("a cabinet archive", SEVEN, 0, b"MSCF\0\0\0\0"),
    ("a cpio archive", CPIO, 0, b"07070"),
    ("an ar archive", AR, 0, b"!<arch>\n"),
    ("an rpm package", IMAGE, 0, b"\xed\xab\xee\xdb"),
    ("a qcow2 image", QEMU, 0, b"QFI\xfb"),
    ("a QED image", QEMU, 0, b"QED\0"),
    ("a VMDK image", QEMU, 0, b"KDMV"),
    ("a VMDK image", QEMU, 0, b"COWD"),
    ("a VMDK descriptor", QEMU, 0, b"# Disk DescriptorFile"),
    ("a VDI image", QEMU, 64, b"\x7f\x10\xda\xbe"),
    ("a VHDX image", QEMU, 0, b"vhdxfile"),
    ("a VHD image", VPC, 0, b"conectix"),
    ("a Parallels image", QEMU, 0, b"WithoutFreeSpace"),
    ("a Parallels image", QEMU, 0, b"WithouFreSpacExt"),
    ("an Android sparse image", SIMG, 0, b"\x3a\xff\x26\xed\x01"),
    ("a WIM or ESD archive", WIM, 0, b"MSWIM\0\0\0"),
    ("a pipable WIM archive", WIM, 0, b"WLPWM\0\0\0"),
    ("a Ghost image", RESTORE, 0, b"\xfe\xef\x01"),
    ("an Acronis image", RESTORE, 0, b"\xb4\x6e\x68\x44"),
    ("a partimage image", RESTORE, 0, b"PaRtImAgE-VoLuMe"),
    ("an FSArchiver archive", RESTORE, 0, b"FsArCh_"),
    ("an ntfsclone image", NTFS, 0, b"\0ntfsclone-image"),
    ("a file that OpenSSL encrypted", OPENSSL, 0, b"Salted__"),
    ("a PDF document", IMAGE, 0, b"%PDF-"),
    ("a PNG picture", IMAGE, 0, b"\x89PNG\r\n\x1a\n"),
    ("an ELF program", IMAGE, 0, b"\x7fELF"),
    ("a torrent file", IMAGE, 0, b"d8:announce"),
    ("a torrent file", IMAGE, 0, b"d13:announce-list"),
    ("a torrent file", IMAGE, 0, b"d10:created by"),
    ("a torrent file", IMAGE, 0, b"d4:info"),
];

impl FileFormat {
    /// The format of a source with these first bytes. `tail` are its last bytes, none of a block
    /// device: there the end of a file is not known. `is_disk`: a partition table or a file system
    /// was recognised.
    pub fn of(head: &[u8], tail: &[u8], is_disk: bool) -> Option<FileFormat> {
        let format = |name, help| Some(FileFormat { name, help });
        let matches = |&&(.., place, magic): &&Row| at(head, place, magic.len()) == magic;
        let is_weak = |&&(.., magic): &&Row| magic.len() <= WEAK_BYTES;
        match ROWS
            .iter()
            .find(matches)
            .filter(|row| !(is_disk && is_weak(row)))
        {
            Some((name, help, ..)) => return format(name, help),
            None if is_tar(head) => return format("a tar archive", TAR),
            None if is_fixed_vhd(tail) => return format("a VHD image", VPC),
            None if tail.starts_with(b"koly\0\0\0\x04\0\0\x02\0") => {
                return format("a dmg image", DMG);
            }
            None if is_disk => return None,
            None => {}
        }
        match () {
            () if is_lzma(head) => format("an lzma file", XZ),
            () if is_windows_program(head) => format("a Windows program", IMAGE),
            () if !is_text(head) => None,
            () if contains(head, b"<html") || contains(head, b"<!doctype html") => {
                format(HTML, IMAGE)
            }
            () if contains(head, b"<?xml") => format("an XML document", IMAGE),
            () => format("a text", IMAGE),
        }
    }
}

/// The bytes at this place, or none unless all of them are there.
fn at(bytes: &[u8], place: usize, length: usize) -> &[u8] {
    bytes
        .get(place..)
        .and_then(|rest| rest.get(..length))
        .unwrap_or_default()
}

/// The sum of a header's bytes is in it, in octal digits, and counts as eight blanks there. Old tar
/// formats have no magic number.
fn is_tar(head: &[u8]) -> bool {
    const SUM: core::ops::Range<usize> = 148..156;
    let header = at(head, 0, 512);
    let digits = header.get(SUM).unwrap_or_default();
    let digits = digits.iter().skip_while(|byte| **byte == b' ');
    let mut stated = 0;
    for &digit in digits.take_while(|byte| byte.is_ascii_digit()) {
        stated = stated * 8 + u32::from(digit.wrapping_sub(b'0'));
    }
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let named = header.first().is_some_and(|&byte| byte != 0);
    named && stated == sum(header) - sum(&header[SUM]) + 8 * u32::from(b' ')
}

/// The bytes of a disk, and then a footer: 512 bytes, or 511 of very old versions.
fn is_fixed_vhd(tail: &[u8]) -> bool {
    tail.starts_with(b"conectix") || at(tail, 1, 8) == b"conectix"
}

/// Properties lc=3 lp=0 pb=2, as every tool writes them, a power of two or one and a half of it as
/// dictionary, a known or unknown length, and the first byte of the range coder.
fn is_lzma(head: &[u8]) -> bool {
    let Ok(dictionary) = <[u8; 4]>::try_from(at(head, 1, 4)) else {
        return false;
    };
    let dictionary = u32::from_le_bytes(dictionary);
    let length = at(head, 5, 8);
    head.starts_with(b"\x5d")
        && dictionary.count_ones() <= 2
        && dictionary.trailing_zeros() >= 12
        && (length == [0xff; 8] || length.ends_with(&[0; 3]))
        && at(head, 13, 1) == [0]
}

/// Its second header is where the first one says.
fn is_windows_program(head: &[u8]) -> bool {
    let place = <[u8; 4]>::try_from(at(head, 60, 4)).map(u32::from_le_bytes);
    let signed = |place: u32| at(head, place as usize, 4) == b"PE\0\0";
    head.starts_with(b"MZ") && place.is_ok_and(signed)
}

/// No control characters except those of a text, and mostly ASCII: an erased disk may be all ones.
fn is_text(head: &[u8]) -> bool {
    let is_control = |byte: &&u8| byte.is_ascii_control() && !b"\t\n\r\x0c\x1b".contains(*byte);
    let ascii = head.iter().filter(|byte| byte.is_ascii()).count();
    !head.is_empty() && head.iter().find(is_control).is_none() && ascii * 2 > head.len()
}

/// In any case of letters.
fn contains(head: &[u8], word: &[u8]) -> bool {
    head.windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// A file of 8 KiB of this byte with these bytes at its beginning.
    fn file(fill: u8, start: &[u8]) -> Vec<u8> {
        let mut file = vec![fill; HEAD_BYTES];
        file[..start.len()].copy_from_slice(start);
        file
    }

    fn name(head: &[u8], is_disk: bool) -> Option<&'static str> {
        FileFormat::of(head, &[], is_disk).map(|format| format.name)
    }

    #[test]
    fn every_row_is_found_and_a_short_magic_yields_to_a_disk() {
        for (expected, help, place, magic) in ROWS {
            let mut head = file(0, &[]);
            head[place..place + magic.len()].copy_from_slice(magic);
            assert_eq!(name(&head, false), Some(expected));
            let is_strong = magic.len() > WEAK_BYTES;
            assert_eq!(name(&head, true), is_strong.then_some(expected));
            assert_eq!(name(&head[..place + magic.len() - 1], true), None);
            assert!(!help.is_empty() && !help.contains('\n'));
        }
    }

    /// Bytes at the beginning and what they are, without and with a recognised disk.
    #[test]
    fn formats_without_a_plain_magic_number_are_found() {
        let mut program = file(0, b"MZ");
        program[60] = 0x80;
        program[0x80..0x84].copy_from_slice(b"PE\0\0");
        let lzma = b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0\x3f";
        let sized = b"\x5d\0\0\x60\0\0\0\x40\0\0\0\0\0\0\x3f";
        let unsized_text = b"\x5d\0\0\x60\0text text\0\x3f";
        let cases: [(Vec<u8>, Option<&str>); 17] = [
            (file(0, &[]), None),
            (file(0xff, &[]), None),
            (file(7, b"some words and then control characters"), None),
            (file(0, b"MZ"), None),
            (file(0, unsized_text), None),
            (Vec::new(), None),
            (program, Some("a Windows program")),
            (file(0, lzma), Some("an lzma file")),
            (file(0, sized), Some("an lzma file")),
            (file(b'x', &[]), Some("a text")),
            (b"\n".to_vec(), Some("a text")),
            (b"{\"error\": \"gone\"}\n".to_vec(), Some("a text")),
            ("Stra\u{df}e\r\n".as_bytes().to_vec(), Some("a text")),
            (
                file(b' ', b"<?xml version='1.0'?>"),
                Some("an XML document"),
            ),
            (b"<!DOCTYPE html>\n<html>".to_vec(), Some(HTML)),
            (b"\xef\xbb\xbf\r\n<HTML><TITLE>404".to_vec(), Some(HTML)),
            (b"<?xml version='1.0'?><!DOCTYPE html>".to_vec(), Some(HTML)),
        ];
        for (head, expected) in cases {
            let start = &head[..head.len().min(40)];
            assert_eq!(name(&head, false), expected, "{start:x?}");
            assert_eq!(name(&head, true), None, "{start:x?}");
        }
    }

    #[test]
    fn a_tar_archive_is_told_by_its_checksum() {
        let mut header = file(0, b"disk.img");
        header[257..262].copy_from_slice(b"ustar");
        assert_eq!(name(&header, false), None, "a word alone is no archive");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        let digits = std::format!("{:06o}\0 ", sum + 8 * 32);
        header[148..156].copy_from_slice(digits.as_bytes());
        assert_eq!(name(&header, true), Some("a tar archive"));
        header[0] += 1;
        assert_eq!(name(&header, false), None);
        assert_eq!(name(&header[..511], false), None);
        // A header of zeros: its sum is that of the blanks.
        assert_eq!(name(&file(0, &[0; 512]), false), None);
    }

    /// Of a disk in front of a footer, the disk is recognised.
    #[test]
    fn footers_count_even_behind_a_disk() {
        let footer = |bytes: &[u8]| {
            let format = FileFormat::of(&[], bytes, true);
            format.map(|format| format.name)
        };
        assert_eq!(footer(&file(0, b"conectix")), Some("a VHD image"));
        assert_eq!(footer(&file(0, b"\0conectix")), Some("a VHD image"));
        assert_eq!(footer(&file(0, b"\0\0conectix")), None);
        let koly = b"koly\0\0\0\x04\0\0\x02\0";
        assert_eq!(footer(&file(0, koly)), Some("a dmg image"));
        assert_eq!(footer(&file(0, b"koly")), None);
    }
}
