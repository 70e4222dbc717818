//! Bytes at rest: what is in a torrent file, and what is on a disk?
//!
//! `bencode` is the syntax of torrent files; `metainfo` reads them, `metainfo_write` writes them.
//! `layout` cuts a torrent into pieces and blocks, `extents` places its bytes on a disk, `contents`
//! finds zeros and equal pieces. `gpt` and `mbr` fit partition tables to a disk, `partitions` says
//! what such a table owns, `signatures` names what a disk holds, `leftovers` says which of that is
//! foreign to an image, `file_formats` tells files that are no disk image, `used_map` reads which
//! bytes of a source its file systems use. `slices` finds the bytes of an FSBT image in a directory
//! of files, `torrent_info` reads what partclone says of them. `lz4` compresses blocks, `lz4_frame`
//! finds those of a packed image. `names` reads what this machine knows about names of others.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)
)]

pub mod bencode;
pub mod contents;
mod crc32;
pub mod extents;
pub mod file_formats;
pub mod gpt;
pub mod layout;
pub mod leftovers;
pub mod lz4;
pub mod lz4_frame;
pub mod lz4_frame_error;
pub mod mbr;
pub mod metainfo;
pub mod metainfo_write;
pub mod names;
pub mod partclone;
pub mod partclone_data;
pub mod partclone_error;
mod partclone_map;
pub mod partitions;
pub mod signatures;
pub mod slices;
pub mod torrent_info;
pub mod used_map;
