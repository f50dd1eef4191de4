//! Contractions in all layouts, ragged and empty, with prologues and epilogues, in every schedule.

use std::collections::BTreeSet;

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::{Access, Arg, Body, Dot, Instr};
use kiln_ir::{Bound, DType, Index, Kernel, PointOp};

use crate::harness::{
    SCHEDULES, Steps, check, check_in, check_on, numbers, read, row_major, with_few_workgroups, write,
};

/// A body that is one load.
pub(crate) fn load(arg: u32, dtype: DType, index: Index, valid: Vec<Bound>) -> Body {
    let mut body = Body::default();
    body.push(Instr::Load { arg, index, valid, gather: None }, dtype.compute());
    body
}

/// An epilogue that stores the sum, rounded.
pub(crate) fn plain(arg: u32, dtype: DType, dims: &[usize]) -> Body {
    let mut body = Body::default();
    let mut value = body.push(Instr::Acc, DType::F32);
    if dtype != DType::F32 {
        value = body.push(Instr::Cast(dtype, value), DType::F32);
    }
    body.store(arg, row_major(0, dims), value);
    body
}

pub(crate) fn strided(strides: [i64; 3], dims: [usize; 3]) -> Index {
    (0..3).fold(Index::default(), |sum, axis| sum.add(&Index::var(axis).scale(strides[axis]), &dims))
}

/// `[b, m, k] · [b, k, n]`, either operand stored transposed.
pub(crate) fn matmul([b, m, k, n]: [usize; 4], [lhs_t, rhs_t]: [bool; 2], dtype: DType) -> (Kernel, Vec<Vec<f64>>) {
    let (mi, ki, ni) = (m as i64, k as i64, n as i64);
    let lhs = if lhs_t { [mi * ki, 1, mi] } else { [mi * ki, ki, 1] };
    let rhs = if rhs_t { [ki * ni, 1, ki] } else { [ki * ni, ni, 1] };
    let kernel = Kernel::Dot(Dot {
        batch: vec![b],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        args: vec![read(dtype, b * m * k), read(dtype, b * k * n), write(dtype, b * m * n)],
        lhs: load(0, dtype, strided(lhs, [b, m, k]), vec![]),
        rhs: load(1, dtype, strided(rhs, [b, k, n]), vec![]),
        epilogue: plain(2, dtype, &[b, m, n]),
    });
    let values = vec![
        numbers(1, b * m * k, dtype, (-1.0, 1.0)),
        numbers(2, b * k * n, dtype, (-1.0, 1.0)),
        vec![0.0; b * m * n],
    ];
    (kernel, values)
}

/// Extents and transposed operands: tiles and their edges, quads that end within one, none of an axis.
const LAYOUTS: [([usize; 4], [bool; 2]); 19] = [
    ([1, 64, 32, 64], [false, false]),
    ([1, 65, 33, 67], [false, true]),
    ([1, 130, 20, 131], [true, false]),
    ([3, 5, 7, 9], [false, false]),
    ([2, 40, 17, 34], [true, true]),
    ([1, 1, 300, 50], [false, false]),
    ([1, 70, 257, 1], [false, true]),
    ([1, 4, 1, 4], [false, false]),
    // Whole quads of columns that end within a tile: what lies beyond is another row's.
    ([2, 37, 9, 12], [false, true]),
    ([1, 70, 33, 68], [false, false]),
    ([1, 6, 0, 5], [false, false]),
    ([1, 0, 4, 5], [false, false]),
    ([1, 128, 8, 128], [false, false]),
    // Tiles that are wider than high, and the reverse; k in parts that are whole or not.
    ([1, 70, 40, 132], [false, false]),
    ([1, 131, 37, 68], [true, true]),
    ([2, 66, 52, 64], [false, true]),
    ([1, 36, 100, 36], [true, false]),
    ([1, 16, 70, 64], [false, false]),
    ([2, 19, 33, 70], [true, true]),
];

