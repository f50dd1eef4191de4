//! A NaN among the scores of an attention: it reaches all that has a part in it, and nothing before it.

use kiln_graph::{Device, Tensor};

const T: usize = 6;
const S: usize = 7;

/// The output, and the gradients of `q`, `k` and `v`, of an attention with rows of so many columns.
fn values(device: &Device, width: usize, causal: bool, nan: Option<(usize, usize)>) -> Vec<Vec<f64>> {
    let operand = |(n, rows): (usize, usize)| {
        let mut x: Vec<f32> = (0..rows * width).map(|i| ((i * 7 + n * 3) % 11) as f32 / 11.0 - 0.5).collect();
        if let Some((_, row)) = nan.filter(|nan| nan.0 == n) {
            x[row * width + width / 2] = f32::NAN;
        }
        Tensor::new(&x, &[rows, width], device).unwrap()
    };
    let [q, k, v] = [(0, T), (1, S), (2, S)].map(operand);
    let out = q.scaled_dot_product_attention(&k, &v, None, causal);
    let grads = out.square().sum_all().grad(&[&q, &k, &v]);
    let all = std::iter::once(out).chain(grads.into_iter().flatten());
    all.map(|x| x.to_vec_f64().unwrap()).collect()
}

/// Checks every element of a device's attention, of kernels and of a composition where `width` is more than these take.
///
/// What the gradients of rows and keys that a NaN is hidden from are is nothing that a device promises: 0·NaN is NaN,
/// and some multiply.
#[track_caller]
pub(crate) fn check(name: &str, device: &Device, width: usize) {
    for causal in [false, true] {
        let clean = values(device, width, causal, None);
        for (operand, row) in [(0, 0), (0, 3), (1, 0), (1, 4)] {
            let found = values(device, width, causal, Some((operand, row)));
            let sees = |i: usize, j: usize| !causal || j <= i;
            let is_nan = |i: usize| if operand == 0 { i == row } else { sees(i, row) };
            let rows: Vec<bool> = (0..T).map(is_nan).collect();
            let keys: Vec<bool> = (0..S).map(|j| (0..T).any(|i| rows[i] && sees(i, j))).collect();
            for (part, nan) in [(0, &rows), (1, &rows), (2, &keys), (3, &keys)] {
                for (n, (found, clean)) in found[part].iter().zip(&clean[part]).enumerate() {
                    let near = (found - clean).abs() < 1e-5;
                    let right = if nan[n / width] { found.is_nan() } else { near || part > 0 && found.is_nan() };
                    assert!(
                        right,
                        "{name}, {width} columns, causal {causal}, NaN in operand {operand} row {row}: \
                         part {part} element {n} is {found}"
                    );
                }
            }
        }
    }
}
