//! How large, how many, how long? Every bound and every timeout, each with its reason.
//!
//! Nothing in the program grows past a number on this page. "The limit" in a measurement is the
//! shortest time in which a whole room can have the image (`sim/table.rs` computes it).

use core::time::Duration;

/// Length of one request. All clients use this size, and libtorrent refuses larger requests
/// (BEP 3).
pub const BLOCK_BYTES: u32 = 16 * 1024;

/// Largest buffer of the pool; a piece lies in one buffer or several. Large enough for one long
/// disk request, small enough that a pool of 48 MiB still holds three pieces of 16 MiB, or nearly
/// two hundred chunks to serve from.
pub(crate) const BUFFER_BYTES_MAX: u32 = 256 * 1024;

/// Largest piece accepted. Three pieces must fit into the default pool of 64 MiB: one being
/// received, one being written, one to serve from.
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Length of a disk that a torrent names. Half of what the kernel can name, so that no sum of a
/// place on it and a partition table overflows.
pub const DISK_BYTES_MAX: u64 = 1 << 62;

/// Smallest piece accepted: one block. No tool makes smaller pieces, which would only multiply the
/// hashes.
pub const PIECE_BYTES_MIN: u32 = 16 * 1024;

/// Pieces in one torrent. 4 Mi pieces of 4 MiB are 16 TiB. Their hashes are 80 MB, which nearly
/// fills a torrent file (METAINFO_BYTES_MAX).
pub(crate) const PIECE_COUNT_MAX: u32 = 1 << 22;

/// Files in one torrent. An FSBT image of a fragmented file system has tens of thousands; the
/// largest seen had 1.2 million.
pub const FILE_COUNT_MAX: usize = 2_000_000;

/// Size of a torrent file. 50 GB in 1 MiB pieces is 1 MB of hashes; 1.2 million FSBT files are
/// about 85 MB.
pub const METAINFO_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Size of a map of used blocks. A line of partclone has 26 bytes, and FILE_COUNT_MAX used ranges
/// with as many gaps between them are 104 MB.
pub const USED_MAP_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Nesting of bencoded values. A torrent needs five levels, an extension handshake two.
pub(crate) const BENCODE_DEPTH_MAX: usize = 16;

/// The smallest logical sector of any disk, so the smallest alignment for O_DIRECT, and the
/// granularity of FSBT extents.
pub const SECTOR_BYTES_MIN: u32 = 512;

/// Longest peer message that is not a `piece`: the bitfield of PIECE_COUNT_MAX pieces.
pub(crate) const MESSAGE_BYTES_MAX: u32 = PIECE_COUNT_MAX / 8 + 1;

/// Longest extension message (BEP 10) that is read. A handshake is about 200 bytes, a PEX message
/// of 200 peers is 1.4 KB.
pub(crate) const EXTENDED_BYTES_MAX: u32 = 64 * 1024;

/// Longest message of an id we do not know. It is skipped, but buffered until all of it has
/// arrived. The longest in use is `hashes` of BEP 52: 512 hashes and their proof are 17 KB.
pub(crate) const UNKNOWN_BYTES_MAX: u32 = 64 * 1024;

/// Addresses taken from one PEX message: this many added ones, and this many dropped ones. BEP 11
/// asks for at most 50 of each, but the first message of a connection may be longer; libtorrent
/// sends 100.
pub(crate) const PEX_PEER_COUNT_MAX: usize = 200;

/// Peers that one PEX message tells of at most (BEP 11), and that it drops at most.
pub(crate) const PEX_TOLD_MAX: usize = 50;

/// Pauses between two PEX messages to one peer. BEP 11 asks for a minute, and libtorrent closes a
/// connection on which the sixth message before the last came within one. But a room in which all
/// know only the seed must not wait for a minute: the first message goes out as soon as there is
/// somebody to tell of, and the next ones after 2, 8 and 32 s.
pub(crate) const PEX_PAUSE_MIN: Duration = Duration::from_secs(2);
pub(crate) const PEX_PAUSE_MAX: Duration = Duration::from_secs(60);
pub(crate) const PEX_PAUSE_GROWTH: u32 = 4;

