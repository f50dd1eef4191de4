//! Products of operands in strips: a tile of sums held in registers, walked along `k`.
//!
//! An operand is packed in *strips* of [`ROWS`] or [`columns`] lines: what the lines have for one step along `k`
//! lies together. A step then reads three vectors of columns and multiplies each by every row's number. The tile of
//! 8 × 48 sums fills 24 of AVX-512's 32 registers; where there are fewer, it is 4 rows high. One of 12 × 32
//! does as well where a thread has its core to itself, but takes more instructions, which counts where another shares it.
//! Rows are numbers rather than vectors, and so they may also be read where they lie.
//! Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication".

use pulp::{Arch, Simd, WithSimd};

use super::element::{Destination, Element, Walk, lanes};
use super::lie::{COLUMNS, Lie, Packed, QUAD, ROWS, Rows};
use crate::memory::View;
use crate::simd::{LINE, prefetch, prefetch_mut, prefetch_now};

/// A matrix to write into.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) view: View,
    pub(super) at: isize,
    pub(super) strides: [isize; 2],
}

/// `out = lhs · rhs` for `[m, n, k]`, or `out += lhs · rhs` if `more`.
pub(super) fn multiply<'a, T: Element>(
    dims: [usize; 3],
    lhs: impl Into<Rows<'a, T>>,
    rhs: Packed<'_, T>,
    out: Target,
    more: bool,
) {
    Arch::new().dispatch(Multiply { dims, lhs: lhs.into(), rhs, out, more });
}

struct Multiply<'a, T> {
    dims: [usize; 3],
    lhs: Rows<'a, T>,
    rhs: Packed<'a, T>,
    out: Target,
    more: bool,
}

impl<T: Element> WithSimd for Multiply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Multiply { dims: [m, n, k], lhs, rhs, out, more } = self;
        assert!(lhs.hold(m, k), "rows are filled up to those that are read together");
        let Packed { data, width, pitch } = rhs;
        // Bytes of the next columns' steps that each tile of these asks for.
        let part = width * size_of::<T>() / m.div_ceil(ROWS);
        for column in (0..n).step_by(width) {
            let next = data.as_ptr().wrapping_add((column / width + 1) * pitch);
            let rhs = Strip { steps: &data[column / width * pitch..][..k * width], width };
            for row in (0..m).step_by(ROWS) {
                let lhs = Left { at: lhs.data[row / ROWS * lhs.pitch..].as_ptr(), lie: lhs.lie };
                let ahead = Ahead { at: next.wrapping_byte_add(row / ROWS * k * part), step: part };
                let place = Place { out, rows: m, columns: n, more, ahead }.at(row, column);
                // By how many there are of registers, and how long they are.
                match lanes::<T, S>() {
                    16 => high::<T, S>(simd, lhs, rhs, place),
                    8 if size_of::<T>() == 8 => parts::<T, S, 8, 3>(simd, lhs, rhs, place),
                    4 if size_of::<T>() == 4 => parts::<T, S, 8, 3>(simd, lhs, rhs, place),
                    4 | 8 => parts::<T, S, 4, 3>(simd, lhs, rhs, place),
                    _ => parts::<T, S, 4, 2>(simd, lhs, rhs, place),
                }
            }
        }
    }
}

/// A tile's rows, which all are there.
#[derive(Clone, Copy)]
struct Left<T> {
    at: *const T,
    lie: Lie,
}

impl<T> Left<T> {
    #[inline(always)]
    fn below(self, rows: usize) -> Left<T> {
        Left { at: self.at.wrapping_add(rows * self.lie.strides()[0]), ..self }
    }
}

/// Columns step by step, from some of a strip on.
#[derive(Clone, Copy)]
struct Strip<'a, T> {
    steps: &'a [T],
    width: usize,
}

/// Where a tile goes.
#[derive(Clone, Copy)]
struct Place<T> {
    out: Target,
    /// Rows and columns of the result from here on.
    rows: usize,
    columns: usize,
    more: bool,
    ahead: Ahead<T>,
}

/// What the tiles of the next columns will read: asked for from the outer caches, so many bytes at a step.
#[derive(Clone, Copy)]
struct Ahead<T> {
    at: *const T,
    step: usize,
}

impl<T: Copy> Place<T> {
    /// Asks for where its first rows and columns lie, to write them.
    #[inline(always)]
    fn ask(self, rows: usize, columns: usize) {
        let Target { view, at, strides: [rs, cs] } = self.out;
        if cs == 1 {
            for i in 0..rows.min(self.rows) {
                let row = view.start_at::<T>((at + i as isize * rs) as usize);
                (0..columns).step_by(LINE / size_of::<T>()).for_each(|j| prefetch_mut(row.wrapping_add(j)));
            }
        }
    }

