//! Executables: what `compile` gives, one variant for each kernel of the closed set.

use kiln_ir::Kernel;
use kiln_ir::kernel::Loop;

use crate::attention::AttentionExe;
use crate::dot::DotExe;
use crate::exec::Env;
use crate::loops::LoopExe;
use crate::parts::{by_reduction, parts};
use crate::scan::ScanExe;
use crate::scatter::ScatterExe;
use crate::sort::SortExe;
use crate::task::{GRAIN, for_each};
use crate::threads;

/// A compiled kernel.
pub(crate) enum Exe {
    Loop(Box<LoopExe>),
    Dot(DotExe),
    Scatter(ScatterExe),
    Group(Vec<LoopExe>),
    Attention(Box<AttentionExe>),
    Scan(ScanExe),
    Sort(SortExe),
}

impl Exe {
    pub(crate) fn new(kernel: &Kernel) -> Exe {
        match kernel {
            Kernel::Loop(k) => match apart(k) {
                Some(loops) => Exe::Group(loops),
                None => Exe::Loop(Box::new(LoopExe::new(k))),
            },
            Kernel::Dot(k) => Exe::Dot(DotExe::new(k)),
            Kernel::Scatter(k) => Exe::Scatter(ScatterExe::new(k)),
            Kernel::Attention(k) => Exe::Attention(Box::new(AttentionExe::new(k))),
            Kernel::Scan(k) => Exe::Scan(ScanExe::new(k)),
            Kernel::Sort(k) => Exe::Sort(SortExe::new(k)),
            Kernel::Group(loops) => Exe::Group(loops.iter().map(LoopExe::new).collect()),
        }
    }

    /// A measure of the work: lanes times steps.
    pub(crate) fn work(&self) -> usize {
        match self {
            Exe::Loop(k) | Exe::Dot(DotExe::Loop(k)) => k.work(),
            Exe::Dot(DotExe::Gemm(k)) => k.work(),
            Exe::Dot(DotExe::Slim(k)) => k.work(),
            Exe::Dot(DotExe::Thin(k)) => k.work(),
            Exe::Scatter(k) => k.work(),
            Exe::Group(loops) => loops.iter().map(LoopExe::work).sum(),
            Exe::Attention(k) => k.work(),
            Exe::Scan(k) => k.work(),
            Exe::Sort(k) => k.work(),
        }
    }

    /// Bytes of memory that its tasks share while it runs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match self {
            Exe::Dot(DotExe::Gemm(k)) => k.scratch_bytes(),
            Exe::Dot(DotExe::Thin(k)) => k.scratch_bytes(),
            Exe::Attention(k) => k.scratch_bytes(),
            Exe::Scan(k) => k.scratch_bytes(),
            Exe::Loop(k) => k.scratch_bytes(),
            Exe::Dot(DotExe::Loop(_) | DotExe::Slim(_)) | Exe::Scatter(_) | Exe::Sort(_) | Exe::Group(_) => 0,
        }
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self {
            Exe::Loop(k) | Exe::Dot(DotExe::Loop(k)) => k.run(env, parallel),
            Exe::Dot(DotExe::Gemm(k)) => k.run(env, parallel),
            Exe::Dot(DotExe::Slim(k)) => k.run(env, parallel),
            Exe::Dot(DotExe::Thin(k)) => k.run(env, parallel),
            Exe::Scatter(k) => k.run(env, parallel),
            Exe::Group(loops) => run_group(loops, env, parallel),
            Exe::Attention(k) => k.run(env, parallel),
            Exe::Scan(k) => k.run(env, parallel),
            Exe::Sort(k) => k.run(env, parallel),
        }
    }
}

/// A loop as several, if that pays: parts of its space, or taps for each of its reductions.
fn apart(kernel: &Loop) -> Option<Vec<LoopExe>> {
    let lowered = |loops: Vec<Loop>| loops.iter().map(LoopExe::new).collect::<Vec<_>>();
    let in_parts = || parts(kernel).map(lowered).filter(|loops| loops.iter().all(|k| k.scratch_bytes() == 0));
    let folded = || by_reduction(kernel).map(lowered).filter(|loops| loops.iter().all(LoopExe::has_taps));
    in_parts().or_else(folded)
}

/// Loops of which one is worth several threads run one after the other, those that share out well among themselves side
/// by side.
fn run_group(loops: &[LoopExe], env: Env, parallel: bool) {
    let share = loops.iter().map(LoopExe::work).sum::<usize>() / (2 * threads::count());
    let is_large = |k: &&LoopExe| parallel && k.work() > GRAIN.max(share);
    let (large, small): (Vec<&LoopExe>, Vec<&LoopExe>) = loops.iter().partition(is_large);
    large.iter().for_each(|k| k.run(env, parallel));
    let work = small.iter().map(|k| k.work()).sum::<usize>() / small.len().max(1);
    for_each(parallel, small.len(), work, || (), |(), i| small[i].run(env, false));
}
