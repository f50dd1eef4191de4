//! Donation: which results are written over leaves that nobody holds any more, which temporaries over others that
//! nobody reads any more, and the kernels that do so in place.
//!
//! Legal iff every other reader has run by then, and a kernel that itself reads the old value reads each element
//! where it writes the new one. Who had to run before is then an edge: packing must keep it.

use kiln_ir::kernel::{Access, Arg, Body, Instr};
use kiln_ir::{Caps, Graph, Kernel, NodeId, Op};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::fuse::Unit;
use super::order::Edges;

/// Where the results of a plan go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Into a new buffer of this many bytes.
    Fresh(u64),
    /// Into the buffer of this leaf, which nobody else holds any more.
    Donated(u32),
}

/// What is written over what.
pub(crate) struct Places {
    /// The place of each result, in the order of the graph's outputs.
    pub(crate) outputs: Vec<Output>,
    /// For each temporary that is written over another one, that one.
    pub(crate) over: HashMap<NodeId, NodeId>,
}

impl Places {
    /// Nothing over anything.
    pub(crate) fn fresh(graph: &Graph, caps: &Caps) -> Places {
        let fresh = |id: &NodeId| Output::Fresh(caps.bytes_of(&graph.nodes[*id as usize]));
        Places { outputs: graph.outputs.iter().map(fresh).collect(), over: HashMap::default() }
    }
}

/// Units are in order; those that write in place bind one argument for both, and `edges` learns who must have read
/// before.
pub(crate) fn donate(graph: &Graph, units: &mut [Unit], edges: &mut Edges, donatable: &[bool], caps: &Caps) -> Places {
    let mut readers = Readers::default();
    for (u, unit) in units.iter().enumerate() {
        unit.lowered.args.iter().for_each(|&id| readers.entry(id).or_default().push(u));
    }
    let outputs = over_leaves(graph, units, edges, donatable, caps, &readers);
    Places { outputs, over: over_temporaries(graph, units, edges, &readers) }
}

type Readers = HashMap<NodeId, Vec<usize>>;

fn over_leaves(
    graph: &Graph,
    units: &mut [Unit],
    edges: &mut Edges,
    donatable: &[bool],
    caps: &Caps,
    readers: &Readers,
) -> Vec<Output> {
    let numel = |id: NodeId| graph.nodes[id as usize].shape.numel();
    let dtype = |id: NodeId| graph.nodes[id as usize].dtype;
    let place: HashMap<NodeId, usize> = graph.outputs.iter().enumerate().map(|(n, &id)| (id, n)).collect();
    // Leaves to write over, by what fits into them; the first recorded first.
    let mut free: HashMap<_, Vec<(u32, NodeId)>> = HashMap::default();
    for (node, id) in graph.nodes.iter().zip(0..) {
        if let Op::Leaf(n) = node.op
            && donatable[n as usize]
        {
            free.entry((dtype(id), numel(id))).or_default().push((n, id));
        }
    }
    let mut outputs = Places::fresh(graph, caps).outputs;
    for (u, unit) in units.iter_mut().enumerate() {
        let is_free = |id: NodeId| matches!(graph.nodes[id as usize].op, Op::Leaf(n) if donatable[n as usize]);
        for (id, sources) in by_choice(unit, &is_free) {
            let Some(&n) = place.get(&id) else { continue };
            let Some(leaves) = free.get_mut(&(dtype(id), numel(id))) else { continue };
            let last = |leaf: &NodeId| readers.get(leaf).and_then(|r| r.last()).copied();
            let mut over = |own: bool, leaf: NodeId| {
                sources.contains(&leaf) == own && last(&leaf) == Some(u) && merge(graph, unit, leaf, id)
            };
            let own = leaves.iter().position(|&(_, leaf)| over(true, leaf));
            let in_place = own.or_else(|| leaves.iter().position(|&(_, leaf)| over(false, leaf)));
            let found = in_place.or_else(|| leaves.iter().position(|(_, leaf)| last(leaf).is_none_or(|last| last < u)));
            let Some(at) = found else { continue };
            let (slot, leaf) = leaves.remove(at);
            outputs[n] = Output::Donated(slot);
            for &reader in readers.get(&leaf).into_iter().flatten().filter(|r| **r != u) {
                edges.add(reader, u);
            }
        }
    }
    outputs
}

