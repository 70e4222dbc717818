//! Where the bytes of a torrent lie: reading and writing pieces, and the partition table around
//! them.

pub mod disk;
pub mod hasher;
pub mod partition_table;
pub mod reader;
