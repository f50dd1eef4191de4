//! Pools: windows side by side and windows that overlap, forward and backward.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Bytes};

type Pool = fn(&Tensor, Pool2dOptions) -> Tensor;

/// Side by side as in most small networks, overlapping as at the start of a ResNet.
const POOLS: [(&str, Pool, Pool2dOptions); 5] = [
    ("max_2x2", Tensor::max_pool2d, Pool2dOptions { size: [2; 2], stride: [2; 2], padding: [0; 2] }),
    ("avg_2x2", Tensor::avg_pool2d, Pool2dOptions { size: [2; 2], stride: [2; 2], padding: [0; 2] }),
    ("max_3x3_over_2", Tensor::max_pool2d, Pool2dOptions { size: [3; 2], stride: [2; 2], padding: [0; 2] }),
    ("max_3x3_over_2_padded", Tensor::max_pool2d, Pool2dOptions { size: [3; 2], stride: [2; 2], padding: [1; 2] }),
    ("avg_3x3_over_2", Tensor::avg_pool2d, Pool2dOptions { size: [3; 2], stride: [2; 2], padding: [0; 2] }),
];

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "pooling");
    for (size, dims) in [("4x8x28x28", [4, 8, 28, 28]), ("32x64x56x56", [32, 64, 56, 56])] {
        for (name, pool, options) in POOLS {
            let side = |n: usize| (n + 2 * options.padding[0] - options.size[0]) / 2 + 1;
            let out: [usize; 4] = std::array::from_fn(|i| if i < 2 { dims[i] } else { side(dims[i]) });
            let [n_in, n_out] = [dims, out].map(|dims| dims.iter().product::<usize>());
            family.computing(&format!("{name}_{size}"), Bytes(4 * (n_in + n_out)), |device| {
                let [x] = normals([&dims], device)?;
                Ok(move || pool(&x, options))
            });
            // The gradient of a mean does not read the image; that of a maximum does.
            let n_read = if name.starts_with("max") { n_in } else { 0 };
            family.computing(&format!("{name}_grad_{size}"), Bytes(4 * (n_read + n_out + n_in)), |device| {
                let [x, cotangent] = normals([&dims, &out], device)?;
                // The gradient of a mean is a view of the cotangent; `detach` asks for its elements.
                Ok(move || pool(&x, options).vjp(&cotangent, &[&x])[0].as_ref().map(Tensor::detach))
            });
        }
    }
}
