//! The oracle: evaluates a [`Graph`] node by node in `f64`, as naively as the definitions read.
//!
//! It shares no code with the backends beyond the op table, and never fuses. `f32` values keep the
//! precision of `f64` (the *ideal* result, against which rounding errors are judged); narrower
//! floats and integers are rounded after every op, as a backend must.

use crate::scan::Scan;
use crate::sort::{Part, Sort};
use crate::{DType, Graph, Node, NodeId, Op, ReduceOp, Shape, attention, linear};

/// The values of the outputs, for these values of leaves and scalar slots, all as `f64`.
///
/// # Panics
/// If a leaf's length differs from its shape's, or the graph does not verify.
pub fn eval(graph: &Graph, leaves: &[Vec<f64>], scalars: &[f64]) -> Vec<Vec<f64>> {
    let all = eval_all(graph, leaves, scalars);
    graph.outputs.iter().map(|&o| all[o as usize].clone()).collect()
}

/// The values of every node.
///
/// # Panics
/// As [`eval`].
pub fn eval_all(graph: &Graph, leaves: &[Vec<f64>], scalars: &[f64]) -> Vec<Vec<f64>> {
    if let Err(why) = crate::verify(graph) {
        panic!("reference: {why}");
    }
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs: Vec<(&Node, &[f64])> =
            node.inputs.iter().map(|&i| (&graph.nodes[i as usize], values[i as usize].as_slice())).collect();
        let value = eval_node(node, &inputs, leaves, scalars);
        assert_eq!(value.len(), node.shape.numel(), "reference: {} gave a wrong length", node.op.name());
        values.push(value);
    }
    values
}

fn eval_node(node: &Node, inputs: &[(&Node, &[f64])], leaves: &[Vec<f64>], scalars: &[f64]) -> Vec<f64> {
    let round = |v: f64| if node.dtype == DType::F32 { v } else { node.dtype.round(v) };
    match &node.op {
        Op::Leaf(n) => leaves[*n as usize].clone(),
        Op::Const(v) => vec![round(*v)],
        Op::Scalar(n) => vec![round(scalars[*n as usize])],
        Op::Iota(axis) => points(&node.shape).map(|at| at[*axis] as f64).collect(),
        Op::Map(expr) => {
            let dtypes: Vec<_> = inputs.iter().map(|i| i.0.dtype).collect();
            let types = expr.types(&dtypes).expect("verified");
            let at_broadcast = |at: &[usize], (input, values): &(&Node, &[f64])| {
                let skip = node.shape.rank() - input.shape.rank();
                let own: Vec<_> = at[skip..].iter().zip(input.shape.iter()).map(|(&i, &d)| i.min(d - 1)).collect();
                values[flat(&own, &input.shape)]
            };
            points(&node.shape)
                .map(|at| expr.eval(&types, &inputs.iter().map(|i| at_broadcast(&at, i)).collect::<Vec<_>>(), true))
                .collect()
        }
        Op::Reduce(op, axes) => reduce(*op, axes, node, inputs[0]),
        Op::Offset(n) => {
            let (start, values) = (scalars[*n as usize].max(0.0) as usize, inputs[0].1);
            (0..values.len()).map(|i| values.get(i + start).copied().unwrap_or(0.0)).collect()
        }
        Op::View(movement) => {
            let (input, values) = inputs[0];
            let map = movement.map(&input.shape);
            points(&node.shape)
                .map(|at| match map.valid.iter().all(|b| b.holds(&at)) {
                    true => {
                        let coords: Vec<_> = map.coords.iter().map(|c| c.eval(&at) as usize).collect();
                        values[flat(&coords, &input.shape)]
                    }
                    false => 0.0,
                })
                .collect()
        }
        &Op::Gather(axis) => {
            let [(table, values), (index, positions)] = [inputs[0], inputs[1]];
            let rank = index.shape.rank();
            points(&node.shape)
                .map(|at| {
                    let i = positions[flat(&at[axis..axis + rank], &index.shape)];
                    let i = (i.max(0.0) as usize).min(table.shape[axis] - 1);
                    values[flat(&[&at[..axis], &[i], &at[axis + rank..]].concat(), &table.shape)]
                })
                .collect()
        }
        &Op::Scatter { axis, size } => {
            let [(index, positions), (source, values)] = [inputs[0], inputs[1]];
            let rank = index.shape.rank();
            let mut out = vec![0.0; node.shape.numel()];
            for (at, v) in points(&source.shape).zip(values) {
                let i = positions[flat(&at[axis..axis + rank], &index.shape)];
                let i = (i.max(0.0) as usize).min(size - 1);
                out[flat(&[&at[..axis], &[i], &at[axis + rank..]].concat(), &node.shape)] += v;
            }
            out.into_iter().map(round).collect()
        }
        Op::Dot(c) => {
            let [(lhs, a), (rhs, b)] = [inputs[0], inputs[1]];
            let k = Shape::new(&lhs.shape[c.batch + c.m..]);
            points(&node.shape)
                .map(|at| {
                    let (batch, rest) = at.split_at(c.batch);
                    let (m, n) = rest.split_at(c.m);
                    let term = |k: Vec<usize>| {
                        a[flat(&[batch, m, &k].concat(), &lhs.shape)] * b[flat(&[batch, &k, n].concat(), &rhs.shape)]
                    };
                    round(points(&k).map(term).sum())
                })
                .collect()
        }
        Op::Linear => meaning(inputs, linear::compose),
        Op::Attention(attend) => meaning(inputs, |graph, ids| attention::compose(graph, *attend, ids)),
        Op::Scan(scan) => run(*scan, node, inputs[0].1),
        Op::Sort(sort) => ordered(*sort, node, inputs[0]),
    }
}

