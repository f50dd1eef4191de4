//! Contractions: operands packed into strips, multiplied in tiles of registers, finished while in cache.
//!
//! Reading order: `element` and `lie` (what is multiplied, and how it lies), `tile` (the product of strips), `pack` (how
//! strips are made), `operand` with `window`, `padded` and the crate's `panel` (where their elements come from), `cut`
//! (which tasks there are), `gemm` (how they run).
//! Windows of 3 × 3 have a schedule of their own (`winograd`).
//! A single row or column is multiplied line by line (`slim`) where lines lie so. It or a few rows are multiplied with a
//! matrix across them as it lies (`thin`). What is left, and what has nothing to sum, is a loop with a reduction.

#[cfg(target_arch = "x86_64")]
pub(crate) mod by_hand;
mod cut;
pub(crate) mod element;
mod gemm;
mod lie;
mod operand;
mod pack;
mod padded;
mod product;
mod run;
mod runs;
mod slim;
mod task;
mod thin;
mod tile;
mod window;
mod winograd;

use kiln_ir::kernel::Dot;

use self::gemm::Gemm;
use self::slim::Slim;
use self::thin::Thin;
use crate::loops::LoopExe;

/// A lowered contraction.
pub(crate) enum DotExe {
    Loop(Box<LoopExe>),
    Gemm(Box<Gemm>),
    Slim(Box<Slim>),
    Thin(Box<Thin>),
}

impl DotExe {
    pub(crate) fn new(kernel: &Dot) -> DotExe {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (m, n, k) = (numel(&kernel.m), numel(&kernel.n), numel(&kernel.k));
        let looped = || DotExe::Loop(Box::new(LoopExe::new(&kernel.as_loop())));
        if m * n * k * numel(&kernel.batch) == 0 {
            return looped();
        }
        if m > 1 && n > 1 {
            return match Thin::new(kernel) {
                Some(thin) => DotExe::Thin(Box::new(thin)),
                None => DotExe::Gemm(Box::new(Gemm::new(kernel))),
            };
        }
        if let Some(slim) = Slim::new(kernel) {
            return DotExe::Slim(Box::new(slim));
        }
        // A column is a row of the product the other way round.
        let thin = if n == 1 { Thin::new(&kernel.turned()) } else { Thin::new(kernel) };
        thin.map_or_else(looped, |thin| DotExe::Thin(Box::new(thin)))
    }
}
