//! Programs that were met before, recognised behind tensors instead of being derived again.
//!
//! A step of a loop is captured again and again, and that is most of what a small model costs. So a capture first asks
//! whether a program that it knows fits: each node, from the targets down, must be what the program has in its place.
//! That finds at once whatever a run of it needs, so a program that is new is first derived and then fitted too.

use std::sync::Arc;

use kiln_ir::{Buffer, Graph, Movement, NodeId, Op};

use crate::behind::Derived;
use crate::cache::same_op;
use crate::node::{Node, Region, Source, Value};

/// Programs that are remembered. Those of plans should be among them, or their plans are never found.
const KNOWN_MAX: usize = 128;

/// A program, and what of each of its entries is asked for again and again.
pub(crate) struct Known {
    pub(crate) graph: Graph,
    /// Each leaf's entry, in the order of the leaf slots.
    pub(crate) leaves: Vec<NodeId>,
    entries: Vec<Entry>,
}

struct Entry {
    /// The first entry behind views, of which a live view asks for the elements; `None` if that costs nothing to
    /// compute again.
    base: Option<NodeId>,
    is_output: bool,
}

impl Known {
    fn new(Derived { mut graph, targets, held }: Derived) -> Known {
        let mut entries: Vec<Entry> = Vec::with_capacity(graph.nodes.len());
        for (node, id) in graph.nodes.iter().zip(0..) {
            let base = match node.op {
                Op::Scalar(_) | Op::Offset(_) | Op::Const(_) | Op::Iota(_) => None,
                Op::View(_) => entries[node.inputs[0] as usize].base,
                _ => Some(id),
            };
            entries.push(Entry { base, is_output: false });
        }
        let is_leaf = |id: &NodeId| matches!(graph.nodes[*id as usize].op, Op::Leaf(_));
        let bases = held.iter().filter_map(|&id| entries[id as usize].base);
        let mut outputs: Vec<NodeId> = targets.iter().copied().chain(bases).filter(|id| !is_leaf(id)).collect();
        outputs.sort_unstable();
        outputs.dedup();
        let leaves = (0..graph.nodes.len() as NodeId).filter(is_leaf).collect();
        outputs.iter().for_each(|&output| entries[output as usize].is_output = true);
        graph.outputs = outputs;
        Known { graph, leaves, entries }
    }

    /// True iff this is the program of that graph, but for source lines.
    fn is(&self, graph: &Graph) -> bool {
        let same = |(a, b): (&kiln_ir::Node, &kiln_ir::Node)| {
            same_op(&a.op, &b.op) && a.inputs == b.inputs && (a.shape, a.dtype, a.stage) == (b.shape, b.dtype, b.stage)
        };
        let (a, b) = (&self.graph, graph);
        a.outputs == b.outputs && a.nodes.len() == b.nodes.len() && a.nodes.iter().zip(&b.nodes).all(same)
    }
}

/// What fills the places of a program for one run.
#[derive(Default)]
pub(crate) struct Filling {
    /// The recorded node of each entry; the leaf, where a window into one begins.
    pub(crate) nodes: Vec<Option<Arc<Node>>>,
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

impl Filling {
    /// Empties all lists. What reads goes before what it reads: each then drops alone, and not in chains.
    pub(crate) fn clear(&mut self) {
        while self.nodes.pop().is_some() {}
        self.args.clear();
        self.scalars.clear();
        self.donatable.clear();
        self.ending.clear();
        self.has_history = false;
    }
}

/// The programs that a device knows, and the right to mark its nodes, one walk at a time.
#[derive(Default)]
pub(crate) struct Programs {
    /// The one that was met last comes first.
    met: Vec<Met>,
    walk: u32,
    /// An empty filling, with its memory.
    pub(crate) spare: Filling,
    places: Vec<Place>,
}

/// How a program was asked for.
struct Met {
    known: Arc<Known>,
    /// The entry of each target.
    targets: Vec<NodeId>,
}

impl Met {
    /// False where a look at the targets tells that they are of another program.
    fn may_be_of(&self, targets: &[Arc<Node>]) -> bool {
        let same = |(target, &id): (&Arc<Node>, &NodeId)| {
            let step = &self.known.graph.nodes[id as usize];
            (target.shape, target.dtype) == (step.shape, step.dtype)
        };
        self.targets.len() == targets.len() && targets.iter().zip(&self.targets).all(same)
    }
}

/// What the entries that read another one say of it.
#[derive(Clone, Copy, Default)]
struct Place {
    asked: bool,
    wanted: bool,
    /// How many claims on it end with the program.
    ending: usize,
}

impl Programs {
    /// A number for a walk, which no mark has yet; one of four billion walks ago is no danger.
    pub(crate) fn next_walk(&mut self) -> u32 {
        self.walk = self.walk.wrapping_add(1).max(1);
        self.walk
    }

