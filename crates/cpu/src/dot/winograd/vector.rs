//! Vectors of tiles: plain loops of a fixed length, which compilers keep in registers.
//!
//! Nothing here or above is an array's `map`: its closures are functions of their own, compiled for any processor.

use super::LANES;

/// The same place of neighbouring tiles.
pub(super) type Vector = [f32; LANES];

/// What neighbouring tiles have in a row.
pub(super) type Pairs = [f32; 2 * LANES];

#[inline(always)]
pub(super) fn add<const N: usize>(x: &[f32; N], y: &[f32; N]) -> [f32; N] {
    let mut sum = [0.0; N];
    for i in 0..N {
        sum[i] = x[i] + y[i];
    }
    sum
}

#[inline(always)]
pub(super) fn sub<const N: usize>(x: &[f32; N], y: &[f32; N]) -> [f32; N] {
    let mut difference = [0.0; N];
    for i in 0..N {
        difference[i] = x[i] - y[i];
    }
    difference
}

#[inline(always)]
pub(super) fn half<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let mut halves = [0.0; N];
    for i in 0..N {
        halves[i] = 0.5 * x[i];
    }
    halves
}

/// The first of each pair, and the second, side by side.
#[inline(always)]
pub(super) fn together([first, second]: &[Vector; 2]) -> Pairs {
    let mut pairs = [0.0; 2 * LANES];
    for i in 0..LANES {
        pairs[2 * i] = first[i];
        pairs[2 * i + 1] = second[i];
    }
    pairs
}
