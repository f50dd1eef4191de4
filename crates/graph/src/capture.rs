//! Capture: what lies behind some tensors, as a program with the values of its slots.
//!
//! A program is a list of entries over recorded nodes. It can be hashed and compared as it is; only one that is
//! new becomes a [`Graph`], since most steps of a loop are not.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kiln_ir::{Buffer, Graph, Movement, NodeId, Op, Result};
use rustc_hash::FxHasher;

use crate::cache::{hash_op, same_op};
use crate::node::{Node, Region, Source, Value};

/// A program and everything that a run of it needs.
#[derive(Default)]
pub(crate) struct Captured {
    entries: Vec<Entry>,
    /// The inputs of all entries, one after the other.
    inputs: Vec<NodeId>,
    /// The wanted entries, ascending.
    pub(crate) outputs: Vec<NodeId>,
    /// Each leaf's entry and buffer, in the order of the leaf slots.
    pub(crate) leaves: Vec<(NodeId, Buffer)>,
    /// The word of each scalar slot.
    pub(crate) scalars: Vec<u32>,
    /// Which leaves nobody wants any more once the outputs are computed.
    pub(crate) donatable: Vec<bool>,
}

/// One node of the program.
struct Entry {
    /// What was recorded.
    node: Arc<Node>,
    kind: Kind,
    /// Where its inputs end in the list of all.
    end: u32,
    stage: u32,
}

/// What an entry computes.
enum Kind {
    /// The n-th leaf.
    Leaf(u32),
    /// The n-th scalar.
    Scalar(u32),
    /// The entry's node, a leaf, from an element on that the n-th scalar names.
    Offset(u32),
    /// Another view than the one recorded, since its input begins elsewhere.
    View(Movement),
    /// What the node says.
    Recorded,
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
    let Some(first) = targets.first() else { return Ok(Captured::default()) };
    // Marks on nodes tell what was met: one capture of a device at a time.
    let mut marks = first.device.marks();
    // A mark of four billion captures ago is no danger.
    *marks = marks.wrapping_add(1).max(1);
    let walk = *marks;
    let nodes = behind(targets, walk)?;
    let mut captured = Captured {
        entries: Vec::with_capacity(nodes.len() + 4),
        inputs: Vec::with_capacity(3 * nodes.len()),
        ..Captured::default()
    };
    let mut wanted: Vec<bool> = Vec::with_capacity(nodes.len() + 4);
    let mut stages = Stages::default();
    for node in nodes {
        let books = node.books();
        let kind = match (&books.value, &node.source) {
            (Value::Ready(buffer), _) => {
                captured.leaves.push((captured.entries.len() as NodeId, buffer.clone()));
                Kind::Leaf(captured.leaves.len() as u32 - 1)
            }
            (_, Source::Scalar { word, .. }) => {
                captured.scalars.push(*word);
                Kind::Scalar(captured.scalars.len() as u32 - 1)
            }
            (_, Source::Op(op)) => match captured.window(op, &books.inputs) {
                None => {
                    let place = |input: &Arc<Node>| input.mark().1;
                    captured.inputs.extend(books.inputs.iter().map(place));
                    Kind::Recorded
                }
                Some((start, movement)) => {
                    captured.scalars.push(start);
                    let leaf = books.inputs[0].mark().1;
                    let beside = captured.entries[leaf as usize].node.clone();
                    captured.inputs.push(leaf);
                    captured.push(beside, Kind::Offset(captured.scalars.len() as u32 - 1), 0);
                    wanted.push(false);
                    captured.inputs.push(captured.entries.len() as NodeId - 1);
                    Kind::View(movement)
                }
            },
            (_, Source::Leaf) => unreachable!("a leaf has a value, or `behind` refused it"),
        };
        let id = captured.entries.len() as NodeId;
        // The targets were met first, and have no place yet.
        drop(books);
        let asked = node.mark().1 == TARGET;
        node.set_mark(walk, id);
        let live = node.handles() > 0 && !asked;
        let stage = stages.of(node.region);
        captured.push(node, kind, stage);
        wanted.push(asked);
        if live {
            let base = captured.base(id);
            let is_free =
                captured.op(base, |op| matches!(op, Op::Scalar(_) | Op::Const(_) | Op::Iota(_) | Op::Offset(_)));
            wanted[base as usize] |= !is_free;
        }
    }
    let computed = |&id: &NodeId| wanted[id as usize] && !matches!(captured.entries[id as usize].kind, Kind::Leaf(_));
    captured.outputs = (0..wanted.len() as NodeId).filter(computed).collect();
    captured.donatable = captured.donatable();
    Ok(captured)
}

/// The place of a target that has none yet, and of everything else.
const TARGET: NodeId = NodeId::MAX;
const NOWHERE: NodeId = NodeId::MAX - 1;

/// The targets and what they are computed from, down to values that exist; in recorded order.
fn behind(targets: &[Arc<Node>], walk: u32) -> Result<Vec<Arc<Node>>> {
    let met = |node: &Arc<Node>, place: NodeId| {
        let first = node.mark().0 != walk;
        if first {
            node.set_mark(walk, place);
        }
        first
    };
    let mut stack: Vec<Arc<Node>> = targets.iter().filter(|t| met(t, TARGET)).cloned().collect();
    let mut found = Vec::with_capacity(128);
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
            Value::Pending => stack.extend(books.inputs.iter().filter(|i| met(i, NOWHERE)).cloned()),
            Value::Ready(_) => {}
        }
        drop(books);
        found.push(node);
    }
    found.sort_unstable_by_key(|n| n.id);
    Ok(found)
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

