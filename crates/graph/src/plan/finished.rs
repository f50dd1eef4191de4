//! What becomes of a product before anything else reads it.

use kiln_ir::{Graph, NodeId, Op};

/// Formulas of a product that nothing else reads, as large as it, from which several go on: stored instead of the product,
/// as its epilogue, they cost no byte more, and no reader computes them or reads what they add to it. A layer's
/// bias and the residual stream it adds to are such, and what of an LSTM's gates comes from the input.
pub(super) fn finished(graph: &Graph, live: &[bool]) -> Vec<NodeId> {
    let readers = readers(graph, live);
    let products = graph.nodes.iter().zip(0..).filter(|(node, id)| live[*id as usize] && matches!(node.op, Op::Dot(_)));
    products.filter_map(|(_, id)| last(graph, &readers, id)).collect()
}

/// The last formula on the way from a product to where several read it, if there is one.
fn last(graph: &Graph, readers: &[Readers], product: NodeId) -> Option<NodeId> {
    let bytes = |id: NodeId| graph.nodes[id as usize].shape.numel() * graph.nodes[id as usize].dtype.size_bytes();
    let numel = |id: NodeId| graph.nodes[id as usize].shape.numel();
    let (mut at, mut found) = (product, None);
    while let Readers::One(next) = readers[at as usize] {
        if numel(next) != numel(product) || bytes(next) > bytes(product) {
            return None;
        }
        match &graph.nodes[next as usize].op {
            Op::Map(_) => found = Some(next),
            Op::View(_) => {}
            _ => return None,
        }
        at = next;
    }
    found.filter(|_| matches!(readers[at as usize], Readers::Several))
}

/// Who reads a node that is no output.
#[derive(Clone, Copy)]
enum Readers {
    None,
    One(NodeId),
    Several,
}

fn readers(graph: &Graph, live: &[bool]) -> Vec<Readers> {
    let mut readers = vec![Readers::None; graph.nodes.len()];
    for (node, id) in graph.nodes.iter().zip(0..).filter(|(_, id)| live[*id as usize]) {
        for &i in &node.inputs {
            readers[i as usize] = match readers[i as usize] {
                Readers::None => Readers::One(id),
                Readers::One(before) if before == id => Readers::One(id),
                Readers::One(_) | Readers::Several => Readers::Several,
            };
        }
    }
    // Outputs are stored whoever reads them.
    graph.outputs.iter().for_each(|&id| readers[id as usize] = Readers::None);
    readers
}

#[cfg(test)]
mod tests {
    use super::super::roots::live;
    use super::*;
    use kiln_ir::{Axes, Contraction, DType, Expr, Movement, PointOp, ReduceOp, Shape};
    use std::sync::Arc;

    fn op(g: &mut Graph, op: PointOp, x: &[NodeId]) -> NodeId {
        g.apply(Op::Map(Arc::new(Expr::of(op))), x)
    }

    /// A product of two matrices, and one of them.
    fn product() -> (Graph, NodeId, NodeId) {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[4, 4]), DType::F32);
        let product = g.apply(Op::Dot(Contraction { batch: 0, m: 1, n: 1, k: 1 }), &[x, x]);
        (g, product, x)
    }

    fn found(g: &mut Graph, outputs: &[NodeId]) -> Vec<NodeId> {
        g.outputs = outputs.to_vec();
        finished(g, &live(g))
    }

    #[test]
    fn several_readers_find_the_formula_of_a_product() {
        let (mut g, product, x) = product();
        let turned = g.apply(Op::View(Movement::Permute(Axes::new(&[1, 0]))), &[product]);
        let biased = op(&mut g, PointOp::Add, &[turned, x]);
        let sum = op(&mut g, PointOp::Add, &[biased, x]);
        let flat = g.apply(Op::View(Movement::Reshape(Shape::new(&[16]))), &[sum]);
        let [y, z] = [PointOp::Exp, PointOp::Tanh].map(|o| op(&mut g, o, &[flat]));
        assert_eq!(found(&mut g, &[y, z]), [sum]);
        assert_eq!(found(&mut g, &[y]), [], "one reader has all of it in its own kernel");
        assert_eq!(found(&mut g, &[y, z, biased]), [], "what is asked for is stored as it is");
        // As soon as something else reads the product, it has to be stored, and then nothing is saved.
        let other = op(&mut g, PointOp::Exp, &[product]);
        assert_eq!(found(&mut g, &[y, z, other]), []);
    }

    #[test]
    fn what_is_larger_than_the_product_is_no_part_of_it() {
        let (mut g, product, _) = product();
        let row = g.apply(Op::View(Movement::Reshape(Shape::new(&[4, 1, 4]))), &[product]);
        let wide = g.apply(Op::View(Movement::Expand(Shape::new(&[4, 2, 4]))), &[row]);
        let many = g.source(Op::Leaf(1), Shape::new(&[4, 2, 4]), DType::F32);
        let sum = op(&mut g, PointOp::Add, &[wide, many]);
        let y = op(&mut g, PointOp::Exp, &[sum]);
        let total = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[1])), &[sum]);
        assert_eq!(found(&mut g, &[y, total]), []);
    }
}
