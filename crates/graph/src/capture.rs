//! Capture: what lies behind some tensors, as a program with the values of its slots.
//!
//! A program is a list of entries over recorded nodes. It can be compared as it is; only one that is
//! new becomes a [`Graph`], since most steps of a loop are not.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, Movement, NodeId, Op, Result};

use crate::cache::same_op;
use crate::node::{Node, Region, Source, Value, in_order};

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
    View(Box<Movement>),
    /// What the node says.
    Recorded,
}

impl Entry {
    fn op(&self) -> Op {
        match (&self.kind, &self.node.source) {
            (Kind::Leaf(n), _) => Op::Leaf(*n),
            (Kind::Scalar(n), _) => Op::Scalar(*n),
            (Kind::Offset(n), _) => Op::Offset(*n),
            (Kind::View(movement), _) => Op::View((**movement).clone()),
            (Kind::Recorded, Source::Op(op)) => op.clone(),
            (Kind::Recorded, Source::Leaf | Source::Scalar { .. }) => unreachable!("these have kinds of their own"),
        }
    }

    /// True iff this is what it computes.
    fn is(&self, op: &Op) -> bool {
        match (&self.kind, op) {
            (Kind::Leaf(n), Op::Leaf(m)) | (Kind::Scalar(n), Op::Scalar(m)) | (Kind::Offset(n), Op::Offset(m)) => {
                n == m
            }
            (Kind::View(movement), Op::View(other)) => **movement == *other,
            (Kind::Recorded, op) => matches!(&self.node.source, Source::Op(own) if same_op(own, op)),
            (Kind::Leaf(_) | Kind::Scalar(_) | Kind::Offset(_) | Kind::View(_), _) => false,
        }
    }

    fn is_view(&self) -> bool {
        matches!(self.kind, Kind::View(_))
            || matches!((&self.kind, &self.node.source), (Kind::Recorded, Source::Op(Op::View(_))))
    }

    /// True iff it costs nothing to compute again.
    fn is_free(&self) -> bool {
        match &self.kind {
            Kind::Scalar(_) | Kind::Offset(_) => true,
            Kind::Recorded => matches!(self.node.source, Source::Op(Op::Const(_) | Op::Iota(_))),
            Kind::Leaf(_) | Kind::View(_) => false,
        }
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
    let Some(first) = targets.first() else { return Ok(Captured::default()) };
    // Marks on nodes tell what was met: one capture of a device at a time.
    let mut marks = first.device.marks();
    let walk = marks.next();
    let nodes = behind(targets, walk)?;
    let mut captured = Captured::default();
    captured.entries.reserve(nodes.len() + 4);
    captured.inputs.reserve(3 * nodes.len());
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
                    Kind::View(Box::new(movement))
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
            wanted[base as usize] |= !captured.entries[base as usize].is_free();
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
    let mut found = Vec::with_capacity(64);
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
            Value::Pending => {
                for input in books.inputs.iter().filter(|i| met(i, NOWHERE)) {
                    stack.push(input.clone());
                }
            }
            Value::Ready(_) => {}
        }
        drop(books);
        found.push(node);
    }
    Ok(in_order(found))
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

/// What reads goes before what it reads: each then drops alone, and not in chains.
impl Drop for Captured {
    fn drop(&mut self) {
        while self.entries.pop().is_some() {}
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

    /// The first entry behind views.
    fn base(&self, mut id: NodeId) -> NodeId {
        while self.entries[id as usize].is_view() {
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

    /// True iff a graph with these inputs is this program, but for source lines.
    pub(crate) fn is(&self, graph: &Graph, inputs: &[NodeId]) -> bool {
        let same = |(entry, other): (&Entry, &kiln_ir::Node)| {
            // What is derived has its dims and dtype from its op and its inputs.
            entry.is(&other.op)
                && entry.stage == other.stage
                && (!other.inputs.is_empty() || (entry.node.shape, entry.node.dtype) == (other.shape, other.dtype))
        };
        self.entries.len() == graph.nodes.len()
            && self.outputs == graph.outputs
            && self.inputs == inputs
            && self.entries.iter().zip(&graph.nodes).all(same)
    }

    /// The program as plain data.
    pub(crate) fn graph(&self) -> Graph {
        let node = |(entry, id): (&Entry, NodeId)| kiln_ir::Node {
            op: entry.op(),
            inputs: self.inputs(id).to_vec(),
            shape: entry.node.shape,
            dtype: entry.node.dtype,
            location: Some(entry.node.location),
            stage: entry.stage,
        };
        Graph { nodes: self.entries.iter().zip(0..).map(node).collect(), outputs: self.outputs.clone() }
    }
}
