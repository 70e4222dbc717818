//! Where does the memory of lists, texts and maps lie?
//!
//! The C library's malloc serves many threads and finds frees of what is not its own, in 8 KiB of
//! code. This program has one thread, and Rust frees what it got, with the size. So a free block
//! needs nothing but a place in the list of its size. What has been freed serves the same size
//! again and never another one: the lists of the program are bounded, and so is their number.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

/// Larger ones are mappings of their own, which the kernel gets back when they are freed.
const SMALL_BYTES_MAX: usize = 128 << 10;

/// From 16 bytes to `SMALL_BYTES_MAX`, as `size_class` numbers them.
const SIZE_COUNT: usize = 27;

/// What is taken from the kernel at once. Pages that nobody has used yet are addresses only.
const REGION_BYTES: usize = 1 << 20;

/// All blocks lie at a multiple of this, and mappings at one of `PAGE_BYTES`.
const ALIGNMENT: usize = 16;
const PAGE_BYTES: usize = 4096;

/// The memory of the program. Tests have threads, and so the allocator of std.
#[cfg(not(test))]
#[global_allocator]
static HEAP: Heap = Heap::new();

struct Heap(UnsafeCell<Small>);

// SAFETY: the program has one thread, as tests/tidy checks, and no signal handler of it allocates.
unsafe impl Sync for Heap {}

/// The blocks of all sizes up to `SMALL_BYTES_MAX`.
struct Small {
    /// The first free block of each size. A free block begins with the address of the next one.
    free: [*mut u8; SIZE_COUNT],
    /// What nobody has used yet of the last region.
    unused: *mut u8,
    unused_bytes: usize,
}

impl Heap {
    const fn new() -> Heap {
        Heap(UnsafeCell::new(Small {
            free: [ptr::null_mut(); SIZE_COUNT],
            unused: ptr::null_mut(),
            unused_bytes: 0,
        }))
    }
}

