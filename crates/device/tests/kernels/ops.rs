//! Every row of the op table over its probe, in every dtype it takes; casts; special values.

use kiln_device::emit::Schedule;
use kiln_ir::kernel::{Body, Instr, Loop};
use kiln_ir::ops::{OPS, Row, Tolerance, Typing};
use kiln_ir::{Backend, DType, Index, Kernel, PointOp};

use crate::harness::{Steps, check_in, device, download, numbers, read, run, upload, write};
use crate::validate::validate;

const N: usize = 1001;

fn takes(row: &Row, dtype: DType) -> bool {
    match row.typing {
        Typing::Float => dtype == DType::F32,
        Typing::Number => dtype != DType::Bool,
        Typing::Integer => matches!(dtype, DType::I32 | DType::U32),
        Typing::Bits => dtype != DType::F32,
        Typing::Compare | Typing::Select => true,
        Typing::Words => dtype == DType::U32,
    }
}

/// Operands of a row: floats from its probe, integers from everything, with the awkward ones first.
fn operand(row: &Row, dtype: DType, n: u32) -> Vec<f64> {
    if row.typing == Typing::Select && n == 0 {
        return numbers(n, N, DType::U32, (0.0, 2.0));
    }
    let mut values = match dtype {
        DType::F32 => numbers(n, N, dtype, row.probe),
        DType::I32 => numbers(n, N, dtype, (-2147483648.0, 2147483648.0)),
        DType::U32 => numbers(n, N, dtype, (0.0, 4294967296.0)),
        _ => numbers(n, N, DType::U32, (0.0, 2.0)),
    };
    let edges: &[f64] = match dtype {
        DType::I32 => &[-2147483648.0, -1.0, 0.0, 1.0, 5.0, 2147483647.0, 33.0],
        DType::U32 => &[0.0, 1.0, 7.0, 4294967295.0, 32.0],
        _ => &[],
    };
    // Every pair of edges meets; then small numbers, so that quotients and shifts are not all alike.
    for (i, value) in values.iter_mut().enumerate().take(500) {
        let at = [i, i / edges.len().max(1), i / 3][n as usize];
        match edges.get(at % edges.len().max(1)) {
            Some(&edge) if i < 50 => *value = edge,
            Some(_) => *value = ((i * (n as usize + 3)) % 50) as f64,
            None => {}
        }
    }
    values
}

#[test]
fn every_row_equals_its_reference() {
    for dtype in [DType::F32, DType::I32, DType::U32, DType::Bool] {
        let rows: Vec<&Row> = OPS.iter().filter(|row| takes(row, dtype)).collect();
        let (mut body, mut inputs) = (Body::default(), [vec![], vec![], vec![]]);
        let (mut dtypes, mut results) = (Vec::new(), Vec::new());
        // One kernel for all rows: row `r` has the elements from r·N on.
        for (r, row) in rows.iter().enumerate() {
            let at = |base: usize| Index::var(0).offset((base * N) as i64);
            let args: Vec<_> = (0..row.arity)
                .map(|a| {
                    let mask = row.typing == Typing::Select && a == 0;
                    inputs[a].extend(operand(row, dtype, a as u32));
                    let v = body.load(a as u32, dtype, at(inputs[a].len() / N - 1));
                    let zero = body.constant(dtype, 0.0);
                    let one = |body: &mut Body| {
                        let equal = body.op(PointOp::Eq, &[v, zero], DType::Bool);
                        body.op(PointOp::Not, &[equal], DType::Bool)
                    };
                    if mask { one(&mut body) } else { v }
                })
                .collect();
            let result = row.op.result(&vec![dtype; row.arity]).ok().filter(|_| row.typing != Typing::Select);
            let result = result.unwrap_or(dtype);
            let mut value = body.op(row.op, &args, result);
            if result == DType::Bool && dtype != DType::Bool {
                value = body.push(Instr::Cast(dtype, value), dtype);
            }
            body.store(3, at(r), value);
            dtypes.push(dtype);
            results.push(row);
        }
        let args = vec![
            read(dtype, inputs[0].len()),
            read(dtype, inputs[1].len()),
            read(dtype, inputs[2].len()),
            write(dtype, rows.len() * N),
        ];
        let kernel = Kernel::Loop(Loop { outer: vec![N], row: vec![], args, body });
        let values = [&inputs[..], &[vec![0.0; rows.len() * N]]].concat();
        let Some(device) = device(Schedule::Auto) else { return };
        validate(&kiln_device::emit::emit(&kernel, device.target()).unwrap().wgsl);
        let found = run(device, &kernel, &values, &[]).remove(3);
        let expected = crate::oracle::run(&kernel, &values, &[]).remove(3);
        for (r, row) in rows.iter().enumerate() {
            let tolerance = match row.tolerance {
                Tolerance::Relative(rel) if dtype == DType::F32 => rel,
                _ => 0.0,
            };
            for i in r * N..(r + 1) * N {
                let (f, e) = (found[i], expected[i]);
                let e = if dtype == DType::F32 { e as f32 as f64 } else { e };
                let near = f == e || (f - e).abs() <= tolerance * e.abs().max(1.0);
                assert!(near, "{} {dtype} of element {}: {f} ≠ {e}", row.name, i - r * N);
            }
        }
    }
}

