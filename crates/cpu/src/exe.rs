//! Executables: what `compile` gives, one variant for each kernel of the closed set.

use kiln_ir::Kernel;

use crate::attention::AttentionExe;
use crate::dot::DotExe;
use crate::exec::Env;
use crate::loops::LoopExe;
use crate::scatter::ScatterExe;

/// A compiled kernel.
pub(crate) enum Exe {
    Loop(Box<LoopExe>),
    Dot(DotExe),
    Scatter(ScatterExe),
    Attention(Box<AttentionExe>),
}

impl Exe {
    pub(crate) fn new(kernel: &Kernel) -> Exe {
        match kernel {
            Kernel::Loop(k) => Exe::Loop(Box::new(LoopExe::new(k))),
            Kernel::Dot(k) => Exe::Dot(DotExe::new(k)),
            Kernel::Scatter(k) => Exe::Scatter(ScatterExe::new(k)),
            Kernel::Attention(k) => Exe::Attention(Box::new(AttentionExe::new(k))),
            Kernel::Group(_) => unreachable!("refused by `supports`"),
        }
    }

    /// A measure of the work: lanes times steps.
    pub(crate) fn work(&self) -> usize {
        match self {
            Exe::Loop(k) | Exe::Dot(DotExe::Loop(k)) => k.work(),
            Exe::Dot(DotExe::Gemm(k)) => k.work(),
            Exe::Scatter(k) => k.work(),
            Exe::Attention(k) => k.work(),
        }
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self {
            Exe::Loop(k) | Exe::Dot(DotExe::Loop(k)) => k.run(env, parallel),
            Exe::Dot(DotExe::Gemm(k)) => k.run(env, parallel),
            Exe::Scatter(k) => k.run(env, parallel),
            Exe::Attention(k) => k.run(env, parallel),
        }
    }
}
