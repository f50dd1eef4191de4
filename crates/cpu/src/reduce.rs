//! Reductions: the partial results of one tile.
//!
//! A tile holds several rows, either one after another (*inner*: each row's points are neighbours)
//! or interleaved (*outer*: equal points of all rows are neighbours). Both give one partial result a
//! row, which `tree` combines with those of other tiles.

mod lines;
mod outer;
mod products;
mod sums;

use bytemuck::Pod;
use kiln_ir::{DType, ReduceOp};

use self::lines::extremes;
use self::outer::{go_on, outer, pairs_in};
pub(crate) use self::products::{sum_products, takes_one};
use self::sums::{Term, sums};
use crate::ahead::Ahead;
use crate::program::Reduction;
use crate::simd::{LINE, Operand, Reg, WORDS, multiversion};
use crate::tiling::TILE;
use crate::walks::PIECE;

/// One partial result a row; [`ReduceOp::ArgMax`] also keeps where it was found.
#[derive(Clone, Default)]
pub(crate) struct Partial {
    pub(crate) best: Reg,
    pub(crate) at: Reg,
}

/// How the rows of a tile lie: `rows` rows of `points` points, of which the first is number `first`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) inner: bool,
    pub(crate) rows: usize,
    pub(crate) points: usize,
    pub(crate) first: usize,
}

impl Rows {
    /// True iff what is one value a row is one value a tile.
    pub(crate) fn is_single(self) -> bool {
        self.inner && self.rows == 1
    }
}

/// A lane type that can be reduced.
trait Lane: Pod + PartialOrd {
    fn sum(self, other: Self) -> Self;
    fn difference(self, other: Self) -> Self;
    fn prod(self, other: Self) -> Self;
    fn is_nan(self) -> bool;
    fn identity(op: ReduceOp, dtype: DType) -> Self;

    /// Whether this value takes the place of an earlier one as the greatest.
    #[inline(always)]
    fn above(self, best: Self) -> bool {
        (self > best) | self.is_nan()
    }

    #[inline(always)]
    fn max(self, later: Self) -> Self {
        if later.above(self) { later } else { self }
    }

    #[inline(always)]
    fn min(self, later: Self) -> Self {
        if (later < self) | later.is_nan() { later } else { self }
    }
}

macro_rules! lanes {
    ($($t:ident: $sum:expr, $difference:expr, $prod:expr, $nan:expr;)*) => { $(
        impl Lane for $t {
            #[inline(always)]
            fn sum(self, other: $t) -> $t { $sum(self, other) }
            #[inline(always)]
            fn difference(self, other: $t) -> $t { $difference(self, other) }
            #[inline(always)]
            fn prod(self, other: $t) -> $t { $prod(self, other) }
            #[inline(always)]
            fn is_nan(self) -> bool { $nan(self) }
            fn identity(op: ReduceOp, dtype: DType) -> $t { op.identity(dtype) as $t }
        }
    )* };
}

lanes! {
    f32: |x, y| x + y, |x, y| x - y, |x, y| x * y, f32::is_nan;
    f64: |x, y| x + y, |x, y| x - y, |x, y| x * y, f64::is_nan;
    i32: i32::wrapping_add, i32::wrapping_sub, i32::wrapping_mul, |_| false;
    u32: u32::wrapping_add, u32::wrapping_sub, u32::wrapping_mul, |_| false;
}

/// Runs a loop with the folding function of a reduction; each arm is a copy of the loop.
macro_rules! with_fold {
    ($op:expr, $f:ident => $body:expr) => {
        match $op {
            ReduceOp::Sum => {
                let $f = T::sum;
                $body
            }
            ReduceOp::Prod => {
                let $f = T::prod;
                $body
            }
            ReduceOp::Max => {
                let $f = T::max;
                $body
            }
            ReduceOp::Min => {
                let $f = T::min;
                $body
            }
            ReduceOp::ArgMax => unreachable!("positions are folded with their values"),
        }
    };
}
use with_fold;

/// Calls a function generic over the lanes of a compute dtype.
macro_rules! with_lane {
    ($dtype:expr, $f:ident($($arg:expr),*)) => {
        match $dtype {
            DType::F32 => $f::<f32>($($arg),*),
            DType::F64 => $f::<f64>($($arg),*),
            DType::I32 => $f::<i32>($($arg),*),
            DType::U32 | DType::Bool => $f::<u32>($($arg),*),
            DType::F16 | DType::BF16 | DType::U8 => unreachable!("no compute dtype"),
        }
    };
}

/// The reduction of truth values is that of their numbers, saturated: any for a sum, all for a product.
fn effective(op: ReduceOp, dtype: DType) -> ReduceOp {
    match (op, dtype) {
        (ReduceOp::Sum, DType::Bool) => ReduceOp::Max,
        (ReduceOp::Prod, DType::Bool) => ReduceOp::Min,
        _ => op,
    }
}

