//! Loops that take neighbours at once: of every width of element, with what they share and what they do not.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp};

use crate::harness::{Steps, check, numbers, read, row_major, write};

/// `x[i, j] · scale[i] + bias[j] + x[i, j - 1] + table[token[i], j] + j`, kept as each of these dtypes; `x` in place.
fn mixed(rows: usize, columns: usize, dtype: DType, kept: &[DType]) -> (Kernel, Vec<Vec<f64>>) {
    let dims = [rows, columns, 9];
    let at = row_major(0, &[rows, columns]);
    let mut body = Body::default();
    let x = body.load(0, dtype, at.clone());
    let scale = body.load(1, DType::F32, Index::var(0));
    let bias = body.load(2, dtype, Index::var(1));
    let valid = vec![Bound { index: Index::var(1), lo: 1, hi: columns as i64 }];
    let before = Instr::Load { arg: 3, index: at.clone().offset(-1), valid, gather: None };
    let before = body.push(before, DType::F32);
    let token = body.load(4, DType::I32, Index::var(0));
    let index = Index::var(2).scale(columns as i64).add(&Index::var(1), &dims);
    let valid = vec![Bound { index: Index::var(0), lo: 1, hi: rows as i64 }];
    let looked_up = Instr::Load { arg: 5, index, valid, gather: Some((token, 9)) };
    let looked_up = body.push(looked_up, DType::F32);
    let j = body.push(Instr::Coord(Index::var(1)), DType::I32);
    let j = body.push(Instr::Cast(DType::F32, j), DType::F32);
    let product = body.op(PointOp::Mul, &[x, scale], DType::F32);
    let sum =
        [bias, before, looked_up, j].into_iter().fold(product, |sum, v| body.op(PointOp::Add, &[sum, v], DType::F32));
    body.store(0, at.clone(), sum);
    let n = rows * columns;
    let own = Arg { dtype, numel: n, access: Access::ReadWrite };
    let mut args = vec![own, read(DType::F32, rows), read(dtype, columns), read(DType::F32, n), read(DType::I32, rows)];
    args.push(read(DType::F32, 9 * columns));
    for &to in kept {
        let value = if to == DType::F32 { sum } else { body.push(Instr::Cast(to, sum), to.compute()) };
        body.store(args.len() as u32, at.clone(), value);
        args.push(write(to, n));
    }
    let values = |(n, arg): (usize, &Arg)| match arg.access {
        Access::Write => vec![0.0; arg.numel],
        // Whole numbers, so that every dtype holds every sum.
        _ => numbers(n as u32, arg.numel, DType::U8, (0.0, 5.0)),
    };
    let values = args.iter().enumerate().map(values).collect();
    (Kernel::Loop(Loop { outer: vec![rows, columns], row: vec![], args, body }), values)
}

#[test]
fn neighbours_share_what_is_the_same_for_them() {
    let all = [DType::F32, DType::F16, DType::BF16, DType::U8, DType::I32, DType::U32, DType::Bool];
    for (rows, columns) in [(1, 4), (3, 8), (17, 12), (127, 20), (5, 1000), (3, 1023)] {
        let (kernel, values) = mixed(rows, columns, DType::F32, &all[1..]);
        check(&kernel, &values, &[], 0.0);
        let (kernel, values) = mixed(rows, columns, DType::F16, &all[..1]);
        check(&kernel, &values, &[], 0.0);
    }
}

#[test]
fn a_large_loop_does_several_strips_at_once() {
    let (kernel, values) = mixed(1027, 1032, DType::F32, &[DType::U8]);
    let wgsl = emit(&kernel, &Target::default()).unwrap().wgsl;
    assert!(wgsl.contains("strip_1") && wgsl.contains("a0: array<vec4<f32>>"), "{wgsl}");
    check(&kernel, &values, &[], 0.0);
}

#[test]
fn an_argument_with_another_access_stays_as_it_is() {
    // `x[i] + y[i] + y[n - 1 - i]`: `y` is walked both ways.
    let n = 64;
    let mut body = Body::default();
    let x = body.load(0, DType::F32, Index::var(0));
    let y = body.load(1, DType::F32, Index::var(0));
    let z = body.load(1, DType::F32, Index::var(0).scale(-1).offset(n as i64 - 1));
    let sum = body.op(PointOp::Add, &[x, y], DType::F32);
    let sum = body.op(PointOp::Add, &[sum, z], DType::F32);
    body.store(2, Index::var(0), sum);
    let args = vec![read(DType::F32, n), read(DType::F32, n), write(DType::F32, n)];
    let kernel = Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body });
    let values = [numbers(1, n, DType::F32, (0.0, 1.0)), numbers(2, n, DType::F32, (0.0, 1.0)), vec![0.0; n]];
    check(&kernel, &values, &[], 1e-6);
    let wgsl = emit(&kernel, &Target { schedule: Schedule::Shared, ..Target::default() }).unwrap().wgsl;
    assert!(wgsl.contains("a0: array<vec4<f32>>") && wgsl.contains("a1: array<f32>"), "{wgsl}");
}
