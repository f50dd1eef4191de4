//! Contractions: matrices where they lie or in panels, multiplied by `gemm`, finished while in cache.
//!
//! The result is cut into blocks, and a long inner dim into groups whose sums are added in order, by
//! sizes that follow from the kernel alone. An operand that is already a matrix in memory is used
//! in place. Any other body (a window view, a conversion) is evaluated into panels: block by block if each
//! panel then serves once, whole beforehand if several blocks need it. With a single row or column,
//! or nothing to sum, the contraction is a loop with a reduction.

use kiln_ir::kernel::Dot;

use crate::gemm::Gemm;
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
