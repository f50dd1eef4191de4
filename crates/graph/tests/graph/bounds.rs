//! How far a program in `f32` may be from the reference: running error analysis, node by node.
//!
//! Each value carries a bound on its error: those of its operands times the derivatives of the op, which `OPS` has, plus
//! what the op itself may be off by. To first order; the second is hidden by a tenth.

use kiln_graph::Program;
use kiln_ir::expr::E;
use kiln_ir::ops::{Gradient, OPS, Tolerance};
use kiln_ir::{DType, Expr, ExprNode, Graph, NodeId, Op, PointOp, ReduceOp, Shape, attention, linear, reference};

use crate::generate::Kind;

/// What one operation in `f32` rounds by, relative to its result.
const UNIT: f64 = 1.0 / 16_777_216.0;

/// What a value is off by once it is rounded; infinities are exact.
fn rounding(v: f64) -> f64 {
    if v.is_finite() { UNIT * v.abs() } else { 0.0 }
}

/// How far each output may be: 0 for exact programs.
pub(crate) fn of(kind: Kind, program: &Program, expected: &[Vec<f64>]) -> Vec<Vec<f64>> {
    match kind {
        Kind::Exact => expected.iter().map(|e| vec![0.0; e.len()]).collect(),
        Kind::Smooth => bounds(&program.graph, &program.leaves, &program.scalars),
    }
}

/// Bounds on the errors of the outputs, for these values of leaves and scalar slots.
fn bounds(graph: &Graph, leaves: &[Vec<f64>], scalars: &[f64]) -> Vec<Vec<f64>> {
    let values = reference::eval_all(graph, leaves, scalars);
    let exact: Vec<Vec<f64>> = leaves.iter().map(|leaf| vec![0.0; leaf.len()]).collect();
    let all = errors(graph, &values, &exact, scalars);
    graph.outputs.iter().map(|&o| all[o as usize].iter().map(|e| 1.1 * e).collect()).collect()
}

/// A bound for each element of each node.
fn errors(graph: &Graph, values: &[Vec<f64>], of_leaves: &[Vec<f64>], scalars: &[f64]) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
    for (node, value) in graph.nodes.iter().zip(values) {
        let of = |n: usize| (&values[node.inputs[n] as usize], &all[node.inputs[n] as usize]);
        let moved = |errors: Vec<Vec<f64>>| magnitudes(graph, node, errors, scalars);
        let error = match &node.op {
            Op::Leaf(n) => of_leaves[*n as usize].clone(),
            Op::Const(_) | Op::Scalar(_) | Op::Iota(_) => value.iter().map(|v| rounding(*v)).collect(),
            Op::Map(expr) => map(graph, node, expr, values, &all),
            // Errors add up as values do, and each addition rounds.
            Op::Reduce(ReduceOp::Sum, axes) => {
                let (x, e) = of(0);
                let shape = &graph.nodes[node.inputs[0] as usize].shape;
                let n: usize = axes.iter().map(|&a| shape[a]).product();
                moved(vec![x.iter().zip(e).map(|(x, e)| e + n as f64 * UNIT * x.abs()).collect()])
            }
            Op::Reduce(ReduceOp::Max | ReduceOp::Min, axes) => {
                let op = Op::Reduce(ReduceOp::Max, *axes);
                let node = kiln_ir::Node { op, ..node.clone() };
                magnitudes(graph, &node, vec![of(0).1.clone()], scalars)
            }
            Op::Reduce(ReduceOp::Prod | ReduceOp::ArgMax, _) => unreachable!("no smooth program has these"),
            Op::Offset(_) | Op::View(_) => moved(vec![of(0).1.clone()]),
            Op::Gather(_) => moved(vec![of(0).1.clone(), of(1).0.clone()]),
            Op::Scatter { .. } => {
                let (x, e) = of(1);
                let n = x.len() as f64;
                moved(vec![of(0).0.clone(), x.iter().zip(e).map(|(x, e)| e + n * UNIT * x.abs()).collect()])
            }
            Op::Scan(scan) => match scan.op {
                ReduceOp::Sum => {
                    let (x, e) = of(0);
                    let n = node.shape[scan.axis] as f64;
                    moved(vec![x.iter().zip(e).map(|(x, e)| e + n * UNIT * x.abs()).collect()])
                }
                ReduceOp::Max => moved(vec![of(0).1.clone()]),
                ReduceOp::Prod | ReduceOp::Min | ReduceOp::ArgMax => unreachable!("no smooth program has these"),
            },
            Op::Sort(_) => unreachable!("no smooth program has these"),
            Op::Dot(c) => {
                let ((x, ex), (y, ey)) = (of(0), of(1));
                let k: usize = graph.nodes[node.inputs[0] as usize].shape[c.batch + c.m..].iter().product();
                let abs = |v: &[f64]| v.iter().map(|v| v.abs()).collect::<Vec<_>>();
                let rounded: Vec<f64> = x.iter().zip(ex).map(|(x, e)| e + (k + 2) as f64 * UNIT * x.abs()).collect();
                let left = moved(vec![rounded, abs(y)]);
                let right = moved(vec![abs(x), ey.clone()]);
                left.iter().zip(&right).map(|(a, b)| a + b).collect()
            }
            Op::Linear | Op::Attention(_) => {
                let mut meaning = Graph::default();
                let inputs: Vec<&kiln_ir::Node> = node.inputs.iter().map(|&i| &graph.nodes[i as usize]).collect();
                let ids: Vec<NodeId> =
                    inputs.iter().zip(0..).map(|(x, n)| meaning.source(Op::Leaf(n), x.shape, x.dtype)).collect();
                let out = match &node.op {
                    Op::Attention(attend) => attention::compose(&mut meaning, *attend, &ids),
                    _ => linear::compose(&mut meaning, &ids),
                };
                let leaves: Vec<Vec<f64>> = (0..ids.len()).map(|n| of(n).0.clone()).collect();
                let errors_in: Vec<Vec<f64>> = (0..ids.len()).map(|n| of(n).1.clone()).collect();
                let values = reference::eval_all(&meaning, &leaves, &[]);
                errors(&meaning, &values, &errors_in, &[]).swap_remove(out as usize)
            }
        };
        all.push(error);
    }
    all
}

