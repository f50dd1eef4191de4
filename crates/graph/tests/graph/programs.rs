//! Random programs: the reference, the CPU fused, unfused, without reuse and with tiny limits agree.

use kiln_graph::{Device, Program, Tensor};
use kiln_ir::DType;

use crate::common::{CPU, with_options};
use crate::generate::{Kind, program};

/// Equal to the bit for exact programs, else within the rounding of a few hundred operations.
fn check(kind: Kind, seed: u32, devices: &[(&str, Device)]) {
    let outputs = program(kind, seed, &CPU);
    let refs: Vec<&Tensor> = outputs.iter().collect();
    let whole = Program::behind(&refs).unwrap();
    let expected = whole.reference();
    for (name, device) in devices {
        let outputs = program(kind, seed, device);
        for (n, (t, expected)) in outputs.iter().zip(&expected).enumerate() {
            let found = t.to_vec_f64().unwrap();
            let scale = expected.iter().copied().filter(|v| v.is_finite()).fold(1.0f64, |a, v| a.max(v.abs()));
            let tolerance = if kind == Kind::Exact || !t.dtype().is_float() { 0.0 } else { 1e-4 * scale };
            for (i, (f, e)) in found.iter().zip(expected).enumerate() {
                let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= tolerance;
                assert!(
                    same,
                    "{name}, {kind:?} program {seed}, output {n} element {i}: {f} is not {e}\n{}\n{}",
                    whole.graph,
                    program(kind, seed, device)[n].explain()
                );
            }
        }
    }
}

fn devices() -> Vec<(&'static str, Device)> {
    vec![
        ("fused", CPU.clone()),
        ("fused, poisoned", with_options(true, true)),
        ("without reuse", with_options(true, false)),
        ("unfused", with_options(false, true)),
    ]
}

#[test]
fn exact_programs_agree_to_the_bit() {
    let devices = devices();
    for seed in 0..300 {
        check(Kind::Exact, seed, &devices);
    }
}

#[test]
fn smooth_programs_agree_within_rounding() {
    let devices = devices();
    for seed in 0..300 {
        check(Kind::Smooth, seed, &devices);
    }
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
