//! Every bound and every timeout, each with its reason. Nothing in the program grows past a number
//! on this page.

use core::time::Duration;

/// What is asked of a peer in one request. Everybody uses it; larger requests are refused by
/// libtorrent (BEP 3).
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Largest buffer of the pool: a piece lies in one or more of these. Large enough for one long disk
/// request, small enough that a 48 MiB pool still holds three pieces of 16 MiB or nearly two
/// hundred chunks to serve from.
pub(crate) const BUFFER_BYTES_MAX: u32 = 256 * 1024;

/// Largest piece accepted: three of them must fit the pool of the default 64 MiB (one being
/// received, one being written, one to serve from).
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Smallest piece accepted: one block. Nobody makes smaller ones and they would only multiply the
/// hashes.
pub const PIECE_BYTES_MIN: u32 = 16 * 1024;

/// Pieces in one torrent. 4 Mi pieces of 4 MiB are 16 TiB; their hashes are 80 MB, the metainfo
/// limit below is met first.
pub(crate) const PIECE_COUNT_MAX: u32 = 1 << 22;

/// Files in one torrent. An FSBT image of a fragmented file system has tens of thousands, the
/// largest seen 1.2 million.
pub const FILE_COUNT_MAX: usize = 2_000_000;

/// Size of a torrent file. 50 GB in 1 MiB pieces is 1 MB of hashes; 1.2 million FSBT files are
/// about 85 MB.
pub const METAINFO_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Nesting of bencoded values. A torrent needs five levels, an extension handshake two.
pub(crate) const BENCODE_DEPTH_MAX: usize = 16;

/// An alignment every disk we know can do with O_DIRECT, and the granularity of FSBT extents.
pub const SECTOR_BYTES_MIN: u32 = 512;

/// Longest peer message that is not a `piece`: the bitfield of PIECE_COUNT_MAX pieces.
pub(crate) const MESSAGE_BYTES_MAX: u32 = PIECE_COUNT_MAX / 8 + 1;

/// Longest extension message (BEP 10) that is read; a handshake is about 200 bytes, a PEX message
/// of 200 peers 1.4 KB.
pub(crate) const EXTENDED_BYTES_MAX: u32 = 64 * 1024;

/// Longest message of an id we do not know; it is skipped, but its bytes have to be somewhere until
/// they are all there. The longest in use is a `hashes` of BEP 52: 512 hashes and their proof are
/// 17 KB.
pub(crate) const UNKNOWN_BYTES_MAX: u32 = 64 * 1024;

/// Addresses taken from one PEX message, of those added and of those dropped. BEP 11 asks for at
/// most 50 of each, the first message of a connection may be longer; libtorrent sends 100.
pub(crate) const PEX_PEER_COUNT_MAX: usize = 200;

/// Longest HTTP head (status line and headers) read before giving up.
pub(crate) const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest tracker answer: 2,000 IPv6 peers are 36 KB.
pub const ANNOUNCE_BYTES_MAX: usize = 256 * 1024;

/// Addresses taken from one tracker answer. The largest room planned for has a thousand machines;
/// trackers mostly send 50 to 200.
pub(crate) const ANNOUNCE_PEER_COUNT_MAX: usize = 2000;

/// Longest URL that is accepted anywhere.
pub const URL_BYTES_MAX: usize = 2048;

/// Redirects followed for one HTTP request.
pub const REDIRECTS_MAX: u32 = 5;

/// Trackers kept from an announce-list (BEP 12).
pub(crate) const TRACKER_COUNT_MAX: usize = 32;

/// Web seeds kept from a url-list (BEP 19). One server or a mirror or two; each could become a
/// connection.
pub(crate) const WEBSEED_COUNT_MAX: usize = 8;

/// Longest torrent name kept: what a directory entry can hold (NAME_MAX in linux/limits.h).
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest failure reason or warning kept from a tracker, and longest client name kept from a peer.
pub(crate) const TEXT_BYTES_MAX: usize = 256;

/// Time for one HTTP exchange to make progress before it counts as failed.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that a machine sets up itself, with those that others set up counted in. A dozen
/// neighbours are enough to know of somebody who has what one lacks. With more, everybody asks
/// whoever has a new piece for it at once, all get it side by side, and nobody can pass it on
/// before all have it: with up to 64 the last of 64 and of 250 leechers took 1.35 and 1.24 of the
/// limit, and with 10 1.08 and 1.14 (1000 pieces, scripts/sim); and each piece is told to a sixth
/// as many. With 6 some had bad neighbours (1.2 with 32 leechers).
pub(crate) const LINKS: usize = 10;

