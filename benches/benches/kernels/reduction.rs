//! Folds: along rows and columns, over everything, and the formulas with a fold inside.

use criterion::Criterion;
use kiln::prelude::*;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Bytes};

/// Rows that caches hold and rows that none does; rows of a few classes, and rows that no cache line ends with.
const SIZES: [(&str, [usize; 2]); 4] =
    [("64x256", [64, 256]), ("4kx4k", [4096, 4096]), ("50kx10", [50_000, 10]), ("2kx197", [2048, 197])];

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "reduction");
    for (size, [m, n]) in SIZES {
        let mut fold = |name: &str, fold: fn(&Tensor) -> Tensor| {
            family.computing(&format!("{name}_{size}"), Bytes(4 * m * n), |device| {
                let [x] = normals([&[m, n]], device)?;
                Ok(move || fold(&x))
            });
        };
        fold("sum_rows", |x| x.sum(&[1]));
        fold("sum_columns", |x| x.sum(&[0]));
        fold("sum_all", Tensor::sum_all);
        fold("max_rows", |x| x.amax(&[1]));
        fold("argmax_rows", |x| x.argmax(1));

        family.computing(&format!("softmax_{size}"), Bytes(8 * m * n), |device| {
            let [x] = normals([&[m, n]], device)?;
            Ok(move || x.softmax(-1))
        });
        family.computing(&format!("softmax_grad_{size}"), Bytes(12 * m * n), |device| {
            let [x, cotangent] = normals([&[m, n], &[m, n]], device)?;
            Ok(move || x.softmax(-1).vjp(&cotangent, &[&x]))
        });
        family.computing(&format!("layernorm_{size}"), Bytes(8 * m * n), |device| {
            let norm = LayerNorm::new(n, device);
            let [x] = normals([&[m, n]], device)?;
            Ok(move || norm.forward(&x))
        });
        family.computing(&format!("layernorm_grad_{size}"), Bytes(12 * m * n), |device| {
            let norm = LayerNorm::new(n, device);
            let [x, cotangent] = normals([&[m, n], &[m, n]], device)?;
            Ok(move || norm.forward(&x).vjp(&cotangent, &[&x, &norm.weight, &norm.bias]))
        });
    }
}
