//! Blocks of memory from the system: aligned, and zero.
//!
//! The hard idea is that a large block is not written when it is made. The system zeroes a page at its first touch;
//! left to the kernels, that is done by all threads, and not at all for what nobody touches. The first step of GPT-2
//! takes 8.8 s so, and 16.8 where one thread writes all blocks before.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of every block: a cache line, and the widest vector register.
pub(crate) const ALIGN: usize = 64;

/// A large page of x86-64 and of most 64-bit Arm systems.
const HUGE_PAGE: usize = 2 << 20;

/// One allocation.
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block is plain memory that it owns; nothing about it is bound to a thread.
unsafe impl Send for Block {}
// SAFETY: a block hands out no references; who reads and writes its content orders that.
unsafe impl Sync for Block {}

impl Block {
    /// Zeroed memory, a multiple of [`ALIGN`], and from a large page on of the system's pages; `None` if there is none.
    pub(crate) fn new(bytes: usize) -> Option<Block> {
        debug_assert!(bytes > 0 && bytes.is_multiple_of(ALIGN), "a size class");
        let start = if is_mapped(bytes) { pages::map(bytes)? } else { heap(bytes)? };
        Some(Block { start, bytes })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if is_mapped(self.bytes) {
            // SAFETY: it was mapped so, and is gone with its owner.
            return unsafe { pages::unmap(self.start, self.bytes) };
        }
        let layout = layout(self.bytes).expect("the layout it was allocated with");
        // SAFETY: `start` came from the heap with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), layout) }
    }
}

/// True iff a block of this size is pages of its own.
fn is_mapped(bytes: usize) -> bool {
    cfg!(target_os = "linux") && bytes >= HUGE_PAGE
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGN).ok()
}

fn heap(bytes: usize) -> Option<NonNull<u8>> {
    let layout = layout(bytes)?;
    // SAFETY: the layout's size is not 0.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::{NonNull, null_mut};

    use super::HUGE_PAGE;

    /// Pages that begin where a large page may. Large ones are asked for before the first touch: a stream then misses
    /// the translation cache 512 times less.
    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        // So much more that a large page begins inside.
        let all = bytes.checked_add(HUGE_PAGE)?;
        let (may, what) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, wherever there is room for it.
        let mapped = unsafe { libc::mmap(null_mut(), all, may, what, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let mapped = NonNull::new(mapped.cast::<u8>())?;
        let before = mapped.addr().get().next_multiple_of(HUGE_PAGE) - mapped.addr().get();
        // SAFETY: less than a large page further on, and so inside.
        let start = unsafe { mapped.add(before) };
        // SAFETY: what is around the block was mapped with it, and is not the block's.
        unsafe {
            unmap(mapped, before);
            unmap(start.add(bytes), HUGE_PAGE - before);
        }
        // SAFETY: the range was just mapped and is nobody else's; the advice changes no content. Where the kernel
        // does not take it, nothing is lost.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Some(start)
    }

    /// Gives pages back.
    ///
    /// # Safety
    /// They are mapped, and nobody uses them any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
        if bytes > 0 {
            // SAFETY: by the caller's promise.
            unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
        }
    }
}

/// Elsewhere the heap has all blocks.
#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        super::heap(bytes)
    }

    pub(super) unsafe fn unmap(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_zero() {
        for bytes in [256, 4096, HUGE_PAGE - ALIGN, HUGE_PAGE, 5 * HUGE_PAGE / 4, 3 * HUGE_PAGE] {
            let blocks: Vec<Block> = (0..3).map(|_| Block::new(bytes).unwrap()).collect();
            for block in blocks {
                let align = if is_mapped(bytes) { HUGE_PAGE } else { ALIGN };
                assert!(block.start().addr().is_multiple_of(align) && block.bytes() == bytes, "{bytes}");
                // SAFETY: the block has so many bytes, and nobody else knows of it.
                let content = unsafe { std::slice::from_raw_parts_mut(block.start(), bytes) };
                assert!(content.iter().all(|&b| b == 0), "{bytes}");
                content.fill(1);
            }
        }
        assert!(Block::new(1 << 60).is_none());
    }

    /// Resident bytes of this process.
    #[cfg(target_os = "linux")]
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_block_takes_memory_where_it_is_touched() {
        let before = resident();
        let block = Block::new(1 << 30).unwrap();
        // SAFETY: a byte of the block, of which nobody else knows.
        unsafe { block.start().add(1 << 29).write(1) };
        assert!(resident() < before + (1 << 28));
    }
}
