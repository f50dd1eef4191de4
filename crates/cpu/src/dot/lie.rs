//! How operands lie that a tile reads: in strips, or rows where they are.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::element::{Element, lanes};

/// Lines of a strip of the left operand.
pub(super) const ROWS: usize = 8;

/// Rows that are read together: fewer than that are filled up.
pub(super) const QUAD: usize = 4;

/// Lines of a strip of the right operand, where vectors are the longest; a multiple of what it is elsewhere.
pub(super) const COLUMNS: usize = 48;

/// Lines of a strip of the right operand: what three vectors hold. A part of wider strips takes every other cache line or
/// two, for which an EPYC of the third generation needs up to a third longer.
pub(super) fn columns<T: Element>() -> usize {
    Arch::new().dispatch(Columns::<T>(PhantomData))
}

struct Columns<T>(PhantomData<T>);

impl<T: Element> WithSimd for Columns<T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        match lanes::<T, S>() {
            lanes @ (4 | 8 | 16) => 3 * lanes,
            _ => COLUMNS,
        }
    }
}

/// Strips of an operand, from some step along `k` on.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a, T> {
    pub(super) data: &'a [T],
    /// Lines of a strip.
    pub(super) width: usize,
    /// From the start of a strip to that of the next.
    pub(super) pitch: usize,
}

/// How rows lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// A row's steps are neighbours, and rows so far apart.
    Along(usize),
    /// A step's rows are neighbours, and steps so far apart.
    Across(usize),
}

impl Lie {
    /// From a row to the next, and from a step to the next.
    #[inline(always)]
    pub(super) fn strides(self) -> [usize; 2] {
        match self {
            Lie::Along(apart) => [apart, 1],
            Lie::Across(apart) => [1, apart],
        }
    }
}

/// The rows of a left operand, from some step along `k` on: packed, or where they lie.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) data: &'a [T],
    pub(super) lie: Lie,
    /// From the rows of a tile to those of the next.
    pub(super) pitch: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Where they lie: whole [`QUAD`]s of them.
    pub(super) fn lying(data: &'a [T], lie: Lie) -> Rows<'a, T> {
        Rows { data, lie, pitch: ROWS * lie.strides()[0] }
    }

    /// True iff some rows and steps are all there: the last row, and the last one of whole tiles.
    pub(super) fn hold(&self, rows: usize, steps: usize) -> bool {
        let (read, [by_row, step]) = (rows.next_multiple_of(QUAD), self.lie.strides());
        let begin = |row: usize| row / ROWS * self.pitch + row % ROWS * by_row;
        let farthest = begin(read - 1).max(begin((read / ROWS * ROWS).saturating_sub(1)));
        farthest + (steps - 1) * step < self.data.len()
    }
}

impl<'a, T> From<Packed<'a, T>> for Rows<'a, T> {
    fn from(Packed { data, width, pitch }: Packed<'a, T>) -> Rows<'a, T> {
        assert_eq!(width, ROWS, "strips of rows");
        Rows { data, lie: Lie::Across(ROWS), pitch }
    }
}
