//! Rows side by side: equal points of all of them are neighbours, and folded as vectors.

use kiln_ir::ReduceOp;

use super::{Lane, Partial, Rows, fold_onto, with_fold};
use crate::ahead::Ahead;
use crate::simd::Operand;
use crate::tiling::IN_TURN;

/// Rows that are worth a loop for each point.
const MANY: usize = 64;

/// Halves the points until one of each row is left; in order, so that an earlier one wins a tie.
#[inline(always)]
pub(super) fn outer<T: Lane>(op: ReduceOp, src: Operand, Rows { rows, points, first, .. }: Rows, out: &mut Partial) {
    let src = &src.lanes::<T>()[..rows * points];
    if op == ReduceOp::ArgMax {
        let (best, at) = (&mut out.best.lanes_mut::<T>()[..rows], &mut out.at.lanes_mut::<i32>()[..rows]);
        best.copy_from_slice(&src[..rows]);
        at.fill(first as i32);
        for (p, point) in src.chunks_exact(rows).enumerate().skip(1) {
            for ((b, a), &x) in best.iter_mut().zip(at.iter_mut()).zip(point) {
                let better = (x > *b) | (x.is_nan() & !b.is_nan());
                *b = if better { x } else { *b };
                *a = if better { (first + p) as i32 } else { *a };
            }
        }
        return;
    }
    let best = out.best.lanes_mut::<T>();
    if rows >= MANY {
        // A few points are folded in turn, and then all of those pairwise.
        for (i, some) in src.chunks(rows * IN_TURN).enumerate() {
            let best = &mut best[i * rows..][..rows];
            best.copy_from_slice(&some[..rows]);
            for later in some[rows..].chunks_exact(rows) {
                with_fold!(op, f => pairs_in(best, later, f));
            }
        }
        let left = points.div_ceil(IN_TURN);
        with_fold!(op, f => halve_points(best, rows, left, |low, high| pairs_in(low, high, f)));
        return;
    }
    let half = points / 2;
    let (low, high) = (&src[..half * rows], &src[(points - half) * rows..]);
    with_fold!(op, f => pairs(best, low, high, f));
    // An odd point in the middle is carried along.
    best[half * rows..(points - half) * rows].copy_from_slice(&src[half * rows..(points - half) * rows]);
    with_fold!(op, f => halve_points(best, rows, points - half, |low, high| pairs_in(low, high, f)));
}

/// Folds the later half of some points of each row onto the earlier one until one is left.
#[inline(always)]
pub(super) fn halve_points<T>(best: &mut [T], rows: usize, points: usize, fold: impl Fn(&mut [T], &[T])) {
    let mut left = points;
    while left > 1 {
        let half = left / 2;
        let (low, high) = best.split_at_mut((left - half) * rows);
        fold(&mut low[..half * rows], &high[..half * rows]);
        left -= half;
    }
}

/// Folds one more point of each row.
#[inline(always)]
pub(super) fn go_on<T: Lane>(
    op: ReduceOp,
    src: Operand,
    Rows { rows, first, .. }: Rows,
    out: &mut Partial,
    ahead: &mut Ahead,
) {
    let (src, best) = (&src.lanes::<T>()[..rows], &mut out.best.lanes_mut::<T>()[..rows]);
    if op != ReduceOp::ArgMax {
        with_fold!(op, f => fold_onto(best, [src], ahead, |best, [x]| f(best, x)));
        return;
    }
    for ((b, at), &x) in best.iter_mut().zip(out.at.lanes_mut::<i32>()).zip(src) {
        let better = (x > *b) | (x.is_nan() & !b.is_nan());
        *b = if better { x } else { *b };
        *at = if better { first as i32 } else { *at };
    }
}

#[inline(always)]
fn pairs<T: Lane>(out: &mut [T], low: &[T], high: &[T], f: impl Fn(T, T) -> T) {
    for ((o, &a), &b) in out.iter_mut().zip(low).zip(high) {
        *o = f(a, b);
    }
}

#[inline(always)]
pub(super) fn pairs_in<T: Lane>(acc: &mut [T], later: &[T], f: impl Fn(T, T) -> T) {
    for (a, &x) in acc.iter_mut().zip(later) {
        *a = f(*a, x);
    }
}