/// Connections of a leecher. With many more those who came first have most of the links, and what
/// comes over them: with 24 the last of 64 and of 125 leechers took 1.24 and 1.39 of the limit,
/// with 16 1.08 and 1.11 (1000 pieces, scripts/sim).
pub(crate) const LINKS_MAX: usize = 16;

/// When all places are taken, a newcomer gets that of whoever has called longest ago, if that is as
/// long as this. If it had to look for a free place it would find only those who came just before,
/// and the room would become a chain: of 100 leechers that started 20 ms one after another the
/// slowest took 1.37 of the limit then, and 1.19 so (500 pieces, scripts/sim).
pub(crate) const LINK_KEPT: Duration = Duration::from_secs(1);

/// Who lacks something and has got nothing for so long calls one more than LINKS, and after as long
/// again another one, up to SEED_LINKS_MAX: whoever has it may have come after those it knows, and
/// may call nobody. One at a time, since a room that waits for its seed would call all of itself
/// again and again.
pub(crate) const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// Connections of a seed: whatever it has is wanted by everybody.
pub(crate) const SEED_LINKS_MAX: usize = 80;

/// Addresses remembered. A tracker that sends more than anybody connects to many times over is not
/// worth more memory.
pub(crate) const ADDRESSES_MAX: usize = 2000;

/// How long a slot is kept while others wait for it.
pub(crate) const CHOKE_QUANTUM: Duration = Duration::from_secs(2);

/// Slowest `--max-up` and `--max-down`, in bytes per second: with it one peer at a time gets what
/// it asks for at once (PIPELINE_MIN) while it has the slot (CHOKE_QUANTUM). Slower than that,
/// those who wait take us for dead (SNUB_AFTER).
pub const RATE_MIN: u64 = 128 * 1024;

/// Fastest: beyond it one counts in vain.
pub const RATE_MAX: u64 = 1 << 40;

/// What a limit lets through at once after idle time: in any five seconds 2 % of what it allows.
pub(crate) const THROTTLE_BURST: Duration = Duration::from_millis(100);

/// How long a limit keeps everybody waiting before some of them go on: a hundred wake-ups a second.
pub(crate) const THROTTLE_PAUSE: Duration = Duration::from_millis(10);

/// What one peer may take before the others had their turn, in time of the whole limit; at least a
/// block.
pub(crate) const THROTTLE_QUANTUM: Duration = Duration::from_micros(2500);

/// Housekeeping: choker, time-outs, rates.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Requests that stand with a peer before its speed is known: 64 KiB in flight fill a LAN's round
/// trip. What was asked of one peer is not asked of another that would have been sooner: 16 made it
/// 1.107 of the limit with 32 leechers (1000 pieces of 256 KiB, scripts/sim), 4 make it 1.066.
pub(crate) const PIPELINE_MIN: u32 = 4;

/// Most requests with one peer: 8 MiB in flight.
pub(crate) const PIPELINE_MAX: u32 = 512;

/// How much of a peer's rate is asked for ahead. With 300 ms the last of 64 and of 250 leechers
/// took 1.14 and 1.17 of the limit, with 100 ms 1.13 and 1.16 (600 pieces, scripts/sim).
pub(crate) const PIPELINE_TIME: Duration = Duration::from_millis(100);

/// Requests a peer is assumed to keep until its extension handshake says so (`reqq`; 250 is
/// libtorrent's old default).
pub(crate) const REQUESTS_ASSUMED: u32 = 250;

/// What we promise to keep per peer (`reqq`); more are refused.
pub(crate) const UPLOAD_QUEUE_MAX: usize = 2048;

/// Messages waiting to be said to a peer that does not read; beyond this it is closed.
pub(crate) const REPLIES_MAX: usize = 2 * UPLOAD_QUEUE_MAX;

/// Window over which a peer's rate is measured.
pub(crate) const RATE_WINDOW: Duration = Duration::from_millis(250);

/// Peers asked for the same block in the endgame: the slow one, and two that may be faster.
pub(crate) const ENDGAME_REQUESTS_MAX: u8 = 3;

/// Pieces being filled at once: enough that 64 peers of one piece each are all busy, few enough
/// that pieces finish.
pub(crate) const OPEN_PIECES_MAX: usize = 64;

/// One part in so many of the pool is kept to serve others from.
pub(crate) const SERVING_PART: usize = 4;