/// A PEX message that comes sooner after the one before is not read: each costs a search among all
/// addresses.
pub(crate) const PEX_TAKEN_AFTER: Duration = Duration::from_secs(1);

/// Addresses remembered that were learned from the PEX messages of one IP address. A lying machine
/// must not fill the memory, and a seed tells of more than anybody needs.
pub(crate) const PEX_TAUGHT_MAX: usize = 100;

/// Longest HTTP head (status line and headers) read before giving up.
pub(crate) const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest tracker answer: 2,000 IPv6 peers are 36 KB.
pub const ANNOUNCE_BYTES_MAX: usize = 256 * 1024;

/// Addresses read from one tracker answer: all that fit into ANNOUNCE_BYTES_MAX. If they are more
/// than ADDRESSES_MAX, a random part of them is kept, so that no order hides a living one.
pub(crate) const ANNOUNCE_PEER_COUNT_MAX: usize = ANNOUNCE_BYTES_MAX / 6;

/// Longest URL that is accepted anywhere.
pub const URL_BYTES_MAX: usize = 2048;

/// Redirects followed for one HTTP request.
pub const REDIRECTS_MAX: u32 = 5;

/// Name servers and domains of /etc/resolv.conf that are used (resolv.conf(5): MAXNS, and what
/// glibc read before 2.26).
pub(crate) const NAME_SERVER_COUNT_MAX: usize = 3;
pub(crate) const SEARCH_COUNT_MAX: usize = 6;

/// Addresses kept of one name: each is tried for HTTP_TIMEOUT. A server has one or two of each
/// family.
pub(crate) const HOST_ADDRESS_COUNT_MAX: usize = 16;

/// How long a name server may take, and how often each one is asked. TCP repeats its first packet
/// after one second. A name server of our own network answers in milliseconds, one that has to ask
/// others on the internet within a second or two; its answer to the first question is accepted
/// after the second one, too.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(2);
pub const NAME_ROUNDS: usize = 2;

/// What is read of /etc/hosts and of /etc/resolv.conf. Lists of unwanted hosts in use have 5 MB.
pub const HOSTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Datagrams that are no answer, from one name server. A few may be late answers to the names
/// before; with more, somebody floods us.
pub const NAME_STRAYS_MAX: usize = 64;

/// Names whose addresses are remembered: a web server, a tracker and the server of reports for each
/// job that a daemon may have at the same time, as long as they are few.
pub const KNOWN_NAMES_MAX: usize = 16;

/// Trackers kept from an announce-list (BEP 12).
pub(crate) const TRACKER_COUNT_MAX: usize = 32;

/// Web seeds kept from a url-list (BEP 19). A torrent names one server and perhaps a mirror or two.
pub(crate) const WEBSEED_COUNT_MAX: usize = 8;

/// Longest torrent name kept: what a directory entry can hold (NAME_MAX in linux/limits.h).
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;

/// Longest failure reason or warning kept from a tracker, and longest client name kept from a peer.
pub(crate) const TEXT_BYTES_MAX: usize = 256;

/// Time for one HTTP exchange to make progress before it counts as failed.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections up to which an agent sets up more by itself; those that others set up count too.
/// About a dozen neighbours are enough to know a peer that has what we lack. With more neighbours,
/// all of them request a new piece from the first peer that has it, all receive it side by side,
/// and none can pass it on before all have it. With up to 64 connections the last of 64 and of 250
/// leechers took 1.35 and 1.24 of the limit, with 10 it took 1.08 and 1.14 (1000 pieces,
/// scripts/sim), and a sixth as many `have` are sent for each piece. With 6, some leechers had bad
/// neighbours (1.2 with 32 leechers).
pub(crate) const LINKS: usize = 10;

/// Connections of a leecher. With many more, the leechers that came first have most of the links
/// and so most of the data. With 24 the last of 64 and of 125 leechers took 1.24 and 1.39 of the
/// limit, with 16 it took 1.08 and 1.11 (1000 pieces, scripts/sim).
pub(crate) const LINKS_MAX: usize = 16;

/// Age from which a connection that its peer set up may be closed. When all seats are taken, a
/// newcomer gets the seat of the oldest such connection. If newcomers had to look for a free seat,
/// they would find one only at the peers that came just before them, and the room would become a
/// chain: of 100 leechers that started 20 ms apart the slowest took 1.37 of the limit, and
/// takes 1.19 with this rule (500 pieces, scripts/sim).
pub(crate) const LINK_KEPT: Duration = Duration::from_secs(1);

