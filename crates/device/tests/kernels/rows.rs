//! Rows with several passes: softmax, norms, narrow outputs, scalars, values kept in place.

use kiln_device::emit::Schedule;
use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop};
use kiln_ir::{DType, Index, Kernel, PointOp, ReduceOp};

use crate::harness::{Steps, check, check_in, numbers, read, row_major, write};

/// Checks softmax of each row, and the place and the sum beside it.
fn softmax(rows: usize, len: usize, dtype: DType, transposed: bool) {
    let kernel = softmax_kernel(rows, len, dtype, transposed);
    let values = numbers(len as u32, rows * len, dtype, (-8.0, 8.0));
    check(&kernel, &[values, vec![0.0; rows * len], vec![0.0; rows], vec![0.0; rows]], &[], 3e-5);
}

pub(crate) fn softmax_kernel(rows: usize, len: usize, dtype: DType, transposed: bool) -> Kernel {
    let dims = [rows, len];
    let strides = if transposed { [1, rows as i64] } else { [len as i64, 1] };
    let load = Index::var(0).scale(strides[0]).add(&Index::var(1).scale(strides[1]), &dims);
    let mut body = Body::default();
    let x = body.load(0, dtype, load);
    let top = body.reduce(ReduceOp::Max, x);
    let shifted = body.op(PointOp::Sub, &[x, top], DType::F32);
    let e = body.op(PointOp::Exp, &[shifted], DType::F32);
    let sum = body.reduce(ReduceOp::Sum, e);
    let y = body.op(PointOp::Div, &[e, sum], DType::F32);
    let y = if dtype == DType::F32 { y } else { body.push(Instr::Cast(dtype, y), DType::F32) };
    let log = body.op(PointOp::Log, &[sum], DType::F32);
    let at = body.reduce(ReduceOp::ArgMax, x);
    body.store(1, row_major(0, &dims), y);
    body.store(2, Index::var(0), log);
    body.store(3, Index::var(0), at);
    let args = vec![read(dtype, rows * len), write(dtype, rows * len), write(dtype, rows), write(DType::I32, rows)];
    Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body })
}

#[test]
fn softmax_is_three_passes() {
    for (rows, len) in [(3, 5), (33, 64), (5, 65), (2, 1000), (1, 3001), (70, 33)] {
        softmax(rows, len, DType::F32, false);
    }
    softmax(130, 40, DType::F32, true);
}

#[test]
fn narrow_rows_share_words() {
    for (rows, len) in [(3, 5), (7, 64), (6, 65), (1, 129), (4, 1)] {
        softmax(rows, len, DType::F16, false);
    }
    softmax(9, 66, DType::BF16, true);
}

/// `(x - mean) / sqrt(var + eps)` with a run-time eps, and running statistics kept in place.
#[test]
fn norms_keep_statistics_in_place() {
    for (rows, len) in [(5, 48), (3, 515)] {
        let dims = [rows, len];
        let mut body = Body::default();
        let x = body.load(0, DType::F32, row_major(0, &dims));
        let n = body.constant(DType::F32, len as f64);
        let eps = body.push(Instr::Scalar(DType::F32, 1), DType::F32);
        let rate = body.push(Instr::Scalar(DType::F32, 0), DType::F32);
        let on = body.push(Instr::Scalar(DType::Bool, 2), DType::Bool);
        let sum = body.reduce(ReduceOp::Sum, x);
        let mean = body.op(PointOp::Div, &[sum, n], DType::F32);
        let centred = body.op(PointOp::Sub, &[x, mean], DType::F32);
        let square = body.op(PointOp::Mul, &[centred, centred], DType::F32);
        let squares = body.reduce(ReduceOp::Sum, square);
        let var = body.op(PointOp::Div, &[squares, n], DType::F32);
        let var = body.op(PointOp::Add, &[var, eps], DType::F32);
        let scale = body.op(PointOp::Rsqrt, &[var], DType::F32);
        let y = body.op(PointOp::Mul, &[centred, scale], DType::F32);
        let weight = body.load(1, DType::F32, Index::var(1));
        let y = body.op(PointOp::Mul, &[y, weight], DType::F32);
        let running = body.load(2, DType::F32, Index::var(0));
        let step = body.op(PointOp::Sub, &[mean, running], DType::F32);
        let step = body.op(PointOp::Mul, &[step, rate], DType::F32);
        let next = body.op(PointOp::Add, &[running, step], DType::F32);
        let next = body.op(PointOp::Select, &[on, next, running], DType::F32);
        body.store(3, row_major(0, &dims), y);
        body.store(2, Index::var(0), next);
        let own = Arg { dtype: DType::F32, numel: rows, access: Access::ReadWrite };
        let args = vec![read(DType::F32, rows * len), read(DType::F32, len), own, write(DType::F32, rows * len)];
        let kernel = Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body });
        let values = [
            numbers(1, rows * len, DType::F32, (-3.0, 5.0)),
            numbers(2, len, DType::F32, (-1.0, 1.0)),
            numbers(3, rows, DType::F32, (-1.0, 1.0)),
            vec![0.0; rows * len],
        ];
        for on in [0.0, 1.0] {
            let scalars = [(DType::F32, 0.125), (DType::F32, 1e-5f32 as f64), (DType::Bool, on)];
            check(&kernel, &values, &scalars, 3e-5);
        }
    }
}

