//! `Aᵀ M A`: from the products at each place of the tiles to sums, where they are wanted.

use super::plane::Segment;
use super::products::Products;
use super::vector::{Pairs, Vector, add, sub, together};
use super::{LANES, PLACES};
use crate::dot::tile::Target;
use crate::simd::multiversion;

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
        let Products { data, rows, wide } = products;
        let pitch = Products::pitch(rows, wide);
        for row in 0..rows {
            let at = out.at + row as isize * out.strides[0];
            // SAFETY: a task's own part of the result, by the view's contract.
            let sums = unsafe { out.view.slice_mut::<f32>(at as usize, columns) };
            for segment in segments {
                let from = row * wide + segment.tile;
                let mut tiles = [&[0.0; LANES]; PLACES];
                for i in 0..PLACES {
                    tiles[i] = data[i * pitch + from..][..LANES].try_into().expect("as long as the slice");
                }
                let [upper, lower] = outputs(tiles);
                put(&upper, &mut sums[segment.column..][..segment.columns]);
                if segment.is_whole {
                    put(&lower, &mut sums[segment.column + width..][..segment.columns]);
                }
            }
            *is_finite &= sums.iter().map(|x| x.to_bits() & INFINITE).fold(0, u32::max) < INFINITE;
        }
    }
}

/// The exponent that only infinities and NaN have.
pub(super) const INFINITE: u32 = 0x7f80_0000;

/// Both rows of outputs.
#[inline(always)]
fn outputs(places: [&Vector; PLACES]) -> [Pairs; 2] {
    let (mut left, mut right) = ([[0.0; LANES]; 4], [[0.0; LANES]; 4]);
    for y in 0..4 {
        [left[y], right[y]] = narrow([places[4 * y], places[4 * y + 1], places[4 * y + 2], places[4 * y + 3]]);
    }
    let [upper_left, lower_left] = narrow([&left[0], &left[1], &left[2], &left[3]]);
    let [upper_right, lower_right] = narrow([&right[0], &right[1], &right[2], &right[3]]);
    [together(&[upper_left, upper_right]), together(&[lower_left, lower_right])]
}

/// `Aᵀ m`: four become two.
#[inline(always)]
fn narrow([a, b, c, d]: [&Vector; 4]) -> [Vector; 2] {
    [add(&add(a, b), c), sub(&sub(b, c), d)]
}

/// Copies as much as there is room for.
#[inline(always)]
fn put(from: &Pairs, to: &mut [f32]) {
    if let Ok(to) = <&mut Pairs>::try_from(&mut *to) {
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
