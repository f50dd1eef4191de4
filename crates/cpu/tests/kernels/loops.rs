//! Loops against the oracle: every row of `OPS`, every class of load, every reduction.

use crate::common::{Rng, check, decode, flat, load, masked, read, reduction, row_major, run_bytes, strided, write};
use kiln_cpu::CpuBackend;
use kiln_ir::kernel::{Access, Arg, Body, Instr, Loop, Store};
use kiln_ir::ops::{Tolerance, Typing};
use kiln_ir::{Bound, DType, Index, Kernel, OPS, PointOp, ReduceOp};

/// Applies one op to dense operands.
fn op_kernel(op: PointOp, dtypes: &[DType], result: DType, n: usize) -> Kernel {
    let mut body = Body::default();
    let loads: Vec<u32> =
        dtypes.iter().enumerate().map(|(i, t)| body.push(load(i as u32, flat(&[n])), t.compute())).collect();
    let last = *loads.last().unwrap();
    let operand = |i: usize| loads.get(i).copied().unwrap_or(last);
    let value = body.push(Instr::Op(op, [operand(0), operand(1), operand(2)]), result.compute());
    body.stores.push(Store { arg: dtypes.len() as u32, index: flat(&[n]), value });
    let mut args: Vec<Arg> = dtypes.iter().map(|&t| read(t, n)).collect();
    args.push(write(result, n));
    Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body })
}

#[test]
fn every_row_equals_its_reference() {
    let mut rng = Rng::new(1);
    for row in OPS {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::U32, DType::Bool] {
            let dtypes = match row.typing {
                Typing::Select => vec![DType::Bool, dtype, dtype],
                _ => vec![dtype; row.arity],
            };
            let Ok(result) = row.op.result(&dtypes) else { continue };
            for n in [1, 15, 16, 17, 1023, 3001] {
                let operand = |t: &DType| -> Vec<f64> {
                    let one = |rng: &mut Rng| match t {
                        DType::F32 | DType::F64 => t.round(rng.uniform(row.probe.0, row.probe.1)),
                        _ => rng.values(*t, 1)[0],
                    };
                    (0..n).map(|_| one(&mut rng)).collect()
                };
                let mut args: Vec<Vec<f64>> = dtypes.iter().map(operand).collect();
                args.push(vec![0.0; n]);
                let tolerance = match row.tolerance {
                    Tolerance::Exact => 0.0,
                    Tolerance::Relative(r) => r,
                };
                check(row.name, &op_kernel(row.op, &dtypes, result, n), &args, &[], tolerance);
            }
        }
    }
}

#[test]
fn integers_wrap_and_never_trap() {
    let ints = [i32::MIN, i32::MIN + 1, -7, -1, 0, 1, 2, 7, i32::MAX];
    let words = [0, 1, 2, 31, 32, 1 << 31, u32::MAX - 1, u32::MAX];
    let pairs = |all: Vec<f64>| -> [Vec<f64>; 2] {
        let n = all.len();
        [0, 1].map(|side| (0..n * n).map(|i| all[if side == 0 { i / n } else { i % n }]).collect())
    };
    for row in
        OPS.iter().filter(|r| r.arity <= 2 && matches!(r.typing, Typing::Number | Typing::Integer | Typing::Bits))
    {
        let cases = [(DType::I32, ints.map(|v| v as f64).to_vec()), (DType::U32, words.map(|v| v as f64).to_vec())];
        for (dtype, all) in cases {
            // The reference multiplies in i64 and loses bits beyond 53: keep one factor small there.
            let [x, y] = pairs(all);
            let y = if row.op == PointOp::Mul { y.iter().map(|v| v.clamp(-9.0, 9.0)).collect() } else { y };
            let n = x.len();
            let args = if row.arity == 1 { vec![x, vec![0.0; n]] } else { vec![x, y, vec![0.0; n]] };
            check(row.name, &op_kernel(row.op, &vec![dtype; row.arity], dtype, n), &args, &[], 0.0);
        }
    }
}