    /// So many rows and columns, if all are there and neighbours of a row are neighbours in memory.
    #[inline(always)]
    fn whole(self, rows: usize, columns: usize) -> Option<Destination<T>> {
        let Target { view, at, strides: [rs, cs] } = self.out;
        let there = cs == 1 && rs >= 0 && self.rows >= rows && self.columns >= columns;
        there.then(|| {
            let apart = rs as usize;
            Destination { at: view.lines_at::<T>(at as usize, apart, [rows, columns]), apart, more: self.more }
        })
    }

    #[inline(always)]
    fn at(self, row: usize, column: usize) -> Place<T> {
        let [rs, cs] = self.out.strides;
        let at = self.out.at + row as isize * rs + column as isize * cs;
        Place { out: Target { at, ..self.out }, rows: self.rows - row, columns: self.columns - column, ..self }
    }
}

/// Steps ahead of a tile's that its columns are asked for: a strip of them is more than the nearest cache holds.
const STEPS_AHEAD: usize = 8;

/// A whole tile at once, no higher and no wider than is needed.
#[inline(always)]
fn high<T: Element, S: Simd>(simd: S, lhs: Left<T>, rhs: Strip<T>, place: Place<T>) {
    assert_eq!(rhs.width, COLUMNS, "strips are as wide as three vectors");
    match (place.rows > QUAD, place.columns.div_ceil(lanes::<T, S>())) {
        (false, 1) => sums::<T, S, 4, 1>(simd, lhs, rhs, place),
        (false, 2) => sums::<T, S, 4, 2>(simd, lhs, rhs, place),
        (false, _) => sums::<T, S, 4, 3>(simd, lhs, rhs, place),
        (true, 1) => sums::<T, S, 8, 1>(simd, lhs, rhs, place),
        (true, 2) => sums::<T, S, 8, 2>(simd, lhs, rhs, place),
        (true, _) => sums::<T, S, 8, 3>(simd, lhs, rhs, place),
    }
}

/// A tile in parts of `M` rows, or [`QUAD`]s where that would be too many, and `N` vectors, or as many as are needed.
#[inline(always)]
fn parts<T: Element, S: Simd, const M: usize, const N: usize>(
    simd: S,
    lhs: Left<T>,
    Strip { steps, width }: Strip<T>,
    place: Place<T>,
) {
    if place.rows < ROWS && M != QUAD {
        return parts::<T, S, QUAD, N>(simd, lhs, Strip { steps, width }, place);
    }
    for column in (0..place.columns.min(width)).step_by(N * lanes::<T, S>()) {
        let rhs = Strip { steps: steps.get(column..).unwrap_or(&[]), width };
        let vectors = (place.columns - column).div_ceil(lanes::<T, S>());
        // One vector leaves registers for all rows, and their sums enough to do meanwhile.
        let high = if vectors == 1 { ROWS } else { M };
        for row in (0..place.rows.min(ROWS)).step_by(high) {
            let (lhs, place) = (lhs.below(row), place.at(row, column));
            match vectors {
                1 if place.rows > QUAD => sums::<T, S, ROWS, 1>(simd, lhs, rhs, place),
                1 => sums::<T, S, QUAD, 1>(simd, lhs, rhs, place),
                2 => sums::<T, S, M, 2>(simd, lhs, rhs, place),
                _ => sums::<T, S, M, N>(simd, lhs, rhs, place),
            }
        }
    }
}

/// `M` rows of `N` vectors, at most; the operands begin at the first of them.
#[inline(always)]
fn sums<T: Element, S: Simd, const M: usize, const N: usize>(simd: S, lhs: Left<T>, rhs: Strip<T>, place: Place<T>) {
    match lhs.lie {
        Lie::Across(apart) => sums_of::<T, S, M, N, false>(simd, lhs.at, apart, rhs, place),
        Lie::Along(apart) => sums_of::<T, S, M, N, true>(simd, lhs.at, apart, rhs, place),
    }
}

