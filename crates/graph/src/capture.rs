//! Capture: what lies behind some tensors, as a plain [`Graph`] with the values of its slots.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, NodeId, Op, Result};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use crate::node::{Node, Source, Value};
use crate::plan::base;

/// A program and everything that a run of it needs.
pub(crate) struct Captured {
    pub(crate) graph: Graph,
    /// The recorded node behind each node of the graph.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Each leaf's node and buffer, in the order of the leaf slots.
    pub(crate) leaves: Vec<(NodeId, Buffer)>,
    /// The word of each scalar slot.
    pub(crate) scalars: Vec<u32>,
    /// Which leaves nobody wants any more once the outputs are computed.
    pub(crate) donatable: Vec<bool>,
}

impl Captured {
    /// The recorded nodes that the program computes.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.graph.outputs.iter().map(|&o| &self.nodes[o as usize])
    }
}

/// Everything that is not computed behind the targets. Outputs are the targets, and whatever else on
/// the way a handle still names; a live view asks for what it views.
///
/// # Errors
/// If a value on the way failed to be computed before.
///
/// # Panics
/// If a value on the way was released and cannot be computed again.
pub(crate) fn capture(targets: &[Arc<Node>]) -> Result<Captured> {
    let nodes = behind(targets)?;
    let place: HashMap<u64, NodeId> = nodes.iter().zip(0..).map(|(n, i)| (n.id, i)).collect();
    let mut wanted = vec![false; nodes.len()];
    targets.iter().for_each(|t| wanted[place[&t.id] as usize] = true);
    let mut captured = Captured {
        graph: Graph::default(),
        nodes: Vec::new(),
        leaves: Vec::new(),
        scalars: Vec::new(),
        donatable: Vec::new(),
    };
    for (node, id) in nodes.iter().zip(0..) {
        let books = node.books();
        let (op, inputs) = match (&books.value, &node.source) {
            (Value::Ready(buffer), _) => {
                captured.leaves.push((id, buffer.clone()));
                (Op::Leaf(captured.leaves.len() as u32 - 1), Vec::new())
            }
            (_, Source::Scalar(word)) => {
                captured.scalars.push(*word);
                (Op::Scalar(captured.scalars.len() as u32 - 1), Vec::new())
            }
            (_, Source::Op(op)) => (op.clone(), books.inputs.iter().map(|i| place[&i.id]).collect()),
            (_, Source::Leaf) => unreachable!("a leaf has a value, or `behind` refused it"),
        };
        drop(books);
        let location = Some(node.location);
        captured.graph.push(kiln_ir::Node { op, inputs, shape: node.shape, dtype: node.dtype, location });
        if node.handles() > 0 && !wanted[id as usize] {
            let base = base(&captured.graph, id);
            if !matches!(captured.graph.nodes[base as usize].op, Op::Scalar(_) | Op::Const(_) | Op::Iota(_)) {
                wanted[base as usize] = true;
            }
        }
    }
    let computed = |&id: &NodeId| wanted[id as usize] && !matches!(captured.graph.nodes[id as usize].op, Op::Leaf(_));
    captured.graph.outputs = (0..nodes.len() as NodeId).filter(computed).collect();
    captured.nodes = nodes;
    captured.donatable = donatable(&captured);
    Ok(captured)
}

/// The targets and what they are computed from, down to values that exist; in recorded order.
fn behind(targets: &[Arc<Node>]) -> Result<Vec<Arc<Node>>> {
    let mut seen: HashSet<u64> = targets.iter().map(|t| t.id).collect();
    let mut stack: Vec<Arc<Node>> = targets.to_vec();
    let mut found = Vec::new();
    while let Some(node) = stack.pop() {
        let books = node.books();
        match &books.value {
            Value::Failed(error) => return Err(error.clone()),
            Value::Gone => {
                // A panic that holds the books would leave them locked for those who unwind.
                drop(books);
                panic!(
                    "the value recorded at {} was overwritten or released when its last handle went; keep a clone of it",
                    node.location
                );
            }
            Value::Pending => stack.extend(books.inputs.iter().filter(|i| seen.insert(i.id)).cloned()),
            Value::Ready(_) => {}
        }
        drop(books);
        found.push(node);
    }
    found.sort_unstable_by_key(|n| n.id);
    Ok(found)
}

/// A leaf may be overwritten iff no handle names it and every claim on it ends with this program.
fn donatable(captured: &Captured) -> Vec<bool> {
    let n = captured.nodes.len();
    let mut ending = vec![0usize; n];
    let mut ends = vec![false; n];
    for &o in &captured.graph.outputs {
        ends[o as usize] = true;
    }
    for id in (0..n).rev() {
        let node = &captured.nodes[id];
        ends[id] |= node.handles() == 0 && node.books().uses == ending[id];
        if ends[id] {
            captured.graph.nodes[id].inputs.iter().for_each(|&i| ending[i as usize] += 1);
        }
    }
    let free = |id: NodeId| captured.nodes[id as usize].handles() == 0 && ends[id as usize];
    captured.leaves.iter().map(|(id, _)| free(*id)).collect()
}
