//! Where are payload bytes between socket and device?
//!
//! In one anonymous mapping cut into equal, page-aligned buffers, so that O_DIRECT can take them as
//! they are (open(2), NOTES, O_DIRECT). A buffer costs memory only after it has been written to.
//! Sectors that are only partly ours go through a small `Bounce` of their own.
//!
//! Sockets fill a buffer and send from it, the hash reads it, and the kernel moves it to and from
//! the device. The core's `cache` decides which of them may: it pins a buffer as long as an
//! operation on it is in flight. This module returns references for one call at a time and never
//! keeps one. Behind the buffers that were asked for there is one more, which is never filled: it
//! holds the zeros that are written where zeros belong.
//!
//! The pool of a seed with a packed image keeps blocks *packed*: as they lie in the file, at the
//! place of the bytes that they stand for.

use std::alloc::Layout;
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use swarm_proto::format::lz4;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::units::BufferId;

/// Smallest page of any Linux. Buffers are multiples of it, so if the first one is page-aligned,
/// all are.
const PAGE_BYTES: u32 = 4096;

/// Equal, page-aligned buffers in one mapping.
///
/// Drop order: the kernel may write into a buffer as long as an operation is in flight, so a `Pool`
/// must outlive every `Aio` that was given segments of it. In a struct that holds both, the `Aio`
/// comes first.
pub struct Pool {
    memory: NonNull<u8>,
    buffer_bytes: u32,
    count: u32,
    /// Of each block of each buffer: how many bytes it has if it is packed, else 0. Empty if none
    /// is kept packed.
    packed: Vec<u16>,
}

impl Pool {
    /// Maps `count` buffers of `buffer_bytes` each, and the zeros. The kernel provides each page on
    /// its first use.
    pub fn new(buffer_bytes: u32, count: u32) -> io::Result<Pool> {
        assert!(buffer_bytes > 0);
        assert!(buffer_bytes.is_multiple_of(PAGE_BYTES));
        assert!(count > 0);
        let length = mapping_bytes(buffer_bytes, count);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // NORESERVE: on a machine with 128 MiB and strict overcommit only pages that are used
        // count.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // The kernel looks up and holds each page of a buffer for each direct read and write. With
        // huge pages a seeder needs a third less processor time. The first byte that is touched
        // costs 2 MiB, but a full pool costs no more than without. Kernels without huge pages
        // answer EINVAL.
        // SAFETY: the range is the mapping made above.
        let _ = unsafe { libc::madvise(address, length, libc::MADV_HUGEPAGE) };
        let memory =
            NonNull::new(address.cast()).expect("mmap without MAP_FIXED never maps page 0");
        Ok(Pool {
            memory,
            buffer_bytes,
            count,
            packed: Vec::new(),
        })
    }

    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    #[cfg(test)]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A buffer that is always zeros.
    pub fn zeros(&self) -> BufferId {
        BufferId(self.count)
    }

    /// The whole buffer, to hash it or to send from it. Meanwhile the kernel may be writing it to
    /// the device.
    pub fn bytes(&self, buffer: BufferId) -> &[u8] {
        // SAFETY: the range lies in our mapping, which lives as long as `self` and was zeroed by
        // the kernel. The cache has pinned the buffer for the caller: no read from the device into
        // it is in flight, so nothing changes it.
        unsafe {
            std::slice::from_raw_parts(self.start(buffer).as_ptr(), self.buffer_bytes as usize)
        }
    }

    /// The whole buffer, to receive into it.
    pub fn bytes_mut(&mut self, buffer: BufferId) -> &mut [u8] {
        assert_ne!(buffer, self.zeros(), "zeros stay zeros");
        // SAFETY: as in `bytes`. `&mut self` excludes every other reference that this pool
        // returned, and the cache gives a buffer away to be filled only when no read or write of it
        // is in flight.
        unsafe {
            std::slice::from_raw_parts_mut(self.start(buffer).as_ptr(), self.buffer_bytes as usize)
        }
    }

    /// A part of a buffer, as a request to the kernel names it.
    pub fn segment(&self, buffer: BufferId, offset: u32, length: u32) -> Segment {
        assert!(length > 0);
        assert!(offset < self.buffer_bytes);
        assert!(length <= self.buffer_bytes - offset);
        // SAFETY: `offset` is inside the buffer, checked above.
        let address = unsafe { self.start(buffer).add(offset as usize) };
        Segment(libc::iovec {
            iov_base: address.as_ptr().cast(),
            iov_len: length as usize,
        })
    }

    // --- packed blocks

    /// From now on, `fill` may leave blocks packed.
    pub fn keep_packed(&mut self) {
        let count = self.slots(self.zeros()).start;
        self.packed = vec![0; count];
    }