impl Captured {
    fn push(&mut self, node: Arc<Node>, kind: Kind, stage: u32) {
        self.entries.push(Entry { node, kind, end: self.inputs.len() as u32, stage });
    }

    /// The recorded node of an entry.
    pub(crate) fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.entries[id as usize].node
    }

    /// The recorded nodes that the program computes.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.outputs.iter().map(|&o| self.node(o))
    }

    /// The recorded nodes of all entries; a leaf that a window begins in comes once more.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.entries.iter().map(|e| &e.node)
    }

    /// The slot and the recorded node of each scalar.
    pub(crate) fn scalar_nodes(&self) -> impl Iterator<Item = (u32, &Arc<Node>)> {
        self.entries.iter().filter_map(|e| if let Kind::Scalar(n) = e.kind { Some((n, &e.node)) } else { None })
    }

    fn inputs(&self, id: NodeId) -> &[NodeId] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.entries[id - 1].end };
        &self.inputs[start as usize..self.entries[id].end as usize]
    }

    /// Calls `f` with what an entry computes.
    fn op<R>(&self, id: NodeId, f: impl FnOnce(&Op) -> R) -> R {
        let entry = &self.entries[id as usize];
        match (&entry.kind, &entry.node.source) {
            (Kind::Leaf(n), _) => f(&Op::Leaf(*n)),
            (Kind::Scalar(n), _) => f(&Op::Scalar(*n)),
            (Kind::Offset(n), _) => f(&Op::Offset(*n)),
            (Kind::View(movement), _) => f(&Op::View(movement.clone())),
            (Kind::Recorded, Source::Op(op)) => f(op),
            (Kind::Recorded, Source::Leaf | Source::Scalar { .. }) => unreachable!("these have kinds of their own"),
        }
    }

    /// The first entry behind views.
    fn base(&self, mut id: NodeId) -> NodeId {
        while self.op(id, |op| matches!(op, Op::View(_))) {
            id = self.inputs(id)[0];
        }
        id
    }

    /// The first element and what is left of a slice, if it is one of a leaf: where it begins is no part of the
    /// program.
    fn window(&self, op: &Op, inputs: &[Arc<Node>]) -> Option<(u32, Movement)> {
        let Op::View(Movement::Slice { axis, start, len, step }) = *op else { return None };
        let place = inputs[0].mark().1;
        let leaf = matches!(self.entries[place as usize].kind, Kind::Leaf(_));
        let stride: usize = inputs[0].shape[axis + 1..].iter().product();
        let first = u32::try_from(start * stride).ok().filter(|_| leaf && len > 0)?;
        Some((first, Movement::Slice { axis, start: 0, len, step }))
    }

    /// A leaf may be overwritten iff no handle names it and every claim on it ends with this program.
    fn donatable(&self) -> Vec<bool> {
        let n = self.entries.len();
        let mut ending = vec![0usize; n];
        let mut ends = vec![false; n];
        for &o in &self.outputs {
            ends[o as usize] = true;
        }
        for id in (0..n).rev() {
            let Entry { node, kind, .. } = &self.entries[id];
            ends[id] |= match kind {
                // It stands between a leaf and one view of it.
                Kind::Offset(_) => ending[id] > 0,
                _ => node.handles() == 0 && node.uses() == ending[id],
            };
            if ends[id] {
                self.inputs(id as NodeId).iter().for_each(|&i| ending[i as usize] += 1);
            }
        }
        let free = |id: NodeId| self.node(id).handles() == 0 && ends[id as usize];
        self.leaves.iter().map(|(id, _)| free(*id)).collect()
    }

    /// The hash of what a plan depends on; [`Captured::is`] tells what it has in common with others.
    pub(crate) fn key(&self) -> u64 {
        let mut h = FxHasher::default();
        for (entry, id) in self.entries.iter().zip(0..) {
            self.op(id, |op| hash_op(op, &mut h));
            let inputs = self.inputs(id);
            (inputs, entry.node.dtype, entry.stage).hash(&mut h);
            // Other dims follow from these and from the ops.
            if inputs.is_empty() {
                entry.node.shape.hash(&mut h);
            }
        }
        (&self.outputs, &self.donatable).hash(&mut h);
        h.finish()
    }

    /// True iff a graph is this program, but for source lines.
    pub(crate) fn is(&self, graph: &Graph) -> bool {
        let same = |(entry, id): (&Entry, NodeId)| {
            let (node, other) = (&entry.node, &graph.nodes[id as usize]);
            self.op(id, |op| same_op(op, &other.op))
                && self.inputs(id) == other.inputs
                && node.shape == other.shape
                && node.dtype == other.dtype
                && entry.stage == other.stage
        };
        self.outputs == graph.outputs
            && self.entries.len() == graph.nodes.len()
            && self.entries.iter().zip(0..).all(same)
    }

    /// The program as plain data.
    pub(crate) fn graph(&self) -> Graph {
        let node = |(entry, id): (&Entry, NodeId)| kiln_ir::Node {
            op: self.op(id, Op::clone),
            inputs: self.inputs(id).to_vec(),
            shape: entry.node.shape,
            dtype: entry.node.dtype,
            location: Some(entry.node.location),
            stage: entry.stage,
        };
        Graph { nodes: self.entries.iter().zip(0..).map(node).collect(), outputs: self.outputs.clone() }
    }
}