    /// The program behind the targets with what fills it, if it is known.
    pub(crate) fn recognise(&mut self, targets: &[Arc<Node>]) -> Option<(Arc<Known>, Filling)> {
        for n in 0..self.met.len() {
            if !self.met[n].may_be_of(targets) {
                continue;
            }
            let walk = self.next_walk();
            let Programs { met, places, spare: filling, .. } = self;
            let Met { known, targets: entries, .. } = &met[n];
            if (Fit { known, walk, filling, places, stages: Vec::new() }).fits(targets, entries) {
                let known = known.clone();
                met[..=n].rotate_right(1);
                return Some((known, std::mem::take(filling)));
            }
            filling.clear();
        }
        None
    }

    /// Remembers a program that was derived from some targets.
    pub(crate) fn learn(&mut self, derived: Derived) {
        let targets = derived.targets.clone();
        let new = Known::new(derived);
        // The same may have been asked for elsewhere, or by other handles.
        let known = self.met.iter().map(|met| &met.known).find(|known| known.is(&new.graph));
        let known = known.cloned().unwrap_or_else(|| Arc::new(new));
        self.met.truncate(KNOWN_MAX - 1);
        self.met.insert(0, Met { known, targets });
    }
}

/// A program that is held against what lies behind some targets.
struct Fit<'a> {
    known: &'a Known,
    walk: u32,
    filling: &'a mut Filling,
    places: &'a mut Vec<Place>,
    /// The regions that are stages of the program.
    stages: Vec<(u32, u64)>,
}

