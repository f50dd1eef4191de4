//! Formulas over turned contractions, computed as the contraction lies. Graph to graph, before anything fuses.
//!
//! A convolution leaves its result with channels first, and what follows speaks of images first. A formula over such
//! a view is the same view of a formula: if the view moves behind it, what is stored has the contraction's order, is
//! written by its epilogue in lines, and its gradient may be written over it. Views cost nothing either way.
//!
//! What a convolution and its weight's gradient both walk over in windows stays: the latter's panels are packed at
//! less than half the speed with channels first.

use kiln_ir::{Graph, Movement, Node, NodeId, Op, Shape};
use rustc_hash::FxHashSet as HashSet;

/// The graph with views of contractions behind the formulas that read them; `None` if there are none.
pub(crate) fn follow(graph: &Graph) -> Option<Graph> {
    let turns = |node: &Node| matches!(&node.op, Op::View(Movement::Permute(_)));
    let has_dot = graph.nodes.iter().any(|n| matches!(n.op, Op::Dot(_)));
    if !has_dot || !graph.nodes.iter().any(turns) {
        return None;
    }
    // Formulas that lie as a contraction does.
    let mut lies: HashSet<NodeId> = HashSet::default();
    let windowed = windowed(graph);
    Some(graph.rewritten(|out, node, id, inputs| {
        let turned = match node.op {
            Op::Map(_) if windowed[id as usize] < 2 => {
                inputs.iter().filter_map(|&i| turned(out, &lies, i)).max_by_key(|t| t.views.len())
            }
            Op::Map(_) | Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) | Op::View(_) => None,
            Op::Reduce(..) | Op::Gather(_) | Op::Scatter { .. } | Op::Dot(_) => None,
            Op::Linear | Op::Attention(_) | Op::Scan(_) | Op::Sort(_) => None,
        };
        let turned = turned.filter(|t| t.shape == node.shape)?;
        let behind: Vec<NodeId> = inputs.iter().map(|&i| turned.back(out, i)).collect();
        let value = out.apply(node.op.clone(), &behind);
        lies.insert(value);
        Some(turned.views.iter().fold(value, |x, view| out.apply(Op::View(view.clone()), &[x])))
    }))
}

/// For each node, how many contractions read it in windows.
fn windowed(graph: &Graph) -> Vec<u32> {
    let mut windowed = vec![0; graph.nodes.len()];
    for dot in graph.nodes.iter().filter(|n| matches!(n.op, Op::Dot(_))) {
        for &input in &dot.inputs {
            let (mut base, mut windows) = (input, false);
            while let Op::View(view) = &graph.nodes[base as usize].op {
                windows |= matches!(view, Movement::Window { .. });
                base = graph.nodes[base as usize].inputs[0];
            }
            windowed[base as usize] += u32::from(windows);
        }
    }
    windowed
}

/// A view of all elements of something, in another order.
struct Turned {
    base: NodeId,
    /// From the base to the view.
    views: Vec<Movement>,
    /// From the view to the base.
    undone: Vec<Movement>,
    shape: Shape,
}

/// The view that a node is, if it is one of something that lies as a contraction does: that, or a formula of these.
fn turned(graph: &Graph, lies: &HashSet<NodeId>, id: NodeId) -> Option<Turned> {
    let node = |id: NodeId| &graph.nodes[id as usize];
    let (mut base, mut views, mut undone, mut moves) = (id, Vec::new(), Vec::new(), false);
    while let Op::View(view) = &node(base).op {
        let source = node(base).inputs[0];
        let dims = node(source).shape;
        let Some(undo) = undoing(view, dims) else { break };
        // Of images in order a permutation may be left that moves axes of dim 1 only.
        moves |= matches!(view, Movement::Permute(perm) if !perm.iter().filter(|&&axis| dims[axis] != 1).is_sorted());
        views.push(view.clone());
        undone.push(undo);
        base = source;
    }
    views.reverse();
    let lies = matches!(node(base).op, Op::Dot(_)) || lies.contains(&base);
    (lies && moves).then(|| Turned { base, views, undone, shape: node(id).shape })
}

/// What undoes a view of something with these dims, if it is one that contractions are turned by.
fn undoing(view: &Movement, dims: Shape) -> Option<Movement> {
    match view {
        Movement::Permute(perm) => Some(Movement::Permute(Movement::inverse(perm))),
        Movement::Reshape(_) => Some(Movement::Reshape(dims)),
        Movement::Expand(_) | Movement::Slice { .. } | Movement::Flip(_) | Movement::Pad { .. } => None,
        Movement::Window { .. } | Movement::Unwindow { .. } | Movement::Rewindow { .. } => None,
    }
}

impl Turned {
    /// An input of a formula over the view, as an input of a formula over the base.
    fn back(&self, graph: &mut Graph, id: NodeId) -> NodeId {
        let shape = graph.nodes[id as usize].shape;
        if shape.rank() == 0 {
            return id;
        }
        if self.is_behind(graph, id) {
            return self.base;
        }
        let mut x = id;
        if shape != self.shape {
            x = graph.apply(Op::View(Movement::Expand(self.shape)), &[x]);
        }
        self.undone.iter().fold(x, |x, view| graph.apply(Op::View(view.clone()), &[x]))
    }

    /// True iff a node is this view.
    fn is_behind(&self, graph: &Graph, mut id: NodeId) -> bool {
        for view in self.views.iter().rev() {
            let node = &graph.nodes[id as usize];
            if !matches!(&node.op, Op::View(other) if other == view) {
                return false;
            }
            id = node.inputs[0];
        }
        id == self.base
    }
}
