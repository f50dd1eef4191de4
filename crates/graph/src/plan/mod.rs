//! Planning: from a graph to kernels, buffers and an order. Pure: the same graph, the same plan.
//!
//! Reading order: `linear` (affine maps taken apart), `anchors` (what the device lacks, composed), `formulas` (wide ones
//! apart), `exchange` (products that are wanted turned), `layouts` (in a contraction's order), `split` (long sums in
//! parts), `roots` (what gets a buffer) with `windows` (what these see often) and `finished` (what becomes of products),
//! `emit` (a formula becomes code, views become addresses), `cluster` (roots become a kernel), `fit` and `fuse` (clusters
//! join), `order`, `donate` (results in place of leaves), `pack` (small loops share a dispatch), `memory`.

mod anchors;
mod chunks;
mod cluster;
mod cost;
mod donate;
mod emit;
mod exchange;
mod finished;
mod fit;
#[cfg(test)]
mod fixture;
mod formulas;
mod fuse;
mod layouts;
mod linear;
mod memory;
mod order;
mod pack;
mod roots;
mod split;
mod text;
mod windows;

use kiln_ir::kernel::Access;
use kiln_ir::{Caps, Error, ErrorKind, Graph, Kernel, NodeId, Reject, Slot};
use rustc_hash::FxHashMap as HashMap;

pub use donate::Output;

use cluster::{Lowered, Scope};
use donate::Places;
use fuse::{Fusion, Unit};
use order::{Edges, permuted};

/// Knobs for tests and for looking inside; the default is what users get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanOptions {
    /// Compute several nodes in one kernel, and small independent kernels in one.
    pub fuse: bool,
    /// Let temporaries share memory, and results take over dead leaves.
    pub reuse: bool,
    /// Say of any two neighbours why they are one kernel or two.
    pub notes: bool,
    /// Fill a temporary with NaN as soon as nothing reads it any more. Kernels then run one by one.
    pub poison: bool,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { fuse: true, reuse: true, notes: false, poison: false }
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
    pub(crate) peak_bytes: u64,
    pub(crate) least_bytes: u64,
    /// What joined and how, and why other neighbours did not; empty unless asked for.
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
    let apart = linear::apart(graph);
    let graph = apart.as_ref().unwrap_or(graph);
    let composed = anchors::decompose(graph, caps, supports, options.fuse);
    let graph = composed.as_ref().unwrap_or(graph);
    let narrow = formulas::split(graph, caps);
    let graph = narrow.as_ref().unwrap_or(graph);
    let exchanged = exchange::exchange(graph);
    let graph = exchanged.as_ref().unwrap_or(graph);
    let lying = layouts::follow(graph);
    let split = split::split(lying.as_ref().unwrap_or(graph), caps);
    let graph = &split;
    let live = roots::live(graph);
    let roots = roots::roots(graph, caps, options.fuse);
    let scope = Scope { graph, roots: &roots, caps, supports };
    let mut fusion = Fusion::new(&scope, &live)?;
    if options.fuse {
        fusion.run();
    }
    let notes = if options.notes { fusion.story() } else { Vec::new() };
    let units = fusion.finish();
    let (units, places) = scheduled(&scope, units, donatable, options);
    let memory = memory::assign(graph, &units, donatable.len(), &places, caps, options.reuse);
    let fresh = |o: &Output| if let Output::Fresh(bytes) = o { *bytes } else { 0 };
    let leaves = graph.nodes.iter().filter(|n| matches!(n.op, kiln_ir::Op::Leaf(_)));
    let args = leaves.map(|n| caps.bytes_of(n)).sum::<u64>() + places.outputs.iter().map(fresh).sum::<u64>();
    let steps = units.into_iter().map(|unit| step(graph, unit, &memory.slots)).collect();
    let (peak_bytes, least_bytes) = (args + memory.temps.iter().sum::<u64>(), args + memory.least_temps);
    Ok(Plan { graph: split, steps, temps: memory.temps, outputs: places.outputs, peak_bytes, least_bytes, notes })
}

impl Plan {
    /// Bytes of leaves, results and temporaries together: known before anything runs.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// What leaves, results and the temporaries that live at once take at least, however they are placed.
    pub fn least_bytes(&self) -> u64 {
        self.least_bytes
    }

    /// True iff some result is written over a leaf.
    pub(crate) fn overwrites(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Donated(_)))
    }

    /// Refuses a plan that a device with this budget must not run.
    ///
    /// # Errors
    /// The largest tensors, and where they come from, if they take more.
    pub(crate) fn within(&self, budget: u64, caps: &Caps) -> kiln_ir::Result<()> {
        if self.peak_bytes <= budget { Ok(()) } else { Err(self.over(budget, caps)) }
    }

    fn over(&self, budget: u64, caps: &Caps) -> Error {
        const SHOWN: usize = 5;
        let mut ids: Vec<NodeId> = self.steps.iter().flat_map(|s| s.args.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.sort_by_key(|&id| std::cmp::Reverse(caps.bytes_of(&self.graph.nodes[id as usize])));
        let show = |id: &NodeId| {
            let node = &self.graph.nodes[*id as usize];
            let (size, at) = (text::size(caps.bytes_of(node)), node.place());
            format!("{} {}{}, {size}{at}", node.op.name(), node.dtype, node.shape)
        };
        let largest: Vec<String> = ids.iter().take(SHOWN).map(show).collect();
        let message = format!(
            "a program of {} kernels takes {}, and {} may use {}; largest: {}",
            self.steps.len(),
            text::size(self.peak_bytes),
            caps.name,
            text::size(budget),
            largest.join("; ")
        );
        Error::new(ErrorKind::OutOfMemory, message)
    }
}

/// Units in the order of execution, results in their places.
fn scheduled(scope: &Scope, units: Vec<Unit>, donatable: &[bool], options: PlanOptions) -> (Vec<Lowered>, Places) {
    let order = Edges::of(units.iter().map(|u| &u.lowered)).sorted(|u| units[u].cluster.first());
    let mut units = permuted(units, &order);
    let mut edges = Edges::of(units.iter().map(|u| &u.lowered));
    let places = match options.reuse {
        true => donate::donate(scope.graph, &mut units, &mut edges, donatable, scope.caps),
        false => Places::fresh(scope.graph, scope.caps),
    };
    let first: Vec<NodeId> = units.iter().map(|u| u.cluster.first()).collect();
    let units: Vec<Lowered> = units.into_iter().map(|u| u.lowered).collect();
    if !options.fuse {
        return (units, places);
    }
    let (units, place) = pack::pack(scope, units, &edges);
    let (edges, first) = (edges.joined(&place, units.len()), order::least(&first, &place, units.len()));
    let order = edges.sorted(|u| first[u]);
    (permuted(units, &order), places)
}

fn step(graph: &Graph, lowered: Lowered, slots: &HashMap<NodeId, Slot>) -> PlanStep {
    let access = lowered.kernel.args().iter().map(|a| a.access);
    let binds = lowered.args.iter().map(|id| slots[id]).zip(access).collect();
    let name = text::name(graph, &lowered);
    let (args, stores) = (lowered.args, lowered.stores);
    PlanStep { kernel: lowered.kernel, binds, scalars: lowered.scalars, args, stores, name }
}
