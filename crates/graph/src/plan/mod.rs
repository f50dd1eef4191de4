//! Planning: from a graph to kernels, buffers and an order. Pure: the same graph, the same plan.
//!
//! Reading order: `anchors` (what the device lacks, composed), `split` (long sums in parts), `roots` (what gets a buffer), `emit` (a formula becomes code, views become
//! addresses), `cluster` (roots become a kernel), `fit` and `fuse` (clusters join), `memory`.

mod anchors;
mod cluster;
mod emit;
mod fit;
mod fuse;
mod memory;
mod roots;
mod split;
mod text;

use std::collections::HashMap;

use kiln_ir::kernel::Access;
use kiln_ir::{Caps, Graph, Kernel, NodeId, Reject, Slot};

pub use memory::Output;
pub(crate) use roots::base;

use cluster::Scope;
use fuse::{Fusion, Unit};

/// Knobs for tests and for looking inside; the default is what users get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanOptions {
    /// Compute several nodes in one kernel.
    pub fuse: bool,
    /// Let temporaries share memory, and results take over dead leaves.
    pub reuse: bool,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { fuse: true, reuse: true }
    }
}

/// One kernel of a plan with what it binds.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// What runs.
    pub kernel: Kernel,
    /// One slot per argument.
    pub binds: Vec<(Slot, Access)>,
    /// The slot of the program behind each scalar of the kernel.
    pub scalars: Vec<u32>,
    /// The node behind each argument.
    pub args: Vec<NodeId>,
    /// The nodes that it stores.
    pub stores: Vec<NodeId>,
    /// A name for people.
    pub name: String,
}

/// A whole program, ready to be compiled and recorded.
///
/// Arguments are the leaves, then one per result; a donated result uses its leaf's.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph that it computes: the one it was made of, with long sums in parts.
    pub graph: Graph,
    /// Kernels in order.
    pub steps: Vec<PlanStep>,
    /// Bytes of each temporary.
    pub temps: Vec<u64>,
    /// Where each result goes.
    pub outputs: Vec<Output>,
    /// Bytes of leaves, results and temporaries together.
    pub peak_bytes: u64,
    /// Why neighbours did not fuse.
    pub notes: Vec<String>,
}

/// Plans a graph for a device. `donatable` says of each leaf whether its buffer may be overwritten.
///
/// # Errors
/// If the device cannot run some op at all: a tensor larger than it binds, say.
///
/// # Panics
/// If an output is a leaf.
pub fn plan(
    graph: &Graph,
    donatable: &[bool],
    caps: &Caps,
    supports: &dyn Fn(&Kernel) -> Result<(), Reject>,
    options: PlanOptions,
) -> kiln_ir::Result<Plan> {
    if cfg!(debug_assertions)
        && let Err(why) = kiln_ir::verify(graph)
    {
        panic!("plan: {why}");
    }
    let composed = {
        let roots = roots::roots(graph, caps.max_bindings, options.fuse);
        anchors::decompose(&Scope { graph, roots: &roots, caps, supports })
    };
    let split = split::split(composed.as_ref().unwrap_or(graph), caps);
    let graph = &split;
    let live = roots::live(graph);
    let roots = roots::roots(graph, caps.max_bindings, options.fuse);
    let scope = Scope { graph, roots: &roots, caps, supports };
    let mut fusion = Fusion::new(&scope, &live)?;
    if options.fuse {
        fusion.run();
    }
    let (units, notes) = fusion.finish();
    let mut units = in_order(units);
    let memory = memory::assign(graph, &mut units, donatable, caps, options.reuse);
    let steps: Vec<PlanStep> = units.into_iter().map(|unit| step(graph, unit, &memory.slots)).collect();
    let fresh = |o: &Output| if let Output::Fresh(bytes) = o { *bytes } else { 0 };
    let leaves = graph.nodes.iter().filter(|n| matches!(n.op, kiln_ir::Op::Leaf(_)));
    let peak_bytes = leaves.map(|n| caps.bytes(n.dtype, n.shape.numel())).sum::<u64>()
        + memory.outputs.iter().map(fresh).sum::<u64>()
        + memory.temps.iter().sum::<u64>();
    Ok(Plan { graph: split, steps, temps: memory.temps, outputs: memory.outputs, peak_bytes, notes })
}

fn step(graph: &Graph, unit: Unit, slots: &HashMap<NodeId, Slot>) -> PlanStep {
    let lowered = unit.lowered;
    let access = lowered.kernel.args().iter().map(|a| a.access);
    let binds = lowered.args.iter().map(|id| slots[id]).zip(access).collect();
    let name = text::name(graph, &lowered);
    let (args, stores) = (lowered.args, lowered.stores);
    PlanStep { kernel: lowered.kernel, binds, scalars: lowered.scalars, args, stores, name }
}

/// Units so that each comes after those it reads from, otherwise as recorded.
fn in_order(units: Vec<Unit>) -> Vec<Unit> {
    let mut home = HashMap::new();
    for (u, unit) in units.iter().enumerate() {
        home.extend(unit.lowered.stores.iter().map(|&id| (id, u)));
    }
    let producers = |u: usize| -> Vec<usize> {
        units[u].lowered.args.iter().filter_map(|id| home.get(id).copied()).filter(|&p| p != u).collect()
    };
    let mut waits: Vec<usize> = Vec::with_capacity(units.len());
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
    for u in 0..units.len() {
        let before = producers(u);
        waits.push(before.len());
        before.into_iter().for_each(|p| readers[p].push(u));
    }
    let first = |u: usize| units[u].cluster.ids()[0];
    let mut ready: std::collections::BTreeSet<(NodeId, usize)> =
        (0..units.len()).filter(|&u| waits[u] == 0).map(|u| (first(u), u)).collect();
    let mut order = Vec::with_capacity(units.len());
    while let Some((_, u)) = ready.pop_first() {
        order.push(u);
        for &r in &readers[u] {
            waits[r] -= 1;
            if waits[r] == 0 {
                ready.insert((first(r), r));
            }
        }
    }
    assert_eq!(order.len(), units.len(), "plan: kernels depend on each other in a circle");
    let mut units: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
    order.into_iter().map(|u| units[u].take().expect("each unit comes once")).collect()
}