/// A node's op over magnitudes instead of its inputs.
fn magnitudes(graph: &Graph, node: &kiln_ir::Node, of_inputs: Vec<Vec<f64>>, scalars: &[f64]) -> Vec<f64> {
    let mut one = Graph::default();
    for (n, &i) in node.inputs.iter().enumerate() {
        let input = &graph.nodes[i as usize];
        // Errors of narrow values are no narrow values.
        let dtype = if input.dtype.is_float() { DType::F64 } else { input.dtype };
        one.source(Op::Leaf(n as u32), input.shape, dtype);
    }
    let inputs: Vec<NodeId> = (0..node.inputs.len() as NodeId).collect();
    let out = one.apply(node.op.clone(), &inputs);
    one.outputs = vec![out];
    reference::eval(&one, &of_inputs, scalars).swap_remove(0)
}

/// The derivative of each row by each operand, over 1, the operands and the value.
fn derivatives(op: PointOp) -> Vec<Option<Expr>> {
    let Gradient::Formulas(rule) = OPS[op as usize].gradient else { return Vec::new() };
    let e = E::input;
    rule(&e(0), &[e(1), e(2), e(3)], &e(4)).into_iter().map(|d| Some(d?.build())).collect()
}

fn map(graph: &Graph, node: &kiln_ir::Node, expr: &Expr, values: &[Vec<f64>], errors: &[Vec<f64>]) -> Vec<f64> {
    thread_local! {
        static DERIVATIVES: Vec<Vec<Option<Expr>>> = OPS.iter().map(|row| derivatives(row.op)).collect();
    }
    let inputs: Vec<&kiln_ir::Node> = node.inputs.iter().map(|&i| &graph.nodes[i as usize]).collect();
    let dtypes: Vec<DType> = inputs.iter().map(|n| n.dtype).collect();
    let types = expr.types(&dtypes).expect("the graph verifies");
    let element = |n: usize, flat: usize| at(flat, &node.shape, &inputs[n].shape);
    let one = |flat: usize, derivatives: &[Vec<Option<Expr>>]| {
        let mut steps: Vec<(f64, f64)> = Vec::with_capacity(expr.nodes.len());
        for (step, &dtype) in expr.nodes.iter().zip(&types) {
            steps.push(match step {
                ExprNode::Input(n) => {
                    let (id, i) = (node.inputs[*n as usize] as usize, element(*n as usize, flat));
                    (values[id][i], errors[id][i])
                }
                ExprNode::Const(c) => (*c, rounding(*c)),
                ExprNode::Cast(to, a) => (to.round(steps[*a as usize].0), steps[*a as usize].1),
                ExprNode::Op(op, args) => {
                    let x = args.map(|a| steps[a as usize].0);
                    let row = op.row();
                    let value = (row.reference)(types[args[row.arity - 1] as usize], x);
                    let own = match row.tolerance {
                        _ if !value.is_finite() => 0.0,
                        Tolerance::Exact => rounding(value),
                        Tolerance::Relative(r) => r * value.abs().max(1.0),
                    };
                    let wide = |t: DType| if t == DType::Bool { DType::Bool } else { DType::F64 };
                    let of = args.map(|a| wide(types[a as usize]));
                    let slope = |d: &Expr| {
                        let types = d.types(&[DType::F64, of[0], of[1], of[2], wide(dtype)]);
                        types.map_or(0.0, |types| d.eval(&types, &[1.0, x[0], x[1], x[2], value], false))
                    };
                    let through = derivatives[*op as usize].iter().zip(args).map(|(d, a)| {
                        let e = steps[*a as usize].1;
                        let slope = if e == 0.0 { 0.0 } else { d.as_ref().map_or(0.0, slope).abs() };
                        if slope == 0.0 { 0.0 } else { slope * e }
                    });
                    (value, own + through.sum::<f64>())
                }
            });
        }
        steps.last().expect("a formula has at least one node").1
    };
    DERIVATIVES.with(|derivatives| (0..node.shape.numel()).map(|flat| one(flat, derivatives)).collect())
}

/// The element of an operand that broadcasts to the element `flat` of a result.
fn at(flat: usize, shape: &Shape, operand: &Shape) -> usize {
    let (strides, own) = (shape.strides(), operand.strides());
    let skip = shape.rank() - operand.rank();
    let coordinate = |axis: usize| flat / strides[axis + skip] % shape[axis + skip];
    (0..operand.rank()).map(|axis| coordinate(axis).min(operand[axis] - 1) * own[axis]).sum()
}
