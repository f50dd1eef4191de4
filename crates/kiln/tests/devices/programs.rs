//! Random programs: what a GPU computes is what the reference says.

use kiln::graph::Program;
use kiln::ir::DType;
use kiln::{Device, Tensor};

use crate::bounds::of;
use crate::common::{CPU, gpu, gpus};
use crate::elsewhere::along;
use crate::generate::{Kind, program};
use crate::nan;
use crate::running;
use crate::sorting;

/// Runs the programs of these seeds on a GPU and compares with the reference.
pub(crate) fn check(gpu: &Device, kind: Kind, seeds: std::ops::Range<u32>) {
    for seed in seeds {
        let outputs = program(kind, seed, &CPU);
        let whole = Program::behind(&outputs.iter().collect::<Vec<_>>()).unwrap();
        let found: Vec<Tensor> = program(kind, seed, gpu);
        gpu.eval().unwrap();
        let expected = whole.reference();
        let bounds = of(kind, &whole, &expected);
        for (n, ((t, expected), bounds)) in found.iter().zip(&expected).zip(&bounds).enumerate() {
            for (i, ((f, e), bound)) in t.to_vec_f64().unwrap().iter().zip(expected).zip(bounds).enumerate() {
                let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= *bound;
                assert!(
                    same,
                    "{kind:?} program {seed}, output {n} element {i}: {f} is not {e} ± {bound}\n{}",
                    whole.graph
                );
            }
        }
    }
}

#[test]
fn exact_programs_agree_to_the_bit() {
    gpus().into_iter().for_each(|gpu| check(gpu, Kind::Exact, 0..100));
}

#[test]
fn smooth_programs_agree_within_rounding() {
    gpus().into_iter().for_each(|gpu| check(gpu, Kind::Smooth, 0..100));
}

/// No kernel of a GPU takes the wider rows: there it runs the composition.
#[test]
fn a_nan_score_makes_its_row_nan() {
    for (gpu, width) in gpus().into_iter().flat_map(|gpu| [(gpu, 8), (gpu, 130)]) {
        nan::check("a GPU", gpu, width);
    }
}

#[test]
fn running_reductions_are_what_they_say() {
    for gpu in gpus() {
        running::check("a GPU", gpu);
        running::check_gradients("a GPU", gpu, &CPU);
    }
}

#[test]
fn sorts_are_stable_and_know_nan() {
    for gpu in gpus() {
        sorting::check("a GPU", gpu);
        sorting::check_uses("a GPU", gpu);
    }
}

#[test]
fn long_rows_are_what_the_cpu_makes_of_them() {
    let Some(gpu) = gpu() else { return };
    for (dims, axis, dtype) in
        [(&[1 << 17][..], 0, DType::F32), (&[2, 9001], 1, DType::F16), (&[5000, 3], 0, DType::I32)]
    {
        let [found, expected] = [gpu, &CPU].map(|device| along(device, dims, axis, dtype));
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(found == expected, "output {n} of {dtype}{dims:?}");
        }
    }
}

/// Beyond what a software adapter's loops look at, and where looking would take the square of the length.
#[test]
fn gradients_of_many_lookups_are_the_cpus() {
    let Some(gpu) = gpu() else { return };
    let n = 70_001;
    let numbers = |by: usize, most: usize| (0..n).map(|i| (i * by % 1009 * by % most) as f64).collect::<Vec<f64>>();
    let run = |device: &Device| {
        let of = |values: Vec<f64>, dtype| Tensor::from_f64(&values, &[n], dtype, device).unwrap();
        // Sums of small whole numbers are exact.
        let (x, weights) = (of(numbers(31, 2003), DType::F32), of(numbers(7, 5), DType::F32));
        let at = of(numbers(577, n), DType::I32);
        let losses = [x.cummax(0).0 * &weights, x.gather(0, &at) * &weights];
        losses.map(|y| y.sum_all().grad(&[&x])[0].as_ref().unwrap().to_vec::<f32>().unwrap())
    };
    assert!(run(gpu) == run(&CPU));
}
