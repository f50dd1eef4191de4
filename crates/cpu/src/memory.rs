//! Host memory: blocks pooled by size class, and views of them that kernels share.
//!
//! The hard idea is who may touch what. A buffer is shared by value, so Rust's borrows cannot order
//! its accesses; the plan does. A [`View`] is a pointer with a length that checks every access
//! against that length and leaves freedom from races to the kernels' contract (see [`View`]).

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use kiln_ir::{Error, ErrorKind, Result};

use crate::block::{ALIGN, Block};
use crate::simd::{LINE, prefetch};

/// The smallest size class.
const MIN_CLASS: usize = 256;

/// What poisoned memory is filled with: NaN in every float dtype.
const POISON: u8 = 0xFF;

/// Free blocks by size class, up to a budget; what exceeds it goes back to the system, that which was idle for longest
/// first.
#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    poisoned: bool,
}

#[derive(Default)]
struct Free {
    /// Each with the number of blocks that came back before it.
    classes: Vec<(usize, Vec<(u64, Block)>)>,
    came_back: u64,
    bytes: usize,
    /// The most bytes that were in use at once: the pool keeps no more than that idle.
    peak: usize,
    in_use: usize,
}

/// The size class of a request: four classes for each power of two, so that at most a fifth is wasted.
fn class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(MIN_CLASS);
    let step = bytes.checked_next_power_of_two()? / 8;
    bytes.checked_next_multiple_of(step.max(ALIGN))
}

impl Pool {
    pub(crate) fn new(poisoned: bool) -> Arc<Pool> {
        Arc::new(Pool { free: Mutex::default(), poisoned })
    }

    /// Memory of at least this size with undefined, but initialised, content.
    pub(crate) fn alloc(self: &Arc<Pool>, bytes: u64) -> Result<Memory> {
        let full = || Error::new(ErrorKind::OutOfMemory, format!("cpu: cannot allocate {bytes} bytes"));
        let class = usize::try_from(bytes).ok().and_then(class).ok_or_else(full)?;
        let pooled = {
            let mut free = self.lock();
            free.in_use += class;
            free.peak = free.peak.max(free.in_use);
            let found = free.classes.iter_mut().find(|c| c.0 == class).and_then(|c| c.1.pop());
            free.bytes -= found.as_ref().map_or(0, |b| b.1.bytes());
            found.map(|b| b.1)
        };
        let block = pooled.or_else(|| Block::new(class)).or_else(|| {
            // Idle blocks of other classes may be what is missing.
            let mut free = self.lock();
            free.classes.clear();
            free.bytes = 0;
            Block::new(class)
        });
        let memory = Memory { block: Some(block.ok_or_else(full)?), bytes: bytes as usize, pool: self.clone() };
        self.poison(&memory);
        Ok(memory)
    }

    /// Fills with NaN if the pool was made to.
    pub(crate) fn poison(&self, memory: &Memory) {
        if self.poisoned {
            // SAFETY: the caller is about to hand this memory out; nobody reads or writes it yet.
            unsafe { memory.view().slice_mut::<u8>(0, memory.bytes) }.fill(POISON);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().expect("no code that holds this lock panics")
    }

    fn put(&self, block: Block) {
        // Goes back to the system after the lock is given back.
        let mut gone = Vec::new();
        let mut free = self.lock();
        free.in_use = free.in_use.saturating_sub(block.bytes());
        free.bytes += block.bytes();
        free.came_back += 1;
        let (bytes, idle) = (block.bytes(), (free.came_back, block));
        match free.classes.iter_mut().find(|c| c.0 == bytes) {
            Some(class) => class.1.push(idle),
            None => free.classes.push((bytes, vec![idle])),
        }
        while free.bytes > free.peak {
            let oldest = free.oldest();
            free.bytes -= oldest.bytes();
            gone.push(oldest);
        }
    }
}

impl Free {
    /// Takes the block that was idle for longest; there is one.
    fn oldest(&mut self) -> Block {
        let classes = self.classes.iter_mut().filter(|c| !c.1.is_empty());
        classes.min_by_key(|c| c.1[0].0).expect("some are idle").1.remove(0).1
    }
}

/// A block on loan from a pool.
pub(crate) struct Memory {
    block: Option<Block>,
    bytes: usize,
    pool: Arc<Pool>,
}

impl Memory {
    /// The requested bytes, for sharing with kernels.
    pub(crate) fn view(&self) -> View {
        let block = self.block.as_ref().expect("present until dropped");
        View { start: block.start(), bytes: self.bytes }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.put(block);
        }
    }
}

