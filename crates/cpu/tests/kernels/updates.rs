//! An optimizer's step over what it updates, as one walk and piece by piece.

use kiln_cpu::CpuBackend;
use kiln_ir::kernel::{Access, Arg, Body, Dot, Instr, Loop, Store, Value};
use kiln_ir::{DType, Index, Kernel, PointOp};

use crate::common::{Rng, check, decode, flat, load, read, run_bytes};

/// AdamW's step of `n` numbers: gradient, both averages, parameter; with or without decay.
fn adam(n: usize, decays: bool) -> Kernel {
    adam_of(&[n], flat(&[n]), n, decays)
}

/// The same of any shape, with a gradient of `n_grad` numbers.
fn adam_of(dims: &[usize], grad: Index, n_grad: usize, decays: bool) -> Kernel {
    let n = dims.iter().product();
    let body = body(dims, load(0, grad), 1, decays);
    let args = vec![read(DType::F32, n_grad), updated(n), updated(n), updated(n)];
    Kernel::Loop(Loop { outer: dims.to_vec(), row: vec![], args, body })
}

/// The same for a gradient that is a product of `m × k` and `k × n` numbers.
fn adam_behind([m, n, k]: [usize; 3], decays: bool) -> Kernel {
    let operand = |arg, dims: &[usize]| {
        let mut body = Body::default();
        body.push(load(arg, flat(dims)), DType::F32);
        body
    };
    let lhs = operand(0, &[m, k]);
    let rhs = operand(1, &[k, n]);
    let epilogue = body(&[m, n], Instr::Acc, 2, decays);
    let args = vec![read(DType::F32, m * k), read(DType::F32, k * n), updated(m * n), updated(m * n), updated(m * n)];
    Kernel::Dot(Dot { batch: vec![], m: vec![m], n: vec![n], k: vec![k], args, lhs, rhs, epilogue })
}

fn updated(n: usize) -> Arg {
    Arg { dtype: DType::F32, numel: n, access: Access::ReadWrite }
}

/// A step over these dims; both averages and the parameter are arguments from `first` on.
fn body(dims: &[usize], grad: Instr, first: u32, decays: bool) -> Body {
    let (mut body, dtype) = (Body::default(), DType::F32);
    let scalars: Vec<Value> = (0..8).map(|k| body.push(Instr::Scalar(dtype, k), dtype)).collect();
    let all = |body: &mut Body, arg| body.push(load(first + arg, flat(dims)), dtype);
    let op = |body: &mut Body, op, x, y| body.push(Instr::Op(op, [x, y, y]), dtype);
    let (g, m) = (body.push(grad, dtype), all(&mut body, 0));
    let [old, new] = [(m, 0), (g, 1)].map(|(x, k)| op(&mut body, PointOp::Mul, x, scalars[k]));
    let mean = op(&mut body, PointOp::Add, old, new);
    let v = all(&mut body, 1);
    let (old, square) = (op(&mut body, PointOp::Mul, v, scalars[2]), op(&mut body, PointOp::Mul, g, g));
    let new = op(&mut body, PointOp::Mul, square, scalars[3]);
    let square = op(&mut body, PointOp::Add, old, new);
    let p = all(&mut body, 2);
    let root = op(&mut body, PointOp::Sqrt, square, square);
    let root = op(&mut body, PointOp::Mul, root, scalars[4]);
    let root = op(&mut body, PointOp::Add, root, scalars[5]);
    let step = op(&mut body, PointOp::Mul, mean, scalars[6]);
    let step = op(&mut body, PointOp::Div, step, root);
    let p = if decays { op(&mut body, PointOp::Mul, p, scalars[7]) } else { p };
    let parameter = op(&mut body, PointOp::Sub, p, step);
    let stored = (first..).zip([mean, square, parameter]);
    body.stores.extend(stored.map(|(arg, value)| Store { arg, index: flat(dims), value }));
    body
}

fn scalars() -> Vec<u32> {
    [0.9f32, 0.1, 0.999, 0.001, 3.2, 1e-8, 1e-3, 0.9999].iter().map(|x| x.to_bits()).collect()
}

/// The average of squares is one; no root comes near zero.
fn values(rng: &mut Rng, n: usize) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = (0..4).map(|_| rng.values(DType::F32, n)).collect();
    values[2].iter_mut().for_each(|v| *v = DType::F32.round(v.abs() + 0.5));
    values
}

#[test]
fn a_step_is_its_formula() {
    let mut rng = Rng::new(51);
    for n in [1, 16, 1000, 1024, 16384, 16400, 40_007] {
        for decays in [false, true] {
            // Fewer than ten roundings of numbers up to 2.
            check(&format!("{n} numbers"), &adam(n, decays), &values(&mut rng, n), &scalars(), 2e-6);
        }
    }
}

#[test]
fn a_long_step_is_many_short_ones_to_the_bit() {
    let mut rng = Rng::new(52);
    // Short ones do not fill cache lines, so each formula is a step of its own.
    let (n, short) = (1001 * 48, 1001);
    for decays in [false, true] {
        let (cpu, values) = (CpuBackend::with_threads(2), values(&mut rng, n));
        let run = |from: usize, len: usize| -> Vec<Vec<f64>> {
            let part: Vec<Vec<f64>> = values.iter().map(|x| x[from..from + len].to_vec()).collect();
            let bytes = run_bytes(&cpu, &adam(len, decays), &part, &scalars());
            bytes.iter().map(|x| decode(DType::F32, x)).collect()
        };
        let whole = run(0, n);
        for from in (0..n).step_by(short) {
            for (arg, part) in run(from, short).iter().enumerate() {
                assert_eq!(whole[arg][from..from + short], part[..], "argument {arg} from {from} on");
            }
        }
    }
}

/// What the walk cannot do is found out only after it has begun.
#[test]
fn one_gradient_for_a_row_is_applied_step_by_step() {
    let mut rng = Rng::new(53);
    let mut values = values(&mut rng, 3 * 16384);
    values[0].truncate(3);
    let kernel = adam_of(&[3, 16384], Index::var(0), 3, true);
    check("one gradient for a row", &kernel, &values, &scalars(), 2e-6);
}

/// Blocks of sums whose tiles are parts of lines, whole lines, and several; also some at the edges.
#[test]
fn a_product_is_a_gradient() {
    let mut rng = Rng::new(54);
    for dims in [[300, 512, 40], [700, 96, 33], [64, 2048, 20], [513, 1024, 16], [130, 100, 64]] {
        for decays in [false, true] {
            let [m, n, k] = dims;
            let mut values = values(&mut rng, m * n);
            let operands = [m * k, k * n].map(|n| rng.values(DType::F32, n));
            values.splice(..1, operands);
            // As above, and a tenth of the sum: `k` roundings of up to `4k`.
            let tolerance = 2e-6 + 3e-8 * (k * k) as f64;
            check(&format!("{dims:?}"), &adam_behind(dims, decays), &values, &scalars(), tolerance);
        }
    }
}
