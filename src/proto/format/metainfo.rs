//! What does a torrent describe: which bytes, where on the disk, with which hashes?
//!
//! Read first: BEP 3 (metainfo files), 12 (tracker tiers), 19 (web seeds), 27 (private), 47 (pad
//! files), 52 (version 2).
//!
//! Where the bytes go: a single-file torrent is an image that begins at disk offset 0. A torrent
//! with `files` is FSBT as partclone, EZIO and Clonezilla make it: each file is a run of used
//! bytes, and the last component of its path is the byte offset of that run in hexadecimal. Nothing
//! else in the path counts (for an LVM volume partclone's script makes `vg` the name and `lv/00…00`
//! the path). A name that is no offset is refused and not guessed at: EZIO reads `torrent.info` as
//! 0 and writes there.
//!
//! Four keys of our own in `info` describe the disk of the image: `disk size` and `sector size`,
//! `disk needed`, the least that a target must hold, all in bytes, and `partition table`. The
//! info-hash covers them there, and other clients ignore them: libtorrent 2.0.8, aria2 1.36 and
//! transmission 3.00 read such a torrent and name the same info-hash.

use crate::format::bencode::{self, BencodeError, Dict, List, Value};
use crate::format::extents::{ExtentError, ExtentMap};
use crate::format::layout::{Layout, LayoutError};
use crate::format::partitions::TableKind;
use crate::format::slices::hexadecimal;
use crate::limits;
use crate::text;
use crate::units::{DiskOffset, InfoHash, PieceHash};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Logical sectors that exist; of these numbers only the powers of two.
const SECTOR_BYTES: core::ops::RangeInclusive<u32> = limits::SECTOR_BYTES_MIN..=4096;

/// A torrent file that has been read and checked.
///
/// Invariants: `hashes` holds one hash for each piece of `layout`; `extents` holds exactly the
/// bytes of `layout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    pub info_hash: InfoHash,
    /// A label, and the directory of an FSBT image. It can be printed, and can be one component of
    /// a path.
    pub name: String,
    /// Tiers of trackers (BEP 12), any scheme. `announce` alone is one tier of one.
    pub trackers: Vec<Vec<String>>,
    /// BEP 19.
    pub webseeds: Vec<String>,
    /// Peers may come from the tracker only (BEP 27).
    pub private: bool,
    pub layout: Layout,
    /// Shared: whatever reads and writes the pieces needs it too, and a fragmented image has a
    /// million extents.
    pub extents: Arc<ExtentMap>,
    pub hashes: Vec<PieceHash>,
    pub files: FileLayout,
    /// Size of the disk that the image was made from. The last extent ends within it.
    pub disk_bytes: Option<u64>,
    /// Logical sector of that disk, the unit of its partition table: a power of two from 512 to
    /// 4096.
    pub sector_bytes: Option<u32>,
    /// The smallest disk for all partitions, even if they end in holes, and the backup GPT.
    pub needed_bytes: Option<u64>,
    /// `None` if the maker does not say.
    pub table: Option<TableKind>,
}

/// How the bytes are cut into files. On a disk only the extents matter, so the files themselves are
/// not kept; [`fsbt_files`] lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileLayout {
    Single,
    Fsbt { file_count: u32 },
}

impl Metainfo {
    pub fn parse(torrent: &[u8]) -> Result<Metainfo, MetainfoError> {
        let outer = Outer::read(torrent)?;
        let info = Info::read(&outer)?;
        let (extents, files) = info.lay_out()?;
        let layout = Layout::new(extents.total_bytes(), info.piece_bytes()?)?;
        let end = extents.disk_end().0;
        let needed_bytes = disk_length(info.needed_bytes, end)
            .map_err(|found| MetainfoError::NeededBytes { found, end })?;
        let needed = needed_bytes.unwrap_or(end);
        let disk_bytes = disk_length(info.disk_bytes, needed)
            .map_err(|found| MetainfoError::DiskBytes { found, needed })?;
        Ok(Metainfo {
            info_hash: InfoHash(sha1_smol::Sha1::from(outer.info.raw()).digest().bytes()),
            name: label(info.name),
            trackers: tiers(outer.announce, outer.announce_list),
            webseeds: webseeds(outer.url_list),
            private: info.private,
            layout,
            extents: Arc::new(extents),
            hashes: info.hashes(layout)?,
            files,
            disk_bytes,
            sector_bytes: info.sector_bytes()?,
            needed_bytes,
            table: info.table.and_then(TableKind::named),
        })
    }
}

/// One slice of an FSBT image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FsbtFile<'a> {
    /// Last component of the path: hexadecimal digits only, any number of them.
    pub name: &'a str,
    pub disk: DiskOffset,
    pub torrent_offset: u64,
    pub length: u64,
}

