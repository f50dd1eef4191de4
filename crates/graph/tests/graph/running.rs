//! Running reductions on any device, judged by loops over their definitions.

use kiln_graph::{Device, Tensor};
use kiln_ir::DType;

use crate::stream::Stream;

/// Lengths around those of vectors, of the composition's steps, and beyond one.
const LENGTHS: [usize; 8] = [0, 1, 2, 3, 17, 127, 129, 1000];

/// The dims of tensors with an axis of this length, and the axis.
fn around(len: usize) -> [(Vec<usize>, usize); 3] {
    [(vec![len], 0), (vec![3, len], 1), (vec![2, len, 5], 1)]
}

/// The rows of a tensor along an axis: for each, where its elements are.
fn rows(dims: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let row = |r: usize| (0..dims[axis]).map(|k| (r / inner * dims[axis] + k) * inner + r % inner).collect();
    (0..outer * inner).map(row).collect()
}

/// What a device gives for a tensor's running reductions, beside what it should.
#[track_caller]
fn compare(name: &str, x: &Tensor, values: &[f64], axis: usize) {
    let at = axis as isize;
    let (max, place) = x.cummax(at);
    let found = [x.cumsum(at), max, place, x.cummin(at).0, x.cumprod(at)];
    x.device().eval().unwrap();
    let found = found.map(|t| t.to_vec_f64().unwrap());
    for row in rows(x.dims(), axis) {
        let (mut sum, mut max, mut place, mut min, mut product) = (0.0, f64::NEG_INFINITY, 0, f64::INFINITY, 1.0);
        for (k, &i) in row.iter().enumerate() {
            let v = values[i];
            sum += v;
            product *= v;
            if v.is_nan() || v >= max {
                (max, place) = (v, k);
            }
            min = if v.is_nan() || v < min { v } else { min };
            let expected = [sum, max, place as f64, min, product].map(|v| x.dtype().round(v));
            for (n, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let same = found[i] == *expected || found[i].is_nan() && expected.is_nan();
                assert!(same, "{name}, {}, reduction {n} of {k}: {} is not {expected}", x.shape(), found[i]);
            }
        }
    }
}

/// Checks a device on rows of any length and dtype; sums are exact, so order does not matter.
#[track_caller]
pub(crate) fn check(name: &str, device: &Device) {
    for (dims, axis) in LENGTHS.into_iter().flat_map(around) {
        let n = dims.iter().product();
        let mut stream = Stream(n as u32, 5);
        for dtype in [DType::F32, DType::F16, DType::I32] {
            let few = if dtype == DType::I32 { 2 } else { 3 };
            let values: Vec<f64> = (0..n).map(|_| stream.below(few) as f64 - 1.0).collect();
            let x = Tensor::from_f64(&values, &dims, dtype, device).unwrap();
            compare(&format!("{name}, {dtype}"), &x, &values, axis);
        }
    }
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for values in [[1.0, nan, 2.0, inf, nan, -inf], [-inf, 1.0, inf, 1.0, 3.0, nan]] {
        let x = Tensor::from_f64(&values, &[6], DType::F32, device).unwrap();
        compare(name, &x, &values, 0);
    }
}

/// Checks the gradients of a device against another's.
#[track_caller]
pub(crate) fn check_gradients(name: &str, device: &Device, other: &Device) {
    let run = |device: &Device| {
        let values: Vec<f64> = (0..2 * 37 * 3).map(|i| ((i * 29 % 41) as f64 - 20.0) / 16.0).collect();
        let x = Tensor::from_f64(&values, &[2, 37, 3], DType::F32, device).unwrap();
        let loss = [x.cumsum(1), x.cummax(1).0, x.cummin(1).0, (&x * 0.5 + 1.0).cumprod(1)];
        loss.map(|y| y.square().mean_all().grad(&[&x])[0].as_ref().unwrap().to_vec_f64().unwrap())
    };
    let empty = Tensor::zeros(&[2, 0, 3], device);
    for y in [empty.cumsum(1), empty.cumprod(1), empty.cummax(1).0] {
        assert!(y.sum_all().grad(&[&empty])[0].as_ref().unwrap().to_vec::<f32>().unwrap().is_empty());
    }
    for (n, (found, expected)) in run(device).iter().zip(&run(other)).enumerate() {
        let largest = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f - e).abs() <= 1e-4 * largest, "{name}: gradient {n} element {i}: {f} is not {e}");
        }
    }
}
