//! Formulas over elements: a sum, a chain of steps, functions, rows and columns that are one over a matrix, AdamW.

use criterion::Criterion;
use kiln::DType;
use kiln_benches::memory;
use kiln_benches::models::gelu_tanh;
use kiln_benches::row::normals;

use crate::family::{Family, Work::Bytes};

/// 16 thousand elements stay in caches, 16 million in no cache.
const SIZES: [(&str, usize); 2] = [("16k", 1 << 14), ("16m", 1 << 24)];

pub(crate) fn all(c: &mut Criterion) {
    let mut family = Family::new(c, "elementwise");
    for (size, n) in SIZES {
        family.computing(&format!("add_{size}"), Bytes(12 * n), |device| {
            let [x, y] = normals([&[n], &[n]], device)?;
            Ok(move || &x + &y)
        });
        family.computing(&format!("chain_{size}"), Bytes(12 * n), |device| {
            let [x, r] = normals([&[n], &[n]], device)?;
            Ok(move || gelu_tanh(&(&x * 1.25 + 0.5)) + &r)
        });
        family.computing(&format!("exp_{size}"), Bytes(8 * n), |device| {
            let [x] = normals([&[n]], device)?;
            Ok(move || x.exp())
        });
        family.computing(&format!("gelu_{size}"), Bytes(8 * n), |device| {
            let [x] = normals([&[n]], device)?;
            Ok(move || x.gelu())
        });
        family.computing(&format!("gelu_grad_{size}"), Bytes(12 * n), |device| {
            let [x, cotangent] = normals([&[n], &[n]], device)?;
            Ok(move || x.gelu().vjp(&cotangent, &[&x]))
        });
        family.computing(&format!("cast_f16_{size}"), Bytes(6 * n), |device| {
            let [x] = normals([&[n]], device)?;
            Ok(move || x.cast(DType::F16))
        });
        family.stepping(&format!("adamw_{size}"), Bytes(28 * n), |device| Ok(memory::adamw(1, &[n], device)?.step));
    }
    for (size, [m, n]) in [("64x256", [64, 256]), ("8kx2k", [8192, 2048]), ("50kx10", [50_000, 10])] {
        family.computing(&format!("bias_relu_{size}"), Bytes(8 * m * n), |device| {
            let [x, bias] = normals([&[m, n], &[n]], device)?;
            Ok(move || (&x + &bias).relu())
        });
        family.computing(&format!("scale_rows_{size}"), Bytes(8 * m * n), |device| {
            let [x, scale] = normals([&[m, n], &[m, 1]], device)?;
            Ok(move || &x * &scale)
        });
    }
}