/// One part in so many of the pool keeps what was used last, if that is not too little to be of
/// use; and so many more buffers each time that it was. With 64 MiB a lone seeder keeps 14 of them,
/// and has 19 MiB in all.
pub(crate) const KEPT_PART: usize = 4;
pub(crate) const KEPT_MIN: usize = 16;
pub(crate) const KEPT_MORE: usize = 4;

/// Chunks read from the disk ahead of what one peer has asked for, and chunks being read in all.
pub(crate) const READS_PER_PEER_MAX: usize = 4;
pub(crate) const READS_MAX: usize = 32;

/// Pieces looked at first, to see whether a target holds any of the image, and how many bytes these
/// are at most (one piece at least). Of a disk that holds 10 % of it, 64 pieces show nothing once
/// in 850 times; 256 MiB take a slow disk 3 s.
pub(crate) const SAMPLE_PIECES_MAX: u32 = 64;
pub(crate) const SAMPLE_BYTES: u32 = 256 * 1024 * 1024;

/// Pieces of a target that cannot be read, of which a line is said. A dying disk may have
/// thousands.
pub(crate) const UNREAD_TOLD_MAX: u32 = 16;

/// Chunks of an read_queue in flight: 16 x 256 KiB keep any disk busy.
pub(crate) const READ_AHEAD_MAX: usize = 16;

/// Pieces of zeros being written. Where the disk makes them by itself each takes no time, else each
/// is a piece of writing.
pub const ZERO_WRITES_MAX: usize = 4;

/// Places of equal pieces being written beside the pieces that have come. Of the shortest pieces it
/// takes this many to keep a disk busy; a disk full of 0xff has hundreds of thousands of them.
pub(crate) const COPY_WRITES_MAX: usize = 16;

/// Bytes of one piece that wait to be hashed together with another one. With pieces of 4 MiB that
/// other one has begun by then; longer ones must not be whole before their hash is begun.
pub(crate) const HASH_BACKLOG_BYTES: u32 = 4 * 1024 * 1024;

/// How long the bytes of one piece wait for those of a second one to be hashed with. At 1 GbE a
/// piece of 1 MiB takes 9 ms, and for whom it is fast enough to matter it comes sooner; once a
/// piece is nothing beside the time of a whole image.
pub const HASH_PATIENCE: Duration = Duration::from_millis(5);

/// First pause after a peer refused a request (BEP 6 reject); doubles up to 64 times this.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Suggestions kept from a peer.
pub(crate) const SUGGESTED_MAX: usize = 32;

/// Most suggestions that a peer has ahead.
pub(crate) const OFFERED_AHEAD_MAX: u32 = 4;

/// A seed that offers and has not suggested anything of use for so long is asked for anything.
pub(crate) const OFFER_PATIENCE: Duration = Duration::from_secs(3);

/// Bytes that a seed suggests to a peer ahead of its requests (at least two pieces).
pub(crate) const OFFERED_BYTES: u32 = 1024 * 1024;

/// A peer that was asked and sent nothing for so long is snubbed: others are asked for its blocks.
pub(crate) const SNUB_AFTER: Duration = Duration::from_secs(5);

/// A peer that was asked and sent nothing for so long, or takes nothing of what it asked for, is
/// closed. A block whose sender lost its power half-way is asked of nobody else before, so this is
/// what a power cut may cost the others.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A connection on which nothing at all was heard is closed (BEP 3: keep-alives come every two
/// minutes).
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(150);

/// A keep-alive is sent after so long without a word (BEP 3).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Time to set up a connection and exchange handshakes.
pub const GREETING_MAX: Duration = Duration::from_secs(10);

/// First pause before an address is tried again; doubles up to the second.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_secs(1);
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// Announce interval while nobody is connected, while incomplete, and once complete. opentracker
/// asks for half an hour; a room that starts within a minute cannot wait so long, and the tracker's
/// end must be noticed in time.
pub(crate) const ANNOUNCE_ALONE: Duration = Duration::from_secs(3);
pub(crate) const ANNOUNCE_INCOMPLETE: Duration = Duration::from_secs(15);
pub(crate) const ANNOUNCE_COMPLETE: Duration = Duration::from_secs(8);

/// Pause after a tracker did not answer; doubles up to the second.
pub(crate) const ANNOUNCE_RETRY_MIN: Duration = Duration::from_secs(1);
pub(crate) const ANNOUNCE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Peers asked of the tracker (BEP 3 `numwant`).
pub(crate) const NUMWANT: u32 = 200;

/// How long leaving waits for the tracker to take our `stopped`.
pub(crate) const FAREWELL_MAX: Duration = Duration::from_secs(3);

/// Events kept for the log until they are fetched.
pub(crate) const EVENTS_MAX: usize = 64;
