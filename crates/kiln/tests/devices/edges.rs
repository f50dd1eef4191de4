//! Every kind of kernel at sizes where schedules go wrong: one element, one more or less than a tile, odd lengths.
//! What a GPU computes is what the reference says, as far as rounding allows; whole numbers to the bit.

use kiln::graph::Program;
use kiln::prelude::*;

use crate::bounds::of;
use crate::common::{CPU, gpu, gpus};
use crate::generate::Kind;

const EDGES: [usize; 7] = [1, 3, 17, 127, 129, 1000, 1023];

/// Numbers that the generator `by` repeats after 23: whole ones in `-11..12`, or a tenth of them.
fn numbers(kind: Kind, dims: &[usize], by: usize, device: &Device) -> Tensor {
    let scale = if kind == Kind::Exact { 1.0 } else { 0.1 };
    let values: Vec<f64> = (0..dims.iter().product()).map(|i| ((i * by + i / 23) % 23) as f64 - 11.0).collect();
    (Tensor::from_f64(&values, dims, DType::F32, device).unwrap() * scale).detach()
}

/// `n` numbers below `end`.
fn places(n: usize, end: usize, device: &Device) -> Tensor {
    let values: Vec<i32> = (0..n).map(|i| (i * 7919 % 1009 % end) as i32).collect();
    Tensor::new(&values, &[n], device).unwrap()
}

/// Compares what a program computes on a GPU, by any schedule, with the reference.
#[track_caller]
fn check(what: &str, kind: Kind, program: &dyn Fn(&Device) -> Vec<Tensor>) {
    let gpus = gpus();
    if gpus.is_empty() {
        return;
    }
    let whole = Program::behind(&program(&CPU).iter().collect::<Vec<_>>()).unwrap();
    let expected = whole.reference();
    let bounds = of(kind, &whole, &expected);
    // A closure would not know the caller's line.
    for gpu in gpus {
        compare(what, program(gpu), (&expected, &bounds), gpu);
    }
}

#[track_caller]
fn compare(what: &str, found: Vec<Tensor>, (expected, bounds): (&[Vec<f64>], &[Vec<f64>]), gpu: &Device) {
    gpu.eval().unwrap();
    for (n, ((t, expected), bounds)) in found.iter().zip(expected).zip(bounds).enumerate() {
        let found = t.to_vec_f64().unwrap();
        assert_eq!(found.len(), expected.len());
        for (i, ((f, e), bound)) in found.iter().zip(expected).zip(bounds).enumerate() {
            assert!(f == e || (f - e).abs() <= *bound, "{what}, output {n} element {i}: {f} is not {e} ± {bound}");
        }
    }
}

/// The gradients of the sum of `y · g` by these tensors, behind `y`.
fn with_gradients(y: Tensor, by: &[&Tensor]) -> Vec<Tensor> {
    let g = numbers(Kind::Exact, y.shape(), 5, y.device());
    let grads = (&y * g).sum_all().grad(by);
    std::iter::once(y).chain(grads.into_iter().map(|g| g.expect("it depends on each"))).collect()
}

#[test]
fn loops_and_reductions() {
    for e in EDGES {
        for dims in [[e, 17], [3, e], [e, 1]] {
            check(&format!("exact loops over {dims:?}"), Kind::Exact, &|device| {
                let x = numbers(Kind::Exact, &dims, 7, device);
                let turned = (&x + x.abs()).permute(&[1, 0]) * 2.0;
                let narrow = x.cast(DType::F16).cast(DType::F32) + x.cast(DType::BF16).cast(DType::F32);
                let bytes = x.abs().cast(DType::U8);
                vec![turned, narrow, bytes, x.sum(&[0]), x.sum(&[1]), x.amax(&[0]), x.amin(&[1]), x.argmax(1)]
            });
            check(&format!("rows of {dims:?}"), Kind::Smooth, &|device| {
                let x = numbers(Kind::Smooth, &dims, 7, device);
                with_gradients(x.softmax(-1), &[&x])
            });
        }
    }
}