    /// The whole buffer, to read into it, and how many bytes each of its blocks has if it is
    /// packed. There are no such numbers if none may be.
    pub fn fill<T>(&mut self, buffer: BufferId, read: impl Fn(&mut [u8], &mut [u16]) -> T) -> T {
        let mut packed = std::mem::take(&mut self.packed);
        let slots = packed.get_mut(self.slots(buffer)).unwrap_or_default();
        let result = read(self.bytes_mut(buffer), slots);
        self.packed = packed;
        result
    }

    /// How many bytes this block has, if it is packed.
    pub fn packed_bytes(&self, buffer: BufferId, offset: u32, length: u32) -> Option<u32> {
        let is_one = offset.is_multiple_of(BLOCK_BYTES) && length == BLOCK_BYTES;
        let packed = is_one.then(|| self.packed_at(buffer, offset))?;
        (packed > 0).then_some(packed.into())
    }

    /// Whether some of these bytes are of packed blocks: then only `unpack` gets them.
    pub fn is_packed(&self, buffer: BufferId, offset: u32, length: u32) -> bool {
        let slots = self.slots(buffer);
        let of_buffer = self.packed.get(slots).unwrap_or_default();
        let blocks = offset / BLOCK_BYTES..(offset + length).div_ceil(BLOCK_BYTES);
        let blocks = of_buffer.get(blocks.start as usize..blocks.end as usize);
        blocks.is_some_and(|blocks| blocks.iter().any(|&packed| packed > 0))
    }

    /// Writes what the buffer holds from `offset` on. The bytes of a block that is wrong are zeros.
    pub fn unpack(&self, buffer: BufferId, mut offset: u32, mut out: &mut [u8]) {
        let bytes = self.bytes(buffer);
        while !out.is_empty() {
            let skipped = (offset % BLOCK_BYTES) as usize;
            let length = out.len().min(BLOCK_BYTES as usize - skipped);
            let (to, rest) = out.split_at_mut(length);
            let block = &bytes[offset as usize - skipped..];
            match self.packed_at(buffer, offset) {
                0 => to.copy_from_slice(&block[skipped..][..length]),
                packed => unpack_block(&block[..packed.into()], skipped, to),
            }
            (out, offset) = (rest, offset + length as u32);
        }
    }

    fn packed_at(&self, buffer: BufferId, offset: u32) -> u16 {
        let slot = self.slots(buffer).start + (offset / BLOCK_BYTES) as usize;
        self.packed.get(slot).copied().unwrap_or_default()
    }

    fn slots(&self, buffer: BufferId) -> Range<usize> {
        let count = self.buffer_bytes.div_ceil(BLOCK_BYTES) as usize;
        buffer.index() * count..(buffer.index() + 1) * count
    }

    fn start(&self, buffer: BufferId) -> NonNull<u8> {
        assert!(buffer.0 <= self.count);
        // SAFETY: the buffer is one of `count`, or the zeros behind them, so its start lies inside
        // the mapping.
        unsafe { self.memory.add(buffer.index() * self.buffer_bytes as usize) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let length = mapping_bytes(self.buffer_bytes, self.count);
        // SAFETY: exactly the mapping made in `new`. No slice outlives `self`. The kernel is done
        // with the buffers, because every `Aio` was dropped before (see the type), and its drop
        // waits.
        let result = unsafe { libc::munmap(self.memory.as_ptr().cast(), length) };
        assert_eq!(result, 0, "munmap of our own mapping");
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} x {} bytes)", self.count, self.buffer_bytes)
    }
}

/// The bytes of a packed block from `skipped` on.
fn unpack_block(packed: &[u8], skipped: usize, out: &mut [u8]) {
    let mut part = Vec::new();
    let block = match out.len() == BLOCK_BYTES as usize {
        true => &mut *out,
        false => {
            part.resize(BLOCK_BYTES as usize, 0);
            &mut part[..]
        }
    };
    if lz4::decode(packed, block) != Some(BLOCK_BYTES as usize) {
        block.fill(0);
    }
    if !part.is_empty() {
        out.copy_from_slice(&part[skipped..][..out.len()]);
    }
}

fn mapping_bytes(buffer_bytes: u32, count: u32) -> usize {
    (buffer_bytes as usize)
        .checked_mul(count as usize + 1)
        .expect("the pool fits the address space")
}

/// A run of bytes that the kernel may read or write. Only a `Pool` or a `Bounce` makes one, so it
/// points into memory that is mapped.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Segment(libc::iovec);

impl Segment {
    pub fn length_bytes(&self) -> usize {
        self.0.iov_len
    }

    /// Takes over the bytes of `next` if they follow in memory. The kernel then holds the pages of
    /// both with one look-up.
    pub fn join(&mut self, next: Segment) -> bool {
        let follows = self.address().wrapping_add(self.0.iov_len) == next.address();
        if follows {
            self.0.iov_len += next.0.iov_len;
        }
        follows
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({:p}, {})", self.0.iov_base, self.0.iov_len)
    }
}

