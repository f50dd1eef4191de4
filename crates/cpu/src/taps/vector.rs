//! Vectors of a line's points: what they load, and which of them have what they load.

use std::ops::Range;

use bytemuck::Pod;
use pulp::Simd;

use crate::simd::firsts;

/// Points of a vector.
#[inline(always)]
pub(crate) const fn lanes<S: Simd>() -> usize {
    size_of::<S::f32s>() / size_of::<f32>()
}

/// Elements from an address on, if so many are there.
#[inline(always)]
pub(super) fn span(values: &[f32], head: i64, n: usize) -> Option<&[f32]> {
    values.get(head as usize..)?.get(..n)
}

/// A vector that begins with some elements.
#[inline(always)]
pub(crate) fn vector<V: Pod, T: Pod>(elements: &[T]) -> V {
    bytemuck::pod_read_unaligned(&bytemuck::cast_slice(elements)[..size_of::<V>()])
}

/// The numbers of a vector's points, of which the first one is `at`.
#[inline(always)]
pub(super) fn numbers<S: Simd>(simd: S, at: usize) -> S::u32s {
    const NUMBERS: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    simd.add_u32s(vector(&NUMBERS), simd.splat_u32s(at as u32))
}

/// Which points are within a range.
#[inline(always)]
pub(super) fn among<S: Simd>(simd: S, numbers: S::u32s, range: &Range<usize>) -> S::m32s {
    let from_start = simd.sub_u32s(numbers, simd.splat_u32s(range.start as u32));
    simd.less_than_u32s(from_start, simd.splat_u32s(range.len() as u32))
}

/// Which of a vector's points, the first of which has number `at`, are within a range.
#[inline(always)]
pub(crate) fn exists<S: Simd>(simd: S, at: usize, range: Range<usize>) -> S::m32s {
    among(simd, numbers(simd, at), &range)
}

/// The elements of a vector's points, one out of `STEP`.
#[inline(always)]
pub(super) fn load<S: Simd, const STEP: usize>(elements: &[f32]) -> S::f32s {
    match (STEP, lanes::<S>()) {
        (1, _) => vector(elements),
        (_, 16) => vector(&firsts::<16>(vector(elements))),
        (_, 8) => vector(&firsts::<8>(vector(elements))),
        (_, 4) => vector(&firsts::<4>(vector(elements))),
        _ => vector(elements),
    }
}

/// Puts points together again of which there are the first of each `n`, then the second of each, and so on.
#[inline(always)]
pub(super) fn weave(n: usize, parts: &[f32], out: &mut [f32]) {
    if n == 2 {
        let (even, odd) = parts.split_at(out.len().div_ceil(2));
        let (pairs, rest) = out.as_chunks_mut();
        pairs.iter_mut().zip(even.iter().zip(odd)).for_each(|(pair, (x, y))| *pair = [*x, *y]);
        rest.iter_mut().for_each(|last| *last = even[even.len() - 1]);
        return;
    }
    let mut rest = parts;
    for r in 0..n {
        let part;
        (part, rest) = rest.split_at((out.len() - r).div_ceil(n));
        out[r..].iter_mut().step_by(n).zip(part).for_each(|(o, x)| *o = *x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_put_together_again() {
        for (n, len) in (1..5).flat_map(|n| (n..40).map(move |len| (n, len))) {
            let parts: Vec<f32> = (0..n).flat_map(|r| (r..len).step_by(n)).map(|at| at as f32).collect();
            let mut out = vec![f32::NAN; len];
            weave(n, &parts, &mut out);
            assert!(out.iter().zip(0..len).all(|(&x, at)| x == at as f32), "{len} points, {n} remainders: {out:?}");
        }
    }
}