/// A machine in the room answers a call (a connection that we set up) within this time. A call that
/// takes longer does not keep an incomplete agent from calling others meanwhile, see CALLS_MAX.
pub(crate) const CALL_PROMPT: Duration = Duration::from_millis(250);

/// An incomplete agent whose calls are not answered makes further ones while it has fewer than this
/// many connections and calls. Each lasts CONNECT_MAX, so it tries 66 silent addresses a second,
/// and 2,000 in half a minute.
pub(crate) const CALLS_MAX: usize = 200;

/// Idle time from which a seed gives the seat of a peer to a newcomer, if no address has more seats
/// than another. Without a rate limit a peer that wants anything is served sooner than that.
pub(crate) const SEAT_KEPT: Duration = Duration::from_secs(10);

/// An incomplete agent that has received nothing for this time sets up one connection more than
/// LINKS, after the same time again another one, and so on up to SEED_LINKS_MAX. The peer that has
/// the missing piece may have joined later than all of our neighbours, and may connect to nobody by
/// itself. One at a time, because otherwise a room that waits for its seed would connect everybody
/// to everybody again and again.
pub(crate) const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// A leecher whose pipelines were all full for this time sets up one link more than LINKS, up to
/// LINKS_MAX. Of 32 leechers the last one had ten links, all to peers that had sixteen: it took
/// 1.067 of the limit while half of the room took 1.014. With this rule it takes 1.017 (5000
/// pieces, scripts/sim).
pub(crate) const PIPELINES_FULL_MAX: Duration = Duration::from_secs(3);

/// Machines of a room that fetch through its router (`policy/room`). Each of them is the first to
/// have an eighth of the pieces. The last of 3 rooms of 30 takes 1.22 of the limit with 4, 1.16
/// with 8 and 1.18 with 12; the last of 10 rooms of 12 takes 1.18, 1.16 and 1.27 (1000 pieces,
/// scripts/sim).
pub(crate) const GATEWAYS: u32 = 8;

/// Machines after the gateways that are connected to them, to replace those that go.
pub(crate) const DEPUTIES: u32 = 2;

/// Routed peers that a gateway calls, twice as many while none of them has everything. With 4, of 3
/// rooms two may have no connection with each other (1.19 of the limit, 1.16 with 8 and with 12).
pub(crate) const ROUTED_LINKS: usize = 8;

/// Further connections of an agent if there are several rooms: gateways are connected to each other
/// and to other rooms, and still need LINKS neighbours like everybody. When connections to each
/// other counted as those, gateways had no others, and came last (1.27 of the limit).
pub(crate) const ROOM_LINKS_MAX: usize = 16;

/// A room is hungry while it gets at most an eighth of what it once got. Each time that this has
/// lasted for HUNGER_TICKS its machines take the next turn at what they fetch from routed peers.
/// After HUNGER_MAX everybody fetches everything.
pub(crate) const HUNGER_TICKS: u32 = 8;
pub(crate) const HUNGER_MAX: u32 = 64;

/// Connections of a seed. Every leecher wants what it has.
pub(crate) const SEED_LINKS_MAX: usize = 80;

/// Connections of a seed without a tracker, and those that it keeps and uploads to. All of a room
/// call it, and go when it has told them of others (PEX). With a tracker, the last of 64 and of 200
/// leechers take 1.09 and 1.17 of the limit, and so it takes 1.07 and 1.15. If the seed kept
/// SEED_LINKS_MAX, it would take 1.15, and of 200 the first 80 would know only each other (3.2). If
/// it uploaded to those that are about to go, it would take 1.18 and 1.25 (1000 pieces,
/// scripts/sim).
pub(crate) const VISITORS_MAX: usize = 240;
pub(crate) const VISITORS_KEPT: usize = 20;

/// Addresses remembered: many times more than an agent ever connects to. More from a tracker are
/// not worth the memory.
pub(crate) const ADDRESSES_MAX: usize = 2000;