// SAFETY: a block belongs to one owner at a time: it is in the list of its size or not. Its size
// class follows from the layout, which is the same at both ends of its life.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match size_class(layout) {
            // SAFETY: there is no second thread, and `take` calls nothing that allocates.
            Some((class, bytes)) => unsafe { (*self.0.get()).take(class, bytes) },
            None => map(layout),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((_, bytes)) = size_class(layout) else {
            return map(layout);
        };
        // SAFETY: the block has that many bytes, unless there was no memory.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, bytes);
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back what `alloc` gave for this layout. See `alloc`.
        unsafe {
            match size_class(layout) {
                Some((class, _)) => (*self.0.get()).give_back(class, block),
                None => unmap(block, layout.size()),
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises that this size, rounded up to the alignment, fits an isize.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (size_class(layout), size_class(wanted)) {
            (Some(old), Some(new)) if old == new => return block,
            (None, None) if layout.align() <= PAGE_BYTES => {
                // SAFETY: the kernel moves the pages of a mapping that the caller owns.
                let moved = unsafe {
                    libc::mremap(block.cast(), layout.size(), bytes, libc::MREMAP_MAYMOVE)
                };
                return mapped(moved);
            }
            _ => {}
        }
        // SAFETY: two blocks that do not overlap, each of at least that many bytes.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, bytes.min(layout.size()));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

impl Small {
    /// A block of this size; null if the kernel has no memory.
    ///
    /// # Safety
    /// Class and size belong together.
    unsafe fn take(&mut self, class: usize, bytes: usize) -> *mut u8 {
        let first = self.free[class];
        if !first.is_null() {
            // SAFETY: `give_back` wrote the address of the next one there.
            self.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        if self.unused_bytes < bytes {
            // What is left of the region before stays unused: 6 % of it on average, and most of
            // that are pages that were never touched.
            self.unused = map_bytes(REGION_BYTES);
            self.unused_bytes = match self.unused.is_null() {
                true => return ptr::null_mut(),
                false => REGION_BYTES,
            };
        }
        let block = self.unused;
        self.unused_bytes -= bytes;
        // SAFETY: within the region, or just behind its end.
        self.unused = unsafe { block.add(bytes) };
        block
    }

    /// # Safety
    /// The block came from `take` for this class, and nobody uses it.
    unsafe fn give_back(&mut self, class: usize, block: *mut u8) {
        // SAFETY: the smallest block has room for an address, and all lie at a multiple of 16.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

/// The number and the size of the blocks for this layout: the next power of two, or three quarters
/// of it. `None` if it is a mapping.
fn size_class(layout: Layout) -> Option<(usize, usize)> {
    if layout.size() > SMALL_BYTES_MAX || layout.align() > ALIGNMENT {
        return None;
    }
    let power = layout.size().max(ALIGNMENT).next_power_of_two();
    let class = 2 * (power / ALIGNMENT).trailing_zeros() as usize;
    let three_quarters = power / 4 * 3;
    match layout.size() <= three_quarters && three_quarters.is_multiple_of(ALIGNMENT) {
        true => Some((class - 1, three_quarters)),
        false => Some((class, power)),
    }
}

/// A mapping of zeros; null if the kernel has no memory.
fn map(layout: Layout) -> *mut u8 {
    let (bytes, alignment) = (layout.size().next_multiple_of(PAGE_BYTES), layout.align());
    if alignment <= PAGE_BYTES {
        return map_bytes(bytes);
    }
    let larger = map_bytes(bytes + alignment);
    if larger.is_null() {
        return larger;
    }
    let before = larger.align_offset(alignment);
    // SAFETY: both ends of the new mapping, around the part that is returned.
    unsafe {
        let block = larger.add(before);
        if before > 0 {
            unmap(larger, before);
        }
        unmap(block.add(bytes), alignment - before);
        block
    }
}

fn map_bytes(bytes: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which overlaps nothing.
    mapped(unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) })
}

fn mapped(result: *mut libc::c_void) -> *mut u8 {
    match result == libc::MAP_FAILED {
        true => ptr::null_mut(),
        false => result.cast(),
    }
}

/// # Safety
/// These are whole pages of mappings that nobody uses.
unsafe fn unmap(block: *mut u8, bytes: usize) {
    // SAFETY: by the contract of this function.
    let result = unsafe { libc::munmap(block.cast(), bytes) };
    // Refused only where one mapping more would be too many (ENOMEM): then the pages stay.
    let _ = super::check(result);
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::rng::Rng;

    fn layout(bytes: usize, alignment: usize) -> Layout {
        Layout::from_size_align(bytes, alignment).unwrap()
    }

    #[test]
    fn sizes_are_powers_of_two_and_three_quarters_of_them() {
        let sizes = [
            (1, Some((0, 16))),
            (16, Some((0, 16))),
            (17, Some((2, 32))),
            (33, Some((3, 48))),
            (49, Some((4, 64))),
            (65, Some((5, 96))),
            (97, Some((6, 128))),
            (SMALL_BYTES_MAX, Some((SIZE_COUNT - 1, SMALL_BYTES_MAX))),
            (SMALL_BYTES_MAX + 1, None),
        ];
        for (bytes, class) in sizes {
            assert_eq!(size_class(layout(bytes, 8)), class, "{bytes}");
        }
        for bytes in 1..=SMALL_BYTES_MAX {
            let (_, found) = size_class(layout(bytes, 16)).unwrap();
            assert!(found >= bytes && found.is_multiple_of(ALIGNMENT));
        }
        assert_eq!(size_class(layout(16, 32)), None);
    }

    /// A block that was freed serves the same size again, so what is asked for again and again
    /// takes no further memory.
    #[test]
    fn what_was_freed_is_used_again() {
        let heap = Heap::new();
        // SAFETY: blocks of this heap, each freed once with its layout.
        unsafe {
            let first = heap.alloc(layout(100, 8));
            let second = heap.alloc(layout(120, 8));
            assert_eq!(second, first.add(128));
            heap.dealloc(first, layout(100, 8));
            assert_ne!(heap.alloc(layout(90, 8)), first);
            assert_eq!(heap.alloc(layout(128, 8)), first);
            assert_eq!(heap.realloc(second, layout(120, 8), 97), second);
        }
    }

    /// Beside plain vectors: every block keeps its bytes while others come, grow, shrink and go.
    #[test]
    fn blocks_keep_their_bytes() {
        let (heap, mut rng) = (Heap::new(), Rng::new(1));
        let mut blocks: Vec<(*mut u8, Layout, Vec<u8>)> = Vec::new();
        for step in 0..20_000_u32 {
            let bytes = ((1 + rng.below(300_000)) >> rng.below(18)).max(1) as usize;
            let powers = if step % 10 == 0 { 15 } else { 5 };
            let alignment = 1 << rng.below(powers);
            let fill = step as u8;
            // SAFETY: blocks of this heap, used within their size and freed once.
            unsafe {
                match rng.below(3) {
                    0 => {
                        let layout = layout(bytes, alignment);
                        let block = match step % 2 {
                            0 => heap.alloc(layout),
                            _ => heap.alloc_zeroed(layout),
                        };
                        assert_eq!(block.addr() % alignment, 0);
                        if step % 2 == 1 {
                            assert!((0..bytes).all(|at| *block.add(at) == 0));
                        }
                        block.write_bytes(fill, bytes);
                        blocks.push((block, layout, vec![fill; bytes]));
                    }
                    1 if !blocks.is_empty() => {
                        let index = rng.below(blocks.len() as u32) as usize;
                        let (block, old, model) = &mut blocks[index];
                        *block = heap.realloc(*block, *old, bytes);
                        *old = layout(bytes, old.align());
                        assert_eq!(block.addr() % old.align(), 0);
                        let kept = model.len().min(bytes);
                        block.add(kept).write_bytes(fill, bytes - kept);
                        model.resize(bytes, fill);
                    }
                    _ if blocks.len() > 100 || !blocks.is_empty() && rng.below(2) == 0 => {
                        let index = rng.below(blocks.len() as u32) as usize;
                        let (block, layout, model) = blocks.swap_remove(index);
                        assert!(std::slice::from_raw_parts(block, layout.size()) == model);
                        heap.dealloc(block, layout);
                    }
                    _ => {}
                }
            }
        }
        for (block, layout, model) in blocks {
            // SAFETY: as above.
            unsafe {
                assert!(std::slice::from_raw_parts(block, layout.size()) == model);
                heap.dealloc(block, layout);
            }
        }
    }
}