impl Fit<'_> {
    /// True iff it fits; then all places are filled. Entries come after what they read, so the last one is seen first, and
    /// each when all that read it were seen.
    fn fits(&mut self, targets: &[Arc<Node>], entries: &[NodeId]) -> bool {
        let n = self.known.entries.len();
        self.filling.nodes.resize(n, None);
        self.places.clear();
        self.places.resize(n, Place::default());
        for (target, &id) in targets.iter().zip(entries) {
            self.places[id as usize] = Place { asked: true, wanted: true, ending: 0 };
            if !self.put(target, id) {
                return false;
            }
        }
        if !(0..n as NodeId).rev().all(|id| self.fits_at(id)) {
            return false;
        }
        let Filling { args, scalars, donatable, ending, .. } = &mut *self.filling;
        args.reverse();
        scalars.reverse();
        donatable.reverse();
        ending.reverse();
        true
    }

    /// Puts a node where an entry that reads it says; false iff it belongs elsewhere, or another one does there.
    fn put(&mut self, node: &Arc<Node>, id: NodeId) -> bool {
        let place = &mut self.filling.nodes[id as usize];
        if let Some(other) = place {
            return Arc::ptr_eq(other, node);
        }
        let is_first = node.mark().0 != self.walk;
        if is_first {
            node.set_mark(self.walk, id);
            *place = Some(node.clone());
        }
        is_first
    }

    fn fits_at(&mut self, id: NodeId) -> bool {
        let (entry, step) = (&self.known.entries[id as usize], &self.known.graph.nodes[id as usize]);
        let Some(node) = self.filling.nodes[id as usize].take() else { return false };
        let fits = match step.op {
            // It stands between a leaf and one view of it, which has put it here.
            Op::Offset(_) => {
                let ends = self.places[id as usize].ending > 0;
                self.end(step, ends);
                true
            }
            _ => self.is_wanted_as(entry, &node, id) && self.is_stage(step.stage, node.region) && self.is(step, &node),
        };
        self.filling.nodes[id as usize] = Some(node);
        fits
    }

    /// True iff who holds a node makes it a result where it is one, and nowhere else. Notes which claims end with it.
    fn is_wanted_as(&mut self, entry: &Entry, node: &Node, id: NodeId) -> bool {
        let (handles, Place { asked, ending, .. }) = (node.handles(), self.places[id as usize]);
        if handles > 0
            && !asked
            && let Some(base) = entry.base
        {
            self.places[base as usize].wanted = true;
        }
        let step = &self.known.graph.nodes[id as usize];
        let all_end = node.uses() == ending;
        let ends = entry.is_output || handles == 0 && all_end;
        if let Op::Leaf(_) = step.op {
            // A leaf may be overwritten iff no handle names it and every claim on it ends with this program.
            self.filling.ending.push(all_end);
            self.filling.donatable.push(handles == 0 && ends);
            return true;
        }
        self.end(step, ends);
        self.places[id as usize].wanted == entry.is_output
    }

    /// Notes whether the claims of an entry end with the program.
    fn end(&mut self, step: &kiln_ir::Node, ends: bool) {
        if ends {
            step.inputs.iter().for_each(|&input| self.places[input as usize].ending += 1);
        }
    }

    fn is_stage(&mut self, stage: u32, region: Region) -> bool {
        let Region::Recomputed(region) = region else { return stage == 0 };
        let pair = (stage, region);
        match self.stages.iter().find(|known| known.0 == stage || known.1 == region) {
            Some(known) => *known == pair,
            None => {
                self.stages.push(pair);
                stage != 0
            }
        }
    }

    /// True iff a node is what the program has in its place; then what it reads is put into the places of that.
    fn is(&mut self, step: &kiln_ir::Node, node: &Node) -> bool {
        // What is derived has its dims from its op and its inputs, but those are met last, and another batch is told here.
        if (node.shape, node.dtype) != (step.shape, step.dtype) {
            return false;
        }
        let books = node.books();
        match (&step.op, &books.value, &node.source) {
            (Op::Leaf(_), Value::Ready(buffer), _) => {
                self.filling.has_history |= !books.inputs.is_empty();
                self.filling.args.push(buffer.clone());
                true
            }
            (Op::Scalar(_), Value::Pending, Source::Scalar { word, .. }) => {
                self.filling.scalars.push(*word);
                true
            }
            (known, Value::Pending, Source::Op(op)) => match self.begin_of(step) {
                Some((begin, leaf)) => {
                    books.inputs.first().is_some_and(|of| self.is_window(known, op, of, begin, leaf))
                }
                None => {
                    let n = step.inputs.len();
                    let mut inputs = books.inputs.iter().zip(&step.inputs);
                    same_op(op, known) && books.inputs.len() == n && inputs.all(|(input, &id)| self.put(input, id))
                }
            },
            _ => false,
        }
    }

    /// Where a window into a leaf begins, and the leaf; `None` if this is no window.
    fn begin_of(&self, step: &kiln_ir::Node) -> Option<(NodeId, NodeId)> {
        let (Op::View(Movement::Slice { .. }), &[begin]) = (&step.op, &step.inputs[..]) else { return None };
        let before = &self.known.graph.nodes[begin as usize];
        matches!(before.op, Op::Offset(_)).then(|| (begin, before.inputs[0]))
    }

    fn is_window(&mut self, known: &Op, op: &Op, of: &Arc<Node>, begin: NodeId, leaf: NodeId) -> bool {
        match window(op, &of.shape) {
            Some((first, rest)) if matches!(known, Op::View(known) if *known == rest) => {
                self.filling.scalars.push(first);
                self.filling.nodes[begin as usize] = Some(of.clone());
                self.put(of, leaf)
            }
            _ => false,
        }
    }
}

/// Of a slice, the first element and what is left: where a window into a leaf begins is no part of the program.
pub(crate) fn window(op: &Op, dims: &[usize]) -> Option<(u32, Movement)> {
    let Op::View(Movement::Slice { axis, start, len, step }) = *op else { return None };
    let stride: usize = dims[axis + 1..].iter().product();
    let first = u32::try_from(start * stride).ok().filter(|_| len > 0)?;
    Some((first, Movement::Slice { axis, start: 0, len, step }))
}
