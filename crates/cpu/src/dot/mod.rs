//! Contractions: operands packed into strips, multiplied in tiles of registers, finished while in cache.
//!
//! Reading order: `tile` (the product of packed strips), `pack` (how strips lie), `operand` with `window`, `padded`
//! and the crate's `panel` (where their elements come from), `cut` (which tasks there are), `gemm` (how they run).
//! With a single row or column, or nothing to sum, the contraction is a loop with a reduction.

mod cut;
mod gemm;
mod operand;
mod pack;
mod padded;
mod tile;
mod window;

use kiln_ir::kernel::Dot;

use self::gemm::Gemm;
use crate::loops::LoopExe;

/// A lowered contraction.
pub(crate) enum DotExe {
    Loop(Box<LoopExe>),
    Gemm(Box<Gemm>),
}

impl DotExe {
    pub(crate) fn new(kernel: &Dot) -> DotExe {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (m, n, k) = (numel(&kernel.m), numel(&kernel.n), numel(&kernel.k));
        if m <= 1 || n <= 1 || k == 0 || numel(&kernel.batch) == 0 {
            DotExe::Loop(Box::new(LoopExe::new(&kernel.as_loop())))
        } else {
            DotExe::Gemm(Box::new(Gemm::new(kernel)))
        }
    }
}
