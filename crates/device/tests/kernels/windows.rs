//! Arguments larger than one binding: every kind of kernel, in every schedule, computes in windows what it computes
//! where arguments are bound whole.

use kiln_device::WgpuBackend;
use kiln_device::emit::{Schedule, Target, emit};
use kiln_ir::kernel::{Access, Arg, Body, Loop};
use kiln_ir::sort::Part;
use kiln_ir::{Backend, DType, Index, Kernel, PointOp, ReduceOp, Reject};

use crate::dots::matmul;
use crate::harness::{SCHEDULES, Steps, device, numbers, run, with_windows};
use crate::rows::softmax_kernel;
use crate::scans::scan;
use crate::scatters::scatter;
use crate::sorts::sort;
use crate::strips::{column_sums, mixed, norm, turned};
use crate::{attention, groups, matrices};

/// The kernel's results bound whole and in windows.
#[track_caller]
fn both(device: &WgpuBackend, kernel: &Kernel, values: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let windows = with_windows(device, kernel).expect("arguments have room for windows");
    let [whole, apart] = [device, windows].map(|device| emit(kernel, device.target()).unwrap());
    assert!(whole.bindings.len() == kernel.args().len() && !whole.wgsl.contains("_a0(at: u32"), "{}", whole.wgsl);
    assert!(apart.bindings.len() > kernel.args().len() && apart.wgsl.contains(" windows of "), "{}", apart.wgsl);
    assert_eq!(whole.workgroups, apart.workgroups);
    (run(device, kernel, values, &[(DType::F32, 1.5)]), run(windows, kernel, values, &[(DType::F32, 1.5)]))
}

/// `x ← x · 2 + y`, in place.
fn in_place(n: usize, dtype: DType) -> Kernel {
    let mut body = Body::default();
    let (x, y) = (body.load(0, dtype, Index::var(0)), body.load(1, dtype, Index::var(0)));
    let two = body.constant(DType::F32, 2.0);
    let twice = body.op(PointOp::Mul, &[x, two], DType::F32);
    let sum = body.op(PointOp::Add, &[twice, y], DType::F32);
    body.store(0, Index::var(0), sum);
    let arg = |access| Arg { dtype, numel: n, access };
    let args = vec![arg(Access::ReadWrite), arg(Access::Read)];
    Kernel::Loop(Loop { outer: vec![n], row: vec![], args, body })
}

fn kernels() -> Vec<Kernel> {
    let parts = [Part::Values, Part::Indices];
    let mut kernels = vec![
        in_place(1023, DType::F32),
        in_place(1000, DType::F16),
        mixed(129, 64, DType::F16, &[DType::U8]).0,
        mixed(100, 127, DType::F32, &[]).0,
        turned(1, [100, 64], DType::F32, DType::F16, false).0,
        norm(127, 256, DType::F16).0,
        softmax_kernel(17, 129, DType::F32, false),
        softmax_kernel(129, 17, DType::F16, true),
        column_sums(1000, 17, DType::F32).0,
        column_sums(129, 128, DType::F32).0,
        matmul([1, 129, 127, 17], [false, false], DType::F32).0,
        matmul([1, 68, 64, 72], [true, false], DType::F32).0,
        matmul([3, 17, 64, 20], [false, true], DType::F16).0,
        matmul([1, 1, 1000, 129], [false, true], DType::F32).0,
        Kernel::Dot(matrices::product([1, 64, 64, 96], [false, false], DType::F32)),
        scan(ReduceOp::Sum, false, DType::F32, [3, 1000, 1]),
        scan(ReduceOp::Max, true, DType::I32, [2, 127, 17]),
        sort(129, false, DType::F32, [3, 129, 1], &parts),
        sort(5, true, DType::I32, [2, 127, 3], &parts),
        scatter(1, 129, 17, 127, DType::F32).0,
        scatter(2, 63, 64, 17, DType::F32).0,
        scatter(1, 129, 16, 127, DType::F16).0,
        groups::group(vec![softmax_kernel(9, 300, DType::F32, false), in_place(1000, DType::F32)]),
    ];
    kernels.extend(attention::golden());
    kernels
}