#[test]
fn nan_goes_where_the_rows_say() {
    let all = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5];
    let n = all.len() * all.len();
    let x: Vec<f64> = (0..n).map(|i| all[i / all.len()]).collect();
    let y: Vec<f64> = (0..n).map(|i| all[i % all.len()]).collect();
    let exact = |t: Tolerance| t == Tolerance::Exact;
    for row in OPS.iter().filter(|r| r.arity <= 2 && exact(r.tolerance)) {
        for dtype in [DType::F32, DType::F64] {
            let Ok(result) = row.op.result(&vec![dtype; row.arity]) else { continue };
            let args =
                if row.arity == 1 { vec![x.clone(), vec![0.0; n]] } else { vec![x.clone(), y.clone(), vec![0.0; n]] };
            check(row.name, &op_kernel(row.op, &vec![dtype; row.arity], result, n), &args, &[], 0.0);
        }
    }
}

#[test]
fn casts_round_as_the_dtype_says() {
    let floats =
        [0.0, -0.0, 0.4, -0.6, 1.5, 2.5, -2.5, 65503.0, 65520.0, 7e4, 255.4, 256.0, -1.0, 3e9, 5e9, -3e9, f64::NAN];
    for from in DType::ALL {
        for to in DType::ALL {
            let values: Vec<f64> = floats.iter().cycle().take(61).map(|&v| from.round(v)).collect();
            let mut body = Body::default();
            let x = body.push(load(0, flat(&[61])), from.compute());
            let value = body.push(Instr::Cast(to, x), to.compute());
            body.stores.push(Store { arg: 1, index: flat(&[61]), value });
            let args = vec![read(from, 61), write(to, 61)];
            let kernel = Kernel::Loop(Loop { outer: vec![61], row: vec![], args, body });
            check(&format!("{from} to {to}"), &kernel, &[values, vec![0.0; 61]], &[], 0.0);
        }
    }
}

/// A random address over a space, with the bounds that keep it inside `numel` elements.
fn random_load(rng: &mut Rng, dims: &[usize], numel: usize) -> (Index, Vec<Bound>) {
    let wide: Vec<usize> = dims.to_vec();
    let mut index = match rng.below(4) {
        0 => strided(dims, &row_major(dims)),
        1 => strided(dims, &dims.iter().map(|_| rng.below(4) as i64).collect::<Vec<_>>()),
        2 => strided(dims, &row_major(dims).iter().map(|&s| if rng.chance(50) { 0 } else { s }).collect::<Vec<_>>()),
        _ => strided(dims, &dims.iter().map(|_| rng.below(7) as i64 - 3).collect::<Vec<_>>()),
    };
    if rng.chance(30) {
        let n = 2 + rng.below(6) as i64;
        index = if rng.chance(50) { index.div(n, &wide) } else { index.modulo(n * 5, &wide) };
    }
    index = index.offset(rng.below(9) as i64 - 4);
    let mut valid = Vec::new();
    let (lo, hi) = index.range(&wide);
    if lo < 0 || hi >= numel as i64 || rng.chance(20) {
        let hi = (rng.below(numel) + 1) as i64;
        valid.push(Bound { index: index.clone(), lo: 0, hi });
    }
    if rng.chance(30) && !dims.is_empty() {
        let axis = rng.below(dims.len());
        let other = Index::var(axis).scale(rng.pick(&[1, -1, 2])).add(&Index::var(rng.below(dims.len())), &wide);
        let (lo, hi) = other.range(&wide);
        valid.push(Bound { index: other, lo: lo + (hi - lo) / 4, hi: hi - (hi - lo) / 5 + 1 });
    }
    (index, valid)
}

fn random_dims(rng: &mut Rng, rank: usize) -> Vec<usize> {
    (0..rank).map(|_| rng.pick(&[1, 2, 3, 5, 7, 17, 24])).collect()
}

