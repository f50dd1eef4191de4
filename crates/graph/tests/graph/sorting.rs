//! Sorts on any device, judged by the standard library's stable one.

use std::cmp::Ordering;

use kiln_graph::{Device, Tensor};
use kiln_ir::DType;

use crate::stream::Stream;

/// NaN after all numbers.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[track_caller]
fn compare(name: &str, device: &Device, values: &[f64], dims: &[usize], axis: usize, dtype: DType) {
    let x = Tensor::from_f64(values, dims, dtype, device).unwrap();
    let (len, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    for descending in [false, true] {
        let (sorted, places) = x.sort(axis as isize, descending);
        device.eval().unwrap();
        let (sorted, places) = (sorted.to_vec_f64().unwrap(), places.to_vec::<i32>().unwrap());
        for row in 0..dims[..axis].iter().product::<usize>() * inner {
            let at = |k: usize| (row / inner * len + k) * inner + row % inner;
            let mut expected: Vec<usize> = (0..len).collect();
            expected.sort_by(|&a, &b| {
                let order = order(values[at(a)], values[at(b)]);
                if descending { order.reverse() } else { order }
            });
            for (k, &from) in expected.iter().enumerate() {
                let (v, found, place) = (values[at(from)], sorted[at(k)], places[at(k)]);
                let same = place == from as i32 && (v == found || v.is_nan() && found.is_nan());
                assert!(
                    same,
                    "{name}, {dtype}{dims:?}, descending {descending}: {k} is {found} from {place}, not {v} from {from}"
                );
            }
        }
    }
}

/// Checks a device on rows of any length, and of any dtype that it has.
#[track_caller]
pub(crate) fn check(name: &str, device: &Device) {
    for len in [0, 1, 2, 3, 17, 127, 129, 1000] {
        for (dims, axis) in [(vec![len], 0), (vec![2, len, 3], 1)] {
            let n = dims.iter().product();
            let mut stream = Stream(n as u32, 6);
            let all = if len == 17 { &device.caps().dtypes[..] } else { &[DType::F32] };
            for &dtype in all {
                // Some are equal.
                let values: Vec<f64> = (0..n).map(|_| dtype.round(stream.below(90) as f64 - 40.0)).collect();
                compare(name, device, &values, &dims, axis, dtype);
            }
        }
    }
    let of = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0];
    let mut stream = Stream(1, 6);
    let values: Vec<f64> = (0..75).map(|_| *stream.pick(&of)).collect();
    compare(name, device, &values, &[3, 25], 1, DType::F32);
    compare(name, device, &values, &[25, 3], 0, DType::F16);
}

/// Checks what is made of sorts: the greatest few, and gradients.
#[track_caller]
pub(crate) fn check_uses(name: &str, device: &Device) {
    let x = Tensor::new(&[3.0f32, f32::NAN, 1.0, 3.0, -2.0, 0.0, 5.0, 0.0], &[2, 4], device).unwrap();
    let (most, at) = x.topk(2, 1, true);
    let (least, _) = x.topk(1, -1, false);
    let (most, least) = (most.to_vec::<f32>().unwrap(), least.to_vec::<f32>().unwrap());
    assert!(most[0].is_nan() && most[1..] == [3.0, 5.0, 0.0] && least == [1.0, -2.0], "{name}: {most:?}, {least:?}");
    assert_eq!(at.to_vec::<i32>().unwrap(), [1, 0, 2, 1], "{name}");
    let (none, nowhere) = x.topk(0, 1, true);
    assert!(none.to_vec::<f32>().unwrap().is_empty() && nowhere.dims() == [2, 0], "{name}");

    let x = Tensor::new(&[3.0f32, 1.0, 2.0, 1.0, 7.0, 0.0], &[2, 3], device).unwrap();
    let weights = Tensor::new(&[10.0f32, 20.0, 30.0], &[3], device).unwrap();
    let gradient = |y: Tensor| y.sum_all().grad(&[&x])[0].as_ref().unwrap().to_vec::<f32>().unwrap();
    assert_eq!(gradient(x.sort(1, false).0 * &weights), [30.0, 10.0, 20.0, 20.0, 30.0, 10.0], "{name}");
    assert_eq!(gradient(x.topk(1, 1, true).0), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "{name}");
    assert_eq!(gradient(x.topk(1, 0, false).0), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], "{name}");
    assert_eq!(gradient(x.topk(0, 1, false).0), [0.0; 6], "{name}");
}
