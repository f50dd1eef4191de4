//! Sums of squared differences from what is once a row, beside other readers of the differences.

use kiln_ir::kernel::{Body, Instr, Loop, Store};
use kiln_ir::{DType, Index, Kernel, PointOp, ReduceOp};

use crate::common::{Rng, check, flat, load, read, strided, write};

/// Who reads the differences beside their squares' sum.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Reader {
    Nobody,
    /// `(x - m)·Σ(x - m)²`, as where a row is normalised.
    Normal,
    /// That times another number, plus a third.
    Affine,
    /// `exp(x - m)·m`: no formula has a difference in an exponential beside another step.
    Exponential,
    /// Whoever reads them from memory.
    Memory,
}

/// Of rows `x` with the number `m` each: `Σ(x - m)²`, and what a reader makes of the differences. `side` iff equal points
/// of rows are neighbours.
fn kernel(dtype: DType, [rows, points]: [usize; 2], reader: Reader, side: bool) -> Kernel {
    let dims = [rows, points];
    let place = if side { strided(&dims, &[1, rows as i64]) } else { flat(&dims) };
    let compute = dtype.compute();
    let mut body = Body::default();
    let push = |body: &mut Body, instr: Instr| body.push(instr, compute);
    let mut x = body.push(load(0, place.clone()), dtype);
    if dtype != compute {
        x = push(&mut body, Instr::Cast(compute, x));
    }
    let m = push(&mut body, load(1, strided(&dims, &[1, 0])));
    let op = |op: PointOp, x: u32, y: u32| Instr::Op(op, [x, y, y]);
    let difference = push(&mut body, op(PointOp::Sub, x, m));
    let square = push(&mut body, op(PointOp::Mul, difference, difference));
    let sum = push(&mut body, Instr::Reduce(ReduceOp::Sum, square));
    let scaled = |body: &mut Body| push(body, op(PointOp::Mul, difference, sum));
    let value = match reader {
        Reader::Nobody => None,
        Reader::Normal => Some(scaled(&mut body)),
        Reader::Affine => {
            let normal = scaled(&mut body);
            let y = push(&mut body, load(2, strided(&dims, &[0, 1])));
            let product = push(&mut body, op(PointOp::Mul, normal, y));
            Some(push(&mut body, op(PointOp::Add, product, y)))
        }
        Reader::Exponential => {
            let power = push(&mut body, op(PointOp::Exp, difference, difference));
            Some(push(&mut body, op(PointOp::Mul, power, m)))
        }
        Reader::Memory => Some(difference),
    };
    body.stores.push(Store { arg: 3, index: Index::var(0), value: sum });
    body.stores.extend(value.map(|value| Store { arg: 4, index: place, value }));
    let n = rows * points;
    let mut args = vec![read(dtype, n), read(compute, rows), read(compute, points), write(compute, rows)];
    args.extend(value.map(|_| write(compute, n)));
    Kernel::Loop(Loop { outer: vec![rows], row: vec![points], args, body })
}

#[test]
fn variances_of_every_shape_and_with_every_reader() {
    let mut rng = Rng::new(77);
    let shapes =
        [[1, 1], [3, 17], [2, 512], [5, 513], [9, 1024], [40, 384], [700, 3], [1030, 20], [300, 1000], [2, 9001]];
    let readers = [Reader::Nobody, Reader::Normal, Reader::Affine, Reader::Exponential, Reader::Memory];
    for shape in shapes {
        for dtype in [DType::F32, DType::F64, DType::F16] {
            for reader in readers {
                for side in [false, true] {
                    let kernel = kernel(dtype, shape, reader, side);
                    // Whole numbers, of which sums are exact, with small powers.
                    let mut args: Vec<Vec<f64>> = kernel.args().iter().map(|arg| vec![0.0; arg.numel]).collect();
                    let small = |rng: &mut Rng| rng.below(5) as f64 - 2.0;
                    args[..3].iter_mut().flatten().for_each(|v| *v = small(&mut rng));
                    let name =
                        format!("{reader:?} of {dtype} {shape:?}, {}", if side { "side by side" } else { "in rows" });
                    check(&name, &kernel, &args, &[], if reader == Reader::Exponential { 1e-6 } else { 0.0 });
                }
            }
        }
    }
}
