//! Random programs: the reference and every way to plan them agree.

use std::sync::Arc;

use kiln_cpu::CpuBackend;
use kiln_graph::plan::PlanOptions;
use kiln_graph::{Device, Program, Tensor};
use kiln_ir::DType;

use crate::bounds::of;
use crate::common::CPU;
use crate::generate::{Kind, program};
use crate::limited::Limited;
use crate::nan;
use crate::running;
use crate::sorting;

/// Equal to the bit for exact programs, else within the bounds of running error analysis.
fn check(kind: Kind, seed: u32, devices: &[&(&str, Device)]) {
    let outputs = program(kind, seed, &CPU);
    let refs: Vec<&Tensor> = outputs.iter().collect();
    let whole = Program::behind(&refs).unwrap();
    let expected = whole.reference();
    let bounds = of(kind, &whole, &expected);
    for (name, device) in devices {
        let outputs = program(kind, seed, device);
        // One plan for all that is held, or one for each value that is read.
        if seed.is_multiple_of(2) {
            device.eval().unwrap_or_else(|error| panic!("{name}, {kind:?} program {seed}: {error}"));
        }
        for (n, ((t, expected), bounds)) in outputs.iter().zip(&expected).zip(&bounds).enumerate() {
            let found = t.to_vec_f64().unwrap_or_else(|error| panic!("{name}, {kind:?} program {seed}: {error}"));
            for (i, ((f, e), bound)) in found.iter().zip(expected).zip(bounds).enumerate() {
                let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= *bound;
                assert!(
                    same,
                    "{name}, {kind:?} program {seed}, output {n} element {i}: {f} is not {e} ± {bound}\n{}\n{}",
                    whole.graph,
                    program(kind, seed, device)[n].explain()
                );
            }
        }
    }
}

/// Every knob, each on a device of its own.
fn devices() -> Vec<(&'static str, Device)> {
    let cpu = |options| Device::with_options(Arc::new(CpuBackend::poisoned()), options);
    let limited = |limited| Device::with_options(Arc::new(limited), PlanOptions::default());
    let options = PlanOptions::default();
    vec![
        ("fused", cpu(options)),
        ("unfused", cpu(PlanOptions { fuse: false, ..options })),
        ("without reuse", cpu(PlanOptions { reuse: false, ..options })),
        ("freed memory poisoned", cpu(PlanOptions { poison: true, ..options })),
        ("unfused, freed memory poisoned", cpu(PlanOptions { fuse: false, poison: true, ..options })),
        ("4 bindings", limited(Limited::bindings(4))),
        ("8 bindings", limited(Limited::bindings(8))),
        ("31 bindings", limited(Limited::bindings(31))),
        ("a large GPU", limited(Limited::large())),
        ("anchors of words", limited(Limited::words())),
        ("without anchors", limited(Limited::plain())),
    ]
}

/// And one on which what the random programs have at most takes some of the bindings.
fn in_windows(mut devices: Vec<(&'static str, Device)>) -> Vec<(&'static str, Device)> {
    let limited = Arc::new(Limited::windows(31, 128));
    devices.push(("31 bindings of 128 bytes", Device::with_options(limited, PlanOptions::default())));
    devices
}

#[test]
fn exact_programs_agree_to_the_bit() {
    let devices = in_windows(devices());
    (0..200).for_each(|seed| check(Kind::Exact, seed, &devices.iter().collect::<Vec<_>>()));
}

#[test]
fn smooth_programs_agree_within_rounding() {
    let devices = in_windows(devices());
    (0..200).for_each(|seed| check(Kind::Smooth, seed, &devices.iter().collect::<Vec<_>>()));
}

/// `KILN_PROGRAMS` programs from seed `KILN_SEED` on, each as planned by default and with two more knobs.
#[test]
#[ignore = "runs for as long as it is asked to"]
fn many_programs_agree() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (first, n): (u32, u32) = (number("KILN_SEED", 1000), number("KILN_PROGRAMS", 1000));
    let mut all = devices();
    for (done, seed) in (first..first + n).enumerate() {
        if done % 2000 == 1999 {
            // Plans and kernels of programs that will not come again.
            all = devices();
            println!("{} programs from seed {first} on", done + 1);
        }
        let kind = if seed % 4 < 2 { Kind::Exact } else { Kind::Smooth };
        let knob = |n: usize| &all[1 + (seed as usize / 4 + n) % (all.len() - 1)];
        let chosen = [&all[0], knob(0), knob(4)];
        let run = std::panic::AssertUnwindSafe(|| check(kind, seed, &chosen));
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("{kind:?} program {seed} fails on one of {:?}", chosen.map(|d| d.0));
            std::panic::resume_unwind(panic);
        }
    }
    println!("{n} programs from seed {first} on agree");
}

#[test]
fn any_dtype_survives_a_round_trip() {
    for dtype in DType::ALL {
        let x = Tensor::from_f64(&[0.0, 1.0, 5.0], &[3], dtype, &CPU).unwrap();
        let one = if dtype == DType::Bool { 1.0 } else { 5.0 };
        assert_eq!(x.to_vec_f64().unwrap(), [0.0, 1.0, one]);
        assert_eq!(x.flip(0).to_vec_f64().unwrap(), [one, 1.0, 0.0]);
    }
}

