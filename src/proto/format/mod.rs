//! Bytes at rest: torrent files, and what lies on a disk.

pub(crate) mod bencode;
pub mod contents;
pub mod extents;
pub mod gpt;
pub mod layout;
pub mod mbr;
pub mod metainfo;
pub mod metainfo_write;
pub mod signatures;