#[test]
fn every_load_finds_its_element() {
    let mut rng = Rng::new(3);
    for case in 0..400 {
        let rank = rng.below(5);
        let dims = random_dims(&mut rng, rank);
        let n: usize = dims.iter().product();
        let dtype = rng.pick(&DType::ALL);
        let numel = 1 + rng.below(2 * n + 8);
        let mut body = Body::default();
        let (index, valid) = random_load(&mut rng, &dims, numel);
        let value = body.push(masked(0, index, valid), dtype.compute());
        body.stores.push(Store { arg: 1, index: flat(&dims), value });
        let (coord, valid) = random_load(&mut rng, &dims, numel);
        let value = body.push(Instr::Coord(coord), DType::I32);
        body.stores.push(Store { arg: 2, index: flat(&dims), value });
        let value = body.push(Instr::Inside(valid), DType::Bool);
        body.stores.push(Store { arg: 3, index: flat(&dims), value });
        let args = vec![read(dtype, numel), write(dtype, n), write(DType::I32, n), write(DType::Bool, n)];
        let kernel = Kernel::Loop(Loop { outer: dims, row: vec![], args, body });
        let x = rng.values(dtype, numel);
        check(&format!("load {case}"), &kernel, &[x, vec![0.0; n], vec![0.0; n], vec![0.0; n]], &[], 0.0);
    }
}

#[test]
fn gathers_clamp_and_find_their_row() {
    let mut rng = Rng::new(4);
    for case in 0..120 {
        // table [rows, width] at [token, column], the token from an index over some of the axes.
        let (rows, width, n) = (1 + rng.below(9), rng.pick(&[1, 3, 16, 40]), rng.pick(&[1, 5, 130]));
        let dtype = rng.pick(&[DType::I32, DType::U32]);
        let mut body = Body::default();
        let flip = rng.chance(30);
        let dims = if flip { vec![width, n] } else { vec![n, width] };
        let (token_axis, column_axis) = if flip { (1, 0) } else { (0, 1) };
        let token = body.push(load(0, Index::var(token_axis).scale((n > 1) as i64)), dtype);
        let wide = [&dims[..], &[rows]].concat();
        let index = Index::var(2).scale(width as i64).add(&Index::var(column_axis), &wide);
        let instr = Instr::Load { arg: 1, index, valid: vec![], gather: Some((token, rows)) };
        let value = body.push(instr, DType::F32);
        body.stores.push(Store { arg: 2, index: flat(&dims), value });
        let args = vec![read(dtype, n), read(DType::BF16, rows * width), write(DType::F32, n * width)];
        let (outer, row) = if rng.chance(50) { (dims, vec![]) } else { (dims[..1].to_vec(), dims[1..].to_vec()) };
        let mut tokens: Vec<f64> = (0..n).map(|_| rng.below(rows + 4) as f64).collect();
        if dtype == DType::I32 {
            tokens.iter_mut().for_each(|t| *t -= 2.0);
        }
        if !row.is_empty() {
            // Rows need a reduction; the largest token will do.
            let x = body.push(Instr::Coord(Index::var(1)), DType::I32);
            body.push(Instr::Reduce(ReduceOp::Max, x), DType::I32);
        }
        let kernel = Kernel::Loop(Loop { outer, row, args, body });
        let table = rng.values(DType::BF16, rows * width);
        check(&format!("gather {case}"), &kernel, &[tokens, table, vec![0.0; n * width]], &[], 0.0);
    }
}

/// Windows into larger tensors, whose beginning is a number that is read: it may be too large, and is clamped.
#[test]
fn windows_begin_where_they_are_said_to() {
    let mut rng = Rng::new(22);
    for (high, wide) in [(1, 1), (3, 4), (5, 46), (40, 7), (90, 16), (70, 33)] {
        for (dtype, begin) in [(DType::F32, 0), (DType::F32, 2), (DType::F16, 3), (DType::I32, 9), (DType::F64, 1)] {
            let (dims, pitch) = ([3, high, wide], wide + 3);
            let (n, whole) = (3 * high * wide, 3 * high * pitch);
            for pitches in [[high * pitch, pitch], [high * pitch, 0]] {
                let mut body = Body::default();
                let first = body.push(load(0, Index::constant(0)), DType::I32);
                let all = [&dims[..], &[4]].concat();
                let index = (0..2).fold(Index::var(2).add(&Index::var(3), &all), |index, axis| {
                    index.add(&Index::var(axis).scale(pitches[axis] as i64), &all)
                });
                let window = Instr::Load { arg: 1, index, valid: vec![], gather: Some((first, 4)) };
                let value = body.push(window, dtype.compute());
                let twice = body.push(Instr::Op(PointOp::Add, [value; 3]), dtype.compute());
                body.stores.push(Store { arg: 2, index: flat(&dims), value: twice });
                let args = vec![read(DType::I32, 1), read(dtype, whole), write(dtype, n)];
                let kernel = Kernel::Loop(Loop { outer: dims.to_vec(), row: vec![], args, body });
                let values = [vec![begin as f64], rng.values(dtype, whole), vec![0.0; n]];
                check(&format!("{dtype}, {high} lines of {wide} from {begin} on"), &kernel, &values, &[], 0.0);
            }
        }
    }
}

