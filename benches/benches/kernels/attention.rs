//! Attention: forward, and its three gradients, with and without the causal mask.

use criterion::Criterion;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Flops};

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "attention");
    for (size, dims) in [("1x2x64x32", [1, 2, 64, 32]), ("4x8x512x64", [4, 8, 512, 64])] {
        let [b, h, t, d] = dims;
        for (name, causal) in [("", false), ("_causal", true)] {
            // Of one product; causality needs half.
            let product = 2 * b * h * t * t * d / if causal { 2 } else { 1 };
            family.computing(&format!("forward{name}_{size}"), Flops(2 * product), |device| {
                let [q, k, v] = normals([&dims[..]; 3], device)?;
                Ok(move || q.scaled_dot_product_attention(&k, &v, None, causal))
            });
            // The result is held, as a training step does: the gradients read the sums of its rows.
            family.computing(&format!("forward_backward{name}_{size}"), Flops(7 * product), |device| {
                let [q, k, v, cotangent] = normals([&dims[..]; 4], device)?;
                Ok(move || {
                    let y = q.scaled_dot_product_attention(&k, &v, None, causal);
                    let grads = y.vjp(&cotangent, &[&q, &k, &v]);
                    (y, grads)
                })
            });
        }
    }
}
