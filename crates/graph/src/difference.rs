//! In what two programs differ: what a plan that was made anew is told apart by.

use std::hash::{Hash, Hasher};

use kiln_ir::{Graph, Node};
use rustc_hash::FxHasher;

/// Programs that differ in dims only are of one family.
pub(crate) fn family(graph: &Graph) -> u64 {
    let mut h = FxHasher::default();
    for node in &graph.nodes {
        node.op.name().hash(&mut h);
        (&node.inputs, node.dtype, node.shape.rank()).hash(&mut h);
    }
    graph.outputs.hash(&mut h);
    h.finish()
}

/// A difference, for people.
pub(crate) struct Difference {
    pub(crate) text: String,
    /// True iff it is in a dim.
    pub(crate) of_dims: bool,
}

/// The first thing in which a program differs from another one; the second program's words come last.
pub(crate) fn difference(old: (&Graph, &[bool]), new: (&Graph, &[bool])) -> Difference {
    let ((a, _), (b, _)) = (old, new);
    for (n, (x, y)) in a.nodes.iter().zip(&b.nodes).enumerate() {
        if let Some(what) = of_nodes(x, y) {
            let at = y.place();
            let of_dims = x.op.name() == y.op.name() && x.dtype == y.dtype && x.shape != y.shape;
            return Difference { text: format!("%{n} {}{at}: {what}", y.op.name()), of_dims };
        }
    }
    Difference { text: of_wholes(old, new), of_dims: false }
}

fn of_wholes((a, old_donatable): (&Graph, &[bool]), (b, new_donatable): (&Graph, &[bool])) -> String {
    if a.nodes.len() != b.nodes.len() {
        return format!("{} nodes, now {}", a.nodes.len(), b.nodes.len());
    }
    if a.outputs != b.outputs {
        return format!("{} values are wanted, now {}, or others", a.outputs.len(), b.outputs.len());
    }
    match old_donatable.iter().zip(new_donatable).position(|(x, y)| x != y) {
        Some(n) if new_donatable[n] => format!("argument {n} may be overwritten now"),
        Some(n) => format!("argument {n} is held now, or needed later, and may not be overwritten"),
        None => "source lines only".into(),
    }
}

fn of_nodes(x: &Node, y: &Node) -> Option<String> {
    if x.op.name() != y.op.name() {
        return Some(format!("was {}", x.op.name()));
    }
    if x.dtype != y.dtype {
        return Some(format!("{}, now {}", x.dtype, y.dtype));
    }
    if x.shape.rank() == y.shape.rank()
        && let Some(axis) = (0..x.shape.rank()).find(|&a| x.shape[a] != y.shape[a])
    {
        return Some(format!("dim {} of axis {axis}, now {}", x.shape[axis], y.shape[axis]));
    }
    if x.shape != y.shape {
        return Some(format!("shape {}, now {}", x.shape, y.shape));
    }
    if x.inputs != y.inputs {
        return Some(format!("reads {:?}, now {:?}", x.inputs, y.inputs));
    }
    if x.stage != y.stage {
        return Some("is of another checkpoint".into());
    }
    let words = |n: &Node| format!("{:?}", n.op);
    (x.op != y.op).then(|| format!("{}, now {}", words(x), words(y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::{DType, Movement, Op, Shape};

    fn sliced(dims: &[usize], start: usize) -> Graph {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(dims), DType::F32);
        let y = g.apply(Op::View(Movement::Slice { axis: 0, start, len: 1, step: 1 }), &[x]);
        g.outputs = vec![y];
        g
    }

    #[test]
    fn the_first_difference_is_named() {
        let (a, b, c) = (sliced(&[4, 3], 0), sliced(&[4, 5], 0), sliced(&[4, 3], 2));
        assert!(family(&a) == family(&b) && family(&a) == family(&c) && family(&a) != family(&sliced(&[4], 0)));
        let of = |x: &Graph, y: &Graph| difference((x, &[false]), (y, &[false]));
        assert_eq!(of(&a, &b).text, "%0 leaf: dim 3 of axis 1, now 5");
        assert!(of(&a, &b).of_dims && !of(&a, &c).of_dims);
        let text = of(&a, &c).text;
        assert!(text.contains("start: 0") && text.contains("now View(Slice { axis: 0, start: 2"), "{text}");
        assert_eq!(difference((&a, &[false]), (&a, &[true])).text, "argument 0 may be overwritten now");
    }
}