#[test]
fn products() {
    for (n, e) in EDGES.into_iter().enumerate() {
        let (f, g) = (EDGES[(n + 2) % 5], EDGES[(n + 3) % 4]);
        for [m, k, n] in [[e, f, g], [g, e, f], [f, g, e]] {
            check(&format!("products of {m}, {k}, {n}"), Kind::Exact, &|device| {
                let (x, y) = (numbers(Kind::Exact, &[m, k], 7, device), numbers(Kind::Exact, &[k, n], 3, device));
                let turned = x.permute(&[1, 0]).matmul(&numbers(Kind::Exact, &[m, n], 11, device));
                [with_gradients(x.matmul(&y), &[&x, &y]), vec![turned.relu()]].concat()
            });
        }
    }
}

#[test]
fn convolutions_and_pools() {
    let cases = [([1, 3, 17, 17], 5, 1), ([2, 4, 9, 3], 4, 4), ([3, 6, 8, 17], 4, 2), ([1, 1, 127, 3], 3, 1)];
    for (image, out, groups) in cases {
        for (stride, padding) in [(1, 1), (2, 0), (2, 1)] {
            let what = format!("{image:?} to {out} in {groups} groups, stride {stride}, padding {padding}");
            let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
            check(&what, Kind::Exact, &|device| {
                let x = numbers(Kind::Exact, &image, 7, device);
                let w = numbers(Kind::Exact, &[out, image[1] / groups, 3, 3], 3, device);
                let pool = Pool2dOptions { size: [3; 2], stride: [stride; 2], padding: [padding; 2] };
                let pooled = with_gradients(x.max_pool2d(pool), &[&x]);
                [with_gradients(x.conv2d(&w, options), &[&x, &w]), pooled].concat()
            });
        }
    }
}

#[test]
fn lookups_scans_and_sorts() {
    for e in EDGES {
        for dims in [[e, 3], [3, e]] {
            check(&format!("lookups, scans and sorts of {dims:?}"), Kind::Exact, &|device| {
                let x = numbers(Kind::Exact, &dims, 7, device);
                let at = places(e, dims[0], device);
                let mut found = with_gradients(x.index_select(0, &at), &[&x]);
                found.extend([x.cumsum(0), x.cumsum(1), x.cummax(1).0, x.sort(0, false).0, x.sort(1, true).1]);
                found
            });
        }
    }
}

#[test]
fn attentions() {
    for (t, s, d, causal) in
        [(1, 3, 17, false), (17, 129, 8, true), (127, 17, 64, false), (129, 127, 4, true), (3, 1, 128, false)]
    {
        check(&format!("attention {t} x {s} of {d}, causal: {causal}"), Kind::Smooth, &|device| {
            let [q, k, v] = [(t, 7), (s, 3), (s, 11)].map(|(n, by)| numbers(Kind::Smooth, &[1, 2, n, d], by, device));
            with_gradients(q.scaled_dot_product_attention(&k, &v, None, causal), &[&q, &k, &v])
        });
    }
}

#[test]
fn random_words_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for e in EDGES {
        let words = |device: &Device| {
            manual_seed(e as u32);
            Tensor::random_u32(&[3, e], device).to_vec::<u32>().unwrap()
        };
        assert_eq!(words(gpu), words(&CPU));
    }
}

/// No atomics, and no order that depends on who comes first.
#[test]
fn the_same_sums_twice() {
    let Some(gpu) = gpu() else { return };
    let run = || {
        let x = numbers(Kind::Smooth, &[4000, 5], 7, gpu);
        let at = places(4000, 9, gpu);
        let table = numbers(Kind::Smooth, &[9, 5], 3, gpu);
        let loss =
            (table.index_select(0, &at) * &x).sum_all() + x.exp().matmul(&x.permute(&[1, 0]).slice(1, 0..3)).sum_all();
        let grads = loss.grad(&[&table, &x]);
        grads.into_iter().flat_map(|g| g.unwrap().to_vec::<f32>().unwrap()).map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert!(run() == run());
}