/// How long a peer keeps an upload slot while others wait for one.
pub(crate) const CHOKE_QUANTUM: Duration = Duration::from_secs(2);

/// Slowest `--max-up` and `--max-down`, in bytes per second. At this rate a peer gets all of its
/// first requests (PIPELINE_MIN) while it has the upload slot (CHOKE_QUANTUM). At lower rates the
/// peers that wait would take us for dead (REQUEST_PATIENCE_MAX).
pub const RATE_MIN: u64 = 128 * 1024;

/// Fastest `--max-up` and `--max-down`, in bytes per second: 1 TiB. No network is faster, so a
/// higher limit would only cost the counting.
pub const RATE_MAX: u64 = 1 << 40;

/// What a rate limit lets through at once after idle time: 2 % of what it allows in five seconds.
pub(crate) const THROTTLE_BURST: Duration = Duration::from_millis(100);

/// How long a rate limit that is used up stops all transfers before some may go on. 10 ms are a
/// hundred wake-ups a second.
pub(crate) const THROTTLE_PAUSE: Duration = Duration::from_millis(10);

/// What one peer may take before the others have their turn, as time at the full rate limit. It is
/// always at least one block.
pub(crate) const THROTTLE_QUANTUM: Duration = Duration::from_micros(2500);

/// How long the process is watched before `policy::load` decides whether blocks are compressed. In
/// 100 ms a process that needs 5 % of a core looked busy now and then, on a host with ten others.
pub(crate) const LOAD_WINDOW: Duration = Duration::from_millis(500);

/// In percent: a process that is busy for more of its time does not compress.
pub(crate) const LOAD_MAX: u32 = 90;

/// How long blocks go as they are after there was no time to compress them: longer each time. While
/// it is tried, a window may be lost.
pub(crate) const LOAD_PAUSE_MIN: Duration = Duration::from_secs(1);
pub(crate) const LOAD_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a process is taken to compress: half of what the machine measured here does.
pub(crate) const PACKED_BYTES_A_SECOND: u64 = 250_000_000;

/// Interval of the periodic work: choker, timeouts, rates.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Requests that stand with a peer before its speed is known. 64 KiB in flight fill a LAN's round
/// trip. A block that was requested from one peer is not requested from another that might be
/// faster: with 16 the last of 32 leechers took 1.107 of the limit, with 4 it takes 1.066 (1000
/// pieces of 256 KiB, scripts/sim).
pub(crate) const PIPELINE_MIN: u32 = 4;

/// Most requests that stand with one peer: 8 MiB in flight. Transmission 3.00 promises to keep 512
/// and refuses the last of them, and a refusal is a pause (REFUSED_PAUSE).
pub(crate) const PIPELINE_MAX: u32 = 511;

/// Requests that stand with a peer, as time at its measured rate. With 300 ms the last of 64 and of
/// 250 leechers took 1.14 and 1.17 of the limit, with 100 ms it took 1.13 and 1.16 (600 pieces,
/// scripts/sim).
pub(crate) const PIPELINE_TIME: Duration = Duration::from_millis(100);

/// How long a longer pipeline of another client lasts after it was last too short: transmission
/// answers twice a second, and may skip a turn. 256 MiB from transmission take 25.6 s, of which it
/// has us wait for nearly 10 s before it begins; from one transmission to another they take 46.9 s.
pub(crate) const PIPELINE_KEPT: Duration = Duration::from_secs(2);

/// Requests that a peer is assumed to keep until its extension handshake names a number (`reqq`).
/// 250 is libtorrent's old default.
pub(crate) const REQUESTS_ASSUMED: u32 = 250;

/// Requests that we promise to keep for each peer (`reqq`). More are refused.
pub(crate) const UPLOAD_QUEUE_MAX: usize = 2048;

/// Messages that wait to be sent to a peer that does not read. With more it is closed.
pub(crate) const REPLIES_MAX: usize = 2 * UPLOAD_QUEUE_MAX;

/// Window over which a peer's rate is measured.
pub(crate) const RATE_WINDOW: Duration = Duration::from_millis(250);

/// Peers that the same block is requested from in the endgame: the slow one, and two that may be
/// faster.
pub(crate) const ENDGAME_REQUESTS_MAX: u8 = 3;

