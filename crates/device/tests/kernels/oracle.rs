//! What kernels mean: evaluated point by point in `f64`, as naively as their definitions read.
//!
//! `f32` values keep the precision of `f64`; casts and stores round as the dtype does.

use kiln_ir::kernel::{Arg, Body, Dot, Instr, Loop, Scan, Scatter, Sort};
use kiln_ir::sort::{self, Part};
use kiln_ir::{DType, Kernel, ReduceOp};

/// The arguments after the kernel ran.
pub(crate) fn run(kernel: &Kernel, args: &[Vec<f64>], scalars: &[f64]) -> Vec<Vec<f64>> {
    let mut out = args.to_vec();
    match kernel {
        Kernel::Loop(k) => run_loop(k, args, scalars, &mut out),
        Kernel::Dot(k) => run_dot(k, args, scalars, &mut out),
        Kernel::Scatter(k) => run_scatter(k, args, &mut out),
        Kernel::Attention(_) => unreachable!("has an oracle of its own"),
        Kernel::Scan(k) => run_scan(k, args, &mut out),
        Kernel::Sort(k) => run_sort(k, args, &mut out),
        Kernel::Group(loops) => loops.iter().for_each(|k| run_loop(k, args, scalars, &mut out)),
    }
    out
}

/// Points of a space in row-major order.
pub(crate) fn points(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![vec![]], |all, &dim| {
        all.iter().flat_map(|at| (0..dim).map(move |i| [&at[..], &[i]].concat())).collect()
    })
}

fn keep(arg: &Arg, value: f64) -> f64 {
    match arg.dtype {
        DType::F32 => value,
        // Bytes keep the low bits, as their arithmetic wraps.
        DType::U8 => (value as u32 & 255) as f64,
        dtype => dtype.round(value),
    }
}

struct Env<'a> {
    args: &'a [Vec<f64>],
    scalars: &'a [f64],
    acc: f64,
}

/// One step at a point; `values` are those of the steps before it.
fn step(body: &Body, v: usize, at: &[usize], values: &[f64], env: &Env) -> f64 {
    match &body.instrs[v] {
        Instr::Load { arg, index, valid, gather } => {
            let mut at = at.to_vec();
            if let Some((index, n)) = gather {
                at.push((values[*index as usize].max(0.0) as usize).min(n - 1));
            }
            match valid.iter().all(|b| b.holds(&at)) {
                true => env.args[*arg as usize][index.eval(&at) as usize],
                false => 0.0,
            }
        }
        Instr::Const(_, c) => *c,
        Instr::Scalar(_, n) => env.scalars[*n as usize],
        Instr::Coord(index) => index.eval(at) as f64,
        Instr::Inside(bounds) => bounds.iter().all(|b| b.holds(at)) as u8 as f64,
        Instr::Op(op, args) => {
            let dtype = body.types[args[op.row().arity - 1] as usize];
            (op.row().reference)(dtype, args.map(|a| values[a as usize]))
        }
        Instr::Cast(DType::F32, a) => values[*a as usize],
        Instr::Cast(to, a) => to.round(values[*a as usize]),
        Instr::Acc => env.acc,
        Instr::Reduce(..) => unreachable!("reductions are made by the row"),
        Instr::ColumnReduce(..) => unreachable!("refused by the emitter"),
    }
}

fn run_loop(k: &Loop, args: &[Vec<f64>], scalars: &[f64], out: &mut [Vec<f64>]) {
    let env = Env { args, scalars, acc: 0.0 };
    let row = points(&k.row);
    for outer in points(&k.outer) {
        // All values at all points of the row, step by step.
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); row.len().max(1)];
        let at = |j: usize| [&outer[..], row.get(j).map_or(&vec![0; k.row.len()][..], |r| r)].concat();
        for v in 0..k.body.instrs.len() {
            if let Instr::Reduce(op, a) = k.body.instrs[v] {
                let operands: Vec<f64> = values[..row.len()].iter().map(|all| all[a as usize]).collect();
                let value = reduce(op, k.body.types[a as usize], k.body.types[v], &operands);
                values.iter_mut().for_each(|all| all.push(value));
                continue;
            }
            for (j, all) in values.iter_mut().enumerate() {
                // An empty row has values only where they do not depend on it.
                let depends = row.is_empty() && matches!(k.body.instrs[v], Instr::Load { .. });
                all.push(if depends { 0.0 } else { step(&k.body, v, &at(j), all, &env) });
            }
        }
        for store in &k.body.stores {
            let rank = k.outer.len() + k.row.len();
            let in_row = store.index.uses(&|axis| (k.outer.len()..rank).contains(&axis));
            for (j, all) in values.iter().enumerate().filter(|_| !(in_row && row.is_empty())) {
                let at = store.index.eval(&at(j)) as usize;
                out[store.arg as usize][at] = keep(&k.args[store.arg as usize], all[store.value as usize]);
            }
        }
    }
}

