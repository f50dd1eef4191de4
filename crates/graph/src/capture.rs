//! Capture: what lies behind some tensors, as a plain [`Graph`] with the values of its slots.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, Movement, NodeId, Op, Result};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use crate::node::{Node, Region, Source, Value};
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
    /// Appends an op of one node that nothing recorded stands for.
    fn beside(&mut self, input: NodeId, op: Op) -> NodeId {
        let node = &self.graph.nodes[input as usize];
        let node = kiln_ir::Node { op, inputs: vec![input], ..node.clone() };
        self.nodes.push(self.nodes[input as usize].clone());
        self.graph.push(node)
    }

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
    let asked: HashSet<u64> = targets.iter().map(|t| t.id).collect();
    let mut place: HashMap<u64, NodeId> = HashMap::with_capacity_and_hasher(nodes.len(), Default::default());
    let mut wanted: Vec<bool> = Vec::with_capacity(nodes.len());
    let mut captured = Captured {
        graph: Graph::default(),
        nodes: Vec::new(),
        leaves: Vec::new(),
        scalars: Vec::new(),
        donatable: Vec::new(),
    };
    let mut stages = Stages::default();
    for node in &nodes {
        let books = node.books();
        let mut id = captured.graph.nodes.len() as NodeId;
        let (op, inputs) = match (&books.value, &node.source) {
            (Value::Ready(buffer), _) => {
                captured.leaves.push((id, buffer.clone()));
                (Op::Leaf(captured.leaves.len() as u32 - 1), Vec::new())
            }
            (_, Source::Scalar(word)) => {
                captured.scalars.push(*word);
                (Op::Scalar(captured.scalars.len() as u32 - 1), Vec::new())
            }
            (_, Source::Op(op)) => {
                let inputs: Vec<NodeId> = books.inputs.iter().map(|i| place[&i.id]).collect();
                match window(op, &books.inputs, &captured.graph, &inputs) {
                    None => (op.clone(), inputs),
                    Some((start, op)) => {
                        captured.scalars.push(start);
                        let slot = captured.scalars.len() as u32 - 1;
                        id = captured.beside(inputs[0], Op::Offset(slot)) + 1;
                        wanted.push(false);
                        (op, vec![id - 1])
                    }
                }
            }
            (_, Source::Leaf) => unreachable!("a leaf has a value, or `behind` refused it"),
        };
        drop(books);
        let location = Some(node.location);
        let stage = stages.of(node.region);
        captured.graph.push(kiln_ir::Node { op, inputs, shape: node.shape, dtype: node.dtype, location, stage });
        captured.nodes.push(node.clone());
        place.insert(node.id, id);
        wanted.push(asked.contains(&node.id));
        if node.handles() > 0 && !wanted[id as usize] {
            let base = base(&captured.graph, id);
            let is_free = |op: &Op| matches!(op, Op::Scalar(_) | Op::Const(_) | Op::Iota(_) | Op::Offset(_));
            if !is_free(&captured.graph.nodes[base as usize].op) {
                wanted[base as usize] = true;
            }
        }
    }
    let computed = |&id: &NodeId| wanted[id as usize] && !matches!(captured.graph.nodes[id as usize].op, Op::Leaf(_));
    captured.graph.outputs = (0..wanted.len() as NodeId).filter(computed).collect();
    captured.donatable = donatable(&captured);
    Ok(captured)
}

/// The first element and what is left of a slice, if it is one of a leaf: where it begins is no part of the program.
fn window(op: &Op, inputs: &[Arc<Node>], graph: &Graph, ids: &[NodeId]) -> Option<(u32, Op)> {
    let Op::View(Movement::Slice { axis, start, len, step }) = *op else { return None };
    let leaf = matches!(graph.nodes[ids[0] as usize].op, Op::Leaf(_));
    let first = start * inputs[0].shape.strides()[axis];
    let first = u32::try_from(first).ok().filter(|_| leaf && len > 0)?;
    Some((first, Op::View(Movement::Slice { axis, start: 0, len, step })))
}

/// Stages numbered by where they come in a program, so that equal programs are equal.
#[derive(Default)]
struct Stages(Vec<u64>);

impl Stages {
    fn of(&mut self, region: Region) -> u32 {
        let Region::Recomputed(stage) = region else { return 0 };
        let at = self.0.iter().position(|s| *s == stage).unwrap_or_else(|| {
            self.0.push(stage);
            self.0.len() - 1
        });
        at as u32 + 1
    }
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
        ends[id] |= match captured.graph.nodes[id].op {
            // It stands between a leaf and one view of it.
            Op::Offset(_) => ending[id] > 0,
            _ => node.handles() == 0 && node.books().uses == ending[id],
        };
        if ends[id] {
            captured.graph.nodes[id].inputs.iter().for_each(|&i| ending[i as usize] += 1);
        }
    }
    let free = |id: NodeId| captured.nodes[id as usize].handles() == 0 && ends[id as usize];
    captured.leaves.iter().map(|(id, _)| free(*id)).collect()
}