/// A kernel that casts its elements to another dtype.
fn cast(from: DType, to: DType, n: usize) -> Kernel {
    let mut body = Body::default();
    let x = body.load(0, from, Index::var(0));
    let y = body.push(Instr::Cast(to, x), to.compute());
    body.store(1, Index::var(0), y);
    Kernel::Loop(Loop { outer: vec![n], row: vec![], args: vec![read(from, n), write(to, n)], body })
}

#[test]
fn casts_round_and_saturate_as_the_reference() {
    const DTYPES: [DType; 7] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool];
    for from in DTYPES {
        let mut values: Vec<f64> = match from {
            DType::F32 | DType::F16 | DType::BF16 => {
                let mut v = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 0.5, -0.5, 1e-45];
                v.extend([65504.0, 65519.0, 65520.0, -65520.0, 3e38, -3e38, 2147483648.0, -2147483648.0, 4294967296.0]);
                v.extend([255.0, 255.9, 256.0, 2.98e-8, 2.99e-8, 5.96e-8, 6.1e-5, 8.9e-8, 1.49e-7]);
                v.extend(numbers(1, 300, DType::F32, (-300.0, 300.0)));
                v.extend(numbers(2, 300, DType::F32, (-1e-4, 1e-4)));
                v.extend(numbers(3, 300, DType::F32, (-7e4, 7e4)));
                v
            }
            DType::I32 => numbers(4, 500, from, (-2147483648.0, 2147483648.0)),
            DType::U32 => numbers(5, 500, from, (0.0, 4294967296.0)),
            DType::U8 => (0..256).map(f64::from).collect(),
            _ => vec![0.0, 1.0, 1.0],
        };
        values.extend([0.0, 1.0, 5.0]);
        values.iter_mut().for_each(|v| *v = from.round(*v));
        for to in DTYPES {
            let n = values.len();
            check_in(&[Schedule::Auto], &cast(from, to, n), &[values.clone(), vec![0.0; n]], &[], 0.0);
        }
    }
}

#[test]
fn nan_and_infinity_go_where_rows_promise() {
    let Some(device) = device(Schedule::Auto) else { return };
    let x = [f64::NAN, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0];
    let y = [1.0, f64::NAN, f64::NAN, 1.0, 1.0, f64::NEG_INFINITY, 0.0];
    let n = x.len();
    let ops = [PointOp::Min, PointOp::Max, PointOp::Relu, PointOp::Neg, PointOp::Abs, PointOp::Sign, PointOp::Tanh];
    let mut body = Body::default();
    let (a, b) = (body.load(0, DType::F32, Index::var(0)), body.load(1, DType::F32, Index::var(0)));
    for (i, &op) in ops.iter().enumerate() {
        let v = body.op(op, &[a, b], DType::F32);
        body.store(2, Index::var(0).offset((i * n) as i64), v);
    }
    let args = vec![read(DType::F32, n), read(DType::F32, n), write(DType::F32, n * ops.len())];
    let kernel = Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body });
    let values = [x.to_vec(), y.to_vec(), vec![0.0; n * ops.len()]];
    let expected = crate::oracle::run(&kernel, &values, &[]).remove(2);
    let found = run(device, &kernel, &values, &[]).remove(2);
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        let same = (f.is_nan() && e.is_nan()) || (f - e).abs() < 1e-6 || f == e;
        assert!(same, "{} of {} and {}: {f} ≠ {e}", ops[i / n].row().name, x[i % n], y[i % n]);
    }
}

#[test]
fn literals_keep_their_bits() {
    let literals =
        [f64::INFINITY, f64::NEG_INFINITY, 1e-45, f32::MAX as f64, f32::MIN as f64, 0.1f32 as f64, -0.0, 1e-7];
    let mut body = Body::default();
    for (i, &v) in literals.iter().enumerate() {
        let c = body.constant(DType::F32, v);
        body.store(0, Index::constant(i as i64), c);
    }
    let args = vec![write(DType::F32, literals.len())];
    let kernel = Kernel::Loop(Loop { outer: vec![], row: vec![], args, body });
    let Some(device) = device(Schedule::Auto) else { return };
    let found = run(device, &kernel, &[vec![0.0; literals.len()]], &[]).remove(0);
    for (f, e) in found.iter().zip(literals) {
        assert_eq!((*f as f32).to_bits(), (e as f32).to_bits(), "{f} ≠ {e}");
    }
}