fn reduce(op: ReduceOp, from: DType, to: DType, row: &[f64]) -> f64 {
    let start = op.identity(from);
    let extremum = |better: fn(f64, f64) -> bool| {
        let pick = |best: f64, &v: &f64| if best.is_nan() || !(v.is_nan() || better(v, best)) { best } else { v };
        row.iter().fold(start, pick)
    };
    let value = match op {
        ReduceOp::Sum => row.iter().sum(),
        ReduceOp::Prod if from.compute() != DType::F32 => {
            row.iter().fold(1u32, |p, &v| p.wrapping_mul(v as i64 as u32)) as f64
        }
        ReduceOp::Prod => row.iter().product(),
        ReduceOp::Max => extremum(|v, best| v > best),
        ReduceOp::Min => extremum(|v, best| v < best),
        ReduceOp::ArgMax => {
            let better = |v: f64, best: f64| !best.is_nan() && (v.is_nan() || v > best);
            (1..row.len()).fold(0, |at, i| if better(row[i], row[at]) { i } else { at }) as f64
        }
    };
    match to.compute() {
        DType::I32 => value as i64 as u32 as i32 as f64,
        DType::U32 => value as i64 as u32 as f64,
        _ => value,
    }
}

fn body(body: &Body, at: &[usize], env: &Env) -> Vec<f64> {
    let mut values = Vec::with_capacity(body.instrs.len());
    for v in 0..body.instrs.len() {
        let value = step(body, v, at, &values, env);
        values.push(value);
    }
    values
}

/// The value of a body's last step at a point.
pub(crate) fn value(of: &Body, at: &[usize], args: &[Vec<f64>]) -> f64 {
    *body(of, at, &Env { args, scalars: &[], acc: 0.0 }).last().expect("an operand has steps")
}

fn run_dot(k: &Dot, args: &[Vec<f64>], scalars: &[f64], out: &mut [Vec<f64>]) {
    let mut env = Env { args, scalars, acc: 0.0 };
    let ks = points(&k.k);
    for b in points(&k.batch) {
        for m in points(&k.m) {
            let lhs = |j: &Vec<usize>| *body(&k.lhs, &[&b[..], &m, j].concat(), &env).last().unwrap();
            let lhs: Vec<f64> = ks.iter().map(lhs).collect();
            for n in points(&k.n) {
                let rhs = |j: &Vec<usize>| *body(&k.rhs, &[&b[..], j, &n].concat(), &env).last().unwrap();
                env.acc = ks.iter().zip(&lhs).map(|(j, l)| l * rhs(j)).sum();
                let at = [&b[..], &m, &n].concat();
                let values = body(&k.epilogue, &at, &env);
                for store in &k.epilogue.stores {
                    let value = keep(&k.args[store.arg as usize], values[store.value as usize]);
                    out[store.arg as usize][store.index.eval(&at) as usize] = value;
                }
            }
        }
    }
}

fn run_scatter(k: &Scatter, args: &[Vec<f64>], out: &mut [Vec<f64>]) {
    let [outer, index, inner] = [&k.outer, &k.index, &k.inner].map(|dims| dims.iter().product::<usize>());
    let mut sums = vec![0.0; outer * k.size * inner];
    for o in 0..outer {
        for i in 0..index {
            let place = (args[0][i].max(0.0) as usize).min(k.size - 1);
            for c in 0..inner {
                sums[(o * k.size + place) * inner + c] += args[1][(o * index + i) * inner + c];
            }
        }
    }
    out[2] = sums.into_iter().map(|v| keep(&k.args[2], v)).collect();
}

/// The places of each row's elements, in order.
fn rows_along(outer: usize, len: usize, inner: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..outer * inner).map(move |r| (0..len).map(|n| (r / inner * len + n) * inner + r % inner).collect())
}

fn run_scan(k: &Scan, args: &[Vec<f64>], out: &mut [Vec<f64>]) {
    let dtype = k.args[0].dtype;
    for mut row in rows_along(k.outer, k.len, k.inner) {
        if k.reverse {
            row.reverse();
        }
        let mut sum = k.op.identity(dtype);
        for at in row {
            // Whole numbers wrap at each step, or they would leave what an f64 holds.
            sum = reduce(k.op, dtype, dtype, &[sum, args[0][at]]);
            out[1][at] = keep(&k.args[1], sum);
        }
    }
}

fn run_sort(k: &Sort, args: &[Vec<f64>], out: &mut [Vec<f64>]) {
    let order = sort::Sort { part: Part::Values, axis: 0, descending: k.descending, keep: k.keep };
    let kept: Vec<Vec<usize>> = rows_along(k.outer, k.keep, k.inner).collect();
    for (row, to) in rows_along(k.outer, k.len, k.inner).zip(kept) {
        let mut places: Vec<usize> = (0..k.len).collect();
        places.sort_by(|&a, &b| order.order(args[0][row[a]], args[0][row[b]]));
        for (&to, &place) in to.iter().zip(&places) {
            for &(part, arg) in &k.stores {
                out[arg as usize][to] = if part == Part::Values { args[0][row[place]] } else { place as f64 };
            }
        }
    }
}
