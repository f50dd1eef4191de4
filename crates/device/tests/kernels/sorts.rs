//! Sorts of every dtype and length, in every schedule.

use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::Sort;
use kiln_ir::sort::Part;
use kiln_ir::{DType, Kernel};

use crate::harness::{SCHEDULES, check, check_in, check_on, numbers, read, with_few_workgroups, write};
use crate::validate::validate;

/// A sort that keeps so many, into an argument for each of these parts.
pub(crate) fn sort(
    keep: usize,
    descending: bool,
    dtype: DType,
    [outer, len, inner]: [usize; 3],
    parts: &[Part],
) -> Kernel {
    let (n, kept) = (outer * len * inner, outer * keep * inner);
    let dtype_of = |part: &Part| if *part == Part::Values { dtype } else { DType::I32 };
    let args = std::iter::once(read(dtype, n)).chain(parts.iter().map(|p| write(dtype_of(p), kept))).collect();
    let stores = parts.iter().copied().zip(1..).collect();
    Kernel::Sort(Sort { descending, outer, len, inner, keep, args, stores })
}

/// The values, and room for each part.
fn with_room(kernel: &Kernel, values: Vec<f64>) -> Vec<Vec<f64>> {
    let room = kernel.args()[1..].iter().map(|arg| vec![0.0; arg.numel]);
    std::iter::once(values).chain(room).collect()
}

#[test]
fn rows_of_any_length_and_dtype() {
    for len in [0, 1, 2, 3, 17, 127, 129, 256, 1000] {
        for (outer, inner) in [(1, 1), (5, 1), (2, 3)] {
            let extents = [outer, len, inner];
            let n = extents.iter().product();
            let words = if len == 17 { &[DType::F32, DType::I32, DType::U32, DType::Bool][..] } else { &[DType::F32] };
            for &dtype in words {
                // Few different numbers, so that many are equal, and many.
                let many = if dtype == DType::U32 { (0.0, 4e9) } else { (-2e9, 2e9) };
                let few = if matches!(dtype, DType::U32 | DType::Bool) { (0.0, 1.9) } else { (-4.0, 4.0) };
                let few = numbers(1, n, DType::I32, few);
                let many = if dtype == DType::Bool { few.clone() } else { numbers(2, n, dtype, many) };
                for values in [few, many] {
                    let parts = [Part::Values, Part::Indices, Part::Indices];
                    let kernel = sort(len, false, dtype, extents, &parts);
                    check(&kernel, &with_room(&kernel, values.clone()), &[], 0.0);
                    let kernel = sort(len / 2, true, dtype, extents, &parts[..2]);
                    check(&kernel, &with_room(&kernel, values), &[], 0.0);
                }
            }
        }
    }
}

#[test]
fn places_of_narrow_elements() {
    for dtype in [DType::F16, DType::BF16, DType::U8] {
        let range = if dtype == DType::U8 { (0.0, 200.0) } else { (-9.0, 9.0) };
        for (extents, descending) in [([3, 33, 1], false), ([1, 300, 2], true)] {
            let kernel = sort(extents[1], descending, dtype, extents, &[Part::Indices]);
            let values = numbers(3, extents.iter().product(), dtype, range);
            check(&kernel, &with_room(&kernel, values), &[], 0.0);
        }
    }
}

#[test]
fn nan_is_greatest_and_zeros_are_equal() {
    let of = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45];
    for (len, descending) in [(40, false), (40, true), (700, false), (700, true)] {
        let values = numbers(4, len, DType::I32, (0.0, 10.0)).iter().map(|&v| of[v as usize]).collect();
        let kernel = sort(len, descending, DType::F32, [1, len, 1], &[Part::Values, Part::Indices]);
        check(&kernel, &with_room(&kernel, values), &[], 0.0);
    }
}

#[test]
fn greatest_and_least_integers_keep_their_places() {
    for (dtype, values) in [
        (DType::I32, [i32::MIN as f64, i32::MAX as f64, 0.0, -1.0, 1.0, i32::MIN as f64]),
        (DType::U32, [u32::MAX as f64, 0.0, 2147483648.0, 2147483647.0, 1.0, 0.0]),
    ] {
        for descending in [false, true] {
            let kernel = sort(6, descending, dtype, [1, 6, 1], &[Part::Values, Part::Indices]);
            check(&kernel, &with_room(&kernel, values.to_vec()), &[], 0.0);
        }
    }
}

#[test]
fn the_longest_rows_that_fit() {
    for (extents, keep) in [([2, 1024, 1], 1024), ([1, 1023, 2], 5), ([1, 1000, 2], 300)] {
        let kernel = sort(keep, true, DType::F32, extents, &[Part::Values, Part::Indices]);
        let values = numbers(5, extents.iter().product(), DType::I32, (-500.0, 500.0));
        check_in(&SCHEDULES[1..], &kernel, &with_room(&kernel, values), &[], 0.0);
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let sorted = |dtype, len, target: &Target| emit(&sort(len, false, dtype, [1, len, 1], &[Part::Values]), target);
    let target = Target::default();
    assert!(sorted(DType::F32, 1024, &target).is_ok());
    // 16 KiB hold 1024 keys and places, before and after a merge.
    assert!(sorted(DType::F32, 1025, &target).is_err());
    assert!(sorted(DType::F16, 8, &target).is_err() && sorted(DType::F64, 8, &target).is_err());
    assert!(sorted(DType::F32, 5000, &Target { schedule: Schedule::Plain, ..target }).is_err());
}

#[test]
fn more_rows_than_workgroups_come_one_after_the_other() {
    for schedule in SCHEDULES {
        let Some(device) = with_few_workgroups(schedule) else { return };
        for extents in [[60, 9, 3], [30, 100, 1]] {
            let kernel = sort(extents[1] / 3, false, DType::F32, extents, &[Part::Values, Part::Indices]);
            assert_eq!(emit(&kernel, device.target()).map(|shader| shader.workgroups <= 7), Ok(true));
            let values = numbers(6, extents.iter().product(), DType::I32, (-20.0, 20.0));
            check_on(&device, &kernel, &with_room(&kernel, values), &[], 0.0);
        }
    }
    let few = Target { max_workgroups: 7, ..Target::default() };
    for extents in [[1000, 10, 1], [1000, 500, 1], [30, 100, 50]] {
        let kernel = sort(extents[1], false, DType::F32, extents, &[Part::Values, Part::Indices]);
        let shader = emit(&kernel, &few).unwrap();
        assert_eq!(shader.workgroups, 7);
        validate(&shader.wgsl);
    }
}
