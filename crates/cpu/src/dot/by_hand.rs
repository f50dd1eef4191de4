//! The loops over tiles of 4 × 3 and of 6 × 2 vectors of AVX2, by hand.
//!
//! Twelve sums, three vectors of columns and a row's number take all sixteen registers. LLVM gets by with as many for
//! one step, but moves nine sums about from step to step, one of them through memory: a core of an EPYC of the third
//! generation reached 44 GFLOP/s so, and 90 by hand. Where it has a register to spare, it still checks bounds each step.

use std::arch::asm;
use std::arch::x86_64::{
    _mm256_add_pd, _mm256_add_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_setzero_pd, _mm256_setzero_ps,
    _mm256_storeu_pd, _mm256_storeu_ps,
};

use super::element::{Destination, Walk};

/// Rows and vectors of such a tile.
pub(super) const TILE: [usize; 2] = [4, 3];

const SUMS: usize = TILE[0] * TILE[1];

/// A loop over the steps of a tile whose rows are so many vectors, as lines of assembly for one step: they find columns at
/// `rhs` and rows at `lhs`, `row` bytes apart, or as many times that as the registers in brackets have.
macro_rules! by_hand {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident($t:ty: $zero:ident, $load:ident, $add:ident, $store:ident; $vectors:expr)
        [$($far:ident = $times:literal),*]
        $($line:expr),+ $(,)?
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// All rows and columns of the tile are there for each step, of which there is one, and so are those of the result,
        /// which nothing else uses. AVX2 and FMA are.
        #[target_feature(enable = "avx2,fma")]
        $vis unsafe fn $name(walk: Walk<$t>, out: Destination<$t>) {
            let Walk { lhs, strides, rhs, pitch, steps } = walk;
            let [row, step] = strides.map(|elements| elements * size_of::<$t>());
            let mut sums = [$zero(); SUMS];
            let [a, b, c, d, e, f, g, h, i, j, k, l] = &mut sums;
            // SAFETY: reads what the caller says is there, and writes to registers.
            unsafe {
                asm!(
                    "2:",
                    $($line,)+
                    "add {lhs}, {step}",
                    "add {rhs}, {pitch}",
                    "dec {steps}",
                    "jnz 2b",
                    a = inout(ymm_reg) *a, b = inout(ymm_reg) *b, c = inout(ymm_reg) *c,
                    d = inout(ymm_reg) *d, e = inout(ymm_reg) *e, f = inout(ymm_reg) *f,
                    g = inout(ymm_reg) *g, h = inout(ymm_reg) *h, i = inout(ymm_reg) *i,
                    j = inout(ymm_reg) *j, k = inout(ymm_reg) *k, l = inout(ymm_reg) *l,
                    w = out(ymm_reg) _, x = out(ymm_reg) _, y = out(ymm_reg) _, z = out(ymm_reg) _,
                    lhs = inout(reg) lhs => _,
                    rhs = inout(reg) rhs => _,
                    steps = inout(reg) steps => _,
                    row = in(reg) row,
                    $($far = in(reg) $times * row,)*
                    step = in(reg) step,
                    pitch = in(reg) pitch * size_of::<$t>(),
                    options(nostack, readonly),
                );
            }
            let at = |i: usize| out.at.wrapping_add(i / $vectors * out.apart + i % $vectors * (32 / size_of::<$t>()));
            if out.more {
                for i in 0..SUMS {
                    // SAFETY: a vector of the result.
                    sums[i] = $add(unsafe { $load(at(i)) }, sums[i]);
                }
            }
            for i in 0..SUMS {
                // SAFETY: a vector of the result, which nothing else uses.
                unsafe { $store(at(i), sums[i]) };
            }
        }
    };
}

macro_rules! of_a_tile {
    ($name:ident, $t:ty: $zero:ident, $load:ident, $add:ident, $store:ident, $splat:literal, $mul_add:literal) => {
        by_hand! {
            /// Adds up a [`TILE`].
            pub(super) fn $name($t: $zero, $load, $add, $store; TILE[1]) [third = 3]
            "vmovups {x}, [{rhs}]",
            "vmovups {y}, [{rhs} + 32]",
            "vmovups {z}, [{rhs} + 64]",
            concat!($splat, " {w}, [{lhs}]"),
            concat!($mul_add, " {a}, {w}, {x}"),
            concat!($mul_add, " {b}, {w}, {y}"),
            concat!($mul_add, " {c}, {w}, {z}"),
            concat!($splat, " {w}, [{lhs} + {row}]"),
            concat!($mul_add, " {d}, {w}, {x}"),
            concat!($mul_add, " {e}, {w}, {y}"),
            concat!($mul_add, " {f}, {w}, {z}"),
            concat!($splat, " {w}, [{lhs} + 2 * {row}]"),
            concat!($mul_add, " {g}, {w}, {x}"),
            concat!($mul_add, " {h}, {w}, {y}"),
            concat!($mul_add, " {i}, {w}, {z}"),
            concat!($splat, " {w}, [{lhs} + {third}]"),
            concat!($mul_add, " {j}, {w}, {x}"),
            concat!($mul_add, " {k}, {w}, {y}"),
            concat!($mul_add, " {l}, {w}, {z}"),
        }
    };
}