#[test]
fn extrema_of_rows_with_nan_and_ties() {
    let (rows, len) = (4, 70);
    let mut values = numbers(1, rows * len, DType::F32, (-1.0, 1.0));
    values[3] = f64::NAN;
    values[40] = f64::NAN;
    (values[len + 7], values[len + 61]) = (5.0, 5.0);
    values[2 * len..3 * len].fill(f64::NEG_INFINITY);
    let mut body = Body::default();
    let x = body.load(0, DType::F32, row_major(0, &[rows, len]));
    let zero = body.constant(DType::F32, 0.0);
    let positive = body.op(PointOp::Lt, &[zero, x], DType::Bool);
    let mut args = vec![read(DType::F32, rows * len)];
    let mut reduced = vec![values];
    for (i, op) in [ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::ArgMax].into_iter().enumerate() {
        let r = body.reduce(op, if i == 3 { positive } else { x });
        body.store(i as u32 + 1, Index::var(0), r);
        args.push(write(if i < 2 { DType::F32 } else { DType::I32 }, rows));
        reduced.push(vec![0.0; rows]);
    }
    let kernel = Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body });
    check(&kernel, &reduced, &[], 0.0);
}

/// Ones and tiny numbers: a sum that adds them one by one loses the tiny ones.
#[test]
fn long_sums_stay_accurate() {
    for (rows, len, transposed) in [(1, 200_000, false), (8, 30_000, true)] {
        let dims = [rows, len];
        let strides = if transposed { [1, rows as i64] } else { [len as i64, 1] };
        let load = Index::var(0).scale(strides[0]).add(&Index::var(1).scale(strides[1]), &dims);
        let mut body = Body::default();
        let x = body.load(0, DType::F32, load);
        let sum = body.reduce(ReduceOp::Sum, x);
        body.store(1, Index::var(0), sum);
        let args = vec![read(DType::F32, rows * len), write(DType::F32, rows)];
        let kernel = Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body });
        let values = numbers(9, rows * len, DType::F32, (0.0, 1.0));
        check(&kernel, &[values, vec![0.0; rows]], &[], 2e-6);
    }
}

#[test]
fn rows_of_several_axes_and_invariant_operands() {
    // Sums over axes 0 and 2 of [4, 3, 5], of what does not vary in the row too.
    let dims = [3, 4, 5];
    let load = Index::var(1).scale(15).add(&Index::var(0).scale(5), &dims).add(&Index::var(2), &dims);
    let mut body = Body::default();
    let x = body.load(0, DType::F32, load);
    let bias = body.load(1, DType::F32, Index::var(0));
    let j = body.push(Instr::Coord(Index::var(2)), DType::I32);
    let j = body.push(Instr::Cast(DType::F32, j), DType::F32);
    let y = body.op(PointOp::Mul, &[x, j], DType::F32);
    let (a, b) = (body.reduce(ReduceOp::Sum, y), body.reduce(ReduceOp::Sum, bias));
    let c = body.op(PointOp::Add, &[a, b], DType::F32);
    body.store(2, Index::var(0), c);
    let args = vec![read(DType::F32, 60), read(DType::F32, 3), write(DType::F32, 3)];
    let kernel = Kernel::Loop(Loop { outer: vec![3], row: vec![4, 5], args, body });
    let values = [numbers(1, 60, DType::F32, (-1.0, 1.0)), numbers(2, 3, DType::F32, (-1.0, 1.0)), vec![0.0; 3]];
    check_in(&[Schedule::Plain, Schedule::Shared], &kernel, &values, &[], 1e-5);
}