multiversion! {
    /// The partial results of a tile's rows; `more` iff they go on from those of earlier points.
    pub(crate) fn reduce_tile(r: &Reduction, src: &Operand, shape: &Rows, more: bool, out: &mut Partial, ahead: &mut Ahead) {
        let Reduction { op, dtype, asks, .. } = *r;
        let op = effective(op, dtype);
        if more {
            with_lane!(dtype, go_on(op, *src, *shape, out, ahead))
        } else if shape.inner {
            with_lane!(dtype, inner(op, dtype, *src, *shape, asks, out, ahead))
        } else {
            with_lane!(dtype, outer(op, *src, *shape, out))
        }
    }
}

multiversion! {
    /// Combines the partial results of earlier points, in `acc`, with those of later ones.
    pub(crate) fn merge(op: ReduceOp, dtype: DType, acc: &mut Partial, later: &Partial, rows: usize) {
        with_lane!(dtype, merge_lanes(effective(op, dtype), acc, later, rows))
    }
}

/// The result of a reduction over nothing.
pub(crate) fn identity(op: ReduceOp, dtype: DType, out: &mut Reg, rows: usize) {
    fn fill<T: Lane>(op: ReduceOp, dtype: DType, out: &mut Reg, rows: usize) {
        out.lanes_mut::<T>()[..rows].fill(T::identity(op, dtype));
    }
    match op {
        ReduceOp::ArgMax => out.lanes_mut::<i32>()[..rows].fill(0),
        _ => with_lane!(dtype, fill(op, dtype, out, rows)),
    }
}

#[inline(always)]
fn inner<T: Lane>(
    op: ReduceOp,
    dtype: DType,
    src: Operand,
    shape: Rows,
    asks: bool,
    out: &mut Partial,
    ahead: &mut Ahead,
) {
    let src = src.lanes::<T>();
    let best = out.best.lanes_mut::<T>();
    let rows = (0..shape.rows).map(|r| &src[r * shape.points..][..shape.points]);
    // A row that no register holds comes from memory as it is, and what else is done with it breaks the stream. Several of
    // them are only read, and processors see what comes next (row sums: 3.3 ms with this on one core, 2.6 without).
    if asks && shape.rows == 1 && shape.points > TILE {
        let next = src.as_ptr().wrapping_byte_add(AHEAD);
        *ahead = Ahead::from(next, WIDTH * size_of::<T>() / LINE);
    }
    if op == ReduceOp::ArgMax {
        for ((row, o), at) in rows.zip(best).zip(out.at.lanes_mut::<i32>()) {
            *o = fold(row, row[0], ahead, T::max);
            let found = row.iter().position(|&x| x == *o || x.is_nan());
            *at = (shape.first + found.unwrap_or(0)) as i32;
        }
        return;
    }
    if dtype == DType::F32 && shape.rows == 1 && shape.points > LONG {
        let out = bytemuck::from_bytes_mut(bytemuck::bytes_of_mut(&mut best[0]));
        return fold_long(op, bytemuck::cast_slice(&src[..shape.points]), ahead, out);
    }
    // A tile has several long rows only where they are read and nothing else.
    if dtype == DType::F32 && asks && shape.points > LONG {
        let n = shape.rows;
        return fold_rows(op, bytemuck::cast_slice(src), shape, bytemuck::cast_slice_mut(&mut best[..n]));
    }
    if dtype == DType::F32 && shape.rows > 1 && shape.points >= WORDS && op != ReduceOp::Prod {
        let (src, points) = (bytemuck::cast_slice(&src[..shape.rows * shape.points]), shape.points);
        let best = bytemuck::cast_slice_mut(&mut best[..shape.rows]);
        return match op {
            ReduceOp::Sum => sums(Term::Itself, [src; 2], points, best, ahead),
            _ => extremes(src, points, op == ReduceOp::Min, best, ahead),
        };
    }
    // Plain loops: what a closure calls would not be compiled for the instruction set at hand.
    with_fold!(op, f => {
        for (row, o) in rows.zip(best) {
            let start = start(op, dtype, row);
            *o = fold(row, start, ahead, f);
        }
    });
}

/// Folds points of rows onto what there is of each, piece by piece.
#[inline(always)]
fn fold_onto<T: Lane, const N: usize>(acc: &mut [T], points: [&[T]; N], ahead: &mut Ahead, f: impl Fn(T, [T; N]) -> T) {
    let n = acc.len();
    let points = points.map(|x| &x[..n]);
    let (whole, rest) = acc.as_chunks_mut::<PIECE>();
    let mut at = 0;
    for acc in whole {
        ahead.ask();
        let points = points.map(|x| &x[at..at + PIECE]);
        // All is read before any is written, so that nothing need be known of where the points lie.
        let mut folded = [T::zeroed(); PIECE];
        for i in 0..PIECE {
            folded[i] = f(acc[i], points.map(|x| x[i]));
        }
        *acc = folded;
        at += PIECE;
    }
    for (i, acc) in rest.iter_mut().enumerate() {
        *acc = f(*acc, points.map(|x| x[at + i]));
    }
}

/// How far ahead memory is asked for, in bytes. Processors look no further than a page.
const AHEAD: usize = 16384;

/// Independent partial results, enough to hide the latency of an addition.
const WIDTH: usize = 64;

