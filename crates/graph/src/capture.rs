//! Capture: what lies behind some tensors, as a program with the values of its slots.
//!
//! A program is a list of entries over recorded nodes. It can be compared as it is; only one that is
//! new becomes a [`Graph`], since most steps of a loop are not.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, Movement, NodeId, Op, Result};

use crate::Device;
use crate::cache::same_op;
use crate::node::{Node, Region, Source};

/// A program and everything that a run of it needs.
#[derive(Default)]
pub(crate) struct Captured {
    entries: Vec<Entry>,
    /// The inputs of all entries, one after the other.
    inputs: Vec<NodeId>,
    /// The wanted entries, ascending.
    pub(crate) outputs: Vec<NodeId>,
    /// Each leaf's entry, in the order of the leaf slots.
    pub(crate) leaves: Vec<NodeId>,
    /// The buffer of each leaf, and then of each result, once there are such.
    pub(crate) args: Vec<Buffer>,
    /// The word of each scalar slot.
    pub(crate) scalars: Vec<u32>,
    /// Which leaves nobody wants any more once the outputs are computed.
    pub(crate) donatable: Vec<bool>,
    /// On which leaves every claim ends with this program, whoever holds a handle.
    pub(crate) ending: Vec<bool>,
    /// True iff some leaf could be computed again: gradients may go on behind it.
    pub(crate) has_history: bool,
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
    let (walk, lists) = marks.next();
    let n_targets = lists.find(targets, walk)?;
    let mut captured = std::mem::take(&mut lists.captured);
    captured.clear();
    captured.has_history = lists.has_history;
    let mut stages = Stages::default();
    for at in 0..lists.order.len() {
        let number = lists.order[at];
        let node = lists.met[number as usize].take().expect("each node comes once");
        let kind = match (lists.values[number as usize].take(), &node.source) {
            (Some(buffer), _) => {
                captured.leaves.push(captured.entries.len() as NodeId);
                captured.args.push(buffer);
                Kind::Leaf(captured.leaves.len() as u32 - 1)
            }
            (None, Source::Scalar { word, .. }) => {
                captured.scalars.push(*word);
                Kind::Scalar(captured.scalars.len() as u32 - 1)
            }
            (None, Source::Op(op)) => {
                let window = captured.window(op, lists.inputs(number).next());
                match window {
                    None => {
                        captured.inputs.extend(lists.inputs(number));
                        Kind::Recorded
                    }
                    Some((leaf, start, movement)) => {
                        captured.scalars.push(start);
                        let beside = captured.node(leaf).clone();
                        captured.inputs.push(leaf);
                        captured.push(beside, Kind::Offset(captured.scalars.len() as u32 - 1), 0);
                        lists.wanted.push(false);
                        captured.inputs.push(captured.entries.len() as NodeId - 1);
                        Kind::View(Box::new(movement))
                    }
                }
            }
            (None, Source::Leaf) => unreachable!("a leaf has a value, or the walk refused it"),
        };
        let id = captured.entries.len() as NodeId;
        lists.entry[number as usize] = id;
        let asked = (number as usize) < n_targets;
        let live = node.handles() > 0 && !asked;
        let stage = stages.of(node.region);
        captured.push(node, kind, stage);
        lists.wanted.push(asked);
        if live {
            let base = captured.base(id);
            lists.wanted[base as usize] |= !captured.entries[base as usize].is_free();
        }
    }
    let entries = captured.entries.iter().zip(&lists.wanted).zip(0..);
    let computed = entries.filter(|((entry, wanted), _)| **wanted && !matches!(entry.kind, Kind::Leaf(_)));
    captured.outputs.extend(computed.map(|(_, id)| id));
    captured.find_donatable(&mut lists.ending, &mut lists.ends);
    Ok(captured)
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

impl Drop for Captured {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Captured {
    /// Empties all lists. What reads goes before what it reads: each then drops alone, and not in chains.
    fn clear(&mut self) {
        while self.entries.pop().is_some() {}
        self.inputs.clear();
        self.outputs.clear();
        self.leaves.clear();
        self.args.clear();
        self.scalars.clear();
        self.donatable.clear();
        self.ending.clear();
        self.has_history = false;
    }

    /// Leaves its lists to the next program that is captured.
    pub(crate) fn leave(mut self, device: &Device) {
        self.clear();
        device.marks().keep(self);
    }

    fn push(&mut self, node: Arc<Node>, kind: Kind, stage: u32) {
        self.entries.push(Entry { node, kind, end: self.inputs.len() as u32, stage });
    }

    /// The recorded node of an entry.
    pub(crate) fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.entries[id as usize].node
    }

    /// The entry of a node that is one.
    pub(crate) fn entry_of(&self, node: &Node) -> NodeId {
        let is_it = |entry: &Entry| entry.node.id == node.id && !matches!(entry.kind, Kind::Offset(_));
        self.entries.iter().rposition(is_it).expect("it was captured") as NodeId
    }

    /// The recorded nodes that the program computes.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.outputs.iter().map(|&o| self.node(o))
    }

    /// Takes the results out of the arguments, each with its recorded node.
    pub(crate) fn take_results(&mut self) -> Vec<(Arc<Node>, Buffer)> {
        let Captured { entries, outputs, leaves, args, .. } = self;
        let nodes = outputs.iter().map(|&o| entries[o as usize].node.clone());
        nodes.zip(args.drain(leaves.len()..)).collect()
    }

    /// The recorded nodes of all entries; a leaf that a window begins in comes once more.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.entries.iter().map(|e| &e.node)
    }

    /// The recorded node of each leaf, in recorded order.
    pub(crate) fn leaf_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.leaves.iter().map(|&leaf| self.node(leaf))
    }

    /// The slot that says where a window into a leaf begins, the recorded node of the window, and that of the leaf.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (u32, &Arc<Node>, &Arc<Node>)> {
        // The window comes right behind the entry that begins it.
        self.entries.windows(2).filter_map(|pair| match pair[0].kind {
            Kind::Offset(n) => Some((n, &pair[1].node, &pair[0].node)),
            _ => None,
        })
    }

    /// For each entry which checkpoint recorded it, in the order in which they come: 1, 2 and so on, 0 for none.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = usize> {
        let mut met: Vec<u64> = Vec::new();
        self.entries.iter().map(move |entry| {
            let (Region::Checkpoint(number), false) = (entry.node.region, matches!(entry.kind, Kind::Leaf(_))) else {
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

    /// Of a slice of a leaf, that leaf, the first element and what is left: where it begins is no part of the program.
    fn window(&self, op: &Op, input: Option<NodeId>) -> Option<(NodeId, u32, Movement)> {
        let Op::View(Movement::Slice { axis, start, len, step }) = *op else { return None };
        let leaf = input?;
        let Entry { node, kind: Kind::Leaf(_), .. } = &self.entries[leaf as usize] else { return None };
        let stride: usize = node.shape[axis + 1..].iter().product();
        let first = u32::try_from(start * stride).ok().filter(|_| len > 0)?;
        Some((leaf, first, Movement::Slice { axis, start: 0, len, step }))
    }

    /// A leaf may be overwritten iff no handle names it and every claim on it ends with this program.
    fn find_donatable(&mut self, ending: &mut Vec<usize>, ends: &mut Vec<bool>) {
        let n = self.entries.len();
        ending.resize(n, 0);
        ends.resize(n, false);
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
        let Captured { entries, leaves, donatable, ending: all, .. } = self;
        for &id in &*leaves {
            let node = &entries[id as usize].node;
            all.push(node.uses() == ending[id as usize]);
            donatable.push(node.handles() == 0 && ends[id as usize]);
        }
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