/// A small aligned buffer with one owner: it moves into a request and comes back with the
/// completion.
///
/// For sectors that are only partly ours: they are read, our part is changed, and they are written
/// back.
pub struct Bounce {
    memory: NonNull<u8>,
    layout: Layout,
    length: usize,
}

impl Bounce {
    /// `length_bytes` zeros at a multiple of `alignment`, which is a power of two.
    pub fn new(length_bytes: u32, alignment: u32) -> Bounce {
        assert!(length_bytes > 0);
        assert!(alignment.is_power_of_two());
        let layout = Layout::from_size_align(length_bytes as usize, alignment as usize)
            .expect("a few sectors");
        // SAFETY: the layout has a size, asserted above.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(memory) => Bounce {
                memory,
                layout,
                length: layout.size(),
            },
            None => std::alloc::handle_alloc_error(layout),
        }
    }

    /// The same buffer with another length, if it was made as long as that.
    pub fn with_length(mut self, length_bytes: u32) -> Option<Bounce> {
        assert!(length_bytes > 0);
        self.length = length_bytes as usize;
        (self.length <= self.layout.size()).then_some(self)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: our own allocation, at least of that size, zeroed at first. The caller owns the
        // `Bounce`, so the kernel does not use it: while an operation is in flight, `Aio` owns it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes other references.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }

    pub(super) fn segment(&self) -> Segment {
        Segment(libc::iovec {
            iov_base: self.memory.as_ptr().cast(),
            iov_len: self.length,
        })
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounce({} bytes)", self.layout.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_do_not_overlap() {
        let mut pool = Pool::new(8192, 3).unwrap();
        assert_eq!((pool.buffer_bytes(), pool.count()), (8192, 3));
        for index in 0..3 {
            assert!(pool.bytes(BufferId(index)).iter().all(|&byte| byte == 0));
            pool.bytes_mut(BufferId(index)).fill(index as u8 + 1);
        }
        for index in 0..3 {
            let bytes = pool.bytes(BufferId(index));
            assert_eq!(bytes.len(), 8192);
            assert_eq!(bytes.as_ptr() as usize % 4096, 0);
            assert!(bytes.iter().all(|&byte| byte == index as u8 + 1));
        }
    }

    #[test]
    fn segments_point_into_their_buffer() {
        let pool = Pool::new(4096, 2).unwrap();
        let segment = pool.segment(BufferId(1), 512, 1024);
        assert_eq!(
            segment.address().cast_const(),
            &pool.bytes(BufferId(1))[512]
        );
        assert_eq!(segment.length_bytes(), 1024);
        assert_eq!(pool.segment(BufferId(1), 4095, 1).length_bytes(), 1);
    }

    #[test]
    fn segments_join_if_one_follows_the_other() {
        let pool = Pool::new(4096, 2).unwrap();
        let mut first = pool.segment(BufferId(0), 512, 3584);
        assert!(!first.join(pool.segment(BufferId(1), 512, 512)));
        assert!(first.join(pool.segment(BufferId(1), 0, 512)));
        assert_eq!(first.length_bytes(), 4096);
    }

    #[test]
    #[should_panic]
    fn a_buffer_behind_the_zeros_is_refused() {
        let pool = Pool::new(4096, 2).unwrap();
        pool.bytes(BufferId(3));
    }

    #[test]
    #[should_panic]
    fn a_segment_across_buffers_is_refused() {
        let pool = Pool::new(4096, 2).unwrap();
        pool.segment(BufferId(0), 4000, 200);
    }

    /// A gigabyte of untouched buffers costs nothing. A touched buffer costs its own size, or the
    /// huge page it lies in.
    #[test]
    fn a_buffer_costs_memory_from_its_first_use() {
        let mut pool = Pool::new(1 << 20, 1024).unwrap();
        pool.bytes_mut(BufferId(500)).fill(1);
        let start = pool.bytes(BufferId(0)).as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mine = maps
            .split_once(&format!("\n{start:x}-"))
            .expect("our mapping has its own entry")
            .1;
        let rss = mine
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .unwrap();
        assert!(
            ["1024", "2048"].contains(&rss.split_whitespace().next().unwrap()),
            "kB: {rss}"
        );
    }

    #[test]
    fn bounce_is_aligned_and_zero() {
        let mut bounce = Bounce::new(512, 4096);
        assert_eq!(bounce.bytes(), [0; 512]);
        assert_eq!(bounce.bytes().as_ptr() as usize % 4096, 0);
        bounce.bytes_mut()[511] = 7;
        assert_eq!(bounce.segment().length_bytes(), 512);
    }

    #[test]
    fn a_bounce_can_be_shorter_than_it_was_made() {
        let bounce = Bounce::new(512, 512).with_length(100).unwrap();
        assert_eq!(bounce.bytes().len(), 100);
        let bounce = bounce.with_length(512).unwrap();
        assert_eq!(bounce.segment().length_bytes(), 512);
        assert!(bounce.with_length(513).is_none());
    }
}
