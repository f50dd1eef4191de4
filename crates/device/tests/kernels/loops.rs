//! Loops: all ways to load, all reductions, rows of every length, in every schedule.

use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop};
use kiln_ir::{Axes, Bound, DType, Index, IndexMap, Kernel, Movement, PointOp, ReduceOp, Shape};

use crate::harness::{Steps, check, numbers, read, row_major, write};

/// A view of a tensor, as the index of a load and the bounds in which it holds.
fn view(from: &[usize], movements: &[Movement]) -> (Vec<usize>, Index, Vec<Bound>) {
    let mut shape = Shape::new(from);
    let mut map = IndexMap::identity(from);
    for m in movements {
        map = m.map(&shape).then(&map);
        shape = m.shape(&shape).unwrap();
    }
    (shape.to_vec(), map.flatten(from), map.valid)
}

/// Copies a view of one tensor into another dtype.
fn copy(from: &[usize], movements: &[Movement], dtype: DType, to: DType) {
    let (dims, index, valid) = view(from, movements);
    let (n, out) = (from.iter().product(), dims.iter().product());
    let mut body = Body::default();
    let x = body.push(Instr::Load { arg: 0, index, valid, gather: None }, dtype.compute());
    let x = if to == dtype { x } else { body.push(Instr::Cast(to, x), to.compute()) };
    body.store(1, row_major(0, &dims), x);
    let kernel = Kernel::Loop(Loop { outer: dims, row: vec![], args: vec![read(dtype, n), write(to, out)], body });
    let range = if dtype == DType::Bool { (0.0, 2.0) } else { (0.0, 200.0) };
    let values = numbers(1, n, if dtype == DType::Bool { DType::U8 } else { dtype }, range);
    check(&kernel, &[values, vec![0.0; out]], &[], 0.0);
}

#[test]
fn views_are_addresses() {
    let pad = |axis, lo, hi, interior| Movement::Pad { axis, lo, hi, interior };
    let slice = |axis, start, len, step| Movement::Slice { axis, start, len, step };
    let reshape = |dims: &[usize]| Movement::Reshape(Shape::new(dims));
    let window = Movement::Window { axis: 1, size: 3, stride: 2, dilation: 2 };
    let towers: &[(&[usize], &[Movement])] = &[
        (&[3, 5, 7], &[]),
        (&[3, 5, 7], &[Movement::Permute(Axes::new(&[2, 0, 1]))]),
        (&[4, 6], &[Movement::Flip(0), slice(1, 1, 2, 3)]),
        (&[4, 6], &[Movement::Permute(Axes::new(&[1, 0])), reshape(&[3, 8])]),
        (&[5, 7], &[Movement::Permute(Axes::new(&[1, 0])), reshape(&[35]), slice(0, 2, 30, 1), reshape(&[3, 10])]),
        (&[3, 4], &[pad(0, 1, 2, 1), pad(1, 2, 0, 0)]),
        (&[3, 9], std::slice::from_ref(&window)),
        (&[3, 1, 4], &[Movement::Expand(Shape::new(&[2, 3, 5, 4]))]),
        (&[2, 3, 3], &[Movement::Unwindow { axis: 1, len: 9, stride: 2, dilation: 2 }]),
        (&[6], &[pad(0, 3, 3, 0), Movement::Flip(0), reshape(&[4, 3]), Movement::Permute(Axes::new(&[1, 0]))]),
        (&[0, 3], &[]),
        (&[1, 1], &[]),
    ];
    for (from, movements) in towers {
        copy(from, movements, DType::F32, DType::F32);
    }
    copy(towers[4].0, towers[4].1, DType::F16, DType::U8);
    copy(towers[5].0, towers[5].1, DType::U8, DType::BF16);
    copy(towers[6].0, towers[6].1, DType::Bool, DType::Bool);
}

#[test]
fn narrow_dtypes_share_words() {
    let narrow = [DType::F16, DType::BF16, DType::U8];
    for (i, n) in [1, 2, 3, 4, 5, 7, 1001].into_iter().enumerate() {
        copy(&[n], &[], narrow[i % 3], narrow[(i + 1) % 3]);
        copy(&[n], &[], narrow[(i + 1) % 3], narrow[i % 3]);
    }
    // In place, and outputs of three widths from one point.
    let n = 999;
    let mut body = Body::default();
    let x = body.load(0, DType::F16, Index::var(0));
    let two = body.constant(DType::F32, 2.0);
    let y = body.op(PointOp::Add, &[x, two], DType::F32);
    let byte = body.push(Instr::Cast(DType::U8, y), DType::U32);
    body.store(0, Index::var(0), y);
    body.store(1, Index::var(0), byte);
    body.store(2, Index::var(0), y);
    let own = Arg { dtype: DType::F16, numel: n, access: Access::ReadWrite };
    let args = vec![own, write(DType::U8, n), write(DType::F32, n)];
    let kernel = Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body });
    check(&kernel, &[numbers(2, n, DType::F16, (-9.0, 99.0)), vec![0.0; n], vec![0.0; n]], &[], 1e-3);
}

