//! Random programs: what a GPU computes is what the reference says.

use kiln::Tensor;
use kiln::graph::Program;

use crate::common::{CPU, gpu};
use crate::generate::{Kind, program};

/// Runs the programs of these seeds on the GPU and compares with the reference.
fn check(kind: Kind, seeds: std::ops::Range<u32>) {
    let Some(gpu) = gpu() else { return };
    for seed in seeds {
        let outputs = program(kind, seed, &CPU);
        let whole = Program::behind(&outputs.iter().collect::<Vec<_>>()).unwrap();
        let found: Vec<Tensor> = program(kind, seed, gpu);
        gpu.eval().unwrap();
        for (n, (t, expected)) in found.iter().zip(whole.reference()).enumerate() {
            let scale = expected.iter().copied().filter(|v| v.is_finite()).fold(1.0f64, |a, v| a.max(v.abs()));
            // Up to 32 units in the last place for WGSL's `exp`, over a dozen steps.
            let tolerance = if kind == Kind::Exact || !t.dtype().is_float() { 0.0 } else { 1e-4 * scale };
            for (i, (f, e)) in t.to_vec_f64().unwrap().iter().zip(&expected).enumerate() {
                let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= tolerance;
                assert!(same, "{kind:?} program {seed}, output {n} element {i}: {f} is not {e}\n{}", whole.graph);
            }
        }
    }
}

#[test]
fn exact_programs_agree_to_the_bit() {
    check(Kind::Exact, 0..100);
}

#[test]
fn smooth_programs_agree_within_rounding() {
    check(Kind::Smooth, 0..100);
}