/// The files of an FSBT torrent in torrent order, not merged, with the empty ones. A single-file
/// torrent has none. They are read from the bytes of the torrent again, because there can be a
/// million of them; a seeder of a directory needs the extents alone.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only tests ask for single files")
)]
pub(crate) fn fsbt_files(
    torrent: &[u8],
) -> Result<impl Iterator<Item = Result<FsbtFile<'_>, MetainfoError>>, MetainfoError> {
    let info = Info::read(&Outer::read(torrent)?)?;
    Ok(info.files.into_iter().flat_map(slices))
}

/// Why a torrent file is not one we can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetainfoError {
    TooLarge { bytes: usize },
    Bencode(BencodeError),
    Key(&'static str),
    Version2Only,
    FilesAndLength,
    Layout(LayoutError),
    TooManyFiles { count: usize },
    BadLength { name: String },
    NotAnOffset { name: String },
    PadFile { name: String },
    WrongHashes { bytes: usize, pieces: u32 },
    Extents(ExtentError),
    DiskBytes { found: i64, needed: u64 },
    SectorBytes { found: i64 },
    NeededBytes { found: i64, end: u64 },
}

impl From<BencodeError> for MetainfoError {
    fn from(error: BencodeError) -> MetainfoError {
        MetainfoError::Bencode(error)
    }
}

impl From<LayoutError> for MetainfoError {
    fn from(error: LayoutError) -> MetainfoError {
        MetainfoError::Layout(error)
    }
}

impl From<ExtentError> for MetainfoError {
    fn from(error: ExtentError) -> MetainfoError {
        MetainfoError::Extents(error)
    }
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use MetainfoError::*;
        let most = limits::DISK_BYTES_MAX;
        match self {
            TooLarge { bytes } => {
                write!(
                    f,
                    "torrent file of {bytes} bytes, at most {} are read",
                    limits::METAINFO_BYTES_MAX
                )
            }
            Bencode(error) => write!(f, "not a torrent file: {error}"),
            Key(key) => write!(f, "torrent has no usable '{key}'"),
            Version2Only => f.write_str(
                "torrent is for BitTorrent version 2 only, a version 1 or hybrid one is needed",
            ),
            FilesAndLength => {
                f.write_str("torrent has both 'files' and 'length' and so no one layout")
            }
            Layout(error) => error.fmt(f),
            TooManyFiles { count } => {
                write!(
                    f,
                    "torrent has {count} files or more, at most {} are read",
                    limits::FILE_COUNT_MAX
                )
            }
            BadLength { name } => write!(f, "file '{name}' has no usable length"),
            NotAnOffset { name } => {
                write!(
                    f,
                    "file name '{name}' is not a disk offset in hexadecimal, so nobody knows where it belongs"
                )
            }
            PadFile { name } => write!(
                f,
                "torrent has a pad file '{name}', which has no place on a disk"
            ),
            WrongHashes { bytes, pieces } => {
                write!(
                    f,
                    "torrent has {bytes} bytes of hashes, its {pieces} pieces need 20 each"
                )
            }
            Extents(error) => write!(f, "torrent fits no disk: {error}"),
            DiskBytes { found, needed } => {
                write!(
                    f,
                    "torrent is of a disk of {found} bytes, accepted are {needed} to {most}"
                )
            }
            NeededBytes { found, end } => {
                write!(
                    f,
                    "torrent needs {found} bytes, accepted are {end} to {most}"
                )
            }
            SectorBytes { found } => {
                write!(
                    f,
                    "sectors of {found} bytes, accepted is a power of two from 512 to 4096"
                )
            }
        }
    }
}

/// The outer dictionary of the torrent file. It is walked once, because `info` can be 90 MB and
/// every lookup of a key after it would walk over all of it.
struct Outer<'a> {
    info: Dict<'a>,
    announce: Option<Value<'a>>,
    announce_list: Option<Value<'a>>,
    url_list: Option<Value<'a>>,
}

impl<'a> Outer<'a> {
    fn read(torrent: &'a [u8]) -> Result<Outer<'a>, MetainfoError> {
        if torrent.len() > limits::METAINFO_BYTES_MAX {
            return Err(MetainfoError::TooLarge {
                bytes: torrent.len(),
            });
        }
        let dict = bencode::parse(torrent)?
            .as_dict()
            .ok_or(MetainfoError::Key("info"))?;
        let (mut info, mut announce, mut announce_list, mut url_list) = (None, None, None, None);
        for (key, value) in dict.iter() {
            match key {
                b"info" => info = value.as_dict(),
                b"announce" => announce = Some(value),
                b"announce-list" => announce_list = Some(value),
                b"url-list" => url_list = Some(value),
                _ => {}
            }
        }
        Ok(Outer {
            info: info.ok_or(MetainfoError::Key("info"))?,
            announce,
            announce_list,
            url_list,
        })
    }
}

/// The `info` dictionary, walked once for the same reason.
struct Info<'a> {
    name: &'a [u8],
    piece_bytes: i64,
    pieces: &'a [u8],
    private: bool,
    length: Option<Value<'a>>,
    files: Option<List<'a>>,
    disk_bytes: Option<i64>,
    sector_bytes: Option<i64>,
    needed_bytes: Option<i64>,
    table: Option<&'a [u8]>,
}

