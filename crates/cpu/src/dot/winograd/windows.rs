//! `Gᵀ M G`: from the products at each place to a window's taps, where they are wanted.

use super::products::Products;
use super::sums::INFINITE;
use super::taps::TAPS;
use super::vector::{Vector, add, half, sub};
use super::{LANES, PLACES};
use crate::dot::tile::Target;
use crate::simd::multiversion;

multiversion! {
    /// Writes each row's windows, one channel's after the other's, to `out`. Tells if all are finite.
    pub(super) fn transform(products: Products, channels: usize, out: Target, is_finite: &mut bool) {
        let Products { data, rows, wide } = products;
        let pitch = Products::pitch(rows, wide);
        for row in 0..rows {
            let at = out.at + row as isize * out.strides[0];
            // SAFETY: a task's own part of the result, by the view's contract.
            let windows = unsafe { out.view.slice_mut::<f32>(at as usize, channels * TAPS) };
            for (i, windows) in windows.chunks_mut(LANES * TAPS).enumerate() {
                let mut places = [&[0.0; LANES]; PLACES];
                for (place, vector) in places.iter_mut().enumerate() {
                    let from = place * pitch + row * wide + i * LANES;
                    *vector = data[from..][..LANES].try_into().expect("as long as the slice");
                }
                let taps = taps(places);
                let (windows, _) = windows.as_chunks_mut::<TAPS>();
                for (c, window) in windows.iter_mut().enumerate() {
                    for tap in 0..TAPS {
                        window[tap] = taps[tap][c];
                    }
                }
            }
            *is_finite &= windows.iter().map(|x| x.to_bits() & INFINITE).fold(0, u32::max) < INFINITE;
        }
    }
}

/// All taps of [`LANES`] channels.
#[inline(always)]
fn taps(places: [&Vector; PLACES]) -> [Vector; TAPS] {
    let mut wide = [[[0.0; LANES]; 4]; 3];
    for y in 0..4 {
        [wide[0][y], wide[1][y], wide[2][y]] =
            narrow([places[4 * y], places[4 * y + 1], places[4 * y + 2], places[4 * y + 3]]);
    }
    let mut taps = [[0.0; LANES]; TAPS];
    for x in 0..3 {
        [taps[x], taps[3 + x], taps[6 + x]] = narrow([&wide[x][0], &wide[x][1], &wide[x][2], &wide[x][3]]);
    }
    taps
}

/// `Gᵀ m`: four become three.
#[inline(always)]
fn narrow([a, b, c, d]: [&Vector; 4]) -> [Vector; 3] {
    let sum = half(&add(b, c));
    [add(a, &sum), half(&sub(b, c)), add(&sum, d)]
}