/// Elements that several threads access, each at its own places.
///
/// The contract: a view lives no longer than the memory it is of (a replay holds its buffers), and
/// a kernel's tasks write disjoint elements that no other task reads. Length is always checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: accesses through a view follow its contract, which excludes races.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// A view of nothing.
    pub(crate) const NONE: View = View { start: std::ptr::dangling_mut::<u64>().cast(), bytes: 0 };

    /// A view of a vector's elements.
    pub(crate) fn of<T: Pod>(data: &mut [T]) -> View {
        View { start: data.as_mut_ptr().cast(), bytes: std::mem::size_of_val(data) }
    }

    /// The view's first byte.
    #[cfg(test)]
    fn as_ptr(self) -> *mut u8 {
        self.start
    }

    /// The number of whole elements.
    pub(crate) fn len<T>(self) -> usize {
        self.bytes / size_of::<T>()
    }

    /// Where an element is, if there is one.
    #[inline(always)]
    pub(crate) fn start_at<T>(self, at: usize) -> *const T {
        self.start.cast::<T>().wrapping_add(at).cast_const()
    }

    /// So many bytes from there on.
    #[inline(always)]
    pub(crate) fn part(self, at: usize, bytes: usize) -> View {
        self.check::<u8>(at, bytes);
        View { start: self.start.wrapping_add(at), bytes }
    }

    /// So many bytes from there on, as far as there are.
    pub(crate) fn within(self, at: usize, bytes: usize) -> View {
        let at = at.min(self.bytes);
        self.part(at, bytes.min(self.bytes - at))
    }

    /// Where it ends.
    pub(crate) fn end(self) -> *const u8 {
        self.start_at(self.bytes)
    }

    /// True iff some byte is in both.
    pub(crate) fn overlaps(self, other: View) -> bool {
        let [(a, n), (b, m)] = [self, other].map(|view| (view.start.addr(), view.bytes));
        a < b + m && b < a + n
    }

    /// The view without its first bytes.
    pub(crate) fn after(self, bytes: usize) -> View {
        assert!(bytes <= self.bytes, "cpu: byte {bytes} of a buffer of {}", self.bytes);
        // SAFETY: inside the view or at its end, as was just checked.
        View { start: unsafe { self.start.add(bytes) }, bytes: self.bytes - bytes }
    }

    /// Elements from `at` on, for reading.
    #[inline(always)]
    pub(crate) fn slice<'a, T: Pod>(self, at: usize, len: usize) -> &'a [T] {
        self.check::<T>(at, len);
        // SAFETY: in bounds, aligned (blocks are, and `at` counts elements), initialised; nobody
        // writes these elements meanwhile, by the contract.
        unsafe { std::slice::from_raw_parts(self.start.cast::<T>().add(at), len) }
    }

    /// Asks for the cache lines of some bytes that will be needed soon, as far as they are inside.
    #[inline(always)]
    pub(crate) fn prefetch(self, bytes: Range<usize>) {
        let end = bytes.end.min(self.bytes);
        let mut at = bytes.start;
        while at < end {
            prefetch(self.start.wrapping_add(at));
            at += LINE;
        }
    }

    /// One element.
    #[inline(always)]
    pub(crate) fn get<T: Pod>(self, at: usize) -> T {
        self.check::<T>(at, 1);
        // SAFETY: as in `slice`.
        unsafe { self.start.cast::<T>().add(at).read() }
    }

    /// One element, where it was checked before that there is one.
    ///
    /// # Safety
    /// The view has more than `at` elements.
    #[inline(always)]
    pub(crate) unsafe fn get_unchecked<T: Pod>(self, at: usize) -> T {
        // SAFETY: in bounds by the caller's promise; otherwise as in `slice`.
        unsafe { self.start.cast::<T>().add(at).read() }
    }

    /// The `n` elements `head`, `head + step`, …, for reading.
    #[inline(always)]
    pub(crate) fn stepped<T: Pod>(self, head: i64, step: i64, n: usize) -> impl Iterator<Item = T> {
        let last = head + step * (n as i64 - 1);
        let (lo, hi) = (head.min(last), head.max(last));
        self.check::<T>(lo as usize, (hi - lo) as usize + 1);
        // SAFETY: between the two ends, which are in bounds; otherwise as in `slice`.
        (0..n as i64).map(move |i| unsafe { self.start.cast::<T>().offset((head + step * i) as isize).read() })
    }

    /// Elements from `at` on, for writing.
    ///
    /// # Safety
    /// No other reference to these elements is used while this one lives.
    #[inline(always)]
    pub(crate) unsafe fn slice_mut<'a, T: Pod>(&self, at: usize, len: usize) -> &'a mut [T] {
        self.check::<T>(at, len);
        // SAFETY: in bounds and aligned; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast::<T>().add(at), len) }
    }

    /// Lines of so many elements from `at` on, each so far from the one before it, for writing.
    ///
    /// # Safety
    /// As for [`View::slice_mut`], of each line.
    #[inline(always)]
    pub(crate) unsafe fn lines_mut<'a, T: Pod>(
        self,
        at: usize,
        pitch: usize,
        [lines, len]: [usize; 2],
    ) -> impl Iterator<Item = &'a mut [T]> {
        assert!(len <= pitch, "cpu: lines of {len} that are {pitch} apart");
        let start = self.lines_at::<T>(at, pitch, [lines, len]);
        // SAFETY: inside what was just checked, and aligned; apart from each other, since no line is longer than what lies
        // between their beginnings; exclusive by the caller's promise.
        (0..lines).map(move |i| unsafe { std::slice::from_raw_parts_mut(start.add(i * pitch), len) })
    }

    /// Where the first of such lines begins; all of them are there.
    #[inline(always)]
    pub(crate) fn lines_at<T>(self, at: usize, pitch: usize, [lines, len]: [usize; 2]) -> *mut T {
        assert!(lines > 0, "cpu: no lines begin nowhere");
        self.check::<T>(at, (lines - 1) * pitch + len);
        self.start.cast::<T>().wrapping_add(at)
    }

    #[inline(always)]
    fn check<T>(self, at: usize, len: usize) {
        let held = self.bytes / size_of::<T>();
        assert!(at <= held && len <= held - at, "cpu: elements {at}..{at}+{len} exceed a buffer of {held}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_block_is_used_again() {
        let pool = Pool::new(false);
        let first = pool.alloc(5000).unwrap();
        let at = first.view().as_ptr();
        drop(first);
        assert_eq!(pool.alloc(5001).unwrap().view().as_ptr(), at);
    }

    /// Work on other sizes than before would else ask the system for memory at each step.
    #[test]
    fn what_was_idle_for_longest_makes_room() {
        let pool = Pool::new(false);
        drop([pool.alloc(65536).unwrap(), pool.alloc(65536).unwrap()]);
        drop([40960, 49152].map(|bytes| pool.alloc(bytes).unwrap()));
        let free = pool.lock();
        let idle = |bytes: usize| free.classes.iter().find(|c| c.0 == bytes).map_or(0, |c| c.1.len());
        assert_eq!([40960, 49152, 65536].map(idle), [1, 1, 0]);
        assert_eq!((free.bytes, free.peak), (90112, 131072));
    }

    #[test]
    fn classes_cover_and_waste_little() {
        for bytes in (1..100_000).step_by(37) {
            let c = class(bytes).unwrap();
            assert!(c >= bytes && c.is_multiple_of(ALIGN) && (bytes < 512 || c <= bytes + bytes / 4), "{bytes} → {c}");
        }
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Pool::new(false).alloc(u64::MAX).err().unwrap().is_out_of_memory());
        assert!(Pool::new(false).alloc(1 << 60).err().unwrap().is_out_of_memory());
    }

    #[test]
    fn poison_reads_as_nan() {
        let pool = Pool::new(true);
        assert!(pool.alloc(64).unwrap().view().get::<f32>(3).is_nan());
    }
}
