//! Running reductions of every dtype and length, in every schedule.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::Scan;
use kiln_ir::{DType, Kernel, ReduceOp};

use crate::harness::{SCHEDULES, check, check_in, check_on, numbers, read, with_few_workgroups, write};
use crate::validate::validate;

const OPS: [ReduceOp; 4] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min];

pub(crate) fn scan(op: ReduceOp, reverse: bool, dtype: DType, [outer, len, inner]: [usize; 3]) -> Kernel {
    let n = outer * len * inner;
    Kernel::Scan(Scan { op, reverse, outer, len, inner, args: [read(dtype, n), write(dtype, n)] })
}

#[test]
fn rows_of_any_length_and_columns_beside_each_other() {
    for len in [0, 1, 2, 3, 17, 127, 129, 1000, 1023] {
        for (outer, inner) in [(1, 1), (3, 1), (2, 35), (0, 2)] {
            let extents = [outer, len, inner];
            let n = extents.iter().product();
            for (turn, op) in OPS.into_iter().enumerate() {
                let dtypes = if len == 129 { &[DType::F32, DType::I32, DType::U32][..] } else { &[DType::F32] };
                for &dtype in dtypes {
                    // Each op runs both ways, and each way is that of several lengths.
                    let reverse = (turn + len + dtype as usize).is_multiple_of(2);
                    // Products of these stay in range, sums are exact.
                    let values = match (op, dtype) {
                        (ReduceOp::Prod, DType::F32) => {
                            let signs = numbers(3, n, DType::I32, (0.0, 5.0));
                            signs.iter().map(|&v| [0.5, 1.0, -1.0, 2.0, 1.0][v as usize]).collect()
                        }
                        (_, DType::F32) => numbers(4, n, DType::I32, (-9.0, 9.0)).iter().map(|v| v / 4.0).collect(),
                        (_, DType::U32) => numbers(5, n, dtype, (0.0, 4e9)),
                        _ => numbers(6, n, dtype, (-2e9, 2e9)),
                    };
                    check(&scan(op, reverse, dtype, extents), &[values, vec![0.0; n]], &[], 0.0);
                }
            }
        }
    }
}

#[test]
fn long_rows_are_carried_from_tile_to_tile() {
    for (op, extents, reverse) in [
        (ReduceOp::Sum, [1, 1 << 17, 1], false),
        (ReduceOp::Sum, [2, 20_001, 3], true),
        (ReduceOp::Prod, [1, 30_003, 1], false),
        (ReduceOp::Max, [1, 100_003, 1], true),
        (ReduceOp::Min, [20, 5000, 1], false),
    ] {
        let n = extents.iter().product();
        // The rounding of n products grows with the square root of n; that of sums, which grow, with that of their blocks.
        let range = if op == ReduceOp::Prod { (0.999, 1.001) } else { (-0.5, 1.5) };
        let tolerance = if op == ReduceOp::Prod { 3e-5 } else { 1e-5 };
        let schedules = match n > 65_000 && extents[1] > 65_000 {
            // Else one invocation would take more turns than a software adapter's loops have.
            true => &[Schedule::Shared, Schedule::Auto][..],
            false => &[Schedule::Plain, Schedule::Shared, Schedule::Auto],
        };
        let values = numbers(7, n, DType::F32, range);
        check_in(schedules, &scan(op, reverse, DType::F32, extents), &[values, vec![0.0; n]], &[], tolerance);
    }
}

#[test]
fn a_nan_stays_and_infinities_count() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for values in [[1.0, nan, 2.0, inf, -inf], [-inf, 1.0, inf, 0.0, nan], [inf, -inf, 3.0, 1.0, 2.0]] {
        for (op, reverse) in OPS.into_iter().flat_map(|op| [(op, false), (op, true)]) {
            check(&scan(op, reverse, DType::F32, [1, 5, 1]), &[values.to_vec(), vec![0.0; 5]], &[], 0.0);
            // Far apart, in different tiles.
            let far: Vec<f64> = values.iter().flat_map(|&v| [vec![v], vec![1.0; 600]].concat()).collect();
            let n = far.len();
            check(&scan(op, reverse, DType::F32, [1, n, 1]), &[far, vec![0.0; n]], &[], 0.0);
        }
    }
}

#[test]
fn a_product_leaves_the_range_of_its_dtype_on_the_way() {
    // No product lies between 0 and the least normal number: devices may flush what does.
    let tiny = 2f64.powi(-100);
    let big = 2f64.powi(100);
    for values in [
        vec![0.0, big, big, big, -1.0, 0.5],
        vec![2.0, big, big, 1.0 / big, 1.0 / big, 3.0, -0.0, 1.0],
        vec![tiny, 2.0, big, tiny, tiny, -big, big, big],
    ] {
        for reverse in [false, true] {
            let n = values.len();
            let kernel = scan(ReduceOp::Prod, reverse, DType::F32, [1, n, 1]);
            check(&kernel, &[values.clone(), vec![0.0; n]], &[], 0.0);
        }
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let target = Target::default();
    for kernel in [
        scan(ReduceOp::Sum, false, DType::F16, [1, 8, 1]),
        scan(ReduceOp::Sum, false, DType::U8, [1, 8, 1]),
        scan(ReduceOp::Sum, false, DType::F64, [1, 8, 1]),
        scan(ReduceOp::ArgMax, false, DType::I32, [1, 8, 1]),
    ] {
        assert!(emit(&kernel, &target).is_err());
    }
    let small = Target { max_workgroup_bytes: 1024, schedule: Schedule::Shared, ..target };
    assert!(emit(&scan(ReduceOp::Sum, false, DType::F32, [1, 4096, 1]), &small).is_err());
}

#[test]
fn more_rows_than_workgroups_come_one_after_the_other() {
    for schedule in SCHEDULES {
        let Some(device) = with_few_workgroups(schedule) else { return };
        for extents in [[300, 20, 1], [10, 1100, 1], [3, 4, 300]] {
            let kernel = scan(ReduceOp::Sum, true, DType::I32, extents);
            assert_eq!(emit(&kernel, device.target()).map(|shader| shader.workgroups <= 7), Ok(true));
            let n = extents.iter().product();
            check_on(&device, &kernel, &[numbers(8, n, DType::I32, (-2e9, 2e9)), vec![0.0; n]], &[], 0.0);
        }
    }
    let few = Target { max_workgroups: 7, ..Target::default() };
    for extents in [[1000, 500, 1], [1000, 2000, 1], [3, 4, 5000]] {
        let shader = emit(&scan(ReduceOp::Sum, false, DType::F32, extents), &few).unwrap();
        assert_eq!(shader.workgroups, 7);
        validate(&shader.wgsl);
    }
}
