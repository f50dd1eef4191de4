//! Reductions over rows beside reductions along them.

use kiln_cpu::CpuBackend;
use kiln_ir::kernel::{Arg, Body, Instr, Loop, Store};
use kiln_ir::{Backend, DType, Index, Kernel, PointOp, ReduceOp};

use crate::common::{Rng, check, flat, load, read, run_bytes, write};

/// Rows of `points` points: `y = x · Σx` where it is stored, and over all rows `op` of `x`, of `x · Σx` and of the product
/// of `x` and another argument.
fn kernel(op: ReduceOp, dtype: DType, rows: &[usize], points: &[usize]) -> Kernel {
    let dims = [rows, points].concat();
    let (n, wide) = (dims.iter().product(), points.iter().product());
    let mut body = Body::default();
    let x = body.push(load(0, flat(&dims)), dtype);
    let other = body.push(load(1, flat(&dims)), dtype);
    let sum = body.push(Instr::Reduce(ReduceOp::Sum, x), dtype);
    let y = body.push(Instr::Op(PointOp::Mul, [x, sum, sum]), dtype);
    let product = body.push(Instr::Op(PointOp::Mul, [x, other, other]), dtype);
    let columns = [x, y, product].map(|v| body.push(Instr::ColumnReduce(op, v), dtype));
    let place = flat(points).rename(&|axis| axis + rows.len());
    body.stores.push(Store { arg: 2, index: flat(&dims), value: y });
    body.stores.extend((3..).zip(columns).map(|(arg, value)| Store { arg, index: place.clone(), value }));
    let args: Vec<Arg> = vec![
        read(dtype, n),
        read(dtype, n),
        write(dtype, n),
        write(dtype, wide),
        write(dtype, wide),
        write(dtype, wide),
    ];
    Kernel::Loop(Loop { outer: rows.to_vec(), row: points.to_vec(), args, body })
}

/// Small whole numbers, of which all sums here are exact.
fn values(rng: &mut Rng, kernel: &Kernel) -> Vec<Vec<f64>> {
    let least = |dtype: DType| if dtype == DType::U32 { 0.0 } else { -3.0 };
    let arg = |arg: &Arg, rng: &mut Rng| (0..arg.numel).map(|_| rng.below(7) as f64 + least(arg.dtype)).collect();
    kernel.args().iter().map(|a| arg(a, rng)).collect()
}

#[test]
fn columns_of_every_shape_and_kind() {
    let mut rng = Rng::new(41);
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[1], &[17]),
        (&[2], &[1024]),
        (&[3, 5], &[100]),
        (&[9], &[1000]),
        (&[1000], &[33]),
        (&[4, 37], &[6, 20]),
        (&[129], &[1, 127]),
        (&[700], &[1023]),
        (&[70], &[8192]),
        (&[64], &[512]),
    ];
    for (rows, points) in shapes {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::U32] {
            for op in [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min] {
                let kernel = kernel(op, dtype, rows, points);
                CpuBackend::new().supports(&kernel).unwrap();
                let name = format!("{op:?} of {dtype} {rows:?} × {points:?}");
                check(&name, &kernel, &values(&mut rng, &kernel), &[], 0.0);
            }
        }
    }
}

#[test]
fn columns_are_the_same_on_any_number_of_threads() {
    let mut rng = Rng::new(42);
    let kernel = kernel(ReduceOp::Sum, DType::F32, &[1000], &[257]);
    let values = values(&mut rng, &kernel);
    let one = run_bytes(&CpuBackend::with_threads(1), &kernel, &values, &[]);
    for threads in [2, 3, 7] {
        let more = run_bytes(&CpuBackend::with_threads(threads), &kernel, &values, &[]);
        assert!(more == one, "{threads} threads change the result");
    }
}

#[test]
fn rows_that_no_tile_holds_are_refused() {
    let refused = |kernel: &Kernel| CpuBackend::new().supports(kernel).is_err();
    assert!(refused(&kernel(ReduceOp::Sum, DType::F32, &[64], &[9000])), "long rows");
    assert!(refused(&kernel(ReduceOp::ArgMax, DType::F32, &[64], &[100])), "places");
    let Kernel::Loop(mut across) = kernel(ReduceOp::Sum, DType::F32, &[64], &[100]) else { unreachable!() };
    let turned = |index: &Index| index.rename(&|axis| 1 - axis);
    across.body.map_indices(&turned);
    (across.outer, across.row) = (vec![100], vec![64]);
    assert!(refused(&Kernel::Loop(across)), "rows that lie across memory");
}