#[test]
fn every_reduction_in_every_layout() {
    let mut rng = Rng::new(5);
    let shapes: &[(&[usize], &[usize])] = &[
        (&[], &[0]),
        (&[3], &[0]),
        (&[0], &[4]),
        (&[], &[]),
        (&[5], &[]),
        (&[], &[1]),
        (&[7], &[1]),
        (&[300], &[10]),
        (&[3], &[1500]),
        (&[], &[5000]),
        (&[2, 3], &[7, 11]),
        (&[40], &[33]),
        (&[4, 70], &[9]),
        (&[600], &[50]),
        (&[1100], &[37]),
        (&[4500], &[70]),
    ];
    for &(outer, row) in shapes {
        let dims = [outer, row].concat();
        let n: usize = dims.iter().product();
        for op in ReduceOp::ALL {
            for dtype in DType::ALL {
                if op == ReduceOp::ArgMax && row.len() != 1 {
                    continue;
                }
                let smooth = matches!(op, ReduceOp::Sum | ReduceOp::Prod);
                if smooth && !matches!(dtype, DType::F32 | DType::F64 | DType::I32 | DType::U32) {
                    continue;
                }
                // Dense along the row, and dense across rows: transposed, the row axes come first in memory.
                let across: Vec<i64> = {
                    let own = row_major(&[row, outer].concat());
                    (0..dims.len())
                        .map(|a| own[if a < outer.len() { row.len() + a } else { a - outer.len() }])
                        .collect()
                };
                for index in [flat(&dims), strided(&dims, &across)] {
                    let mut x = rng.values(dtype, n);
                    if op == ReduceOp::Prod && dtype.is_float() {
                        x.iter_mut().for_each(|v| *v = dtype.round(1.0 + *v * 0.01));
                    }
                    if n > 4 && dtype.is_float() && !smooth && rng.chance(30) {
                        x[rng.below(n)] = f64::NAN;
                    }
                    let kernel = reduction(op, dtype, outer, row, index);
                    let rows = outer.iter().product();
                    check(
                        &format!("{} {dtype} {outer:?} {row:?}", op.name()),
                        &kernel,
                        &[x, vec![0.0; rows]],
                        &[],
                        2e-5,
                    );
                }
            }
        }
    }
}

#[test]
fn long_rows_are_split_and_stay_accurate() {
    let mut rng = Rng::new(6);
    for (outer, row) in [(vec![], vec![300_001]), (vec![2], vec![150_000]), (vec![96], vec![5000])] {
        let dims = [&outer[..], &row].concat();
        let n: usize = dims.iter().product();
        let rows: usize = outer.iter().product();
        let across = [vec![1; outer.len()], vec![rows as i64]].concat();
        for op in [ReduceOp::Sum, ReduceOp::Max, ReduceOp::ArgMax] {
            for index in [flat(&dims), strided(&dims, &across)] {
                let x: Vec<f64> = (0..n).map(|_| DType::F32.round(rng.uniform(0.0, 1.0))).collect();
                check("long row", &reduction(op, DType::F32, &outer, &row, index), &[x, vec![0.0; rows]], &[], 3e-7);
            }
        }
    }
}

