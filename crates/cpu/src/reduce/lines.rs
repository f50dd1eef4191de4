//! Extremes of a tile's rows, a cache line of rows at a time.
//!
//! A row by itself ends with a few lanes, which are compared with each other in ever smaller parts of a vector, and compilers
//! do that one by one. So each row is folded only as far as a cache line goes; the lines of sixteen rows are turned, and what
//! is left of all rows is folded side by side. Of rows of 32, the greatest take a quarter of the time so, of 256 two thirds.

use bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Arch, Simd, WithSimd};

use crate::ahead::Ahead;
use crate::simd::WORDS;
use crate::taps::vector::{lanes, vector};
use crate::turn::{Block, turn_lines};
use crate::walks::PIECE;

/// Points of some rows.
type Lines = [[f32; WORDS]; WORDS];

/// The greatest points of rows that lie one after the other, each at least as long as a cache line, or the `least`; a NaN
/// is both.
pub(super) fn extremes(src: &[f32], points: usize, least: bool, best: &mut [f32], ahead: &mut Ahead) {
    let (mut lines, mut turned) = ([[0.0; WORDS]; WORDS], [[0.0; WORDS]; WORDS]);
    let mut block = Block::default();
    for (rows, best) in src.chunks(WORDS * points).zip(best.chunks_mut(WORDS)) {
        if ahead.asks() {
            (0..rows.len().div_ceil(PIECE)).for_each(|_| ahead.ask());
        }
        Arch::new().dispatch(Narrow { rows, points, least, lines: &mut lines });
        let to = turned.iter_mut().map(|line| cast_slice_mut(line));
        turn_lines(cast_slice(lines.as_flattened()), WORDS, [WORDS; 2], to, false, &mut block);
        Arch::new().dispatch(Finish { lines: &mut turned, least });
        best.copy_from_slice(&turned[0][..best.len()]);
    }
}

/// The greater of two points or the lesser, the first of those that are equal or NaN.
#[inline(always)]
fn better<S: Simd, const LEAST: bool>(simd: S, best: S::f32s, x: S::f32s) -> S::f32s {
    let [low, high] = if LEAST { [best, x] } else { [x, best] };
    let stays = simd.or_m32s(simd.not_m32s(simd.equal_f32s(best, best)), simd.less_than_or_equal_f32s(low, high));
    simd.select_f32s(stays, best, x)
}

/// Rows as far as a cache line goes, one each.
struct Narrow<'a> {
    rows: &'a [f32],
    points: usize,
    least: bool,
    lines: &'a mut Lines,
}

impl WithSimd for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.least {
            true => self.narrow::<S, true>(simd),
            false => self.narrow::<S, false>(simd),
        }
    }
}

impl Narrow<'_> {
    #[inline(always)]
    fn narrow<S: Simd, const LEAST: bool>(self, simd: S) {
        for (row, line) in self.rows.chunks_exact(self.points).zip(self.lines) {
            for (from, best) in (0..).step_by(lanes::<S>()).zip(line.chunks_exact_mut(lanes::<S>())) {
                // The last points first: some of them come again.
                let last = vector(&row[row.len() - WORDS + from..]);
                let mut lane = last;
                let mut seen = simd.not_m32s(simd.equal_f32s(last, last));
                for part in row.as_chunks::<WORDS>().0 {
                    let x = vector(&part[from..]);
                    lane = if LEAST { simd.min_f32s(lane, x) } else { simd.max_f32s(lane, x) };
                    seen = simd.or_m32s(seen, simd.not_m32s(simd.equal_f32s(x, x)));
                }
                lane = simd.select_f32s(seen, simd.splat_f32s(f32::NAN), lane);
                best.copy_from_slice(&cast_slice(&[lane])[..lanes::<S>()]);
            }
        }
    }
}

/// Folds lines onto the first one.
struct Finish<'a> {
    lines: &'a mut Lines,
    least: bool,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.least {
            true => halve::<S, true>(simd, self.lines),
            false => halve::<S, false>(simd, self.lines),
        }
    }
}

#[inline(always)]
fn halve<S: Simd, const LEAST: bool>(simd: S, lines: &mut Lines) {
    let mut width = WORDS / 2;
    while width > 0 {
        let (low, high) = lines.split_at_mut(width);
        for (low, high) in
            low.as_flattened_mut().chunks_exact_mut(lanes::<S>()).zip(high.as_flattened().chunks_exact(lanes::<S>()))
        {
            let folded = better::<S, LEAST>(simd, vector(low), vector(high));
            low.copy_from_slice(&cast_slice(&[folded])[..lanes::<S>()]);
        }
        width /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of some length whose extremes are anywhere, and what they are.
    #[test]
    fn extremes_are_wherever_they_are() {
        for points in [16, 17, 31, 32, 33, 63, 100, 512] {
            for rows in [1, 2, 15, 16, 17, 40] {
                for least in [false, true] {
                    let sign = if least { -1.0 } else { 1.0 };
                    let mut src: Vec<f32> = (0..rows * points).map(|i| ((i * 37) % 101) as f32 * -0.5).collect();
                    let mut want = Vec::new();
                    for (r, row) in src.chunks_exact_mut(points).enumerate() {
                        row[(r * 7 + points / 2) % points] = 1.0 + r as f32;
                        want.push(sign * (1.0 + r as f32));
                    }
                    src.iter_mut().for_each(|x| *x *= sign);
                    let mut best = vec![f32::NAN; rows];
                    extremes(&src, points, least, &mut best, &mut Ahead::none());
                    assert_eq!(best, want, "{rows} rows of {points}");
                }
            }
        }
    }

    #[test]
    fn a_nan_is_the_extreme_wherever_it_is() {
        for points in [16, 21, 48] {
            for at in 0..points {
                let mut src = vec![1.0f32; 3 * points];
                src[points + at] = f32::NAN;
                for least in [false, true] {
                    let mut best = [0.0; 3];
                    extremes(&src, points, least, &mut best, &mut Ahead::none());
                    assert!(best[1].is_nan(), "{at} of {points}");
                    assert_eq!([best[0], best[2]], [1.0; 2]);
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_finds_the_same() {
        let src: Vec<f32> = (0..16 * 45).map(|i| ((i * 193) % 997) as f32).collect();
        let find = |dispatch: &dyn Fn(Narrow)| {
            let mut lines = [[0.0; WORDS]; WORDS];
            dispatch(Narrow { rows: &src, points: 45, least: false, lines: &mut lines });
            lines
        };
        let wide = find(&|narrow| Arch::new().dispatch(narrow));
        assert_eq!(wide, find(&|narrow| narrow.with_simd(pulp::Scalar)));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            assert_eq!(wide, find(&|narrow| Simd::vectorize(simd, narrow)));
        }
    }
}