#[test]
fn gathers_clamp() {
    // out[i, j] = table[index[i], j], and a gather by a gathered value.
    let (n, rows, columns) = (37, 11, 5);
    for dtype in [DType::I32, DType::U32] {
        let mut body = Body::default();
        let token = body.load(0, dtype, Index::var(0));
        let dims = [n, columns, rows];
        let index = Index::var(2).scale(columns as i64).add(&Index::var(1), &dims);
        let valid = vec![Bound { index: Index::var(2), lo: 0, hi: 9 }];
        let gather = Some((token, rows));
        let x = body.push(Instr::Load { arg: 1, index: index.clone(), valid: vec![], gather }, DType::F32);
        let masked = body.push(Instr::Load { arg: 1, index, valid, gather }, DType::F32);
        let sum = body.op(PointOp::Add, &[x, masked], DType::F32);
        body.store(2, row_major(0, &[n, columns]), sum);
        let args = vec![read(dtype, n), read(DType::F32, rows * columns), write(DType::F32, n * columns)];
        let kernel = Kernel::Loop(Loop { outer: vec![n, columns], row: vec![], args, body });
        let lo = if dtype == DType::I32 { -5.0 } else { 0.0 };
        let tokens = numbers(3, n, dtype, (lo, 20.0));
        let table = numbers(4, rows * columns, DType::F32, (-9.0, 9.0));
        check(&kernel, &[tokens, table, vec![0.0; n * columns]], &[], 1e-6);
    }
}

/// Every reduction of each row of `[rows, len]`, stored row-major or transposed.
fn reductions(rows: usize, len: usize, transposed: bool, dtype: DType, outs: DType) {
    let n = rows * len;
    let dims = [rows, len];
    let index = if transposed { [1, rows as i64] } else { [len as i64, 1] };
    let index = Index::var(0).scale(index[0]).add(&Index::var(1).scale(index[1]), &dims);
    let mut body = Body::default();
    let x = body.load(0, dtype, index);
    let mut args = vec![read(dtype, n)];
    let mut values = vec![numbers(len as u32, n, dtype, (0.5, if dtype == DType::F32 { 1.5 } else { 100.0 }))];
    for (i, op) in ReduceOp::ALL.into_iter().enumerate() {
        let r = body.reduce(op, x);
        let to = if op == ReduceOp::ArgMax { DType::I32 } else { outs };
        let r = if op == ReduceOp::ArgMax || to == dtype { r } else { body.push(Instr::Cast(to, r), to.compute()) };
        body.store(i as u32 + 1, Index::var(0), r);
        args.push(write(to, rows));
        values.push(vec![0.0; rows]);
    }
    let kernel = Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body });
    check(&kernel, &values, &[], if dtype == DType::F32 { 2e-5 } else { 0.0 });
}

#[test]
fn reductions_of_rows_of_every_length() {
    for len in [1, 3, 17, 63, 64, 65, 127, 129, 1000] {
        reductions(7, len, false, DType::F32, DType::F32);
    }
    for (rows, len) in [(1, 65), (5, 4099), (300, 33), (1, 1), (3, 0)] {
        reductions(rows, len, false, DType::F32, DType::F32);
    }
    reductions(5, 129, false, DType::I32, DType::I32);
    reductions(5, 129, false, DType::U32, DType::U32);
}

#[test]
fn reductions_of_columns_and_into_narrow_dtypes() {
    for (rows, len) in [(1, 3), (33, 17), (64, 129), (257, 70), (3, 1000)] {
        reductions(rows, len, true, DType::F32, DType::F32);
    }
    for (rows, len) in [(7, 65), (129, 40)] {
        reductions(rows, len, false, DType::F32, DType::F16);
        reductions(rows, len, true, DType::F32, DType::BF16);
    }
    reductions(9, 100, false, DType::U8, DType::U8);
}
