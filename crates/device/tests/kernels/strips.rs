//! Loops that take neighbours at once: of every width of element, with what they share and what they do not.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp, ReduceOp};

use crate::harness::{Steps, check, check_on, numbers, read, row_major, with_few_workgroups, write};

/// `x[i, j] · scale[i] + bias[j] + x[i, j - 1] + table[token[i], j] + j`, kept as each of these dtypes; `x` in place.
pub(crate) fn mixed(rows: usize, columns: usize, dtype: DType, kept: &[DType]) -> (Kernel, Vec<Vec<f64>>) {
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
fn a_large_loop_asks_for_several_elements_at_once() {
    for (columns, kept, text) in [(1032, &[DType::U8][..], "a0: array<vec4<f32>>"), (1031, &[], "strip_3")] {
        let (kernel, values) = mixed(1027, columns, DType::F32, kept);
        let wgsl = emit(&kernel, &Target::default()).unwrap().wgsl;
        assert!(wgsl.contains(text), "{wgsl}");
        check(&kernel, &values, &[], 0.0);
    }
}

#[test]
fn an_argument_with_another_access_stays_as_it_is() {
    // `x[i] + y[i] + y[n - 1 - i]` as bytes, of which four are a word: `y` is walked both ways.
    let n = 64;
    let mut body = Body::default();
    let x = body.load(0, DType::F32, Index::var(0));
    let y = body.load(1, DType::F32, Index::var(0));
    let z = body.load(1, DType::F32, Index::var(0).scale(-1).offset(n as i64 - 1));
    let sum = body.op(PointOp::Add, &[x, y], DType::F32);
    let sum = body.op(PointOp::Add, &[sum, z], DType::F32);
    let sum = body.push(Instr::Cast(DType::U8, sum), DType::U32);
    body.store(2, Index::var(0), sum);
    let args = vec![read(DType::F32, n), read(DType::F32, n), write(DType::U8, n)];
    let kernel = Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body });
    let values = [numbers(1, n, DType::U8, (0.0, 80.0)), numbers(2, n, DType::U8, (0.0, 80.0)), vec![0.0; n]];
    check(&kernel, &values, &[], 0.0);
    let wgsl = emit(&kernel, &Target { schedule: Schedule::Shared, ..Target::default() }).unwrap().wgsl;
    assert!(wgsl.contains("a0: array<vec4<f32>>") && wgsl.contains("a1: array<f32>"), "{wgsl}");
}

/// `(x - mean) / (deviation + 1) · weight` of each row of `x`, and the mean beside it.
pub(crate) fn norm(rows: usize, len: usize, dtype: DType) -> (Kernel, Vec<Vec<f64>>) {
    let at = row_major(0, &[rows, len]);
    let mut body = Body::default();
    let x = body.load(0, dtype, at.clone());
    let n = body.constant(DType::F32, len as f64);
    let sum = body.reduce(ReduceOp::Sum, x);
    let mean = body.op(PointOp::Div, &[sum, n], DType::F32);
    let centred = body.op(PointOp::Sub, &[x, mean], DType::F32);
    let square = body.op(PointOp::Mul, &[centred, centred], DType::F32);
    let squares = body.reduce(ReduceOp::Sum, square);
    let variance = body.op(PointOp::Div, &[squares, n], DType::F32);
    let deviation = body.op(PointOp::Sqrt, &[variance], DType::F32);
    let one = body.constant(DType::F32, 1.0);
    let scale = body.op(PointOp::Add, &[deviation, one], DType::F32);
    let y = body.op(PointOp::Div, &[centred, scale], DType::F32);
    let weight = body.load(1, dtype, Index::var(1));
    let y = body.op(PointOp::Mul, &[y, weight], DType::F32);
    let y = if dtype == DType::F32 { y } else { body.push(Instr::Cast(dtype, y), DType::F32) };
    let kept = if dtype == DType::F32 { mean } else { body.push(Instr::Cast(dtype, mean), DType::F32) };
    body.store(2, at, y);
    body.store(3, Index::var(0), kept);
    let args = vec![read(dtype, rows * len), read(dtype, len), write(dtype, rows * len), write(dtype, rows)];
    let x = numbers(1, rows * len, dtype, (-3.0, 5.0));
    let values = vec![x, numbers(2, len, dtype, (-1.0, 1.0)), vec![0.0; rows * len], vec![0.0; rows]];
    (Kernel::Loop(Loop { outer: vec![rows], row: vec![len], args, body }), values)
}