of_a_tile! {
    f32s, f32: _mm256_setzero_ps, _mm256_loadu_ps, _mm256_add_ps, _mm256_storeu_ps, "vbroadcastss", "vfmadd231ps"
}
of_a_tile! {
    f64s, f64: _mm256_setzero_pd, _mm256_loadu_pd, _mm256_add_pd, _mm256_storeu_pd, "vbroadcastsd", "vfmadd231pd"
}

by_hand! {
    /// Adds up a tile of 6 × 2.
    pub(crate) fn tall(f32: _mm256_setzero_ps, _mm256_loadu_ps, _mm256_add_ps, _mm256_storeu_ps; 2)
    [third = 3, fifth = 5]
    "vmovups {x}, [{rhs}]",
    "vmovups {y}, [{rhs} + 32]",
    "vbroadcastss {w}, [{lhs}]",
    "vfmadd231ps {a}, {w}, {x}",
    "vfmadd231ps {b}, {w}, {y}",
    "vbroadcastss {z}, [{lhs} + {row}]",
    "vfmadd231ps {c}, {z}, {x}",
    "vfmadd231ps {d}, {z}, {y}",
    "vbroadcastss {w}, [{lhs} + 2 * {row}]",
    "vfmadd231ps {e}, {w}, {x}",
    "vfmadd231ps {f}, {w}, {y}",
    "vbroadcastss {z}, [{lhs} + {third}]",
    "vfmadd231ps {g}, {z}, {x}",
    "vfmadd231ps {h}, {z}, {y}",
    "vbroadcastss {w}, [{lhs} + 4 * {row}]",
    "vfmadd231ps {i}, {w}, {x}",
    "vfmadd231ps {j}, {w}, {y}",
    "vbroadcastss {z}, [{lhs} + {fifth}]",
    "vfmadd231ps {k}, {z}, {x}",
    "vfmadd231ps {l}, {z}, {y}",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, isa};

    /// Small integers, so that sums are exact in any order.
    fn number(i: usize) -> f64 {
        (i * 7 % 11) as f64 - 5.0
    }

    macro_rules! sums_are_those_of_loops {
        ($test:ident, $name:ident, $t:ty, [$rows:literal, $vectors:literal]) => {
            #[test]
            fn $test() {
                if isa() == Isa::Base {
                    return;
                }
                const COLUMNS: usize = $vectors * (32 / size_of::<$t>());
                for (steps, pitch, more) in [(1, 48, false), (2, COLUMNS, true), (37, 48, true), (37, COLUMNS, false)] {
                    // Rows that lie along memory, and steps that do.
                    for strides in [[steps + 3, 1], [1, 8]] {
                        let numbers = |n: usize| -> Vec<$t> { (0..n).map(|i| number(i) as $t).collect() };
                        let at = |row: usize, step: usize| row * strides[0] + step * strides[1];
                        let (lhs, rhs) = (numbers(at($rows - 1, steps - 1) + 1), numbers(steps * pitch));
                        let walk = Walk { lhs: lhs.as_ptr(), strides, rhs: rhs.as_ptr(), pitch, steps };
                        let mut sums = [[100.0; COLUMNS + 3]; $rows];
                        let out = Destination { at: sums.as_mut_ptr().cast(), apart: COLUMNS + 3, more };
                        // SAFETY: the last row's last number and the last step's columns are there, and rows of sums.
                        unsafe { $name(walk, out) };
                        for (row, sums) in sums.iter().enumerate() {
                            for (column, &sum) in sums.iter().enumerate() {
                                let product = |p| lhs[at(row, p)] * rhs[p * pitch + column];
                                let want = match (column < COLUMNS, more) {
                                    (true, false) => (0..steps).map(product).sum(),
                                    (true, true) => 100.0 + (0..steps).map(product).sum::<$t>(),
                                    (false, _) => 100.0,
                                };
                                assert_eq!(sum, want, "row {row}, column {column}, {steps} steps, {strides:?}");
                            }
                        }
                    }
                }
            }
        };
    }

    sums_are_those_of_loops!(sums_of_f32_are_those_of_loops, f32s, f32, [4, 3]);
    sums_are_those_of_loops!(sums_of_f64_are_those_of_loops, f64s, f64, [4, 3]);
    sums_are_those_of_loops!(sums_of_tall_tiles_are_those_of_loops, tall, f32, [6, 2]);
}