#[test]
fn positions_of_extremes_are_the_first() {
    let x = Tensor::new(&[3.0f32, 1.0, 3.0, 1.0, 2.0, 2.0], &[2, 3], &CPU).unwrap();
    assert_eq!(x.argmax(-1).to_vec::<i32>().unwrap(), [0, 1]);
    assert_eq!(x.argmin(-1).to_vec::<i32>().unwrap(), [1, 0]);
    assert_eq!(x.argmin(0).to_vec::<i32>().unwrap(), [1, 0, 1]);
}

#[test]
fn a_nan_score_makes_its_row_nan() {
    let plain = Device::with_options(Arc::new(Limited::plain()), PlanOptions::default());
    for (name, device) in [("the CPU", &*CPU), ("without anchors", &plain)] {
        nan::check(name, device, 8);
    }
}

#[test]
fn running_reductions_are_what_they_say() {
    let plans = devices();
    for (name, device) in plans.iter().filter(|(name, _)| !name.contains("memory")) {
        running::check(name, device);
        running::check_gradients(name, device, &CPU);
    }
}

#[test]
fn a_long_running_sum_is_the_same_on_any_number_of_threads() {
    let x: Vec<f32> = (0..100_003).map(|i| (i * 31 % 97) as f32 / 7.0 - 6.0).collect();
    let run = |device: &Device| {
        let x = Tensor::new(&x, &[100_003], device).unwrap();
        [x.cumsum(0), x.cummax(0).0, (x * 1e-4 + 1.0).cumprod(0)].map(|y| y.to_vec::<f32>().unwrap())
    };
    let on = |n| run(&Device::new(CpuBackend::with_threads(n)));
    assert!(on(1) == on(2) && on(1) == on(5));
}

#[test]
fn sorts_are_stable_and_know_nan() {
    let plans = devices();
    for (name, device) in plans.iter().filter(|(name, _)| !name.contains("memory")) {
        sorting::check(name, device);
        sorting::check_uses(name, device);
    }
}

#[test]
fn values_and_indices_of_a_sort_are_one_kernel() {
    let x = Tensor::zeros(&[4, 9], &CPU).exp();
    let (values, indices) = x.sort(1, false);
    let plan = CPU.explain();
    assert!(plan.contains("sort_sort_argsort"), "{plan}");
    drop((values, indices));
}

#[test]
fn a_device_without_the_kernels_starts_few_others() {
    let plain = Device::with_options(Arc::new(Limited::plain()), PlanOptions::default());
    // Computed before each, since it is held.
    let x = Tensor::zeros(&[4, 1000], &plain).exp();
    let check = |n: usize, outputs: &[Tensor]| {
        let plan = plain.explain();
        assert!(plan.contains(&format!("\n{n} kernels")), "{} outputs in {n} kernels: {plan}", outputs.len());
    };
    // 1000 < 8⁴, and 1000 < 2¹⁰.
    check(1 + 4, &[x.cumsum(1)]);
    let (values, indices) = x.sort(1, true);
    check(1 + 10, &[values, indices]);
}

#[test]
fn rows_beyond_a_kernel_are_sorted_in_tiles() {
    let words = Device::with_options(Arc::new(Limited::words()), PlanOptions::default());
    // Computed before each, since it is held.
    let x = Tensor::zeros(&[4, 1000], &words).exp();
    let check = |n: usize, outputs: &[Tensor]| {
        let plan = words.explain();
        assert!(plan.contains(&format!("\n{n} kernels")), "{} outputs in {n} kernels: {plan}", outputs.len());
    };
    // Rows are made longer, 16 tiles of 64 are sorted, and merged in 4 steps.
    let (values, indices) = x.sort(1, true);
    check(1 + 1 + 1 + 4, &[values, indices]);
    // The first of 16 tiles are 64, which one more sort puts in order; then indices are looked up.
    let (values, indices) = x.topk(4, 1, true);
    check(1 + 1 + 1 + 1 + 1, &[values, indices]);
    // Narrow elements are widened on the way in and out.
    check(1 + 1 + 1, &[x.slice(1, 0..64).cast(DType::BF16).argsort(1, false)]);
}

#[test]
fn two_gradients_of_one_attention_are_both_there() {
    let x = Tensor::new(&[0.5f32, -1.0, 2.0, 0.25, 1.5, -0.5], &[3, 2], &CPU).unwrap();
    let out = x.scaled_dot_product_attention(&x, &x, None, true);
    let grad = |loss: Tensor| loss.grad(&[&x]).remove(0).unwrap();
    let both = [grad(out.square().sum_all()), grad(out.exp().sum_all())];
    CPU.eval().unwrap();
    let found = both.map(|t| t.to_vec::<f32>().unwrap());
    let alone = |f: fn(&Tensor) -> Tensor| {
        let out = x.scaled_dot_product_attention(&x, &x, None, true);
        grad(f(&out).sum_all()).to_vec::<f32>().unwrap()
    };
    assert_eq!(found, [alone(Tensor::square), alone(Tensor::exp)]);
}