#[test]
fn what_lies_across_is_turned() {
    let mut rng = Rng::new(7);
    for dims in [vec![16, 16], vec![40, 33], vec![3, 37, 70], vec![1, 600, 17], vec![19, 5, 41], vec![2, 20, 1, 530]] {
        let n: usize = dims.iter().product();
        let last = dims.len() - 1;
        for axis in (0..last).filter(|&axis| dims[axis] > 1) {
            // Row-major but for two axes, which change places.
            let mut moved = dims.clone();
            moved.swap(axis, last);
            let mut strides = row_major(&moved);
            strides.swap(axis, last);
            for dtype in DType::ALL {
                let mut body = Body::default();
                let across = body.push(load(0, strided(&dims, &strides)), dtype.compute());
                body.stores.push(Store { arg: 1, index: flat(&dims), value: across });
                let x = rng.values(dtype, n);
                let mut args = vec![read(dtype, n), write(dtype, n)];
                let kernel = |args: &[Arg], body: &Body| {
                    Kernel::Loop(Loop { outer: dims.clone(), row: vec![], args: args.to_vec(), body: body.clone() })
                };
                check(&format!("{dtype} {dims:?}"), &kernel(&args, &body), &[x.clone(), vec![0.0; n]], &[], 0.0);
                if dtype == DType::Bool {
                    continue;
                }
                let along = body.push(load(2, flat(&dims)), dtype.compute());
                let sum = body.push(Instr::Op(PointOp::Max, [across, along, along]), dtype.compute());
                body.stores.push(Store { arg: 3, index: flat(&dims), value: sum });
                args.extend([read(dtype, n), write(dtype, n)]);
                let values = [x, vec![0.0; n], rng.values(dtype, n), vec![0.0; n]];
                check(&format!("{dtype} {dims:?} and more"), &kernel(&args, &body), &values, &[], 0.0);
            }
        }
    }
}

/// What depends on the last axes only is loaded once for all tiles, and what does on the first ones is spread over runs:
/// points one by one, along the last axis as rows, some of it masked and some of it stored as it is.
#[test]
fn what_tiles_have_in_common_is_theirs() {
    let mut rng = Rng::new(21);
    for k in [2, 3, 4, 10, 16, 17, 32, 50, 64, 100, 197, 256, 300] {
        for (rows, middle) in [(7, 3), (9000 / k, 3), (12_000 / k, 1)] {
            let dims = [rows, middle, k];
            let n = rows * middle * k;
            for dtype in [DType::F32, DType::F16, DType::I32, DType::F64] {
                let compute = dtype.compute();
                let mut body = Body::default();
                let bound = Bound { index: Index::var(2), lo: 1, hi: k as i64 - 1 };
                let plane = Index::var(1).scale(k as i64).add(&Index::var(2), &dims);
                let masked = Instr::Load { arg: 1, index: Index::var(2), valid: vec![bound], gather: None };
                let loads =
                    [load(0, flat(&dims)), load(1, Index::var(2)), masked, load(2, plane), load(3, Index::var(0))];
                let mut value = body.push(loads[0].clone(), compute);
                for other in &loads[1..] {
                    let other = body.push(other.clone(), compute);
                    value = body.push(Instr::Op(PointOp::Max, [value, other, other]), compute);
                }
                body.stores.push(Store { arg: 4, index: flat(&dims), value });
                body.stores.push(Store { arg: 5, index: flat(&dims), value: 1 });
                let reads = [n, k, middle * k, rows].map(|n| read(dtype, n));
                let mut args = [&reads[..], &[write(dtype, n), write(dtype, n)]].concat();
                let mut values: Vec<Vec<f64>> = reads.iter().map(|arg| rng.values(dtype, arg.numel)).collect();
                values.extend([vec![0.0; n], vec![0.0; n]]);
                let map = Loop { outer: dims.to_vec(), row: vec![], args: args.clone(), body: body.clone() };
                check(&format!("{dtype} {dims:?}"), &Kernel::Loop(map), &values, &[], 0.0);
                let most = body.push(Instr::Reduce(ReduceOp::Max, value), compute);
                body.stores.push(Store { arg: 6, index: flat(&dims[..2]), value: most });
                args.push(write(dtype, rows * middle));
                values.push(vec![0.0; rows * middle]);
                let by_row = Loop { outer: dims[..2].to_vec(), row: vec![k], args, body };
                check(&format!("{dtype} {dims:?} by rows"), &Kernel::Loop(by_row), &values, &[], 0.0);
            }
        }
    }
}