/// What the fold of a row begins with.
#[inline(always)]
fn start<T: Lane>(op: ReduceOp, dtype: DType, row: &[T]) -> T {
    if matches!(op, ReduceOp::Sum | ReduceOp::Prod) { T::identity(op, dtype) } else { row[0] }
}

#[inline(always)]
fn fold_row<T: Lane>(op: ReduceOp, dtype: DType, row: &[T], ahead: &mut Ahead) -> T {
    let start = start(op, dtype, row);
    with_fold!(op, f => fold(row, start, ahead, f))
}

/// Points from which on a tile's only row is worth a call; where a tile has several, a call between them costs 7 %.
const LONG: usize = 512;

multiversion! {
    /// Folds a long row. In a function of its own the lanes stay in registers; elsewhere that depends on what is around, and
    /// on the stack a store may wait for loads of memory whose addresses end alike.
    fn fold_long(op: ReduceOp, row: &[f32], ahead: &mut Ahead, out: &mut f32) {
        *out = fold_row(op, DType::F32, row, ahead);
    }
}

multiversion! {
    /// Folds rows that come from memory: 8192 of 2048 take 5 to 10 % less time on two cores so than in whole lines.
    narrow fn fold_rows(op: ReduceOp, src: &[f32], shape: Rows, out: &mut [f32]) {
        for (row, out) in src.chunks_exact(shape.points).zip(out) {
            *out = fold_row(op, DType::F32, row, &mut Ahead::none());
        }
    }
}

/// Folds a row through `WIDTH` lanes and then pairwise.
#[inline(always)]
fn fold<T: Lane>(row: &[T], start: T, ahead: &mut Ahead, f: impl Fn(T, T) -> T) -> T {
    fold_by(row, start, ahead, &f, &f)
}

/// The same where lanes are folded otherwise than rows are.
#[inline(always)]
fn fold_by<T: Lane>(row: &[T], start: T, ahead: &mut Ahead, f: impl Fn(T, T) -> T, lanes: impl Fn(T, T) -> T) -> T {
    match ahead.asks() {
        true => fold_from::<_, true>(row, start, ahead, f, lanes),
        false => fold_from::<_, false>(row, start, ahead, f, lanes),
    }
}

/// A loop for each case: where there is a choice within it, the lanes go through memory.
#[inline(always)]
fn fold_from<T: Lane, const ASKS: bool>(
    row: &[T],
    start: T,
    ahead: &mut Ahead,
    f: impl Fn(T, T) -> T,
    lanes: impl Fn(T, T) -> T,
) -> T {
    if row.len() < WIDTH / 2 {
        let mut sum = start;
        for &x in row {
            sum = f(sum, x);
        }
        return sum;
    }
    let mut acc = [start; WIDTH];
    let (chunks, rest) = row.as_chunks::<WIDTH>();
    for chunk in chunks {
        if ASKS {
            ahead.ask();
        }
        // As a new array, and read by numbers known here: only so do the lanes stay in registers.
        acc = std::array::from_fn(|i| f(acc[i], chunk[i]));
    }
    if !rest.is_empty() {
        acc = std::array::from_fn(|i| rest.get(i).map_or(acc[i], |&x| f(acc[i], x)));
    }
    halve(&mut acc, lanes)
}

/// Folds lanes pairwise.
#[inline(always)]
fn halve<T: Lane>(acc: &mut [T; WIDTH], f: impl Fn(T, T) -> T) -> T {
    let mut width = WIDTH / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] = f(acc[i], acc[i + width]);
        }
        width /= 2;
    }
    acc[0]
}

#[inline(always)]
fn merge_lanes<T: Lane>(op: ReduceOp, acc: &mut Partial, later: &Partial, rows: usize) {
    if op != ReduceOp::ArgMax {
        return merge_slice::<T>(op, &mut acc.best, &later.best, 0, rows);
    }
    let best = acc.best.lanes_mut::<T>()[..rows].iter_mut().zip(&mut acc.at.lanes_mut::<i32>()[..rows]);
    let later = later.best.lanes::<T>()[..rows].iter().zip(&later.at.lanes::<i32>()[..rows]);
    for ((b, at), (&x, &i)) in best.zip(later) {
        let better = (x > *b) | (x.is_nan() & !b.is_nan());
        *b = if better { x } else { *b };
        *at = if better { i } else { *at };
    }
}

#[inline(always)]
fn merge_slice<T: Lane>(op: ReduceOp, acc: &mut Reg, src: &Reg, from: usize, rows: usize) {
    let (acc, src) = (&mut acc.lanes_mut::<T>()[..rows], &src.lanes::<T>()[from..from + rows]);
    with_fold!(op, f => pairs_in(acc, src, f));
}

impl Partial {
    /// Makes room for lanes of this many bytes.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.best.reserve_bytes(bytes);
        self.at.reserve_bytes(bytes);
    }

    /// What the reduction gives: the value, or the place.
    pub(crate) fn result(&self, op: ReduceOp) -> &Reg {
        if op == ReduceOp::ArgMax { &self.at } else { &self.best }
    }
}