/// Parts of a piece that are checked and passed on before the whole piece is there: at least so
/// long, so that what is said of each (38 bytes to each neighbour) stays below 1 % of it. With 16
/// KiB, 32 machines took 1.076 of the limit instead of 1.073 (256 pieces of 256 KiB).
pub(crate) const PART_BYTES_MIN: u32 = 64 * 1024;

/// Parts of a long piece, if they fit into the buffers of the pool.
pub(crate) const PARTS_PER_PIECE: u32 = 16;

/// Marks in one message: a piece of 16 MiB has 63, one in each buffer of the pool but the first.
pub(crate) const MARKS_MAX: usize = 64;

/// Pieces of which marks are kept: those that a seed has offered to its neighbours, or that an
/// agent has open.
pub(crate) const MARKED_PIECES_MAX: usize = 256;

/// Pieces of which we remember that a peer has the tail.
pub(crate) const TAILS_MAX: usize = OPEN_PIECES_MAX;

/// When less than this part of the most has arrived in so many ticks, an agent asks a seed for
/// anything, also for what others pass on: they may wait for each other, or for a slow machine.
pub(crate) const STARVED_PART: u64 = 4;
pub(crate) const STARVED_TICKS: u32 = 2;

/// So many blocks must have arrived in these ticks once: 4 Mbit/s.
pub(crate) const STARVED_BLOCKS_MIN: u64 = 16;

/// A seed that has offered everything goes on as if it had not, while more than this part of its
/// peers have an offer that they have not begun to follow: otherwise all would ask for these pieces
/// at once. If it held them until all had begun, some of 32 machines with a tenth of the rate would
/// keep the others waiting (1.111 of the limit instead of 1.090), and equal machines would take
/// 1.072 instead of 1.076 (256 pieces of 256 KiB).
pub(crate) const HELD_PART: usize = 4;

/// With fewer peers a seed does not go on so: of three, one that lags would make the others wait.
pub(crate) const HELD_MIN: usize = 8;

/// Pieces being filled at once: enough to keep 64 peers busy that have one piece each, few enough
/// that pieces finish.
pub(crate) const OPEN_PIECES_MAX: usize = 64;

/// A quarter of the pool is kept to serve peers from.
pub(crate) const SERVING_PART: usize = 4;

/// Buffers that keep the chunks used last, while the rest of the pool stays untouched memory: one
/// part in KEPT_PART of the pool, and at least KEPT_MIN buffers. Each time that a chunk is asked
/// for which was dropped lately, KEPT_MORE buffers are added. With a pool of 64 MiB a lone seeder
/// keeps 14 MiB this way, and has 19 MiB in all.
pub(crate) const KEPT_PART: usize = 4;
pub(crate) const KEPT_MIN: usize = 16;
pub(crate) const KEPT_MORE: usize = 4;

/// Chunks read from the disk ahead of the requests of one peer, and chunks being read for all peers
/// together.
pub(crate) const READS_PER_PEER_MAX: usize = 4;
pub(crate) const READS_MAX: usize = 32;

/// A request of a few bytes makes a seed read a chunk of 256 KiB, and may be cancelled after that.
/// The chunks read for a peer, less the blocks sent to it, are its excess reads: at this number
/// nothing more is read for the peer. One lapses each EXCESS_READ_LAPSE. A peer that takes at least
/// one block of each chunk has hardly any.
pub(crate) const EXCESS_READS_MAX: u32 = 16;
pub(crate) const EXCESS_READ_LAPSE: Duration = Duration::from_secs(1);

/// A peer that has not taken a block for this time is not read ahead for, and after UNREAD_MAX it
/// is closed if buffers are short.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(1);
pub(crate) const UNREAD_MAX: Duration = Duration::from_secs(4);

/// Size of the sample that shows whether a target holds any of the image: pieces, and bytes (but
/// always one piece). If a disk holds 10 % of the image, 64 pieces miss all of it once in 850
/// times. 256 MiB take a slow disk 3 s.
pub(crate) const SAMPLE_PIECES_MAX: u32 = 64;
pub(crate) const SAMPLE_BYTES: u32 = 256 * 1024 * 1024;

/// Pieces of a target that cannot be read and are reported with a line each. A dying disk may have
/// thousands.
pub(crate) const UNREAD_TOLD_MAX: u32 = 16;