impl<'a> Info<'a> {
    fn read(outer: &Outer<'a>) -> Result<Info<'a>, MetainfoError> {
        let (mut name, mut piece_bytes, mut pieces, mut private) = (None, None, None, false);
        let (mut length, mut files, mut version, mut table) = (None, None, None, None);
        let (mut disk_bytes, mut sector_bytes, mut needed_bytes) = (None, None, None);
        for (key, value) in outer.info.iter() {
            match key {
                b"name" => name = value.as_bytes(),
                b"piece length" => piece_bytes = value.as_integer(),
                b"pieces" => pieces = value.as_bytes(),
                b"private" => private = value.as_integer() == Some(1),
                b"length" => length = Some(value),
                b"files" => files = Some(value.as_list().ok_or(MetainfoError::Key("files"))?),
                b"meta version" => version = value.as_integer(),
                b"disk needed" => needed_bytes = Some(integer("disk needed", value)?),
                b"partition table" => table = value.as_bytes(),
                b"disk size" => disk_bytes = Some(integer("disk size", value)?),
                b"sector size" => sector_bytes = Some(integer("sector size", value)?),
                _ => {}
            }
        }
        if pieces.is_none() && version.is_some() {
            return Err(MetainfoError::Version2Only);
        }
        Ok(Info {
            name: name.ok_or(MetainfoError::Key("name"))?,
            piece_bytes: piece_bytes.ok_or(MetainfoError::Key("piece length"))?,
            pieces: pieces.ok_or(MetainfoError::Key("pieces"))?,
            private,
            length,
            files,
            disk_bytes,
            sector_bytes,
            needed_bytes,
            table,
        })
    }

    fn sector_bytes(&self) -> Result<Option<u32>, MetainfoError> {
        let checked = |found| match u32::try_from(found) {
            Ok(bytes) if SECTOR_BYTES.contains(&bytes) && bytes.is_power_of_two() => Ok(bytes),
            _ => Err(MetainfoError::SectorBytes { found }),
        };
        self.sector_bytes.map(checked).transpose()
    }

    fn piece_bytes(&self) -> Result<u32, MetainfoError> {
        let found = self.piece_bytes;
        u32::try_from(found).map_err(|_| LayoutError::PieceBytes { found }.into())
    }

    fn lay_out(&self) -> Result<(ExtentMap, FileLayout), MetainfoError> {
        match (self.files, self.length) {
            (Some(_), Some(_)) => Err(MetainfoError::FilesAndLength),
            (Some(files), None) => lay_out_slices(files),
            (None, length) => {
                let length = length
                    .and_then(bytes_in_file)
                    .ok_or(MetainfoError::Key("length"))?;
                Ok((
                    ExtentMap::from_files([(DiskOffset(0), length)])?,
                    FileLayout::Single,
                ))
            }
        }
    }

    fn hashes(&self, layout: Layout) -> Result<Vec<PieceHash>, MetainfoError> {
        match self.pieces.as_chunks::<20>() {
            (hashes, []) if hashes.len() == layout.piece_count() as usize => {
                Ok(hashes.iter().copied().map(PieceHash).collect())
            }
            _ => Err(MetainfoError::WrongHashes {
                bytes: self.pieces.len(),
                pieces: layout.piece_count(),
            }),
        }
    }
}

fn disk_length(found: Option<i64>, least: u64) -> Result<Option<u64>, i64> {
    let accepted = least..=limits::DISK_BYTES_MAX;
    let checked = |found| {
        let bytes = u64::try_from(found).ok();
        bytes.filter(|bytes| accepted.contains(bytes)).ok_or(found)
    };
    found.map(checked).transpose()
}

/// The slices go from the list to the extents one by one, without a list in between, because there
/// can be a million of them.
fn lay_out_slices(files: List<'_>) -> Result<(ExtentMap, FileLayout), MetainfoError> {
    let mut count = 0;
    let mut refused = None;
    let good_slices = slices(files).map_while(|slice| {
        count += 1;
        match slice {
            _ if count > limits::FILE_COUNT_MAX => {
                refused = Some(MetainfoError::TooManyFiles { count })
            }
            Err(error) => refused = Some(error),
            Ok(slice) => return Some((slice.disk, slice.length)),
        }
        None
    });
    let extents = ExtentMap::from_files(good_slices);
    match refused {
        Some(error) => Err(error),
        None => Ok((
            extents?,
            FileLayout::Fsbt {
                file_count: u32::try_from(count).expect("checked above"),
            },
        )),
    }
}

fn slices<'a>(
    files: List<'a>,
) -> impl Iterator<Item = Result<FsbtFile<'a>, MetainfoError>> + use<'a> {
    let mut torrent_offset: u64 = 0;
    files.iter().map(move |file| {
        let file = slice(file, torrent_offset)?;
        // A sum beyond 2^64 is wrong here and refused by ExtentMap.
        torrent_offset = torrent_offset.saturating_add(file.length);
        Ok(file)
    })
}

