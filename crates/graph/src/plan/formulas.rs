//! Formulas that read more tensors than a kernel of the device may bind, step by step. Graph to graph.
//!
//! One op reads three tensors at most, so every device that binds four buffers can run what is left.

use std::sync::Arc;

use kiln_ir::{Caps, Expr, ExprNode, Graph, Node, NodeId, Op};

use super::roots::base;

/// The graph with its widest formulas apart; `None` if the device binds enough for all.
pub(crate) fn split(graph: &Graph, caps: &Caps) -> Option<Graph> {
    let bindings = |node: &Node| {
        let inputs = node.inputs.iter().map(|&i| caps.bindings_of(&graph.nodes[base(graph, i) as usize]));
        inputs.sum::<usize>() + caps.bindings_of(node)
    };
    let is_wide = |node: &Node| formula(node).is_some() && bindings(node) > caps.max_bindings;
    let apart = |out: &mut Graph, node: &Node, _, inputs: &[NodeId]| {
        formula(node).filter(|_| is_wide(node)).map(|expr| steps(out, expr, inputs))
    };
    graph.nodes.iter().any(is_wide).then(|| graph.rewritten(apart))
}

/// The formula that a node is, if it is one.
fn formula(node: &Node) -> Option<&Expr> {
    match &node.op {
        Op::Map(expr) => Some(expr),
        Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) | Op::View(_) => None,
        Op::Reduce(..) | Op::Gather(_) | Op::Scatter { .. } | Op::Dot(_) => None,
        Op::Linear | Op::Attention(_) | Op::Scan(_) | Op::Sort(_) => None,
    }
}

/// Where the value of a step of a formula is.
#[derive(Clone)]
enum Place {
    /// In a node.
    Node(NodeId),
    /// Nowhere: it depends on no input, and each op that needs it has it among its own steps.
    Inline(Vec<ExprNode>),
}

/// Appends a node for each step of a formula; gives that of its value.
fn steps(graph: &mut Graph, expr: &Expr, inputs: &[NodeId]) -> NodeId {
    let mut places: Vec<Place> = Vec::with_capacity(expr.nodes.len());
    for step in &expr.nodes {
        let operands: Vec<u16> = match step {
            ExprNode::Input(i) => {
                places.push(Place::Node(inputs[*i as usize]));
                continue;
            }
            ExprNode::Const(_) => Vec::new(),
            ExprNode::Op(op, args) => args[..op.row().arity].to_vec(),
            ExprNode::Cast(_, a) => vec![*a],
        };
        let (mut nodes, mut named, mut at): (Vec<ExprNode>, Vec<NodeId>, Vec<u16>) = Default::default();
        for &operand in &operands {
            match &places[operand as usize] {
                Place::Node(id) => {
                    let n = named.iter().position(|n| n == id).unwrap_or(named.len());
                    if n == named.len() {
                        named.push(*id);
                    }
                    nodes.push(ExprNode::Input(n as u8));
                }
                Place::Inline(own) => {
                    let first = nodes.len() as u16;
                    nodes.extend(own.iter().map(|step| moved(step, first)));
                }
            }
            at.push(nodes.len() as u16 - 1);
        }
        let operand = |n: usize| at[n.min(at.len() - 1)];
        nodes.push(match step {
            ExprNode::Op(op, _) => ExprNode::Op(*op, [operand(0), operand(1), operand(2)]),
            ExprNode::Cast(to, _) => ExprNode::Cast(*to, operand(0)),
            ExprNode::Input(_) | ExprNode::Const(_) => step.clone(),
        });
        places.push(match named.is_empty() {
            true => Place::Inline(nodes),
            false => Place::Node(graph.apply(Op::Map(Arc::new(Expr { nodes })), &named)),
        });
    }
    match places.pop() {
        Some(Place::Node(id)) => id,
        Some(Place::Inline(_)) | None => unreachable!("a formula that reads many tensors depends on them"),
    }
}

/// A step among others that begin at `first`.
fn moved(step: &ExprNode, first: u16) -> ExprNode {
    match step {
        ExprNode::Op(op, args) => ExprNode::Op(*op, args.map(|a| a + first)),
        ExprNode::Cast(to, a) => ExprNode::Cast(*to, a + first),
        ExprNode::Input(_) | ExprNode::Const(_) => step.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::caps;
    use super::*;
    use kiln_ir::expr::E;
    use kiln_ir::{DType, PointOp, Shape, reference};

    #[test]
    fn parts_of_a_formula_are_the_formula() {
        let mut g = Graph::default();
        let leaves: Vec<NodeId> = (0..4).map(|n| g.source(Op::Leaf(n), Shape::new(&[3]), DType::F32)).collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(E::input);
        let constant = E::lit(2.0).map(PointOp::Sqrt) * 3.0;
        let formula = (&a * &constant + b.when(&E::op(PointOp::Lt, &[&a, &c]), &constant)) / (d + constant);
        let y = g.apply(Op::Map(Arc::new(formula.build())), &leaves);
        g.outputs = vec![y];
        g.nodes[y as usize].stage = 3;
        let caps = |max_bindings: usize| Caps { max_bindings, ..caps() };
        let parts = split(&g, &caps(4)).unwrap();
        kiln_ir::verify(&parts).unwrap();
        assert!(parts.nodes.iter().all(|n| n.inputs.len() < 4), "{parts}");
        assert!(parts.nodes[4..].iter().all(|n| n.stage == 3), "steps belong to the stage of the formula");
        let values: Vec<Vec<f64>> = (0..4).map(|n| vec![n as f64, 1.0 - n as f64, 2.5]).collect();
        assert_eq!(reference::eval(&parts, &values, &[]), reference::eval(&g, &values, &[]));
        assert!(split(&g, &caps(5)).is_none());
        // Where 12 bytes are two bindings.
        let in_windows = |max_bindings| Caps { max_binding_bytes: 8, ..caps(max_bindings) };
        assert!(split(&g, &in_windows(9)).is_some() && split(&g, &in_windows(10)).is_none());
    }
}