#[test]
fn layouts_and_ragged_edges() {
    for (dims, transposed) in LAYOUTS {
        let (kernel, values) = matmul(dims, transposed, DType::F32);
        check(&kernel, &values, &[], 1e-5);
    }
}

/// What stands above is of little use if all of it is done in the same tiles.
#[test]
fn all_tiles_are_among_them() {
    let target = Target { schedule: Schedule::Shared, ..Target::default() };
    let how = |(dims, transposed)| {
        let wgsl = emit(&matmul(dims, transposed, DType::F32).0, &target).unwrap().wgsl;
        wgsl.lines().nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    let tiles: BTreeSet<String> = LAYOUTS.into_iter().map(how).collect();
    let sizes = ["128 x 128", "128 x 64", "64 x 128", "64 x 64", "16 x 64", "32 x 32"];
    assert_eq!(tiles, sizes.iter().map(|size| format!("// tiles of {size}")).collect());
}

/// 128 tiles of 128 x 64 are one turn of an H200's processors, and 16 of an M1's cores; a product that fills no large
/// GPU fills a small one.
#[test]
fn tiles_are_those_of_the_devices_size() {
    let how = |dims, parts| {
        let wgsl =
            emit(&matmul(dims, [false, false], DType::F32).0, &Target { parts, ..Target::default() }).unwrap().wgsl;
        wgsl.lines().nth(1).unwrap().to_owned()
    };
    let [large, small] = [132, 8].map(|parts| how([1, 1024, 64, 1024], parts));
    assert!(large.contains("64 x 64") && small.contains("128 x 64"), "{large} {small}");
    let [large, small] = [132, 8].map(|parts| how([1, 128, 64, 128], parts));
    assert!(!large.contains("tiles") && small.contains("tiles"), "{large} {small}");
}

#[test]
fn few_workgroups_come_back_for_more() {
    for schedule in SCHEDULES {
        let Some(device) = with_few_workgroups(schedule) else { return };
        for (dims, transposed) in [([3, 130, 20, 131], [false, true]), ([1, 70, 257, 1], [false, false])] {
            let (kernel, values) = matmul(dims, transposed, DType::F32);
            assert!(emit(&kernel, device.target()).unwrap().workgroups <= 7);
            check_on(&device, &kernel, &values, &[], 1e-5);
        }
    }
}

#[test]
fn narrow_operands_and_results() {
    for (dims, dtype) in [([2, 10, 33, 12], DType::F16), ([1, 9, 40, 7], DType::BF16), ([1, 34, 20, 70], DType::BF16)] {
        let (kernel, values) = matmul(dims, [false, true], dtype);
        check(&kernel, &values, &[], 1e-5);
    }
}

/// `relu(x · dequantize(w) · s + bias)` and its sign, added into what is there.
#[test]
fn prologues_and_epilogues() {
    let (m, k, n) = (37, 21, 45);
    let mut rhs = load(1, DType::U8, row_major(0, &[k, n]), vec![]);
    let x = rhs.push(Instr::Cast(DType::F32, 0), DType::F32);
    let zero_point = rhs.constant(DType::F32, 128.0);
    let x = rhs.op(PointOp::Sub, &[x, zero_point], DType::F32);
    let scale = rhs.constant(DType::F32, 1.0 / 128.0);
    rhs.op(PointOp::Mul, &[x, scale], DType::F32);
    let mut epilogue = Body::default();
    let acc = epilogue.push(Instr::Acc, DType::F32);
    let s = epilogue.push(Instr::Scalar(DType::F32, 0), DType::F32);
    let bias = epilogue.load(2, DType::F32, Index::var(1));
    let old = epilogue.load(3, DType::F32, row_major(0, &[m, n]));
    let y = epilogue.op(PointOp::Mul, &[acc, s], DType::F32);
    let y = epilogue.op(PointOp::Add, &[y, bias], DType::F32);
    let y = epilogue.op(PointOp::Relu, &[y], DType::F32);
    let sum = epilogue.op(PointOp::Add, &[old, y], DType::F32);
    let whole = epilogue.op(PointOp::Floor, &[y], DType::F32);
    epilogue.store(3, row_major(0, &[m, n]), sum);
    epilogue.store(4, Index::var(1).scale(m as i64).add(&Index::var(0), &[m, n]), whole);
    let own = Arg { dtype: DType::F32, numel: m * n, access: Access::ReadWrite };
    let kernel = Kernel::Dot(Dot {
        batch: vec![],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        args: vec![read(DType::F32, m * k), read(DType::U8, k * n), read(DType::F32, n), own, write(DType::F32, m * n)],
        lhs: load(0, DType::F32, row_major(0, &[m, k]), vec![]),
        rhs,
        epilogue,
    });
    let values = [
        numbers(1, m * k, DType::F32, (-1.0, 1.0)),
        numbers(2, k * n, DType::U8, (0.0, 256.0)),
        numbers(3, n, DType::F32, (-1.0, 1.0)),
        numbers(4, m * n, DType::F32, (-1.0, 1.0)),
        vec![0.0; m * n],
    ];
    check_in(&SCHEDULES, &kernel, &values, &[(DType::F32, 0.37f32 as f64)], 2e-5);
}

/// An optimizer's update: what a row has is loaded up to a ragged edge, and written over.
#[test]
fn an_update_goes_over_what_it_loads() {
    for dims in [[1, 37, 21, 44], [2, 64, 40, 128], [1, 130, 16, 132], [3, 129, 33, 68], [1, 3, 8, 200]] {
        let [b, m, _, n] = dims;
        let (kernel, mut values) = matmul(dims, [false, true], DType::F32);
        let Kernel::Dot(mut dot) = kernel else { unreachable!("a contraction") };
        let at = row_major(0, &[b, m, n]);
        let mut epilogue = Body::default();
        let acc = epilogue.push(Instr::Acc, DType::F32);
        let old = epilogue.load(2, DType::F32, at.clone());
        let other = epilogue.load(3, DType::F32, at.clone());
        let bias = epilogue.load(4, DType::F32, Index::var(2));
        let rate = epilogue.push(Instr::Scalar(DType::F32, 0), DType::F32);
        let mean = epilogue.op(PointOp::Add, &[acc, other], DType::F32);
        let step = epilogue.op(PointOp::Mul, &[mean, rate], DType::F32);
        let new = epilogue.op(PointOp::Sub, &[old, step], DType::F32);
        let new = epilogue.op(PointOp::Add, &[new, bias], DType::F32);
        epilogue.store(2, at.clone(), new);
        epilogue.store(3, at, mean);
        let own = Arg { dtype: DType::F32, numel: b * m * n, access: Access::ReadWrite };
        dot.args = vec![dot.args[0].clone(), dot.args[1].clone(), own.clone(), own, read(DType::F32, n)];
        dot.epilogue = epilogue;
        values[2] = numbers(4, b * m * n, DType::F32, (-1.0, 1.0));
        values.extend([numbers(5, b * m * n, DType::F32, (-1.0, 1.0)), numbers(6, n, DType::F32, (-1.0, 1.0))]);
        check_in(&SCHEDULES, &Kernel::Dot(dot), &values, &[(DType::F32, 0.37f32 as f64)], 2e-5);
    }
}

/// A padded, strided convolution: `m` is image and position, `k` is channel and window.
#[test]
fn a_convolution_is_an_operand_with_bounds() {
    let (images, channels, size, out, window, stride) = (2i64, 3i64, 9i64, 6i64, 3i64, 2i64);
    let count = (size + 2 - window) / stride + 1;
    let m = [images, count, count].map(|d| d as usize);
    let k = [channels, window, window].map(|d| d as usize);
    let dims: Vec<usize> = [m, k].concat();
    let place =
        |position: usize, step: usize| Index::var(position).scale(stride).add(&Index::var(step), &dims).offset(-1);
    let (y, x) = (place(1, 4), place(2, 5));
    let index = Index::var(0).scale(channels * size * size).add(&Index::var(3).scale(size * size), &dims);
    let index = index.add(&y.clone().scale(size), &dims).add(&x, &dims);
    let valid = [y, x].map(|index| Bound { index, lo: 0, hi: size }).to_vec();
    // Weights [out, channels, window, window], read as [k.., n].
    let n = out as usize;
    let per = (channels * window * window) as usize;
    let weight = row_major(0, &k).add(&Index::var(3).scale(per as i64), &[&k[..], &[n]].concat());
    // The result is [image, out, y, x].
    let results = [&m[..], &[n]].concat();
    let area = count * count;
    let store = Index::var(0).scale(out * area).add(&Index::var(3).scale(area), &results);
    let store = store.add(&Index::var(1).scale(count), &results).add(&Index::var(2), &results);
    let mut epilogue = Body::default();
    let acc = epilogue.push(Instr::Acc, DType::F32);
    epilogue.store(2, store, acc);
    let numel = results.iter().product();
    let input = (images * channels * size * size) as usize;
    let kernel = Kernel::Dot(Dot {
        batch: vec![],
        m: m.to_vec(),
        n: vec![n],
        k: k.to_vec(),
        args: vec![read(DType::F32, input), read(DType::F32, per * n), write(DType::F32, numel)],
        lhs: load(0, DType::F32, index, valid),
        rhs: load(1, DType::F32, weight, vec![]),
        epilogue,
    });
    let values =
        [numbers(1, input, DType::F32, (-1.0, 1.0)), numbers(2, per * n, DType::F32, (-1.0, 1.0)), vec![0.0; numel]];
    check(&kernel, &values, &[], 1e-5);
}

/// Several axes of every kind, an operand looked up in a table, and a coordinate in the epilogue.
#[test]
fn several_axes_of_every_kind() {
    let (b, m, n, k) = ([2, 3], [4, 2], [3, 5], [2, 7]);
    let lhs_dims = [b, m, k].concat();
    // Permuted: k outermost, then m, then b.
    let order = [4, 5, 2, 3, 0, 1];
    let mut step = 1;
    let mut index = Index::default();
    for axis in order.into_iter().rev() {
        index = index.add(&Index::var(axis).scale(step), &lhs_dims);
        step *= lhs_dims[axis] as i64;
    }
    let rhs_dims = [b, k, n].concat();
    let mut rhs = Body::default();
    let token = rhs.load(3, DType::I32, row_major(2, &k));
    let table = Index::var(6).scale(15).add(&row_major(4, &n), &[&rhs_dims[..], &[9]].concat());
    rhs.push(Instr::Load { arg: 1, index: table, valid: vec![], gather: Some((token, 9)) }, DType::F32);
    let dims = [b, m, n].concat();
    let mut epilogue = Body::default();
    let acc = epilogue.push(Instr::Acc, DType::F32);
    let at = epilogue.push(Instr::Coord(Index::var(5).add(&Index::var(1), &dims)), DType::I32);
    let at = epilogue.push(Instr::Cast(DType::F32, at), DType::F32);
    let y = epilogue.op(PointOp::Add, &[acc, at], DType::F32);
    epilogue.store(2, row_major(0, &dims), y);
    let (l, out) = (lhs_dims.iter().product(), dims.iter().product());
    let kernel = Kernel::Dot(Dot {
        batch: b.to_vec(),
        m: m.to_vec(),
        n: n.to_vec(),
        k: k.to_vec(),
        args: vec![read(DType::F32, l), read(DType::F32, 9 * 15), write(DType::F32, out), read(DType::I32, 14)],
        lhs: load(0, DType::F32, index, vec![]),
        rhs,
        epilogue,
    });
    let values = [
        numbers(1, l, DType::F32, (-1.0, 1.0)),
        numbers(2, 9 * 15, DType::F32, (-1.0, 1.0)),
        vec![0.0; out],
        numbers(3, 14, DType::I32, (-2.0, 11.0)),
    ];
    check(&kernel, &values, &[], 1e-5);
}