/// The same for rows that begin at an address: they are `apart` if they lie `ALONG` memory, else their steps are.
#[inline(always)]
fn sums_of<T: Element, S: Simd, const M: usize, const N: usize, const ALONG: bool>(
    simd: S,
    lhs: *const T,
    apart: usize,
    rhs: Strip<T>,
    place: Place<T>,
) {
    let strides = if ALONG { [apart, 1] } else { [1, apart] };
    let (width, pitch) = (N * lanes::<T, S>(), rhs.width);
    let steps = rhs.steps.len().div_ceil(pitch);
    let holds = steps == 0 || rhs.steps.len() >= (steps - 1) * pitch + width;
    assert!(holds, "the last step's columns are all there");
    if width == pitch {
        place.ask(M, width);
    }
    let walk = Walk { lhs, strides, rhs: rhs.steps.as_ptr(), pitch, steps };
    let by_hand = T::is_by_hand::<S, M, N>() && steps > 0;
    if by_hand && let Some(out) = place.whole(M, width) {
        // SAFETY: columns are there, as asserted, and so are the rows that a tile reads, as `multiply` has. Results go to a
        // task's own part, by the view's contract. This was dispatched for the processor.
        return unsafe { T::by_hand(walk, out) };
    }
    let mut spilled = [[T::splat(simd, T::zeroed()); N]; M];
    if by_hand {
        let out = Destination { at: spilled.as_mut_ptr().cast(), apart: width, more: false };
        // SAFETY: as above; rows of the tile follow each other.
        unsafe { T::by_hand(walk, out) };
    } else {
        // SAFETY: as above.
        unsafe { add_up::<T, S, M, N, ALONG>(simd, walk, place.ahead, &mut spilled) };
    }
    if place.out.strides[1] == 1 && place.columns >= width {
        return whole::<T, S, N>(simd, &spilled, place);
    }
    let spilled: &[T] = bytemuck::cast_slice(spilled.as_flattened());
    ragged(spilled, width, Place { rows: place.rows.min(M), columns: place.columns.min(width), ..place });
}

/// The sums of a tile.
///
/// # Safety
///
/// All rows and columns are there for each step.
#[inline(always)]
unsafe fn add_up<T: Element, S: Simd, const M: usize, const N: usize, const ALONG: bool>(
    simd: S,
    walk: Walk<T>,
    mut ahead: Ahead<T>,
    spilled: &mut [[T::Vector<S>; N]; M],
) {
    let Walk { lhs, strides: [row, step], rhs: mut right, pitch, steps } = walk;
    let mut sums = [[T::splat(simd, T::zeroed()); N]; M];
    // Few addresses and few distances: a compiler that knew how they hang together would keep one for each row, for which
    // there are no registers.
    let mut quads: [*const T; ROWS / QUAD] = [lhs; ROWS / QUAD];
    for (i, quad) in quads.iter_mut().enumerate() {
        *quad = lhs.wrapping_add(i * QUAD * row);
    }
    let rows: [usize; QUAD] = std::hint::black_box([0, row, 2 * row, 3 * row]);
    for _ in 0..steps {
        // Narrower parts of a strip would each ask again.
        if N * lanes::<T, S>() == pitch {
            for i in (0..pitch).step_by(LINE / size_of::<T>()) {
                prefetch_now(right.wrapping_add(STEPS_AHEAD * pitch + i));
            }
            prefetch(ahead.at);
            ahead.at = ahead.at.wrapping_byte_add(ahead.step);
        }
        // SAFETY: the caller's.
        let columns = unsafe { right.cast::<[T::Vector<S>; N]>().read_unaligned() };
        for i in 0..M {
            let at = quads[i / QUAD].wrapping_add(if ALONG { rows[i % QUAD] } else { i % QUAD });
            // SAFETY: the caller's.
            let lhs = T::splat(simd, unsafe { *at });
            for j in 0..N {
                sums[i][j] = T::mul_add(simd, lhs, columns[j], sums[i][j]);
            }
        }
        for quad in &mut quads {
            *quad = quad.wrapping_add(step);
        }
        right = right.wrapping_add(pitch);
    }
    // What is chosen by number has to be in memory: these copies are, so that the sums themselves need not be.
    for i in 0..M {
        for j in 0..N {
            spilled[i][j] = sums[i][j];
        }
    }
}

/// Writes whole vectors of a tile.
#[inline(always)]
fn whole<T: Element, S: Simd, const N: usize>(simd: S, sums: &[[T::Vector<S>; N]], place: Place<T>) {
    let Place { out: Target { view, at, strides: [rs, _] }, rows, more, .. } = place;
    for (i, sums) in sums.iter().enumerate().take(rows) {
        // SAFETY: a task's own part of the result, by the view's contract.
        let out = unsafe { view.slice_mut::<T>((at + i as isize * rs) as usize, N * lanes::<T, S>()) };
        for (out, &sum) in bytemuck::cast_slice_mut(out).iter_mut().zip(sums) {
            *out = if more { T::sum(simd, *out, sum) } else { sum };
        }
    }
}

/// Writes some rows and columns of a tile.
#[inline(never)]
fn ragged<T: Element>(sums: &[T], pitch: usize, place: Place<T>) {
    let Place { out: Target { view, at, strides: [rs, cs] }, rows, columns, more, .. } = place;
    for (i, sums) in sums.chunks_exact(pitch).enumerate().take(rows) {
        let at = at + i as isize * rs;
        let (step, n) = if cs == 1 { (columns, 1) } else { (1, columns) };
        for j in 0..n {
            // SAFETY: a task's own part of the result, by the view's contract.
            let out = unsafe { view.slice_mut::<T>((at + j as isize * cs) as usize, step) };
            for (o, &sum) in out.iter_mut().zip(&sums[j..j + step]) {
                *o = if more { *o + sum } else { sum };
            }
        }
    }
}