#[test]
fn every_kind_of_kernel_computes_the_same_in_windows() {
    let mut seen: Vec<String> = Vec::new();
    for schedule in SCHEDULES {
        let Some(device) = device(schedule) else { return };
        // Where drivers contract sums and products, they may do so otherwise.
        let tolerance = if device.target().software { 0.0 } else { 1e-5 };
        for kernel in kernels() {
            let text = emit(&kernel, device.target()).unwrap().wgsl;
            if seen.contains(&text) {
                continue;
            }
            seen.push(text);
            let values = |(n, arg): (usize, &Arg)| numbers(n as u32, arg.numel, arg.dtype, (0.0, 2.0));
            let values: Vec<Vec<f64>> = kernel.args().iter().enumerate().map(values).collect();
            let (whole, windows) = both(device, &kernel, &values);
            for (n, (w, x)) in whole.iter().zip(&windows).enumerate() {
                let differs = |(w, x): (&f64, &f64)| !(w == x || (w - x).abs() <= tolerance * w.abs().max(1.0));
                let differing = w.iter().zip(x).position(differs);
                assert_eq!(differing, None, "{schedule:?}, a{n} of {:.300}", format!("{kernel:?}"));
            }
        }
    }
}

#[test]
fn sums_on_matrices_are_not_stored_past_a_window() {
    let kernel = Kernel::Dot(matrices::product([1, 256, 64, 256], [false, false], DType::F32));
    let target = matrices::target(Schedule::Shared);
    let whole = emit(&kernel, &target).unwrap();
    assert!(whole.uses_matrices() && whole.wgsl.contains("&a2["), "{}", whole.wgsl);
    let apart = emit(&kernel, &Target { max_binding_bytes: 128 << 10, ..target }).unwrap();
    assert!(apart.uses_matrices() && apart.wgsl.contains("store_a2(") && !apart.wgsl.contains("&a2"), "{}", apart.wgsl);
    crate::validate::validate(&apart.wgsl);
}

#[test]
fn more_windows_than_bindings_are_refused() {
    let kernel = in_place(1 << 20, DType::F32);
    let with = |max_bindings, max_binding_bytes| {
        let target = Target { max_bindings, max_binding_bytes, ..Target::default() };
        emit(&kernel, &target).map(|shader| shader.bindings.len())
    };
    assert_eq!(with(8, 4 << 20), Ok(2));
    assert_eq!(with(8, 1 << 20), Ok(8));
    // Windows are powers of two.
    assert_eq!(with(8, (2 << 20) - 4), Ok(8));
    assert_eq!(with(8, (1 << 20) - 4), Err(Reject::Bindings { needed: 16, limit: 8 }));
    assert_eq!(with(7, 1 << 20), Err(Reject::Bindings { needed: 8, limit: 7 }));
    let huge = in_place((1 << 31) + 1, DType::U8);
    assert!(matches!(emit(&huge, &Target::default()), Err(Reject::Unsupported(why)) if why.contains("2³¹")));
}

/// A little more than the adapter binds at once.
#[test]
fn what_no_binding_spans_is_computed() {
    let Some(device) = device(Schedule::Auto) else { return };
    let limit = device.target().max_binding_bytes;
    if limit > 128 << 20 {
        return println!("skipped: this adapter binds {limit} bytes");
    }
    let n = (limit / 4) as usize + (1 << 20) + 3;
    let kernel = in_place(n, DType::F32);
    let [x, y] = [3, 5].map(|by: usize| (0..n).map(|i| (i % 8191 * by) as f64).collect::<Vec<f64>>());
    let found = run(device, &kernel, &[x.clone(), y.clone()], &[]).remove(0);
    let wrong = (0..n).find(|&i| found[i] != 2.0 * x[i] + y[i]);
    assert_eq!(wrong, None);
    assert!(device.caps().bytes(DType::F32, n) > limit);
}