/// Chunks of a read queue that are in flight or wait to be hashed: 16 x 256 KiB keep any disk busy.
pub(crate) const READ_AHEAD_MAX: usize = 16;

/// Bytes that are written between a piece and its read-back, so that the medium answers and not a
/// cache: most disks that turn have one of 64 to 256 MiB. An image that is shorter is read back at
/// the end.
pub const READ_BACK_DISTANCE: u64 = 256 * 1024 * 1024;

/// What a write waits for read-backs at most, as far as the disk can be foreseen.
pub(crate) const READ_BACK_PAUSE: Duration = Duration::from_millis(50);

/// Per cent of its time that a disk may need for the download while it also reads back. With 100, a
/// simulated room whose disks seek most of the time took 1.03 times as long as with everything read
/// back at the end.
pub(crate) const READ_BACK_LOAD_MAX: u64 = 75;

/// Pieces of zeros being written at once. If the disk makes zeros by itself, each takes no time;
/// else each is as much to write as any piece.
pub const ZERO_WRITES_MAX: usize = 4;

/// Copies of equal pieces being written at once, beside the pieces that have just arrived. It takes
/// this many of the shortest pieces to keep a disk busy. An image full of 0xff has hundreds of
/// thousands of copies.
pub(crate) const COPY_WRITES_MAX: usize = 16;

/// Pieces that are hashed side by side: as many as the hash unit can do at once (`os/sha1.rs`),
/// which takes half of the time that one after the other would take.
pub const HASHED_AT_ONCE: usize = 4;

/// A seeder that has not hashed its image reads pieces ahead, which peers wait for or are offered,
/// until so many are being read or hashed. With twice as many it needs as much processor time.
pub(crate) const PROVED_AHEAD: usize = HASHED_AT_ONCE;

/// Bytes that wait until there are HASHED_AT_ONCE pieces to hash. From a fast peer one piece
/// arrives after the other, so pieces of 1 MiB have the fourth one begun when 3 MiB wait. Hashing
/// of longer pieces must begin before they are whole.
pub(crate) const HASH_BACKLOG_BYTES: u32 = 4 * 1024 * 1024;

/// How long the bytes of fewer than HASHED_AT_ONCE pieces wait for further pieces to be hashed
/// together with. At 1 GbE a piece of 1 MiB takes 9 ms. Where the network is fast enough for
/// hashing to matter, they arrive sooner. One wait for each piece is nothing beside the time of a
/// whole image.
pub const HASH_PATIENCE: Duration = Duration::from_millis(5);

/// First pause after a peer refused a request (BEP 6 reject). It doubles with each refusal, up to
/// 64 times this.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Suggestions kept from a peer.
pub(crate) const SUGGESTED_MAX: usize = 32;

/// Most pieces that a seed offers to a peer ahead of its requests.
pub(crate) const OFFERED_AHEAD_MAX: u32 = 4;

/// After this time without a useful suggestion, a seed that offers is asked for any piece.
pub(crate) const OFFER_PATIENCE: Duration = Duration::from_secs(3);

/// Bytes that a seed offers to a peer ahead of its requests, but always at least two pieces.
pub(crate) const OFFERED_BYTES: u32 = 1024 * 1024;

/// A request that takes this many times as long as blocks usually take is late, and its peer is
/// snubbed: others are asked for the block as well. Not before REQUEST_PATIENCE_MIN, because
/// transmission answers once a second, and at REQUEST_PATIENCE_MAX at the latest.
pub(crate) const REQUEST_PATIENCE_TIMES: u32 = 8;
pub(crate) const REQUEST_PATIENCE_MIN: Duration = Duration::from_secs(2);
pub(crate) const REQUEST_PATIENCE_MAX: Duration = Duration::from_secs(8);

/// A block whose bytes have been arriving for this time ends the connection, if another peer could
/// send it: while they arrive, nobody else can be asked for it. So this is what a sender that loses
/// its power in the middle of a block may cost the others. At 1.6 KiB/s a block takes as long.
pub(crate) const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// How long a single peer may take to fill a piece that was bad, if others have it. It doubles each
/// time, up to the longest.
pub(crate) const FILL_PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const FILL_PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// A peer that has requests and sends none of these blocks for this time, or that takes nothing of
/// what it requested, is closed. Nothing else that it sends counts.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A connection on which nothing at all has arrived for this time is closed. Keep-alives come every
/// two minutes (BEP 3).
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(150);

