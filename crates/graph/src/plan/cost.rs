//! The cost model: a roofline from the device's figures, and what it costs to start a kernel.

use kiln_ir::kernel::{Body, Instr};
use kiln_ir::{Caps, Graph, Kernel};

use super::cluster::Lowered;

/// Seconds that one more kernel of a plan costs, on the device or on the way to it: an estimate for all, since
/// backends differ less in this than workloads do.
pub(crate) const START_SECONDS: f64 = 4e-6;

/// Seconds that a kernel runs at least: its buffers once through memory, its steps at the arithmetic peak.
pub(crate) fn seconds(graph: &Graph, caps: &Caps, unit: &Lowered) -> f64 {
    let traffic: u64 = unit.args.iter().map(|&id| caps.bytes_of(&graph.nodes[id as usize])).sum();
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let steps = |body: &Body| body.instrs.iter().filter(|i| matches!(i, Instr::Op(..))).count();
    let flops = match &unit.kernel {
        Kernel::Loop(k) => numel(&k.outer) * numel(&k.row) * steps(&k.body),
        Kernel::Dot(k) => 2 * numel(&k.batch) * numel(&k.m) * numel(&k.n) * numel(&k.k),
        // Nobody weighs these against each other.
        Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) | Kernel::Group(_) => 0,
    };
    (traffic as f64 / caps.bandwidth).max(flops as f64 / caps.flops)
}