/// A word whose elements are all there: reading one back does not disturb its neighbours.
#[test]
fn writes_and_reads_may_begin_anywhere() {
    let Some(device) = device(Schedule::Auto) else { return };
    let bytes: Vec<u8> = (0..61).collect();
    let buffer = device.alloc(61).unwrap();
    device.write(&buffer, 0, &bytes).unwrap();
    device.write(&buffer, 13, &[200, 201, 202]).unwrap();
    device.write(&buffer, 60, &[99]).unwrap();
    let mut expected = bytes;
    expected[13..16].copy_from_slice(&[200, 201, 202]);
    expected[60] = 99;
    for range in [0..61, 1..2, 5..18, 60..61, 7..7] {
        let found = device.read(&buffer, range.clone()).wait().unwrap();
        assert_eq!(found, expected[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(download(device, DType::U8, 3, &buffer), [0.0, 1.0, 2.0]);
}

/// Longer than what is staged at once, and than what is submitted at once.
#[test]
fn a_long_write_goes_in_pieces() {
    let Some(device) = device(Schedule::Auto) else { return };
    let n = (21 << 20) + 7;
    let bytes: Vec<u8> = (0..n).map(|i| (i / 1024 % 251) as u8).collect();
    let buffer = device.alloc(n as u64 + 9).unwrap();
    for start in [0, 9] {
        device.write(&buffer, start, &bytes).unwrap();
        assert!(device.read(&buffer, start..start + n as u64).wait().unwrap() == bytes, "from {start} on");
    }
}

/// Sequences of a few steps, which wait to be submitted together, and of more than are submitted at once: each step over
/// what the last one stored, between two buffers that swap places, and replays that do not wait for each other.
#[test]
fn sequences_run_in_order() {
    let Some(device) = device(Schedule::Auto) else { return };
    use kiln_ir::{Backend, Slot, Step};
    let mut body = Body::default();
    let x = body.load(0, DType::F32, Index::var(0));
    let s = body.push(Instr::Scalar(DType::F32, 0), DType::F32);
    let y = body.op(PointOp::Mul, &[x, x], DType::F32);
    let y = body.op(PointOp::Sub, &[s, y], DType::F32);
    body.store(1, Index::var(0), y);
    let args = vec![read(DType::F32, N), write(DType::F32, N)];
    let kernel = Kernel::Loop(Loop { outer: vec![N], row: vec![], args, body });
    let exe = device.compile(std::slice::from_ref(&kernel)).remove(0).unwrap();
    let step = |n: u32| {
        let accesses = kernel.args().iter().map(|arg| arg.access);
        let binds = [Slot::Arg(n % 2), Slot::Arg(1 - n % 2)].into_iter().zip(accesses).collect();
        Step { exe: exe.clone(), binds, scalars: vec![n % 3] }
    };
    for n_steps in [2, 150] {
        let tape = device.record(&(0..n_steps).map(step).collect::<Vec<_>>(), &[]).unwrap();
        let values = numbers(1, N, DType::F32, (-1.0, 1.0));
        let buffers = [upload(device, DType::F32, &values), upload(device, DType::F32, &values)];
        let mut expected: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        let mut fences = Vec::new();
        // A map that draws numbers together, so that differences of rounding do not grow.
        for replay in 0..40u32 {
            let scalars = [0.25f32, 0.5, 0.25 * (replay / 6 % 4) as f32];
            fences.push(device.replay(&tape, &buffers, &scalars.map(f32::to_bits)).unwrap());
            for n in 0..n_steps {
                expected.iter_mut().for_each(|x| *x = scalars[n as usize % 3] - *x * *x);
            }
        }
        // In no order.
        fences.into_iter().rev().step_by(3).for_each(|fence| fence.wait().unwrap());
        let found = download(device, DType::F32, N, &buffers[0]);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - f64::from(*expected)).abs() <= 1e-4, "{n_steps} steps: {found} ≠ {expected}");
        }
    }
}

/// Threads that submit and wait on one device: none of them sees what another's waiting has cleared away.
#[test]
fn threads_wait_for_one_device() {
    let Some(device) = device(Schedule::Auto) else { return };
    use kiln_ir::{Backend, Slot, Step};
    let mut body = Body::default();
    let x = body.load(0, DType::F32, Index::var(0));
    let y = body.op(PointOp::Neg, &[x], DType::F32);
    body.store(1, Index::var(0), y);
    let args = vec![read(DType::F32, N), write(DType::F32, N)];
    let kernel = Kernel::Loop(Loop { outer: vec![N], row: vec![], args, body });
    let exe = device.compile(std::slice::from_ref(&kernel)).remove(0).unwrap();
    let binds = (0..2).zip(kernel.args()).map(|(n, arg)| (Slot::Arg(n), arg.access)).collect();
    let tape = device.record(&[Step { exe, binds, scalars: vec![] }], &[]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let tape = &tape;
            scope.spawn(move || {
                let values = numbers(thread, N, DType::F32, (-1.0, 1.0));
                let buffers = [upload(device, DType::F32, &values), upload(device, DType::F32, &values)];
                for turn in 0..100 {
                    let fence = device.replay(tape, &buffers, &[]).unwrap();
                    match turn % 3 {
                        0 => fence.wait().unwrap(),
                        1 => assert_eq!(download(device, DType::F32, 1, &buffers[1]), [-values[0]]),
                        _ => drop(fence),
                    }
                }
            });
        }
    });
}
