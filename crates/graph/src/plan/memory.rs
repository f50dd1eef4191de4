//! Memory: in which buffer each root lives, and when a dead argument is written in place.

use std::collections::HashMap;

use kiln_ir::kernel::{Access, Arg, Body, Instr};
use kiln_ir::{Caps, Graph, Kernel, NodeId, Op, Slot};

use super::fuse::Unit;

/// Where the results of a plan go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Into a new buffer of this many bytes.
    Fresh(u64),
    /// Into the buffer of this leaf, which nobody else holds any more.
    Donated(u32),
}

/// The buffers of a plan.
pub(crate) struct Memory {
    /// The slot of every leaf and every stored root.
    pub(crate) slots: HashMap<NodeId, Slot>,
    /// Bytes of each temporary.
    pub(crate) temps: Vec<u64>,
    /// One per result, in the order of the graph's outputs.
    pub(crate) outputs: Vec<Output>,
}

/// Assigns slots to units in their order of execution; merges donated arguments into their kernels.
pub(crate) fn assign(graph: &Graph, units: &mut [Unit], donatable: &[bool], caps: &Caps, reuse: bool) -> Memory {
    let mut slots = HashMap::new();
    let mut leaf_of = HashMap::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::Leaf(n) = node.op {
            slots.insert(id as NodeId, Slot::Arg(n));
            leaf_of.insert(n, id as NodeId);
        }
    }
    let mut last_use: HashMap<NodeId, usize> = HashMap::new();
    for (t, unit) in units.iter().enumerate() {
        last_use.extend(unit.lowered.args.iter().map(|&id| (id, t)));
    }
    let mut outputs = vec![Output::Fresh(0); graph.outputs.len()];
    let mut spent = vec![false; donatable.len()];
    let mut temps: Vec<u64> = Vec::new();
    // For each temporary, the last unit that uses it.
    let mut busy: Vec<usize> = Vec::new();
    for (t, unit) in units.iter_mut().enumerate() {
        for id in unit.lowered.stores.clone() {
            let node = &graph.nodes[id as usize];
            let bytes = caps.bytes(node.dtype, node.shape.numel());
            if let Some(n) = graph.outputs.iter().position(|&o| o == id) {
                let candidates = || (0..donatable.len()).filter(|&l| reuse && donatable[l] && !spent[l]);
                let fits = |l: &usize| {
                    let leaf = &graph.nodes[leaf_of[&(*l as u32)] as usize];
                    leaf.dtype == node.dtype && leaf.shape.numel() == node.shape.numel()
                };
                let dead = |l: &usize| last_use.get(&leaf_of[&(*l as u32)]).is_none_or(|&last| last < t);
                let in_place = |l: &usize| {
                    let leaf = leaf_of[&(*l as u32)];
                    last_use.get(&leaf) == Some(&t) && merge(graph, unit, leaf, id)
                };
                let leaf = candidates().filter(fits).find(dead);
                let leaf = candidates().filter(fits).find(in_place).or(leaf);
                outputs[n] = match leaf {
                    Some(l) => {
                        spent[l] = true;
                        slots.insert(id, Slot::Arg(l as u32));
                        Output::Donated(l as u32)
                    }
                    None => {
                        slots.insert(id, Slot::Arg((donatable.len() + n) as u32));
                        Output::Fresh(bytes)
                    }
                };
                continue;
            }
            let free = (0..temps.len()).filter(|&s| reuse && busy[s] < t);
            let snug = free.clone().filter(|&s| temps[s] >= bytes).min_by_key(|&s| temps[s]);
            let slot = snug.or(free.max_by_key(|&s| temps[s])).unwrap_or_else(|| {
                temps.push(0);
                busy.push(0);
                temps.len() - 1
            });
            temps[slot] = temps[slot].max(bytes);
            busy[slot] = last_use.get(&id).copied().unwrap_or(t);
            slots.insert(id, Slot::Temp(slot as u32));
        }
    }
    Memory { slots, temps, outputs }
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
        // What an attention overwrites, other invocations still read; groups are made later.
        Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Group(_) => return false,
    }
    lowered.args[into as usize] = id;
    lowered.args.remove(from as usize);
    true
}

/// Stores to `from` go to `into`, and later arguments move up.
fn rename(bodies: &mut [&mut Body], args: &mut Vec<Arg>, from: u32, into: u32) {
    let moved = |arg: &mut u32| {
        *arg = if *arg == from { into } else { *arg };
        *arg -= u32::from(*arg > from);
    };
    args[into as usize].access = Access::ReadWrite;
    args.remove(from as usize);
    for body in bodies {
        for instr in &mut body.instrs {
            if let Instr::Load { arg, .. } = instr {
                moved(arg);
            }
        }
        body.stores.iter_mut().for_each(|s| moved(&mut s.arg));
    }
}