fn slice(file: Value<'_>, torrent_offset: u64) -> Result<FsbtFile<'_>, MetainfoError> {
    let (mut length, mut path, mut attributes) = (None, None, None);
    for (key, value) in file.as_dict().ok_or(MetainfoError::Key("files"))?.iter() {
        match key {
            b"length" => length = bytes_in_file(value),
            b"path" => path = value.as_list(),
            b"attr" => attributes = value.as_bytes(),
            _ => {}
        }
    }
    let path = path.ok_or(MetainfoError::Key("path"))?;
    let pads = attributes.is_some_and(|letters| letters.contains(&b'p'));
    if pads || path.iter().next() == Some(Value::Bytes(b".pad")) {
        return Err(MetainfoError::PadFile {
            name: path_text(path),
        });
    }
    let length = length.ok_or_else(|| MetainfoError::BadLength {
        name: path_text(path),
    })?;
    let name = path
        .iter()
        .last()
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    match name.and_then(|name| Some((name, hexadecimal(name.as_bytes())?))) {
        Some((name, offset)) => Ok(FsbtFile {
            name,
            disk: DiskOffset(offset),
            torrent_offset,
            length,
        }),
        None => Err(MetainfoError::NotAnOffset {
            name: path_text(path),
        }),
    }
}

fn integer(key: &'static str, value: Value<'_>) -> Result<i64, MetainfoError> {
    value.as_integer().ok_or(MetainfoError::Key(key))
}

fn bytes_in_file(value: Value<'_>) -> Option<u64> {
    u64::try_from(value.as_integer()?).ok()
}

/// The path for an error message.
fn path_text(path: List<'_>) -> String {
    let components: Vec<&[u8]> = path.iter().filter_map(Value::as_bytes).collect();
    text::printable(&components.join(&b'/'), limits::TEXT_BYTES_MAX)
}

/// The torrent's name as it can be printed and used as one component of a path.
fn label(name: &[u8]) -> String {
    let label = text::printable(name, limits::FILE_NAME_BYTES_MAX).replace('/', "_");
    match label.as_str() {
        "" | "." | ".." => String::from("_"),
        _ => label,
    }
}

fn tiers(announce: Option<Value<'_>>, announce_list: Option<Value<'_>>) -> Vec<Vec<String>> {
    let mut left = limits::TRACKER_COUNT_MAX;
    let listed = announce_list
        .and_then(Value::as_list)
        .into_iter()
        .flat_map(|list| list.iter());
    let mut tiers = Vec::new();
    for tier in listed.filter_map(Value::as_list) {
        let urls: Vec<String> = tier.iter().filter_map(url).take(left).collect();
        left -= urls.len();
        if !urls.is_empty() {
            tiers.push(urls);
        }
    }
    if tiers.is_empty() {
        // BEP 12: `announce` counts only if there is no announce-list, or none that is usable.
        tiers.extend(announce.and_then(url).map(|url| vec![url]));
    }
    tiers
}

/// `url-list` is one URL or a list of them (BEP 19).
fn webseeds(url_list: Option<Value<'_>>) -> Vec<String> {
    match url_list {
        Some(Value::List(list)) => list
            .iter()
            .filter_map(url)
            .take(limits::WEBSEED_COUNT_MAX)
            .collect(),
        Some(value) => url(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A URL that can be put into a request: not too long, and without line breaks, which would make
/// two requests of one. Other URLs are left out; the torrent is good without them.
fn url(value: Value<'_>) -> Option<String> {
    let url = value.as_str()?;
    let fits =
        !url.is_empty() && url.len() <= limits::URL_BYTES_MAX && !url.contains(char::is_control);
    fits.then(|| String::from(url))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::format;
    use alloc::string::ToString;

    /// As libtorrent 2.0.8 writes these files: offsets 0, 64 KiB (contiguous) and 0x4800400.
    pub(crate) const FSBT: &[u8] =
        b"d8:announce30:http://10.77.0.1:6969/announce10:created by7:swarmdd4:info\
        d5:filesld6:lengthi65536e4:pathl32:00000000000000000000000000000000ee\
        d6:lengthi131072e4:pathl32:00000000000000000000000000010000ee\
        d6:lengthi1050112e4:pathl32:00000000000000000000000004800400eee\
        4:name4:sda112:piece lengthi1048576e6:pieces40:AAAAAAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBBBBBee";

    /// Hashes of one repeated byte each: AAAA…, BBBB…, or 0101…, 0202…
    pub(crate) fn hashes(count: u8, first: u8) -> Vec<PieceHash> {
        (0..count)
            .map(|index| PieceHash([first + index; 20]))
            .collect()
    }

    /// A torrent with one tracker, with `layout` inside `info`, pieces of 16 KiB and `count`
    /// hashes.
    fn torrent(layout: &str, count: usize) -> Vec<u8> {
        let pieces = "h".repeat(20 * count);
        let tail = format!(
            "4:name1:n12:piece lengthi16384e6:pieces{}:{pieces}",
            pieces.len()
        );
        format!("d8:announce8:http://t4:infod{layout}{tail}ee").into_bytes()
    }

    /// A multi-file torrent of at most 16 KiB, each file at a path like "lv/4800".
    fn files(files: &[(&str, u64)]) -> Vec<u8> {
        let file = |&(path, length): &(&str, u64)| {
            let path: String = path
                .split('/')
                .map(|component| format!("{}:{component}", component.len()))
                .collect();
            format!("d6:lengthi{length}e4:pathl{path}ee")
        };
        torrent(
            &format!("5:filesl{}e", files.iter().map(file).collect::<String>()),
            1,
        )
    }

    fn error(torrent: &[u8]) -> String {
        Metainfo::parse(torrent).unwrap_err().to_string()
    }

    pub(crate) fn disk_and_length(metainfo: &Metainfo) -> Vec<(u64, u64)> {
        metainfo
            .extents
            .extents()
            .iter()
            .map(|extent| (extent.disk.0, extent.length))
            .collect()
    }

    #[test]
    fn an_fsbt_torrent() {
        let metainfo = Metainfo::parse(FSBT).unwrap();
        assert_eq!(metainfo.name, "sda1");
        assert_eq!(metainfo.trackers, [["http://10.77.0.1:6969/announce"]]);
        assert_eq!((metainfo.webseeds.len(), metainfo.private), (0, false));
        assert_eq!(metainfo.layout, Layout::new(1246720, 1 << 20).unwrap());
        assert_eq!(
            disk_and_length(&metainfo),
            [(0, 196608), (0x480_0400, 1050112)]
        );
        assert_eq!(metainfo.hashes, hashes(2, b'A'));
        assert_eq!(metainfo.files, FileLayout::Fsbt { file_count: 3 });
        let files: Vec<FsbtFile> = fsbt_files(FSBT).unwrap().map(Result::unwrap).collect();
        let last = FsbtFile {
            name: "00000000000000000000000004800400",
            disk: DiskOffset(0x480_0400),
            torrent_offset: 196608,
            length: 1050112,
        };
        assert_eq!((files.len(), files[2]), (3, last));
    }

    #[test]
    fn a_single_file_lies_at_zero_whatever_its_name() {
        let metainfo = Metainfo::parse(&torrent("6:lengthi20000e", 2)).unwrap();
        assert_eq!(
            (metainfo.files, disk_and_length(&metainfo)),
            (FileLayout::Single, vec![(0, 20000)])
        );
        assert_eq!(
            fsbt_files(&torrent("6:lengthi20000e", 2)).unwrap().count(),
            0
        );
    }

    #[test]
    fn the_last_path_component_is_the_offset() {
        let extents = |list| disk_and_length(&Metainfo::parse(&files(list)).unwrap());
        assert_eq!(
            extents(&[("0", 512), ("lv/0000000400", 512)]),
            [(0, 512), (1024, 512)]
        );
        assert_eq!(
            extents(&[("aB/c/fF00", 512), ("x/0", 1)]),
            [(0xff00, 512), (0, 1)]
        );
        // partclone.dd can end with an empty file, which may even repeat an offset.
        assert_eq!(
            extents(&[("0", 512), ("200", 0), ("200", 1), ("200", 0)]),
            [(0, 513)]
        );
        let wide = "0".repeat(99) + "7fffffffffffff00";
        assert_eq!(extents(&[(&wide, 255)]), [(0x7fff_ffff_ffff_ff00, 255)]);
    }

    #[test]
    fn files_without_a_place_are_refused_by_name() {
        let not_hex = |path| error(&files(&[("0", 512), (path, 512)]));
        for path in [
            "torrent.info",
            "0x200",
            "-200",
            "+200",
            "20 ",
            "200/",
            "sda1/200.img",
            "10000000000000000",
        ] {
            let expected = format!(
                "file name '{path}' is not a disk offset in hexadecimal, so nobody knows where it belongs"
            );
            assert_eq!(not_hex(path), expected);
        }
        let pad = |path| format!("torrent has a pad file '{path}', which has no place on a disk");
        assert_eq!(not_hex(".pad/200"), pad(".pad/200"));
        let by_attribute = torrent("5:filesld4:attr2:xp6:lengthi512e4:pathl3:200eee", 1);
        assert_eq!(error(&by_attribute), pad("200"));
        assert_eq!(not_hex("\x1b[2J"), not_hex("\u{fffd}[2J"));
        let slices: Vec<_> = fsbt_files(&files(&[("0", 512), ("z", 512)]))
            .unwrap()
            .map(|file| file.is_ok())
            .collect();
        assert_eq!(slices, [true, false]);
    }

    #[test]
    fn files_in_the_wrong_place_are_refused() {
        let overlap =
            "torrent fits no disk: bytes 0 to 512 and bytes 511 to 1023 of the disk overlap";
        assert_eq!(error(&files(&[("0", 512), ("1ff", 512)])), overlap);
        let large = "torrent fits no disk: 1 bytes at disk offset 9223372036854775807 are more than any disk can hold";
        assert_eq!(error(&files(&[("7fffffffffffffff", 1)])), large);
        let most = i64::MAX as u64;
        assert!(
            error(&files(&[("0", most), ("1", most), ("2", most)])).contains("more than any disk")
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn unusable_dictionaries_are_refused() {
        let cases = [
            (torrent("5:filesli1ee", 1), "torrent has no usable 'files'"),
            (torrent("5:filesde", 1), "torrent has no usable 'files'"),
            (
                torrent("5:filesld6:lengthi1eee", 1),
                "torrent has no usable 'path'",
            ),
            (
                torrent("5:filesld4:pathl1:0eee", 1),
                "file '0' has no usable length",
            ),
            (
                torrent("5:filesld6:lengthi-1e4:pathl1:0eee", 1),
                "file '0' has no usable length",
            ),
            (
                torrent("5:filesld6:lengthi1e4:pathleee", 1),
                "file name '' is not a disk offset in hexadecimal, so nobody knows where it belongs",
            ),
            (
                torrent("5:filesle6:lengthi1e", 1),
                "torrent has both 'files' and 'length' and so no one layout",
            ),
            (torrent("5:filesle", 0), "torrent describes no data at all"),
            (
                torrent("6:lengthi0e", 0),
                "torrent describes no data at all",
            ),
            (torrent("6:lengthi-1e", 1), "torrent has no usable 'length'"),
            (torrent("6:length1:1", 1), "torrent has no usable 'length'"),
            (torrent("", 1), "torrent has no usable 'length'"),
            (
                torrent("6:lengthi16385e", 1),
                "torrent has 20 bytes of hashes, its 2 pieces need 20 each",
            ),
            (
                torrent("6:lengthi16384e", 2),
                "torrent has 40 bytes of hashes, its 1 pieces need 20 each",
            ),
            (
                torrent("6:lengthi16384e", 0),
                "torrent has 0 bytes of hashes, its 1 pieces need 20 each",
            ),
            (
                torrent("6:lengthi68719476737e", 1),
                "torrent has 4194305 pieces, at most 4194304 are accepted",
            ),
            (b"i1e".to_vec(), "torrent has no usable 'info'"),
            (b"de".to_vec(), "torrent has no usable 'info'"),
            (b"d4:infoi1ee".to_vec(), "torrent has no usable 'info'"),
            (
                b"d4:infod6:pieces0:ee".to_vec(),
                "torrent has no usable 'name'",
            ),
            (
                b"d4:infod4:name1:nee".to_vec(),
                "torrent has no usable 'piece length'",
            ),
            (
                b"d4:infod4:name1:n12:piece lengthi1eee".to_vec(),
                "torrent has no usable 'pieces'",
            ),
            (
                b"<html>".to_vec(),
                "not a torrent file: no bencoded value can go on with '<' at byte 0",
            ),
        ];
        for (torrent, text) in cases {
            assert_eq!(error(&torrent), text);
        }
        let hashes_cut =
            b"d4:infod6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces19:hhhhhhhhhhhhhhhhhhhee";
        assert_eq!(
            error(hashes_cut),
            "torrent has 19 bytes of hashes, its 1 pieces need 20 each"
        );
        let too_large = vec![b'l'; limits::METAINFO_BYTES_MAX + 1];
        assert_eq!(
            error(&too_large),
            "torrent file of 100663297 bytes, at most 100663296 are read"
        );
    }

    #[test]
    fn size_and_sector_of_the_disk_are_checked() {
        let with = |keys: &str| {
            let metainfo = Metainfo::parse(&torrent(&format!("{keys}6:lengthi512e"), 1));
            metainfo.map(|metainfo| (metainfo.disk_bytes, metainfo.sector_bytes))
        };
        let disk = |value: &str| with(&format!("9:disk size{value}"));
        let sector = |value: &str| {
            let info =
                "6:lengthi512e4:name1:n12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhh";
            let metainfo =
                Metainfo::parse(format!("d4:infod{info}11:sector size{value}ee").as_bytes());
            metainfo.map(|metainfo| (metainfo.disk_bytes, metainfo.sector_bytes))
        };
        assert_eq!(with(""), Ok((None, None)));
        assert_eq!(disk("i512e"), Ok((Some(512), None)));
        assert_eq!(
            disk("i4611686018427387904e"),
            Ok((Some(limits::DISK_BYTES_MAX), None))
        );
        for found in [511, 0, -512, (1 << 62) + 1, i64::MAX] {
            assert_eq!(
                disk(&format!("i{found}e")),
                Err(MetainfoError::DiskBytes { found, needed: 512 })
            );
        }
        for good in [512, 1024, 2048, 4096] {
            assert_eq!(sector(&format!("i{good}e")), Ok((None, Some(good))));
        }
        for found in [0, 1, 256, 520, 8192, -512, (1 << 32) + 512] {
            assert_eq!(
                sector(&format!("i{found}e")),
                Err(MetainfoError::SectorBytes { found })
            );
        }
        assert_eq!(disk("3:512"), Err(MetainfoError::Key("disk size")));
        assert_eq!(sector("le"), Err(MetainfoError::Key("sector size")));
        assert_eq!(
            MetainfoError::DiskBytes {
                found: 511,
                needed: 512
            }
            .to_string(),
            "torrent is of a disk of 511 bytes, accepted are 512 to 4611686018427387904"
        );
        assert_eq!(
            MetainfoError::SectorBytes { found: 520 }.to_string(),
            "sectors of 520 bytes, accepted is a power of two from 512 to 4096"
        );
    }

    #[test]
    fn the_least_disk_and_the_table_are_read_and_checked() {
        let with = |keys: &str| {
            let (before, after) = keys.split_once('|').unwrap_or((keys, ""));
            let info = format!("{before}6:lengthi512e4:name1:n{after}12:piece lengthi16384e");
            let torrent = format!("d4:infod{info}6:pieces20:hhhhhhhhhhhhhhhhhhhhee");
            Metainfo::parse(torrent.as_bytes())
                .map(|metainfo| (metainfo.needed_bytes, metainfo.table))
        };
        assert_eq!(with(""), Ok((None, None)));
        assert_eq!(with("11:disk neededi512e"), Ok((Some(512), None)));
        let both = "11:disk neededi700e9:disk sizei700e|15:partition table3:GPT";
        assert_eq!(with(both), Ok((Some(700), Some(TableKind::Gpt))));
        for (kind, name) in [
            (TableKind::Gpt, "GPT"),
            (TableKind::Mbr, "MBR"),
            (TableKind::Nothing, "none"),
            (TableKind::Raw, "raw"),
        ] {
            let key = format!("|15:partition table{}:{name}", name.len());
            assert_eq!(with(&key), Ok((None, Some(kind))));
            assert_eq!(kind.name(), name);
        }
        assert_eq!(with("|15:partition table3:APM"), Ok((None, None)));
        assert_eq!(with("|15:partition tablei1e"), Ok((None, None)));
        for found in [511, -1, (1 << 62) + 1] {
            let keys = format!("11:disk neededi{found}e9:disk sizei600e");
            let error = MetainfoError::NeededBytes { found, end: 512 };
            assert_eq!(with(&keys), Err(error));
        }
        let (found, needed) = (600, 601);
        let more = with("11:disk neededi601e9:disk sizei600e");
        assert_eq!(more, Err(MetainfoError::DiskBytes { found, needed }));
        assert_eq!(
            with("11:disk needed1:9"),
            Err(MetainfoError::Key("disk needed"))
        );
        assert_eq!(
            MetainfoError::NeededBytes { found: 1, end: 2 }.to_string(),
            "torrent needs 1 bytes, accepted are 2 to 4611686018427387904"
        );
    }

    #[test]
    fn pieces_of_any_length_within_the_limits() {
        let with = |piece_bytes: i64| {
            let hashes = "h".repeat(20);
            let info = format!(
                "6:lengthi16384e4:name1:n12:piece lengthi{piece_bytes}e6:pieces20:{hashes}"
            );
            Metainfo::parse(format!("d4:infod{info}ee").as_bytes())
                .map(|metainfo| metainfo.layout.piece_bytes())
        };
        for good in [16384, 16385, 1_000_000, 16 << 20] {
            assert_eq!(with(good.into()), Ok(good));
        }
        for found in [
            0,
            -1,
            1,
            16383,
            (16 << 20) + 1,
            (1 << 32) + 16384,
            i64::MIN,
            i64::MAX,
        ] {
            assert_eq!(with(found), Err(LayoutError::PieceBytes { found }.into()));
        }
    }

    /// Both torrents were written by libtorrent 2.0.8 and then shortened. A hybrid directory needs
    /// pad files; version 2 alone has no `pieces`.
    #[test]
    fn hybrids_are_read_and_version_2_alone_is_refused() {
        let tree = "9:file treed8:disk.imgd0:d6:lengthi512e11:pieces root32:0123456789abcdef0123456789abcdefeee";
        let hybrid = torrent(&format!("{tree}6:lengthi512e12:meta versioni2e"), 1);
        assert_eq!(
            disk_and_length(&Metainfo::parse(&hybrid).unwrap()),
            [(0, 512)]
        );
        let alone = format!("d4:infod{tree}12:meta versioni2e4:name4:sda112:piece lengthi65536eee");
        let text = "torrent is for BitTorrent version 2 only, a version 1 or hybrid one is needed";
        assert_eq!(error(alone.as_bytes()), text);
    }

    #[test]
    fn names_become_one_harmless_path_component() {
        let cases = [
            ("sda1", "sda1"),
            ("vg/lv", "vg_lv"),
            ("../..", ".._.."),
            ("..", "_"),
            (".", "_"),
            ("", "_"),
            ("a\nb", "a\u{fffd}b"),
        ];
        cases
            .iter()
            .for_each(|(name, expected)| assert_eq!(label(name.as_bytes()), *expected));
        assert_eq!(label(&[b'n'; 300]).len(), 255);
    }

    #[test]
    fn trackers_are_kept_in_tiers_and_bounded() {
        let with = |head: &str| {
            let info =
                "4:infod6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhe";
            let metainfo = Metainfo::parse(format!("d{head}{info}e").as_bytes()).unwrap();
            let tiers: Vec<String> = metainfo
                .trackers
                .iter()
                .map(|tier| tier.join(" "))
                .collect();
            (tiers.join("|"), metainfo.webseeds.join(" "))
        };
        let trackers = |head: &str| with(head).0;
        assert_eq!(trackers(""), "");
        assert_eq!(trackers("8:announce1:a"), "a");
        assert_eq!(
            trackers("8:announce1:a13:announce-listll1:b1:cel1:dee"),
            "b c|d"
        );
        assert_eq!(trackers("8:announce1:a13:announce-listle"), "a");
        assert_eq!(trackers("8:announce1:a13:announce-listllel0:eli1eee"), "a");
        assert_eq!(trackers("8:announce1:a13:announce-list1:b"), "a");
        assert_eq!(trackers("8:announcei1e"), "");
        assert_eq!(trackers("8:announce3:a\r\n"), "");
        let many = format!(
            "13:announce-listl{}e",
            "l1:a1:be".repeat(limits::TRACKER_COUNT_MAX)
        );
        assert_eq!(
            trackers(&many).len(),
            "a b|".len() * limits::TRACKER_COUNT_MAX / 2 - 1
        );
        let long = "u".repeat(limits::URL_BYTES_MAX + 1);
        assert_eq!(trackers(&format!("8:announce{}:{long}", long.len())), "");

        let webseeds = |head: &str| with(head).1;
        assert_eq!(webseeds("8:url-list3:w/x"), "w/x");
        assert_eq!(webseeds("8:url-listl1:vi1e0:1:we"), "v w");
        assert_eq!(webseeds("8:url-list0:"), "");
        assert_eq!(
            webseeds(&format!("8:url-listl{}e", "1:w".repeat(99))),
            "w w w w w w w w"
        );
    }

    #[test]
    fn cut_short_anywhere_is_an_error() {
        for length in 0..FSBT.len() {
            assert!(Metainfo::parse(&FSBT[..length]).is_err(), "{length}");
        }
    }

    /// A torrent with a few bytes changed is refused, or else it keeps all invariants.
    #[test]
    fn changed_torrents_never_panic() {
        let mut rng = Rng::new(21);
        let (mut good, mut refused) = (0, 0);
        for _ in 0..30_000 {
            let mut torrent = FSBT.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(FSBT.len() as u32) as usize;
                torrent[at] = match rng.chance(1, 2) {
                    true => b"0123456789abcdefil:-p."[rng.below(22) as usize],
                    false => rng.below(256) as u8,
                };
            }
            let Ok(metainfo) = Metainfo::parse(&torrent) else {
                refused += 1;
                continue;
            };
            good += 1;
            assert_eq!(
                metainfo.hashes.len(),
                metainfo.layout.piece_count() as usize
            );
            assert_eq!(
                metainfo.extents.total_bytes(),
                metainfo.layout.total_bytes()
            );
            let files: u64 = fsbt_files(&torrent)
                .unwrap()
                .map(|file| file.unwrap().length)
                .sum();
            assert_eq!(files, metainfo.layout.total_bytes());
        }
        assert!(
            good > 1_000 && refused > 1_000,
            "{good} good, {refused} refused"
        );
    }
}