/// Results of 16 MiB and more go past the caches: turned, moved as they are, and along rows that begin anywhere in a cache
/// line.
#[test]
fn what_no_cache_would_keep_is_stored_whole() {
    let mut rng = Rng::new(8);
    for (high, wide) in [(2049, 2053), (2064, 2048)] {
        let (dims, n) = ([high, wide], high * wide);
        let (x, bias) = (rng.values(DType::F32, n), rng.values(DType::F32, wide));
        let by_row = Index::var(0).scale(wide as i64).add(&Index::var(1), &dims);
        let across = strided(&dims, &[1, high as i64]);
        for (name, index, more) in [("turned", &across, true), ("along", &by_row, true), ("moved", &across, false)] {
            let mut body = Body::default();
            let [value, shift] = [load(0, index.clone()), load(1, Index::var(1))].map(|i| body.push(i, DType::F32));
            let most = Instr::Op(PointOp::Max, [value, shift, shift]);
            let value = if more { body.push(most, DType::F32) } else { value };
            body.stores = vec![Store { arg: 2, index: flat(&dims), value }];
            let args = vec![read(DType::F32, n), read(DType::F32, wide), write(DType::F32, n)];
            let kernel = Kernel::Loop(Loop { outer: dims.to_vec(), row: vec![], args, body });
            let values = [x.clone(), bias.clone(), vec![0.0; n]];
            for threads in [1, 3] {
                let got = decode(DType::F32, &run_bytes(&CpuBackend::with_threads(threads), &kernel, &values, &[])[2]);
                let moved = |i: usize| x[index.eval(&[i / wide, i % wide]) as usize];
                let want = |i: usize| if more { moved(i).max(bias[i % wide]) } else { moved(i) };
                let differs = (0..n).find(|&i| got[i] != want(i));
                assert_eq!(differs, None, "{name} on {threads} threads, {high} × {wide}");
            }
        }
    }
}

fn small(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.below(5) as f64 - 2.0).collect()
}