/// Checks a kernel, also where workgroups come back for more.
#[track_caller]
fn check_often(kernel: &Kernel, values: &[Vec<f64>], tolerance: f64) {
    check(kernel, values, &[], tolerance);
    let Some(few) = with_few_workgroups(Schedule::Shared) else { return };
    check_on(&few, kernel, values, &[], tolerance);
}

#[test]
fn rows_stay_in_registers_whatever_their_length() {
    for (rows, len) in
        [(1, 8), (40, 12), (3, 17), (5, 127), (3, 129), (9, 1000), (2, 1023), (2, 4096), (3, 8196), (16_390, 10)]
    {
        let (kernel, values) = norm(rows, len, DType::F32);
        check_often(&kernel, &values, 3e-5);
    }
    for (rows, len) in [(40, 12), (3, 1000), (2, 4096), (2, 66), (16_387, 16), (16_385, 10)] {
        let (kernel, values) = norm(rows, len, DType::F16);
        check_often(&kernel, &values, 3e-5);
    }
    // So long that passes are loops.
    let (kernel, values) = norm(1, 40_012, DType::F32);
    check_often(&kernel, &values, 3e-5);
}

/// Sums over rows of `g` and of `g · (x - (mean + other)) + bias`, and the place of the greatest: a norm's gradients.
pub(crate) fn column_sums(rows: usize, columns: usize, dtype: DType) -> (Kernel, Vec<Vec<f64>>) {
    let at = Index::var(1).scale(columns as i64).add(&Index::var(0), &[columns, rows]);
    let mut body = Body::default();
    let g = body.load(0, dtype, at.clone());
    let x = body.load(1, dtype, at);
    let mean = body.load(2, DType::F32, Index::var(1));
    let other = body.load(7, DType::F32, Index::var(1));
    let mean = body.op(PointOp::Add, &[mean, other], DType::F32);
    let bias = body.load(3, DType::F32, Index::var(0));
    let centred = body.op(PointOp::Sub, &[x, mean], DType::F32);
    let product = body.op(PointOp::Mul, &[g, centred], DType::F32);
    let product = body.op(PointOp::Add, &[product, bias], DType::F32);
    let first = body.reduce(ReduceOp::Sum, g);
    let second = body.reduce(ReduceOp::Sum, product);
    let place = body.reduce(ReduceOp::ArgMax, g);
    let second = body.op(PointOp::Mul, &[second, bias], DType::F32);
    body.store(4, Index::var(0), first);
    body.store(5, Index::var(0), second);
    body.store(6, Index::var(0), place);
    let n = rows * columns;
    let mut args = vec![read(dtype, n), read(dtype, n), read(DType::F32, rows), read(DType::F32, columns)];
    args.extend([
        write(dtype, columns),
        write(DType::F32, columns),
        write(DType::I32, columns),
        read(DType::F32, rows),
    ]);
    let values = |(n, arg): (usize, &Arg)| numbers(n as u32, arg.numel, arg.dtype, (0.0, 1.0));
    let values = args.iter().enumerate().map(values).collect();
    (Kernel::Loop(Loop { outer: vec![columns], row: vec![rows], args, body }), values)
}

#[test]
fn columns_are_summed_in_strips() {
    for (rows, columns) in [(1, 4), (3, 8), (17, 64), (127, 20), (129, 1000), (1000, 36), (6000, 8), (70, 1023)] {
        let (kernel, values) = column_sums(rows, columns, DType::F32);
        check_often(&kernel, &values, 3e-5);
    }
    let (kernel, values) = column_sums(129, 40, DType::F16);
    check_often(&kernel, &values, 3e-5);
    let wgsl = emit(&kernel, &Target::default()).unwrap().wgsl;
    assert!(wgsl.contains("each 4 rows") && wgsl.contains("a0: array<vec2<u32>>"), "{wgsl}");
}

