//! What all cores of the machine's processor can do at most, measured without Kiln: copies and multiply-adds.

use std::hint::black_box;
use std::thread;

use kiln::Result;
use kiln::prelude::*;
use pulp::{Arch, Simd, WithSimd};

use crate::Case;

/// A copy of 128 MiB, more than caches hold; bytes read and bytes written both count.
///
/// # Errors
/// None; a row may have some.
pub fn copy(_: &Device) -> Result<Case> {
    const BYTES: usize = 128 << 20;
    let (from, mut to) = (vec![1u8; BYTES], vec![2u8; BYTES]);
    let part = BYTES.div_ceil(n_cores());
    Ok(Case::new(2.0 * BYTES as f64 / 1e9, "GB/s", move || {
        thread::scope(|scope| {
            for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        black_box(&to);
        Ok(())
    }))
}

/// Chains of `f32` multiply-adds in registers, with the widest vectors that there are.
///
/// # Errors
/// None; a row may have some.
pub fn fma(_: &Device) -> Result<Case> {
    let n_cores = n_cores();
    let lanes = Arch::new().dispatch(Chains { n_rounds: 0 }).1;
    let work = (n_cores * N_ROUNDS * N_CHAINS * lanes * 2) as f64 / 1e9;
    Ok(Case::new(work, "GFLOP/s", move || {
        thread::scope(|scope| {
            for _ in 0..n_cores {
                scope.spawn(|| black_box(Arch::new().dispatch(Chains { n_rounds: black_box(N_ROUNDS) })));
            }
        });
        Ok(())
    }))
}

fn n_cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// Enough to hide the start of a thread.
const N_ROUNDS: usize = 1 << 20;

/// Two units with a latency of 4 or 5 need 10 in flight; with the two factors 16 registers suffice.
const N_CHAINS: usize = 12;

struct Chains {
    n_rounds: usize,
}

impl WithSimd for Chains {
    /// A sum that depends on every chain, and the lanes of a vector.
    type Output = (f32, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, usize) {
        let (factor, term) = (simd.splat_f32s(0.999), simd.splat_f32s(0.001));
        let mut chains = [simd.splat_f32s(0.5); N_CHAINS];
        for _ in 0..self.n_rounds {
            for chain in &mut chains {
                *chain = simd.mul_add_e_f32s(*chain, factor, term);
            }
        }
        (chains.iter().map(|chain| simd.reduce_sum_f32s(*chain)).sum(), S::F32_LANES)
    }
}
