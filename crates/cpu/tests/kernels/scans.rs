//! Running reductions.

use kiln_ir::kernel::Scan;
use kiln_ir::{DType, Kernel, ReduceOp};

use crate::common::{Rng, check, read, write};

const OPS: [ReduceOp; 4] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min];

fn kernel(op: ReduceOp, reverse: bool, dtype: DType, [outer, len, inner]: [usize; 3]) -> Kernel {
    let n = outer * len * inner;
    Kernel::Scan(Scan { op, reverse, outer, len, inner, args: [read(dtype, n), write(dtype, n)] })
}

#[test]
fn rows_of_any_length_and_columns_beside_each_other() {
    let mut rng = Rng::new(31);
    let lengths = [0, 1, 2, 3, 17, 127, 129, 1000];
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I32, DType::U32] {
        for (op, reverse) in OPS.into_iter().flat_map(|op| [(op, false), (op, true)]) {
            for (len, [outer, inner]) in lengths.into_iter().flat_map(|n| [(n, [1, 1]), (n, [3, 1]), (n, [2, 70])]) {
                let extents = [outer, len, inner];
                let n = extents.iter().product();
                // Products of these stay in range, and sums of them are exact.
                let values: Vec<f64> = match (op, dtype.is_float()) {
                    (ReduceOp::Prod, true) => (0..n).map(|_| rng.pick(&[0.5, 1.0, 1.0, 2.0, -1.0])).collect(),
                    (_, true) => (0..n).map(|_| rng.below(9) as f64 / 4.0 - 1.0).collect(),
                    (_, false) => rng.values(dtype, n),
                };
                let name = format!("{op:?} {dtype} {extents:?}, reverse {reverse}");
                check(&name, &kernel(op, reverse, dtype, extents), &[values, vec![0.0; n]], &[], 0.0);
            }
        }
    }
}

#[test]
fn threads_share_long_rows() {
    let mut rng = Rng::new(32);
    for op in OPS {
        for (extents, reverse) in [([1, 100_003, 1], false), ([2, 40_000, 3], true), ([1, 33_000, 65], false)] {
            let n = extents.iter().product();
            let values = match op {
                ReduceOp::Prod => (0..n).map(|_| rng.uniform(0.999, 1.001)).collect(),
                _ => rng.values(DType::F32, n),
            };
            let values = values.into_iter().map(|v| DType::F32.round(v)).collect();
            let name = format!("{op:?} {extents:?}, reverse {reverse}");
            check(&name, &kernel(op, reverse, DType::F32, extents), &[values, vec![0.0; n]], &[], 1e-6);
        }
    }
}

#[test]
fn a_nan_stays_and_infinities_count() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for values in [[1.0, nan, 2.0, inf, -inf], [-inf, 1.0, inf, 0.0, nan], [inf, -inf, 3.0, 1.0, 2.0]] {
        for (op, reverse) in OPS.into_iter().flat_map(|op| [(op, false), (op, true)]) {
            for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
                let kernel = kernel(op, reverse, dtype, [1, 5, 1]);
                check(&format!("{op:?} {dtype} {values:?}"), &kernel, &[values.to_vec(), vec![0.0; 5]], &[], 0.0);
            }
        }
    }
}
