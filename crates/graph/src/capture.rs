//! Capture: what lies behind some tensors, as a program with all that fills it for one run.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, NodeId, Op, Result};

use crate::Device;
use crate::behind::derive;
use crate::known::{Filling, Known};
use crate::node::{Node, Region};
use crate::turn::Turn;

/// How often a capture begins anew because other threads compute what it looks at.
const TRIES: usize = 1000;

/// A program and everything that a run of it needs.
pub(crate) struct Captured {
    pub(crate) known: Arc<Known>,
    pub(crate) filling: Filling,
}

/// Everything that is not computed behind the targets. Outputs are the targets, and whatever else on
/// the way a handle still names; a live view asks for what it views. The turn lasts until these are computed.
///
/// # Errors
/// If a value on the way failed to be computed before.
///
/// # Panics
/// If a value on the way was released and cannot be computed again.
pub(crate) fn capture(device: &Device, targets: &[Arc<Node>], _turn: &Turn) -> Result<Captured> {
    // Marks on nodes tell what was met: one capture of a device at a time.
    let mut programs = device.programs();
    for _ in 0..TRIES {
        if let Some((known, filling)) = programs.recognise(targets) {
            return Ok(Captured { known, filling });
        }
        let walk = programs.next_walk();
        programs.learn(derive(targets, walk)?);
    }
    unreachable!("a program fits what it was derived from, unless other threads compute that")
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.filling.clear();
    }
}

impl Captured {
    /// Leaves its lists to the next program that is captured.
    pub(crate) fn leave(mut self, device: &Device) {
        self.filling.clear();
        device.programs().spare = std::mem::take(&mut self.filling);
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.known.graph
    }

    /// The recorded node of an entry; the leaf, where a window into one begins.
    pub(crate) fn node(&self, id: NodeId) -> &Arc<Node> {
        self.filling.nodes[id as usize].as_ref().expect("every place is filled")
    }

    /// The recorded nodes of all entries; a leaf that a window begins in comes once more.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.filling.nodes.iter().flatten()
    }

    /// The entry of a node that is one.
    pub(crate) fn entry_of(&self, node: &Node) -> NodeId {
        let is_it = |(n, step): (&Arc<Node>, &kiln_ir::Node)| n.id == node.id && !matches!(step.op, Op::Offset(_));
        let mut entries = self.nodes().zip(&self.graph().nodes);
        entries.position(is_it).expect("it was captured") as NodeId
    }

    /// The recorded nodes that the program computes.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.graph().outputs.iter().map(|&o| self.node(o))
    }

    /// Takes the results out of the arguments, each with its recorded node.
    pub(crate) fn take_results(&mut self) -> Vec<(Arc<Node>, Buffer)> {
        let Captured { known, filling: Filling { nodes, args, .. } } = self;
        let nodes = known.graph.outputs.iter().filter_map(|&o| nodes[o as usize].clone());
        nodes.zip(args.drain(known.leaves.len()..)).collect()
    }

    /// The recorded node of each leaf, in the order of the leaf slots.
    pub(crate) fn leaf_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.known.leaves.iter().map(|&leaf| self.node(leaf))
    }

    /// The slot that says where a window into a leaf begins, the recorded node of the window, and that of the leaf.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (u32, &Arc<Node>, &Arc<Node>)> {
        // The window comes right behind the entry that begins it.
        self.graph().nodes.iter().zip(0..).filter_map(|(step, id)| match step.op {
            Op::Offset(n) => Some((n, self.node(id + 1), self.node(id))),
            _ => None,
        })
    }

    /// For each entry which checkpoint recorded it, in the order in which they come: 1, 2 and so on, 0 for none.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = usize> {
        let mut met: Vec<u64> = Vec::new();
        self.nodes().zip(&self.graph().nodes).map(move |(node, step)| {
            let (Region::Checkpoint(number), false) = (node.region, matches!(step.op, Op::Leaf(_))) else {
                return 0;
            };
            let at = met.iter().position(|m| *m == number).unwrap_or(met.len());
            if at == met.len() {
                met.push(number);
            }
            at + 1
        })
    }

    /// The slot and the recorded node of each scalar.
    pub(crate) fn scalar_nodes(&self) -> impl Iterator<Item = (u32, &Arc<Node>)> {
        let slots = self.nodes().zip(&self.graph().nodes);
        slots.filter_map(|(node, step)| if let Op::Scalar(n) = step.op { Some((n, node)) } else { None })
    }
}