/// `x[j, i] + y[i, j] · bias[j]`, kept as it lies or turned.
pub(crate) fn turned(b: usize, [m, n]: [usize; 2], dtype: DType, to: DType, stored: bool) -> (Kernel, Vec<Vec<f64>>) {
    let dims = [b, m, n];
    let across = [b, n, m];
    let at = row_major(0, &dims);
    let turned = row_major(0, &across).rename(&|axis| [0, 2, 1][axis]);
    let mut body = Body::default();
    let x = body.load(0, dtype, if stored { at.clone() } else { turned.clone() });
    let y = body.load(1, DType::F32, if stored { turned.clone() } else { at.clone() });
    let bias = body.load(2, dtype, Index::var(2));
    let y = body.op(PointOp::Mul, &[y, bias], DType::F32);
    let sum = body.op(PointOp::Add, &[x, y], DType::F32);
    let sum = if to == DType::F32 { sum } else { body.push(Instr::Cast(to, sum), to.compute()) };
    body.store(3, if stored { turned } else { at }, sum);
    let numel = b * m * n;
    let args = vec![read(dtype, numel), read(DType::F32, numel), read(dtype, n), write(to, numel)];
    let values = |(n, arg): (usize, &Arg)| numbers(n as u32, arg.numel, DType::U8, (0.0, 9.0));
    let values = args.iter().enumerate().map(values).collect();
    (Kernel::Loop(Loop { outer: dims.to_vec(), row: vec![], args, body }), values)
}

#[test]
fn what_lies_turned_goes_through_tiles() {
    for (b, dims) in [(1, [17, 16]), (2, [32, 64]), (1, [129, 127]), (3, [40, 1000]), (1, [1023, 33]), (40, [16, 20])] {
        for stored in [false, true] {
            let (kernel, values) = turned(b, dims, DType::F32, DType::F32, stored);
            let target = Target { schedule: Schedule::Shared, ..Target::default() };
            let wgsl = emit(&kernel, &target).unwrap().wgsl;
            assert!(wgsl.contains("tile_f32_0"), "{wgsl}");
            check_often(&kernel, &values, 0.0);
        }
    }
    for (to, text) in [(DType::F16, "a3: array<vec2<u32>>"), (DType::U8, "a3: array<u32>")] {
        let (kernel, values) = turned(2, [40, 36], DType::F16, to, false);
        check_often(&kernel, &values, 0.0);
        let wgsl = emit(&kernel, &Target::default()).unwrap().wgsl;
        assert!(wgsl.contains(text) && wgsl.contains("tile_f32_0"), "{wgsl}");
        // A row of odd length shares words with its neighbours, so that no tile owns them.
        for dims in [[17, 17], [40, 35]] {
            let (kernel, values) = turned(1, dims, DType::F32, to, false);
            check_often(&kernel, &values, 0.0);
        }
    }
}

/// Its text is long: four times of it would take a driver seconds.
#[test]
fn random_words_stand_in_the_text_once() {
    let n = 4096;
    let mut body = Body::default();
    let place = body.push(Instr::Coord(Index::var(0)), DType::I32);
    let counter = body.push(Instr::Cast(DType::U32, place), DType::U32);
    let key = body.constant(DType::U32, 7.0);
    let word = body.op(PointOp::Threefry, &[key, key, counter], DType::U32);
    body.store(0, Index::var(0), word);
    let kernel = Kernel::Loop(Loop { outer: vec![n], row: vec![], args: vec![write(DType::U32, n)], body });
    let wgsl = emit(&kernel, &Target::default()).unwrap().wgsl;
    assert_eq!(wgsl.matches("k_threefry_u32(").count(), 2, "its definition and a call: {wgsl}");
    check(&kernel, &[vec![0.0; n]], &[], 0.0);
}