#[test]
fn chains_of_arithmetic_are_exact() {
    let mut rng = Rng::new(8);
    for case in 0..200 {
        let long = case % 10 == 9;
        let outer = rng.pick(&[&[16][..], &[33], &[1024], &[3000], &[5, 64], &[7, 1024]]).to_vec();
        let row = rng.pick(&[&[][..], &[], &[16], &[48], &[100]]).to_vec();
        let (outer, row) = if long { (vec![3, 2], vec![9000]) } else { (outer, row) };
        let dims = [&outer[..], &row].concat();
        let (n, rows): (usize, usize) = (dims.iter().product(), outer.iter().product());
        let dtype = rng.pick(&[DType::F32, DType::F32, DType::F64]);
        let mut body = Body::default();
        let by_row = [row_major(&outer), vec![0; row.len()]].concat();
        let by_first: Vec<i64> = (0..dims.len()).map(|axis| (axis == 0) as i64).collect();
        let by_last: Vec<i64> = (0..dims.len()).map(|axis| (axis + 1 == dims.len()) as i64).collect();
        let mut leaves = vec![
            body.push(load(0, flat(&dims)), dtype),
            body.push(load(1, flat(&dims)), dtype),
            body.push(load(2, strided(&dims, &by_row)), dtype),
            body.push(load(2, strided(&dims, &by_first)), dtype),
            body.push(load(3, strided(&dims, &by_last)), dtype),
            body.push(Instr::Const(dtype, 2.0), dtype),
        ];
        if dtype == DType::F32 {
            leaves.push(body.push(Instr::Scalar(dtype, 0), dtype));
        }
        let mut value = rng.pick(&leaves);
        let halved = rng.below(12);
        for step in 0..6 {
            let op = rng.pick(&[PointOp::Add, PointOp::Sub, PointOp::Mul]);
            let other = if rng.chance(20) { value } else { rng.pick(&leaves) };
            let args = if rng.chance(50) { [value, other, other] } else { [other, value, value] };
            value = body.push(Instr::Op(op, args), dtype);
            if step == halved {
                let (zero, two) = (Instr::Const(dtype, 0.0), Instr::Const(dtype, 2.0));
                let [zero, two] = [zero, two].map(|number| body.push(number, dtype));
                value = body.push(Instr::Op(PointOp::Div, [value, two, two]), dtype);
                leaves.push(body.push(Instr::Op(PointOp::Sub, [zero, value, value]), dtype));
            }
            // Squares of squares are not small.
            if other == value - 1 && op == PointOp::Mul {
                let two = body.push(Instr::Const(dtype, 0.0), dtype);
                value = body.push(Instr::Op(PointOp::Min, [value, two, two]), dtype);
            }
            if rng.chance(30) {
                leaves.push(value);
            }
        }
        // One result is new, the other in place of an operand.
        body.stores.push(Store { arg: 4, index: flat(&dims), value });
        body.stores.push(Store { arg: 1, index: flat(&dims), value: rng.pick(&leaves) });
        // A row's sum, of what is overwritten, of what was computed or of a product; where it is read again, of two.
        let factors = [rng.pick(&leaves), rng.pick(&leaves)];
        let product = body.push(Instr::Op(PointOp::Mul, [factors[0], factors[1], factors[1]]), dtype);
        let summed = rng.pick(&[1, value, product]);
        let sum = body.push(Instr::Reduce(ReduceOp::Sum, summed), dtype);
        body.stores.push(Store { arg: 5, index: strided(&dims, &by_row), value: sum });
        if rng.chance(40) {
            let more = body.push(Instr::Op(PointOp::Lt, [0, sum, sum]), DType::Bool);
            let value = body.push(Instr::Op(PointOp::Select, [more, 0, sum]), dtype);
            body.stores[0].value = value;
        } else if rng.chance(40) {
            // What is summed and then scaled by its sum is computed where that is stored.
            let (x, y) = (rng.pick(&leaves), rng.pick(&leaves));
            let shifted = body.push(Instr::Op(PointOp::Sub, [x, y, y]), dtype);
            let sum = body.push(Instr::Reduce(ReduceOp::Sum, shifted), dtype);
            body.stores[0].value = body.push(Instr::Op(PointOp::Mul, [shifted, sum, sum]), dtype);
            if !long && rng.chance(50) {
                // Read once more, in the pass that overwrites it.
                let other = body.push(Instr::Op(PointOp::Max, [x, sum, sum]), dtype);
                let product = body.push(Instr::Op(PointOp::Mul, [shifted, other, other]), dtype);
                body.stores[2].value = body.push(Instr::Reduce(ReduceOp::Sum, product), dtype);
            }
        }
        let args = vec![
            read(dtype, n),
            Arg { access: Access::ReadWrite, ..read(dtype, n) },
            read(dtype, rows),
            read(dtype, *dims.last().unwrap()),
            write(dtype, n),
            write(dtype, rows),
        ];
        let values: Vec<Vec<f64>> = args.iter().map(|a| small(&mut rng, a.numel)).collect();
        let kernel = Kernel::Loop(Loop { outer, row, args, body });
        check(&format!("chain {case}"), &kernel, &values, &[3f32.to_bits()], 0.0);
    }
}

#[test]
fn integers_are_scaled_by_their_sum() {
    let (rows, points, mut rng) = (3, 64, Rng::new(9));
    for dtype in [DType::I32, DType::U32, DType::F64] {
        let mut body = Body::default();
        let x = body.push(load(0, flat(&[rows, points])), dtype);
        let twice = body.push(Instr::Op(PointOp::Add, [x, x, x]), dtype);
        let sum = body.push(Instr::Reduce(ReduceOp::Sum, twice), dtype);
        let value = body.push(Instr::Op(PointOp::Mul, [twice, sum, sum]), dtype);
        body.stores.push(Store { arg: 1, index: flat(&[rows, points]), value });
        let n = rows * points;
        let kernel = Kernel::Loop(Loop {
            outer: vec![rows],
            row: vec![points],
            args: vec![read(dtype, n), write(dtype, n)],
            body,
        });
        let x = (0..n).map(|_| rng.below(1000) as f64).collect();
        check(&format!("scaled {dtype}"), &kernel, &[x, vec![0.0; n]], &[], 0.0);
    }
}
