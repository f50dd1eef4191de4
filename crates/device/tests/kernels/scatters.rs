//! Scatters of every dtype and shape, in every schedule.

use kiln_device::emit::{Target, emit};
use kiln_ir::kernel::Scatter;
use kiln_ir::{DType, Kernel};

use crate::harness::{SCHEDULES, check, check_on, numbers, read, with_few_workgroups, write};

pub(crate) fn scatter(outer: usize, index: usize, inner: usize, size: usize, dtype: DType) -> (Kernel, Vec<Vec<f64>>) {
    let args = [read(DType::I32, index), read(dtype, outer * index * inner), write(dtype, outer * size * inner)];
    let kernel = Scatter { outer: vec![outer], index: vec![index], inner: vec![inner], size, args };
    // Some indices lie outside on either side; sums of small whole numbers are exact.
    let places = numbers(1, index, DType::I32, (-2.0, size as f64 + 2.0));
    let values = numbers(2, outer * index * inner, DType::I32, (0.0, 4.0));
    (Kernel::Scatter(kernel), vec![places, values, vec![0.0; outer * size * inner]])
}

#[test]
fn slices_add_up_where_they_belong() {
    for (outer, index, inner, size) in [
        (1, 7, 3, 4),
        (2, 300, 40, 30),
        (1, 1000, 300, 65),
        (1, 700, 1, 2000),
        (1, 9000, 8, 40),
        (2, 5000, 3, 30),
        (1, 4100, 4, 1500),
        (3, 257, 5, 1),
        (1, 0, 3, 4),
        (0, 5, 3, 4),
        (1, 5, 0, 4),
    ] {
        for dtype in [DType::F32, DType::I32, DType::F16] {
            let (kernel, values) = scatter(outer, index, inner, size, dtype);
            check(&kernel, &values, &[], 0.0);
        }
    }
}

#[test]
fn few_workgroups_come_back_for_more() {
    for schedule in SCHEDULES {
        let Some(device) = with_few_workgroups(schedule) else { return };
        for (outer, index, inner, size) in [(2, 300, 40, 130), (1, 700, 1, 3000)] {
            let (kernel, values) = scatter(outer, index, inner, size, DType::F32);
            assert!(emit(&kernel, device.target()).unwrap().workgroups <= 7);
            check_on(&device, &kernel, &values, &[], 0.0);
        }
    }
}

#[test]
fn what_is_sooner_sorted_is_refused() {
    let gpu = Target::default();
    let software = Target { software: true, max_turns: 65_000, ..Target::default() };
    let runs = |target: &Target, [index, inner, size]: [usize; 3], dtype| {
        let args = [read(DType::I32, index), read(dtype, index * inner), write(dtype, size * inner)];
        let kernel = Scatter { outer: vec![], index: vec![index], inner: vec![inner], size, args };
        emit(&Kernel::Scatter(kernel), target).is_ok()
    };
    assert!(runs(&gpu, [1 << 17, 1, 1 << 17], DType::F32) && !runs(&gpu, [1 << 20, 1, 1 << 20], DType::F32));
    // Few results, or long slices: an embedding's gradient.
    assert!(runs(&gpu, [1 << 20, 1, 9], DType::F32) && runs(&gpu, [1 << 15, 768, 2000], DType::F32));
    assert!(!runs(&gpu, [1 << 17, 1, 1 << 17], DType::F16));
    assert!(runs(&software, [5000, 1, 5000], DType::F32) && !runs(&software, [9000, 1, 9000], DType::F32));
    assert!(!runs(&software, [70_000, 1, 2], DType::F32));
}
