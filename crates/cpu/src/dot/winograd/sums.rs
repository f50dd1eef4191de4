//! `Aᵀ M A`: from the products at each place of the tiles to sums, where they are wanted.

use super::plane::Segment;
use super::{LANES, PLACES};
use crate::dot::tile::Target;
use crate::simd::multiversion;

/// The products of a block: `[places, rows, tiles]`, with [`LANES`] more at each place, as the last vector goes beyond.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    /// Elements from a row to the next one.
    pub(super) tiles: usize,
}

impl Products<'_> {
    /// From a place to the next.
    pub(super) fn pitch(rows: usize, tiles: usize) -> usize {
        rows * tiles + LANES
    }
}

multiversion! {
    /// Writes sums to `out`, whose columns are neighbours: so many columns, of images so wide. Tells if all are finite.
    pub(super) fn transform(
        products: Products,
        segments: &[Segment],
        places: [usize; 2],
        out: Target,
        is_finite: &mut bool,
    ) {
        let [columns, width] = places;
        let Products { data, rows, tiles } = products;
        let pitch = Products::pitch(rows, tiles);
        for row in 0..rows {
            let at = out.at + row as isize * out.strides[0];
            // SAFETY: a task's own part of the result, by the view's contract.
            let sums = unsafe { out.view.slice_mut::<f32>(at as usize, columns) };
            for segment in segments {
                let from = row * tiles + segment.tile;
                let places: [&[f32; LANES]; PLACES] = std::array::from_fn(|i| {
                    data[i * pitch + from..][..LANES].try_into().expect("as long as the slice")
                });
                let [upper, lower] = outputs(places);
                put(&upper, &mut sums[segment.column..][..segment.columns]);
                if segment.is_whole {
                    put(&lower, &mut sums[segment.column + width..][..segment.columns]);
                }
            }
            // 0 · x is 0 unless x is infinite or NaN.
            *is_finite &= sums.iter().map(|x| x.to_bits() & INFINITE).fold(0, u32::max) < INFINITE;
        }
    }
}

/// The exponent that only infinities and NaN have.
const INFINITE: u32 = 0x7f80_0000;

/// Both rows of outputs.
#[inline(always)]
fn outputs(places: [&[f32; LANES]; PLACES]) -> [[f32; 2 * LANES]; 2] {
    let mut wide = [[[0.0; LANES]; 2]; 4];
    for y in 0..4 {
        for i in 0..LANES {
            let [a, b, c, d] = [0, 1, 2, 3].map(|x| places[4 * y + x][i]);
            wide[y][0][i] = a + b + c;
            wide[y][1][i] = b - c - d;
        }
    }
    let mut outputs = [[0.0; 2 * LANES]; 2];
    for i in 0..LANES {
        for x in 0..2 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|y| wide[y][x][i]);
            outputs[0][2 * i + x] = a + b + c;
            outputs[1][2 * i + x] = b - c - d;
        }
    }
    outputs
}

/// Copies as much as there is room for.
#[inline(always)]
fn put(from: &[f32; 2 * LANES], to: &mut [f32]) {
    if let Ok(to) = <&mut [f32; 2 * LANES]>::try_from(&mut *to) {
        *to = *from;
        return;
    }
    let (mut at, len) = (0, to.len());
    for part in [16, 8, 4, 2, 1] {
        if len & part > 0 {
            to[at..at + part].copy_from_slice(&from[at..at + part]);
            at += part;
        }
    }
}