fn over_temporaries(
    graph: &Graph,
    units: &mut [Unit],
    edges: &mut Edges,
    readers: &Readers,
) -> HashMap<NodeId, NodeId> {
    let node = |id: NodeId| &graph.nodes[id as usize];
    let outputs: HashSet<NodeId> = graph.outputs.iter().copied().collect();
    let is_temporary = |id: NodeId| !outputs.contains(&id) && !matches!(node(id).op, Op::Leaf(_));
    let mut over = HashMap::default();
    for (u, unit) in units.iter_mut().enumerate() {
        for id in unit.lowered.stores.clone().into_iter().filter(|&id| is_temporary(id)) {
            let lowered = &unit.lowered;
            let fits = |old: &NodeId| {
                let same = (node(*old).dtype, node(*old).shape.numel()) == (node(id).dtype, node(id).shape.numel());
                let last = readers.get(old).and_then(|r| r.last()) == Some(&u);
                same && last && is_temporary(*old) && !lowered.stores.contains(old)
            };
            let olds: Vec<NodeId> = lowered.args.iter().copied().filter(fits).collect();
            let Some(old) = olds.into_iter().find(|&old| merge(graph, unit, old, id)) else { continue };
            over.insert(id, old);
            readers[&old].iter().filter(|r| **r != u).for_each(|&reader| edges.add(reader, u));
        }
    }
    over
}

/// What a unit stores and which leaves that may be written over each value is computed from. Those of fewest come first,
/// those of none last: an optimizer's moments go where they were, and the parameter, which also reads those, where it was.
fn by_choice(unit: &Unit, is_free: &dyn Fn(NodeId) -> bool) -> Vec<(NodeId, Vec<NodeId>)> {
    let lowered = &unit.lowered;
    let body = match &lowered.kernel {
        Kernel::Loop(k) => Some(&k.body),
        Kernel::Dot(k) => Some(&k.epilogue),
        Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) | Kernel::Group(_) => None,
    };
    let sources = |id: NodeId| -> Vec<NodeId> {
        let all = body.map_or_else(Vec::new, |body| sources(body, &lowered.args, id));
        all.into_iter().filter(|&id| is_free(id)).collect()
    };
    let mut found: Vec<_> = lowered.stores.iter().map(|&id| (id, sources(id))).collect();
    found.sort_by_key(|(_, sources)| if sources.is_empty() { usize::MAX } else { sources.len() });
    found
}

/// The tensors that a body computes a stored one from, each once.
fn sources(body: &Body, args: &[NodeId], id: NodeId) -> Vec<NodeId> {
    let mut needed = vec![false; body.instrs.len()];
    body.stores.iter().filter(|s| args[s.arg as usize] == id).for_each(|s| needed[s.value as usize] = true);
    let mut found = Vec::new();
    for (i, instr) in body.instrs.iter().enumerate().rev() {
        if !needed[i] {
            continue;
        }
        instr.operands().iter().for_each(|&v| needed[v as usize] = true);
        if let Instr::Load { arg, .. } = instr
            && !found.contains(&args[*arg as usize])
        {
            found.push(args[*arg as usize]);
        }
    }
    found
}

/// Turns the load of `leaf` and the store of `id` into one argument, if each load is at the stored index.
fn merge(graph: &Graph, unit: &mut Unit, leaf: NodeId, id: NodeId) -> bool {
    let lowered = &mut unit.lowered;
    let place = |id: NodeId| lowered.args.iter().position(|&a| a == id).map(|a| a as u32);
    let (Some(from), Some(into)) = (place(id), place(leaf)) else { return false };
    let stored = unit.cluster.members[&id].flatten(&graph.nodes[id as usize].shape);
    let same_place = |(read, map): &(NodeId, kiln_ir::IndexMap)| {
        *read != leaf || (map.valid.is_empty() && map.flatten(&graph.nodes[leaf as usize].shape) == stored)
    };
    if lowered.gathered.contains(&leaf) || !lowered.reads.iter().all(same_place) {
        return false;
    }
    match &mut lowered.kernel {
        Kernel::Loop(k) => rename(&mut [&mut k.body], &mut k.args, from, into),
        Kernel::Dot(k) => {
            let loads = |body: &Body| body.instrs.iter().any(|i| matches!(i, Instr::Load { arg, .. } if *arg == into));
            if loads(&k.lhs) || loads(&k.rhs) {
                return false;
            }
            rename(&mut [&mut k.lhs, &mut k.rhs, &mut k.epilogue], &mut k.args, from, into);
        }
        // What these overwrite, other invocations still read; groups are made later.
        Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) | Kernel::Group(_) => {
            return false;
        }
    }
    lowered.args[into as usize] = id;
    lowered.args.remove(from as usize);
    true
}

/// Stores to `from` go to `into`, and later arguments move up.
fn rename(bodies: &mut [&mut Body], args: &mut Vec<Arg>, from: u32, into: u32) {
    let moved = |arg: u32| {
        let arg = if arg == from { into } else { arg };
        arg - u32::from(arg > from)
    };
    args[into as usize].access = Access::ReadWrite;
    args.remove(from as usize);
    bodies.iter_mut().for_each(|body| body.map_args(&moved));
}