/// The value of an op that is what `compose` makes of its operands.
fn meaning(inputs: &[(&Node, &[f64])], compose: impl FnOnce(&mut Graph, &[NodeId]) -> NodeId) -> Vec<f64> {
    let mut graph = Graph::default();
    let leaves = (0..).zip(inputs).map(|(n, (node, _))| (Op::Leaf(n), node.shape, node.dtype));
    let ids: Vec<_> = leaves.map(|(op, shape, dtype)| graph.source(op, shape, dtype)).collect();
    let value = compose(&mut graph, &ids);
    graph.outputs.push(value);
    let leaves: Vec<Vec<f64>> = inputs.iter().map(|i| i.1.to_vec()).collect();
    eval(&graph, &leaves, &[]).swap_remove(0)
}

fn run(scan: Scan, node: &Node, values: &[f64]) -> Vec<f64> {
    let whole = |a: f64, b: f64, f: fn(i64, i64) -> i64| match node.dtype {
        DType::I32 => f(a as i64, b as i64) as i32 as f64,
        _ => f(a as i64, b as i64) as u32 as f64,
    };
    let (is_float, round) = (node.dtype.is_float(), |v| if node.dtype == DType::F32 { v } else { node.dtype.round(v) });
    let step = |a: f64, b: f64| match scan.op {
        ReduceOp::Sum if is_float => a + b,
        ReduceOp::Prod if is_float => a * b,
        ReduceOp::Sum => whole(a, b, i64::wrapping_add),
        ReduceOp::Prod => whole(a, b, i64::wrapping_mul),
        ReduceOp::Max => {
            if a.is_nan() || a > b {
                a
            } else {
                b
            }
        }
        ReduceOp::Min => {
            if a.is_nan() || a < b {
                a
            } else {
                b
            }
        }
        ReduceOp::ArgMax => unreachable!("refused"),
    };
    let ([outer, len, inner], mut out) = (scan.extents(&node.shape), vec![0.0; values.len()]);
    for row in 0..outer * inner {
        let mut so_far = scan.op.identity(node.dtype);
        for k in 0..len {
            let k = if scan.reverse { len - 1 - k } else { k };
            let at = (row / inner * len + k) * inner + row % inner;
            so_far = step(so_far, values[at]);
            out[at] = round(so_far);
        }
    }
    out
}

fn ordered(sort: Sort, node: &Node, (input, values): (&Node, &[f64])) -> Vec<f64> {
    let ([outer, len, inner], mut out) = (sort.extents(&input.shape), vec![0.0; node.shape.numel()]);
    for row in 0..outer * inner {
        let at = |k: usize| (row / inner * len + k) * inner + row % inner;
        let mut places: Vec<usize> = (0..len).collect();
        places.sort_by(|&a, &b| sort.order(values[at(a)], values[at(b)]));
        for (k, place) in places.into_iter().take(sort.keep).enumerate() {
            out[(row / inner * sort.keep + k) * inner + row % inner] =
                if sort.part == Part::Values { values[at(place)] } else { place as f64 };
        }
    }
    out
}

fn reduce(op: ReduceOp, axes: &[usize], node: &Node, (input, values): (&Node, &[f64])) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = vec![Vec::new(); node.shape.numel()];
    for (mut at, &v) in points(&input.shape).zip(values) {
        axes.iter().for_each(|&a| at[a] = 0);
        rows[flat(&at, &node.shape)].push(v);
    }
    let pick = |keep: fn(f64, f64) -> bool| {
        move |best: f64, v: f64| if best.is_nan() || (!v.is_nan() && !keep(v, best)) { best } else { v }
    };
    let start = op.identity(input.dtype);
    let fold = |row: Vec<f64>| match op {
        ReduceOp::Sum => row.iter().sum(),
        ReduceOp::Prod if input.dtype.is_int() => row.iter().fold(1i64, |a, &b| a.wrapping_mul(b as i64)) as i32 as f64,
        ReduceOp::Prod => row.iter().product(),
        ReduceOp::Max => row.iter().copied().fold(start, pick(|v, best| v > best)),
        ReduceOp::Min => row.iter().copied().fold(start, pick(|v, best| v < best)),
        ReduceOp::ArgMax => {
            let better = |v: f64, best: f64| !best.is_nan() && (v.is_nan() || v > best);
            (1..row.len()).fold(0, |at, i| if better(row[i], row[at]) { i } else { at }) as f64
        }
    };
    let round = |v: f64| match node.dtype {
        DType::F32 => v,
        DType::I32 => v as i64 as i32 as f64,
        DType::U32 => v as i64 as u32 as f64,
        other => other.round(v),
    };
    rows.into_iter().map(|row| round(fold(row))).collect()
}

/// The points of an index space in row-major order.
fn points(shape: &Shape) -> impl Iterator<Item = Vec<usize>> + use<> {
    let (dims, strides) = (shape.to_vec(), shape.strides());
    (0..shape.numel()).map(move |i| dims.iter().zip(&strides).map(|(&d, &s)| i / s % d).collect())
}

/// The row-major element number of a point.
fn flat(at: &[usize], shape: &Shape) -> usize {
    at.iter().zip(shape.strides()).map(|(&i, s)| i * s).sum()
}