/// A keep-alive is sent when nothing else was sent for this time (BEP 3).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Time to set up a TCP connection while other addresses wait for their turn: the kernel has
/// repeated its request once by then, after 1 s.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The same while no address waits. Behind a full line of 100 kbit/s with a queue of 64 KiB an
/// answer takes 5 s.
pub(crate) const CONNECT_PATIENT_MAX: Duration = Duration::from_secs(10);

/// Time to exchange handshakes.
pub const GREETING_MAX: Duration = Duration::from_secs(10);

/// First and longest pause before an address is tried again. The pause doubles each time.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_secs(1);
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// First and longest time for which a peer that sent bad data is kept away. It doubles each time.
/// The longest is what an honest machine waits behind the same NAT as somebody who sends bad data
/// under one name after the other.
pub(crate) const BAN_MIN: Duration = Duration::from_secs(10);
pub(crate) const BAN_MAX: Duration = Duration::from_secs(300);

/// The same while nobody else has what is missing, and for the peers of the command line.
pub(crate) const BAN_NEEDED_MIN: Duration = Duration::from_secs(1);
pub(crate) const BAN_NEEDED_MAX: Duration = Duration::from_secs(30);

/// Offences older than this do not lengthen a ban. Over a day, each of many machines behind one NAT
/// may send one bad block.
pub(crate) const OFFENCE_KEPT: Duration = Duration::from_secs(3000);

/// Connections that can still be blamed for blocks that they sent: several times SEED_LINKS_MAX,
/// for those that have ended, and more than CALLS_MAX.
pub(crate) const GIVERS_MAX: usize = 512;

/// Peers and addresses that sent bad data and are remembered.
pub(crate) const OFFENDERS_MAX: usize = 1024;

/// Announce interval while no peer is connected, while incomplete, and once complete. opentracker
/// asks for half an hour. A room that starts within a minute cannot wait that long, and complete
/// agents must notice in time that the tracker has ended.
pub(crate) const ANNOUNCE_ALONE: Duration = Duration::from_secs(3);
pub(crate) const ANNOUNCE_INCOMPLETE: Duration = Duration::from_secs(15);
pub(crate) const ANNOUNCE_COMPLETE: Duration = Duration::from_secs(8);

/// First and longest pause after a tracker did not answer. The pause doubles each time.
pub(crate) const ANNOUNCE_RETRY_MIN: Duration = Duration::from_secs(1);
pub(crate) const ANNOUNCE_RETRY_MAX: Duration = Duration::from_secs(5);

/// A complete agent whose announces are answered, but with nothing that a tracker writes, believes
/// for this many grace times that there is a tracker: 5 minutes by default. A tracker that is
/// overloaded for two minutes behind a proxy must release nobody, and one that is gone everybody.
pub(crate) const DOUBT_TIMES: u32 = 10;

/// Longest pause that a busy tracker is granted (`Retry-After`). Without a bound one answer could
/// send a machine to sleep for good, and a complete one would not notice the end of the tracker.
pub(crate) const ANNOUNCE_BUSY_MAX: Duration = Duration::from_secs(60);

/// Peers that the tracker is asked for (BEP 3 `numwant`).
pub(crate) const NUMWANT: u32 = 200;

/// How long the upload of a complete agent may stay under `--min-upload`. SystemImager's clients
/// wait as long.
pub(crate) const SLOW_UPLOAD_MAX: Duration = Duration::from_secs(15);

/// How long leaving waits for the tracker to take our `stopped`: one SYN may be lost. Whoever sends
/// a signal sees the end within two seconds.
pub(crate) const LEAVING_MAX: Duration = Duration::from_millis(1500);

/// An incomplete agent that has received nothing for this time says what it waits for. Peers are
/// found, choked and unchoked within less.
pub(crate) const WAITING_AFTER: Duration = Duration::from_secs(10);

/// Events kept until they are fetched.
pub(crate) const EVENTS_MAX: usize = 64;
