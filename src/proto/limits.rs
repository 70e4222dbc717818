//! Every bound and every timeout, each with its reason. Nothing in the program grows past a number on this page.

use core::time::Duration;

/// What is asked of a peer in one request. Everybody uses it; larger requests are refused by libtorrent (BEP 3).
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Largest buffer of the pool: a piece lies in one or more of these. Large enough for one long disk request, small
/// enough that a 48 MiB pool still holds three pieces of 16 MiB or nearly two hundred chunks to serve from.
pub const BUFFER_BYTES_MAX: u32 = 256 * 1024;

/// Largest piece accepted: three of them must fit the pool of the default 64 MiB (one being received, one being
/// written, one to serve from).
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Smallest piece accepted: one block. Nobody makes smaller ones and they would only multiply the hashes.
pub const PIECE_BYTES_MIN: u32 = 16 * 1024;

/// Pieces in one torrent. 4 Mi pieces of 4 MiB are 16 TiB; their hashes are 80 MB, the metainfo limit below is met first.
pub const PIECE_COUNT_MAX: u32 = 1 << 22;

/// Files in one torrent. An FSBT image of a fragmented file system has tens of thousands, the largest seen 1.2 million.
pub const FILE_COUNT_MAX: usize = 2_000_000;

/// Size of a torrent file. 50 GB in 1 MiB pieces is 1 MB of hashes; 1.2 million FSBT files are about 85 MB.
pub const METAINFO_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Nesting of bencoded values. A torrent needs five levels, an extension handshake two.
pub const BENCODE_DEPTH_MAX: usize = 16;

/// An alignment every disk we know can do with O_DIRECT, and the granularity of FSBT extents.
pub const SECTOR_BYTES_MIN: u32 = 512;

/// Longest peer message that is not a `piece`: the bitfield of PIECE_COUNT_MAX pieces.
pub const MESSAGE_BYTES_MAX: u32 = PIECE_COUNT_MAX / 8 + 1;

/// Longest extension message (BEP 10) that is read; a handshake is about 200 bytes, a PEX message of 200 peers 1.4 KB.
pub const EXTENDED_BYTES_MAX: u32 = 64 * 1024;

/// Longest message of an id we do not know; it is skipped, but its bytes have to be somewhere until they are all there.
/// The longest in use is a `hashes` of BEP 52: 512 hashes and their proof are 17 KB.
pub const UNKNOWN_BYTES_MAX: u32 = 64 * 1024;

/// Addresses taken from one PEX message, of those added and of those dropped. BEP 11 asks for at most 50 of each, the
/// first message of a connection may be longer; libtorrent sends 100.
pub const PEX_PEER_COUNT_MAX: usize = 200;

/// Longest HTTP head (status line and headers) read before giving up.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest tracker answer: 2,000 IPv6 peers are 36 KB.
pub const ANNOUNCE_BYTES_MAX: usize = 256 * 1024;

/// Addresses taken from one tracker answer. The largest room planned for has a thousand machines;
/// trackers mostly send 50 to 200.
pub const ANNOUNCE_PEER_COUNT_MAX: usize = 2000;

/// Shortest interval a tracker can impose: one that says 0 would be asked by every machine of the room without pause.
pub const ANNOUNCE_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Longest interval a tracker can impose: one that says a day would hide everybody who joins meanwhile.
pub const ANNOUNCE_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Interval when a tracker names none: what most of them name.
pub const ANNOUNCE_INTERVAL_DEFAULT: Duration = Duration::from_secs(1800);

/// Longest URL that is accepted anywhere.
pub const URL_BYTES_MAX: usize = 2048;

/// Redirects followed for one HTTP request.
pub const REDIRECTS_MAX: u32 = 5;

/// Trackers kept from an announce-list (BEP 12).
pub const TRACKER_COUNT_MAX: usize = 32;

/// Web seeds kept from a url-list (BEP 19). One server or a mirror or two; each could become a connection.
pub const WEBSEED_COUNT_MAX: usize = 8;

/// Longest torrent name kept: what a directory entry can hold (NAME_MAX in linux/limits.h).
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest failure reason or warning kept from a tracker, and longest client name kept from a peer.
pub const TEXT_BYTES_MAX: usize = 256;

/// Time for one HTTP exchange to make progress before it counts as failed.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
